"""Counts to verdicts, tables, JSON and the page: what is shown is what was counted, and no secret is in it."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.client import charts, fleet, session
from bench.client.ends import CONNECT, FOREVER_NS, LOST, TIMEOUT
from bench.client.errors import CannotMeasure
from bench.client.fleet import Plan, Progress
from bench.client.latency import Latencies
from bench.client.options import Options, read
from bench.client.page import page
from bench.client.probe import Probe, _unreachable
from bench.client.progress import Line
from bench.client.record import Record, Sums
from bench.client.results import Point, Process, Report, Step, as_json, bottlenecks, shortfalls
from bench.client.search import Limits, RateSearch
from bench.client.settle import Settled, Window
from bench.client.table import terminal
from bench.client.target import Target, read_target
from bench.client.trust import client_context

MS = 1_000_000


# Records.


def test_only_requests_that_were_meant_for_the_measured_time_count() -> None:
    record = Record(begin_ns=100 * MS, end_ns=200 * MS)
    record.answered(99 * MS, 150 * MS, 200)
    record.answered(150 * MS, 160 * MS, 200)
    record.answered(199 * MS, 300 * MS, 200)
    record.answered(200 * MS, 201 * MS, 200)
    record.answered(150 * MS, 152 * MS, 429)
    record.failed(99 * MS, LOST)
    record.failed(150 * MS, LOST)
    record.sent_late(99 * MS, 105 * MS)
    record.sent_late(150 * MS, 151 * MS)
    record.held_up(90 * MS, 95 * MS)
    record.held_up(120 * MS, 119 * MS)
    sums = Sums()
    sums.add(record.take())
    # Throughput counts by when an answer came: the first was meant for the warm-up, the third came too late.
    assert (sums.accepted_in_time, sums.refused_in_time) == (2, 1)
    assert (sums.accepted.count, sums.refused.count) == (2, 1)
    assert sums.accepted.max_ns == pytest.approx(101 * MS, rel=1e-3)
    assert dict(sums.statuses) == {200: 2, 429: 1}
    assert (dict(sums.errors), sums.lag.count, sums.loop_lag.count) == ({LOST: 1}, 1, 1)
    assert (sums.asked, sums.failed, sums.error_ratio) == (4, 1, 0.5)


def test_taking_starts_again_at_zero_and_sums_add_up() -> None:
    record, sums = Record(), Sums()
    for _ in range(2):
        record.answered(MS, 2 * MS, 200)
        record.differs()
        sums.add(record.take())
    assert record.take()["statuses"] == {}
    both = Sums()
    both.merge(sums)
    both.merge(sums)
    assert (both.accepted.count, both.mismatches, both.statuses[200]) == (4, 4, 4)


def test_a_connection_that_was_not_opened_is_no_request() -> None:
    sums = Sums()
    sums.errors[CONNECT] = 5
    assert (sums.asked, sums.failed, sums.error_ratio) == (0, 0, 1.0)


# Verdicts.


def sums(accepted_ms: Sequence[float] = (1.0,) * 99 + (5.0,), refused: int = 0, lost: int = 0) -> Sums:
    record = Record(0, FOREVER_NS)
    for latency_ms in accepted_ms:
        record.answered(MS, MS + int(latency_ms * MS), 200)
    for _ in range(refused):
        record.answered(MS, 3 * MS, 429)
    for _ in range(lost):
        record.failed(MS, LOST)
    found = Sums()
    found.add(record.take())
    return found


def step(**more: Any) -> Step:
    point = Point(at_s=0.0, seconds=0.5, accepted=50, refused=1, failed=0, p50_ms=1.0, p99_ms=5.0, waiting=3)
    default = Step(
        connections=64,
        rate=None,
        seconds=2.0,
        sums=sums(),
        windows=[Window(rate=50, p99_ms=5.0)],
        settled=Settled(yes=True, why="settled after 3 windows"),
        timeline=[point, replace(point, at_s=0.5)],
        processes=[Process(used=0.5, waited=0.1)],
    )
    return replace(default, **more)


def report(*steps: Step, **more: Any) -> Report:
    default = Report(
        target={"url": "https://h/endpoints/<d>/score", "format": "azure", "model": "d", "deployment": "blue"},
        settings={"loop": "closed loop", "slo_p99_ms": None, "max_error_ratio": None, "processes": 2, "rows": 1},
        machine={
            "processor": "A & B",
            "cores": 2,
            "system": "Linux 6",
            "python": "3.11",
            "packages": {"uvloop": "1"},
        },
        measured_at="2026-01-01T00:00:00+0000",
        steps=steps,
    )
    return replace(default, **more)


def test_a_step_meets_what_is_asked_or_says_what_not() -> None:
    assert shortfalls(step(), None, None) == []
    assert shortfalls(step(), 5.1, 0.0) == []
    assert shortfalls(step(sums=sums([9.0] * 100)), 5.0, None) == ["p99 9.00 ms is over 5 ms"]
    (said,) = shortfalls(step(sums=sums(refused=50, lost=50)), None, 0.1)
    assert said == "50.00% of the requests were not accepted, more than 10.00%"
    assert shortfalls(step(sums=sums([], refused=1)), 5.0, None) == ["no request was accepted"]


def test_the_client_says_when_it_was_the_bottleneck() -> None:
    assert bottlenecks(step()) == []
    busy = step(processes=[Process(used=0.5, waited=0.1), Process(used=0.5, waited=0.4)])
    (said,) = bottlenecks(busy)
    assert "generator process 1 needed 0.90 of a core (used 0.50, waited for one 0.40)" in said
    late = step()
    late.sums.lag.record(2 * MS)
    late.sums.loop_lag.record(9 * MS)
    assert [said.split(": ")[1] for said in bottlenecks(late)] == [
        "it sent 1 in 100 requests at least 2.0 ms late",
        "it was held up, 1 time in 100, for at least 9.0 ms",
    ]


def test_lateness_that_does_not_matter_beside_the_latency_is_not_told() -> None:
    slow = step(sums=sums([500.0] * 10))
    slow.sums.lag.record(2 * MS)
    assert bottlenecks(slow) == []


# The terminal.


def test_the_table_has_a_row_a_step_and_what_it_hides_below() -> None:
    bad = step(
        rate=1234.5,
        sums=sums(refused=3, lost=2),
        note="interrupted",
        mismatches=4,
        settled=Settled(yes=False, why="no"),
    )
    bad.sums.errors[CONNECT] = 1
    text = terminal(
        report(step(), bad, failures=["late"], search="found", settings=dict(report().settings) | {"slo_p99_ms": 5.0})
    )
    assert re.search(r"^64 connections +50\.0 +1\.00 +1\.00 +1\.00 .* 0$", text, re.M)
    assert re.search(r"^1,234\.5/s .* 4\.76%$", text, re.M)
    for said in ("cut short: interrupted", "refused 3", "2 lost", "1 connections not opened", "4 answers differ"):
        assert said in text
    assert "NOT MET: late" in text and "p99 within 5 ms: found" in text


def test_nothing_measured_is_said() -> None:
    empty = step(seconds=0.0, sums=Sums(), timeline=[])
    assert "nothing was measured" in terminal(report(empty)) and "Nothing was measured" in page(report(empty))
    silent = step(sums=sums([], lost=3), settled=Settled(yes=False, why="no"))
    assert re.search(r"64 connections +0\.0 +- .* 100\.00%", terminal(report(silent)))
    assert "–" in page(report(silent))


# JSON and the page.


def test_json_has_every_count_and_the_histogram() -> None:
    document = as_json(report(step(sums=sums(refused=2, lost=1)), interrupted=True))
    (found,) = document["steps"]
    assert (found["requests"], found["statuses"]) == (103, {"200": 100, "429": 2})
    assert found["errors"] == {"lost": 1, "timeout": 0, "unanswered": 0, "no HTTP": 0, "connect": 0}
    assert found["accepted"]["p99_ms"] == pytest.approx(1.0, rel=1e-2)
    assert found["accepted"]["max_ms"] == pytest.approx(5.0, rel=1e-2)
    again = Latencies()
    again.add_encoded(found["accepted"]["hdr_ns"])
    assert again.count == 100 and document["interrupted"] and not document["client_was_bottleneck"]


class Checked(HTMLParser):
    """Every element is closed in order; nothing is loaded from elsewhere and nothing runs."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not {"src", "href", "onload", "onclick"} & {name for name, _ in attributes}
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("count", [1, 2, 9])
def test_the_page_is_one_whole_document_that_loads_nothing(count: int) -> None:
    steps = [
        step(rate=100.0 * number, sums=sums([number] * 50, refused=number, lost=number % 2))
        for number in range(1, count + 1)
    ]
    settings = dict(report().settings) | {"slo_p99_ms": 3.0, "rates": [100.0], "find_rate": True}
    text = page(report(*steps, settings=settings, best_rate=100.0, search="found", failures=["<late>"]))
    checked = Checked()
    checked.feed(text)
    assert checked.open == [] and not {"script", "link", "img", "iframe"} & set(checked.tags)
    assert checked.tags.count("svg") == (4 if count > 1 else 3)
    assert "url(" not in text and "@import" not in text and "prefers-color-scheme: dark" in text
    assert "&lt;late&gt;" in text and "A &amp; B" in text and "/endpoints/&lt;d&gt;/score" in text
    assert "nan" not in text and "inf" not in text.replace("inference", "")


