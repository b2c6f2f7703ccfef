"""Control: changes of endpoints and deployments, from what a caller wants to what is served, with nothing lost.

The way of a change: it claims its endpoint, is checked and written with its operation in one transaction (from then
on a crash does not lose it), and is answered. Then it is carried out: what must be loaded is loaded aside, what is
served is swapped, and the outcome is written. A change that fails leaves what was served; the resource stays, Failed,
with one sentence. A gateway that starts resumes what was under way when it ended.
Errors: Problem, before anything is written. Later ones are the operation's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from gateway.controlplane import applying, assets
from gateway.controlplane.apply import ApplyReport, Wanted
from gateway.controlplane.authorize import FOLDER, GATEWAY, Actor
from gateway.controlplane.book import Book, Taken, normal
from gateway.controlplane.claims import Claims
from gateway.controlplane.events import Load, log_text, news
from gateway.controlplane.folder import FolderOptions
from gateway.controlplane.matching import ANY, Match
from gateway.controlplane.model_files import ModelFileError
from gateway.controlplane.model_store import ModelChanged, ModelStore
from gateway.controlplane.plan import Secrets
from gateway.controlplane.publisher import Publisher
from gateway.controlplane.reconcile import BAD_ARGUMENT, LoadRefused
from gateway.controlplane.state import Keys, StateError
from gateway.controlplane.steps import (
    REFUSALS,
    Step,
    called,
    claim_of,
    endpoint_of,
    said_of,
    serve,
    users_of,
)
from gateway.controlplane.store.database import Store, StoreBusy, VersionConflict
from gateway.controlplane.store.records import (
    AssetFile,
    Kind,
    Operation,
    Ref,
    Resource,
    State,
    Status,
)
from gateway.controlplane.store.transaction import Transaction
from gateway.controlplane.vault import Vault
from gateway.errors import Code, Problem
from gateway.resources import Endpoint, LocalModel
from gateway.telemetry.control import OperationsRecord

log = logging.getLogger(__name__)

T = TypeVar("T")
Undo = Callable[[Transaction], None] | None

# A change that ends within this time is answered as ended, so that its caller need not ask again.
PROMPT_S = 0.25
APPLY_WAIT_S = 20.0
WRITE_AGAIN_S = (0.1, 5.0)
OPERATIONS_KEPT_S = 7 * 24 * 3600.0

_PARENTS = {Kind.ONLINE_DEPLOYMENT: Kind.ONLINE_ENDPOINT, Kind.BATCH_DEPLOYMENT: Kind.BATCH_ENDPOINT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A change that is written, and how far it has come. `operation` None: there is nothing to carry out."""

    resource: Resource
    operation: Operation | None
    created: bool


class _Failure(NamedTuple):
    """Why a change is not served, and what Azure calls that."""

    reason: str
    code: str


