"""Figures of closed loops: one after the other inside each round, so that both sides of a ratio see the same machine.

Figures 1 to 6 and 10 of `reach`; each function is one round and gives the samples of its lines by key.
Units: rates in answers (or rows) a second; a request carries one row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.figures.loads import Closed, Stepped, closed, stepped
from bench.figures.outcome import Sample
from bench.figures.stage import CHOSEN, FOREST, MLP, Stage, Target
from bench.peers import wires
from bench.peers.measure import measure_raw

Samples = Mapping[str, Sample]
MANY = 64
CROWD = 256


def against_bare(stage: Stage) -> Samples:
    ours, bare = _forest(stage), stage.bare_target()
    gateway = closed(stage, ours, MANY)
    constant = closed(stage, bare, MANY)
    beside = {
        "gateway/s": gateway.rate,
        "bare/s": constant.rate,
        "gateway CPU us": gateway.cpu_us,
        "bare CPU us": constant.cpu_us,
    }
    return _two("1", gateway, constant, beside)


def with_tls(stage: Stage) -> Samples:
    """Both with the same generator, which knows TLS; handshakes are not counted."""
    targets = _forest(stage), stage.target("tls", FOREST, wires.JSON)
    plain, secure = (stepped(stage, target, connections=MANY, warm_up_s=0.0) for target in targets)
    beside = {
        "TLS/s": secure.rate,
        "plaintext/s": plain.rate,
        "TLS CPU us": secure.cpu_us,
        "plaintext CPU us": plain.cpu_us,
    }
    return _two("2", secure, plain, beside)


def against_raw_one_core(stage: Stage) -> Samples:
    return _against_raw(stage, "plain", (("binary", 64), ("binary", 256), ("json", 64), ("json", 256)), "3.{}-{}")


def against_raw_two_cores(stage: Stage) -> Samples:
    return _against_raw(stage, "two", (("binary", 256), ("json", 256)), "4.{}")


def alone(stage: Stage) -> Samples:
    gateway, constant = closed(stage, _forest(stage), 1), closed(stage, stage.bare_target(), 1)
    made = {}
    for name, ours, theirs in (
        ("p50", gateway.p50_us, constant.p50_us),
        ("p99", gateway.p99_us, constant.p99_us),
    ):
        made[f"5.{name}"] = Sample(
            value=_ratio(ours, theirs),
            others=max(gateway.others, constant.others),
            unwanted=gateway.unwanted + constant.unwanted,
            beside={"gateway us": ours, "bare us": theirs},
        )
    return made


def starvation(stage: Stage) -> Samples:
    made = {}
    for name, target in (("forest", _forest(stage)), ("mlp", stage.target("plain", MLP, wires.V2_BINARY))):
        found = closed(stage, target, CROWD)
        beside = {"p50 us": found.p50_us, "p99 us": found.p99_us, "per second": found.rate}
        made[f"6.{name}"] = Sample(
            value=found.starvation, others=found.others, full=found.full, unwanted=found.unwanted, beside=beside
        )
    return made


def many_endpoints(stage: Stage) -> Samples:
    many, single = (
        closed(stage, stage.target(kind, FOREST, wires.JSON, endpoint=CHOSEN), MANY) for kind in ("many", "single")
    )
    beside = {
        "many/s": many.rate,
        "single/s": single.rate,
        "many CPU us": many.cpu_us,
        "single CPU us": single.cpu_us,
    }
    return _two("10", many, single, beside)


def _forest(stage: Stage) -> Target:
    return stage.target("plain", FOREST, wires.JSON)


def _two(figure: str, ours: Closed | Stepped, theirs: Closed | Stepped, beside: Mapping[str, float]) -> Samples:
    """By rate, and by the servers' processor time: what a generator that is too slow cannot bend."""

    def sample(value: float, full: bool) -> Sample:
        return Sample(
            value=value,
            others=max(ours.others, theirs.others),
            full=full,
            unwanted=ours.unwanted + theirs.unwanted,
            beside=beside,
        )

    return {
        f"{figure}.rate": sample(_ratio(ours.rate, theirs.rate), ours.full or theirs.full),
        f"{figure}.cpu": sample(_ratio(theirs.cpu_us, ours.cpu_us), False),
    }


def _against_raw(stage: Stage, kind: str, cases: Sequence[tuple[str, int]], key: str) -> Samples:
    """Raw onnxruntime runs on the first core while the gateway idles."""
    doors = {"binary": wires.V2_BINARY, "json": wires.JSON}
    targets = {name: stage.target(kind, MLP, wire) for name, wire in doors.items()}
    # Half of its time is for batches.
    raw = measure_raw(stage.raw(MLP), 2 * stage.settings.seconds)
    made = {}
    for name, connections in cases:
        found = closed(stage, targets[name], connections)
        made[key.format(name, connections)] = Sample(
            value=_ratio(found.rate, raw["rate"]),
            others=max(found.others, raw["others"]),
            full=found.full,
            unwanted=found.unwanted,
            beside={"rows/s": found.rate, "raw rows/s": raw["rate"], "CPU us": found.cpu_us},
        )
    return made


def _ratio(value: float, of: float) -> float:
    return value / of if of else 0.0
