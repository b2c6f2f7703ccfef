"""How a batch is run and bisected, whatever kind of instance has it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from runtimes.batching.batch import Batch
from runtimes.batching.collate import Collator
from runtimes.batching.item import WorkItem
from runtimes.batching.queue import Queue
from runtimes.errors import InvalidInput, ModelFailed
from runtimes.instance import InlinePool, execute
from runtimes.simulated import simulated_signature
from runtimes.tensor import Array, Tensors
from tests.support.virtual import VirtualScheduler

COLLATOR = Collator(simulated_signature())


class ScriptedSession:
    """Runs a function of the rows' values."""

    provider = "fake"

    signature = simulated_signature()

    def __init__(self, script: Callable[[list[float]], None]) -> None:
        self.script = script
        self.ran: list[list[float]] = []
        self.close_error: Exception | None = None
        self.closed = 0

    def run(self, inputs: Tensors, outputs: tuple[str, ...] | None) -> dict[str, Array]:
        values = inputs["x"][:, 0].tolist()
        self.ran.append(values)
        self.script(values)
        return {"y": inputs["x"][:, 0]}

    def close(self) -> None:
        self.closed += 1
        if self.close_error is not None:
            raise self.close_error


def item(value: float, deadline_ns: int = 0) -> WorkItem:
    return WorkItem(
        inputs={"x": np.full((1, 2), value)},
        rows=1,
        key=None,
        outputs=None,
        deadline_ns=deadline_ns,
        reply=lambda _: None,
    )


def batch_of(*items: WorkItem) -> Batch:
    queue: Queue[WorkItem] = Queue(items_max=100, rows_max=100)
    for one in items:
        queue.put(one)
    batch = Batch(None, 100)
    batch.fill(queue)
    return batch


def fail_on(*bad: float, error: BaseException | None = None) -> Callable[[list[float]], None]:
    def script(values: list[float]) -> None:
        if set(values) & set(bad):
            raise error or ModelFailed("a bad row")

    return script


def test_a_good_batch_is_one_run() -> None:
    session = ScriptedSession(fail_on())
    batch = batch_of(item(1), item(2))
    execute(session, COLLATOR, batch, lambda: 7)
    (run,) = batch.runs
    assert run.results is not None
    assert [result["y"].tolist() for result in run.results] == [[1], [2]]
    assert (run.started_ns, run.finished_ns, run.fault) == (7, 7, None)


def test_a_failed_batch_is_halved_until_the_culprits_are_alone() -> None:
    session = ScriptedSession(fail_on(2, 5))
    execute(session, COLLATOR, batch_of(*(item(n) for n in range(6))), lambda: 1)
    assert session.ran == [[0, 1, 2, 3, 4, 5], [0, 1, 2], [0], [1, 2], [1], [2], [3, 4, 5], [3], [4, 5], [4], [5]]


def test_each_half_checks_again_who_is_still_wanted() -> None:
    gone, late = item(2), item(3, deadline_ns=10)
    clock = [0]

    def script(values: list[float]) -> None:
        clock[0] += 6
        gone.done = True
        fail_on(0)(values)

    session = ScriptedSession(script)
    execute(session, COLLATOR, batch_of(item(0), item(1), gone, late), lambda: clock[0])
    assert session.ran == [[0, 1, 2, 3], [0, 1], [0], [1]]


def test_an_empty_batch_runs_nothing() -> None:
    session = ScriptedSession(fail_on())
    gone = item(1)
    batch = batch_of(gone)
    gone.done = True
    execute(session, COLLATOR, batch, lambda: 1)
    assert session.ran == []
    assert batch.runs == []


def test_a_sessions_own_fault_is_kept_without_the_frames_that_hold_the_arrays() -> None:
    batch = batch_of(item(1))
    execute(ScriptedSession(fail_on(1, error=InvalidInput("too long"))), COLLATOR, batch, lambda: 1)
    fault = batch.runs[0].fault
    assert isinstance(fault, InvalidInput)
    assert fault.__traceback__ is None


@pytest.mark.parametrize(
    ("error", "text"),
    [(ValueError("two\n lines"), "ValueError while it ran this request: two lines"), (OSError(), "no reason")],
)
def test_anything_else_becomes_one_sentence(error: Exception, text: str) -> None:
    batch = batch_of(item(1))
    execute(ScriptedSession(fail_on(1, error=error)), COLLATOR, batch, lambda: 1)
    assert isinstance(batch.runs[0].fault, ModelFailed)
    assert text in str(batch.runs[0].fault)


def test_an_error_is_logged_once_for_each_request_it_hits(caplog: pytest.LogCaptureFixture) -> None:
    execute(ScriptedSession(fail_on(1, error=OSError())), COLLATOR, batch_of(item(1), item(2)), lambda: 1)
    assert caplog.text.count("a session raised something other than a fault") == 1


def test_a_session_that_would_end_the_thread_fails_its_batch_instead(caplog: pytest.LogCaptureFixture) -> None:
    batch = batch_of(item(1), item(2))
    execute(ScriptedSession(fail_on(1, error=SystemExit(3))), COLLATOR, batch, lambda: 1)
    assert "SystemExit" in str(batch.fault)
    assert "an instance failed outside its session" in caplog.text


def test_an_interrupt_reaches_the_process_and_the_batch_is_finished_all_the_same() -> None:
    pool = InlinePool((ScriptedSession(fail_on(1, error=KeyboardInterrupt())),), COLLATOR, VirtualScheduler())
    finished: list[Batch] = []
    batch = batch_of(item(1))
    with pytest.raises(KeyboardInterrupt):
        pool.start(batch, finished.append)
    assert finished == [batch]
    assert batch.fault is not None


def test_closing_an_inline_pool_closes_every_session_even_if_one_refuses(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sessions = (ScriptedSession(fail_on()), ScriptedSession(fail_on()))
    sessions[0].close_error = RuntimeError("busy")
    assert InlinePool(sessions, COLLATOR, VirtualScheduler()).close(0.0)
    assert [session.closed for session in sessions] == [1, 1]
    assert "a session failed to close" in caplog.text
