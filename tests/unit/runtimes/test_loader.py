"""From a spec to a model that is ready: file checks, what is learned, warm-up and the choice of dispatch."""

import hashlib
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes import loader
from runtimes.errors import LoadFailed, ModelFailed
from runtimes.loader import open_model, open_more, with_capacity
from runtimes.signature import Signature, TensorSpec
from runtimes.spec import BatchingSpec, BatchLimits, Learned, RuntimeSpec, same_but_capacity
from runtimes.tensor import Array, Datatype, Tensors
from tests.support import models


def refused(path: Path, sha256: str = "") -> str:
    with pytest.raises(LoadFailed) as caught:
        open_model(RuntimeSpec(path=str(path), sha256=sha256))
    return str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gone.onnx"
    assert refused(path) == f"the model file {path} cannot be opened: No such file or directory"


def test_a_folder_is_no_model_file(tmp_path: Path) -> None:
    assert refused(tmp_path) == (
        f"the model file {tmp_path} is not a regular file; a path to one .onnx file is needed"
    )


def test_an_empty_file_is_no_model(tmp_path: Path) -> None:
    path = models.write(tmp_path, b"")
    assert refused(path) == f"the model file {path} is empty; a path to one .onnx file is needed"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is not a regular file" in refused(tmp_path / "pipe")


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = models.write(tmp_path, models.linear())

    def denied(self: Path, mode: str = "r") -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert refused(path) == f"the model file {path} cannot be read: Permission denied"


def test_a_file_that_changed_is_refused(tmp_path: Path) -> None:
    path = models.write(tmp_path, models.linear())
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    assert refused(path, "00" * 32) == (
        f"the model file {path} changed: its SHA-256 is {actual}, {'00' * 32} was expected"
    )
    assert open_model(RuntimeSpec(path=str(path), sha256=actual.upper())).learned.batched


@pytest.mark.parametrize("junk", [b"PK\x03\x04 not a model", models.linear()[:-20], b"\x80\x04pickle", b"\x08\x08"])
def test_a_corrupt_file_is_named_with_a_cause(tmp_path: Path, junk: bytes) -> None:
    path = models.write(tmp_path, junk)
    message = refused(path)
    assert message.startswith(f"{path} is not an ONNX model")
    assert "\n" not in message


def test_each_instance_has_a_session_of_its_own(tmp_path: Path) -> None:
    path = models.write(tmp_path, models.linear())
    model = open_model(RuntimeSpec(path=str(path), sha256="", instance_count=3, dispatch="thread"))
    assert len({id(session) for session in model.sessions}) == 3
    assert model.learned.instances == 3
    assert model.learned.sample_shapes == {"x": (1, 4)}
    assert model.learned.run_ns > 0


def test_batching_can_be_turned_off(tmp_path: Path) -> None:
    path = models.write(tmp_path, models.linear())
    model = open_model(RuntimeSpec(path=str(path), sha256="", batching=BatchingSpec(enabled=False)))
    assert not model.signature.batched
    assert model.learned.reason == "batching is turned off in the deployment's settings"


def test_an_output_of_unknown_rank_gets_the_one_it_was_seen_with(tmp_path: Path) -> None:
    model = open_model(RuntimeSpec(path=str(models.write(tmp_path, models.unknown_rank())), sha256=""))
    assert model.sessions[0].signature.outputs[0].shape == ()
    assert model.signature.outputs[0].shape == (-1, -1)
    assert model.signature.outputs[0].batch_axis == 0


class Fake:
    """A session whose runs take as long as the test says; "x" [N, 2] or [N, T] -> "y" [N]."""

    provider = "fake"

    def __init__(self, clock: "Clock", row_ns: int = 10_000, wide: bool = False, fails_above: int = 1000) -> None:
        shape = (-1, -1) if wide else (-1, 2)
        x = TensorSpec(name="x", datatype=Datatype.FP32, shape=shape, symbols=("N", None), batch_axis=0)
        y = TensorSpec(name="y", datatype=Datatype.FP32, shape=(-1,))
        self.signature = Signature(inputs=(x,), outputs=(y,))
        self.clock, self.row_ns, self.fails_above = clock, row_ns, fails_above
        self.rows: list[int] = []
        self.closed = 0

    def run(self, inputs: Tensors, outputs: tuple[str, ...] | None) -> dict[str, Array]:
        rows = len(inputs["x"])
        self.rows.append(rows)
        if rows > self.fails_above:
            raise ModelFailed("out of memory")
        self.clock.ns += self.row_ns * rows
        return {"y": inputs["x"].sum(axis=1)}

    def close(self) -> None:
        self.closed += 1


class Clock:
    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RuntimeSpec]:
    """Lets the loader open these sessions instead of a file's; gives a spec for them."""

    def use(*sessions: Fake, **fields: Any) -> RuntimeSpec:
        waiting = iter(sessions)

        def open_session(spec: RuntimeSpec, instance: int, threads: int) -> Fake:
            found = next(waiting, None)
            if found is None:
                raise LoadFailed("no more sessions")
            return found

        monkeypatch.setattr(loader, "open_session", open_session)
        return RuntimeSpec(path=str(models.write(tmp_path, b"anything")), sha256="", **fields)

    return use


