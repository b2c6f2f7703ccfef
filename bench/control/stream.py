"""A seeded stream of changes: one client makes them one after the other, and keeps the ledger of what was accepted.

Only changes are made that the gateway must accept; any refusal other than "it is being changed" is a fault.
Ends by itself once the gateway is gone. Units: seconds.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

from bench.control import management as at
from bench.control.ledger import (
    Change,
    DeleteDeployment,
    DeleteEndpoint,
    DeleteModel,
    DeploymentDoc,
    ModelDoc,
    PutDeployment,
    PutEndpoint,
    PutModel,
    Regenerate,
    TagEndpoint,
    World,
)
from bench.control.management import Management, Refused
from bench.control.models import scaled
from bench.control.wire import Answer, Lost

ENDPOINTS = 2
DEPLOYMENTS = 2
MODELS = 6
FACTORS = range(2, 40)
# How often, of a hundred.
BROKEN_PERCENT = 8
WAIT_PERCENT = 60
KEY_LENGTH = 43
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


class Client:
    """One stream. `doubt`: the change that was sent last, as long as it has no answer."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.world = World()
        self.doubt: Change | None = None
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()
        # Operations that were acknowledged and not seen to end: the endpoint, and whether it must fail.
        self.open: dict[str, tuple[str, bool]] = {}
        self._chance = random.Random(seed)
        self._number = 0

    async def run(self, management: Management) -> None:
        """Changes until the gateway is gone."""
        try:
            while True:
                await self._make(management, await self._next(management))
        except Lost:
            return
        except Refused as error:
            self.faults.append(f"{self.name}: {error}")
        finally:
            management.close()

    # Sending.

    async def _make(self, management: Management, change: Change) -> None:
        method, path, body = change.request()
        self.doubt = change
        answer = await management.call(method, path, body)
        self.doubt = None
        if answer.status == 409 and any(change.endpoint == endpoint for endpoint, _ in self.open.values()):
            self.counts["held off"] += 1
            await self._await_open(management)
            return
        if not answer.is_good:
            raise Refused(f"{method} {path}: {answer}")
        change.apply(self.world)
        self.counts[type(change).__name__] += 1
        await self._follow(management, change, answer)

    async def _follow(self, management: Management, change: Change, answer: Answer) -> None:
        operation = at.operation_of(answer)
        if operation:
            self.open[operation] = (change.endpoint, _must_fail(change))
            if self._percent(WAIT_PERCENT):
                await self._await_open(management)
        found = self.world.endpoints.get(change.endpoint)
        if found is not None and isinstance(change, Regenerate | PutEndpoint):
            keys = await management.need("POST", f"{at.endpoint_path(change.endpoint)}/listKeys")
            found.primary, found.secondary = keys["primaryKey"], keys["secondaryKey"]

    async def _await_open(self, management: Management) -> None:
        for operation in list(self.open):
            await self.settle(management, operation)

    async def settle(self, management: Management, operation: str) -> None:
        """Wait until an acknowledged operation has ended, and look how."""
        _, must_fail = self.open[operation]
        found = await management.ended(operation)
        del self.open[operation]
        wanted = "Failed" if must_fail else "Succeeded"
        if found["status"] != wanted or (must_fail and not (found.get("error") or {}).get("message")):
            self.faults.append(f"{self.name}: an operation that must end as {wanted} ended so: {found}")

    # Choosing.

    async def _next(self, management: Management) -> Change:
        weights, changes = zip(*self._choices(), strict=True)
        make: Change = self._chance.choices(changes, weights)[0]
        if isinstance(make, PutModel):
            content = scaled(make.doc.factor) if make.doc.factor else b"this is no model"
            address = await management.upload(content)
            doc = ModelDoc(n=make.doc.n, factor=make.doc.factor, address=address)
            return PutModel(name=make.name, version=make.version, doc=doc)
        return make

    def _choices(self) -> Iterator[tuple[int, Change]]:
        """Changes that are possible now, each with its weight."""
        world, self._number = self.world, self._number + 1
        if len(world.models) < MODELS:
            yield 20, self._new_model()
        for model in world.models.keys() - world.used():
            yield 4, DeleteModel(name=model[0], version=model[1])
        for number in range(ENDPOINTS):
            name = f"end-{self.name}{number}"
            if name not in world.endpoints:
                yield 30, PutEndpoint(endpoint=name, n=self._number, traffic={})
            else:
                yield from self._changes_of(name)

    def _changes_of(self, name: str) -> Iterator[tuple[int, Change]]:
        endpoint = self.world.endpoints[name]
        yield 10, TagEndpoint(endpoint=name, n=self._number)
        yield 12, Regenerate(endpoint=name, which=self._chance.choice(["Primary", "Secondary"]), value=self._key())
        yield 3, DeleteEndpoint(endpoint=name)
        ready = sorted(key for key, one in endpoint.deployments.items() if one.served is not None)
        yield 25, PutEndpoint(endpoint=name, n=self._number, traffic=self._traffic(ready))
        for number in range(DEPLOYMENTS):
            key = f"dep{number}"
            if self.world.models:
                yield 40, PutDeployment(endpoint=name, name=key, doc=self._deployment(name, key))
            if key in endpoint.deployments and not endpoint.traffic.get(key):
                yield 6, DeleteDeployment(endpoint=name, name=key)

    def _new_model(self) -> PutModel:
        factor = 0 if self._percent(BROKEN_PERCENT) else self._chance.choice(FACTORS)
        doc = ModelDoc(n=self._number, factor=factor)
        return PutModel(name=f"model-{self.name}", version=str(self._number), doc=doc)

    def _deployment(self, endpoint: str, key: str) -> DeploymentDoc:
        """A new one, or an update: of the model, of a setting, or of the capacity alone."""
        before = self.world.endpoints[endpoint].deployments.get(key)
        model = self._chance.choice(sorted(self.world.models))
        doc = DeploymentDoc(n=self._number, model=model, factor=self.world.models[model].factor)
        if before is None or self._percent(40):
            return doc
        kept = before.doc
        instances = 3 - kept.instances if self._percent(50) else kept.instances
        timeout_s = self._chance.choice([3, 4, 5])
        return DeploymentDoc(
            n=self._number, model=kept.model, factor=kept.factor, instances=instances, timeout_s=timeout_s
        )

    def _traffic(self, ready: list[str]) -> dict[str, int]:
        if not ready or self._percent(10):
            return {}
        if len(ready) == 1:
            return {ready[0]: 100}
        share = self._chance.choice([0, 10, 50, 100])
        return {ready[0]: share, ready[1]: 100 - share}

    def _key(self) -> str:
        if self._percent(50):
            return ""
        return "".join(self._chance.choices(_LETTERS, k=KEY_LENGTH))

    def _percent(self, percent: int) -> bool:
        return self._chance.random() * 100 < percent


def _must_fail(change: Change) -> bool:
    return isinstance(change, PutDeployment) and not change.doc.factor


async def streams(clients: list[Client], managements: list[Management]) -> None:
    """All clients at once, until the gateway is gone."""
    runs: list[Any] = [client.run(one) for client, one in zip(clients, managements, strict=True)]
    await asyncio.gather(*runs)
