"""The control plane of one gateway, put together: the store, what opens endpoints, the assets, and who may ask.

Ownership: it is made once the state folder is held, and closed before that is given up.
Errors: StoreError, KeyringError, StateError, OSError where it cannot be made.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gateway.controlplane import applying
from gateway.controlplane.apply import Wanted
from gateway.controlplane.apply_bundle import apply_bundle
from gateway.controlplane.authorize import FOLDER, Doorkeeper, Role
from gateway.controlplane.blobs import sas
from gateway.controlplane.blobs.collected import WithCollected
from gateway.controlplane.blobs.files import Files
from gateway.controlplane.blobs.http import BlobApp
from gateway.controlplane.blobs.index import StoreIndex
from gateway.controlplane.blobs.storage import BlobLimits, Storage
from gateway.controlplane.collected import Collected
from gateway.controlplane.contents import resolve
from gateway.controlplane.control import Control
from gateway.controlplane.export import export_all
from gateway.controlplane.folder import FolderOptions, joined, read_documents_of
from gateway.controlplane.housekeeping import Housekeeping
from gateway.controlplane.keyring import Keyring, open_keyring
from gateway.controlplane.model_store import ModelStore
from gateway.controlplane.people import People
from gateway.controlplane.plan import Defaults
from gateway.controlplane.publisher import Publisher
from gateway.controlplane.rest.app import ManagementApp
from gateway.controlplane.rest.context import Operator, Services
from gateway.controlplane.rest.openapi import management_openapi
from gateway.controlplane.rest.urls import Urls
from gateway.controlplane.rollout.runner import Rollouts, steady
from gateway.controlplane.rollout.state import RolloutStatus
from gateway.controlplane.rollout.view import describe
from gateway.controlplane.rollout_world import RolloutWorld
from gateway.controlplane.scaler import Scaler
from gateway.controlplane.scripts import Limits as ScriptLimits
from gateway.controlplane.scripts import Scripts
from gateway.controlplane.state import State
from gateway.controlplane.store.database import Store, StoreBusy
from gateway.controlplane.vault import Vault
from gateway.environments import EnvironmentLimits, Environments
from gateway.errors import Code, Problem
from gateway.resources import Oidc
from gateway.settings import Settings
from gateway.snapshot import OidcSpec
from gateway.telemetry.comparison import mirror_status
from gateway.telemetry.control import ControlFacts, DoorRecord, RolloutFacts
from gateway.telemetry.totals import ScorerTotals

log = logging.getLogger(__name__)

ASGIApp = Callable[..., Awaitable[None]]
READS = "rl"
LINK_SECRET = "links"  # noqa: S105 - the name that it is kept under


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderContent:
    """What an applied folder wants, and where the content of its files lies."""

    wanted: list[Wanted]
    sources: Mapping[str, Path]
    notes: tuple[str, ...]


class ControlPlane:
    """Everything behind the management listener."""

    def __init__(
        self, settings: Settings, state: State, store: Store, keyring: Keyring, environ: Mapping[str, str]
    ) -> None:
        self.store = store
        self.doorkeeper: Doorkeeper | None = None
        self._settings = settings
        self._state = state
        self._options = FolderOptions.of(settings)
        limits = BlobLimits(
            assets_max_bytes=settings.assets_max_bytes,
            upload_max_bytes=settings.upload_max_bytes,
            upload_link_lifetime_s=settings.upload_link_lifetime_s,
        )
        self._files = Files(
            state.path / "assets", bytes_max=limits.assets_max_bytes, reserve_bytes=limits.disk_reserve_bytes
        )
        self._options = replace(self._options, content=self._files.path_of)
        self.vault = Vault(store, keyring, environ)
        models = ModelStore(self._files, state.path / "models", copies=settings.copy_models)
        defaults = Defaults(body_bytes_max=settings.max_body_bytes, cache_dir=str(state.path / "cache"))
        self.collected = Collected(
            state.path / "collected", settings.data_collection_max_bytes, settings.data_collection_queue_bytes
        )
        self.scripts = Scripts(
            # No links: a script may write where it reads.
            trees=ModelStore(self._files, state.path / "scripts", links=False),
            environments=Environments(
                state.path / "environments",
                self._files,
                EnvironmentLimits(
                    build_timeout_s=settings.environment_build_timeout_s,
                    bytes_max=settings.environment_max_bytes,
                    wheels_only=settings.script_sandbox == "bwrap",
                ),
            ),
            folder=state.path / "workers",
            limits=ScriptLimits(
                memory_bytes=settings.script_memory_bytes,
                cpu_seconds=settings.script_cpu_seconds,
                files_max=settings.script_files_max,
                processes_max=settings.script_processes_max,
                sandbox=settings.script_sandbox,
                hidden=_hidden(settings, state),
                hidden_files=() if settings.tls_key is None else (settings.tls_key.absolute(),),
                readable=tuple(map(Path, settings.script_folders)),
            ),
            sink=self.collected.sink,
        )
        self.publisher = Publisher(models, defaults, self.scripts)
        self.control = Control(
            store=store,
            publisher=self.publisher,
            vault=self.vault,
            models=models,
            options=self._options,
            model_folders=settings.model_folders,
        )
        index = WithCollected(StoreIndex(store), self.collected.tree, self._files.run)
        self._storage = Storage(self._files, index, limits, collected=self.collected.tree)
        self._door = DoorRecord()
        self._rollouts: Rollouts | None = None

    @classmethod
    async def open(cls, settings: Settings, state: State, environ: Mapping[str, str]) -> ControlPlane:
        """Open the store and what is in it."""
        url = settings.database.url or f"sqlite:///{state.path / 'gateway.db'}"
        store = await asyncio.to_thread(Store.open, url)
        try:
            has_secrets = await store.read(lambda tx: bool(tx.secrets()))
            keyring = open_keyring(state.path, environ, may_make=not has_secrets)
            plane = cls(settings, state, store, keyring, environ)
        except BaseException:
            store.close()
            raise
        try:
            await plane._prepare()
        except BaseException:
            await plane.close()
            raise
        return plane

    async def _prepare(self) -> None:
        """Secrets that are made once, keys that an earlier version kept elsewhere, and what a crash left."""
        await self.collected.prepare()
        resealed = await self.store.write(self.vault.prepare)
        if resealed:
            log.info("%d secrets are sealed under the new master key; the old one can be forgotten", resealed)
        adopted = await self.store.write(lambda tx: self.vault.adopt(tx, self._state.path))
        self.vault.remove_adopted(self._state.path)
        if adopted:
            log.info("the keys of %s are taken over into the store", ", ".join(adopted))
        self._link_secret = await self.store.write(lambda tx: self.vault.secret(tx, LINK_SECRET))

    def read_folder(self) -> FolderContent | None:
        """The folder that is applied, as it is now; None where there is none. Blocks. Errors: FolderError."""
        if self._settings.apply is None:
            return None
        folder = read_documents_of(self._settings.apply)
        found = resolve(folder)
        desired = joined(folder, self._options)
        return FolderContent(wanted=found.wanted, sources=found.sources, notes=desired.notes)

    async def plan_start(self) -> applying.Start:
        content = await asyncio.to_thread(self.read_folder)
        if content is None:
            return await applying.plan_start(self.control, None, {})
        for note in content.notes:
            log.warning("%s", note)
        return await applying.plan_start(self.control, content.wanted, content.sources)

    async def apply_folder(self) -> None:
        """Errors: FolderError, Problem."""
        content = await asyncio.to_thread(self.read_folder)
        if content is None:
            return
        for note in content.notes:
            log.warning("%s", note)
        await self.control.apply(
            content.wanted, FOLDER, prune=False, dry_run=False, sources=content.sources, wait_s=None
        )

    async def start(self, planned: applying.Start, collect: Callable[[], Awaitable[ScorerTotals]]) -> None:
        """Serve what was planned, and go on with what was under way. Errors: ChangeRefused."""
        await applying.start(self.control, planned)
        await self.control.resume()
        world = RolloutWorld(self.control, collect)
        self._rollouts = rollouts = Rollouts(world, steady(time.time()))
        await rollouts.restore(await world.saved())
        self.control.run(rollouts.run())
        self.control.run(Housekeeping(self.control, self._storage, self.scripts).run())
        self.control.run(self.collected.run())
        self.control.run(Scaler(self.control, collect, steady(0.0)).run())

    def app(self, operator: Operator, urls: Urls, version: str) -> ASGIApp:
        """The management listener's application. Once it has started."""
        assert self._rollouts is not None
        self.doorkeeper = doorkeeper = Doorkeeper(
            self._state.management_token(),
            lambda digest: self.store.read(lambda tx: tx.token(digest)),
            people=_people(self._settings),
            authorization_uri=self._settings.management_url,
        )
        services = Services(
            control=self.control,
            doorkeeper=doorkeeper,
            operator=operator,
            rollouts=self._rollouts,
            apply=lambda body, actor: apply_bundle(self.control, body, actor),
            export=lambda: export_all(self.store),
            link=self._link,
            openapi=management_openapi,
            now=time.time,
            new_id=lambda: str(uuid.uuid4()),
            version=version,
            streams=self.scripts.streams,
            is_running=self.scripts.is_running,
        )
        blobs = BlobApp(self._storage, self._link_secret, self._blob_permissions)
        return ManagementApp(services, urls, blobs, self._door)

    def status(self, totals: ScorerTotals) -> dict[str, Any]:
        """What is served, by endpoint; with updates that failed, rollouts, and how mirrored answers compare."""
        status = self.publisher.status()
        for name, endpoint in status.items():
            deployments = endpoint["deployments"]
            for shown, deployment in deployments.items():
                compared = mirror_status(totals, name, shown.lower())
                if compared is not None:
                    deployment["mirror"] = compared
            view = self._rollouts.view(name) if self._rollouts is not None else None
            if view is not None:
                endpoint["rollout"] = describe(view.rollout, view.state, view.seen, view.doing)
        for failed, reason in self.control.failed.items():
            name, _, key = failed.partition("/")
            deployments = status.get(name, {}).get("deployments", {})
            served = next((one for shown, one in deployments.items() if shown.lower() == key), None)
            if served is not None:
                served["last_update_failed"] = reason
            elif name in status:
                deployments[key] = {"state": "Failed", "reason": reason}
        return status

    def facts(self) -> ControlFacts:
        """What is counted here, and how what is served is."""
        control = self.control
        return ControlFacts(
            operations=control.operations.ended,
            operations_under_way=control.operations.under_way,
            operation_time=control.operations.totals(),
            requests=self._door.answers,
            refused=self._door.refused,
            store_time=self.store.record.totals(),
            store_busy=self.store.record.busy,
            assets_bytes=self._files.used_bytes,
            assets_bytes_max=self._settings.assets_max_bytes,
            deployments=self.publisher.states(control.failed),
            rollouts=tuple(self._rollout_facts()),
        )

    def on_degraded(self, failures: Mapping[str, str]) -> None:
        """A scorer that was replaced could not load these again; what no scorer serves is known already."""
        for name in failures.keys() - self.publisher.applied.failures.keys():
            said = f"a scorer that was replaced could not load it again: {failures[name]}"
            self.control.run(self.control.tell(name, "degraded", said))

    def _rollout_facts(self) -> Iterator[RolloutFacts]:
        if self._rollouts is None:
            return
        for name in self.publisher.desired.endpoints:
            view = self._rollouts.view(name)
            if view is not None:
                paused = view.state.status is RolloutStatus.PAUSED
                yield RolloutFacts(endpoint=name, percent=view.rollout.steps[view.state.step], is_paused=paused)

    async def close(self) -> None:
        await self.control.close()
        await self.scripts.close()
        await self.collected.close()
        if self.doorkeeper is not None:
            await self.doorkeeper.close()
        self._files.close()
        self.store.close()

    def _link(self, container: str, permissions: str) -> str:
        expires = time.time() + self._settings.upload_link_lifetime_s
        return sas.sign(self._link_secret, container, "", permissions, expires)

    async def _blob_permissions(self, request: Any) -> str:
        """What a management credential may do with blobs, where no link is given."""
        assert self.doorkeeper is not None
        try:
            actor = await self.doorkeeper.identify(request.headers.get("authorization"), "", "")
        except Problem as problem:
            if problem.code.status >= 500:
                raise
            return ""
        except StoreBusy as error:
            raise Problem(Code.UNAVAILABLE, str(error)) from error
        return sas.PERMISSIONS if actor.role >= Role.OPERATOR else READS


def _hidden(settings: Settings, state: State) -> tuple[Path, ...]:
    """The folders that no script in a sandbox may read, even where it lies among the system's own folders."""
    given = (state.path, settings.apply, *map(Path, settings.model_folders))
    return tuple(one.absolute() for one in given if one is not None)


def _people(settings: Settings) -> People | None:
    if not settings.people_issuer:
        return None
    spec = OidcSpec(
        issuer=settings.people_issuer,
        audience=settings.people_audience,
        jwks_uri=settings.people_jwks_uri,
        algorithms=Oidc(issuer="", audience="").algorithms,
        required_roles=(),
    )
    return People(spec, roles_claim=settings.people_claim)