def test_the_page_says_that_the_client_was_the_bottleneck() -> None:
    busy = step(processes=[Process(used=1.0, waited=0.0)])
    assert "The client was the bottleneck" in page(report(busy, interrupted=True))
    assert as_json(report(busy))["client_was_bottleneck"] and "! 64 connections: the client was" in terminal(
        report(busy)
    )


@given(st.floats(1e-3, 1e7), st.floats(1.0, 1e6))
def test_ticks_cover_the_values_in_order(low: float, factor: float) -> None:
    high = low * factor
    for axis in (
        charts.linear("a", high),
        charts.exact("a", high),
        charts.logarithmic("a", low, high),
        charts.spread("a", [low, high]),
    ):
        places = [axis.place(value) for value, _ in axis.ticks]
        assert places == sorted(places) and len(places) <= 40
        assert -1e-6 <= axis.place(low) <= axis.place(high) <= 1 + 1e-6


def test_nines_have_room_for_the_tail() -> None:
    axis = charts.nines("p")
    assert [axis.place(percent) for percent in (0, 90, 99, 99.9, 99.99)] == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
    assert [charts.short(value) for value in (0.25, 1500, 12_000, 3_000_000)] == ["0.25", "1,500", "12k", "3M"]


# Progress.


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Tty(), io.StringIO()])
def test_progress_is_one_line_a_second(stream: io.StringIO) -> None:
    line, plan = Line(stream), Plan(connections=4, rate=1000.0)
    line.show(Progress(plan=plan, point=None))
    point = Point(at_s=0.0, seconds=0.5, accepted=50, refused=5, failed=1, p50_ms=1.0, p99_ms=5.0, waiting=3)
    line.show(Progress(plan=plan, point=point))
    assert "100/s" not in stream.getvalue()
    line.show(Progress(plan=plan, point=replace(point, at_s=0.5, accepted=50)))
    line.say("passes")
    text = stream.getvalue()
    assert (
        "1,000/s over 4 connections:   1.0 s  100/s  p50 1.00 ms  p99 5.00 ms  refused 10/s  failed 2  waiting 3"
        in text
    )
    assert ("\r" in text) is stream.isatty() and text.endswith("passes\n")


