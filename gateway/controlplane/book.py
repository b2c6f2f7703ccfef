"""Book: what a change writes, and whether it may; in one transaction, on the store's thread.

What: a change is checked against everything it stands beside, then its document, its operation and its line in the
audit log are written together. Nothing here awaits or touches what is served.
Errors: Problem, with nothing written; ModelFileError for a model that is not there.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from gateway.controlplane import assets, wanted
from gateway.controlplane.authorize import Actor
from gateway.controlplane.documents import DocumentError, from_builtins, normal_form, to_builtins
from gateway.controlplane.folder import FolderOptions
from gateway.controlplane.matching import ANY, Match
from gateway.controlplane.reconcile import BAD_ARGUMENT
from gateway.controlplane.steps import Step, asset_finder, called, endpoint_of, without_share
from gateway.controlplane.store.records import (
    AssetFile,
    AuditEntry,
    Event,
    Kind,
    Operation,
    Ref,
    Resource,
    State,
    Status,
)
from gateway.controlplane.store.transaction import Transaction
from gateway.controlplane.vault import Vault
from gateway.controlplane.yaml_types import OnlineDeploymentYaml, OnlineEndpointYaml
from gateway.errors import Code, Problem
from gateway.resources import AssetModel, AssetTree, Deployment, Endpoint

_PARENTS = {Kind.ONLINE_DEPLOYMENT: Kind.ONLINE_ENDPOINT, Kind.BATCH_DEPLOYMENT: Kind.BATCH_ENDPOINT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A change that is written and shall be carried out. `undo` takes back what is written if that fails."""

    operation: Operation
    steps: tuple[Step, ...] = ()
    resource: Resource | None = None
    undo: Callable[[Transaction], None] | None = None


