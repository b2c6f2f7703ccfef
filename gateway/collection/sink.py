"""The sink of scripts' collectors: takes what `Collector(name)` of azureml-ai-monitoring sends, unmodified.

    POST http://NAME:SECRET@127.0.0.1:PORT/modeldata/log      ce-type: azureml.inference.COLLECTION, the rows as JSON

Why a secret: any process of the machine reaches a loopback port. The package makes its address of two variables of
its worker, host and port; so each pool of workers has a secret in its host, which its HTTP client sends as a
password. It says which deployment's records these are, and no other's can be written with it.
The listener starts with the first pool that needs it, and takes SENDERS_MAX connections. What it answers: 200 once
the record is queued, 401 before a byte of the body is read, 404 for a collection that is not collected, 413, 429
where the queue is full, 400. The package logs what is refused; the script goes on. What of a body has come takes its
room in the queue at once, so that many that come together are within its bound too.
Units: bytes; times in seconds since 1970. Threads: the loop's; the disk is the writer's.
Source: azureml-ai-monitoring 1.0.0 (config.py, sender.py); contract/azure-ml-endpoints.md section 8.4.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import json
import re
import secrets
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.collection.records import TYPE, Record
from gateway.collection.spec import CollectorSpec
from gateway.collection.writer import Collection, Writer, size_of_headers
from gateway.identity import RequestIds, is_guid
from gateway.listener import HttpLimits, HttpServer, bind
from gateway.telemetry.collection import CollectionRecord

HOST, PATH = "127.0.0.1", "/modeldata/log"
USER = "collector"
BODY_BYTES_MAX = 16 * 1024 * 1024
SENDERS_MAX = 64
VALUE_CHARS_MAX = 256
# What a script's correlation context may add to its records, as the package sends it: `ce-NAME: VALUE`.
CONTEXT_MAX = 16
_FULL = "more is collected than the disk takes; this record is dropped"
_CONTEXT_NAME = re.compile(r"ce-([a-z0-9][a-z0-9-]{0,39})")
# Said by the package itself, or by the line.
_TAKEN = frozenset(
    (
        *("time", "type", "collect-data-type", "agent", "x-request-id", "model-version"),
        *("id", "source", "specversion", "data", "datacontenttype", "datainblob"),
        *("correlationid", "xrequestid", "modelversion", "collectdatatype", "contentrange"),
    )
)


class _Dropped(Exception):
    """A record that is not taken: counted for this reason, and answered so."""

    def __init__(self, reason: str, status: int, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status


class Sink:
    """The one of a gateway. Names are "endpoint/deployment"."""

    def __init__(self, writer: Writer, now: Callable[[], float] = time.time) -> None:
        self._writer = writer
        self._now = now
        self._ids = RequestIds()
        # By the digest of a pool's secret: its deployment and what that collects.
        self._pools: dict[bytes, tuple[str, dict[str, Collection]]] = {}
        self._counts: dict[str, dict[str, CollectionRecord]] = {}
        # Set once it listens; held by whoever starts or ends it.
        self._server: HttpServer | None = None
        self._port = 0
        self._starting = asyncio.Lock()
        self.app = Starlette(routes=[Route(PATH, self._take, methods=["POST"])])

    async def admit(self, name: str, spec: CollectorSpec) -> tuple[str, dict[str, str]]:
        """A new secret for a pool of this deployment, and the variables by which the package finds the sink.

        Errors: PortInUse, OSError where it cannot listen, which the next pool tries again.
        """
        async with self._starting:
            if self._server is None:
                self._server = await self._listen()
        secret = secrets.token_hex(32)
        counts = self._counts.setdefault(name, {})
        collections = {
            one.name.lower(): Collection(
                folder=one.folder,
                rolling_rate=spec.rolling_rate,
                source=spec.source,
                counts=counts.setdefault(one.name.lower(), CollectionRecord()),
            )
            for one in spec.collections
        }
        self._pools[_digest(secret)] = (name, collections)
        return secret, {"AZUREML_MDC_HOST": f"{USER}:{secret}@{HOST}", "AZUREML_MDC_PORT": str(self._port)}

    def forget(self, secret: str) -> None:
        """Its pool has ended. The counts of a deployment go with its last."""
        name, _ = self._pools.pop(_digest(secret), ("", {}))
        if all(name != other for other, _ in self._pools.values()):
            self._counts.pop(name, None)

    def counts(self, name: str) -> dict[str, dict[str, int]]:
        """Of a deployment's collections."""
        return {type_: record.snapshot() for type_, record in self._counts.get(name, {}).items()}

    async def close(self) -> None:
        async with self._starting:
            if self._server is not None:
                await self._server.close()

    async def _listen(self) -> HttpServer:
        server = HttpServer(self.app, HttpLimits(connections_max=SENDERS_MAX), None)
        (sock,) = bind(HOST, 0)
        port = sock.getsockname()[1]
        try:
            await server.start(sock)
        except BaseException:
            sock.close()
            raise
        self._port = port
        return server

    async def _take(self, request: Request) -> Response:
        _, collections = self._pools.get(_digest(_password(request.headers.get("authorization", ""))), ("", None))
        if collections is None:
            return _refused(401, "this is not a worker that collects; the address in AZUREML_MDC_HOST has its secret")
        type_ = request.headers.get("ce-type", "")
        collection = collections.get(type_.removeprefix(TYPE).lower()) if type_.startswith(TYPE) else None
        if collection is None:
            named = ", ".join(TYPE + one for one in collections)
            return _refused(404, f"ce-type is {type_[:VALUE_CHARS_MAX]!a}; collected here: {named}")
        try:
            body = await self._body(request)
        except _Dropped as dropped:
            collection.counts.dropped(dropped.reason)
            return _refused(dropped.status, str(dropped))
        time_s = self._now()
        sent_s = _seconds(request.headers.get("ce-time"), time_s)
        if sent_s is None:
            collection.counts.dropped("invalid")
            return _refused(400, "ce-time is no number of seconds since 1970")
        make = partial(_record, dict(request.headers), type_, body, sent_s, self._ids.next())
        if not self._writer.put(collection, len(body) + size_of_headers(request.headers.raw), time_s, make):
            return _refused(429, _FULL)
        return JSONResponse({"status": "accepted"})

    async def _body(self, request: Request) -> bytes:
        """Its room is held while it comes; `put` finds it again if nothing is awaited between. Errors: _Dropped."""
        body = bytearray()
        try:
            async for piece in request.stream():
                if len(body) + len(piece) > BODY_BYTES_MAX:
                    raise _Dropped("too_large", 413, f"a record has at most {BODY_BYTES_MAX} bytes")
                if not self._writer.reserve(len(piece)):
                    raise _Dropped("queue_full", 429, _FULL)
                body += piece
        except ClientDisconnect:
            # As when a worker is killed while it sends; nobody reads the answer.
            raise _Dropped("invalid", 400, "the record did not arrive whole") from None
        finally:
            self._writer.release(len(body))
        return bytes(body)


