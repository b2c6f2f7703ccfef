"""Endpoints and their deployments, online and batch: read, listed, put, patched and deleted.

A change is made of what is stored and what the caller sent, and is written only if what is stored is still the same;
where it is not, it is made anew. The caller's own conditions (If-Match, If-None-Match) count each time.
Shapes: ARM's, by controlplane/arm. Errors: Problem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from gateway.controlplane.arm.envelope import list_body
from gateway.controlplane.matching import Match, etag_of
from gateway.controlplane.rest import convert, lro, paging
from gateway.controlplane.rest.context import Accepted, Call, Reply
from gateway.controlplane.rest.query import COMPUTE_TYPE, NAME, PROPERTIES, TAGS, filters, has_all
from gateway.controlplane.store.records import Kind, Operation, Ref, Resource, Status
from gateway.errors import Code, Problem

ATTEMPTS = 5
SKU_INSTANCES_MAX = 50

Make = Callable[[Resource | None], msgspec.Struct]


@dataclass(frozen=True, slots=True)
class Family:
    """The handlers of one kind, as the table names them. `parent` is the kind of its endpoint, None for endpoints."""

    kind: Kind
    parent: Kind | None = None

    @property
    def word(self) -> str:
        return self.kind.value.replace("_", " ")

    def ref(self, call: Call) -> Ref:
        if self.parent is None:
            return Ref(kind=self.kind, key=call.params["endpoint"].lower())
        return Ref(kind=self.kind, parent=self.parent_key(call), key=call.params["deployment"].lower())

    def parent_key(self, call: Call) -> str:
        return call.params["endpoint"].lower() if self.parent is not None else ""

    async def get(self, call: Call) -> Reply:
        resource = await self.need(call)
        call.match_read(resource)
        if call.is_known(resource):
            return Reply(status=304, headers={"etag": etag_of(resource.version)})
        return _shown(call, resource)

    async def list(self, call: Call) -> Reply:
        owner = await self.owner(call)
        keep = _filter_of(call)
        page = await paging.resources(call, self.kind, owner.ref.key if owner is not None else None, keep)
        return paging.reply(call, page, [convert.body_of(call, one) for one in page.items])

    async def put(self, call: Call) -> Reply:
        body = await call.json()
        owner = await self.owner(call)

        def make(existing: Resource | None) -> msgspec.Struct:
            return convert.document_of(self.kind, body, self.names(call, owner, existing), existing)

        accepted, was_there = await self._change(call, owner, make)
        return _accepted(call, accepted, 200 if was_there else 201)

    async def patch(self, call: Call) -> Reply:
        body = await call.json()
        owner = await self.owner(call)

        def make(existing: Resource | None) -> msgspec.Struct:
            if existing is None:
                raise self.missing(call)
            return convert.patched(existing, body)

        accepted, _ = await self._change(call, owner, make)
        return _accepted(call, accepted, 202 if _is_open(accepted.operation) else 200)

    async def delete(self, call: Call) -> Reply:
        operation = await call.control.delete(self.ref(call), call.actor, match=call.match)
        if operation is None:
            return Reply(status=204)
        if operation.status is Status.SUCCEEDED:
            return Reply(status=200)
        return Reply(status=202, headers=lro.headers(call, operation, result=True))

    async def need(self, call: Call) -> Resource:
        """The resource that the path names. Errors: Problem 404."""
        ref = self.ref(call)
        resource = await call.read(lambda tx: tx.get(ref))
        if resource is None:
            await self.owner(call)
            raise self.missing(call)
        return resource

    async def owner(self, call: Call) -> Resource | None:
        """The endpoint that a deployment's path names; None for endpoints. Errors: Problem 404."""
        return await Family(self.parent).need(call) if self.parent is not None else None

    def missing(self, call: Call) -> Problem:
        name = call.params["deployment" if self.parent is not None else "endpoint"]
        where = f" on endpoint {call.params['endpoint']!r}" if self.parent is not None else ""
        return Problem(Code.NOT_FOUND, f"there is no {self.word} {name!r}{where}")

    def names(self, call: Call, owner: Resource | None, existing: Resource | None) -> tuple[str, str]:
        """Parent and name, as they were spelled first."""
        name = call.params["deployment" if self.parent is not None else "endpoint"]
        return (owner.name if owner is not None else "", existing.name if existing is not None else name)

    async def _change(self, call: Call, owner: Resource | None, make: Make) -> tuple[Accepted, bool]:
        """The change, and whether the resource was there before."""
        ref = self.ref(call)
        for attempt in range(ATTEMPTS):
            existing = await call.read(lambda tx: tx.get(ref))
            document = make(existing)
            call.match.check(existing, f"{self.word} {ref.key}")
            parent_name, name = self.names(call, owner, existing)
            unchanged = _still(existing)
            try:
                accepted = await call.control.put(self.kind, parent_name, name, document, call.actor, match=unchanged)
                return accepted, existing is not None
            except Problem as problem:
                if problem.code is not Code.PRECONDITION_FAILED or attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")


