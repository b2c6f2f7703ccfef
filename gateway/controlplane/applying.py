"""A folder as one change, all or nothing; and what a gateway serves when it starts.

The way of an apply: what the folder wants is compared with what is stored (apply.py), checked as a whole, loaded
aside and published at once; only then is it written. If one deployment cannot be served nothing is changed. A start
is an apply to what was served before, and serves what loads.
Errors: Problem with every sentence; ChangeRefused at a start where nothing at all loads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway.channel import LoadOverdue, ScorerDied
from gateway.controlplane import wanted as documents
from gateway.controlplane.apply import (
    OWNER,
    ApplyReport,
    Change,
    ChangeSet,
    Wanted,
    changes,
    references,
    report,
    settle,
)
from gateway.controlplane.assets import LOCAL, folder_of
from gateway.controlplane.authorize import FOLDER, Actor
from gateway.controlplane.book import refuse_never_ready
from gateway.controlplane.documents import DocumentError, from_builtins, to_builtins
from gateway.controlplane.model_files import ModelFileError
from gateway.controlplane.model_store import ModelChanged
from gateway.controlplane.plan import Secrets
from gateway.controlplane.publisher import Publisher, Tolerate
from gateway.controlplane.reconcile import ChangeRefused, LoadRefused
from gateway.controlplane.steps import (
    REFUSALS,
    Step,
    asset_finder,
    called,
    claim_of,
    edited,
    endpoint_of,
    serve,
    users_of,
)
from gateway.controlplane.store.errors import StoreBusy
from gateway.controlplane.store.records import ASSETS, Kind, Operation, Ref, Resource, State, Status
from gateway.controlplane.store.transaction import Transaction
from gateway.controlplane.wanted import FindAsset
from gateway.controlplane.yaml_types import ModelYaml, OnlineDeploymentYaml, OnlineEndpointYaml
from gateway.errors import Code, Problem
from gateway.problem import internal
from gateway.resources import Deployment, Desired, Endpoint

if TYPE_CHECKING:
    from gateway.controlplane.control import Control

log = logging.getLogger(__name__)

_ONLINE = (Kind.ONLINE_ENDPOINT, Kind.ONLINE_DEPLOYMENT)
_BATCH = (Kind.BATCH_ENDPOINT, Kind.BATCH_DEPLOYMENT)
_KINDS = (*ASSETS, *_ONLINE, *_BATCH)


async def apply(
    control: Control,
    wanted: Sequence[Wanted],
    sources: Mapping[str, Path],
    actor: Actor,
    *,
    prune: bool = False,
    dry_run: bool = False,
    notes: Sequence[str] = (),
    wait_s: float | None = None,
) -> ApplyReport:
    """Make what the folder says true. `sources`: local files by their SHA-256. Errors: Problem."""
    settled = _with_origins(wanted, sources)
    found = await _compare(control, settled, prune)
    if dry_run:
        await control.store.read(lambda tx: _steps(control, tx, found, actor, has_content=False))
        return report(found, is_done=False, notes=notes)
    operation = control.book.new_operation("apply", [], actor)
    await control.write(lambda tx: tx.add_operation(operation))
    task = control.run(_carry_out(control, operation, settled, sources, actor, prune))
    done, _ = await asyncio.wait({task}, timeout=wait_s)
    if not done:
        return report(found, is_done=False, notes=notes, operation=operation.id)
    outcome = task.result()
    if isinstance(outcome, Problem):
        raise outcome
    return report(outcome, is_done=True, notes=notes)


async def _carry_out(
    control: Control,
    operation: Operation,
    wanted: Sequence[Wanted],
    sources: Mapping[str, Path],
    actor: Actor,
    prune: bool,
) -> ChangeSet | Problem:
    """What was changed, or why nothing was."""
    with control.operations.running(operation.action) as running:
        outcome = await _outcome(control, operation, wanted, sources, actor, prune)
        running.outcome = "failed" if isinstance(outcome, Problem) else "succeeded"
    return outcome


async def _outcome(
    control: Control,
    operation: Operation,
    wanted: Sequence[Wanted],
    sources: Mapping[str, Path],
    actor: Actor,
    prune: bool,
) -> ChangeSet | Problem:
    try:
        async with _claimed(control, wanted, prune) as found:
            await asyncio.to_thread(control.models.keep, sources)
            steps = await control.write(lambda tx: _provided(control, tx, found, actor))
            before = control.loads()
            await _publish(control, steps)
            loads = control.news((step.ref for step in steps), before)
            failures = control.publisher.applied.failures
            ended = _ended(control, operation, "")
            # At once, so that a crash finds all of it or nothing.
            await control.write_until_done(lambda tx: _record_all(control, tx, found, actor, failures, loads, ended))
            _forget_failed(control, found)
            return found
    except Problem as problem:
        refusal, reason = problem, problem.message
    except ModelChanged as error:
        refusal, reason = Problem(Code.CONFLICT, str(error)), str(error)
    except StoreBusy as error:
        reason = f"nothing is changed: {error}"
        refusal = Problem(Code.UNAVAILABLE, reason)
    except Exception as error:
        log.exception("operation %s failed", operation.id)
        refusal, reason = internal(), f"the gateway failed: {type(error).__name__}"
    failed = _ended(control, operation, reason)
    await control.write_until_done(lambda tx: tx.update_operation(failed))
    return refusal


@contextlib.asynccontextmanager
async def _claimed(control: Control, wanted: Sequence[Wanted], prune: bool) -> AsyncIterator[ChangeSet]:
    """What must change, while nobody else changes it or the assets that it names."""
    found = await _compare(control, wanted, prune)
    while True:
        endpoints, named = _touched(control, found), _named_assets(found)
        async with (
            control.claims.holding(endpoints, "apply"),
            control.asset_claims.holding(named, "apply"),
        ):
            # What was compared before may have changed while the claims were waited for.
            found = await _compare(control, wanted, prune)
            if _touched(control, found) <= endpoints and _named_assets(found) <= named:
                yield found
                return


def _touched(control: Control, found: ChangeSet) -> set[str]:
    """The endpoints that it changes, and those whose keys it reads anew."""
    changed = {endpoint_of(one.ref) for one in (*found.upserts, *found.deletes) if one.ref.kind in _ONLINE}
    return changed | set(_with_given_keys(control))


def _named_assets(found: ChangeSet) -> set[str]:
    """Claims of the assets that it registers, deletes or refers to."""
    refs = {one.ref for one in (*found.upserts, *found.deletes) if one.ref.kind in ASSETS}
    for one in found.upserts:
        if one.wanted is not None:
            refs |= references(to_builtins(one.wanted.document))
    return {claim_of(ref) for ref in refs}


def _ended(control: Control, operation: Operation, reason: str) -> Operation:
    return replace(
        operation,
        status=Status.FAILED if reason else Status.SUCCEEDED,
        ended_at=control.now(),
        error_code="BadArgument" if reason else "",
        error_message=reason,
    )


def _forget_failed(control: Control, found: ChangeSet) -> None:
    """What is served as it is wanted has no update that failed."""
    for one in (*found.upserts, *found.deletes):
        control.forget_failure(one.ref, is_gone=one.action == "delete")


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a gateway is about to serve: what was served before, with what the folder says now on top of it."""

    desired: Desired
    found: ChangeSet
    has_folder: bool
    # What of it can no longer be read, by "endpoint/deployment" or "endpoint".
    broken: Mapping[str, str]


