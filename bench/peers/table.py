"""One table: a model on a number of cores. Peers are started, checked, measured in turns, and ended.

Errors: none of a peer's; what cannot be started, answers wrongly or breaks down is listed with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.peers.catalogue import SERVERS
from bench.peers.install import python_of
from bench.peers.measure import (
    Child,
    GeneratorFailed,
    Target,
    amiss,
    check,
    idle_cores,
    make_target,
    measure,
    measure_raw,
)
from bench.peers.models import Model
from bench.peers.peer import Peer, Place
from bench.peers.processes import NotReady, Running, await_ready, free_ports, start
from bench.peers.rounds import summary
from bench.peers.wires import WrongAnswer

SPARE_PORTS = 5
# Much of a start is waiting, so some start side by side; too many at once would run into their own time limits.
STARTED_AT_ONCE = 4
IDLE_S = 2.0
# A peer that uses more than this of a core while it is idle is stopped while others are measured.
IDLE_MAX = 0.03
RAW = "onnxruntime in process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`connections` to the seconds of a measurement; one connection is measured for its latency."""

    model: str
    server_cores: tuple[int, ...]
    generator_cores: tuple[int, ...]
    connections: Mapping[int, float]
    rounds: int
    warm_up_s: float
    # Once before the first round: batchers that learn have learned then, and code is compiled.
    first_s: float

    def many(self) -> list[int]:
        return [count for count in self.connections if count > 1]

    @property
    def name(self) -> str:
        return f"{self.model}, {len(self.server_cores)} core{'s' if len(self.server_cores) > 1 else ''}"


@dataclass(slots=True, kw_only=True)
class Standing:
    """The peers that run, and why the others do not."""

    targets: list[Target] = field(default_factory=list)
    idle: dict[str, float] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def running(self) -> dict[str, Running]:
        return {target.peer.name: target.running for target in self.targets}

    def burning(self) -> dict[str, Running]:
        return {name: one for name, one in self.running().items() if self.idle.get(name, 0.0) > IDLE_MAX}


def run_table(plan: Plan, peers: Sequence[Peer], model: Model, cache: Path, work: Path) -> dict[str, Any]:
    """The table's part of the result document."""
    with ExitStack() as stack:
        standing = _start_all(plan, peers, model, cache, work, stack)
        # Called before those that wait for an end: all are asked before the first is waited for.
        stack.callback(_ask_to_end, standing)
        _measure_idle(standing)
        generator = Child("bench.peers.generator", _listed(plan.generator_cores))
        stack.callback(generator.close)
        first_core = _listed(plan.server_cores[:1])
        raw = Child("bench.peers.raw", first_core, str(cache / "models"), model.name)
        stack.callback(raw.close)
        rows = _measure_rounds(plan, standing, generator, raw)
    return {
        "model": plan.model,
        "cores": len(plan.server_cores),
        "connections": {str(count): seconds for count, seconds in plan.connections.items()},
        "rows": rows,
        "idle_cores": standing.idle,
        "stopped": sorted(standing.burning()),
        "absent": standing.absent,
    }


def _start_all(
    plan: Plan, peers: Sequence[Peer], model: Model, cache: Path, work: Path, stack: ExitStack
) -> Standing:
    print(f"  {plan.name}: starting {len(peers)} servers", flush=True)
    standing = Standing()
    placed = list(zip(peers, _places(plan, peers, model, cache, work), strict=True))
    for first in range(0, len(placed), STARTED_AT_ONCE):
        _start_some(plan, placed[first : first + STARTED_AT_ONCE], standing, stack)
    return standing


def _start_some(plan: Plan, placed: Sequence[tuple[Peer, Place]], standing: Standing, stack: ExitStack) -> None:
    started = []
    for peer, place in placed:
        try:
            running = _start(plan, peer, place)
            stack.callback(running.stop)
            started.append((peer, place, running))
        except NotReady as error:
            _leave_out(standing, peer, error)
    for peer, place, running in started:
        try:
            targets = _targets_when_ready(peer, place, running)
            for target in targets:
                check(target)
            standing.targets += targets
            print(f"    {peer.title} is ready{' and answers as onnxruntime does' * peer.checked}", flush=True)
        except (NotReady, WrongAnswer) as error:
            _leave_out(standing, peer, error)
            running.stop()


def _ask_to_end(standing: Standing) -> None:
    for one in standing.running().values():
        one.ask_to_end()


def _leave_out(standing: Standing, peer: Peer, error: Exception) -> None:
    standing.absent[peer.name] = str(error)
    print(f"    {peer.title} is left out: {error}", flush=True)


