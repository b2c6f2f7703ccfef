"""Figure 7: open loops at fixed rates, against the model alone. One round gives the samples of all its lines.

The bare model is one row through onnxruntime in process; every request is timed from when it was meant to be sent.
Units: milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping

from bench.figures.loads import stepped
from bench.figures.outcome import Sample
from bench.figures.reach import RATES
from bench.figures.stage import FOREST, MLP, Stage
from bench.peers import wires
from bench.peers.measure import measure_raw

CONNECTIONS = 512


def open_loops(stage: Stage) -> Mapping[str, Sample]:
    made = {}
    for name, model, wire in (("mlp", MLP, wires.V2_BINARY), ("forest", FOREST, wires.JSON)):
        target = stage.target("two", model, wire)
        bare_ms = measure_raw(stage.raw(model), stage.settings.seconds)["p50_us"] / 1e3
        for rate in RATES:
            found = stepped(stage, target, connections=CONNECTIONS, rate=rate, seed=rate)
            step = found.step
            made[f"7.{name}-{rate}"] = Sample(
                value=step.p_ms(50) - bare_ms,
                others=found.others,
                full=found.full,
                unwanted=found.unwanted,
                beside={
                    "p50 ms": step.p_ms(50),
                    "p99 ms": step.p_ms(99),
                    "bare ms": bare_ms,
                    "answers/s": step.accepted_rate,
                    "client late p99 ms": step.sums.lag.percentile_ns(99) / 1e6,
                },
            )
    return made