def test_quiet_is_quiet() -> None:
    stream = io.StringIO()
    line = Line(stream, quiet=True)
    line.show(Progress(plan=Plan(connections=4), point=None))
    line.say("x")
    line.clear()
    assert stream.getvalue() == ""


# What is asked before measuring.


def options(**given: object) -> Options:
    return read("https://h/endpoints/d/score", {"key": "hunter2", "header": ["x-token: hunter3"], **given}, {})


def probe(target: Target, answer: httpx.Response | Exception, key: str | None = "hunter2") -> Probe:
    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    found = Probe(target, None, key, 1.0)
    found._client.close()
    found._client = httpx.Client(transport=httpx.MockTransport(handle), base_url=target.base)
    return found


TARGET = read_target("https://h/endpoints/d/score")
REQUEST = b"POST /endpoints/d/score HTTP/1.1\r\nhost: h\r\n\r\n{}"


@pytest.mark.parametrize(
    ("answer", "key", "said"),
    [
        (
            httpx.Response(401, text="no"),
            None,
            "answered 401 no; no key was sent: give one with --key or GATEWAY_KEY",
        ),
        (httpx.Response(401), "hunter2", "answered 401; the key that was sent does not open it"),
        (httpx.Response(404, text="x" * 999), None, "answered 404 xxx"),
    ],
)
def test_a_first_request_that_is_refused_is_the_end(answer: httpx.Response, key: str | None, said: str) -> None:
    with probe(TARGET, answer, key) as asked, pytest.raises(CannotMeasure) as caught:
        asked.one(REQUEST)
    assert said in str(caught.value) and "hunter2" not in str(caught.value) and len(str(caught.value)) < 500