class Book:
    """`now` gives seconds since 1970, `read` the content of assets."""

    def __init__(
        self, vault: Vault, options: FolderOptions, now: Callable[[], float], read: wanted.ReadContent
    ) -> None:
        self.vault = vault
        self.options = options
        self.now = now
        self.read = read

    def accept(
        self,
        tx: Transaction,
        ref: Ref,
        parent_name: str,
        name: str,
        document: msgspec.Struct,
        actor: Actor,
        match: Match,
    ) -> Taken:
        existing = tx.get(ref)
        match.check(existing, called(ref))
        document = normal(document)
        value = self.checked(tx, ref, document, existing)
        if isinstance(value, Deployment):
            document = _pinned(document, value)
        resource = self.upserted(ref, existing, parent_name, name, document, actor)
        resource = tx.put(resource, expected=existing.version if existing is not None else None)
        if ref.kind is Kind.ONLINE_ENDPOINT:
            self.vault.provide(tx, ref.key)
        action = "create" if resource.state is State.CREATING else "update"
        operation = self.new_operation(action, [ref], actor)
        tx.add_operation(operation)
        self.note(tx, operation, actor, "accepted")
        self.note_vain(tx, ref, document, existing)
        return Taken(operation=operation, steps=(Step(ref=ref, value=value),), resource=resource)

    def checked(
        self, tx: Transaction, ref: Ref, document: msgspec.Struct, existing: Resource | None
    ) -> Endpoint | Deployment:
        """What the document means, if it may be served beside what is stored. Errors: Problem."""
        if isinstance(document, OnlineEndpointYaml):
            return self._checked_endpoint(tx, ref, document, existing)
        assert isinstance(document, OnlineDeploymentYaml)
        return self._checked_deployment(tx, ref, document, existing)

    def _checked_endpoint(
        self, tx: Transaction, ref: Ref, document: OnlineEndpointYaml, existing: Resource | None
    ) -> Endpoint:
        self.vault.check_sources(document, existing)
        found = wanted.endpoint(document.name, document, self.options)
        deployments = {one.ref.key: one for one in tx.find(Kind.ONLINE_DEPLOYMENT, ref.key)}
        wanted.check(found, [], self.options.limits, [(ref.key, key) for key in deployments])
        refuse_never_ready(found, deployments)
        if existing is None:
            self.check_totals(tx.count(Kind.ONLINE_ENDPOINT) + 1, 0)
        return found

    def _checked_deployment(
        self, tx: Transaction, ref: Ref, document: OnlineDeploymentYaml, existing: Resource | None
    ) -> Deployment:
        owner = tx.get(Ref(kind=Kind.ONLINE_ENDPOINT, key=ref.parent))
        if owner is None or owner.state is State.DELETING:
            raise Problem(Code.NOT_FOUND, f"there is no online endpoint {ref.parent}; create it first")
        found = wanted.deployment(document, self.options, asset_finder(tx), self.read)
        parent = from_builtins(Kind.ONLINE_ENDPOINT, owner.document)
        assert isinstance(parent, OnlineEndpointYaml)
        siblings = [(ref.parent, one.ref.key) for one in tx.find(Kind.ONLINE_DEPLOYMENT, ref.parent)]
        endpoint = wanted.endpoint(parent.name, parent, self.options)
        wanted.check(endpoint, [found], self.options.limits, siblings)
        if existing is None:
            self.check_totals(0, tx.count(Kind.ONLINE_DEPLOYMENT) + 1)
        return found

    def check_totals(self, endpoints: int, deployments: int) -> None:
        """Errors: Problem where there would be more than the settings allow."""
        limits = self.options.limits
        totals = (("endpoints", endpoints, limits.endpoints), ("deployments", deployments, limits.deployments))
        problems = [
            f"there would be {count} {what}; accepted: at most {most} (setting {what}_max)"
            for what, count, most in totals
            if count > most
        ]
        if problems:
            raise wanted.refused(problems)

    def accept_delete(self, tx: Transaction, ref: Ref, actor: Actor, match: Match) -> Taken | None:
        existing = tx.get(ref)
        if existing is None:
            return None
        match.check(existing, called(ref))
        if ref.kind is Kind.ONLINE_DEPLOYMENT:
            self._refuse_with_traffic(tx, ref)
        tx.put(self.moved(existing, State.DELETING, actor), expected=existing.version)
        operation = self.new_operation("delete", [ref], actor)
        tx.add_operation(operation)
        self.note(tx, operation, actor, "accepted")
        return Taken(operation=operation, steps=(Step(ref=ref),))

    def _refuse_with_traffic(self, tx: Transaction, ref: Ref) -> None:
        owner = tx.get(Ref(kind=Kind.ONLINE_ENDPOINT, key=ref.parent))
        if owner is None:
            return
        # An update of the traffic that failed is wanted still, and the traffic of before is served on.
        for document, key in itertools.product((owner.document, owner.served or {}), ("traffic", "mirror_traffic")):
            share = {name.lower(): percent for name, percent in document.get(key, {}).items()}.get(ref.key, 0)
            if share:
                raise Problem(
                    Code.INVALID_INPUT,
                    f"deployment {ref.key} has {share} percent of {key}; take that away, then delete the deployment",
                )

    def accept_regeneration(
        self, tx: Transaction, endpoint: str, which: str, value: str | None, actor: Actor
    ) -> Taken:
        ref = Ref(kind=Kind.ONLINE_ENDPOINT, key=endpoint)
        existing = tx.get(ref)
        if existing is None:
            raise Problem(Code.NOT_FOUND, f"there is no online endpoint {endpoint}")
        before = self.vault.sealed(tx, endpoint)
        self.vault.regenerate(tx, existing, "secondary" if which == "secondary" else "primary", value)
        operation = self.new_operation("regenerate", [ref], actor, detail={"key": which})
        tx.add_operation(operation)
        self.note(tx, operation, actor, "accepted")

        def undo(tx: Transaction) -> None:
            """A key that opens nothing is not told as one."""
            if before is not None and self.vault.sealed(tx, endpoint) is not None:
                self.vault.restore(tx, endpoint, before)

        return Taken(operation=operation, undo=undo)

    def keep(
        self, tx: Transaction, ref: Ref, name: str, document: msgspec.Struct, actor: Actor, match: Match
    ) -> tuple[Resource, bool, Operation]:
        """Batch endpoints and deployments are kept and checked; their jobs do not run yet."""
        existing = tx.get(ref)
        match.check(existing, called(ref))
        document = normal(document)
        parent_name = ""
        if ref.kind in _PARENTS:
            owner = tx.get(Ref(kind=_PARENTS[ref.kind], key=ref.parent))
            if owner is None:
                raise Problem(Code.NOT_FOUND, f"there is no batch endpoint {ref.parent}; create it first")
            parent_name = owner.name
        wanted.check_batch(document, asset_finder(tx))
        moved = self.upserted(ref, existing, parent_name, name, document, actor)
        moved = replace(moved, state=State.SUCCEEDED, served=moved.document)
        resource = tx.put(moved, expected=existing.version if existing is not None else None)
        action = "create" if existing is None else "update"
        self.audit(tx, actor, action, called(ref), "succeeded")
        return resource, existing is None, self._done(tx, action, ref, actor)

    def _done(self, tx: Transaction, action: str, ref: Ref, actor: Actor) -> Operation:
        """An operation that ended with the transaction that it was written in."""
        operation = replace(
            self.new_operation(action, [ref], actor), status=Status.SUCCEEDED, ended_at=self.now(), endpoint=""
        )
        tx.add_operation(operation)
        return operation

    def drop(self, tx: Transaction, ref: Ref, actor: Actor, match: Match) -> Operation | None:
        existing = tx.get(ref)
        if existing is None:
            return None
        match.check(existing, called(ref))
        if ref.kind is Kind.BATCH_ENDPOINT:
            for one in tx.find(Kind.BATCH_DEPLOYMENT, ref.key):
                tx.delete(one.ref)
        tx.delete(ref)
        self.audit(tx, actor, "delete", called(ref), "succeeded")
        return self._done(tx, "delete", ref, actor)

    def register(
        self,
        tx: Transaction,
        ref: Ref,
        name: str,
        version: str,
        document: msgspec.Struct,
        files: tuple[AssetFile, ...],
        actor: Actor,
        match: Match = ANY,
    ) -> tuple[Resource, bool]:
        existing = tx.get(ref)
        match.check(existing, called(ref))
        assets.check_known(ref.kind, assets.address_of(document), files)
        if existing is not None:
            assets.check_same(existing, document, files)
        moved = self.upserted(ref, existing, name, version, document, actor)
        moved = replace(moved, state=State.SUCCEEDED, served=None, files=files)
        resource = tx.put(moved, expected=existing.version if existing is not None else None)
        self.audit(tx, actor, "create" if existing is None else "update", called(ref), "succeeded")
        return resource, existing is None

    def forget(self, tx: Transaction, ref: Ref) -> None:
        """A resource that is not served any more leaves the store, with what belongs to it."""
        if ref.kind is Kind.ONLINE_ENDPOINT:
            for kind in (Kind.ONLINE_DEPLOYMENT, Kind.ROLLOUT):
                for one in tx.find(kind, ref.key):
                    tx.delete(one.ref)
            self.vault.forget(tx, ref.key)
            tx.forget_events(ref.key, None)
        elif ref.kind is Kind.ONLINE_DEPLOYMENT:
            tx.forget_events(ref.parent, ref.key)
            self._forget_share(tx, ref)
        tx.delete(ref)

    def _forget_share(self, tx: Transaction, ref: Ref) -> None:
        """What is gone has no share, not even of nothing: the endpoint could not be changed while it names it."""
        owner = tx.get(Ref(kind=Kind.ONLINE_ENDPOINT, key=ref.parent))
        if owner is None:
            return
        document = without_share(owner.document, ref.key)
        served = without_share(owner.served, ref.key) if owner.served is not None else None
        if (document, served) != (owner.document, owner.served):
            tx.put(replace(owner, document=document, served=served), expected=owner.version)

    def steps_of(self, tx: Transaction, operation: Operation) -> list[Step]:
        """What an interrupted operation still has to do."""
        if operation.action == "delete":
            return [Step(ref=ref) for ref in operation.targets]
        if operation.action == "regenerate":
            return []
        steps = []
        for ref in operation.targets:
            found = tx.get(ref)
            if found is not None:
                document = from_builtins(ref.kind, found.document)
                steps.append(Step(ref=ref, value=self.checked(tx, ref, document, found)))
        return steps

    def upserted(
        self,
        ref: Ref,
        existing: Resource | None,
        parent_name: str,
        name: str,
        document: msgspec.Struct,
        actor: Actor,
    ) -> Resource:
        now, builtins = self.now(), to_builtins(document)
        if existing is None:
            return Resource(
                ref=ref,
                name=name,
                parent_name=parent_name,
                document=builtins,
                state=State.CREATING,
                created_at=now,
                created_by=actor.name,
                modified_at=now,
                modified_by=actor.name,
            )
        state = State.CREATING if existing.served is None else State.UPDATING
        return replace(self.moved(existing, state, actor), document=builtins)

    def moved(self, resource: Resource, state: State, actor: Actor) -> Resource:
        return replace(resource, state=state, reason="", modified_at=self.now(), modified_by=actor.name)

    def new_operation(
        self, action: str, targets: Iterable[Ref], actor: Actor, detail: dict[str, Any] | None = None
    ) -> Operation:
        refs = tuple(targets)
        return Operation(
            id=str(uuid.uuid4()),
            action=action,
            endpoint=endpoint_of(refs[0]) if refs else "",
            targets=refs,
            actor=actor.name,
            started_at=self.now(),
            detail=detail or {},
        )

    def note(self, tx: Transaction, operation: Operation, actor: Actor, outcome: str) -> None:
        """Into the audit log, and the events of each resource."""
        for ref in operation.targets:
            self.audit(tx, actor, operation.action, called(ref), outcome, operation)
            self.event(tx, ref, operation.action, outcome)

    def note_vain(self, tx: Transaction, ref: Ref, document: msgspec.Struct, before: Resource | None) -> None:
        """An event for each key that was given and has no effect, unless it was there before."""
        find = asset_finder(tx)
        known = self._vain(before, find) if before is not None else []
        found = wanted.notes(document, find, self.read)
        tx.add_events([self._event(ref, "note", said) for said in found if said not in known])

    def _vain(self, resource: Resource, find: wanted.FindAsset) -> list[str]:
        try:
            return wanted.notes(from_builtins(resource.ref.kind, resource.document), find, self.read)
        except DocumentError:
            # What is stored can no longer be read, and is replaced for that.
            return []

    def note_loaded(self, tx: Transaction, ref: Ref, lines: Iterable[str]) -> None:
        tx.add_events([self._event(ref, "loaded", line) for line in lines])

    def event(self, tx: Transaction, ref: Ref, name: str, message: str) -> None:
        tx.add_event(self._event(ref, name, message))

    def _event(self, ref: Ref, name: str, message: str) -> Event:
        deployment = ref.key if ref.kind is Kind.ONLINE_DEPLOYMENT else ""
        return Event(at=self.now(), endpoint=endpoint_of(ref), deployment=deployment, name=name, message=message)

    def audit(
        self,
        tx: Transaction,
        actor: Actor,
        action: str,
        target: str,
        outcome: str,
        operation: Operation | None = None,
    ) -> None:
        detail = {**operation.detail, "operation": operation.id} if operation is not None else {}
        tx.add_audit(
            AuditEntry(
                at=self.now(),
                who=actor.name,
                role=actor.role.text,
                source=actor.source,
                request_id=actor.request_id,
                action=action,
                target=target,
                outcome=outcome,
                detail=detail,
            )
        )

    def end(
        self,
        tx: Transaction,
        operation: Operation,
        actor: Actor,
        status: Status,
        reason: str,
        code: str = BAD_ARGUMENT,
    ) -> None:
        ended = replace(
            operation,
            status=status,
            ended_at=self.now(),
            error_code=code if reason else "",
            error_message=reason,
        )
        tx.update_operation(ended)
        self.note(tx, ended, actor, f"failed: {reason}" if reason else "succeeded")


