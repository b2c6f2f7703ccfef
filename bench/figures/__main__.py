"""`python -m bench.figures`: measures every promised figure, writes the results and the page.

Servers of one group stand side by side, and every round visits all figures of the group, each with both sides of its
ratio. Bounded: no round is begun that would probably end after the limit.
Exit status: 0 when every chosen figure was measured, reached or not; 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import machine
from bench.client.errors import CannotMeasure
from bench.figures import closed_figures, costs, open_figures, overload, page, starts
from bench.figures.loads import closed
from bench.figures.outcome import Sample, summary
from bench.figures.reach import FIGURES, LINES
from bench.figures.stage import FOREST, MLP, Settings, Stage, place
from bench.load.gateway_process import StartFailed
from bench.peers import wires
from bench.peers.__main__ import CACHE_VARIABLE
from bench.peers.measure import GeneratorFailed
from bench.peers.processes import NotReady
from bench.peers.wires import WrongAnswer

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results" / "figures.json"
PAGE = ROOT / "docs" / "figures.md"
LIMIT_S = 480.0
PACKAGES = (*machine.PACKAGES, "inference-gateway", "hdrhistogram")
FAILURES = (CannotMeasure, StartFailed, NotReady, GeneratorFailed, WrongAnswer, OSError)

Round = Callable[[Stage], Mapping[str, Sample]]
# Figures whose servers stand together; a figure may have several parts.
GROUPS: tuple[Mapping[int, tuple[Round, ...]], ...] = (
    {
        1: (closed_figures.against_bare,),
        2: (closed_figures.with_tls,),
        3: (closed_figures.against_raw_one_core,),
        5: (closed_figures.alone,),
        6: (closed_figures.starvation,),
        8: (overload.model_bound, overload.gateway_bound),
    },
    {4: (closed_figures.against_raw_two_cores,), 7: (open_figures.open_loops,)},
    {10: (closed_figures.many_endpoints,)},
    {9: (costs.costs,), 11: (starts.start_to_ready,)},
)
# What is loaded once before the first round, so that what learns has learned.
WARMED: Mapping[int, tuple[tuple[str, str, wires.Wire], ...]] = {
    1: (("plain", FOREST, wires.JSON),),
    3: (("plain", MLP, wires.V2_BINARY), ("plain", MLP, wires.JSON)),
    8: (("plain", MLP, wires.V2_BINARY), ("plain", FOREST, wires.JSON)),
    4: (("two", MLP, wires.V2_BINARY), ("two", MLP, wires.JSON)),
    7: (("two", MLP, wires.V2_BINARY), ("two", FOREST, wires.JSON)),
}


class Run:
    """What is measured so far, and why the rest is missing."""

    def __init__(self, settings: Settings, chosen: Sequence[int], ends_s: float) -> None:
        self.samples: dict[str, list[Sample]] = {}
        self.missing: dict[int, str] = {}
        self._settings = settings
        self._chosen = chosen
        self._ends_s = ends_s

    def group(self, parts: Mapping[int, tuple[Round, ...]], work: Path, runner: asyncio.Runner) -> None:
        wanted = [figure for figure in parts if figure in self._chosen]
        if not wanted:
            return
        with Stage(self._settings, work, runner) as stage:
            longest_s = 0.0
            for number in range(self._settings.rounds):
                if time.monotonic() + longest_s > self._ends_s:
                    print(f"  the time is up after {number} rounds", flush=True)
                    break
                began_s = time.monotonic()
                self._round(stage, {figure: parts[figure] for figure in wanted}, number)
                longest_s = max(longest_s, time.monotonic() - began_s)

    def _round(self, stage: Stage, parts: Mapping[int, tuple[Round, ...]], number: int) -> None:
        for figure, rounds in parts.items():
            if figure in self.missing:
                continue
            print(f"  round {number + 1} of {self._settings.rounds}, figure {figure}", flush=True)
            try:
                if number == 0:
                    _warm_up(stage, figure)
                for one in rounds:
                    for key, sample in one(stage).items():
                        self.samples.setdefault(key, []).append(sample)
            except FAILURES as error:
                self.missing[figure] = str(error) or repr(error)
                print(f"    not measured: {self.missing[figure]}", flush=True)

    def lines(self) -> dict[str, Any]:
        return {line.key: summary(line, self.samples[line.key]) for line in LINES if line.key in self.samples}

    def absent(self) -> dict[str, str]:
        """By figure; those that have no line at all for want of time, too."""
        measured = {int(key.partition(".")[0]) for key in self.samples}
        late = {figure: "the time was up" for figure in self._chosen if figure not in measured}
        return {str(figure): why for figure, why in sorted({**late, **self.missing}.items())}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.report:
        _write_page(json.loads(options.out.read_text()))
        return 0
    # Before this process gives up cores, so that the facts name them all.
    facts, cores, began_s = machine.facts(PACKAGES), tuple(machine.cores()), time.monotonic()
    settings = _settings(options, cores)
    os.sched_setaffinity(0, settings.placement.apart)
    run = Run(settings, options.only, began_s + options.limit)
    with ExitStack() as stack:
        folder = tempfile.TemporaryDirectory(prefix="bench-figures-", ignore_cleanup_errors=True)
        work = Path(stack.enter_context(folder))
        runner = stack.enter_context(asyncio.Runner())
        for number, parts in enumerate(GROUPS):
            (work / str(number)).mkdir()
            run.group(parts, work / str(number), runner)
    document = {
        "measured": time.strftime("%Y-%m-%d"),
        "machine": facts,
        "settings": {"rounds": options.rounds, "seconds": options.seconds, "warm_up_s": options.warm_up},
        "took_s": round(time.monotonic() - began_s),
        "lines": run.lines(),
        "missing": run.absent(),
    }
    print(f"\n{page.text(document)}\n\nmeasured in {document['took_s']} s")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(document, indent=1) + "\n")
        print(f"written: {options.out}")
    if options.whole:
        _write_page(document)
    return 1 if document["missing"] else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.figures", description=__doc__)
    parser.add_argument("--only", type=_figures, default=FIGURES, help="numbers of figures with commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="of a measurement")
    parser.add_argument("--warm-up", type=float, default=0.3, help="seconds before each measurement")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds after which no round is begun")
    parser.add_argument("--smoke", action="store_true", help="one short round: does it work at all? Writes nothing")
    parser.add_argument("--report", action="store_true", help="only make the page from the results again")
    parser.add_argument("--out", type=Path, default=None, help=f"default: {RESULTS.relative_to(ROOT)}, if all ran")
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get(CACHE_VARIABLE) or ROOT / ".bench-peers"))
    options = parser.parse_args(arguments)
    options.cache = options.cache.resolve()
    options.whole = not options.smoke and tuple(options.only) == FIGURES
    if options.smoke:
        options.rounds, options.seconds, options.warm_up = 1, 0.3, 0.1
    if options.out is None and (options.whole or options.report):
        options.out = RESULTS
    return options


def _figures(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = (0,)
    unknown = [str(number) for number in numbers if number not in FIGURES]
    if unknown:
        raise argparse.ArgumentTypeError(f"found {text!r}; accepted: numbers from 1 to {len(FIGURES)}, with commas")
    return numbers


def _settings(options: argparse.Namespace, cores: tuple[int, ...]) -> Settings:
    try:
        placement = place(cores)
    except ValueError as error:
        sys.exit(str(error))
    return Settings(
        rounds=options.rounds,
        seconds=options.seconds,
        warm_up_s=options.warm_up,
        first_s=options.seconds / 2,
        models=options.cache / "models",
        placement=placement,
        every_core=cores,
    )


def _warm_up(stage: Stage, figure: int) -> None:
    for kind, model, wire in WARMED.get(figure, ()):
        target = stage.target(kind, model, wire)
        if target.label not in stage.best:
            closed(stage, target, closed_figures.CROWD, stage.settings.first_s)


def _write_page(document: Mapping[str, Any]) -> None:
    PAGE.write_text(page.page(PAGE.read_text(), document))
    print(f"written: {PAGE}")


if __name__ == "__main__":
    sys.exit(main())
