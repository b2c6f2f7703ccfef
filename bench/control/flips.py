"""Flips: traffic, deployments and keys of one endpoint are changed again and again under checked traffic.

Two deployments whose models multiply by different numbers. No request may fail, none may be answered by a deployment
without weight or by a model that is no longer (or not yet) its own, and a key that was replaced must be refused on
every scorer within a second. Units: seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.control import management as at
from bench.control.gateway import Gateway
from bench.control.management import Management
from bench.control.models import scaled
from bench.control.others import Others
from bench.control.possible import Possible, State
from bench.control.scoring import Score, one_a_scorer, score
from bench.control.traffic import Traffic
from bench.control.wire import Connection, trusting

SCORERS = 2
RATE = 200.0
ENDPOINT = "flips"
DEPLOYMENTS = ("blue", "green")
SHARES = ({"blue": 100, "green": 0}, {"blue": 0, "green": 100}, {"blue": 50, "green": 50}, {"blue": 1, "green": 99})
FACTORS = tuple(range(2, 10))
REFUSED_WITHIN_S = 1.0
FRESH_CONNECTIONS = 8
SETTLE_S = 0.5


@dataclass(slots=True, kw_only=True)
class Flips:
    """What came of it. `refused_s`: from the answer of a regeneration to the old key's refusal everywhere."""

    counts: Counter[str] = field(default_factory=Counter)
    took_s: dict[str, list[float]] = field(default_factory=dict)
    refused_s: list[float] = field(default_factory=list)
    requests: int = 0
    failed: int = 0
    misrouted: int = 0
    latencies_s: list[float] = field(default_factory=list)
    late_s: float = 0.0
    answered: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    duration_s: float = 0.0
    others: float = 0.0


async def run(work: Path, *, flips: int, updates: int, regenerations: int, seed: int, pause_s: float = 0.2) -> Flips:
    """`pause_s`: the longest time between two changes. Errors: StartFailed, Lost, Refused."""
    gateway = Gateway(work, scorers=SCORERS)
    result = Flips()
    try:
        await gateway.start()
        proof = await _Proof.of(gateway, random.Random(seed), result)
        began_s, others = time.monotonic(), Others()
        async with proof.traffic:
            await asyncio.sleep(SETTLE_S)
            kinds = ["flip"] * flips + ["update"] * updates + ["key"] * regenerations
            proof.chance.shuffle(kinds)
            for kind in kinds:
                await proof.change(kind)
                await asyncio.sleep(proof.chance.uniform(0, pause_s))
            await asyncio.sleep(SETTLE_S)
        result.duration_s, result.others = time.monotonic() - began_s, others.cores()
        proof.close()
        _take_over(result, proof.traffic)
        status = await gateway.stop()
        if status != 0:
            result.faults.append(f"the gateway ended with {status} after SIGTERM")
    finally:
        gateway.end_family()
    if "Traceback" in gateway.log.read_text(errors="replace"):
        result.faults.append(f"a traceback in the log: {gateway.log}")
    return result


def _take_over(result: Flips, traffic: Traffic) -> None:
    result.requests = len(traffic.latencies) + traffic.failed
    result.failed, result.misrouted = traffic.failed, traffic.misrouted
    result.latencies_s, result.late_s = traffic.latencies, traffic.late_s
    result.answered = dict(traffic.answered)
    result.faults += traffic.faults


