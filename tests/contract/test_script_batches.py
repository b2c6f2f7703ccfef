"""A worker process whose script has run_batch(): what it says on its sockets, for whole batches and alone."""

from __future__ import annotations

import os
import time
from pathlib import Path
from textwrap import dedent

import pytest

from runtimes.script.worker_lib.igw_worker import state, wire
from runtimes.script.worker_lib.igw_worker.main import UNREADABLE
from runtimes.script.worker_lib.igw_worker.parcel import Part
from tests.support.script_worker import Worker, head, headers_of, value_of, write_script

UPPER = """
    def run_batch(batch):
        return [[one.upper(), len(batch)] for one in batch]
"""


def part(number: int, body: bytes = b"a", due_ns: int = 0, deadline_ns: int = 0) -> Part:
    return Part(number, due_ns, {**head(), "deadline_ns": deadline_ns}, body)


def started(folder: Path, script: str) -> Worker:
    write_script(folder, script)
    return Worker(folder)


def test_a_worker_says_at_its_start_whether_its_script_takes_batches(tmp_path: Path) -> None:
    with started(tmp_path, UPPER) as worker:
        assert worker.event()["batches"] is True
        assert "run_batch() many at once" in worker.wait_for_log("ready for serving")
    with started(tmp_path / "other", "def run(raw):\n    return raw") as worker:
        assert worker.event()["batches"] is False


def test_a_parcel_is_taken_run_and_answered_request_by_request(tmp_path: Path) -> None:
    with started(tmp_path, UPPER) as worker:
        worker.ready().ask_parcel(part(11), part(12, b"b"), part(13, b"c" * 100_000), request_id=10)
        taken, ran, *answers = [worker.next() for _ in range(5)]
        assert (taken.kind, taken.request_id) == (wire.TAKEN, 10)
        assert (ran.kind, ran.request_id, ran.head["rows"], ran.head["failed"]) == (wire.RAN, 10, 3, False)
        assert [(one.kind, one.request_id) for one in answers] == [(wire.ANSWER, number) for number in (11, 12, 13)]
        assert [value_of(one) for one in answers] == [["A", 3], ["B", 3], ["C" * 100_000, 3]]
        assert {headers_of(one)["x-ms-run-fn-exec-ms"] for one in answers} == {f"{ran.head['ms']:.3f}"}
        worker.wait_for_log("POST /score 200")
        assert worker.stop() == 0
        assert worker.logged().count("POST /score 200") == 3


def test_a_single_request_goes_to_run_where_there_is_one(tmp_path: Path) -> None:
    with started(tmp_path, UPPER + "\n    def run(raw):\n        return 'alone'") as worker:
        assert value_of(worker.ready().call(b"x")) == "alone"
    with started(tmp_path / "other", UPPER) as worker:
        assert value_of(worker.ready().call(b"x")) == ["X", 1]
        assert value_of(worker.call(method="GET", target="/score?n=1")) == ['{"N": 1}', 1]


def test_what_is_too_late_when_the_parcel_is_taken_is_not_run(tmp_path: Path) -> None:
    past_ns = time.monotonic_ns()
    with started(tmp_path, UPPER) as worker:
        worker.ready().ask_parcel(part(11, due_ns=past_ns), part(12))
        kinds = [(frame.kind, frame.request_id) for frame in (worker.next() for _ in range(4))]
        assert kinds == [(wire.EXPIRED, 11), (wire.TAKEN, 1), (wire.RAN, 1), (wire.ANSWER, 12)]
        worker.ask_parcel(part(13, due_ns=past_ns), request_id=2)
        assert worker.next().kind == wire.EXPIRED
        worker.ask_parcel(part(14), request_id=3)
        assert worker.next().kind == wire.TAKEN


def test_a_failed_batch_is_run_one_by_one(tmp_path: Path) -> None:
    script = """
        def run_batch(batch):
            if "bad" in batch:
                raise ValueError("not for callers")
            return batch
    """
    with started(tmp_path, script) as worker:
        worker.ready().ask_parcel(part(11), part(12, b"bad"), part(13))
        frames = [worker.next() for _ in range(8)]
        runs = [(one.head["rows"], one.head["failed"]) for one in frames if one.kind == wire.RAN]
        assert runs == [(3, True), (1, False), (1, True), (1, False)]
        statuses = {one.request_id: one.head["status"] for one in frames if one.kind == wire.ANSWER}
        assert statuses == {11: 200, 12: 500, 13: 200}
        assert "each of them is run alone" in worker.wait_for_log("not for callers")


