"""`python -m bench.load`: starts the gateway, measures every case in rounds, prints a table, writes JSON.

Exit status: 0 when every answer was a 200 and equal to onnxruntime's; 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import machine
from bench.load import report
from bench.load.bare import Bare
from bench.load.gateway_process import StartFailed, serving
from bench.load.measure import Case, GeneratorFailed, Sample, Settings, WrongAnswer, check_answer, make_case, measure
from bench.load.models import make_folder
from bench.load.requests import FORMATS

RESULTS = Path(__file__).resolve().parents[1] / "results"
SMOKE_CASES = ("digits/blue json", "wide/dense binary")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    # Before this process gives up a core, so that the facts name them all.
    facts = machine.facts()
    gateway_cores, generator_cores = _placement(options.placement)
    scorers = options.scorers or max(1, len(gateway_cores))
    if gateway_cores:
        # The bare sessions run where the gateway runs.
        os.sched_setaffinity(0, gateway_cores)
    settings = Settings(
        seconds=options.seconds,
        warm_up_s=options.warm_up,
        bare_s=min(1.0, options.seconds / 2),
        connections=options.connections,
        generator_cores=tuple(generator_cores),
    )
    try:
        samples = _measure_all(options, settings, gateway_cores, scorers)
    except (StartFailed, GeneratorFailed, WrongAnswer) as error:
        print(error, file=sys.stderr)
        return 1
    print(_headline(facts, scorers, options.tls))
    print(report.table(samples, settings.connections))
    if options.out:
        _write(options, facts, gateway_cores, generator_cores, scorers, samples)
    return 1 if report.refused(samples) else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="two cases, one short round: does it work at all?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--warm-up", type=float, default=0.3, help="seconds before each measurement")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--scorers", type=int, default=0, help="default: one for each core of the gateway")
    parser.add_argument("--tls", action="store_true", help="measure through TLS")
    parser.add_argument(
        "--placement",
        choices=("apart", "shared"),
        default="apart",
        help="apart: the generator has the last core to itself; shared: all run everywhere",
    )
    parser.add_argument("--only", default="", help="cases whose name contains this text")
    parser.add_argument("--out", type=Path, default=None, help="default: bench/results/load.json; none with --smoke")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.rounds, options.seconds, options.warm_up = 1, 0.4, 0.1
    elif options.out is None:
        options.out = RESULTS / ("load-tls.json" if options.tls else "load.json")
    return options


def _placement(placement: str) -> tuple[list[int], list[int]]:
    """The cores of the gateway and those of the generator; empty lists where all share all."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if placement == "shared" or len(cores) < 2:
        return [], []
    return cores[:-1], cores[-1:]


def _measure_all(
    options: argparse.Namespace, settings: Settings, cores: list[int], scorers: int
) -> dict[str, list[Sample]]:
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name:
        work = Path(name)
        served = make_folder(work / "apply")
        with serving(work / "apply", work, tls=options.tls, scorers=scorers, cores=cores) as gateway:
            keys = {endpoint: gateway.key(endpoint) for endpoint in {one.endpoint for one in served}}
            bare = {one.label: Bare(one) for one in served}
            cases = [make_case(one, wire, bare[one.label], keys[one.endpoint]) for one in served for wire in FORMATS]
            chosen = [case for case in cases if _wanted(case, options)]
            for case in chosen:
                check_answer(case, gateway)
            samples: dict[str, list[Sample]] = {case.label: [] for case in chosen}
            for _ in range(options.rounds):
                for case in chosen:
                    samples[case.label].append(measure(case, gateway, settings))
            return samples


def _wanted(case: Case, options: argparse.Namespace) -> bool:
    return options.only in case.label and (not options.smoke or case.label in SMOKE_CASES)


def _headline(facts: dict[str, object], scorers: int, tls: bool) -> str:
    return (
        f"{facts['processor']}, {facts['cores']} cores, Python {facts['python']}; scorers: {scorers}; "
        f"{'https' if tls else 'http'}\n"
    )


def _write(
    options: argparse.Namespace,
    facts: dict[str, object],
    gateway_cores: list[int],
    generator_cores: list[int],
    scorers: int,
    samples: dict[str, list[Sample]],
) -> None:
    document = {
        "measured": time.strftime("%Y-%m-%d"),
        "machine": facts,
        "settings": {
            "rounds": options.rounds,
            "seconds": options.seconds,
            "connections": options.connections,
            "scorers": scorers,
            "tls": options.tls,
            "gateway_cores": len(gateway_cores) or "all",
            "generator_cores": len(generator_cores) or "all",
        },
        "cases": {label: report.summary(rounds) for label, rounds in samples.items()},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=1) + "\n")
    print(f"\nwritten: {options.out}")


if __name__ == "__main__":
    sys.exit(main())