async def plan_start(control: Control, wanted: Sequence[Wanted] | None, sources: Mapping[str, Path]) -> Start:
    """Errors: Problem where the folder cannot be served."""
    found = ChangeSet()
    if wanted is not None:
        # What others made meanwhile under an endpoint that left the folder must not keep everything from starting.
        found = await _compare(control, _with_origins(wanted, sources), prune=False, spares=True)
        await asyncio.to_thread(control.models.keep, sources)
    before, broken = await control.store.read(lambda tx: _served(control, tx))
    steps = await control.write(lambda tx: _provided(control, tx, found, FOLDER))
    desired, broken = _whole(edited(before, steps), broken)
    for name, reason in broken.items():
        log.error("%s cannot be served any more: %s", name, reason)
    return Start(desired=desired, found=found, has_folder=wanted is not None, broken=broken)


def _whole(desired: Desired, broken: Mapping[str, str]) -> tuple[Desired, dict[str, str]]:
    """Without deployments whose endpoint cannot be served, which are broken too; and without what was replaced."""
    there = {*desired.endpoints, *("/".join(key) for key in desired.deployments)}
    left = {name: reason for name, reason in broken.items() if name not in there}
    homeless = [key for key in desired.deployments if key[0] not in desired.endpoints]
    for endpoint, name in homeless:
        left[f"{endpoint}/{name}"] = f"its endpoint cannot be served: {broken.get(endpoint, 'it is not there')}"
    kept = {key: one for key, one in desired.deployments.items() if key not in homeless}
    return replace(desired, deployments=kept), left


