"""The whole management listener in one process and without a socket: real REST, control and store, no scorers.

`House` holds the event loop, so that a test asks with plain calls: `house.put(house.ws("/onlineEndpoints/digits"),
{...})`. What stands in for the scorers (`Scorers`) serves whatever it is given at once; a test may make a deployment
fail to load, or hold loads back. Every request is sent with the admin token unless the test says otherwise.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx

from gateway.controlplane.apply_bundle import apply_bundle
from gateway.controlplane.authorize import GATEWAY, Doorkeeper, Role, make_token
from gateway.controlplane.blobs import sas
from gateway.controlplane.control import Control
from gateway.controlplane.export import export_all
from gateway.controlplane.folder import FolderOptions
from gateway.controlplane.keyring import open_keyring
from gateway.controlplane.management import Answer
from gateway.controlplane.publisher import EMPTY
from gateway.controlplane.reconcile import Applied, LoadRefused
from gateway.controlplane.rest.app import App, ManagementApp
from gateway.controlplane.rest.context import Services
from gateway.controlplane.rest.openapi import management_openapi
from gateway.controlplane.rest.urls import Urls
from gateway.controlplane.rollout.runner import Rollouts
from gateway.controlplane.rollout_world import RolloutWorld
from gateway.controlplane.store.database import Store
from gateway.controlplane.store.records import Blob, Kind
from gateway.controlplane.store.transaction import Transaction
from gateway.controlplane.vault import Vault
from gateway.controlplane.yaml_types import ModelYaml
from gateway.log_stream import LogStreams
from gateway.resources import Deployment, Desired
from gateway.telemetry.record import ScorerRecord
from gateway.telemetry.totals import ScorerTotals
from tests.support.waiting import PATIENCE_S

T = TypeVar("T")

FIRST_TOKEN = "igm_" + "f" * 43
HOST = "gateway.example:8444"
WORKSPACE = "/subscriptions/Sub-1/resourceGroups/Group/providers/Microsoft.MachineLearningServices/workspaces/Work"
LINK_SECRET = b"l" * 32
MODEL = "azureml:digits:1"


class Scorers:
    """Stands where the publisher is: what is served changes at once. `failing`: deployments whose loading fails."""

    def __init__(self) -> None:
        self.desired: Desired = EMPTY
        self.applied = Applied(learned={}, loaded={}, failures={})
        self.instances: dict[str, int] = {}
        self.failing: dict[str, str] = {}
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.may_publish = asyncio.Event()
        self.may_publish.set()

    async def load(self, endpoint: str, deployment: Deployment) -> None:
        await self.may_load.wait()
        reason = self.failing.get(f"{endpoint}/{deployment.name.lower()}")
        if reason is not None:
            raise LoadRefused(reason)

    def tail(self, name: str, lines: int) -> str:
        """There are no workers."""
        return ""

    def forget_words(self, name: str) -> None:
        """Nobody has said any."""

    async def unload(self, endpoint: str, key: str) -> None:
        """Nothing is held aside."""

    def settle(self, endpoint: str, key: str) -> None:
        """Nothing was held aside."""

    async def publish(
        self, edit: Callable[[Desired], Desired], secrets: Any = None, tolerate: str = "known"
    ) -> Applied:
        await self.may_publish.wait()
        self.desired = edit(self.desired)
        return self.applied


class Models:
    """Content that is there, whatever it is."""

    def has_content(self, sha256: str, size_bytes: int) -> bool:
        return True

    def keep(self, sources: Mapping[str, Path]) -> None:
        """Kept."""


class TheOperator:
    """The supervisor: what it says is told, what it raises is raised."""

    def __init__(self) -> None:
        self.reply = Answer(True, "revision 4 is served", {"revision": 4})
        self.raises: Exception | None = None
        self.reloads = 0

    async def reload(self) -> Answer:
        self.reloads += 1
        if self.raises is not None:
            raise self.raises
        return self.reply

    def status(self) -> dict[str, Any]:
        if self.raises is not None:
            raise self.raises
        return {"revision": 3, "ready": True, "endpoints": {}}


class House:
    """Made in a folder of its own; `close` it. `now_s` moves when the test says so."""

    def __init__(self, folder: Path, *, urls: Urls | None = None, blobs: App | None = None) -> None:
        self._runner = asyncio.Runner()
        self.now_s = 1_800_000_000.0
        self.scorers = self.run(_made(Scorers))
        self.operator = TheOperator()
        self.store = Store.open(f"sqlite:///{folder / 'gateway.db'}")
        vault = Vault(self.store, open_keyring(folder, {}), {})
        self.control = Control(
            store=self.store,
            publisher=self.scorers,  # type: ignore[arg-type]
            vault=vault,
            models=Models(),  # type: ignore[arg-type]
            options=FolderOptions(),
            now=lambda: self.now_s,
        )
        self.write(vault.prepare)
        self.doorkeeper = Doorkeeper(
            FIRST_TOKEN,
            lambda digest: self.store.read(lambda tx: tx.token(digest)),
            authorization_uri="https://login.example/",
            now_s=lambda: self.now_s,
        )
        self.rollouts = Rollouts(RolloutWorld(self.control, _nothing_counted), lambda: self.now_s)
        self.streams = LogStreams(lambda: self.now_s)
        self.running: set[str] = set()
        self.app = ManagementApp(self._services(), urls or Urls(scoring_port=8443), blobs)

    def _services(self) -> Services:
        ids = (f"00000000-0000-4000-8000-{number:012d}" for number in itertools.count(1))
        return Services(
            control=self.control,
            doorkeeper=self.doorkeeper,
            operator=self.operator,
            rollouts=self.rollouts,
            apply=lambda body, actor: apply_bundle(self.control, body, actor),
            export=lambda: export_all(self.store),
            link=lambda container, may: sas.sign(LINK_SECRET, container, "", may, self.now_s + 3600),
            openapi=management_openapi,
            now=lambda: self.now_s,
            new_id=lambda: next(ids),
            version="1.2.3",
            streams=self.streams,
            is_running=self.running.__contains__,
        )

    def close(self) -> None:
        self.run(self.control.close())
        self.run(self.doorkeeper.close())
        self.store.close()
        self._runner.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)

    def write(self, work: Callable[[Transaction], T]) -> T:
        return self.run(self.store.write(work))

    def read(self, work: Callable[[Transaction], T]) -> T:
        return self.run(self.store.read(work))

    # Requests.

    def ws(self, path: str = "") -> str:
        return WORKSPACE + path

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = FIRST_TOKEN,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx.Response:
        """`content` is sent as it is, `body` as JSON."""
        given = httpx.Headers(dict(headers or {}), encoding="latin-1")
        if token is not None:
            given.setdefault("authorization", f"Bearer {token}")
        more = {"content": content} if content is not None else {"json": body} if body is not None else {}
        return self.run(self._send(method, path, given, more))

    async def _send(self, method: str, path: str, headers: httpx.Headers, more: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url=f"https://{HOST}") as client:
            return await client.request(method, path, headers=headers, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("GET", path, **more)

    def put(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return self.ask("PUT", path, body, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return self.ask("POST", path, body, **more)

    def patch(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return self.ask("PATCH", path, body, **more)

    def delete(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("DELETE", path, **more)

    def settle(self) -> None:
        """Wait until nothing is being carried out."""

        async def wait() -> None:
            async with asyncio.timeout(PATIENCE_S):
                while self.control._tasks:
                    await asyncio.sleep(0)

        self.run(wait())

    # What tests begin with.

    def add_token(self, name: str, role: Role, lifetime_s: int | None = None) -> str:
        text, record = make_token(name, role, lifetime_s, "test", self.now_s)
        self.write(lambda tx: tx.add_token(record))
        return text

    def upload(self, path: str, content: bytes = b"a model", container: str = "azureml") -> None:
        """A blob as if it had been uploaded; only its record, for nothing here reads content."""
        blob = Blob(
            container=container,
            path=path,
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            md5=b"\0" * 16,
            etag="0x1",
            modified_at=self.now_s,
        )
        self.write(lambda tx: tx.put_blob(blob))

    def add_model(self, name: str = "digits", version: str = "1") -> None:
        path = f"LocalUpload/{name}/{version}/model.onnx"
        self.upload(path)
        address = f"azureml://datastores/workspaceblobstore/paths/{path}"
        document = ModelYaml(name=name, version=version, path=address)
        self.run(self.control.put_asset(Kind.MODEL, name, version, document, GATEWAY))

    def add_endpoint(self, name: str = "digits", **properties: Any) -> httpx.Response:
        body = {"location": "local", "properties": {"authMode": "Key", **properties}}
        return self.put(self.ws(f"/onlineEndpoints/{name}"), body)

    def add_deployment(self, name: str = "blue", endpoint: str = "digits", **properties: Any) -> httpx.Response:
        model = self.ws("/models/digits/versions/1")
        said = {"endpointComputeType": "Managed", "instanceType": "Standard_DS3_v2", "model": model, **properties}
        body = {"location": "local", "sku": {"name": "Default", "capacity": 1}, "properties": said}
        return self.put(self.ws(f"/onlineEndpoints/{endpoint}/deployments/{name}"), body)


async def _made(make: Callable[[], T]) -> T:
    """Made within the loop that it is used in."""
    return make()


async def _nothing_counted() -> ScorerTotals:
    return ScorerRecord().snapshot()
