"""A whole run of `gateway bench`: options in, requests made, steps carried out, report written, exit status out.

Exit status: 0 done; 1 something that was asked for is not met; 2 nothing was measured (CannotMeasure); 130
interrupted, with the report of what was measured until then.
"""

from __future__ import annotations

import asyncio
import base64
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from bench import machine
from bench.client import bodies, settle
from bench.client.errors import CannotMeasure
from bench.client.fleet import INTERRUPTED_NOTE, Generators, Judge, Plan
from bench.client.options import ERROR_RATIO_MAX, Options
from bench.client.page import page
from bench.client.probe import Probe
from bench.client.progress import Line
from bench.client.results import Report, Step, as_json, bottlenecks, shortfalls
from bench.client.search import Limits, RateSearch
from bench.client.table import terminal
from bench.client.target import Target, read_target
from bench.client.trust import client_context

DONE, NOT_MET, INTERRUPTED = 0, 1, 130
# A replay's last request still counts.
REPLAY_END_S = 0.01
PACKAGES = ("inference-gateway", "httptools", "uvloop", "hdrhistogram")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What will be sent: different requests, and for a replay when and which of them."""

    requests: Sequence[bytes] = field(repr=False)
    recorded: Sequence[tuple[float, int]] = ()


def run(options: Options) -> int:
    """Measures, reports, and says with the exit status whether all was met. Errors: CannotMeasure."""
    target = read_target(options.url, options.wire, options.model, options.deployment)
    _check_outputs(options)
    traffic = prepare(options, target)
    report = asyncio.run(_measure(options, target, traffic))
    print(terminal(report))
    if options.json is not None:
        options.json.write_bytes(orjson.dumps(as_json(report), option=orjson.OPT_INDENT_2) + b"\n")
    if options.html is not None:
        options.html.write_text(page(report), encoding="utf-8")
    if report.interrupted:
        return INTERRUPTED
    return NOT_MET if report.failures else DONE


def prepare(options: Options, target: Target) -> Traffic:
    """The requests, checked by sending the first. Errors: CannotMeasure."""
    tls = client_context(str(options.ca or ""), options.insecure) if target.tls else None
    with Probe(target, tls, options.key, options.timeout_s) as probe:
        traffic = _traffic(options, target, probe)
        probe.one(traffic.requests[0])
    return traffic


def _traffic(options: Options, target: Target, probe: Probe) -> Traffic:
    headers = _headers(options)
    if options.replay is not None:
        events = bodies.read_replay(_content(options.replay, "--replay"))
        numbers: dict[bytes, int] = {}
        recorded = []
        for event in events:
            request = bodies.request_bytes(target.authority, event.path or target.path, event.body, headers)
            recorded.append((event.at_s, numbers.setdefault(request, len(numbers))))
        return Traffic(requests=tuple(numbers), recorded=recorded)
    if options.data is not None:
        made = bodies.read_bodies(_content(options.data, "--data"), options.content_type)
    else:
        made = bodies.generate(
            bodies.read_model(probe.metadata()),
            target.wire,
            rows=options.rows,
            variants=options.variants,
            seed=options.seed,
            shapes=options.shapes,
        )
    return Traffic(
        requests=tuple(bodies.request_bytes(target.authority, target.path, body, headers) for body in made)
    )


def _headers(options: Options) -> list[tuple[str, str]]:
    headers = [("accept", "*/*")]
    if options.key:
        headers.append(("authorization", f"Bearer {options.key}"))
    if options.deployment:
        headers.append(("azureml-model-deployment", options.deployment))
    return [*headers, *options.headers]


def _content(path: Path, flag: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CannotMeasure(f"{flag}: cannot read {path}: {error.strerror or error}") from None


def _check_outputs(options: Options) -> None:
    """A report that cannot be written should not be found out after an hour."""
    for flag, path in (("--json", options.json), ("--html", options.html)):
        if path is not None and not path.absolute().parent.is_dir():
            raise CannotMeasure(f"{flag}: there is no folder {path.absolute().parent}")


# Measuring.


async def _measure(options: Options, target: Target, traffic: Traffic) -> Report:
    processes = min(options.processes or len(machine.cores()) or 1, max(options.connections))
    load = {
        "address": {
            "host": target.host,
            "port": target.port,
            "tls": target.tls,
            "ca": str(options.ca or ""),
            "insecure": options.insecure,
        },
        "requests": [base64.b64encode(request).decode() for request in traffic.requests],
        "timeout_s": options.timeout_s,
        "check": options.expect_same,
    }
    facts = machine.facts(PACKAGES)
    line = Line(quiet=options.quiet)
    steps: list[Step] = []
    search: RateSearch | None = None
    began = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    async with Generators([load] * processes) as generators:
        on_interrupt = _Interrupts(generators)
        try:
            if options.find_rate:
                search = await _search(options, generators, line, steps)
            else:
                await _sweep(options, traffic, generators, line, steps)
        finally:
            on_interrupt.restore()
            line.clear()
    return Report(
        target={"url": target.url, "format": target.wire, "model": target.model, "deployment": options.deployment},
        settings={**_settings(options, traffic), "processes": processes},
        machine=facts,
        measured_at=began,
        steps=steps,
        best_rate=search.best if search is not None else None,
        search=_search_says(search, steps) if search is not None else "",
        failures=_failures(options, steps, search, generators.interrupted),
        interrupted=generators.interrupted,
    )


async def _sweep(options: Options, traffic: Traffic, generators: Generators, line: Line, steps: list[Step]) -> None:
    for plan in _plans(options, traffic, generators.count):
        if generators.interrupted:
            return
        steps.append(await generators.step(plan, line.show))


def _plans(options: Options, traffic: Traffic, processes: int) -> list[Plan]:
    if traffic.recorded:
        return [_replay(options, traffic, processes)]
    if options.rates:
        return [_open(options, rate, processes) for rate in options.rates]
    return [_plan(options, connections, None, [None] * processes) for connections in options.connections]


def _replay(options: Options, traffic: Traffic, processes: int) -> Plan:
    """Events are dealt out in turn."""
    length_s = traffic.recorded[-1][0] / options.speed + REPLAY_END_S
    duration_s = max(REPLAY_END_S, min(options.duration_s or length_s, length_s - options.warm_up_s))
    processes = min(processes, options.connections[0])
    schedules = [
        {"recorded": traffic.recorded[number::processes], "speed": options.speed} for number in range(processes)
    ]
    rate = len(traffic.recorded) / length_s
    return _plan(options, options.connections[0], rate, schedules, duration_s)


def _open(options: Options, rate: float, processes: int, judge: Judge = lambda windows: "") -> Plan:
    of = min(processes, options.connections[0])
    schedules = [
        {"kind": options.arrivals, "rate": rate, "seed": options.seed, "index": index, "of": of}
        for index in range(of)
    ]
    return _plan(options, options.connections[0], rate, schedules, options.duration_s, judge)


def _plan(
    options: Options,
    connections: int,
    rate: float | None,
    schedules: Sequence[Mapping[str, Any] | None],
    duration_s: float | None = None,
    judge: Judge = lambda windows: "",
) -> Plan:
    return Plan(
        connections=connections,
        rate=rate,
        schedules=schedules,
        warm_up_s=options.warm_up_s,
        window_s=options.window_s,
        duration_s=duration_s if duration_s is not None else options.duration_s,
        drain_s=options.drain_s,
        tolerance=settle.Tolerance(
            rate=options.tolerance, p99=options.p99_tolerance, windows_max=options.windows_max
        ),
        judge=judge,
    )


async def _search(options: Options, generators: Generators, line: Line, steps: list[Step]) -> RateSearch:
    assert options.slo_p99_ms is not None
    slo_p99_ms = options.slo_p99_ms
    ratio_max = options.max_error_ratio if options.max_error_ratio is not None else ERROR_RATIO_MAX

    def judge(windows: Sequence[settle.Window]) -> str:
        hopeless = settle.is_hopeless(windows, slo_p99_ms, ratio_max)
        return f"far over {slo_p99_ms:g} ms in two successive windows" if hopeless else ""

    search = RateSearch(Limits(first=options.rates[0], highest=options.max_rate, precision=options.precision))
    while (rate := search.next_rate()) is not None and not generators.interrupted:
        step = await generators.step(_open(options, rate, generators.count, judge), line.show)
        steps.append(step)
        if step.note == INTERRUPTED_NOTE:
            break
        found = shortfalls(step, slo_p99_ms, ratio_max)
        search.judge(rate, not found)
        said = "; ".join(found) or f"passes, p99 {step.p_ms(99):.2f} ms"
        line.say(f"{step.label}: {said} ({step.note or step.settled.why})")
    return search


def _failures(options: Options, steps: Sequence[Step], search: RateSearch | None, interrupted: bool) -> list[str]:
    found = [f"{step.label}: {step.mismatches} answers differ from the first" for step in steps if step.mismatches]
    if search is not None:
        return found + ([search.says()] if search.best is None and not interrupted else [])
    for step in steps:
        found += [f"{step.label}: {said}" for said in shortfalls(step, options.slo_p99_ms, options.max_error_ratio)]
    return found


def _search_says(search: RateSearch, steps: Sequence[Step]) -> str:
    """Whether it was the server that failed, and not the client, is said with the outcome."""
    is_clients = any(step.rate == search.failed and bottlenecks(step) for step in steps)
    return search.says() + (" (but there the client was the bottleneck)" if is_clients else "")


def _settings(options: Options, traffic: Traffic) -> dict[str, Any]:
    """What the figures depend on; of headers only the names, for their values may be secrets."""
    loop = "replay" if options.replay else f"open loop, {options.arrivals}" if options.rates else "closed loop"
    return {
        "loop": loop,
        "connections": list(options.connections),
        "rates": list(options.rates),
        "warm_up_s": options.warm_up_s,
        "window_s": options.window_s,
        "duration_s": options.duration_s,
        "windows_max": options.windows_max,
        "tolerance": options.tolerance,
        "p99_tolerance": options.p99_tolerance,
        "find_rate": options.find_rate,
        "slo_p99_ms": options.slo_p99_ms,
        "max_error_ratio": options.max_error_ratio,
        "body": options.data.name if options.data else options.replay.name if options.replay else "generated",
        "rows": options.rows if not (options.data or options.replay) else None,
        "requests": len(traffic.requests),
        "request_bytes": len(traffic.requests[0]),
        "speed": options.speed if options.replay else None,
        "seed": options.seed,
        "timeout_s": options.timeout_s,
        "drain_s": options.drain_s,
        "headers": [name for name, _ in options.headers],
        "expect_same": options.expect_same,
        "version": metadata.version("inference-gateway"),
    }


class _Interrupts:
    """The first interrupt ends the step and gives the report; the second ends the process, as ever."""

    def __init__(self, generators: Generators) -> None:
        self._generators = generators
        self._loop = asyncio.get_running_loop()
        self._active = threading.current_thread() is threading.main_thread()
        if self._active:
            self._loop.add_signal_handler(signal.SIGINT, self._first)

    def restore(self) -> None:
        if self._active:
            self._loop.remove_signal_handler(signal.SIGINT)
            self._active = False

    def _first(self) -> None:
        self.restore()
        print("\ninterrupted: the report follows; again to leave at once", file=sys.stderr)
        self._generators.interrupt()