async def start(control: Control, planned: Start) -> None:
    """Serve it. Errors: ChangeRefused where there is a folder and nothing at all loads."""
    endpoints = planned.desired.endpoints
    secrets = {name: await control.vault.secrets(name, endpoint) for name, endpoint in endpoints.items()}
    desired, deadly = planned.desired, dict[str, str]()
    tolerate: Tolerate = "some" if planned.has_folder else "all"
    try:
        applied = await control.publisher.publish(lambda _: desired, secrets, tolerate=tolerate)
    except (ScorerDied, LoadOverdue) as error:
        log.error("%s; every deployment is loaded by itself now, and what ends a scorer is left out", error)
        desired, deadly = await _survived(control.publisher, desired)
        if planned.has_folder and deadly and not desired.deployments:
            raise ChangeRefused([f"deployment {name}: {reason}" for name, reason in deadly.items()]) from error
        applied = await control.publisher.publish(lambda _: desired, secrets, tolerate=tolerate)
        for endpoint, name in desired.deployments:
            control.publisher.settle(endpoint, name)
    for name, reason in deadly.items():
        log.error("deployment %s is not served: %s", name, reason)
    failures = {**planned.broken, **deadly, **applied.failures}
    loads = control.news((one.ref for one in planned.found.upserts), {})
    await control.write_until_done(lambda tx: _record_all(control, tx, planned.found, FOLDER, failures, loads))


async def _survived(publisher: Publisher, desired: Desired) -> tuple[Desired, dict[str, str]]:
    """Without the deployments whose loading ends a scorer or never ends, and why: one of them would keep the gateway
    from ever starting again. What survived is held aside, or is tried again by whoever publishes."""
    deadly: dict[str, str] = {}
    for (endpoint, name), deployment in desired.deployments.items():
        await publisher.whole()
        try:
            await publisher.load(endpoint, deployment)
        except LoadRefused as refused:
            deadly[f"{endpoint}/{name}"] = str(refused)
            await publisher.unload(endpoint, name)
    await publisher.whole()
    kept = {key: one for key, one in desired.deployments.items() if "/".join(key) not in deadly}
    return replace(desired, deployments=kept), deadly


# ---- comparing and checking --------------------------------------------------------------------------------------


async def _compare(control: Control, wanted: Sequence[Wanted], prune: bool, *, spares: bool = False) -> ChangeSet:
    stored = await control.store.read(lambda tx: [one for kind in _KINDS for one in tx.find(kind)])
    found = changes(stored, settle(wanted, stored), prune=prune, spares=spares)
    if found.problems:
        raise documents.refused(found.problems)
    return found


def _with_origins(wanted: Sequence[Wanted], sources: Mapping[str, Path]) -> list[Wanted]:
    """Models of local files with where they lie, for where they cannot be copied."""
    return [_with_origin(one, sources) for one in wanted]


def _with_origin(one: Wanted, sources: Mapping[str, Path]) -> Wanted:
    if not (isinstance(one.document, ModelYaml) and one.files):
        return one
    if one.document.type == "triton_model":
        # Its address is its folder; the same file may lie in several.
        return one
    entry = next((file for file in one.files if file.path.endswith(".onnx")), one.files[0])
    source = sources.get(entry.sha256)
    if source is None:
        return one
    # A folder stays one: a script finds its model by the folder's name.
    folder = source.parents[entry.path.count("/")]
    origin = folder if folder.name == folder_of(one.document.path, one.files) else source
    if origin is source and not entry.path.endswith(".onnx"):
        return one
    return replace(one, document=msgspec.structs.replace(one.document, path=f"{LOCAL}{origin}"))