def config(spec: CollectorSpec) -> str:
    """The file of AZUREML_MDC_CONFIG_PATH. The package compares names with lower-cased ones."""
    collections = {
        one.name.lower(): {"enabled": True, "sampleRatePercentage": 100 * one.sampling_rate}
        for one in spec.collections
    }
    return json.dumps({"runMode": "cloud", "collections": collections})


def _record(headers: Mapping[str, str], type_: str, body: bytes, sent_s: float, own_id: str) -> Record:
    trace = headers.get("trace-id", "")
    correlation = _short(headers, "ce-x-request-id")
    members: dict[str, Any] = {
        "correlationid": correlation,
        "xrequestid": correlation,
        "modelversion": _short(headers, "ce-model-version"),
        "collectdatatype": _short(headers, "ce-collect-data-type"),
        "agent": _short(headers, "ce-agent"),
    }
    return Record(
        id=trace if is_guid(trace.encode()) else own_id,
        type=type_.removeprefix(TYPE),
        time_s=sent_s,
        content_type=_short(headers, "content-type"),
        body=body,
        # A sender may repeat its own.
        file_id=own_id,
        members=members | _context(headers),
    )


def _context(headers: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in headers:
        match = _CONTEXT_NAME.fullmatch(name)
        if match and match[1] not in _TAKEN and len(found) < CONTEXT_MAX:
            found[match[1]] = _short(headers, name)
    return found


def _short(headers: Mapping[str, str], name: str) -> str:
    return headers.get(name, "")[:VALUE_CHARS_MAX]


def _seconds(text: str | None, default: float) -> float | None:
    """When the record was made, as the package says it; None for what is no time of these centuries."""
    if text is None:
        return default
    try:
        found = float(text)
    except ValueError:
        return None
    return found if 0 <= found < 1e11 else None


def _password(authorization: str) -> str:
    kind, _, given = authorization.partition(" ")
    if kind.lower() != "basic":
        return ""
    try:
        return b64decode(given, validate=True).decode("latin-1").partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


def _digest(secret: str) -> bytes:
    """A secret is found by it, so that no comparison depends on the secret."""
    return hashlib.sha256(secret.encode()).digest()


def _refused(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message}}, status)
