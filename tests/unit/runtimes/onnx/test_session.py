"""What our side of onnxruntime does beyond the session contract: devices that are not there, and its error texts."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from runtimes.errors import LoadFailed, ModelFailed
from runtimes.onnx import session as session_module
from runtimes.onnx.causes import short_cause
from runtimes.onnx.memory import HostMemory, MemoryFault
from runtimes.onnx.session import OnnxSession, open_session
from runtimes.spec import BatchingSpec, BatchLimits, RuntimeSpec
from runtimes.tensor import Datatype
from tests.support import models
from tests.support.cuda import GraphSession


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    return models.write(tmp_path, models.linear())


def spec(path: Path, **fields: Any) -> RuntimeSpec:
    return RuntimeSpec(path=str(path), sha256="", **fields)


class Engine:
    """Stands in for onnxruntime: what is installed, and what becomes of a wish for a device."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, on_device: Callable[[Any], Any]) -> None:
        self.real = onnxruntime.InferenceSession
        self.on_device = on_device
        self.asked: list[list[str]] = []
        self.with_graphs: list[bool] = []
        self.preloaded = 0
        names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
        monkeypatch.setattr(onnxruntime, "preload_dlls", self.preload, raising=False)
        monkeypatch.setattr(onnxruntime, "InferenceSession", self.create)

    def preload(self) -> None:
        self.preloaded += 1

    def create(self, path: str, options: Any, providers: list[Any], enable_fallback: int) -> Any:
        assert enable_fallback == 0
        self.asked.append([name for name, _ in providers])
        self.with_graphs.append("enable_cuda_graph" in providers[0][1])
        session = self.real(path, options, providers=["CPUExecutionProvider"])
        return session if len(providers) == 1 else self.on_device(session)


class OnDevice:
    """A session of the CPU that says it is on the device."""

    def __init__(self, session: Any) -> None:
        self.session = session

    def get_providers(self) -> list[str]:
        return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


def no_driver(session: Any) -> Any:
    raise RuntimeError("/onnxruntime_src/cuda_call.cc:129 bool CudaCall(int) CUDA failure 100: no device is detected")


def test_a_device_that_holds_the_session_is_used(monkeypatch: pytest.MonkeyPatch, linear: Path) -> None:
    engine = Engine(monkeypatch, OnDevice)
    session = open_session(spec(linear, provider="cuda"), 0, 1)
    assert engine.asked == [["CUDAExecutionProvider", "CPUExecutionProvider"]]
    assert engine.preloaded == 1
    assert session.run({"x": np.zeros((2, 4), np.float32)}, None)["y"].shape == (2, 3)


def test_the_folder_for_tensorrt_engines_is_made(monkeypatch: pytest.MonkeyPatch, linear: Path) -> None:
    Engine(monkeypatch, OnDevice)
    cache = linear.parent / "cache"
    open_session(spec(linear, provider="tensorrt", cache_dir=str(cache)), 0, 1)
    (folder,) = cache.iterdir()
    assert folder.name.startswith(f"model-onnxruntime-{onnxruntime.__version__}-")


SIZED = BatchingSpec(limits=BatchLimits(sizes=(1, 4)))


