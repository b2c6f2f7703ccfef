"""Runs on a device: which way a shape takes, when it changes, and what is told of it; graphs played by the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from onnx.helper import make_node

from runtimes.errors import ModelFailed
from runtimes.onnx import device as device_module
from runtimes.onnx.device import Device
from runtimes.onnx.gate import CaptureGate
from runtimes.onnx.memory import CudaMemory, HostMemory, Memory, MemoryFault
from runtimes.onnx.metadata import signature_of
from runtimes.onnx.session import OnnxSession
from runtimes.tensor import Array, Datatype
from tests.support import models
from tests.support.cuda import Clock, CudaRuntime, GraphSession

Pick = Literal["measured", "furthest"]


class Rig:
    """A session on a played device, with all its parts in reach."""

    def __init__(
        self,
        model: bytes,
        *,
        graphs: bool = True,
        costs: dict[str, int] | None = None,
        pick: Pick = "measured",
        memory: Memory | None = None,
        buffer_bytes_max: int = 1 << 20,
    ) -> None:
        self.clock = Clock()
        self.gate = CaptureGate()
        self.engine = GraphSession(model, self.clock, costs)
        self.reopened: list[GraphSession] = []
        self.fails_to_reopen = False
        self.model = model
        device = Device(
            memory=memory or HostMemory(),
            gate=self.gate,
            buffer_bytes_max=buffer_bytes_max,
            reopen=self.reopen if graphs else None,
            pick=pick,
            now=self.clock.now,
        )
        signature = signature_of(self.engine.get_inputs(), self.engine.get_outputs())
        self.session = OnnxSession(self.engine, signature, device)

    def reopen(self) -> GraphSession:
        if self.fails_to_reopen:
            raise RuntimeError("no room on the device")
        self.reopened.append(GraphSession(self.model, self.clock))
        return self.reopened[-1]

    def run(self, *arrays: Array) -> list[dict[str, Array]]:
        return [self.session.run({"x": array}, None) for array in arrays]


def rows(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)


def right(rig: Rig, x: Array, results: dict[str, Array]) -> bool:
    expected = rig.engine.real.run(None, {"x": x})
    return all(np.allclose(left, found) for left, found in zip(expected, results.values(), strict=True))


def test_a_shape_is_run_plainly_once_and_then_the_fastest_way() -> None:
    rig = Rig(models.linear())
    xs = [rows(2, seed) for seed in range(5)]
    assert all(right(rig, x, found) for x, found in zip(xs, rig.run(*xs), strict=True))
    # The first; the second, also with exchanged inputs; each way is checked once and timed twice.
    assert rig.engine.runs == {"plain": 5, "bound": 3, "captures": 1, "graph": 3 + 3}
    assert rig.session.device_notes == "shapes run 1 by CUDA graph"


@pytest.mark.parametrize(
    ("costs", "way"),
    [
        ({"plain": 1, "bound": 2, "graph": 3}, "plain"),
        ({"plain": 2, "bound": 1, "graph": 3}, "bound"),
        ({"plain": 3, "bound": 2, "graph": 1}, "graph"),
    ],
)
def test_a_way_that_is_slower_is_not_taken(costs: dict[str, int], way: str) -> None:
    rig = Rig(models.linear(), costs=costs)
    rig.run(rows(2, 0), rows(2, 1))
    before = dict(rig.engine.runs)
    rig.run(rows(2, 2), rows(2, 3))
    assert {key: rig.engine.runs[key] - before[key] for key in before if rig.engine.runs[key] != before[key]} == {
        way: 2
    }


def test_each_shape_has_a_graph_of_its_own() -> None:
    rig = Rig(models.linear())
    for size in (1, 2, 3):
        rig.run(rows(size, 0), rows(size, 1))
    for size in (3, 1, 2):
        x = rows(size, 2)
        assert right(rig, x, *rig.run(x))
    assert sorted(number for _, number in rig.engine.captured) == [1, 2, 3]


def test_each_choice_of_outputs_has_buffers_of_its_own() -> None:
    rig = Rig(models.random_forest(zipmap=False))
    names = [spec.name for spec in rig.session.signature.outputs]
    x = rows(3)
    for chosen in (None, (names[1],), (names[1], names[0])):
        for _ in range(3):
            results = rig.session.run({rig.session.signature.inputs[0].name: x}, chosen)
            assert list(results) == list(chosen or names)


def test_results_are_never_views_of_what_the_next_run_overwrites() -> None:
    for costs in ({"plain": 3, "bound": 2, "graph": 9}, {"plain": 3, "bound": 2, "graph": 1}):
        rig = Rig(models.linear(), costs=costs)
        found = rig.run(*[rows(2, seed) for seed in range(4)])
        kept = [result["y"].copy() for result in found]
        rig.run(rows(2, 9))
        assert all(np.array_equal(result["y"], copy) for result, copy in zip(found, kept, strict=True))
        found[-1]["y"][:] = 0
        assert right(rig, rows(2, 5), *rig.run(rows(2, 5)))
        rig.session.close()
        assert np.array_equal(found[0]["y"], kept[0])


def test_a_capture_that_fails_costs_the_graphs_and_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(models.linear())
    rig.engine.fails.add("captures")
    xs = [rows(2, seed) for seed in range(6)]
    assert all(right(rig, x, found) for x, found in zip(xs, rig.run(*xs), strict=True))
    (reopened,) = rig.reopened
    assert reopened.runs["captures"] == 0
    assert "the capture failed: CUDA failure 900" in rig.session.device_notes
    assert "CUDA graphs are given up" in caplog.text


def test_a_graph_that_gives_stale_answers_is_never_trusted() -> None:
    rig = Rig(models.linear())
    rig.engine.is_stale = True
    xs = [rows(2, seed) for seed in range(8)]
    assert all(right(rig, x, found) for x, found in zip(xs, rig.run(*xs), strict=True))
    assert rig.session.device_notes == (
        "shapes run 1 in fixed buffers; without a CUDA graph, as output 'y' differs by CUDA graph from the plain run"
    )
    assert rig.reopened == []


def test_a_replay_that_fails_is_answered_by_a_plain_run() -> None:
    rig = Rig(models.linear())
    rig.run(rows(2, 0), rows(2, 1))
    rig.engine.fails.add("graph")
    x = rows(2, 2)
    assert right(rig, x, *rig.run(x))
    assert len(rig.reopened) == 1
    assert "a replay failed" in rig.session.device_notes


def test_where_even_that_is_impossible_the_model_has_failed() -> None:
    rig = Rig(models.linear())
    rig.run(rows(2, 0), rows(2, 1))
    rig.engine.fails.add("graph")
    rig.fails_to_reopen = True
    for _ in range(2):
        with pytest.raises(ModelFailed, match="the model failed: its session is closed"):
            rig.run(rows(2, 2))


def test_inputs_that_look_the_same_exchanged_put_the_capture_off() -> None:
    rig = Rig(models.linear())
    flat = np.ones((2, 4), np.float32)
    rig.run(*[flat] * 5)
    assert rig.engine.runs["captures"] == 0
    rig.run(rows(2))
    assert rig.engine.runs["captures"] == 1
    assert rig.session.device_notes == "shapes run 1 by CUDA graph"


def test_another_thread_captures_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(models.linear())
    rig.run(rows(2, 0), rows(2, 1))
    in_another_thread(rig, monkeypatch)
    xs = [rows(2, seed) for seed in (2, 3)]
    assert all(right(rig, x, found) for x, found in zip(xs, rig.run(*xs), strict=True))
    assert rig.engine.runs["captures"] == 2
    assert rig.session.device_notes == "shapes run 1 by CUDA graph"


def test_in_another_thread_nothing_is_replayed_before_it_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(models.linear())
    rig.run(rows(2, 0), rows(2, 1))
    in_another_thread(rig, monkeypatch)
    rig.engine.is_stale = True
    xs = [np.ones((2, 4), np.float32), *[rows(2, seed) for seed in range(2, 8)]]
    assert all(right(rig, x, found) for x, found in zip(xs, rig.run(*xs), strict=True))
    assert "in fixed buffers" in rig.session.device_notes


def in_another_thread(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on as if this were another thread: to onnxruntime by its number, to us by its lack of a mark."""
    monkeypatch.setattr("tests.support.cuda.get_ident", lambda: -1)
    runs: Any = rig.session._on_device
    del runs._marks.mark