class Control:
    """One gateway's changes. Used from the supervisor's loop."""

    def __init__(
        self,
        *,
        store: Store,
        publisher: Publisher,
        vault: Vault,
        models: ModelStore,
        options: FolderOptions,
        model_folders: Sequence[str] = (),
        now: Callable[[], float] = time.time,
        prompt_s: float = PROMPT_S,
    ) -> None:
        self.store = store
        self.publisher = publisher
        self.vault = vault
        self.models = models
        self.book = Book(vault, options, now)
        self._model_folders = model_folders
        self.claims = Claims()
        # Versions of assets that are being registered or deleted, or that an apply is about to name.
        self.asset_claims = Claims("asset")
        self.now = now
        self.prompt_s = prompt_s
        self._tasks: set[asyncio.Task[Any]] = set()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._resumed: dict[str, asyncio.Task[None]] = {}
        self.operations = OperationsRecord()
        # Why the last update of a deployment failed, by "endpoint/deployment": what the publisher does not know.
        self.failed: dict[str, str] = {}

    # Changes.

    async def put(
        self,
        kind: Kind,
        parent_name: str,
        name: str,
        document: msgspec.Struct,
        actor: Actor,
        *,
        match: Match = ANY,
    ) -> Accepted:
        """Create or replace an endpoint or a deployment. Errors: Problem."""
        ref = Ref(kind=kind, parent=parent_name.lower(), key=name.lower())
        if kind not in (Kind.ONLINE_ENDPOINT, Kind.ONLINE_DEPLOYMENT):
            resource, created, kept = await self.write(
                lambda tx: self.book.keep(tx, ref, name, document, actor, match)
            )
            self.operations.ended_at_once(kept.action)
            return Accepted(resource=resource, operation=kept, created=created)
        action = "update" if kind is Kind.ONLINE_ENDPOINT else "deployment update"
        taken = await self._change(
            endpoint_of(ref),
            action,
            lambda tx: self.book.accept(tx, ref, parent_name, name, document, actor, match),
            actor,
        )
        assert taken is not None
        assert taken.resource is not None
        created = taken.resource.state is State.CREATING
        ended = await self._promptly(taken.operation)
        if ended is None or ended.status is not Status.SUCCEEDED:
            return Accepted(resource=taken.resource, operation=taken.operation, created=created)
        try:
            found = await self.get(ref)
        except StoreBusy:
            # It is done; how it looks now can be asked for later.
            found = None
        return Accepted(resource=found or taken.resource, operation=ended, created=created)

    async def delete(self, ref: Ref, actor: Actor, *, match: Match = ANY) -> Operation | None:
        """Take away an endpoint with its deployments, or a deployment. None: it was not there. Errors: Problem."""
        if ref.kind not in (Kind.ONLINE_ENDPOINT, Kind.ONLINE_DEPLOYMENT):
            dropped = await self.write(lambda tx: self.book.drop(tx, ref, actor, match))
            if dropped is not None:
                self.operations.ended_at_once(dropped.action)
            return dropped
        taken = await self._change(
            endpoint_of(ref), "delete", lambda tx: self.book.accept_delete(tx, ref, actor, match), actor
        )
        if taken is None:
            return None
        return await self._promptly(taken.operation) or taken.operation

    async def regenerate(self, endpoint: str, which: str, value: str | None, actor: Actor) -> Operation:
        """A new key, made or given; the other stays. It counts on every scorer when this returns."""
        endpoint = endpoint.lower()
        taken = await self._change(
            endpoint,
            "key regeneration",
            lambda tx: self.book.accept_regeneration(tx, endpoint, which, value, actor),
            actor,
        )
        assert taken is not None
        return await self.ended(taken.operation)

    async def put_asset(
        self,
        kind: Kind,
        name: str,
        version: str,
        document: msgspec.Struct,
        actor: Actor,
        *,
        match: Match = ANY,
    ) -> Accepted:
        """Register a version, or change its description and tags. Errors: Problem."""
        ref = Ref(kind=kind, parent=name.lower(), key=version.lower())
        document = normal(document)
        address = assets.address_of(document)
        path = assets.local_path(address, self._model_folders, actor is FOLDER)
        with self.asset_claims.taking(claim_of(ref), "registration"):
            local = await self._local_files(path) if path is not None else None

            def write(tx: Transaction) -> tuple[Resource, bool]:
                files = local if local is not None else assets.uploaded_files(tx, kind, address)
                return self.book.register(tx, ref, name, version, document, files, actor, match)

            resource, created = await self.write(write)
        return Accepted(resource=resource, operation=None, created=created)

    async def _local_files(self, path: Path) -> tuple[AssetFile, ...]:
        try:
            model = await asyncio.to_thread(self.models.register, LocalModel(path=path))
        except ModelChanged as error:
            raise Problem(Code.CONFLICT, str(error)) from error
        if not model.files:
            raise Problem(Code.INVALID_INPUT, f"there is no file {path} that can be read; accepted: a .onnx file")
        return assets.files_of_model(model)

    async def apply(
        self,
        wanted: Sequence[Wanted],
        actor: Actor,
        *,
        prune: bool,
        dry_run: bool,
        notes: Sequence[str] = (),
        sources: Mapping[str, Path] | None = None,
        wait_s: float | None = APPLY_WAIT_S,
    ) -> ApplyReport:
        """A folder as one change, all or nothing. `sources`: local files by their SHA-256; the rest was uploaded.
        After `wait_s` the answer is that the operation goes on. Errors: Problem."""
        return await applying.apply(
            self, wanted, sources or {}, actor, prune=prune, dry_run=dry_run, notes=notes, wait_s=wait_s
        )

    def has_content(self, sha256: str, size_bytes: int) -> bool:
        """Whether uploaded content is here, and will be for a while."""
        return self.models.has_content(sha256, size_bytes)

    async def delete_asset(self, ref: Ref, actor: Actor, *, match: Match = ANY) -> bool:
        """Forget a version that no deployment uses. Whether it was there. Errors: Problem."""

        def write(tx: Transaction) -> bool:
            existing = tx.get(ref)
            if existing is None:
                return False
            match.check(existing, called(ref))
            users = users_of(tx, existing)
            if users:
                raise Problem(Code.CONFLICT, f"{called(ref)} is used by {', '.join(users[:5])}; delete those first")
            tx.delete(ref)
            self.book.audit(tx, actor, "delete", called(ref), "succeeded")
            return True

        with self.asset_claims.taking(claim_of(ref), "delete"):
            found: bool = await self.write(write)
        return found

    # Reads.

    async def keys(self, endpoint: str) -> Keys:
        """Errors: Problem."""
        return await self._credential(endpoint, self.vault.keys)

    async def token(self, endpoint: str) -> dict[str, Any]:
        """As the contract's `token` operation answers. Errors: Problem."""
        return await self._credential(endpoint, lambda tx, found: self.vault.token(tx, found, self.now()))

    async def _credential(self, endpoint: str, read: Callable[[Transaction, Resource], T]) -> T:
        def work(tx: Transaction) -> T:
            found = tx.get(Ref(kind=Kind.ONLINE_ENDPOINT, key=endpoint.lower()))
            if found is None:
                raise Problem(Code.NOT_FOUND, f"there is no online endpoint {endpoint}")
            return read(tx, found)

        try:
            return await self.store.read(work)
        except StateError as error:
            raise Problem(Code.UNAVAILABLE, str(error)) from error

    async def get(self, ref: Ref) -> Resource | None:
        return await self.store.read(lambda tx: tx.get(ref))

    async def operation(self, operation_id: str) -> Operation | None:
        return await self.store.read(lambda tx: tx.operation(operation_id))

    async def logs(self, endpoint: str, deployment: str, tail: int | None) -> str:
        """The last lines of what a deployment's workers wrote; of one without workers, what happened to it."""
        limit = min(tail or 1000, 1000)
        written = self.publisher.tail(f"{endpoint}/{deployment}", limit)
        if written:
            return written
        events = await self.store.read(lambda tx: tx.events(endpoint, deployment, limit))
        return log_text(events)

    async def tell(self, name: str, event: str, message: str) -> None:
        """Write what happened to "endpoint/deployment" beside any change of it."""
        endpoint, _, key = name.partition("/")
        ref = Ref(kind=Kind.ONLINE_DEPLOYMENT, parent=endpoint, key=key)
        await self.write_until_done(lambda tx: self.book.event(tx, ref, event, message))

    def instances(self, endpoint: str, deployment: str) -> int | None:
        """How many run now, where that is not what the document says."""
        return self.publisher.instances.get(f"{endpoint}/{deployment}")

    def loads(self) -> dict[str, Load]:
        """What loading found of all that is served, by "endpoint/deployment"."""
        applied = self.publisher.applied
        return {name: (applied.learned[name], loaded) for name, loaded in applied.loaded.items()}

    def news(self, refs: Iterable[Ref], before: Mapping[str, Load]) -> dict[Ref, list[str]]:
        """What loading found of these since then."""
        after = self.loads()
        found = {ref: f"{ref.parent}/{ref.key}" for ref in refs if ref.kind is Kind.ONLINE_DEPLOYMENT}
        return {ref: news(before.get(name), after[name]) for ref, name in found.items() if name in after}

    # Start and end.

    async def resume(self) -> None:
        """Carry out what was under way when the gateway ended."""
        self.failed = await self.store.read(_failed_updates)
        for operation in await self.store.read(lambda tx: tx.unfinished()):
            await self._resume(operation)
        await self.write(lambda tx: tx.forget_operations(self.now() - OPERATIONS_KEPT_S))

    async def _resume(self, operation: Operation) -> None:
        if operation.action == "apply":
            # It is written only once it is served: nothing of it has happened.
            reason = "the gateway ended while this was applied; nothing of it was changed, apply it again"
            with self.operations.running(operation.action) as running:
                await self._failed(operation, reason, GATEWAY)
                running.outcome = "failed"
            return
        log.warning("operation %s (%s) was interrupted and is resumed", operation.id, said_of(operation))
        earlier = self._resumed.get(operation.endpoint)
        if earlier is not None:
            # One that could not be told whether it was written, and the one that its caller then asked for.
            await asyncio.wait({earlier})
        self.claims.take(operation.endpoint, operation.action)
        try:
            steps = await self.write(lambda tx: self.book.steps_of(tx, operation))
        except REFUSALS as error:
            with self.operations.running(operation.action) as running:
                await self._failed(operation, str(error), GATEWAY)
                running.outcome = "failed"
            self.claims.free(operation.endpoint)
        else:
            self._resumed[operation.endpoint] = self._start(operation, steps, GATEWAY)

    async def close(self) -> None:
        """Leave what is under way to the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Carrying out.

    async def _change(
        self, endpoint: str, action: str, accept: Callable[[Transaction], Taken | None], actor: Actor
    ) -> Taken | None:
        self.claims.take(endpoint, action)
        # Once it is written it is carried out, whatever becomes of the caller.
        return await asyncio.shield(self.run(self._take(endpoint, accept, actor)))

    async def _take(self, endpoint: str, accept: Callable[[Transaction], Taken | None], actor: Actor) -> Taken | None:
        try:
            taken = await self.write(accept)
        except BaseException:
            self.claims.free(endpoint)
            raise
        if taken is None:
            self.claims.free(endpoint)
        else:
            self._start(taken.operation, taken.steps, actor, taken.undo)
        return taken

    async def _promptly(self, operation: Operation) -> Operation | None:
        """The ended operation; None where it takes longer than a caller is kept waiting."""
        task = self._running.get(operation.id)
        if task is not None:
            done, _ = await asyncio.wait({task}, timeout=self.prompt_s)
            if not done:
                return None
        return await self._looked_up(operation)

    def _start(
        self, operation: Operation, steps: Sequence[Step], actor: Actor, undo: Undo = None
    ) -> asyncio.Task[None]:
        task = self._running[operation.id] = self.run(self._carry_out(operation, steps, actor, undo))
        task.add_done_callback(lambda _: self._running.pop(operation.id, None))
        return task

    async def ended(self, operation: Operation) -> Operation:
        """The operation once it has ended."""
        task = self._running.get(operation.id)
        if task is not None:
            await asyncio.wait({task})
        return await self._looked_up(operation) or operation

    async def _looked_up(self, operation: Operation) -> Operation | None:
        """None while the store is away: what was accepted is not refused for that."""
        try:
            return await self.operation(operation.id)
        except StoreBusy:
            return None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that `close` ends."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _carry_out(self, operation: Operation, steps: Sequence[Step], actor: Actor, undo: Undo) -> None:
        try:
            with self.operations.running(operation.action) as running:
                before = self.loads()
                failure = await self._publish(operation, steps)
                if failure is None:
                    await self._succeeded(operation, steps, actor, before)
                else:
                    await self._failed(operation, failure.reason, actor, undo, failure.code)
                running.outcome = "succeeded" if failure is None else "failed"
        except Exception:
            # A bug of ours: nobody awaits this task, so it is told here, and the operation ends all the same.
            log.exception("operation %s could not be ended", operation.id)
            await self._failed(operation, "the gateway failed; its log has the cause", actor, undo)
        finally:
            self.claims.free(operation.endpoint)

    async def _publish(self, operation: Operation, steps: Sequence[Step]) -> _Failure | None:
        """Why it is not served; None: it is."""
        try:
            secrets = await self._secrets(operation, steps)
            await serve(self.publisher, steps, secrets)
        except (*REFUSALS, StoreBusy) as error:
            code = error.code if isinstance(error, LoadRefused) else BAD_ARGUMENT
            return _Failure(str(error) or type(error).__name__, code)
        except Exception as error:
            log.exception("operation %s failed", operation.id)
            return _Failure(f"the gateway failed: {type(error).__name__}; its log has the cause", BAD_ARGUMENT)
        return None

    async def _secrets(self, operation: Operation, steps: Sequence[Step]) -> dict[str, Secrets]:
        touched = {step.ref.key: step.value for step in steps if isinstance(step.value, Endpoint)}
        if operation.action == "regenerate":
            served = self.publisher.desired.endpoints.get(operation.endpoint)
            touched = {operation.endpoint: served} if served is not None else {}
        return {key: await self.vault.secrets(key, value) for key, value in touched.items()}

    async def _succeeded(
        self, operation: Operation, steps: Sequence[Step], actor: Actor, before: Mapping[str, Load]
    ) -> None:
        told = self.news((step.ref for step in steps), before)

        def write(tx: Transaction) -> None:
            for step in steps:
                if step.value is None:
                    self.book.forget(tx, step.ref)
                    continue
                found = tx.get(step.ref)
                if found is not None:
                    moved = self.book.moved(found, State.SUCCEEDED, actor)
                    tx.put(replace(moved, served=found.document), expected=found.version)
            for ref, lines in told.items():
                self.book.note_loaded(tx, ref, lines)
            self.book.end(tx, operation, actor, Status.SUCCEEDED, "")

        await self.write_until_done(write)
        for ref in operation.targets:
            self.forget_failure(ref, is_gone=operation.action == "delete")
        log.info("%s: done", said_of(operation))

    async def _failed(
        self, operation: Operation, reason: str, actor: Actor, undo: Undo = None, code: str = BAD_ARGUMENT
    ) -> None:
        def write(tx: Transaction) -> None:
            if undo is not None:
                undo(tx)
            # A key that could not be published says nothing about its endpoint.
            for ref in operation.targets if operation.action != "regenerate" else ():
                found = tx.get(ref)
                if found is not None:
                    tx.put(
                        replace(self.book.moved(found, State.FAILED, actor), reason=reason), expected=found.version
                    )
            self.book.end(tx, operation, actor, Status.FAILED, reason, code)

        await self.write_until_done(write)
        if operation.action in ("create", "update"):
            deployments = [ref for ref in operation.targets if ref.kind is Kind.ONLINE_DEPLOYMENT]
            self.failed |= {f"{ref.parent}/{ref.key}": reason for ref in deployments}
        log.error("%s failed, what was served is served on: %s", said_of(operation), reason)

    def forget_failure(self, ref: Ref, *, is_gone: bool) -> None:
        """What is served as it is wanted has no update that failed; nor have the deployments of what is gone."""
        if is_gone and ref.kind is Kind.ONLINE_ENDPOINT:
            self.failed = {name: why for name, why in self.failed.items() if not name.startswith(f"{ref.key}/")}
        self.failed.pop(f"{ref.parent}/{ref.key}", None)
        if is_gone and ref.kind in (Kind.ONLINE_ENDPOINT, Kind.ONLINE_DEPLOYMENT):
            self.publisher.forget_words(f"{ref.parent}/{ref.key}" if ref.parent else ref.key)

    # Writing.

    async def write(self, work: Callable[[Transaction], T]) -> T:
        try:
            return await self.store.write(work)
        except VersionConflict as error:
            raise Problem(
                Code.CONFLICT, "someone else changed it at the same moment; read it again, then try again"
            ) from error
        except ModelFileError as error:
            raise Problem(Code.INVALID_INPUT, f"{error.key}: {error.text}") from error
        except StoreBusy as error:
            raise Problem(Code.UNAVAILABLE, f"nothing is changed: {error}") from error

    async def write_until_done(self, work: Callable[[Transaction], Any]) -> None:
        """Of what has happened already: it is written however long the store is away."""
        pause_s, longest_s = WRITE_AGAIN_S
        while True:
            try:
                await self.store.write(work)
                return
            except (StoreBusy, VersionConflict) as error:
                log.error("what has happened is not written yet, and is tried again: %s", error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)


def _failed_updates(tx: Transaction) -> dict[str, str]:
    return {
        f"{one.ref.parent}/{one.ref.key}": one.reason
        for one in tx.find(Kind.ONLINE_DEPLOYMENT)
        if one.state is State.FAILED and one.document != one.served
    }
