"""The supervisor: starts the control plane and the scorers that serve what it holds, and ends them.

Wiring of the control side only: controlplane/assembly.py makes the control plane, whose publisher serves on the
scorers of `fleet`. Nothing here can stall a score.
Promise: stdout gets exactly one line, when scoring works; everything else goes to stderr. A change that cannot be
carried out leaves the old serving and says why. Exit status 0 after a drain, 1 when the gateway could not start.
Units: *_s seconds.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import importlib.metadata
import json
import logging
import os
import platform
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import uvloop

from gateway import identity
from gateway.channel import CollectionSettings, RemoteFailed, ScorerDied, ScorerSettings
from gateway.child import Child
from gateway.controlplane.assembly import ControlPlane
from gateway.controlplane.certificates import CertificateError, CertPaths, ensure_certificates
from gateway.controlplane.folder import FolderError
from gateway.controlplane.management import Answer, serve_control
from gateway.controlplane.model_store import ModelChanged
from gateway.controlplane.reconcile import ChangeRefused
from gateway.controlplane.rest.urls import Urls
from gateway.controlplane.state import State, StateError, open_state, write_private
from gateway.controlplane.store.database import StoreBusy, StoreError
from gateway.crews import Crews
from gateway.errors import Problem
from gateway.fleet import Fleet
from gateway.listener import HttpLimits, HttpServer, PortInUse, bind
from gateway.prover_process import Prover
from gateway.resources import AssetModel, Desired, LocalModel
from gateway.scheduling import yield_at_once
from gateway.seats import SeatTable
from gateway.settings import Listen, Settings
from gateway.telemetry.app import telemetry_app
from gateway.telemetry.gpu import GpuFacts, GpuWatch
from gateway.telemetry.logs import configure
from gateway.telemetry.metrics import DeploymentFacts, SupervisorFacts, page
from gateway.tls import Pair, ServerContext, TlsError, make_context, read_pair, reload
from runtimes import available_cores, available_memory

log = logging.getLogger(__name__)

# What a scorer takes before it has loaded a model.
SCORER_BYTES = 100 * 1024 * 1024
RENEW_EVERY_S = 24 * 3600.0
CERTIFICATES_EVERY_MS = 2000
# How long a port may still be held by what a killed gateway left, and how often that is looked at.
PORT_WAIT_S, PORT_EVERY_S = 3.0, 0.1
ADDRESS_FILE = "management.json"

CANNOT_START = (
    *(StateError, StoreError, StoreBusy, FolderError, Problem),
    *(CertificateError, TlsError, PortInUse),
    *(ModelChanged, ChangeRefused, ScorerDied, RemoteFailed, TimeoutError, OSError),
)


def serve(settings: Settings, begun: list[Child]) -> int:
    """Serve until told to stop, with the scorers' processes that were begun and others. Returns the exit status."""
    configure(settings.log_level, settings.log_format)
    try:
        status: int = uvloop.run(_serve(settings, begun))
    finally:
        for child in begun:
            child.kill()
    return status


async def _serve(settings: Settings, begun: list[Child]) -> int:
    # A score goes before whatever is managed. What is done on threads reads and writes whole models.
    yield_at_once()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(None, "aside", yield_at_once))
    try:
        supervisor = await Supervisor.open(settings, begun)
    except CANNOT_START as error:
        return _cannot_start(error)
    try:
        if await supervisor.start_unless_stopped():
            await supervisor.until_stopped()
    except CANNOT_START as error:
        return _cannot_start(error)
    finally:
        await supervisor.close()
    return 0


def _cannot_start(error: Exception) -> int:
    for problem in getattr(error, "problems", None) or getattr(error, "reasons", None) or (str(error),):
        log.error("cannot start: %s", problem)
    return 1