Serve = Callable[..., RuntimeSpec]


def limited(rows: int, **fields: Any) -> BatchingSpec:
    return BatchingSpec(limits=BatchLimits(batch_rows_max=rows, **fields))


@pytest.mark.parametrize(
    ("row_ns", "wide", "fields", "dispatch"),
    [
        (10_000, False, {}, "inline"),
        (300_000, False, {}, "thread"),
        (100_000, False, {}, "thread"),
        (10_000, True, {}, "thread"),
        (10_000, False, {"dispatch": "thread"}, "thread"),
        (300_000, False, {"dispatch": "inline"}, "inline"),
        (10_000, False, {"provider": "cuda"}, "thread"),
    ],
    ids=["fast", "slow row", "slow batch", "free width", "told thread", "told inline", "device"],
)
def test_only_what_is_fast_for_every_request_runs_inline(
    serve: Serve, row_ns: int, wide: bool, fields: dict[str, Any], dispatch: str
) -> None:
    clock = Clock()
    model = open_model(serve(Fake(clock, row_ns, wide), **fields), now=clock)
    assert model.learned.dispatch == dispatch
    assert model.learned.run_ns == row_ns


def test_a_fast_model_is_measured_with_all_sizes_up_to_the_limit(serve: Serve) -> None:
    clock = Clock()
    learned = open_model(serve(Fake(clock), batching=limited(48)), now=clock).learned
    assert learned.run_times == {rows: rows * 10_000 for rows in (1, 2, 4, 8, 16, 32, 48)}


def test_an_inline_model_has_one_session_however_many_are_asked_for(serve: Serve) -> None:
    clock = Clock()
    model = open_model(serve(Fake(clock), instance_count=3), now=clock)
    assert (len(model.sessions), model.learned.dispatch, model.learned.instances) == (1, "inline", 1)


def test_a_slow_model_is_measured_with_a_few_runs(serve: Serve) -> None:
    clock = Clock()
    slow = Fake(clock, row_ns=60_000_000)
    learned = open_model(serve(slow), now=clock).learned
    assert slow.rows[-3:] == [1, 1, 2]
    assert set(learned.run_times) == {1, 2}
    # Two rows take twice as long as one: there is nothing to win by batches.
    assert learned.rows_max == 1


def test_measuring_keeps_to_its_budget(serve: Serve) -> None:
    clock = Clock()
    middling = Fake(clock, row_ns=2_000_000)
    learned = open_model(serve(middling), now=clock).learned
    begun = clock.ns
    open_model(serve(middling), learned, now=clock)
    warming_ns = clock.ns - begun
    assert max(learned.run_times) < 64
    assert sum(rows * 2_000_000 for rows in middling.rows) <= 2_000_000_000
    assert warming_ns == 2 * 2_000_000 + 2 * learned.rows_max * 2_000_000


def test_a_device_sees_the_largest_size_whatever_it_takes(serve: Serve) -> None:
    clock = Clock()
    on_device = Fake(clock, row_ns=50_000_000)
    learned = open_model(serve(on_device, batching=limited(48), provider="cuda"), now=clock).learned
    assert set(learned.run_times) >= {1, 48}
    assert 32 not in learned.run_times


def test_every_further_session_is_warmed(serve: Serve) -> None:
    clock = Clock()
    first, second = Fake(clock), Fake(clock)
    open_model(serve(first, second, instance_count=2, dispatch="thread"), now=clock)
    assert second.rows == [1, 1, 16, 16]


def test_where_a_core_would_be_idle_a_second_instance_is_opened(serve: Serve) -> None:
    clock = Clock()
    slow = {"dispatch": "thread"}
    assert len(open_model(serve(Fake(clock), Fake(clock), **slow), cores=3, now=clock).sessions) == 2
    assert len(open_model(serve(Fake(clock), Fake(clock), **slow), cores=2, now=clock).sessions) == 1
    assert len(open_model(serve(Fake(clock), Fake(clock), **slow, instances=1), cores=8, now=clock).sessions) == 1


def test_a_larger_size_that_fails_bounds_the_batches_where_nobody_set_a_limit(serve: Serve) -> None:
    clock = Clock()
    learned = open_model(serve(Fake(clock, fails_above=8)), now=clock).learned
    assert learned.rows_max == 8
    assert learned.reasons["rows_max"].endswith("a run of 16 rows failed")


def test_what_another_process_learned_is_not_measured_again(serve: Serve) -> None:
    clock = Clock()
    first, second = Fake(clock), Fake(clock, row_ns=999_999)
    learned = open_model(serve(first), now=clock).learned
    model = open_model(serve(second), learned, now=clock)
    assert model.learned == learned
    assert model.signature.batched
    assert [spec.batch_axis for spec in model.signature.inputs + model.signature.outputs] == [0, 0]


