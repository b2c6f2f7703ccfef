"""The session's contract and the batching proof on an NVIDIA device. Skipped, and said so, where there is none."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from runtimes import proof, samples
from runtimes.errors import ModelFailed
from runtimes.loader import OpenModel, open_model
from runtimes.onnx.session import OnnxSession
from runtimes.spec import RuntimeSpec
from runtimes.tensor import Datatype
from tests.support import models

HAS_PROVIDER = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
HAS_DEVICE = Path("/dev/nvidiactl").exists()

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not HAS_PROVIDER, reason="this onnxruntime has no CUDAExecutionProvider (onnxruntime-gpu has)"
    ),
    pytest.mark.skipif(not HAS_DEVICE, reason="there is no NVIDIA device on this host"),
]

MODELS = {
    "linear": models.linear(),
    "mlp": models.mlp(),
    "state": models.batch_axis_second(),
    "strings": models.text_labels(),
    "maps": models.zip_map(),
    "float16": models.identity(Datatype.FP16),
    "bfloat16": models.identity(Datatype.BF16),
}


def opened(path: Path, instance_count: int = 1) -> OpenModel:
    return open_model(RuntimeSpec(path=str(path), sha256="", provider="cuda", instance_count=instance_count))


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_batching_is_proven_on_the_device_too(tmp_path: Path, model: bytes) -> None:
    found = opened(models.write(tmp_path, model))
    assert found.learned.batched, found.learned.reason
    assert found.learned.dispatch == "thread"


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_the_device_gives_the_answers_of_the_cpu(tmp_path: Path, model: bytes) -> None:
    path = models.write(tmp_path, model)
    on_device, on_cpu = opened(path), open_model(RuntimeSpec(path=str(path), sha256=""))
    recipe = next(samples.recipes(on_cpu.signature))
    inputs = samples.together(on_cpu.signature, samples.draw(on_cpu.signature, recipe).rows)
    left, right = on_device.sessions[0].run(inputs, None), on_cpu.sessions[0].run(inputs, None)
    for spec in on_cpu.signature.outputs:
        assert proof.same(left[spec.name], right[spec.name], spec.datatype)


def test_the_session_really_is_on_the_device(tmp_path: Path) -> None:
    session = opened(models.write(tmp_path, models.linear())).sessions[0]
    assert isinstance(session, OnnxSession)
    assert repr(session) == "<OnnxSession CUDAExecutionProvider>"


def test_a_mean_over_the_batch_is_found_on_the_device(tmp_path: Path) -> None:
    assert not opened(models.write(tmp_path, models.mean_over_batch())).learned.batched


def test_a_failure_is_model_failed_and_leaves_the_session_usable(tmp_path: Path) -> None:
    session = opened(models.write(tmp_path, models.linear()), instance_count=2).sessions[1]
    with pytest.raises(ModelFailed):
        session.run({"x": np.zeros((1, 1, 1), np.float32)}, None)
    assert session.run({"x": np.zeros((5, 4), np.float32)}, None)["y"].shape == (5, 3)