@dataclass(slots=True)
class _World:
    """Online endpoints as they will be: with the deployments that each will have."""

    endpoints: dict[str, OnlineEndpointYaml] = field(default_factory=dict)
    under: dict[str, set[str]] = field(default_factory=dict)
    # Deployments that were never served, and that nobody tries now.
    waiting: dict[str, dict[str, Resource]] = field(default_factory=dict)


def _steps(
    control: Control, tx: Transaction, found: ChangeSet, actor: Actor, *, has_content: bool = True
) -> list[Step]:
    """What the change does to what is served. `has_content`: whether the content of what it names is here, all of it.
    Errors: Problem with every sentence."""
    find = _finder(tx, found)
    world = _world(tx, found)
    # By sentence: what is wrong with an endpoint is found again with each of its deployments.
    problems = {said: said for said in _traffic_left(found, world)}
    steps = [Step(ref=one.ref) for one in found.deletes if one.ref.kind in _ONLINE]
    for change in found.upserts:
        assert change.wanted is not None
        try:
            if change.ref.kind in _BATCH:
                documents.check_batch(change.wanted.document, find)
            if isinstance(change.wanted.document, OnlineEndpointYaml) and actor is not FOLDER:
                control.vault.check_sources(change.wanted.document, change.before)
            if change.ref.kind not in _ONLINE or _is_served(change):
                continue
            steps.append(Step(ref=change.ref, value=_checked(control, change.wanted, world, find)))
        except (Problem, ModelFileError) as error:
            if isinstance(error, documents.ContentMissing) and not has_content:
                # What is asked about was not sent; it is judged when it is.
                continue
            for sentence, said in _said(change.wanted, error).items():
                problems.setdefault(sentence, said)
    if problems:
        raise documents.refused(problems.values())
    control.book.check_totals(len(world.endpoints), sum(map(len, world.under.values())))
    return steps


def _traffic_left(found: ChangeSet, world: _World) -> Iterator[str]:
    """Traffic that would go to deployments that are gone, of endpoints that others made."""
    upserts = {one.ref for one in found.upserts}
    for ref in (one.ref for one in found.deletes):
        owner = world.endpoints.get(ref.parent) if ref.kind is Kind.ONLINE_DEPLOYMENT else None
        if owner is None or Ref(kind=Kind.ONLINE_ENDPOINT, key=ref.parent) in upserts:
            continue
        shares = {**owner.traffic, **{name: one for name, one in owner.mirror_traffic.items() if one}}
        if shares.get(ref.key):
            yield (
                f"{called(ref)} is no longer in the folder, and endpoint {owner.name} gives it {shares[ref.key]} "
                "percent of its traffic; take that away first, or add the endpoint to the folder"
            )


def _is_served(change: Change) -> bool:
    """Whether it is published as it is wanted already: what failed to load is tried again with every change."""
    assert change.wanted is not None
    return change.before is not None and change.before.served == to_builtins(change.wanted.document)


def _checked(control: Control, one: Wanted, world: _World, find: FindAsset) -> Endpoint | Deployment:
    options = control.book.options
    owner_key = endpoint_of(one.ref)
    # The totals over all endpoints are told once, by `check_totals`.
    siblings = {(owner_key, name) for name in world.under.get(owner_key, ())}
    if isinstance(one.document, OnlineEndpointYaml):
        endpoint = documents.endpoint(one.name, one.document, options)
        documents.check(endpoint, [], options.limits, siblings)
        refuse_never_ready(endpoint, world.waiting.get(one.ref.key, {}))
        return endpoint
    assert isinstance(one.document, OnlineDeploymentYaml)
    owner = world.endpoints.get(one.ref.parent)
    if owner is None:
        raise Problem(Code.INVALID_INPUT, f"endpoint_name: there is no endpoint {one.parent_name!r}")
    deployment = documents.deployment(one.document, options, find)
    endpoint = documents.endpoint(owner.name, owner, options)
    documents.check(endpoint, [deployment], options.limits, siblings)
    return deployment