ONLINE_ENDPOINTS = Family(Kind.ONLINE_ENDPOINT)
ONLINE_DEPLOYMENTS = Family(Kind.ONLINE_DEPLOYMENT, Kind.ONLINE_ENDPOINT)
BATCH_ENDPOINTS = Family(Kind.BATCH_ENDPOINT)
BATCH_DEPLOYMENTS = Family(Kind.BATCH_DEPLOYMENT, Kind.BATCH_ENDPOINT)


async def logs(call: Call) -> Reply:
    """POST .../deployments/{d}/getLogs"""
    resource = await ONLINE_DEPLOYMENTS.need(call)
    tail = (await call.json()).get("tail")
    if tail is not None and (not isinstance(tail, int) or isinstance(tail, bool) or tail < 0):
        raise Problem(Code.INVALID_INPUT, f"tail is {tail!r:.60}; accepted: a number of lines, 0 or more")
    content = await call.control.logs(resource.ref.parent, resource.ref.key, tail) if tail != 0 else ""
    return Reply(body={"content": content})


async def skus(call: Call) -> Reply:
    """GET .../deployments/{d}/skus"""
    resource = await ONLINE_DEPLOYMENTS.need(call)
    capacity = {
        "minimum": 1,
        "maximum": SKU_INSTANCES_MAX,
        "default": resource.document.get("instance_count", 1),
        "scaleType": "Manual",
    }
    sku = {"name": "Default", "tier": "Standard"}
    kind = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/deployments"
    return Reply(body=list_body([{"resourceType": kind, "sku": sku, "capacity": capacity}]))


def _still(existing: Resource | None) -> Match:
    """What is stored must be what the change was made of."""
    return Match(if_match=etag_of(existing.version)) if existing is not None else Match(if_none_match="*")


def _accepted(call: Call, accepted: Accepted, status: int) -> Reply:
    operation = accepted.operation
    # The address stands in the body of one that has ended too: public samples ask it without looking.
    found = _shown(call, accepted.resource, lro.status_url(call, operation) if operation is not None else "")
    told = lro.headers(call, operation, result=status == 202) if operation is not None else {}
    return Reply(status=status, body=found.body, headers={**found.headers, **told})


def _is_open(operation: Operation | None) -> bool:
    """Whether there is something for the caller to ask about: it runs, or has failed."""
    return operation is not None and operation.status is not Status.SUCCEEDED


def _shown(call: Call, resource: Resource, operation_url: str = "") -> Reply:
    body = convert.body_of(call, resource, operation_url)
    return Reply(body=body, headers={"etag": etag_of(resource.version)})


def _filter_of(call: Call) -> Callable[[Resource], bool]:
    query = call.query
    name, compute = query.text(NAME).lower(), query.choice(COMPUTE_TYPE)
    tags, properties = filters(query.text(TAGS)), filters(query.text(PROPERTIES))

    def keep(resource: Resource) -> bool:
        document = resource.document
        is_kubernetes = bool(document.get("compute"))
        return (
            (not name or resource.ref.key == name)
            and (not compute or is_kubernetes == (compute == "Kubernetes"))
            and has_all(document.get("tags", {}), tags)
            and has_all(document.get("properties", {}), properties)
        )

    return keep
