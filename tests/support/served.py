"""A scorer's whole application over tiny real models, in one process and without a socket.

`Served` holds the event loop, so that a test asks with plain calls: `served.get("/v2", key=KEY)`. The models are
loaded by the real Preparer; `gather` sums this one scorer, as a supervisor with one scorer would.
What is served (`COLOURS`, `WORDS`, `TOKENS`, `DARK`, `EMPTY` are the endpoints' names):
    Colours  key KEY         blue (90 %) and green (10 %) batch; Red could not be loaded
    words    key OTHER_KEY   main: texts out, names of classes in
    tokens   aml_token       only: one request at a time
    dark     key DARK_KEY    nothing but a deployment that could not be loaded
    empty    key DARK_KEY    no deployment
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import httpx

from gateway.channel import Collected
from gateway.credentials import digest, sign_token
from gateway.dataplane.app import ScoringApp
from gateway.dataplane.documents import documents
from gateway.dataplane.live import SnapshotCell
from gateway.dataplane.prepare import Preparer
from gateway.dataplane.score import Scoring, ScoringOptions
from gateway.seats import SeatTable
from gateway.snapshot import AuthSpec, DeploymentSpec, EndpointSpec, SnapshotSpec
from gateway.telemetry.record import ScorerRecord
from runtimes import BatchingSpec, BatchLimits, LoopScheduler, RuntimeSpec
from tests.support import models

DOMAIN = "models.example"
VERSION = "1.2.3"
COLOURS, WORDS, TOKENS, DARK, EMPTY = "Colours", "words", "tokens", "dark", "empty"
KEY, OTHER_KEY, DARK_KEY = "a" * 43, "b" * 43, "c" * 43
TOKEN_SECRET = b"s" * 32

BATCHING = BatchingSpec(limits=BatchLimits(batch_rows_max=32, queue_delay_ns=2_000_000))


def token(endpoint: str, now_s: float) -> str:
    """A token as the gateway would sign it."""
    return sign_token(endpoint, TOKEN_SECRET, 3600, now_s).access_token


def deployment(name: str, path: Path) -> DeploymentSpec:
    return DeploymentSpec(
        name=name,
        runtime=RuntimeSpec(path=str(path), sha256="", dispatch="inline", batching=BATCHING),
        request_timeout_ns=5_000_000_000,
        queue_wait_ns=0,
        pending_max=0,
        seat=-1,
        body_bytes_max=1 << 20,
    )


def endpoint(name: str, auth: AuthSpec, traffic: dict[str, int], *deployments: DeploymentSpec) -> EndpointSpec:
    by_key = {spec.name.lower(): spec for spec in deployments}
    return EndpointSpec(name=name, auth=auth, traffic=traffic, deployments=by_key)


def snapshot(folder: Path, revision: int = 1) -> SnapshotSpec:
    """The endpoints above, with their models written into the folder."""
    folder.mkdir(exist_ok=True)
    files = {
        "blue": models.linear(),
        "green": models.batch_axis_second(),
        "main": models.text_labels(),
        "only": models.no_batch_axis(),
        "broken": b"not a model",
    }
    paths = {name: models.write(folder, model, f"{name}.onnx") for name, model in files.items()}
    broken = deployment("Red", paths["broken"])
    dark = AuthSpec(mode="key", key_digests=(digest(DARK_KEY),))
    endpoints = (
        endpoint(
            COLOURS,
            AuthSpec(mode="key", key_digests=(digest(KEY), digest("an unused secondary key"))),
            {"blue": 90, "green": 10},
            deployment("blue", paths["blue"]),
            deployment("green", paths["green"]),
            broken,
        ),
        endpoint(
            WORDS,
            AuthSpec(mode="key", key_digests=(digest(OTHER_KEY),)),
            {"main": 100},
            deployment("main", paths["main"]),
        ),
        endpoint(
            TOKENS,
            AuthSpec(mode="aml_token", token_secret=TOKEN_SECRET),
            {"only": 100},
            deployment("only", paths["only"]),
        ),
        endpoint(DARK, dark, {"red": 100}, broken),
        endpoint(EMPTY, dark, {}),
    )
    return SnapshotSpec(revision=revision, endpoints={found.name.lower(): found for found in endpoints})


class Served:
    """The application and its client. `publish` serves a snapshot; before it nothing is served. Close it."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self.record = ScorerRecord()
        self.cell = SnapshotCell()
        self.gathered = 0
        # What the next gather raises instead, as the supervisor's end would.
        self.gather_fails: Exception | None = None
        self._seats_fd = SeatTable.create(1)
        self._seats = SeatTable(self._seats_fd, 1)
        scheduler = LoopScheduler(self._runner.get_loop())
        self.preparer = Preparer(
            cell=self.cell, record=self.record, seats=self._seats, index=0, scorers=1, scheduler=scheduler
        )
        self.scoring = Scoring(ScoringOptions(), scheduler)
        pages = documents(self.cell, self.scoring, self.record, self._gather, VERSION)
        self.app = ScoringApp(self.cell, self.scoring, pages, DOMAIN)

    def publish(self, spec: SnapshotSpec) -> None:
        self._runner.run(self.preparer.prepare(spec, {}))
        self._runner.run(self._commit(spec.revision))

    def close(self) -> None:
        self._runner.run(self._commit_nothing())
        self.preparer.close()
        self._runner.close()
        self._seats.close()
        os.close(self._seats_fd)

    def ask(self, method: str, path: str, key: str = "", **more: Any) -> httpx.Response:
        """One request; `key` is a key or token, "" for none. What the application raises is answered with 500."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return self._runner.run(self._ask(method, path, headers | more.pop("headers", {}), **more))

    def get(self, path: str, key: str = "", **more: Any) -> httpx.Response:
        return self.ask("GET", path, key, **more)

    def score(self, rows: int, key: str = KEY, endpoint: str = COLOURS, **headers: str) -> httpx.Response:
        """Rows of four numbers, as blue takes them."""
        document = {"input_data": [[1.0, 2.0, 3.0, 4.0]] * rows}
        return self.ask("POST", f"/endpoints/{endpoint}/score", key, json=document, headers=headers)

    async def _ask(self, method: str, path: str, headers: dict[str, str], **more: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="https://gateway.example") as client:
            return await client.request(method, path, headers=headers, **more)

    async def _gather(self) -> Collected:
        self.gathered += 1
        if self.gather_fails is not None:
            raise self.gather_fails
        self.preparer.measure()
        return Collected(totals=self.record.snapshot())

    async def _commit(self, revision: int) -> None:
        self.preparer.commit(revision)

    async def _commit_nothing(self) -> None:
        """Every runtime is drained and closed, as when its deployment is deleted."""
        revision = self.cell.current.revision + 1
        await self.preparer.prepare(SnapshotSpec(revision=revision), {})
        self.preparer.commit(revision)