def test_an_overloaded_server_may_be_measured() -> None:
    with probe(TARGET, httpx.Response(429)) as asked:
        assert asked.one(REQUEST) == 429


@pytest.mark.parametrize("answer", [httpx.Response(404), httpx.Response(200, text="x"), httpx.Response(200, json=[])])
def test_metadata_that_is_not_there_asks_for_bodies(answer: httpx.Response) -> None:
    with probe(TARGET, answer) as asked, pytest.raises(CannotMeasure, match="--data"):
        asked.metadata()
    with probe(read_target("https://h/score"), answer) as asked, pytest.raises(CannotMeasure, match="--model"):
        asked.metadata()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (httpx.ConnectError("[Errno 111] Connection refused"), "is it running"),
        (httpx.ConnectError("[SSL: WRONG_VERSION_NUMBER]"), "does it speak http instead of https?"),
        (
            httpx.ConnectError(
                "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unknown issuer (_ssl.c:1)"
            ),
            "its certificate is not trusted: unknown issuer; give its authority with --ca FILE",
        ),
        (httpx.ReadTimeout("x"), "no answer in time"),
        (httpx.RemoteProtocolError("gone"), "the connection broke: gone"),
    ],
)
def test_what_cannot_be_reached_is_one_sentence_with_a_way_out(error: httpx.HTTPError, said: str) -> None:
    assert said in _unreachable(TARGET, error)
    with probe(TARGET, error) as asked, pytest.raises(CannotMeasure):
        asked.one(REQUEST)


def test_a_file_of_no_certificates_is_told(tmp_path: Path) -> None:
    with pytest.raises(CannotMeasure, match="there is no file"):
        client_context(str(tmp_path / "none"), False)
    (tmp_path / "x").write_text("x")
    with pytest.raises(CannotMeasure, match="no certificates in PEM form"):
        client_context(str(tmp_path / "x"), False)
    assert client_context("", True).check_hostname is False


# From options to plans and verdicts.


def test_traffic_is_made_from_metadata_and_carries_key_and_headers() -> None:
    metadata = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}], "outputs": []}
    with probe(TARGET, httpx.Response(200, json=metadata)) as asked:
        traffic = session._traffic(options(variants="2", deployment="blue"), TARGET, asked)
    assert len(traffic.requests) == 2 and "hunter2" not in repr(traffic)
    for said in (b"authorization: Bearer hunter2", b"x-token: hunter3", b"azureml-model-deployment: blue"):
        assert said in traffic.requests[0]


