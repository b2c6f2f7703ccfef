"""Steps: what a change does to what is served, and how resources are called.

Pure but for `serve`, and for looking things up in a transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.channel import RemoteFailed, ScorerDied
from gateway.controlplane import wanted
from gateway.controlplane.documents import DocumentError
from gateway.controlplane.model_store import ModelChanged
from gateway.controlplane.plan import Secrets
from gateway.controlplane.publisher import Publisher
from gateway.controlplane.reconcile import ChangeRefused, LoadRefused
from gateway.controlplane.state import StateError
from gateway.controlplane.store.records import Kind, Operation, Ref, Resource
from gateway.controlplane.store.transaction import Transaction
from gateway.errors import Problem
from gateway.resources import Deployment, Desired, Endpoint

# A load or a change that loses a scorer is tried so often, after a pause in which the scorer is replaced.
ATTEMPTS, AGAIN_S = 3, 1.0

_WORDS = {
    Kind.ONLINE_ENDPOINT: "online endpoint",
    Kind.ONLINE_DEPLOYMENT: "deployment",
    Kind.BATCH_ENDPOINT: "batch endpoint",
    Kind.BATCH_DEPLOYMENT: "batch deployment",
}

# Why a change cannot be carried out, as a sentence for the person who asked for it.
REFUSALS = (
    *(ChangeRefused, LoadRefused, ModelChanged, ScorerDied, StateError),
    *(RemoteFailed, DocumentError, Problem, TimeoutError, OSError),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a change does to what is served: one endpoint or deployment is put there, or taken away where None."""

    ref: Ref
    value: Endpoint | Deployment | None = None

    def edit(self, desired: Desired) -> Desired:
        endpoints, deployments = dict(desired.endpoints), dict(desired.deployments)
        key = wanted.key_of(self.ref)
        match self.value:
            case Endpoint():
                endpoints[self.ref.key] = self.value
            case Deployment():
                deployments[key] = self.value
            case None if self.ref.kind is Kind.ONLINE_ENDPOINT:
                endpoints.pop(self.ref.key, None)
                deployments = {one: value for one, value in deployments.items() if one[0] != self.ref.key}
            case None:
                deployments.pop(key, None)
                owner = endpoints.get(self.ref.parent)
                if owner is not None:
                    endpoints[self.ref.parent] = replace(
                        owner,
                        traffic=_without(owner.traffic, self.ref.key),
                        mirror_traffic=_without(owner.mirror_traffic, self.ref.key),
                    )
        return replace(desired, endpoints=endpoints, deployments=deployments)


def without_share(document: dict[str, Any], key: str) -> dict[str, Any]:
    """A stored endpoint without what it says of the traffic of one deployment."""
    shares = {name: _without(document[name], key) for name in ("traffic", "mirror_traffic") if name in document}
    kept = {name: value for name, value in document.items() if name not in shares}
    # As documents are stored: without what is empty.
    return kept | {name: share for name, share in shares.items() if share}


def _without(shares: Mapping[str, int], key: str) -> dict[str, int]:
    return {name: percent for name, percent in shares.items() if name.lower() != key}


def users_of(tx: Transaction, asset: Resource) -> list[str]:
    """The deployments whose wanted or served document names this version of an asset."""
    reference = f"azureml:{asset.parent_name}:{asset.name}".lower()
    users = []
    for kind in (Kind.ONLINE_DEPLOYMENT, Kind.BATCH_DEPLOYMENT):
        for one in tx.find(kind):
            if any(reference in references(document) for document in (one.document, one.served or {})):
                users.append(called(one.ref))
    return users


def references(document: dict[str, Any]) -> set[str]:
    """The registered assets that a stored deployment names, lower-cased."""
    code = document.get("code_configuration") or {}
    named = (document.get("model"), document.get("environment"), code.get("code"))
    return {one.lower() for one in named if isinstance(one, str)}


def endpoint_of(ref: Ref) -> str:
    """The endpoint that a change of this resource holds."""
    return ref.parent or ref.key


def claim_of(asset: Ref) -> str:
    """What a change of an asset's version holds."""
    return f"{asset.kind.value} {asset.parent}:{asset.key}"


def called(ref: Ref) -> str:
    """A resource in words."""
    name = f"{ref.parent}/{ref.key}" if ref.parent else ref.key
    return f"{_WORDS.get(ref.kind, ref.kind.value)} {name}"


def said_of(operation: Operation) -> str:
    return f"{operation.action} of {', '.join(map(called, operation.targets)) or 'nothing'}"


def edited(desired: Desired, steps: Iterable[Step]) -> Desired:
    for step in steps:
        desired = step.edit(desired)
    return desired


def asset_finder(tx: Transaction) -> wanted.FindAsset:
    """Looks up registered assets within a transaction."""

    def find(kind: Kind, name: str, version: str) -> Resource | None:
        if version == "latest":
            return tx.latest(kind, name.lower())
        return tx.get(Ref(kind=kind, parent=name.lower(), key=version.lower()))

    return find


async def serve(publisher: Publisher, steps: Sequence[Step], secrets: Mapping[str, Secrets]) -> None:
    """Load what must be loaded aside, then publish it all at once. A scorer that dies meanwhile is waited for.

    Errors: REFUSALS; nothing is changed then, and nothing is left loaded.
    """
    for attempt in range(ATTEMPTS):
        try:
            await _serve(publisher, steps, secrets)
            return
        except LoadRefused as refused:
            if not refused.is_scorer_lost or attempt == ATTEMPTS - 1:
                raise
        except ScorerDied:
            if attempt == ATTEMPTS - 1:
                raise
        await asyncio.sleep(AGAIN_S)


async def _serve(publisher: Publisher, steps: Sequence[Step], secrets: Mapping[str, Secrets]) -> None:
    loads = [(step.ref, step.value) for step in steps if isinstance(step.value, Deployment)]
    try:
        for ref, deployment in loads:
            await _load(publisher, ref, deployment)
        await publisher.publish(lambda desired: edited(desired, steps), secrets)
    except BaseException:
        for ref, _ in loads:
            await publisher.unload(ref.parent, ref.key)
        raise
    for ref, _ in loads:
        publisher.settle(ref.parent, ref.key)


async def _load(publisher: Publisher, ref: Ref, deployment: Deployment) -> None:
    try:
        await publisher.load(ref.parent, deployment)
    except LoadRefused as error:
        raise LoadRefused(f"{called(ref)}: {error}", is_scorer_lost=error.is_scorer_lost, code=error.code) from error