def refuse_never_ready(endpoint: Endpoint, deployments: Mapping[str, Resource]) -> None:
    """Errors: Problem where traffic goes to a deployment that was never served. `deployments` are by key."""
    for name, percent in (*endpoint.traffic.items(), *endpoint.mirror_traffic.items()):
        target = deployments.get(name)
        if percent and target is not None and target.served is None:
            said = f": {target.reason}" if target.reason else ""
            raise Problem(
                Code.INVALID_INPUT,
                f"deployment {target.name} takes no traffic yet: its state is {target.state}{said}",
            )


def _pinned(document: msgspec.Struct, value: Deployment) -> msgspec.Struct:
    """What "latest" means is settled now, and does not change under the deployment."""
    assert isinstance(document, OnlineDeploymentYaml)
    if isinstance(value.model, AssetModel):
        return msgspec.structs.replace(document, model=value.model.reference)
    script = value.script
    if script is None:
        return document
    code = document.code_configuration
    if code is not None and isinstance(script.code, AssetTree):
        code = msgspec.structs.replace(code, code=script.code.reference)
    return msgspec.structs.replace(
        document,
        code_configuration=code,
        model=script.model.reference if isinstance(script.model, AssetTree) else document.model,
        environment=script.environment.reference or document.environment,
    )


def normal(document: msgspec.Struct) -> msgspec.Struct:
    """The document in the one spelling that is stored. Errors: Problem for what has none."""
    document, blames = normal_form(document)
    if blames:
        raise wanted.refused(f"{blame.path}: {blame.text}" for blame in blames)
    return document
