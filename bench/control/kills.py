"""Kills: a stream of changes from two clients, SIGKILL to the supervisor at a random moment, the same state again.

One round: start, check everything that was acknowledged before, make changes, kill. Some rounds are killed while they
still start. What a SIGKILL leaves is what the operating system was given: a loss of power is not proven here.
Units: seconds.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.control import check
from bench.control.gateway import Gateway, StartFailed
from bench.control.management import Management, Refused
from bench.control.others import Others
from bench.control.scoring import one_a_scorer
from bench.control.stream import Client, streams
from bench.control.wire import Connection, Lost, trusting

SCORERS = 2
# When a round is killed: while it starts, or after so long of changes.
EARLY_PERCENT = 15
EARLY_S = (0.02, 1.2)
CHANGES_S = (0.02, 0.8)
SCORERS_GONE_WITHIN_S = 5.0
POLL_S = 0.05


@dataclass(slots=True, kw_only=True)
class Kills:
    """What came of it. `faults` empty: nothing was lost. `scorers_gone_s`: from the kill to the last scorer's end."""

    rounds: int = 0
    early: int = 0
    restarts_s: list[float] = field(default_factory=list)
    scorers_gone_s: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    resumed: int = 0
    others_each: list[float] = field(default_factory=list)

    @property
    def others(self) -> float:
        """Cores used by others while the gateway started."""
        return sum(self.others_each) / max(1, len(self.others_each))


async def run(work: Path, *, kills: int, seed: int, limit_s: float) -> Kills:
    """Errors: none; what goes wrong is a fault, and ends the run where there is no going on."""
    result, began_s = Kills(), time.monotonic()
    gateway = Gateway(work, scorers=SCORERS)
    proof = _Proof(gateway, random.Random(seed), [Client("a", seed), Client("b", seed + 1)], result)
    try:
        while result.rounds < kills and not result.faults and time.monotonic() - began_s < limit_s:
            await proof.round()
        if not result.faults:
            await proof.end()
    except (StartFailed, Lost, Refused) as error:
        result.faults.append(str(error))
    finally:
        gateway.end_family()
    log = gateway.log.read_text(errors="replace")
    result.resumed = log.count("was interrupted and is resumed")
    result.faults += [f"a traceback in the log: {gateway.log}"] * ("Traceback" in log)
    result.counts = sum((client.counts for client in proof.clients), Counter())
    return result


class _Proof:
    def __init__(self, gateway: Gateway, chance: random.Random, clients: Sequence[Client], result: Kills) -> None:
        self.clients = list(clients)
        self._gateway = gateway
        self._chance = chance
        self._result = result
        self._is_first = True
        self._killed_s = 0.0

    async def round(self) -> None:
        """Start, check, change, kill."""
        if not self._is_first and self._chance.random() * 100 < EARLY_PERCENT:
            await self._gateway.spawn()
            await asyncio.sleep(self._chance.uniform(*EARLY_S))
            await self._kill()
            self._result.early += 1
            return
        await self._start_and_check()
        managements = [self._management() for _ in self.clients]
        running = asyncio.create_task(streams(self.clients, managements))
        await asyncio.wait({running}, timeout=self._chance.uniform(*CHANGES_S))
        await self._kill()
        await running
        self._result.faults += [fault for client in self.clients for fault in client.faults]

    async def end(self) -> None:
        """One more start, after the last kill; then it is stopped as operators stop it."""
        await self._start_and_check()
        status = await self._gateway.stop()
        if status != 0:
            self._result.faults.append(f"the gateway ended with {status} after SIGTERM")
        if self._gateway.family():
            self._result.faults.append(f"processes are left: {self._gateway.family()}")

    async def _kill(self) -> None:
        await self._gateway.kill()
        self._killed_s = time.monotonic()
        self._result.rounds += 1
        self._result.faults += await asyncio.to_thread(check.check_database, self._gateway.state)

    async def _start_and_check(self) -> None:
        leaving = asyncio.create_task(self._watch_scorers()) if not self._is_first else None
        others = Others()
        took_s = await self._gateway.start()
        self._result.others_each.append(others.cores())
        if not self._is_first:
            self._result.restarts_s.append(took_s)
        self._is_first = False
        context = trusting(self._gateway.urls["ca"])
        scorers = await one_a_scorer(self._gateway.urls["scoring"], context, SCORERS)
        management = self._management()
        try:
            if len(scorers) < SCORERS:
                self._result.faults.append(f"only {len(scorers)} of {SCORERS} scorers take connections")
            faults = await check.check(management, scorers, self.clients)
            self._result.faults += [f"after kill {self._result.rounds}: {fault}" for fault in faults]
            self._result.faults += await asyncio.to_thread(check.leftovers, self._gateway.state)
        finally:
            _close([management, *scorers])
        if leaving is not None:
            await leaving

    async def _watch_scorers(self) -> None:
        """How long the scorers of the killed supervisor live on."""
        while self._gateway.left_behind():
            if time.monotonic() - self._killed_s > SCORERS_GONE_WITHIN_S:
                self._result.faults.append(f"processes of a killed gateway live on: {self._gateway.left_behind()}")
                return
            await asyncio.sleep(POLL_S)
        self._result.scorers_gone_s.append(time.monotonic() - self._killed_s)

    def _management(self) -> Management:
        urls = self._gateway.urls
        return Management(urls["management"], trusting(urls["ca"]), self._gateway.token)


def _close(connections: Sequence[Management | Connection]) -> None:
    for one in connections:
        one.close()
