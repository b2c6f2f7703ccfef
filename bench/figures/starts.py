"""Figure 11: from the command to the line that says ready, with the digits of the demo and TLS, as `make run` serves.

The first start makes keys, certificates and copies of the models, and warms the disk; it is not counted.
Units: seconds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from bench.figures.loads import Others
from bench.figures.outcome import Sample
from bench.figures.stage import Stage
from bench.load.gateway_process import serving
from bench.load.models import DIGITS


def start_to_ready(stage: Stage) -> Mapping[str, Sample]:
    work = stage.work / "start"
    if not work.exists():
        work.mkdir()
        _start(stage)
    others = Others()
    took_s = _start(stage)
    return {"11.start": Sample(value=took_s, others=others.cores())}


def _start(stage: Stage) -> float:
    # On all cores, as a user starts it.
    cores = list(stage.settings.every_core)
    began_s = time.monotonic()
    with serving(DIGITS, stage.work / "start", tls=True, scorers=0, cores=cores):
        return time.monotonic() - began_s