def test_threads_are_given_learned_or_one(serve: Serve) -> None:
    clock = Clock()
    assert open_model(serve(Fake(clock)), now=clock).learned.threads == 1
    assert open_model(serve(Fake(clock), threads=3), now=clock).learned.threads == 3


def test_a_batch_that_fails_in_the_warm_up_fails_the_load_and_closes_all(serve: Serve) -> None:
    clock = Clock()
    sessions = [Fake(clock), Fake(clock, fails_above=8)]
    with pytest.raises(LoadFailed, match="warming the model up with 16 rows failed: out of memory"):
        open_model(serve(*sessions, instance_count=2, dispatch="thread"), now=clock)
    assert [session.closed for session in sessions] == [1, 1]


def test_a_size_that_was_asked_for_and_fails_fails_the_load(serve: Serve) -> None:
    clock = Clock()
    only = Fake(clock, fails_above=8)
    with pytest.raises(LoadFailed, match="warming the model up with 16 rows failed: out of memory"):
        open_model(serve(only, batching=limited(48, rows_learned=False)), now=clock)
    assert only.closed == 1


def test_a_session_that_cannot_be_opened_closes_those_that_were(serve: Serve) -> None:
    clock = Clock()
    only = Fake(clock)
    with pytest.raises(LoadFailed, match="no more sessions"):
        open_model(serve(only, instance_count=2, dispatch="thread"), now=clock)
    assert only.closed == 1


def test_a_model_that_no_sample_suits_is_served_unbatched_and_unmeasured(serve: Serve) -> None:
    clock = Clock()
    learned = open_model(serve(Fake(clock, wide=True, fails_above=0)), now=clock).learned
    assert (learned.batched, learned.run_ns, learned.dispatch) == (False, 0, "thread")
    assert learned.reason.startswith("batching could not be proven, as none of 1024 generated samples runs (the last")
    assert learned.reason.endswith("out of memory); fixed sizes in the model make samples easier to find")


def test_axes_learned_of_other_names_change_nothing(serve: Serve) -> None:
    clock = itertools.count()
    learned = Learned(batched=True, reason="", input_axes={"other": 0}, output_axes={})
    model = open_model(serve(Fake(Clock())), learned, now=lambda: next(clock))
    assert model.signature.inputs[0].batch_axis is None
    assert np.all([spec.batch_axis is None for spec in model.signature.outputs])


def test_further_sessions_are_warmed_by_what_was_learned_and_measured_by_nobody(serve: Serve) -> None:
    clock = Clock()
    model = open_model(serve(Fake(clock), dispatch="thread"), now=clock)
    second, third = Fake(clock), Fake(clock)
    spec = serve(second, third, dispatch="thread", instance_count=3)
    learned = with_capacity(spec, model.learned, cores=1)
    more = open_more(spec, learned, model.signature, 1, now=clock)
    assert more == (second, third)
    assert second.rows == third.rows == [1, 1, 16, 16]
    assert learned.run_times == model.learned.run_times
    assert learned.instances == 3
    assert learned.reasons["instances"] == "this scorer's share of instance_count; it has 1 core"


def test_a_further_session_that_fails_closes_those_before_it(serve: Serve) -> None:
    clock = Clock()
    model = open_model(serve(Fake(clock), dispatch="thread"), now=clock)
    second, third = Fake(clock), Fake(clock, fails_above=8)
    spec = serve(second, third, dispatch="thread", instance_count=3)
    with pytest.raises(LoadFailed, match="warming the model up with 16 rows failed"):
        open_more(spec, with_capacity(spec, model.learned, 1), model.signature, 1, now=clock)
    assert (second.closed, third.closed) == (1, 1)


def test_further_sessions_of_a_file_that_changed_are_refused(tmp_path: Path) -> None:
    path = models.write(tmp_path, models.linear())
    spec = RuntimeSpec(path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest(), dispatch="thread")
    model = open_model(spec)
    models.write(tmp_path, models.linear(seed=1))
    learned = with_capacity(RuntimeSpec(path="", sha256="", instances=2), model.learned, 1)
    with pytest.raises(LoadFailed, match="changed: its SHA-256 is"):
        open_more(spec, learned, model.signature, 1)


def test_how_many_instances_there_are_is_never_taken_from_what_was_learned(serve: Serve) -> None:
    clock = Clock()
    learned = open_model(serve(Fake(clock), dispatch="thread"), now=clock).learned
    model = open_model(serve(Fake(clock), Fake(clock), dispatch="thread", instance_count=2), learned, now=clock)
    assert (learned.instances, model.learned.instances, len(model.sessions)) == (1, 2, 2)


def test_capacity_is_how_many_instances_run_and_nothing_else() -> None:
    spec = RuntimeSpec(path="a", sha256="b")
    assert same_but_capacity(spec, RuntimeSpec(path="a", sha256="b", instance_count=7, instances=3))
    assert same_but_capacity(spec, spec)
    assert not same_but_capacity(spec, RuntimeSpec(path="a", sha256="c", instance_count=7))
    assert not same_but_capacity(spec, RuntimeSpec(path="a", sha256="b", threads=2))
