"""The bench against servers that misbehave on purpose: what they did must be in the figures.

The servers answer from the test's own loop or from a thread, so a stall is as long as the test says. Bounds are
wide, for the machine may be busy: a lower bound is what the injected fault makes certain, an upper one several times
what an idle machine shows.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httptools
import pytest
import uvloop

from bench.client import session
from bench.client.alarm import Alarm, TimerFd, Turns
from bench.client.ends import LOST, NO_HTTP, TIMEOUT, UNANSWERED
from bench.client.engine import Dial, Engine
from bench.client.errors import CannotMeasure, GeneratorFailed
from bench.client.fleet import Generators, Plan
from bench.client.options import read
from bench.client.record import Record, Sums
from bench.client.schedule import constant

REQUEST = b"POST /score HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrue"
CLOSING = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\ntrue"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ntrue\r\n0\r\n\r\n"
BUSY = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"
STALL_S = 0.5
FEW: dict[str, Any] = {"connections": "4"}
# The n-th request, and the seconds since the first: the answer, None to hang up, or how long to hold an OK back.
Script = Callable[[int, float], bytes | float | None]


class Server(asyncio.Protocol):
    """Answers each whole request as the script says; `seen` is shared by all connections."""

    def __init__(self, script: Script, seen: list[float]) -> None:
        self._script, self._seen = script, seen
        self._parser = httptools.HttpRequestParser(self)
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        now_s = time.monotonic()
        self._seen.append(now_s)
        answer = self._script(len(self._seen), now_s - self._seen[0])
        if answer is None:
            self._transport.abort()
        elif isinstance(answer, bytes):
            self._transport.write(answer)
            if answer is CLOSING:
                self._transport.close()
        else:
            asyncio.get_running_loop().call_later(answer, self._write, OK)

    def _write(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


def stalls_once(begin_s: float, length_s: float = STALL_S) -> Script:
    """No answer to anything that comes in this time until it is over."""

    def script(number: int, at_s: float) -> bytes | float:
        return begin_s + length_s - at_s if begin_s <= at_s < begin_s + length_s else OK

    return script


def drive(
    script: Script,
    *,
    seconds: float,
    rate: float | None = None,
    connections: int = 4,
    timeout_s: float = 5.0,
    drain_s: float = 2.0,
    check: bool = False,
    gone: bool = False,
) -> Sums:
    """One step in the loop of this process."""

    async def main() -> Sums:
        seen: list[float] = []
        server = await asyncio.get_running_loop().create_server(lambda: Server(script, seen), "127.0.0.1", 0)
        start_ns = time.monotonic_ns() + 50_000_000
        record = Record(start_ns, start_ns + int(seconds * 1e9))
        engine = Engine(
            Dial(host="127.0.0.1", port=server.sockets[0].getsockname()[1]),
            [REQUEST],
            itertools.repeat(0),
            record,
            timeout_ns=int(timeout_s * 1e9),
            schedule=constant(rate) if rate is not None else None,
            references={} if check else None,
        )
        assert await engine.connect(connections) == connections
        engine.go(start_ns, record.end_ns)
        if gone:
            server.close()
        await engine.finished(drain_s)
        await engine.close()
        server.close()
        sums = Sums()
        sums.add(record.take())
        return sums

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


# Coordinated omission.


def test_an_open_loop_reports_a_stall_at_its_full_size_and_in_all_that_it_held_up() -> None:
    sums = drive(stalls_once(0.3), seconds=1.2, rate=500.0)
    # 600 requests are meant to be sent, 250 of them in the stall: they wait from 0.5 s down to nothing.
    assert sums.asked == sums.accepted.count == 600
    at_s = {percent: sums.accepted.percentile_ns(percent) / 1e9 for percent in (50, 75, 90, 99, 100)}
    assert STALL_S * 0.98 <= at_s[100] < STALL_S + 0.4
    assert STALL_S * 0.90 <= at_s[99] < STALL_S + 0.4
    # Evenly from 0 to 0.5 s among 250 of 600: a tenth of all waited for more than 0.38 s, a quarter more than 0.2 s.
    assert 0.33 <= at_s[90] < 0.38 + 0.3
    assert 0.15 <= at_s[75] < 0.20 + 0.3
    assert at_s[50] < 0.15 + 0.3


def test_a_closed_loop_hides_the_same_stall_from_all_but_its_connections() -> None:
    sums = drive(stalls_once(0.3), seconds=1.2)
    assert sums.accepted.max_ns >= STALL_S * 0.98 * 1e9
    # Four requests of thousands: this is why the open loop is there.
    assert sums.accepted.count > 1000 and sums.accepted.percentile_ns(99) < 0.15 * 1e9


def test_what_is_never_answered_is_counted_with_what_could_not_be_sent() -> None:
    sums = drive(stalls_once(0.2, 60.0), seconds=0.6, rate=500.0, drain_s=0.2)
    assert sums.asked == 300
    # All that were meant for the last 0.4 s; the margin is the server's clock, which starts with the first request.
    assert 190 <= sums.errors[UNANSWERED] <= 230
    assert sums.accepted.count == 300 - sums.errors[UNANSWERED]


def test_refused_requests_are_timed_apart() -> None:
    sums = drive(lambda number, at_s: 0.02 if number % 2 else BUSY, seconds=0.4, rate=200.0)
    assert sums.statuses[200] + sums.statuses[429] == sums.asked == 80
    assert sums.accepted.percentile_ns(1) >= 0.019e9 > sums.refused.percentile_ns(50)


# Connections that break.


def test_a_request_that_waits_too_long_is_a_timeout_and_its_connection_is_replaced() -> None:
    sums = drive(stalls_once(0.1, 0.4), seconds=0.9, timeout_s=0.1, connections=2)
    # Two connections for 0.4 s, each with a request of 0.1 s at a time, found by a sweep every 25 ms.
    assert 2 <= sums.errors[TIMEOUT] <= 10
    assert sums.accepted.count > 100 and sums.accepted.max_ns < 0.3e9


def test_a_server_that_hangs_up_is_dialled_again() -> None:
    sums = drive(lambda number, at_s: None if number in (3, 5) else OK, seconds=0.3)
    assert dict(sums.errors) == {LOST: 2}
    assert sums.accepted.count > 50


def test_answers_that_close_their_connection_or_come_in_chunks_are_answers() -> None:
    sums = drive(lambda number, at_s: CLOSING if number % 3 == 0 else CHUNKED, seconds=0.3)
    assert sums.errors == {} and sums.accepted.count > 50


def test_what_is_no_http_is_told_as_such() -> None:
    sums = drive(lambda number, at_s: b"SSH-2.0\r\n" if number == 4 else OK, seconds=0.2)
    assert dict(sums.errors) == {NO_HTTP: 1} and sums.accepted.count > 50


def test_a_server_that_is_gone_is_counted_and_does_not_stop_the_run() -> None:
    sums = drive(lambda number, at_s: None, seconds=0.4, rate=100.0, gone=True, drain_s=0.1)
    assert sums.asked == 40 and sums.accepted.count == 0
    assert sums.errors[LOST] >= 1 and sums.errors["connect"] >= 4


def test_equal_requests_with_other_answers_are_found() -> None:
    other = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfalse"
    sums = drive(lambda number, at_s: other if number in (7, 9) else OK, seconds=0.2, check=True)
    assert sums.mismatches == 2


@pytest.mark.parametrize("kind", [TimerFd, Turns])
def test_an_alarm_rings_in_time_once_for_the_moment_set_last(
    kind: Callable[[asyncio.AbstractEventLoop, Callable[[], None]], Alarm],
) -> None:
    async def main() -> list[int]:
        rang: asyncio.Queue[int] = asyncio.Queue()
        alarm = kind(asyncio.get_running_loop(), lambda: rang.put_nowait(time.monotonic_ns()))
        due_ns = time.monotonic_ns() + 20_000_000
        alarm.set(due_ns - 10_000_000)
        alarm.set(due_ns)
        at_ns = await asyncio.wait_for(rang.get(), 5.0)
        assert due_ns <= at_ns < due_ns + 1_000_000_000
        # What is past already rings at once, and the moment that was set over never rings.
        alarm.set(1)
        found = [at_ns, await asyncio.wait_for(rang.get(), 5.0)]
        alarm.close()
        assert rang.empty()
        return found

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert len(runner.run(main())) == 2


# Whole runs, with generator processes.


@contextmanager
def serving(script: Script) -> Iterator[str]:
    """A server on a thread; its URL."""
    loop = uvloop.new_event_loop()
    seen: list[float] = []
    server = loop.run_until_complete(loop.create_server(lambda: Server(script, seen), "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/score"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.run_until_complete(server.wait_closed())
        loop.close()


@pytest.fixture
def body(tmp_path: Path) -> str:
    (tmp_path / "body.json").write_text("{}")
    return str(tmp_path / "body.json")


def measured(url: str, tmp_path: Path, status: int = 0, **given: object) -> dict[str, Any]:
    """The report of a quick run with this exit status."""
    out = tmp_path / "report.json"
    flags = {"warm_up": "0.05", "processes": "2", "quiet": True, "json": str(out), "html": str(tmp_path / "r.html")}
    assert session.run(read(url, {**flags, **given}, {})) == status
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    report: dict[str, Any] = json.loads(out.read_text())
    return report


def test_two_processes_sweep_and_their_figures_are_merged(tmp_path: Path, body: str) -> None:
    with serving(lambda number, at_s: OK) as url:
        report = measured(url, tmp_path, data=body, rate="200,400", arrivals="constant", duration="0.3", **FEW)
    assert [step["requests"] for step in report["steps"]] == [60, 120]
    assert [step["statuses"] for step in report["steps"]] == [{"200": 60}, {"200": 120}]
    assert all(len(step["client"]["processes"]) == 2 for step in report["steps"])
    assert all(len(step["windows"]) == 3 and len(step["timeline"]) == 12 for step in report["steps"])
    assert report["machine"]["cores"] and report["settings"]["processes"] == 2


def test_a_step_goes_on_until_it_has_settled_or_its_windows_are_used_up(tmp_path: Path, body: str) -> None:
    # Answers take 2 ms at first and 1 ms more with every 20 requests: never settled at a tenth.
    with serving(lambda number, at_s: 0.002 + number // 20 * 0.001) as url:
        given: dict[str, Any] = {"data": body, "connections": "4", "processes": "1", "window": "0.1"}
        report = measured(url, tmp_path, windows_max="4", tolerance="0.01", p99_tolerance="0.02", **given)
    (step,) = report["steps"]
    assert (step["settled"], len(step["windows"])) == (False, 4)
    assert step["why"].startswith("not settled in 4 windows")
    with serving(lambda number, at_s: 0.02) as url:
        report = measured(url, tmp_path, windows_max="20", tolerance="0.5", p99_tolerance="2", **given)
    (step,) = report["steps"]
    assert step["settled"] and 3 <= len(step["windows"]) < 20


def test_a_limit_that_is_not_met_is_exit_status_1(tmp_path: Path, body: str) -> None:
    with serving(lambda number, at_s: 0.05 if number % 2 else BUSY) as url:
        report = measured(
            url, tmp_path, 1, data=body, connections="4", duration="0.4", slo_p99_ms="20", max_error_ratio="0.1"
        )
    assert len(report["failures"]) == 2 and report["steps"][0]["refused"]["p50_ms"] < 45


def test_the_highest_rate_is_found_where_the_server_gives_way(tmp_path: Path, body: str) -> None:
    # One connection and 10 ms an answer: a hundred a second, less what the machine takes. In a second 180 a second
    # leave more than 700 ms of work behind, and what lies between may end on either side of the limit.
    with serving(lambda number, at_s: 0.01) as url:
        given: dict[str, Any] = {"find_rate": True, "slo_p99_ms": "400", "rate": "45", "precision": "0.9"}
        given |= {"connections": "1", "duration": "1", "arrivals": "constant", "max_rate": "180"}
        report = measured(url, tmp_path, data=body, **given)
    assert 45 <= report["best_rate"] < 180
    assert any(step["accepted"]["p99_ms"] > 400 for step in report["steps"])


def test_recorded_traffic_is_sent_at_its_times_and_compared(tmp_path: Path) -> None:
    seen: list[float] = []

    def script(number: int, at_s: float) -> bytes:
        seen.append(at_s)
        return OK

    lines = [{"at_s": at_s, "body": {"n": index % 2}} for index, at_s in enumerate((0.0, 0.2, 0.6, 0.7))]
    (tmp_path / "recorded").write_text("\n".join(map(json.dumps, lines)))
    with serving(script) as url:
        report = measured(
            url,
            tmp_path,
            replay=str(tmp_path / "recorded"),
            speed="2",
            warm_up=None,
            expect_same=True,
            connections="4",
        )
    (step,) = report["steps"]
    assert (step["requests"], step["mismatches"]) == (4, 0)
    # The first request was the probe; the others came in 0.7 s of recorded time, twice as fast.
    assert len(seen) == 5 and max(seen) - sorted(seen)[1] >= 0.25


def test_answers_that_differ_between_processes_are_found(tmp_path: Path, body: str) -> None:
    answers = itertools.count()

    def script(number: int, at_s: float) -> bytes:
        return b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n%04d" % (next(answers) % 10_000)

    with serving(script) as url:
        report = measured(url, tmp_path, 1, data=body, rate="20", duration="0.3", expect_same=True, **FEW)
    assert report["steps"][0]["mismatches"] >= 1 and "differ" in report["failures"][0]


def test_an_interrupt_gives_the_report_of_what_was_measured(tmp_path: Path, body: str) -> None:
    out = tmp_path / "report.json"
    with serving(lambda number, at_s: OK) as url:
        command = [
            sys.executable,
            "-m",
            "gateway",
            "bench",
            url,
            "--data",
            body,
            "--rate",
            "200,300",
            "--duration",
            "60",
        ]
        command += ["--warm-up", "0", "--window", "0.8", "--processes", "1", "--json", str(out)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        # The first figures are there when they are shown.
        next(line for line in process.stderr if "p99" in line)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert "cut short: interrupted" in stdout and "the report follows" in stderr and "Traceback" not in stderr
    report = json.loads(out.read_text())
    (step,) = report["steps"]
    assert report["interrupted"] and 0.9 < step["seconds"] < 20
    # As many as were meant to be sent in this time, within six sigma of Poisson arrivals.
    assert step["requests"] == pytest.approx(200 * step["seconds"], abs=6 * (200 * step["seconds"]) ** 0.5)


def load(url: str) -> dict[str, object]:
    port = int(url.rpartition(":")[2].partition("/")[0])
    address = {"host": "127.0.0.1", "port": port, "tls": False, "ca": "", "insecure": False}
    return {"address": address, "requests": [], "timeout_s": 1.0, "check": False}


def test_a_generator_process_that_ends_is_told_and_none_is_left_behind() -> None:
    async def main(url: str) -> list[int | None]:
        async with Generators([load(url), load(url)]) as generators:
            generators._processes[0].kill()
            with pytest.raises(GeneratorFailed, match="generator process 0 ended"):
                await generators.step(Plan(connections=2, schedules=[None, None]), lambda progress: None)
        return [process.returncode for process in generators._processes]

    with serving(lambda number, at_s: OK) as url:
        assert asyncio.run(main(url)) == [-9, 0]


def test_nobody_there_is_said_before_anything_is_sent(body: str) -> None:
    with pytest.raises(CannotMeasure, match=r"cannot connect to 127\.0\.0\.1:1: .*is it running"):
        session.run(read("http://127.0.0.1:1/score", {"data": body, "quiet": True}, {}))

    async def main() -> None:
        async with Generators([load("http://h:1/score")]) as generators:
            with pytest.raises(CannotMeasure, match="no connection could be opened: ConnectionRefusedError"):
                await generators.step(Plan(connections=1), lambda progress: None)

    asyncio.run(main())