def test_a_busy_device_puts_the_capture_off_and_then_off_for_good() -> None:
    rig = Rig(models.linear())
    with rig.gate.load():
        rig.run(rows(2, 0), rows(2, 1))
        assert rig.engine.runs["captures"] == 0
    rig.run(rows(2, 2))
    assert rig.engine.runs["captures"] == 1
    with rig.gate.load():
        rig.run(*[rows(3, seed) for seed in range(6)])
    rig.run(rows(3, 9))
    assert rig.engine.runs["captures"] == 1
    assert "the device was not free for a capture" in rig.session.device_notes


def test_without_graphs_there_are_fixed_buffers() -> None:
    rig = Rig(models.linear(), graphs=False)
    rig.run(rows(2, 0), rows(2, 1), rows(2, 2))
    assert rig.engine.runs == {"plain": 4, "bound": 4, "captures": 0, "graph": 0}
    assert rig.session.device_notes == "shapes run 1 in fixed buffers"


def test_outputs_as_long_as_their_values_say_are_left_to_plain_runs() -> None:
    node = make_node("NonZero", ["x"], ["y"])
    given = models.value("x", Datatype.FP32, ("N", 4))
    rig = Rig(models.build([node], [given], [models.value("y", Datatype.INT64, (2, "M"))]), graphs=False)
    full, few = np.ones((2, 4), np.float32), np.eye(2, 4, dtype=np.float32)
    shapes = [found["y"].shape for found in rig.run(full, full, full, few, full, few)]
    assert shapes == [(2, 8), (2, 8), (2, 8), (2, 2), (2, 8), (2, 2)]
    assert "a run in fixed buffers failed where a plain one did not" in rig.session.device_notes
    empty = np.zeros((2, 4), np.float32)
    assert rig.run(empty)[0]["y"].shape == (2, 0)


