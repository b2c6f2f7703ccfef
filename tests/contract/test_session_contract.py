"""What every Session promises (runtimes/session.py), one suite for all implementations.

A factory gives a session of any model with a batch axis on all inputs and outputs; inputs are generated from its
signature. To add an implementation, add a line to FACTORIES. The ways of a device run here over the CPU provider: a
shape takes them when it comes again, so each run is made three times.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes import proof, samples
from runtimes.errors import ModelFailed
from runtimes.onnx.device import Device
from runtimes.onnx.gate import CaptureGate
from runtimes.onnx.memory import HostMemory
from runtimes.onnx.metadata import signature_of
from runtimes.onnx.session import OnnxSession, open_session
from runtimes.session import Session
from runtimes.simulated import SimulatedSession
from runtimes.spec import RuntimeSpec
from runtimes.tensor import Array, Datatype, Tensors
from tests.support import models
from tests.support.cuda import GraphSession

Factory = Callable[[Path], Session]


def onnx(model: Callable[[], bytes]) -> Factory:
    """A session of onnxruntime over a model that is written to the folder."""

    def make(folder: Path) -> Session:
        return open_session(RuntimeSpec(path=str(models.write(folder, model())), sha256=""), 0, 1)

    return make


class Thrice:
    """A session whose every run is the third of its shape; all three must tell the same."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.signature = session.signature
        self.provider = session.provider

    def run(self, inputs: Tensors, outputs: tuple[str, ...] | None) -> dict[str, Array]:
        first = self._session.run(inputs, outputs)
        kept = {name: array.copy() for name, array in first.items()}
        self._session.run(inputs, outputs)
        third = self._session.run(inputs, outputs)
        for name, array in third.items():
            datatype = self.signature.output(name).datatype
            assert proof.same(first[name], kept[name], datatype)
            assert proof.same(array, kept[name], datatype)
        return third

    def close(self) -> None:
        self._session.close()


def device(reopen: Callable[[], Any] | None = None) -> Device:
    return Device(memory=HostMemory(), gate=CaptureGate(), buffer_bytes_max=1 << 24, reopen=reopen, pick="furthest")


def bound(model: Callable[[], bytes]) -> Factory:
    """The same in fixed buffers."""

    def make(folder: Path) -> Session:
        path = models.write(folder, model())
        return Thrice(open_session(RuntimeSpec(path=str(path), sha256=""), 0, 1, place=lambda cpu: device()))

    return make


def graphs(model: Callable[[], bytes]) -> Factory:
    """The same as graphs, which a stand-in captures and replays."""

    def make(folder: Path) -> Session:
        path = models.write(folder, model())
        played = GraphSession(str(path))
        signature = signature_of(played.get_inputs(), played.get_outputs())
        return Thrice(OnnxSession(played, signature, device(lambda: GraphSession(str(path)))))

    return make


MODELS: dict[str, Callable[[], bytes]] = {
    "linear": models.linear,
    "strings": models.text_labels,
    "maps": models.zip_map,
    "forest": models.random_forest,
    "float16": lambda: models.identity(Datatype.FP16),
    "bfloat16": lambda: models.identity(Datatype.BF16),
    "state": models.batch_axis_second,
}
WAYS = {"onnx": onnx, "bound": bound, "graphs": graphs}
ENGINES: dict[str, Factory] = {
    f"{way} {name}": make(model) for way, make in WAYS.items() for name, model in MODELS.items()
}
FACTORIES: dict[str, Factory] = {**ENGINES, "simulated": lambda folder: SimulatedSession(seed=1)}


@pytest.fixture(params=list(FACTORIES.values()), ids=list(FACTORIES))
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Session]:
    session = request.param(tmp_path)
    yield session
    session.close()


@pytest.fixture(params=list(ENGINES.values()), ids=list(ENGINES))
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Session]:
    """A session that strangers' requests reach; the simulated one trusts the tests that call it."""
    session = request.param(tmp_path)
    yield session
    session.close()


def inputs_of(session: Session, rows: int = 2) -> dict[str, Array]:
    recipe = next(samples.recipes(session.signature))
    return samples.together(session.signature, samples.draw(session.signature, recipe, rows).rows)


def same(session: Session, left: dict[str, Array], right: dict[str, Array]) -> bool:
    return left.keys() == right.keys() and all(
        proof.same(array, right[name], session.signature.output(name).datatype) for name, array in left.items()
    )


def test_inputs_of_its_signature_are_answered_with_every_output(session: Session) -> None:
    results = session.run(inputs_of(session), None)
    assert list(results) == [spec.name for spec in session.signature.outputs]
    for spec in session.signature.outputs:
        assert results[spec.name].dtype == spec.datatype.dtype
        assert results[spec.name].ndim == len(spec.shape)


def test_only_the_requested_outputs_are_given(session: Session) -> None:
    name = session.signature.outputs[-1].name
    everything = session.run(inputs_of(session), None)
    alone = session.run(inputs_of(session), (name,))
    assert list(alone) == [name]
    assert same(session, alone, {name: everything[name]})


def test_the_same_inputs_get_the_same_answer(session: Session) -> None:
    assert same(session, session.run(inputs_of(session), None), session.run(inputs_of(session), None))


def test_inputs_are_left_as_they_were(session: Session) -> None:
    inputs = inputs_of(session)
    before = {name: array.copy() for name, array in inputs.items()}
    session.run(inputs, None)
    assert list(inputs) == list(before)
    assert all(np.array_equal(inputs[name], before[name]) for name in before)


def test_results_outlive_inputs_and_later_runs(session: Session) -> None:
    inputs = inputs_of(session, 3)
    results = session.run(inputs, None)
    kept = {name: array.copy() for name, array in results.items()}
    for array in inputs.values():
        array[...] = array[::-1].copy()
    session.run(inputs, None)
    assert same(session, results, kept)


def test_inputs_need_not_lie_in_one_piece(session: Session) -> None:
    inputs = inputs_of(session, 4)
    scattered = {name: np.repeat(array, 2, axis=-1)[..., ::2] for name, array in inputs.items()}
    assert same(session, session.run(scattered, None), session.run(inputs, None))


def test_one_row_or_many_come_back_as_many(session: Session) -> None:
    for rows in (1, 7, 64):
        results = session.run(inputs_of(session, rows), None)
        assert all(rows in array.shape for array in results.values())


def test_what_the_model_cannot_do_is_model_failed_in_one_sentence(engine: Session) -> None:
    first = engine.signature.inputs[0].name
    inputs = inputs_of(engine)
    lacking = {name: array for name, array in inputs.items() if name != first}
    misshapen = {**inputs, first: np.zeros((1, 1, 1, 1, 1), inputs[first].dtype)}
    for wrong, outputs in ((lacking, None), (misshapen, None), (inputs, ("no such output",))):
        with pytest.raises(ModelFailed) as caught:
            engine.run(wrong, outputs)
        assert "\n" not in str(caught.value)


def test_a_session_goes_on_after_a_failure(engine: Session) -> None:
    with pytest.raises(ModelFailed):
        engine.run({}, None)
    assert engine.run(inputs_of(engine), None)
