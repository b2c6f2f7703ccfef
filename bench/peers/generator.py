"""The load generator's process: a JSON job a line on stdin, a JSON result a line on stdout.

Why one process for all jobs: it is warm, and starting Python a hundred times would take minutes of the run and cores
from its neighbours. Why a process at all: it has a core of its own and shares no interpreter lock.
Units: *_us microseconds, *_s seconds; requests travel as base64.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import sys
import time
from typing import Any

import numpy as np

from bench.peers.closed_loop import ClosedLoop, Outcome, Plan


def plan_of(job: dict[str, Any]) -> Plan:
    return Plan(
        port=job["port"],
        requests=[base64.b64decode(text) for text in job["requests"]],
        connections=job["connections"],
        warm_up_s=job["warm_up_s"],
        seconds=job["seconds"],
    )


def result_of(outcome: Outcome, seconds: float, cpu_s: float, wall_s: float) -> dict[str, Any]:
    """A latency that nothing was measured for is None, as JSON has no NaN."""
    each = [np.frombuffer(one, dtype=np.int64) / 1e3 for one in outcome.latencies_ns]
    every = np.concatenate(each) if each else np.empty(0)
    worst = [float(np.percentile(one, 99)) for one in each if len(one)]
    p50, p99 = (float(value) for value in np.percentile(every, (50, 99))) if len(every) else (None, None)
    return {
        "good": len(every),
        "answers": outcome.answers,
        "rate": len(every) / seconds,
        "p50_us": p50,
        "p99_us": p99,
        # How unevenly the connections fared: the slowest one's p99 over the median one's.
        "starvation": max(worst) / float(np.median(worst)) if worst else None,
        "refused": dict(outcome.refused),
        "lost": outcome.lost,
        "reopened": outcome.reopened,
        "cpu_s": cpu_s,
        "wall_s": wall_s,
    }


def main() -> None:
    cores = [int(core) for core in sys.argv[1].split(",")]
    os.sched_setaffinity(0, cores)
    gc.disable()
    for line in sys.stdin:
        plan = plan_of(json.loads(line))
        began_s, cpu_s = time.monotonic(), time.process_time()
        try:
            outcome = ClosedLoop(plan).run()
        except OSError as error:
            answer: dict[str, Any] = {"failed": f"the generator could not connect: {error}"}
        else:
            answer = result_of(outcome, plan.seconds, time.process_time() - cpu_s, time.monotonic() - began_s)
        gc.collect()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