def test_an_empty_output_has_no_buffer() -> None:
    node = make_node("NonZero", ["x"], ["y"])
    given = models.value("x", Datatype.FP32, ("N", 4))
    rig = Rig(models.build([node], [given], [models.value("y", Datatype.INT64, (2, "M"))]), graphs=False)
    rig.run(*[np.zeros((2, 4), np.float32)] * 3)
    assert rig.session.device_notes == "shapes run 1 plainly; without fixed buffers, as an output is empty"


def test_outputs_whose_size_depends_on_values_are_found_before_a_capture() -> None:
    nodes = [
        make_node("Slice", ["x", "zero", "one", "axis"], ["first"]),
        make_node("NonZero", ["first"], ["y"]),
    ]
    numbers = [
        models.weights(name, np.array([number], np.int64)) for name, number in (("zero", 0), ("one", 1), ("axis", 1))
    ]
    given = models.value("x", Datatype.FP32, ("N", 4))
    rig = Rig(models.build(nodes, [given], [models.value("y", Datatype.INT64, (2, "M"))], numbers))
    x = np.array([[1, 1, 1, 0]], np.float32)
    rig.run(x, x, x)
    assert rig.engine.runs["captures"] == 0
    assert "the shapes of its outputs depend on the inputs' values" in rig.session.device_notes


def test_a_model_that_refuses_exchanged_inputs_has_no_graph() -> None:
    rig = Rig(models.fails_on_index(2))
    x = np.array([0, 1], np.int64)
    real = rig.engine.real.run

    def picky(names: list[str], inputs: dict[str, Array], options: Any) -> Any:
        if inputs["id"][0] != 0:
            raise RuntimeError("out of bounds")
        return real(names, inputs, options)

    rig.engine.run = picky  # type: ignore[method-assign]
    for _ in range(6):
        assert rig.session.run({"id": x}, None)
    assert rig.engine.runs["captures"] == 0
    assert "the model cannot be checked with exchanged inputs: out of bounds" in rig.session.device_notes


def test_the_models_own_failure_costs_nothing() -> None:
    rig = Rig(models.fails_on_index(2), graphs=False)
    for _ in range(3):
        rig.session.run({"id": np.array([0, 1], np.int64)}, None)
    with pytest.raises(ModelFailed, match="out of data bounds"):
        rig.session.run({"id": np.array([9, 1], np.int64)}, None)
    assert rig.session.device_notes == "shapes run 1 in fixed buffers"


def test_a_random_model_is_left_to_plain_runs() -> None:
    rig = Rig(models.random_noise())
    x = rows(2)
    rig.run(x, x, x)
    assert "differs in fixed buffers from the plain run" in rig.session.device_notes


def test_the_least_used_shape_gives_up_its_buffers() -> None:
    # A row is 16 bytes in and 12 out: three rows fit, and two more do not.
    rig = Rig(models.linear(), graphs=False, buffer_bytes_max=100)
    rig.run(rows(1, 0), rows(1, 1), rows(2, 0), rows(2, 1))
    assert rig.session.device_notes == "shapes run 2 in fixed buffers"
    rig.run(rows(2, 0), rows(3, 0), rows(3, 1))
    assert rig.session.device_notes == "shapes run 1 in fixed buffers"
    x = rows(1, 2)
    assert right(rig, x, *rig.run(x))


def test_a_shape_too_large_for_the_buffers_is_run_plainly() -> None:
    rig = Rig(models.linear(), buffer_bytes_max=27)
    rig.run(*[rows(1, seed) for seed in range(3)])
    assert rig.session.device_notes == (
        "shapes run 1 plainly; without fixed buffers, as its buffers take 28 bytes; 27 are allowed in all"
    )


def test_only_so_many_shapes_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "SHAPES_MAX", 2)
    library = CudaRuntime()
    rig = Rig(models.linear(), graphs=False, memory=OnTheHost(library))
    for size in (1, 2, 3):
        rig.run(rows(size, 0), rows(size, 1))
    assert len(library.held) == 2 * 3
    rig.session.close()
    assert library.held == {}


