"""The generator processes: started, told what to do step by step, and their slices added up.

The processes answer in slices of a step, a few a window. When every process has told its slice, it is a point of
the timeline; when a window is whole, the step's judge may end the step.
Units: *_ns monotonic nanoseconds (one clock for all processes of a machine), *_s seconds.
Errors: GeneratorFailed where a process ends or falls silent; CannotMeasure where no connection can be opened.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

import bench
from bench.client.errors import CannotMeasure, GeneratorFailed
from bench.client.record import Sums
from bench.client.results import Point, Process, Step
from bench.client.schedule import shares
from bench.client.settle import Tolerance, Window, settled
from bench.client.worker import LINE_BYTES_MAX

SLICES_A_WINDOW = 4
WINDOWS_OF_FIXED = 3
# Between the order and the start: time for it to reach every process.
HEAD_START_S = 0.05
SILENT_AFTER_S = 20.0
INTERRUPTED_NOTE = "interrupted"
LOADED_WITHIN_S = 60.0
HOME = str(Path(bench.__file__ or "").resolve().parents[1])
# `judge` gives a sentence where the step shall end before its windows are used up, "" where it shall go on.
Judge = Callable[[Sequence[Window]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One step. `schedules` is what each process is told of when to send: none, or one a process."""

    connections: int
    rate: float | None = None
    schedules: Sequence[Mapping[str, Any] | None] = (None,)
    warm_up_s: float = 1.0
    window_s: float = 2.0
    duration_s: float | None = None
    drain_s: float = 10.0
    tolerance: Tolerance = field(default_factory=Tolerance)
    judge: Judge = lambda windows: ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a person who waits wants to know; `point` None before anything counts."""

    plan: Plan
    point: Point | None


class Generators:
    """`async with Generators(count, load) as generators:`; `load` is the first message to each."""

    def __init__(self, load: Sequence[Mapping[str, Any]]) -> None:
        self._load = load
        self._processes: list[asyncio.subprocess.Process] = []
        self._readers: list[asyncio.Task[None]] = []
        self._said: asyncio.Queue[tuple[int, dict[str, Any]]] = asyncio.Queue()
        self._references: dict[str, str] = {}
        self.interrupted = False

    @property
    def count(self) -> int:
        return len(self._load)

    async def __aenter__(self) -> Generators:
        try:
            for number, load in enumerate(self._load):
                self._processes.append(await _spawn())
                self._readers.append(asyncio.create_task(self._read(number)))
                await self._tell(number, {"op": "load", **load})
            await self._expect("loaded", range(self.count), LOADED_WITHIN_S)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in self._processes:
            try:
                await asyncio.wait_for(process.wait(), 2.0)
            except TimeoutError:
                process.kill()
                await process.wait()
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    def interrupt(self) -> None:
        """The step in progress ends now, and no other is begun."""
        self.interrupted = True
        self._said.put_nowait((-1, {"op": "interrupt"}))

    async def step(self, plan: Plan, show: Callable[[Progress], None]) -> Step:
        """Carries out one step. Errors: GeneratorFailed, CannotMeasure."""
        active = range(min(self.count, plan.connections, len(plan.schedules)))
        dealt = shares(plan.connections, len(active))
        for number in active:
            await self._tell(
                number,
                {
                    "op": "connect",
                    "connections": dealt[number],
                    "schedule": plan.schedules[number],
                    "first": number,
                },
            )
        ready = await self._expect("ready", active, SILENT_AFTER_S + plan.connections / 10)
        if not any(said["open"] for said in ready):
            raise CannotMeasure(f"no connection could be opened: {ready[0]['error'] or 'they were closed at once'}")
        show(Progress(plan=plan, point=None))
        return await _Running(self, plan, active, show).run()

    async def _read(self, number: int) -> None:
        stdout = self._processes[number].stdout
        assert stdout is not None
        while line := await stdout.readline():
            self._said.put_nowait((number, orjson.loads(line)))
        self._said.put_nowait((number, {"op": "ended"}))

    async def _tell(self, number: int, message: Mapping[str, Any]) -> None:
        stdin = self._processes[number].stdin
        assert stdin is not None
        try:
            stdin.write(orjson.dumps(message) + b"\n")
            await stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise GeneratorFailed(f"generator process {number} ended; its error is above") from None

    async def tell_all(self, numbers: Sequence[int], message: Mapping[str, Any]) -> None:
        for number in numbers:
            await self._tell(number, message)

    async def next_said(self, timeout_s: float) -> tuple[int, dict[str, Any]]:
        try:
            number, message = await asyncio.wait_for(self._said.get(), timeout_s)
        except TimeoutError:
            raise GeneratorFailed(f"the generator processes said nothing for {timeout_s:.0f} s") from None
        if message["op"] == "ended":
            raise GeneratorFailed(f"generator process {number} ended; its error is above")
        return number, message

    async def _expect(self, op: str, numbers: Sequence[int], timeout_s: float) -> list[dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        while len(found) < len(numbers):
            number, message = await self.next_said(timeout_s)
            if message["op"] == op:
                found[number] = message
        return [found[number] for number in numbers]

    def differences(self, references: Mapping[str, str]) -> int:
        """How many requests have another first answer in this process than in those before."""
        known = self._references
        return sum(known.setdefault(number, digest) != digest for number, digest in references.items())


class _Running:
    """One step while it runs."""

    def __init__(
        self, generators: Generators, plan: Plan, active: Sequence[int], show: Callable[[Progress], None]
    ) -> None:
        self._generators, self._plan, self._active, self._show = generators, plan, active, show
        self._window_s = plan.window_s
        if plan.duration_s is not None:
            self._window_s = min(plan.window_s, plan.duration_s / WINDOWS_OF_FIXED)
        self._slice_s = self._window_s / SLICES_A_WINDOW
        self._sums = Sums()
        self._slices: dict[int, tuple[Sums, list[int]]] = {}
        self._told = dict.fromkeys(active, 0)
        self._cpu = {number: [0.0, 0.0] for number in active}
        self._timeline: list[Point] = []
        self._windows: list[Window] = []
        self._window = Sums()
        self._mismatches = 0
        self._note = ""
        self._stopped = False

    async def run(self) -> Step:
        plan = self._plan
        start_ns = time.monotonic_ns() + int(HEAD_START_S * 1e9)
        begin_ns = start_ns + int(plan.warm_up_s * 1e9)
        end_ns = begin_ns + int(plan.duration_s * 1e9) if plan.duration_s is not None else None
        go = {
            "op": "go",
            "start_ns": start_ns,
            "begin_ns": begin_ns,
            "end_ns": end_ns,
            "slice_ns": int(self._slice_s * 1e9),
            "drain_s": plan.drain_s,
        }
        await self._generators.tell_all(self._active, go)
        silent_s = SILENT_AFTER_S + plan.warm_up_s + self._slice_s
        self._end_ns = end_ns
        if self._generators.interrupted:
            await self._stop(INTERRUPTED_NOTE)
        done = 0
        while done < len(self._active):
            number, message = await self._generators.next_said(silent_s + plan.drain_s)
            match message["op"]:
                case "interrupt":
                    await self._stop(INTERRUPTED_NOTE)
                case "slice":
                    await self._take_slice(number, message)
                case "done":
                    done += 1
                    self._take_end(number, message)
        ended_ns = self._end_ns if self._end_ns is not None else time.monotonic_ns()
        return self._outcome(max(0.0, (ended_ns - begin_ns) / 1e9))

    async def _stop(self, note: str) -> None:
        if not self._stopped:
            self._stopped, self._note = True, note
            at_ns = time.monotonic_ns() + int(HEAD_START_S * 1e9)
            self._end_ns = min(at_ns, self._end_ns or at_ns)
            await self._generators.tell_all(self._active, {"op": "stop", "at_ns": at_ns})

    async def _take_slice(self, number: int, message: dict[str, Any]) -> None:
        self._count(number, message)
        index = self._told[number]
        self._told[number] += 1
        sums, waiting = self._slices.setdefault(index, (Sums(), []))
        sums.add(message)
        waiting.append(message["waiting"])
        if len(waiting) < len(self._active):
            return
        del self._slices[index]
        self._sums.merge(sums)
        point = _point(index * self._slice_s, self._slice_s, sums, sum(waiting))
        self._timeline.append(point)
        self._show(Progress(plan=self._plan, point=point))
        self._window.merge(sums)
        if (index + 1) % SLICES_A_WINDOW == 0:
            await self._end_window()

    async def _end_window(self) -> None:
        window, self._window = self._window, Sums()
        self._windows.append(
            Window(
                rate=(window.accepted_in_time + window.refused_in_time) / self._window_s,
                p99_ms=window.accepted.percentile_ns(99) / 1e6,
                failed_ratio=window.error_ratio,
            )
        )
        plan = self._plan
        if self._stopped or plan.duration_s is not None:
            return
        verdict = plan.judge(self._windows)
        if verdict:
            await self._stop(verdict)
        elif settled(self._windows, plan.tolerance).yes or len(self._windows) >= plan.tolerance.windows_max:
            await self._stop("")

    def _take_end(self, number: int, message: dict[str, Any]) -> None:
        self._count(number, message)
        self._sums.add(message)
        self._mismatches += self._generators.differences(message["references"])

    def _count(self, number: int, message: dict[str, Any]) -> None:
        self._cpu[number][0] += message["cpu_s"]
        self._cpu[number][1] += message["waited_s"]

    def _outcome(self, seconds: float) -> Step:
        # What some processes told and others did not, because the step ended in between.
        for sums, _ in self._slices.values():
            self._sums.merge(sums)
        spans = max(seconds, 1e-9)
        return Step(
            connections=self._plan.connections,
            rate=self._plan.rate,
            seconds=seconds,
            sums=self._sums,
            windows=self._windows,
            settled=settled(self._windows, self._plan.tolerance),
            timeline=self._timeline,
            processes=[Process(used=cpu / spans, waited=waited / spans) for cpu, waited in self._cpu.values()],
            note=self._note,
            mismatches=self._sums.mismatches + self._mismatches,
        )


def _point(at_s: float, seconds: float, sums: Sums, waiting: int) -> Point:
    return Point(
        at_s=at_s,
        seconds=seconds,
        accepted=sums.accepted_in_time,
        refused=sums.refused_in_time,
        failed=sum(sums.errors.values()),
        p50_ms=sums.accepted.percentile_ns(50) / 1e6,
        p99_ms=sums.accepted.percentile_ns(99) / 1e6,
        waiting=waiting,
    )


async def _spawn() -> asyncio.subprocess.Process:
    # Of this package, wherever the command was given; -P keeps a folder called `bench` there from being taken for it.
    path = os.pathsep.join([HOME, *filter(None, [os.environ.get("PYTHONPATH")])])
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "bench.client.worker"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        limit=LINE_BYTES_MAX,
        # An interrupt at the terminal is for the process that decides; it tells these when to stop.
        start_new_session=True,
    )