def test_traffic_comes_from_files(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text('{"a": 1}\n{"a": 2}\n')
    (tmp_path / "recorded").write_text(
        '{"at_s": 1, "body": 1}\n{"at_s": 2, "body": 1, "path": "/x"}\n{"at_s": 3, "body": 1}\n'
    )
    with probe(TARGET, httpx.Response(500)) as asked:
        assert len(session._traffic(options(data=str(tmp_path / "lines")), TARGET, asked).requests) == 2
        replayed = session._traffic(options(replay=str(tmp_path / "recorded")), TARGET, asked)
        assert [number for _, number in replayed.recorded] == [0, 1, 0] and len(replayed.requests) == 2
        with pytest.raises(CannotMeasure, match="--data: cannot read"):
            session._traffic(options(data=str(tmp_path / "none")), TARGET, asked)
    with pytest.raises(CannotMeasure, match="--html: there is no folder"):
        session._check_outputs(options(html=str(tmp_path / "none" / "x")))


def plans(processes: int, recorded: Sequence[tuple[float, int]] = (), **given: object) -> list[Plan]:
    return session._plans(options(**given), session.Traffic(requests=[b""], recorded=recorded), processes)


def test_every_load_is_a_plan() -> None:
    assert [plan.connections for plan in plans(2, connections="1,4")] == [1, 4]
    (opened,) = plans(4, rate="100", connections="2", seed="3")
    assert opened.schedules == [
        {"kind": "poisson", "rate": 100.0, "seed": 3, "index": index, "of": 2} for index in range(2)
    ]
    recorded = [(0.0, 0), (1.0, 1), (4.0, 0)]
    (replayed,) = plans(2, recorded, replay="f", speed="2", connections="8")
    dealt = [schedule["recorded"] for schedule in replayed.schedules if schedule is not None]
    assert dealt == [[(0.0, 0), (4.0, 0)], [(1.0, 1)]]
    assert replayed.duration_s == pytest.approx(2.01) and replayed.rate == pytest.approx(3 / 2.01)


def test_what_is_asked_and_not_met_is_told() -> None:
    slow = step(sums=sums([9.0] * 10), mismatches=2)
    found = session._failures(options(slo_p99_ms="5", max_error_ratio="0"), [slow], None, False)
    assert found == ["64 connections: 2 answers differ from the first", "64 connections: p99 9.00 ms is over 5 ms"]
    none = RateSearch(Limits())
    none.judge(100.0, False)
    assert "no rate passed" in session._failures(options(), [step()], none, False)[0]
    assert session._failures(options(), [step()], none, True) == []
    assert session._search_says(none, [step(rate=100.0)]) == none.says()
    busy = step(rate=100.0, processes=[Process(used=1.0, waited=0.0)])
    assert session._search_says(none, [busy]).endswith("(but there the client was the bottleneck)")


def test_settings_name_headers_and_hold_no_secret() -> None:
    found = session._settings(options(replay=None, rate="5"), session.Traffic(requests=[b"x"]))
    assert found["headers"] == ["x-token"] and "hunter" not in repr(found)
    assert found["loop"] == "open loop, poisson"


class Told:
    """Generators that answer each step with what a test says."""

    count = 2
    interrupted = False

    def __init__(self, steps: Mapping[float, Step]) -> None:
        self._steps = steps
        self.rates: list[float | None] = []
        self.judged: list[str] = []

    async def step(self, plan: Plan, show: object) -> Step:
        self.rates.append(plan.rate)
        self.judged.append(plan.judge([Window(rate=1, p99_ms=50.0)] * 2))
        return next(found for rate, found in self._steps.items() if plan.rate is not None and plan.rate <= rate)


def test_the_search_asks_for_rates_until_it_knows() -> None:
    told = Told({1000.0: step(), float("inf"): step(sums=sums([99.0] * 10))})
    given = options(find_rate=True, slo_p99_ms="20", rate="500", precision="0.5", quiet=True)
    steps: list[Step] = []
    search = asyncio.run(session._search(given, told, Line(quiet=True), steps))  # type: ignore[arg-type]
    assert told.rates == [500.0, 1000.0, 2000.0, 1410.0]
    assert (search.best, search.failed, len(steps)) == (1000.0, 1410.0, 4)
    assert told.judged[0] == "far over 20 ms in two successive windows"


def test_an_interrupted_search_keeps_what_it_has() -> None:
    told = Told({float("inf"): step(note=fleet.INTERRUPTED_NOTE)})
    given = options(find_rate=True, slo_p99_ms="20", quiet=True)
    steps: list[Step] = []
    search = asyncio.run(session._search(given, told, Line(quiet=True), steps))  # type: ignore[arg-type]
    assert (search.best, search.failed, len(steps)) == (None, None, 1)


def test_timeouts_are_failures_like_any_other() -> None:
    found = Sums()
    found.errors[TIMEOUT] = 3
    assert (found.failed, found.error_ratio) == (3, 1.0)