def _said(one: Wanted, error: Problem | ModelFileError) -> dict[str, str]:
    """Sentences with where the document was written, by the bare sentence."""
    details = error.details if isinstance(error, Problem) and error.details else (str(error),)
    return {said: f"{one.label}: {said}" if one.label else said for said in details}


def _world(tx: Transaction, found: ChangeSet) -> _World:
    world = _World()
    gone, tried = {one.ref for one in found.deletes}, {one.ref for one in found.upserts}
    for kind in _ONLINE:
        for resource in tx.find(kind):
            if resource.ref not in gone:
                _place(world, resource.ref, _readable(kind, resource))
                if kind is Kind.ONLINE_DEPLOYMENT and resource.served is None and resource.ref not in tried:
                    world.waiting.setdefault(resource.ref.parent, {})[resource.ref.key] = resource
    for change in found.upserts:
        if change.wanted is not None:
            _place(world, change.ref, change.wanted.document)
    return world


def _readable(kind: Kind, resource: Resource) -> msgspec.Struct | None:
    """The document that is wanted; None where another version wrote what this one does not know."""
    try:
        return from_builtins(kind, resource.document)
    except DocumentError as error:
        log.error("%s is left as it is: %s", called(resource.ref), error)
        return None


def _place(world: _World, ref: Ref, document: msgspec.Struct | None) -> None:
    if isinstance(document, OnlineEndpointYaml):
        world.endpoints[ref.key] = document
        world.under.setdefault(ref.key, set())
    elif isinstance(document, OnlineDeploymentYaml):
        world.under.setdefault(ref.parent, set()).add(ref.key)


def _finder(tx: Transaction, found: ChangeSet) -> FindAsset:
    """Looks up assets among what the change registers, then among what is registered."""
    stored = asset_finder(tx)
    new = {change.ref: change.wanted for change in found.upserts if change.wanted is not None}

    def find(kind: Kind, name: str, version: str) -> Resource | None:
        one = new.get(Ref(kind=kind, parent=name.lower(), key=version.lower()))
        return _as_resource(one) if one is not None else stored(kind, name, version)

    return find


def _as_resource(one: Wanted, state: State = State.SUCCEEDED) -> Resource:
    return Resource(
        ref=one.ref,
        name=one.name,
        parent_name=one.parent_name,
        document=to_builtins(one.document),
        files=one.files,
        state=state,
        owner=OWNER,
        created_at=0.0,
        created_by="",
        modified_at=0.0,
        modified_by="",
    )


def _served(control: Control, tx: Transaction) -> tuple[Desired, dict[str, str]]:
    """What was served when the gateway ended, and what of it can no longer be read, with why."""
    endpoints: dict[str, Endpoint] = {}
    deployments: dict[tuple[str, str], Deployment] = {}
    broken: dict[str, str] = {}
    find = asset_finder(tx)
    for resource in (one for kind in _ONLINE for one in tx.find(kind)):
        if resource.served is None:
            continue
        try:
            source = from_builtins(resource.ref.kind, resource.served)
            if isinstance(source, OnlineEndpointYaml):
                endpoints[resource.ref.key] = documents.endpoint(source.name, source, control.book.options)
            elif isinstance(source, OnlineDeploymentYaml):
                key = (resource.ref.parent, resource.ref.key)
                deployments[key] = documents.deployment(source, control.book.options, find)
        except (DocumentError, Problem, ModelFileError) as error:
            broken[_name_of(resource.ref)] = str(error)
    return Desired(endpoints=endpoints, deployments=deployments), broken


def _name_of(ref: Ref) -> str:
    return f"{ref.parent}/{ref.key}" if ref.parent else ref.key


# ---- carrying out ------------------------------------------------------------------------------------------------


def _provided(control: Control, tx: Transaction, found: ChangeSet, actor: Actor) -> list[Step]:
    """The steps, with keys for endpoints that are new: made before they are published, kept if they never are."""
    steps = _steps(control, tx, found, actor)
    for step in steps:
        if isinstance(step.value, Endpoint):
            control.vault.provide(tx, step.ref.key)
    return steps


async def _publish(control: Control, steps: Sequence[Step]) -> None:
    try:
        await serve(control.publisher, steps, await _secrets(control, steps))
    except Problem:
        raise
    except REFUSALS as error:
        raise documents.refused([str(error)]) from error


