"""`python -m bench.scripts`: what the way to a script's worker and back adds to calling the function in place.

Measured as a scorer does it: a real crew of one worker, a real ScriptClient on an event loop, one request at a time
with a body of 4 kB. In place and through the worker take turns, so that a busy machine slows both. The same for a
script with run_batch(), one request at a time and 16 at once, whose time is shared out over them.
Units: microseconds.
Exit status: 0 when everything was measured, whatever the figures are.
"""

from __future__ import annotations

import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from bench import machine
from runtimes import BatchLimits
from tests.support.crews import Pool, crew_spec, pool

ROUNDS = 2000
WARM_UP = 100
TOGETHER = 16
PROMISED_US = 300.0
# What others may use of the machine before the figures say little.
NOISE_CORES = 0.15
SCRIPT = """
import json

def init():
    pass

def run(raw):
    return json.loads(raw)["data"]
"""
RUN_BATCH = """
def run_batch(batch):
    return [run(one) for one in batch]
"""
BODY = json.dumps({"data": [0.123456789] * 315}).encode()


def in_place() -> Callable[[], bytes]:
    module: dict[str, Any] = {}
    exec(compile(SCRIPT, "score.py", "exec"), module)
    return lambda: json.dumps(module["run"](BODY.decode())).encode()


async def timed(made: Pool, requests: int) -> float:
    """Until all of them have their answers."""
    began_ns = time.perf_counter_ns()
    sent = [made.send(BODY) for _ in range(requests)]
    for one in sent:
        assert await one.outcome() == 200
    made.sent.clear()
    return (time.perf_counter_ns() - began_ns) / 1e3


async def measured(
    script: str, batching: BatchLimits | None, requests: int, rounds: int = ROUNDS
) -> tuple[list[float], list[float]]:
    """A call in place, and so many requests through a worker."""
    call = in_place()
    alone: list[float] = []
    through: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        async with pool(crew_spec(Path(folder), script), batching=batching) as made:
            for number in range(WARM_UP + rounds // requests):
                began_ns = time.perf_counter_ns()
                call()
                took_us = (time.perf_counter_ns() - began_ns) / 1e3
                way_us = await timed(made, requests)
                if number >= WARM_UP:
                    alone.append(took_us)
                    through.append(way_us)
    return alone, through


async def line(name: str, script: str, batching: BatchLimits | None = None, requests: int = 1) -> None:
    alone, through = await measured(script, batching, requests)
    added = [(way - requests * call) / requests for way, call in zip(through, alone, strict=True)]
    p10, p50, p99 = (statistics.quantiles(added, n=100)[at] for at in (9, 49, 98))
    place_us = statistics.median(alone)
    print(f"{name:32} in place {place_us:5.0f}   added p10 {p10:5.0f}   p50 {p50:5.0f}   p99 {p99:6.0f}")


async def main() -> None:
    facts = machine.facts(())
    where = f"{facts['processor']}, {facts['cores']} cores, {facts['system']}, Python {facts['python']}"
    print(f"{where}; microseconds a request; promised: p50 of at most {PROMISED_US:.0f} added")
    began_s, busy_s, own_s = time.monotonic(), machine.busy_s(), _own_s()
    limits = BatchLimits(batch_rows_max=TOGETHER)
    await line("run()", SCRIPT)
    await line("run_batch(), one at a time", SCRIPT + RUN_BATCH, limits)
    await line(f"run_batch(), {TOGETHER} at once", SCRIPT + RUN_BATCH, limits, TOGETHER)
    after_s = machine.busy_s()
    if busy_s is not None and after_s is not None:
        others = (after_s - busy_s - (_own_s() - own_s)) / (time.monotonic() - began_s)
        weak = "; read the figures as weak" if others > NOISE_CORES else ""
        print(f"other processes used {max(others, 0.0):.2f} cores meanwhile{weak}")


def _own_s() -> float:
    """What this process and the workers that have ended used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    uvloop.run(main())
