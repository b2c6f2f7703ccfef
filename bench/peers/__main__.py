"""`python -m bench.peers`: installs the peers, measures them beside this gateway, writes the table and the plot.

Exit status: 0 when the gateway was measured, whatever became of the peers; 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import machine
from bench.peers import document, plot
from bench.peers.catalogue import GATEWAY, PEERS
from bench.peers.install import NotInstalled, install, versions
from bench.peers.models import make
from bench.peers.peer import Peer
from bench.peers.table import Plan, run_table

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results" / "peers.json"
PAGE = ROOT / "docs" / "bench-peers.md"
PLOT = ROOT / "docs" / "images" / "peers.svg"
CACHE_VARIABLE = "BENCH_PEERS_DIR"
TABLES = ("tabular-1", "mlp-1", "mlp-2")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.report:
        _write_pages(json.loads(options.out.read_text()))
        return 0
    began_s = time.monotonic()
    # Before any child gives up a core, so that the facts name them all.
    facts, cache = machine.facts(), options.cache
    installed, absent = _install(_chosen(options.only), cache)
    peers = installed
    if options.install:
        return 0
    installed_s = time.monotonic()
    tables = {}
    with tempfile.TemporaryDirectory(prefix="bench-peers-", ignore_cleanup_errors=True) as name:
        for table in options.tables:
            plan = _plan(table, options)
            tables[table] = run_table(plan, peers, make(cache / "models", plan.model), cache, Path(name))
            # What did not start will not start for the next table.
            peers = [peer for peer in peers if peer.name not in tables[table]["absent"]]
        if options.logs:
            shutil.copytree(name, options.logs, dirs_exist_ok=True, ignore=_only_logs)
    result = {
        "measured": time.strftime("%Y-%m-%d"),
        "machine": facts,
        "settings": {"rounds": options.rounds, "seconds": options.seconds, "warm_up_s": options.warm_up},
        "took_s": round(time.monotonic() - installed_s),
        "peers": {peer.name: _about(peer, cache) for peer in installed},
        "absent": absent,
        "tables": tables,
    }
    print("\n" + document.text(result))
    print(f"\ninstalled in {installed_s - began_s:.0f} s, measured in {result['took_s']} s")
    _write(options, result)
    return 0 if all(any(row["peer"] == GATEWAY for row in table["rows"].values()) for table in tables.values()) else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--only", default="", help="names with commas; the gateway and the ceiling are always there")
    parser.add_argument("--tables", type=_tables, default=TABLES, help=f"of {', '.join(TABLES)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.2, help="of a measurement; half of it at one connection")
    parser.add_argument("--warm-up", type=float, default=0.3, help="seconds before each measurement")
    parser.add_argument("--smoke", action="store_true", help="one short round: does it work at all? Writes nothing")
    parser.add_argument("--install", action="store_true", help="install the peers, and no more")
    parser.add_argument(
        "--report", action="store_true", help="only make the page and the plot from the results again"
    )
    parser.add_argument("--out", type=Path, default=None, help=f"default: {RESULTS.relative_to(ROOT)}, if all ran")
    parser.add_argument("--logs", type=Path, default=None, help="keep the peers' logs in this folder")
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get(CACHE_VARIABLE) or ROOT / ".bench-peers"))
    options = parser.parse_args(arguments)
    options.cache = options.cache.resolve()
    options.whole = not (options.only or options.smoke) and tuple(options.tables) == TABLES
    if options.smoke:
        options.rounds, options.seconds, options.warm_up = 1, 0.4, 0.1
    if options.out is None and (options.whole or options.report):
        options.out = RESULTS
    return options


def _tables(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is no table; there are {', '.join(TABLES)}")
    return names


def _chosen(only: str) -> list[Peer]:
    names = [name for name in only.split(",") if name]
    unknown = sorted(set(names) - {peer.name for peer in PEERS})
    if unknown:
        sys.exit(f"--only {','.join(unknown)}: no such peer; there are {', '.join(peer.name for peer in PEERS)}")
    return [peer for peer in PEERS if not names or peer.name in names or not peer.requirements]


def _install(peers: Sequence[Peer], cache: Path) -> tuple[list[Peer], dict[str, str]]:
    """Those that are there now, and why others are not."""
    present, absent = [], {}
    for peer in peers:
        try:
            print(
                f"installing {peer.title}" if peer.requirements else f"{peer.title}: nothing to install", flush=True
            )
            install(peer, cache)
            present.append(peer)
        except NotInstalled as error:
            absent[peer.name] = f"cannot be installed: {error}"
            print(f"  left out: {error}", flush=True)
    return present, absent


def _plan(table: str, options: argparse.Namespace) -> Plan:
    """The generator has the last core to itself, except beside servers that have them all."""
    model, _, cores = table.rpartition("-")
    every = sorted(os.sched_getaffinity(0))
    alone = cores == "1" and len(every) > 1
    one = {1: options.seconds / 2}
    many = {64: options.seconds, **({256: options.seconds} if model == "mlp" else {})}
    return Plan(
        model=model,
        server_cores=tuple(every[: int(cores)]),
        generator_cores=tuple(every[-1:]) if alone or len(every) > 2 else tuple(every),
        connections={**one, **many} if cores == "1" else {256: options.seconds},
        rounds=options.rounds,
        warm_up_s=options.warm_up,
        first_s=options.seconds / 2,
    )


def _about(peer: Peer, cache: Path) -> dict[str, Any]:
    installed = versions(peer, cache)
    return {
        "title": peer.title,
        "package": peer.package,
        "version": installed.get(peer.package, ""),
        "settings": peer.settings,
        "requirements": list(peer.requirements),
        "packages": installed if peer.requirements else {},
    }


def _only_logs(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not (Path(folder, name).is_dir() or name == "log.txt")]


def _write(options: argparse.Namespace, result: Mapping[str, Any]) -> None:
    if options.out is None:
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written: {options.out}")
    if options.whole:
        _write_pages(result)


def _write_pages(result: Mapping[str, Any]) -> None:
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    PLOT.write_text(plot.plot(result))
    PAGE.write_text(document.page(PAGE.read_text(), result))
    print(f"written: {PAGE}, {PLOT}")


if __name__ == "__main__":
    sys.exit(main())