class Supervisor:
    """One gateway. Made, started, waited for and closed once."""

    def __init__(self, settings: Settings, state: State, plane: ControlPlane, begun: list[Child]) -> None:
        self._settings = settings
        self._begun = begun
        self._state = state
        self._plane = plane
        self._publisher = plane.publisher
        self._certificates = self._own_certificates()
        self._started_unix_s = time.time()
        self._is_ready = False
        self._is_draining = False
        self._restarts = {"signal": 0, "exit": 0}
        self._reloads = {"applied": 0, "refused": 0}
        self._is_last_reload_applied = True
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._servers: list[HttpServer] = []
        self._contexts: list[ServerContext] = []
        self._seen_pair: list[tuple[int, ...]] = []
        # The one that is served: the files may hold another, which was refused.
        self._tls: Pair | None = None
        self._gpus = GpuWatch()
        self._fleet: Fleet | None = None
        self._prover: Prover | None = None
        self._crews: Crews | None = None
        self._control: asyncio.Server | None = None

    # Start.

    @classmethod
    async def open(cls, settings: Settings, begun: list[Child]) -> Supervisor:
        """Take the state folder, and open what is in it. Errors: some of CANNOT_START."""
        state = open_state(settings.state)
        try:
            plane = await ControlPlane.open(settings, state, os.environ)
            try:
                return cls(settings, state, plane, begun)
            except BaseException:
                await plane.close()
                raise
        except BaseException:
            state.close()
            raise

    async def start_unless_stopped(self) -> bool:
        """Start; a signal that comes before all is loaded ends it at once. Whether it started."""
        starting = asyncio.create_task(self.start())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not starting.done():
            log.warning("stopped before all was loaded")
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return False
        await starting
        return True

    async def start(self) -> None:
        """Everything up to the ready line. Errors: any of CANNOT_START."""
        self._listen_to_signals()
        settings = self._settings
        planned = await self._plane.plan_start()
        scorers = settings.scorers or _default_scorers(planned.desired)
        # Before the files are read: a change from here on is a change.
        if self._speaks_tls():
            self._seen_pair = _versions(self._pair())
            self._tls = read_pair(*self._pair())
        scorer_settings = self._scorer_settings(scorers)
        sockets = await bind_again(settings.scoring, shared=scorers)
        scoring = _at(settings.scoring, sockets[0].getsockname()[1])
        seats_fd = SeatTable.create(scorers)
        self._seats = SeatTable(seats_fd, scorers)
        self._fleet = Fleet(
            *(scorer_settings, sockets, self._seats, seats_fd, self._count_restart, self._plane.on_degraded),
            load_timeout_s=settings.load_timeout_s,
            begun=self._begun,
        )
        self._prover = Prover(settings.log_level, settings.log_format, limit_s=settings.load_timeout_s)
        self._publisher.attach(self._fleet, self._seats, self._prover)
        self._crews = Crews(self._fleet)
        self._fleet.on_recycle = self._crews.recycle
        self._plane.scripts.attach(self._crews)
        # The scorers start while the models are linked and hashed; the change waits for them.
        self._fleet.start_soon()
        telemetry = await self._listen(settings.telemetry, telemetry_app(self))
        urls = Urls(
            scheme=settings.management.scheme,
            management_url=settings.management_url,
            scoring_url=settings.scoring_url,
            scoring_scheme=scoring.scheme,
            scoring_port=scoring.port,
        )
        await self._plane.start(planned, self._fleet.collect)
        app = self._plane.app(self, urls, _version("inference-gateway"))
        self._management = await self._listen(settings.management, app)
        self._write_address()
        self._control = await serve_control(self, self._state.path / "control.sock")
        self._watch_certificates()
        # What is there now stays: the collector would stop the listeners for tens of milliseconds to look at it.
        gc.freeze()
        self._is_ready = True
        ca = self._certificates.ca if self._certificates is not None else settings.tls_cert
        print(  # noqa: T201 - the one line on stdout
            f"ready scoring={scoring.url} management={self._management.url} telemetry={telemetry.url} ca={ca or ''}",
            flush=True,
        )

    async def until_stopped(self) -> None:
        """Wait for a signal, then drain: not ready first, serve on for the grace, then finish what runs."""
        assert self._fleet is not None
        await self._stopping.wait()
        self._is_draining = True
        self._plane.scripts.streams.close()
        grace_s = 0.0 if self._hurry.is_set() else self._settings.drain_grace_s
        log.info("draining: serving on for %g s, then finishing what runs", grace_s)
        draining = asyncio.create_task(self._fleet.drain(grace_s, self._settings.drain_timeout_s))
        hurried = asyncio.create_task(self._hurried())
        await asyncio.wait({draining, hurried}, return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            log.warning("a second signal: stopping at once")
            draining.cancel()
        hurried.cancel()
        await asyncio.gather(draining, hurried, return_exceptions=True)
        log.info("drained")

    async def close(self) -> None:
        """Give everything back; safe after a start that failed half-way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._servers:
            await server.close()
        await self._plane.close()
        if self._crews is not None:
            await self._crews.close(0.0)
        if self._prover is not None:
            await self._prover.close()
        if self._fleet is not None:
            await self._fleet.stop()
        if self._control is not None:
            self._control.close()
            (self._state.path / "control.sock").unlink(missing_ok=True)
            (self._state.path / ADDRESS_FILE).unlink(missing_ok=True)
        self._state.close()

    # What the operator asks (controlplane/management.py).

    async def reload(self) -> Answer:
        """Read the folder again and serve what it says now; on any mistake nothing changes."""
        try:
            async with self._reloading:
                await self._plane.apply_folder()
        except (FolderError, Problem) as error:
            self._reloads["refused"] += 1
            self._is_last_reload_applied = False
            log.error("the change is refused, what was served is served on: %s", error)
            return Answer(False, f"the change is refused, what was served is served on: {error}")
        self._reloads["applied"] += 1
        self._is_last_reload_applied = True
        publisher = self._publisher
        message = f"revision {publisher.revision} is served: {len(publisher.applied.loaded)} deployments"
        log.info(message)
        return Answer(True, message, self.status())

    def status(self) -> dict[str, Any]:
        assert self._fleet is not None
        return {
            "revision": self._publisher.revision,
            "ready": self.is_ready()[0],
            "scorers": {"wanted": len(self._fleet.scorers), "serving": self._fleet.serving},
            "pids": {"supervisor": os.getpid(), "scorers": [scorer.pid for scorer in self._fleet.scorers]},
            "endpoints": self._plane.status(self._fleet.ledger.total()),
        }

    # What the telemetry listener asks (telemetry/app.py).

    async def metrics(self, accept: str = "") -> tuple[bytes, str]:
        assert self._fleet is not None
        totals, gpus = await asyncio.gather(self._fleet.collect(), self._gpus.read())
        return page(totals, self._facts(gpus), self._settings.triton_metrics, accept)

    def is_started(self) -> bool:
        return self._is_ready

    def is_draining(self) -> bool:
        return self._is_draining

    def is_ready(self) -> tuple[bool, str]:
        if self._is_draining:
            return False, "draining"
        if not self._is_ready:
            return False, "starting"
        if self._fleet is None or not self._fleet.serving:
            return False, "no scorer is serving"
        if self._publisher.desired.deployments and not self._publisher.applied.loaded:
            return False, "no deployment is loaded"
        return True, "ready"

    def _write_address(self) -> None:
        """Where the commands find the management listener, and the one certificate that they trust there."""
        is_secret = self._management.scheme == "https" and self._tls is not None
        certificate = self._tls.leaf if self._tls is not None and is_secret else ""
        address = {"url": self._management.url, "certificate": certificate}
        write_private(self._state.path / ADDRESS_FILE, json.dumps(address).encode())

    # Listeners, certificates, signals.

    async def _listen(self, where: Listen, app: Any) -> Listen:
        context = None
        if where.scheme == "https":
            assert self._tls is not None
            context = make_context(self._tls, self._settings.tls_profile)
            self._contexts.append(context)
        server = HttpServer(app, HttpLimits(), context)
        (sock,) = await bind_again(where)
        await server.start(sock)
        self._servers.append(server)
        return _at(where, sock.getsockname()[1])

    def _own_certificates(self) -> CertPaths | None:
        """The private CA's certificate, where some listener speaks TLS and none is given."""
        settings = self._settings
        if settings.tls_cert is not None or not self._speaks_tls():
            return None
        hosts = {listen.host for listen in self._listeners()} - {"0.0.0.0", "::"}  # noqa: S104
        wildcard = [f"*.{settings.domain}", settings.domain] if settings.domain else []
        return ensure_certificates(self._state.tls, [*sorted(hosts), *settings.tls_names, *wildcard])

    def _listeners(self) -> tuple[Listen, Listen, Listen]:
        return (self._settings.scoring, self._settings.management, self._settings.telemetry)

    def _speaks_tls(self) -> bool:
        return any(listen.scheme == "https" for listen in self._listeners())

    def _pair(self) -> tuple[Path, Path]:
        if self._certificates is not None:
            return self._certificates.cert, self._certificates.key
        assert self._settings.tls_cert is not None
        assert self._settings.tls_key is not None
        return self._settings.tls_cert, self._settings.tls_key

    def _scorer_settings(self, scorers: int) -> ScorerSettings:
        settings = self._settings
        tls = self._tls if settings.scoring.scheme == "https" else None
        if tls is not None:
            # Checked here first, so that a bad pair is one clear sentence and not N processes that fail.
            make_context(tls, settings.tls_profile)
        return ScorerSettings(
            scorers=scorers,
            http=HttpLimits(
                headers_max=settings.max_headers,
                header_bytes_max=settings.max_header_bytes,
                uri_bytes_max=settings.max_uri_bytes,
                header_timeout_s=settings.header_timeout_s,
                body_bytes_per_s_min=settings.body_min_bytes_per_s,
                idle_timeout_s=settings.idle_timeout_s,
                connections_max=-(-settings.max_connections // scorers),
            ),
            tls=tls,
            tls_profile=settings.tls_profile,
            domain=settings.domain,
            gzip=settings.gzip,
            timeout_status=settings.timeout_status,
            mirror_in_flight_max=settings.mirror_in_flight_max,
            version=_version("inference-gateway"),
            log_level=settings.log_level,
            log_format=settings.log_format,
            collection=CollectionSettings(
                folder=str(self._plane.collected.folder),
                bytes_max=settings.data_collection_max_bytes,
                queue_bytes_max=settings.data_collection_queue_bytes,
            ),
        )

    def _watch_certificates(self) -> None:
        if self._tls is not None:
            self._run(self._reload_certificates())
        if self._certificates is not None:
            self._run(self._renew_certificates())

    async def _reload_certificates(self) -> None:
        from watchfiles import awatch

        folders = {path.absolute().parent for path in self._pair()}
        # The files are looked at now and then as well: a change before the watch stands, or in a folder that was
        # replaced whole, is told to nobody.
        async for _ in awatch(*folders, recursive=False, yield_on_timeout=True, rust_timeout=CERTIFICATES_EVERY_MS):
            found = _versions(self._pair())
            if found != self._seen_pair:
                self._seen_pair = found
                await self._load_certificates()

    async def _renew_certificates(self) -> None:
        """Makes a new certificate before the private CA's runs out; writing it makes the watch load it."""
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            try:
                await asyncio.to_thread(self._own_certificates)
            except CertificateError as error:
                log.error("the certificate could not be renewed: %s", error)

    async def _load_certificates(self) -> None:
        assert self._fleet is not None
        try:
            pair = read_pair(*self._pair())
            for context in self._contexts:
                reload(context, pair)
            if self._settings.scoring.scheme == "https":
                await self._fleet.reload_tls(pair)
        except (TlsError, RemoteFailed) as error:
            log.error("the new certificate is refused, the old one is served on: %s", error)
        except (ScorerDied, TimeoutError) as error:
            log.warning("not every scorer has the new certificate yet, it is given again: %s", error)
            self._seen_pair = []
        else:
            self._tls = pair
            self._write_address()
            log.info("new handshakes get the certificate now in %s", self._pair()[0])

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_stop, False)
        loop.add_signal_handler(signal.SIGINT, self._on_stop, True)
        loop.add_signal_handler(signal.SIGHUP, self._on_hang_up)

    def _on_hang_up(self) -> None:
        # Before the first snapshot is served there is nothing to change yet.
        if self._is_ready:
            self._run(self.reload())
            if self._seen_pair:
                self._run(self._load_certificates())

    def _on_stop(self, is_hurry: bool) -> None:
        # Ctrl-C skips the grace; any second signal ends the wait for what still runs.
        if is_hurry or self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    async def _hurried(self) -> None:
        """Returns at a signal that comes after the first."""
        self._hurry.clear()
        await self._hurry.wait()

    def _run(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a background task failed", exc_info=task.exception())

    # Facts.

    def _count_restart(self, reason: str) -> None:
        self._restarts[reason] += 1

    def _facts(self, gpus: tuple[GpuFacts, ...]) -> SupervisorFacts:
        assert self._fleet is not None
        serving = self._fleet.serving
        return SupervisorFacts(
            version=_version("inference-gateway"),
            python=platform.python_version(),
            onnxruntime=_version("onnxruntime") or _version("onnxruntime-gpu"),
            started_unix_s=self._started_unix_s,
            form=_form(),
            scorers={"serving": serving, "starting": len(self._fleet.scorers) - serving},
            scorer_restarts=self._restarts,
            tls_expiry_unix_s=self._tls.expires.timestamp() if self._tls is not None else None,
            is_last_reload_applied=self._is_last_reload_applied,
            config_reloads=self._reloads,
            deployments=tuple(self._deployment_facts()),
            slos_s={
                name: round(endpoint.slo_ms * 1e3) / 1e6
                for name, endpoint in self._publisher.desired.endpoints.items()
                if endpoint.slo_ms is not None
            },
            gpus=gpus,
            control=self._plane.facts(),
        )

    def _deployment_facts(self) -> list[DeploymentFacts]:
        facts = []
        for (endpoint, key), deployment in self._publisher.desired.deployments.items():
            loaded = self._publisher.applied.loaded.get(f"{endpoint}/{key}")
            if loaded is None:
                continue
            traffic = {
                name.lower(): weight for name, weight in self._publisher.desired.endpoints[endpoint].traffic.items()
            }
            scale = deployment.scale
            facts.append(
                DeploymentFacts(
                    endpoint=endpoint,
                    deployment=key,
                    sha256=loaded.sha256,
                    provider=loaded.provider,
                    load_s=loaded.load_s,
                    traffic=traffic.get(key, 0),
                    concurrency_limit=deployment.max_pending or 0,
                    min_rtt_s=self._publisher.applied.learned[f"{endpoint}/{key}"].run_ns / 1e9,
                    autoscale_instances=self._publisher.instances.get(f"{endpoint}/{key}", deployment.instance_count),
                    autoscale_max=scale.max_instances if scale is not None else 0,
                    collections=self._plane.collected.sink.counts(f"{endpoint}/{key}"),
                )
            )
        return facts


async def bind_again(where: Listen, *, shared: int = 1) -> list[socket.socket]:
    """As `bind`. Scorers of a gateway that was killed hold its port until they have noticed; that is waited for.

    Errors: PortInUse.
    """
    ends_s = time.monotonic() + PORT_WAIT_S
    while True:
        try:
            return bind(where.host, where.port, shared=shared)
        except PortInUse as error:
            is_held = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE
            if not is_held or time.monotonic() >= ends_s:
                raise
        await asyncio.sleep(PORT_EVERY_S)


def _default_scorers(desired: Desired) -> int:
    """One a core; one in all where a deployment holds a GPU; fewer where so many copies of the models do not fit."""
    deployments = desired.deployments.values()
    if any(deployment.provider != "cpu" for deployment in deployments):
        return 1
    # A copy of a model takes its files' size for the weights, and about as much again to run.
    copy_bytes = SCORER_BYTES + sum(2 * _size(deployment.model) for deployment in deployments)
    return max(1, min(available_cores(), available_memory() // copy_bytes))


def _size(model: AssetModel | LocalModel | None) -> int:
    return sum(size for _, _, size in model.files) if isinstance(model, AssetModel) else 0


def _at(listen: Listen, port: int) -> Listen:
    return Listen(listen.scheme, listen.host, port)


def _versions(paths: tuple[Path, ...]) -> list[tuple[int, ...]]:
    """What tells one version of each file from the next; (0,) for one that is not there."""
    versions: list[tuple[int, ...]] = []
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            versions.append((0,))
        else:
            versions.append((found.st_ino, found.st_size, found.st_mtime_ns))
    return versions


def _form() -> str:
    """Whether requests are scored by the sources as they stand, or by what was compiled of them."""
    return "compiled" if str(identity.__file__).endswith(tuple(EXTENSION_SUFFIXES)) else "pure"


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