def played(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Sessions that capture graphs, on a device whose memory is the host's."""
    monkeypatch.setattr(session_module, "cuda_memory", lambda number: HostMemory())
    return Engine(monkeypatch, lambda session: OnDevice(GraphSession(session)))


def test_graphs_are_captured_where_batch_sizes_are_declared(monkeypatch: pytest.MonkeyPatch, linear: Path) -> None:
    engine = played(monkeypatch)
    assert "no batch sizes are declared" in noted(open_session(spec(linear, provider="cuda"), 0, 1))
    assert engine.with_graphs == [False]
    session = open_session(spec(linear, provider="cuda", batching=SIZED), 0, 1)
    assert engine.with_graphs == [False, True]
    assert "without a CUDA graph" not in noted(session)


def noted(session: OnnxSession) -> str:
    for seed in range(3):
        session.run({"x": np.random.default_rng(seed).standard_normal((2, 4)).astype(np.float32)}, None)
    return session.device_notes


def test_a_model_that_onnxruntime_will_not_capture_runs_without(
    monkeypatch: pytest.MonkeyPatch, linear: Path
) -> None:
    def refuse(session: Any) -> Any:
        if engine.with_graphs[-1]:
            raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : the model has control flow nodes")
        return OnDevice(session)

    monkeypatch.setattr(session_module, "cuda_memory", lambda number: HostMemory())
    engine = Engine(monkeypatch, refuse)
    session = open_session(spec(linear, provider="cuda", batching=SIZED), 0, 1)
    assert engine.with_graphs == [True, False]
    assert noted(session).endswith("without a CUDA graph, as the model has control flow nodes")


def test_a_session_that_lost_its_graphs_is_opened_again(monkeypatch: pytest.MonkeyPatch, linear: Path) -> None:
    made: list[GraphSession] = []

    def make(session: Any) -> Any:
        made.append(GraphSession(session))
        if len(made) == 1:
            made[0].fails.add("captures")
        return OnDevice(made[-1])

    monkeypatch.setattr(session_module, "cuda_memory", lambda number: HostMemory())
    engine = Engine(monkeypatch, make)
    session = open_session(spec(linear, provider="cuda", batching=SIZED), 0, 1)
    assert "the capture failed: " in noted(session)
    assert engine.with_graphs == [True, False]
    assert made[1].runs["plain"] > 0


def test_the_cpu_has_nothing_to_tell_of_a_device(linear: Path) -> None:
    assert open_session(spec(linear), 0, 1).device_notes == ""


def test_a_device_whose_memory_cannot_be_reached_is_used_plainly(
    monkeypatch: pytest.MonkeyPatch, linear: Path
) -> None:
    def out_of_reach(number: int) -> Any:
        raise MemoryFault("libcudart.so is not loaded")

    monkeypatch.setattr(session_module, "cuda_memory", out_of_reach)
    Engine(monkeypatch, OnDevice)
    session = open_session(spec(linear, provider="cuda"), 0, 1)
    assert noted(session) == "every shape runs plainly: libcudart.so is not loaded"


def test_a_provider_that_onnxruntime_left_out_in_silence_is_noticed(
    monkeypatch: pytest.MonkeyPatch, linear: Path
) -> None:
    Engine(monkeypatch, lambda session: session)
    with pytest.raises(LoadFailed) as caught:
        open_session(spec(linear, provider="cuda"), 0, 1)
    assert str(caught.value) == (
        "the model asks for provider 'cuda' but onnxruntime found no such device, or not its libraries; use a CPU "
        "instance type, a host with such a device, or allow_cpu_fallback"
    )


def test_a_device_that_fails_is_named_with_its_cause(monkeypatch: pytest.MonkeyPatch, linear: Path) -> None:
    Engine(monkeypatch, no_driver)
    with pytest.raises(LoadFailed, match=r"onnxruntime cannot use it here .*CUDA failure 100: no device is detected"):
        open_session(spec(linear, provider="cuda"), 0, 1)


def test_the_cpu_takes_over_only_where_that_is_allowed(monkeypatch: pytest.MonkeyPatch, linear: Path) -> None:
    engine = Engine(monkeypatch, no_driver)
    session = open_session(spec(linear, provider="cuda", allow_cpu_fallback=True), 0, 1)
    assert repr(session) == "<OnnxSession CPUExecutionProvider>"
    assert engine.asked[-1] == ["CPUExecutionProvider"]


def test_without_the_gpu_build_the_sentence_says_what_to_install(linear: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("the installed onnxruntime has CUDA")
    for provider in ("cuda", "tensorrt"):
        with pytest.raises(
            LoadFailed, match=f"provider '{provider}' but the installed onnxruntime was built without"
        ):
            open_session(spec(linear, provider=provider), 0, 1)
    assert open_session(spec(linear, provider="cuda", allow_cpu_fallback=True), 0, 1).signature.inputs


def test_a_broken_model_is_not_blamed_on_the_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Engine(monkeypatch, no_driver)
    with pytest.raises(LoadFailed, match="is not an ONNX model that onnxruntime can load: No graph was found"):
        open_session(spec(models.write(tmp_path, b"\x08\x08"), provider="cuda", allow_cpu_fallback=True), 0, 1)


def test_a_session_closed_answers_nothing_more(linear: Path) -> None:
    session = open_session(spec(linear), 0, 1)
    session.close()
    assert repr(session) == "<OnnxSession closed>"
    with pytest.raises(ModelFailed):
        session.run({"x": np.zeros((1, 4), np.float32)}, None)


def test_a_failure_keeps_no_hold_of_the_inputs(linear: Path) -> None:
    with pytest.raises(ModelFailed) as caught:
        open_session(spec(linear), 0, 1).run({"x": np.zeros((1, 5), np.float32)}, None)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_bfloat16_goes_in_and_out_as_bit_patterns(tmp_path: Path) -> None:
    session = open_session(spec(models.write(tmp_path, models.identity(Datatype.BF16, ("N",)))), 0, 1)
    bits = np.array([0x3F80, 0x7F80, 0x7FC0, 0x8000], np.uint16)
    assert session.run({"x": bits}, None)["y"].tolist() == bits.tolist()
    assert session.run({"x": bits[:0]}, None)["y"].shape == (0,)


def test_bfloat16_scalars_keep_their_shape(tmp_path: Path) -> None:
    session = open_session(spec(models.write(tmp_path, models.identity(Datatype.BF16, ()))), 0, 1)
    assert session.run({"x": np.array(0x3F80, np.uint16)}, None)["y"].shape == ()


def test_bfloat16_may_stand_beside_other_types(tmp_path: Path) -> None:
    session = open_session(spec(models.write(tmp_path, models.rounded_to_bfloat16())), 0, 1)
    assert session.run({"x": np.array([[1, -2]], np.float32)}, None)["y"].tolist() == [[0x3F80, 0xC000]]


def test_bfloat16_beside_maps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="BF16 tensors beside output 'probabilities', a map"):
        open_session(spec(models.write(tmp_path, models.bfloat16_beside_maps())), 0, 1)


def test_maps_are_rows_and_a_map_that_is_no_sequence_is_one_row(
    monkeypatch: pytest.MonkeyPatch, linear: Path
) -> None:
    class OneMap(OnDevice):
        def get_outputs(self) -> list[Any]:
            return [SimpleNamespace(name="p", type="map(int64,tensor(float))", shape=[])]

        def run(self, names: list[str], inputs: dict[str, Any], options: Any) -> list[Any]:
            return [{0: 0.25, 1: 0.75}]

    Engine(monkeypatch, OneMap)
    session = open_session(spec(linear, provider="cuda"), 0, 1)
    assert session.run({"x": np.zeros((1, 4), np.float32)}, None)["p"].tolist() == [{0: 0.25, 1: 0.75}]


def test_an_onnxruntime_that_cannot_preload_is_fine(monkeypatch: pytest.MonkeyPatch, linear: Path) -> None:
    Engine(monkeypatch, OnDevice)
    monkeypatch.delattr(onnxruntime, "preload_dlls")
    assert open_session(spec(linear, provider="cuda"), 0, 1).signature.inputs


def test_a_run_that_fails_writes_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    session = open_session(spec(models.write(tmp_path, models.fails_on_index())), 0, 1)
    with pytest.raises(ModelFailed, match=r"^the model failed: Gather: indices element out of data bounds, idx=9 "):
        session.run({"id": np.array([9], np.int64)}, None)
    assert capfd.readouterr() == ("", "")


RUNNING = "Non-zero status code returned while running"
PLACE = "/src/core/element_wise_ops.h:540 void onnxruntime::Init(int64_t, int64_t)"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Protobuf parsing failed.", "Protobuf parsing failed"),
        (
            f"[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : {RUNNING} If node. Name:'If_0' Status Message: {RUNNING} "
            "Pad node. Name:'/a/Pad' Status Message: too far",
            "Pad: too far",
        ),
        (
            f"[ONNXRuntimeError] : 6 : FAIL : {RUNNING} Add node. Name:'' Status Message: {PLACE} axis was false",
            "Add: axis was false",
        ),
        ("Load model from /srv/model.onnx failed:File doesn't exist", "File doesn't exist"),
        ("cannot open /srv/secret/data, sorry", "cannot open …, sorry"),
        ("first line\nsecond line", "first line"),
        ("", "ValueError"),
        ("x" * 300, "x" * 199 + "…"),
    ],
)
def test_error_texts_lose_prefixes_paths_and_places(said: str, told: str) -> None:
    assert short_cause(ValueError(said)) == told
