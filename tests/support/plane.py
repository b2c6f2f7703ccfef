"""A whole control plane without processes: real control, publisher, vault, contents and store; scorers that are told.

`Plane` holds the event loop, so that a test asks with plain calls. `scorers` says what goes wrong: models that cannot
be loaded, scorers that die. `restart` ends the gateway where it stands and starts the next one on the same folder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from gateway.channel import LoadDone, Loaded, LoadOverdue, Prepared, RemoteFailed, ScorerDied
from gateway.controlplane import applying
from gateway.controlplane.apply import ApplyReport
from gateway.controlplane.authorize import FOLDER, Actor, Role
from gateway.controlplane.blobs.files import Files
from gateway.controlplane.contents import Resolved
from gateway.controlplane.control import Accepted, Control
from gateway.controlplane.documents import from_builtins
from gateway.controlplane.folder import FolderOptions
from gateway.controlplane.keyring import open_keyring
from gateway.controlplane.matching import ANY, Match
from gateway.controlplane.model_store import ModelStore
from gateway.controlplane.plan import Defaults
from gateway.controlplane.publisher import Publisher
from gateway.controlplane.reconcile import Prepares
from gateway.controlplane.scripts import Limits, Scripts
from gateway.controlplane.store.database import Store, StoreBusy
from gateway.controlplane.store.records import Blob, Kind, Operation, Ref, Resource, Status
from gateway.controlplane.store.transaction import Transaction
from gateway.controlplane.vault import Vault
from gateway.controlplane.yaml_types import ModelYaml, OnlineDeploymentYaml, OnlineEndpointYaml
from gateway.credentials import digest
from gateway.environments import EnvironmentLimits, Environments
from gateway.snapshot import DeploymentSpec, LearnedByName, SnapshotSpec
from runtimes import Learned
from tests.support.waiting import PATIENCE_S

T = TypeVar("T")

ANN = Actor(name="ann", role=Role.OPERATOR, source="10.0.0.7", request_id="r-1")
UPLOADS = "azureml://datastores/workspaceblobstore/paths/"
E, D, M = Kind.ONLINE_ENDPOINT, Kind.ONLINE_DEPLOYMENT, Kind.MODEL


def endpoint_ref(name: str = "digits") -> Ref:
    return Ref(kind=E, key=name)


def deployment_ref(name: str = "blue", endpoint: str = "digits") -> Ref:
    return Ref(kind=D, parent=endpoint, key=name)


def model_ref(version: str = "1", name: str = "m") -> Ref:
    return Ref(kind=M, parent=name, key=version)


class Scorer:
    """One that serves what it is told."""

    is_up = True

    def __init__(self, scorers: Scorers) -> None:
        self.serves = SnapshotSpec(revision=0)
        self.aside: dict[str, DeploymentSpec] = {}
        self._all = scorers
        self._pending: SnapshotSpec | None = None

    async def prepare(self, spec: SnapshotSpec, learned: LearnedByName) -> Prepared:
        self._all.said("prepare")
        self._pending = spec
        names = _deployments(spec)
        if self._all.endless in names:
            raise LoadOverdue(self._all.endless, _OVERDUE)
        failures = {name: why for name, one in names.items() if (why := self._all.failure(name, one))}
        good = [name for name in names if name not in failures]
        return Prepared(
            revision=spec.revision,
            learned={name: learned.get(name) or _LEARNED for name in good},
            failures=failures,
            loaded=dict.fromkeys(good, _LOADED),
        )

    async def commit(self, revision: int) -> None:
        assert self._pending is not None
        assert self._pending.revision == revision
        self.serves, self._pending = self._pending, None
        self.aside = {}

    async def abort(self, revision: int) -> None:
        self._pending = None

    async def load(self, name: str, deployment: DeploymentSpec, learned: Learned | None) -> LoadDone | None:
        self._all.loads.append(name)
        await self._all.may_load.wait()
        try:
            self._all.said("load")
        except ScorerDied:
            return None
        why = _OVERDUE if name == self._all.endless else self._all.failure(name, deployment)
        if why:
            raise RemoteFailed(why)
        self.aside[name] = deployment
        return LoadDone(learned=learned or _LEARNED, loaded=_LOADED)

    async def unload(self, name: str) -> None:
        self.aside.pop(name, None)


class Scorers:
    """What all scorers, of this gateway and the next, are told: `failing` by "endpoint/deployment" or reference of a
    model; a verb in `dies` ends the scorer that is asked for it next; the deployment in `endless` never loads. Stands
    for the fleet and its seats too."""

    def __init__(self, count: int = 2) -> None:
        self.failing: dict[str, str] = {}
        self.dies: list[str] = []
        self.endless = ""
        self.loads: list[str] = []
        self.may_load = asyncio.Event()
        self.may_load.set()
        self._count = count
        self.reset()

    def reset(self) -> None:
        """The processes of a gateway that starts."""
        self.changing = asyncio.Lock()
        self.current: tuple[SnapshotSpec, LearnedByName] | None = None
        self.degraded: dict[str, str] = {}
        self.scorers = [Scorer(self) for _ in range(self._count)]

    @property
    def members(self) -> Sequence[Prepares]:
        return self.scorers

    @property
    def serves(self) -> SnapshotSpec:
        """The same on all of them."""
        first, *others = self.scorers
        assert all(one.serves == first.serves for one in others)
        return first.serves

    async def started(self) -> None:
        """They are."""

    def keep_records(self, spec: SnapshotSpec) -> None:
        """There are none."""

    def taken(self, row: int) -> int:
        return 0

    def said(self, verb: str) -> None:
        if self.dies and self.dies[0] == verb:
            self.dies.pop(0)
            raise ScorerDied(f"a scorer died while it was asked to {verb}")

    def failure(self, name: str, spec: DeploymentSpec) -> str:
        return self.failing.get(name) or self.failing.get(_model_of(spec)) or ""


class Plane:
    """Made in a folder of its own; `close` it. `now_s` moves when the test says so."""

    def __init__(
        self,
        folder: Path,
        *,
        options: FolderOptions | None = None,
        model_folders: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.environ = dict(environ or {})
        self.options = options or FolderOptions()
        self.model_folders = model_folders
        self.now_s = 1_800_000_000.0
        self.away = 0
        self.prompt_s = PATIENCE_S
        self.runner = asyncio.Runner()
        self.scorers = self.run(_made(Scorers))
        self.open()

    def _scripts(self) -> Scripts:
        """No deployment of these tests has a script, so nobody is needed to run one."""
        environments = Environments(self.folder / "environments", self.files, EnvironmentLimits())
        trees = ModelStore(self.files, self.folder / "scripts", links=False)
        return Scripts(trees=trees, environments=environments, folder=self.folder / "workers", limits=Limits())

    def open(self) -> None:
        self.store = Store.open(f"sqlite:///{self.folder / 'gateway.db'}")
        self.vault = Vault(self.store, open_keyring(self.folder, self.environ), self.environ)
        self.files = Files(self.folder / "assets", bytes_max=1 << 30)
        models = ModelStore(self.files, self.folder / "models")
        self.scripts = self._scripts()
        self.publisher = Publisher(models, Defaults(body_bytes_max=1 << 20, cache_dir=""), self.scripts)
        self.run(_made(self.scorers.reset))
        self.publisher.attach(self.scorers, self.scorers)  # type: ignore[arg-type]
        self.control = Control(
            store=self.store,
            publisher=self.publisher,
            vault=self.vault,
            models=models,
            options=replace(self.options, content=self.options.content or self.files.path_of),
            model_folders=self.model_folders,
            now=lambda: self.now_s,
            prompt_s=self.prompt_s,
        )
        self.write(self.vault.prepare)

    def close(self) -> None:
        self.run(self.control.close())
        self.files.close()
        self.store.close()
        self.runner.close()

    def stop(self) -> None:
        """End where it stands, as a killed process does."""
        self.run(self.control.close())
        self.files.close()
        self.store.close()

    def start(self, folder: Resolved | None = None) -> None:
        """What the gateway does at its start; what was under way goes on."""
        self.run(self._start(folder))

    async def _start(self, folder: Resolved | None) -> None:
        wanted, sources = (None, {}) if folder is None else (folder.wanted, folder.sources)
        await applying.start(self.control, await applying.plan_start(self.control, wanted, sources))
        await self.control.resume()

    def restart(self, folder: Resolved | None = None) -> None:
        self.stop()
        self.open()
        self.start(folder)

    def answers_within(self, seconds: float) -> None:
        """How long a change's caller is kept waiting for its end: by default until it has come."""
        self.prompt_s = self.control.prompt_s = seconds

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def settle(self) -> None:
        """Wait until nothing is being carried out."""

        async def wait() -> None:
            async with asyncio.timeout(PATIENCE_S):
                while self.control._tasks:
                    await asyncio.wait(set(self.control._tasks))

        self.run(wait())

    # The store.

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Also while the gateway finds the store away."""
        return self.run(Store.write(self.store, work))

    def read(self, work: Callable[[Transaction], T]) -> T:
        return self.run(self.store.read(work))

    def get(self, ref: Ref) -> Resource | None:
        return self.read(lambda tx: tx.get(ref))

    def need(self, ref: Ref) -> Resource:
        found = self.get(ref)
        assert found is not None, ref
        return found

    def operation(self, operation: Operation | None) -> Operation:
        assert operation is not None
        found = self.read(lambda tx: tx.operation(operation.id))
        assert found is not None
        return found

    def go_away(self, times: int, after: int = 0) -> None:
        """The next writes find the store busy: `times`, after so many that do not."""
        write, left = self.store.write, [after, times]

        async def busy(work: Callable[[Transaction], Any]) -> Any:
            if left[0]:
                left[0] -= 1
            elif left[1]:
                left[1] -= 1
                self.away += 1
                raise StoreBusy("the database is locked")
            return await write(work)

        self.store.write = busy  # type: ignore[method-assign]

    # Changes.

    def add_model(
        self, version: str = "1", name: str = "m", content: bytes = b"", path: str = "model.onnx"
    ) -> Resource:
        """Uploaded and registered."""
        given = self.folder / "upload"
        given.write_bytes(content or f"{name}:{version}".encode())
        sha256, size = self.files.add_file(given)
        blob = Blob(
            container="azureml",
            path=f"up/{name}/{version}/{path}",
            sha256=sha256,
            size_bytes=size,
            md5=b"",
            etag="1",
            modified_at=self.now_s,
        )
        self.write(lambda tx: tx.put_blob(blob))
        document = ModelYaml(name=name, version=version, path=f"{UPLOADS}{blob.path}")
        return self.run(self.control.put_asset(M, name, version, document, ANN)).resource

    def put_endpoint(
        self, name: str = "digits", *, actor: Actor = ANN, match: Match = ANY, **members: Any
    ) -> Accepted:
        return self.run(self.putting_endpoint(name, actor=actor, match=match, **members))

    async def putting_endpoint(
        self, name: str = "digits", *, actor: Actor = ANN, match: Match = ANY, **members: Any
    ) -> Accepted:
        return await self.control.put(E, "", name, endpoint(name, **members), actor, match=match)

    def put_deployment(
        self, name: str = "blue", parent: str = "digits", *, match: Match = ANY, **members: Any
    ) -> Accepted:
        return self.run(self.putting_deployment(name, parent, match=match, **members))

    async def putting_deployment(
        self, name: str = "blue", parent: str = "digits", *, match: Match = ANY, **members: Any
    ) -> Accepted:
        return await self.control.put(D, parent, name, deployment(name, parent, **members), ANN, match=match)

    def delete(self, ref: Ref, match: Match = ANY) -> Operation | None:
        return self.run(self.control.delete(ref, ANN, match=match))

    def apply(
        self, folder: Resolved, actor: Actor = FOLDER, *, prune: bool = False, dry_run: bool = False, **more: Any
    ) -> ApplyReport:
        wait: dict[str, Any] = {"wait_s": None, **more}
        return self.run(
            self.control.apply(folder.wanted, actor, prune=prune, dry_run=dry_run, sources=folder.sources, **wait)
        )

    def serving(self) -> None:
        """An endpoint `digits` whose deployment `blue` takes all traffic, with model m:1."""
        self.add_model()
        self.put_endpoint()
        self.put_deployment()
        self.put_endpoint(traffic={"blue": 100})
        assert self.served("blue") == "azureml:m:1"

    # What is served.

    def served(self, name: str = "blue", parent: str = "digits") -> str:
        """The model that the scorers serve under a deployment; "" where they do not."""
        found = self.scorers.serves.endpoints.get(parent)
        one = found.deployments.get(name) if found is not None else None
        return _model_of(one) if one is not None else ""

    def traffic(self, name: str = "digits") -> dict[str, int]:
        return self.scorers.serves.endpoints[name].traffic

    def agree(self) -> None:
        """What is stored, what is served and what operations say is one, once nothing is under way any more: a change
        that takes longer than its answer waits for may still be."""
        self.settle()
        serves, held = self.scorers.serves, self.control.claims.held | self.control.asset_claims.held
        assert not held
        resources = self.read(lambda tx: [*tx.find(E), *tx.find(D)])
        served = {one.ref: one.served for one in resources if one.served is not None}
        assert {ref.key for ref in served if ref.kind is E} == set(serves.endpoints)
        names = {f"{ref.parent}/{ref.key}" for ref in served if ref.kind is D}
        assert names == set(_deployments(serves))
        for ref, document in served.items():
            source = from_builtins(ref.kind, document)
            if isinstance(source, OnlineEndpointYaml):
                one = serves.endpoints[ref.key]
                assert (one.traffic, one.mirror) == (source.traffic, source.mirror_traffic)
                if source.auth_mode == "key":
                    keys = self.run(self.control.keys(ref.key))
                    assert one.auth.key_digests == (digest(keys.primary), digest(keys.secondary))
            elif isinstance(source, OnlineDeploymentYaml):
                model = self.need(_model_ref(str(source.model)))
                runtime = serves.endpoints[ref.parent].deployments[ref.key].runtime
                assert runtime.sha256 in {file.sha256 for file in model.files}
        for resource in resources:
            assert resource.state.value in ("Succeeded", "Failed")
            assert bool(resource.reason) == (resource.state.value == "Failed")
            if resource.state.value == "Succeeded":
                assert resource.served == resource.document
        assert self.read(lambda tx: tx.unfinished()) == []
        assert all(not one.aside for one in self.scorers.scorers)


_LEARNED = Learned(batched=True, reason="proven")
_LOADED = Loaded(load_s=0.1, provider="cpu", sha256="x")
_OVERDUE = "it was not loaded within 1 s"


def endpoint(name: str = "digits", **members: Any) -> OnlineEndpointYaml:
    return OnlineEndpointYaml(name=name, **members)


def deployment(name: str = "blue", parent: str = "digits", **members: Any) -> OnlineDeploymentYaml:
    filled = {"model": "azureml:m:1", "instance_type": "cpu", **members}
    return OnlineDeploymentYaml(name=name, endpoint_name=parent, **filled)


def interrupted(action: str, *targets: Ref, id_: str = "op-1", at: float = 1.0) -> Operation:
    """What a gateway that was killed leaves."""
    operation = Operation(id=id_, action=action, targets=targets, actor="ann", started_at=at)
    return replace(operation, endpoint=(targets[0].parent or targets[0].key) if targets else "")


def succeeded(operation: Operation | None) -> bool:
    return operation is None or operation.status is Status.SUCCEEDED


def _deployments(spec: SnapshotSpec) -> dict[str, DeploymentSpec]:
    return {f"{name}/{key}": one for name, found in spec.endpoints.items() for key, one in found.deployments.items()}


def _model_of(spec: DeploymentSpec) -> str:
    """The reference of its model."""
    return spec.runtime.origin.rpartition(" of ")[2]


def _model_ref(reference: str) -> Ref:
    _, name, version = reference.split(":")
    return Ref(kind=M, parent=name, key=version)


async def _made(make: Callable[[], T]) -> T:
    """Made within the loop that it is used in."""
    return make()