async def _secrets(control: Control, steps: Sequence[Step]) -> dict[str, Secrets]:
    """Of endpoints that change, and of those whose keys come from files or variables, which may have changed."""
    gone = {step.ref.key for step in steps if step.value is None and step.ref.kind is Kind.ONLINE_ENDPOINT}
    given = {name: one for name, one in _with_given_keys(control).items() if name not in gone}
    touched = {step.ref.key: step.value for step in steps if isinstance(step.value, Endpoint)}
    return {name: await control.vault.secrets(name, one) for name, one in {**given, **touched}.items()}


def _with_given_keys(control: Control) -> dict[str, Endpoint]:
    """Served endpoints whose keys come from files or variables."""
    return {
        name: endpoint
        for name, endpoint in control.publisher.desired.endpoints.items()
        if endpoint.keys.primary is not None or endpoint.keys.secondary is not None
    }


def _record_all(
    control: Control,
    tx: Transaction,
    found: ChangeSet,
    actor: Actor,
    failures: Mapping[str, str],
    loads: Mapping[Ref, Sequence[str]],
    ended: Operation | None = None,
) -> None:
    _record(control, tx, found, actor, failures, loads)
    _record_states(control, tx, failures, {change.ref for change in found.upserts})
    if ended is not None:
        tx.update_operation(ended)


def _record(
    control: Control,
    tx: Transaction,
    found: ChangeSet,
    actor: Actor,
    failures: Mapping[str, str],
    loads: Mapping[Ref, Sequence[str]],
) -> None:
    assets = [one for one in found.deletes if one.ref.kind in ASSETS]
    for change in found.deletes:
        if change not in assets:
            _record_delete(control, tx, change.ref, actor)
    for change in found.upserts:
        if change.wanted is not None and change.ref.kind in _ONLINE:
            control.book.note_vain(tx, change.ref, change.wanted.document, change.before)
            control.book.note_loaded(tx, change.ref, loads.get(change.ref, ()))
        _record_upsert(control, tx, change, actor, failures)
    for change in assets:
        existing = tx.get(change.ref)
        # One that somebody else's deployment has come to name meanwhile stays.
        if existing is not None and not users_of(tx, existing):
            _record_delete(control, tx, change.ref, actor)


def _record_delete(control: Control, tx: Transaction, ref: Ref, actor: Actor) -> None:
    control.book.forget(tx, ref)
    control.book.audit(tx, actor, "delete", called(ref), "succeeded")


def _record_upsert(
    control: Control, tx: Transaction, change: Change, actor: Actor, failures: Mapping[str, str]
) -> None:
    one = change.wanted
    assert one is not None
    existing = tx.get(one.ref)
    resource = control.book.upserted(one.ref, existing, one.parent_name, one.name, one.document, actor)
    is_asset = one.ref.kind in ASSETS
    resource = replace(
        resource,
        state=State.SUCCEEDED,
        served=None if is_asset else resource.document,
        files=one.files if is_asset else (),
        owner=OWNER,
    )
    tx.put(resource, expected=existing.version if existing is not None else None)
    reason = failures.get(_name_of(one.ref))
    outcome = f"failed: {reason}" if reason else "succeeded"
    control.book.audit(tx, actor, change.action, called(one.ref), outcome)
    if not is_asset:
        control.book.event(tx, one.ref, change.action, outcome)


def _record_states(control: Control, tx: Transaction, failures: Mapping[str, str], told: Collection[Ref]) -> None:
    """Which of what is served loaded this time. `told`: whose events say so already."""
    for resource in (one for kind in _ONLINE for one in tx.find(kind)):
        if resource.served is None or resource.state not in (State.SUCCEEDED, State.FAILED):
            continue
        reason = failures.get(_name_of(resource.ref), "")
        if resource.document != resource.served:
            # An update that failed stays visible; what it would have replaced is what is served.
            continue
        state = State.FAILED if reason else State.SUCCEEDED
        if (resource.state, resource.reason) != (state, reason):
            tx.put(replace(resource, state=state, reason=reason), expected=resource.version)
            if resource.ref not in told:
                control.book.event(tx, resource.ref, "load", f"failed: {reason}" if reason else "succeeded again")