class OnTheHost(CudaMemory):
    """CUDA's memory where the CPU provider may use it."""

    name = "cpu"

    def __init__(self, library: CudaRuntime) -> None:
        super().__init__(library, 0)


def test_only_so_many_graphs_are_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "GRAPHS_MAX", 2)
    rig = Rig(models.linear())
    for size in (1, 2, 3):
        rig.run(rows(size, 0), rows(size, 1), rows(size, 2))
    assert rig.engine.runs["captures"] == 2
    assert rig.session.device_notes == (
        "shapes run 2 by CUDA graph, 1 in fixed buffers; without a CUDA graph, as there are 2 already; "
        "shapes after those do without"
    )


@pytest.mark.parametrize("function", ["cudaMalloc", "cudaHostAlloc", "cudaMemcpy"])
def test_a_device_without_room_is_no_failure(function: str) -> None:
    library = CudaRuntime()
    library.fails.add(function)
    rig = Rig(models.linear(), memory=OnTheHost(library))
    xs = [rows(2, seed) for seed in range(4)]
    assert all(right(rig, x, found) for x, found in zip(xs, rig.run(*xs), strict=True))
    assert "without fixed buffers, as they failed: " in rig.session.device_notes
    assert library.held == {}


def test_buffers_that_cannot_be_given_back_are_told_and_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    library = CudaRuntime()
    rig = Rig(models.linear(), graphs=False, memory=OnTheHost(library))
    rig.run(rows(1), rows(1))
    library.fails |= {"cudaFree", "cudaFreeHost"}
    rig.session.close()
    assert caplog.text.count("a buffer was not given back: freeing memory on CUDA device 0 failed") == 3


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (models.text_labels, "is text, which has no fixed size"),
        (models.zip_map, "is a map, which has no fixed size"),
    ],
)
def test_texts_and_maps_are_left_to_plain_runs(model: Callable[[], bytes], said: str) -> None:
    rig = Rig(model())
    assert said in rig.session.device_notes


def test_what_is_wrong_with_a_request_is_the_plain_runs_to_say() -> None:
    rig = Rig(models.linear())
    rig.run(rows(2, 0), rows(2, 1))
    before = dict(rig.engine.runs)
    for wrong in ({}, {"z": rows(2)}, {"x": rows(2).astype(np.float64)}, {"x": rows(2), "z": rows(2)}):
        with pytest.raises(ModelFailed):
            rig.session.run(wrong, None)
    assert rig.run(rows(0))[0]["y"].shape == (0, 3)
    assert rig.engine.runs["graph"] == before["graph"]


def test_before_a_shape_came_twice_there_is_nothing_to_tell() -> None:
    assert Rig(models.linear()).session.device_notes == "no shape has come twice yet"


def test_memory_that_cannot_be_reached_leaves_plain_runs() -> None:
    engine = GraphSession(models.linear())
    device = Device(memory=None, no_buffers="libcudart is gone", gate=CaptureGate(), buffer_bytes_max=1)
    session = OnnxSession(engine, signature_of(engine.get_inputs(), engine.get_outputs()), device)
    for seed in range(3):
        session.run({"x": rows(2, seed)}, None)
    assert engine.runs["plain"] == 3
    assert session.device_notes == "every shape runs plainly: libcudart is gone"


def test_bfloat16_lies_in_buffers_like_any_other() -> None:
    rig = Rig(models.identity(Datatype.BF16, ("N",)), graphs=False, pick="furthest")
    bits = np.array([0x3F80, 0x7F80, 0x7FC0, 0x8000], np.uint16)
    for _ in range(4):
        assert rig.session.run({"x": bits}, None)["y"].tolist() == bits.tolist()
    assert rig.session.device_notes == "shapes run 1 in fixed buffers"


def test_a_slot_that_cannot_be_bound_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    library = CudaRuntime()
    rig = Rig(models.linear(), memory=OnTheHost(library))

    class Refuses:
        def bind_input(self, *place: Any) -> None:
            raise RuntimeError("not this kind of device")

    monkeypatch.setattr(rig.engine, "io_binding", Refuses)
    rig.run(rows(1), rows(1), rows(1))
    assert library.held == {}
    assert "they failed: not this kind of device" in rig.session.device_notes


def test_a_fault_without_words_is_told_by_its_kind() -> None:
    library = CudaRuntime()
    rig = Rig(models.linear(), memory=OnTheHost(library))

    def refuse(size: int) -> Any:
        raise MemoryFault

    rig.session._on_device._device.memory.allocate = refuse  # type: ignore[union-attr, method-assign]
    rig.run(rows(1), rows(1))
    assert rig.session.device_notes.endswith("as they failed: MemoryFault")
