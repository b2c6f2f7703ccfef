"""Bare onnxruntime, one thread, in a process of its own on the servers' core: a JSON job a line, a result a line.

Why: this is what a core can do at all; every server's rate is a share of it.
Units: `rate` rows a second in batches of 64; `p50_us`, `p99_us` microseconds of one row alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers.models import Model, make, open_session
from bench.peers.peer import ROWS_MAX


def measure(model: Model, session: Any, seconds: float) -> dict[str, float]:
    """Half of the time for each."""
    rows = model.rows.astype(np.float32)
    batch, outputs = rows[:ROWS_MAX], [model.output]
    runs, began_s = 0, time.monotonic()
    while (took_s := time.monotonic() - began_s) < seconds / 2:
        session.run(outputs, {model.input: batch})
        runs += 1
    alone_ns = []
    end_ns = time.monotonic_ns() + int(seconds / 2 * 1e9)
    before_ns = time.monotonic_ns()
    while before_ns < end_ns:
        session.run(outputs, {model.input: rows[:1]})
        now_ns = time.monotonic_ns()
        alone_ns.append(now_ns - before_ns)
        before_ns = now_ns
    p50, p99 = np.percentile(alone_ns, (50, 99)) / 1e3
    return {"rate": runs * len(batch) / took_s, "p50_us": float(p50), "p99_us": float(p99)}


def main() -> None:
    os.sched_setaffinity(0, [int(core) for core in sys.argv[1].split(",")])
    model = make(Path(sys.argv[2]), sys.argv[3])
    session = open_session(model.path)
    for line in sys.stdin:
        print(json.dumps(measure(model, session, json.loads(line)["seconds"])), flush=True)


if __name__ == "__main__":
    main()