def _places(plan: Plan, peers: Sequence[Peer], model: Model, cache: Path, work: Path) -> list[Place]:
    """All ports are looked for at once, so that no two peers get the same."""
    ports = free_ports(len(peers) * (1 + SPARE_PORTS))
    places = []
    for number, peer in enumerate(peers):
        port, *spare = ports[number * (1 + SPARE_PORTS) : (number + 1) * (1 + SPARE_PORTS)]
        folder = work / f"{peer.name}-{model.name}-{len(plan.server_cores)}"
        folder.mkdir(parents=True, exist_ok=True)
        place = Place(
            python=python_of(peer, cache),
            model=model,
            port=port,
            spare_ports=tuple(spare),
            workers=len(plan.server_cores),
            work=folder,
        )
        places.append(place)
    return places


def _start(plan: Plan, peer: Peer, place: Place) -> Running:
    """Errors: NotReady."""
    launch = peer.launch(place)
    environment = {"PYTHONPATH": str(SERVERS), **place.environment(), **launch.environment}
    # The gateway is a package of the project's root.
    cwd = place.work if peer.requirements else SERVERS.parents[2]
    return start(launch.command, environment, cores=plan.server_cores, cwd=cwd, log=place.work / "log.txt")


def _targets_when_ready(peer: Peer, place: Place, running: Running) -> list[Target]:
    """Errors: NotReady. A peer with a key has it once it listens, so the port is waited for first."""

    def make(headers: Mapping[str, str]) -> list[Target]:
        return [make_target(peer, door, place.model, place.port, running, headers) for door in peer.doors]

    targets = make({})
    if peer.headers is not None:
        await_ready(running, peer.ready_within_s, lambda: _silent(targets[0]))
        targets = make(peer.headers(place))
    for target in targets:
        await_ready(running, peer.ready_within_s, lambda target=target: amiss(target))  # type: ignore[misc]
    return targets


def _silent(target: Target) -> str:
    """A refusal is an answer, too: the peer is there."""
    found = amiss(target)
    return "" if found.startswith("status 401") else found


def _measure_idle(standing: Standing) -> None:
    running = standing.running()
    found = idle_cores(list(running.values()), IDLE_S) if running else []
    standing.idle.update({name: round(cores, 3) for name, cores in zip(running, found, strict=True)})
    for name in standing.burning():
        print(f"    {name} uses {standing.idle[name]:.0%} of a core while idle: stopped while others are measured")


def _measure_rounds(plan: Plan, standing: Standing, generator: Child, raw: Child) -> dict[str, Any]:
    """Rows in the catalogue's order; per row and number of connections the summary of the rounds."""
    rounds: dict[str, dict[int, list[dict[str, Any]]]] = {
        target.label: {count: [] for count in plan.connections} for target in standing.targets
    }
    bare: list[dict[str, Any]] = []
    with _all_stopped(standing.burning()) as burning:
        for target in standing.targets:
            _measure_one(plan, target, generator, max(plan.connections), plan.first_s, burning)
        for number in range(plan.rounds):
            for count, seconds in plan.connections.items():
                print(f"  {plan.name}: round {number + 1} of {plan.rounds}, {count} connections", flush=True)
                for target in standing.targets:
                    found = _measure_one(plan, target, generator, count, seconds, burning)
                    if found is not None:
                        rounds[target.label][count].append(found)
            bare.append(measure_raw(raw, max(plan.connections.values())))
    rows: dict[str, Any] = {RAW: _raw_row(plan, bare)} if bare else {}
    for target in standing.targets:
        kept = {str(count): summary(found) for count, found in rounds[target.label].items() if found}
        row = {"peer": target.peer.name, "wire": target.door.wire.name, "binary": target.door.wire.binary}
        rows[target.label] = {**row, **kept}
    return rows


def _raw_row(plan: Plan, bare: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Batches stand beside many connections, one row alone beside one."""
    alone = [{**one, "rate": 1e6 / one["p50_us"]} for one in bare]
    batches = [{name: one[name] for name in ("rate", "others")} for one in bare]
    row = {"peer": RAW, "wire": "", str(min(plan.many())): summary(batches)}
    return {**row, "1": summary(alone)} if 1 in plan.connections else row


def _measure_one(
    plan: Plan, target: Target, generator: Child, count: int, seconds: float, burning: Mapping[str, Running]
) -> dict[str, Any] | None:
    """None where the generator could not connect; the row then has fewer rounds."""
    paused = burning.get(target.peer.name)
    if paused is not None:
        paused.go_on()
    try:
        return measure(target, generator, count, seconds, plan.warm_up_s)
    except GeneratorFailed as error:
        print(f"    {target.label}: {error}", flush=True)
        return None
    finally:
        if paused is not None:
            paused.pause()


@contextmanager
def _all_stopped(burning: Mapping[str, Running]) -> Iterator[Mapping[str, Running]]:
    for one in burning.values():
        one.pause()
    try:
        yield burning
    finally:
        for one in burning.values():
            one.go_on()


def _listed(cores: Sequence[int]) -> str:
    return ",".join(str(core) for core in cores) or _listed(sorted(os.sched_getaffinity(0)))