def test_what_runs_and_until_when_stands_in_the_crews_table(tmp_path: Path) -> None:
    table = os.memfd_create("table")
    os.ftruncate(table, state.RECORD_BYTES)
    workers = os.dup(table)
    # The script itself looks, while it runs.
    script = f"""
        from igw_worker import state
        seen = []
        def run_batch(batch):
            seen.append(state.read({table}, 0))
            if len(batch) > 1:
                raise ValueError
            return [list(seen)]
    """
    far_ns = time.monotonic_ns() + 10**12
    try:
        write_script(tmp_path, script)
        with Worker(tmp_path, state_fd=workers, state_at=0, pass_fds=(table, workers)) as worker:
            worker.ready().ask_parcel(part(11, deadline_ns=far_ns), part(12, deadline_ns=far_ns + 7), request_id=10)
            *_, last = [worker.next() for _ in range(6)]
            assert value_of(last) == [[10, far_ns + 7, 0], [10, far_ns, 0], [10, far_ns + 7, 0]]
            assert worker.stop() == 0
            assert state.read(table, 0) == (0, 0, 0)
    finally:
        os.close(table)
        os.close(workers)


def test_sys_exit_answers_all_and_ends_the_worker(tmp_path: Path) -> None:
    script = """
        import sys
        def run_batch(batch):
            sys.exit(5)
    """
    with started(tmp_path, script) as worker:
        worker.ready().ask_parcel(part(11), part(12))
        frames = [worker.next() for _ in range(4)]
        assert [one.head["status"] for one in frames[2:]] == [500, 500]
        assert worker.process.wait(10) == 5


@pytest.mark.parametrize("body", [b"", b"\xff" * 40, b"\x01\0\0\0"])
def test_what_is_no_parcel_ends_the_worker_so_that_nobody_waits_for_it(tmp_path: Path, body: bytes) -> None:
    with started(tmp_path, UPPER) as worker:
        wire.send(worker.ready().work, wire.PARCEL, request_id=1, body=body)
        assert worker.process.wait(10) == UNREADABLE
        assert "as it cannot read what it was handed over: a parcel of" in worker.logged()


def test_a_worker_that_has_no_descriptor_left_for_a_large_batch_ends(tmp_path: Path) -> None:
    script = """
        import os
        def run_batch(batch):
            try:
                while True:
                    os.open("/dev/null", os.O_RDONLY)
            except OSError:
                return batch
    """
    write_script(tmp_path, "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n" + dedent(script))
    with Worker(tmp_path) as worker:
        worker.ready().ask_parcel(part(2), request_id=1)
        assert [worker.next().kind for _ in range(3)] == [wire.TAKEN, wire.RAN, wire.ANSWER]
        worker.ask_parcel(part(4, b"x" * 100_000), request_id=3)
        assert worker.process.wait(10) == UNREADABLE
        assert "0 descriptors where one memory file was told of" in worker.logged()


def test_a_parcel_for_a_script_without_run_batch_is_dropped(tmp_path: Path) -> None:
    with started(tmp_path, "def run(raw):\n    return raw") as worker:
        worker.ready().ask_parcel(part(1))
        assert value_of(worker.call(b"x")) == "x"
        assert "it is no request of a scorer" in worker.logged()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "from azureml_inference_server_http.api.aml_request import rawhttp\n"
            "@rawhttp\ndef run(request):\n    pass\ndef run_batch(batch):\n    pass",
            "@rawhttp the request itself; keep one of them",
        ),
        ("def run_batch(a, b):\n    pass", "found (a, b)"),
    ],
)
def test_a_run_batch_that_cannot_serve_does_not_start(tmp_path: Path, script: str, said: str) -> None:
    with started(tmp_path, script) as worker:
        event = worker.event()
        assert (event["event"], event["code"]) == ("failed", "BadArgument")
        assert said in event["message"]
