"""The load generator's process: one JSON job on stdin, one JSON result on stdout.

Why: a generator in the gateway's process, or in the measuring one, would share its interpreter lock.
Units: *_us microseconds, *_s seconds; requests travel as base64.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import sys
import time
from typing import Any

import numpy as np
import uvloop

from bench.load.client import Outcome, Plan, run


def plan_of(job: dict[str, Any]) -> Plan:
    return Plan(
        host=job["host"],
        port=job["port"],
        requests=tuple(base64.b64decode(text) for text in job["requests"]),
        connections=job["connections"],
        warm_up_s=job["warm_up_s"],
        seconds=job["seconds"],
        tls=ssl.create_default_context(cafile=job["ca"]) if job["ca"] else None,
    )


def result_of(outcome: Outcome, cpu_s: float, start_cpu_s: float) -> dict[str, Any]:
    """Figures of the answers with status 200 and of the others together; the caller refuses a run with others."""
    latencies_us = np.frombuffer(outcome.latencies_ns, dtype=np.int64) / 1e3
    p50, p99 = np.percentile(latencies_us, (50, 99)) if len(latencies_us) else (float("nan"), float("nan"))
    return {
        "answers": len(latencies_us),
        "rate": len(latencies_us) / outcome.seconds,
        "p50_us": float(p50),
        "p99_us": float(p99),
        "statuses": {str(status): count for status, count in sorted(outcome.statuses.items())},
        "lost": outcome.lost,
        "cpu_s": cpu_s,
        # Starting this process: numpy and the interpreter.
        "start_cpu_s": start_cpu_s,
    }


def main() -> None:
    job = json.load(sys.stdin)
    if job["cores"]:
        os.sched_setaffinity(0, job["cores"])
    plan = plan_of(job)
    before_s = time.process_time()
    outcome = uvloop.run(run(plan))
    json.dump(result_of(outcome, time.process_time() - before_s, before_s), sys.stdout)


if __name__ == "__main__":
    main()