class _Proof:
    """One endpoint, its clients, and what may answer."""

    def __init__(
        self,
        gateway: Gateway,
        management: Management,
        scorers: Sequence[Connection],
        keys: dict[str, str],
        chance: random.Random,
        result: Flips,
    ) -> None:
        self.chance = chance
        self._result = result
        context = trusting(gateway.urls["ca"])
        self._management = management
        self._scorers = list(scorers)
        self._context, self._url = context, gateway.urls["scoring"]
        self._keys = keys
        self._which = itertools.cycle(["Primary", "Secondary"])
        self._numbers = itertools.count(1)
        self._docs: dict[str, dict[str, Any]] = {}
        self._possible = Possible(State(traffic=SHARES[0], factors={}))
        self.traffic = Traffic(self._url, context, ENDPOINT, keys["Secondary"], RATE, self._judge)

    @classmethod
    async def of(cls, gateway: Gateway, chance: random.Random, result: Flips) -> _Proof:
        context = trusting(gateway.urls["ca"])
        management = Management(gateway.urls["management"], context, gateway.token)
        for factor in FACTORS:
            address = await management.upload(scaled(factor))
            await management.do("PUT", at.model_path("scaled", str(factor)), at.model_body(address, {}))
        await management.do("PUT", at.endpoint_path(ENDPOINT), at.endpoint_body({}, {}))
        keys = await management.need("POST", f"{at.endpoint_path(ENDPOINT)}/listKeys")
        scorers = await one_a_scorer(gateway.urls["scoring"], context, SCORERS)
        named = {"Primary": keys["primaryKey"], "Secondary": keys["secondaryKey"]}
        proof = cls(gateway, management, scorers, named, chance, result)
        await proof._first_state()
        return proof

    async def _first_state(self) -> None:
        factors = dict(zip(DEPLOYMENTS, FACTORS, strict=False))
        for name, factor in factors.items():
            self._docs[name] = {"factor": factor, "instances": 1, "timeout_s": 5}
            await self._put_deployment(name)
        await self._management.do("PUT", at.endpoint_path(ENDPOINT), at.endpoint_body(SHARES[0], {}))
        self._possible = Possible(State(traffic=SHARES[0], factors=factors))

    async def change(self, kind: str) -> None:
        """One change, from the request until it is carried out."""
        began_s = time.monotonic()
        match kind:
            case "flip":
                await self._flip()
            case "update":
                kind = await self._update()
            case _:
                await self._regenerate()
        self._result.counts[kind] += 1
        self._result.took_s.setdefault(kind, []).append(time.monotonic() - began_s)
        self._possible.forget(began_s - 60)

    async def _flip(self) -> None:
        state = self._possible.now
        share = self.chance.choice([one for one in SHARES if one != state.traffic])
        self._possible.asked(time.monotonic(), replace(state, traffic=share))
        body = at.endpoint_body(share, {"n": str(next(self._numbers))})
        await self._management.do("PUT", at.endpoint_path(ENDPOINT), body)
        self._possible.ended(time.monotonic())

    async def _update(self) -> str:
        name = self.chance.choice(DEPLOYMENTS)
        doc, state = self._docs[name], self._possible.now
        what = self.chance.choice(["model", "model", "setting", "capacity"])
        if what == "model":
            doc["factor"] = self.chance.choice([one for one in FACTORS if one not in state.factors.values()])
        elif what == "setting":
            doc["timeout_s"] = 3 + (doc["timeout_s"] + 1) % 3
        else:
            doc["instances"] = 3 - doc["instances"]
        self._possible.asked(time.monotonic(), replace(state, factors={**state.factors, name: doc["factor"]}))
        await self._put_deployment(name)
        self._possible.ended(time.monotonic())
        return f"update of the {what}"

    async def _put_deployment(self, name: str) -> None:
        doc = self._docs[name]
        body = at.deployment_body(
            at.model_path("scaled", str(doc["factor"])),
            {"n": str(next(self._numbers))},
            instances=doc["instances"],
            timeout_s=doc["timeout_s"],
        )
        await self._management.do("PUT", at.deployment_path(ENDPOINT, name), body)

    async def _regenerate(self) -> None:
        """Callers go over to the other key, which is good; then this one is replaced."""
        which = next(self._which)
        other = "Secondary" if which == "Primary" else "Primary"
        await self.traffic.switch(self._keys[other])
        old = self._keys[which]
        await self._management.do("POST", f"{at.endpoint_path(ENDPOINT)}/regenerateKeys", {"keyType": which})
        await self._await_refusal(old, time.monotonic())
        keys = await self._management.need("POST", f"{at.endpoint_path(ENDPOINT)}/listKeys")
        self._keys = {"Primary": keys["primaryKey"], "Secondary": keys["secondaryKey"]}
        for one in self._scorers:
            answer = await score(one, ENDPOINT, self._keys[which])
            if answer.status != 200:
                self._result.faults.append(f"a new key is refused: {answer}")

    async def _await_refusal(self, key: str, since_s: float) -> None:
        """On a connection of each scorer that is open, and on new ones."""
        fresh = [Connection(self._url, self._context) for _ in range(FRESH_CONNECTIONS)]
        waiting = [*self._scorers, *fresh]
        while waiting:
            scores = [(one, await score(one, ENDPOINT, key)) for one in waiting]
            waiting = [one for one, answer in scores if answer.status != 401]
            if waiting and time.monotonic() - since_s > REFUSED_WITHIN_S:
                self._result.faults.append(f"an old key still opens after {REFUSED_WITHIN_S:g} s: {scores}")
                break
        self._result.refused_s.append(time.monotonic() - since_s)
        for one in fresh:
            one.close()

    def _judge(self, sent_s: float, answered_s: float, found: Score) -> str:
        if self._possible.allows(sent_s, answered_s, found.deployment, found.factor):
            return ""
        return f"{found.deployment} answered with factor {found.factor}; the state was {self._possible.now}"

    def close(self) -> None:
        self._management.close()
        for one in self._scorers:
            one.close()
