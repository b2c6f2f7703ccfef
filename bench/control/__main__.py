"""`python -m bench.control [kills|flips|figures ...]`: proves the control plane; without a name, all three.

Writes what was measured into bench/results/control.json, where the other parts stay as they were, and makes the
generated part of docs/control-figures.md. Exit status: 1 where something was lost, failed or misrouted; times alone
do not fail it, for they are the machine's too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvloop

from bench import machine
from bench.control import figures, flips, kills, page
from bench.control.gateway import StartFailed
from bench.control.management import Refused
from bench.control.shift import percentile, shift
from bench.control.wire import Lost

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results" / "control.json"
PAGE = ROOT / "docs" / "control-figures.md"
FAILURES = (StartFailed, Refused, Lost, OSError)
KILLS_LIMIT_S = 600.0

Part = Callable[[argparse.Namespace, Path], Awaitable[dict[str, Any]]]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.report:
        return _write(before)
    found: dict[str, Any] = {}
    for name in options.parts:
        print(f"{name} ...", flush=True)
        try:
            found[name] = _measured(options, PARTS[name])
        except FAILURES as error:
            print(f"{name} could not be measured: {error}")
            return 1
    print(page.text(found))
    if not options.dry:
        RESULTS.write_text(json.dumps({**before, **found}, indent=1) + "\n")
        _write({**before, **found})
    return 1 if any(_is_broken(one) for one in found.values()) else 0


def _is_broken(one: Mapping[str, Any]) -> bool:
    return bool(one["faults"] or one.get("failed") or one.get("misrouted"))


def _measured(options: argparse.Namespace, part: Part) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bench-control-", ignore_cleanup_errors=True) as folder:
        began_s = time.monotonic()
        found = uvloop.run(part(options, Path(folder)))
        return {
            "measured": time.strftime("%Y-%m-%d"),
            "machine": machine.facts(),
            "took_s": round(time.monotonic() - began_s, 1),
            **found,
        }


async def _kills(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    found = await kills.run(work, kills=options.kills, seed=options.seed, limit_s=KILLS_LIMIT_S)
    return {
        "seed": options.seed,
        "wanted": options.kills,
        "kills": found.rounds,
        "while_starting": found.early,
        "restarts_s": _spread(found.restarts_s),
        "scorers_gone_s": _spread(found.scorers_gone_s),
        "changes": dict(sorted(found.counts.items())),
        "resumed": found.resumed,
        "faults": found.faults,
        "others": found.others,
    }


async def _flips(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    count = {"flips": options.flips, "updates": options.updates, "regenerations": options.regenerations}
    found = await flips.run(work, **count, seed=options.seed)
    return {
        "seed": options.seed,
        "wanted": count,
        "counts": dict(sorted(found.counts.items())),
        "rate": flips.RATE,
        "requests": found.requests,
        "failed": found.failed,
        "misrouted": found.misrouted,
        "answered": found.answered,
        "refused_s": _spread(found.refused_s),
        "changes_s": {name: _spread(took_s) for name, took_s in sorted(found.took_s.items())},
        "latency_s": _spread(found.latencies_s),
        "late_s": found.late_s,
        "duration_s": found.duration_s,
        "faults": found.faults,
        "others": found.others,
    }


async def _figures(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    for name in ("many", "near"):
        (work / name).mkdir()
    many = await figures.starts(work / "many", count=options.starts, reads=options.reads)
    near = await figures.neighbours(work / "near", loads=options.loads)
    shifts = {f"p{percent}": shift(near.quiet, near.loaded, percent) for percent in (50, 99)}
    strange = {f"p{percent}": shift(near.quiet, near.strange, percent).ratio for percent in (50, 99)}
    return {
        "reads_s": {name: _spread(took_s) for name, took_s in many.reads_s.items()},
        "start": {
            "first_s": many.first_s,
            "ready_s": _spread(many.ready_s),
            "loading_s": _spread(many.loading_s),
        },
        "loads": len(near.loads_s),
        "loads_s": _spread(near.loads_s),
        "shift": {
            name: {
                "quiet": one.quiet,
                "loaded": one.loaded,
                "ratio": one.ratio,
                "noise": one.noise,
                "strange": strange[name],
            }
            for name, one in shifts.items()
        },
        "faults": near.faults,
        "others": max(many.others, near.others),
    }


PARTS: Mapping[str, Part] = {"kills": _kills, "flips": _flips, "figures": _figures}


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Zeros where nothing was measured."""
    found = list(values) or [0.0]
    return {
        "least": min(found),
        "p50": percentile(found, 50),
        "p99": percentile(found, 99),
        "most": max(found),
    }


def _write(document: Mapping[str, Any]) -> int:
    PAGE.write_text(page.page(PAGE.read_text(), document))
    print(f"written: {PAGE.relative_to(ROOT)}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.control", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="kills, flips, figures; none: all")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--flips", type=int, default=100)
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--regenerations", type=int, default=50)
    parser.add_argument("--reads", type=int, default=400, help="of each kind")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--loads", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dry", action="store_true", help="only print, write nothing")
    parser.add_argument("--report", action="store_true", help="only make the page from the results again")
    options = parser.parse_args(arguments)
    options.parts = options.parts or list(PARTS)
    return options


if __name__ == "__main__":
    sys.exit(main())
