"""Housekeeping: what nothing refers to any more goes, an hour after the start and every hour from then on.

What: uploads that became no asset, content without a name (blobs/collect.py), anonymous assets that no deployment
names, environments that no script deployment has, and operations that ended long ago. All of it is written first and
removed second, so a crash leaves too much, never too little. After a clock that jumps ahead, an hour is left out.
Units: *_s seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from gateway.controlplane import assets
from gateway.controlplane.arm.ids import IdError, stored_at
from gateway.controlplane.blobs.collect import CollectLimits, Place, collect
from gateway.controlplane.blobs.refusals import Refusal
from gateway.controlplane.blobs.storage import Storage
from gateway.controlplane.control import OPERATIONS_KEPT_S, Control
from gateway.controlplane.documents import DocumentError, from_builtins
from gateway.controlplane.scripts import Scripts
from gateway.controlplane.steps import claim_of, references
from gateway.controlplane.store.database import StoreBusy
from gateway.controlplane.store.records import ASSETS, Kind, Resource
from gateway.controlplane.store.transaction import Transaction

log = logging.getLogger(__name__)

EVERY_S = 3600.0
JUMP_S = 600.0
ANONYMOUS_KEPT_S = 7 * 24 * 3600.0


class Housekeeping:
    """One gateway's."""

    def __init__(
        self,
        control: Control,
        storage: Storage,
        scripts: Scripts,
        limits: CollectLimits | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._control = control
        self._storage = storage
        self._scripts = scripts
        self._limits = limits or CollectLimits()
        self._sleep = sleep

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            slept_from = self._control.now()
            await self._sleep(EVERY_S)
            ahead_s = self._control.now() - slept_from - EVERY_S
            if ahead_s > JUMP_S:
                # What was written a moment before the jump looks old, and may be about to be named.
                log.warning("the clock was put %.0f s ahead; nothing is removed for another hour", ahead_s)
                continue
            try:
                await self.once()
            except (StoreBusy, Refusal, OSError) as error:
                log.warning("what is not needed any more could not be removed, and is looked at again: %s", error)

    async def once(self) -> None:
        before = self._control.now() - ANONYMOUS_KEPT_S
        # What an apply is about to name stays.
        held = self._control.asset_claims.held
        forgotten = await self._control.store.write(lambda tx: forget_anonymous(tx, before, held))
        await self._control.store.write(lambda tx: tx.forget_operations(self._control.now() - OPERATIONS_KEPT_S))
        places = await self._control.store.read(named_places)
        collected = await collect(self._storage, places, self._limits)
        wanted = await self._control.store.read(wanted_deployments)
        environments = await self._scripts.collect(wanted)
        if environments:
            log.info("removed %d environments that no deployment has", environments)
        if forgotten or any((collected.blobs, collected.files, collected.blocks)):
            log.info(
                "removed what nothing refers to: %d assets, %d uploaded files, %d contents",
                *(forgotten, collected.blobs, collected.files),
            )


def forget_anonymous(tx: Transaction, before: float, held: Collection[str] = ()) -> int:
    """Assets that deployments brought along, once no deployment names them; how many went. `held`: claims of those
    that stay."""
    needed: set[str] = set()
    for kind in (Kind.ONLINE_DEPLOYMENT, Kind.BATCH_DEPLOYMENT):
        for one in tx.find(kind):
            needed |= references(one.document) | references(one.served or {})
    doomed = [
        one
        for kind in ASSETS
        for one in tx.find(kind)
        if one.document.get("is_anonymous")
        and one.modified_at < before
        and claim_of(one.ref) not in held
        and f"azureml:{one.parent_name}:{one.name}".lower() not in needed
    ]
    for one in doomed:
        tx.delete(one.ref)
    return len(doomed)


def wanted_deployments(tx: Transaction) -> set[str]:
    """All of them, as "endpoint/deployment"."""
    return {f"{one.ref.parent}/{one.ref.key}" for one in tx.find(Kind.ONLINE_DEPLOYMENT)}


def named_places(tx: Transaction) -> list[Place]:
    """Where the uploads of all registered assets are."""
    places = (_place(one) for kind in ASSETS for one in tx.find(kind))
    return [place for place in places if place is not None]


def _place(asset: Resource) -> Place | None:
    try:
        where = stored_at(assets.address_of(from_builtins(asset.ref.kind, asset.document)))
    except (DocumentError, IdError):
        return None
    if where is None:
        return None
    return (assets.CONTAINER if where.datastore else where.container, where.path)
