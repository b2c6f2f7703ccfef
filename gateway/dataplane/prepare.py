"""From a snapshot's plain data to live runtimes, proven and warmed: the scorer's half of a two-phase change.

Why here: this is the one caller of the loader. Nothing that is served is touched until `commit`; a runtime whose
spec did not change is kept, so a change of traffic loads nothing.
Threads: models are opened on one loader thread; everything else happens on the loop.
Errors: a deployment that cannot be loaded is named in `Prepared.failures`, with one sentence; it raises nothing.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from gateway.channel import Loaded, Prepared
from gateway.dataplane.admit import Gate
from gateway.dataplane.authenticate import Authenticator
from gateway.dataplane.live import (
    LiveDeployment,
    LiveEndpoint,
    LiveRuntime,
    LiveSnapshot,
    SnapshotCell,
    Target,
    scoring_paths,
)
from gateway.seats import SeatTable
from gateway.snapshot import DeploymentSpec, EndpointSpec, LearnedByName, SnapshotSpec
from gateway.telemetry.record import ScorerRecord
from runtimes import Learned, LoadFailed, RuntimeSpec, Scheduler, available_cores, now_ns
from runtimes.loader import OpenModel, open_model
from runtimes.runtime import Runtime

log = logging.getLogger(__name__)


class _Ready:
    """A runtime that is loaded, served or about to be."""

    def __init__(self, spec: RuntimeSpec, live: LiveRuntime, learned: Learned, facts: Loaded) -> None:
        self.spec = spec
        self.live = live
        self.learned = learned
        self.facts = facts


class Preparer:
    """Prepares, commits and aborts snapshots for one scorer. At most one change is under way at a time."""

    def __init__(
        self,
        *,
        cell: SnapshotCell,
        record: ScorerRecord,
        seats: SeatTable,
        index: int,
        scorers: int,
        scheduler: Scheduler,
    ) -> None:
        self._cell = cell
        self._record = record
        self._seats = seats
        self._index = index
        self._scorers = scorers
        self._scheduler = scheduler
        self._loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
        self._served: dict[str, _Ready] = {}
        self._prepared: dict[str, _Ready] = {}
        self._pending: SnapshotSpec | None = None
        self._failures: dict[str, str] = {}
        self._authenticators: dict[str, Authenticator] = {}

    async def prepare(self, spec: SnapshotSpec, learned: LearnedByName) -> Prepared:
        """Load what the spec names and is not loaded yet. Errors: ValueError for a way of proving callers that
        cannot work."""
        authenticators = await self._prove_callers(spec)
        failures: dict[str, str] = {}
        wanted: dict[str, _Ready] = {}
        for name, deployment in _deployments(spec):
            try:
                wanted[name] = self._known(name, deployment.runtime) or await self._load(name, deployment, learned)
            except LoadFailed as error:
                failures[name] = str(error)
            except Exception as error:
                log.exception("deployment %s could not be loaded", name)
                failures[name] = f"the gateway failed while loading it: {type(error).__name__}: {error}"
        self._forget_prepared(keep=wanted)
        self._prepared = wanted
        self._pending = spec
        self._failures = failures
        self._authenticators = authenticators
        return Prepared(
            revision=spec.revision,
            learned={name: ready.learned for name, ready in wanted.items()},
            failures=failures,
            loaded={name: ready.facts for name, ready in wanted.items()},
        )

    def commit(self, revision: int) -> None:
        """Publish what was prepared, then drain what is no longer named. Errors: ValueError on a wrong revision.

        Deployments that failed to load are published as failed: requests for them get 503 with the reason.
        """
        spec = self._pending
        if spec is None or spec.revision != revision:
            raise ValueError(f"revision {revision} was not prepared here")
        old, self._served, self._prepared = self._served, self._prepared, {}
        self._pending = None
        before = self._cell.current
        for name, endpoint in spec.endpoints.items():
            self._record.endpoint(name).keep_slo(endpoint.slo_ns)
        self._cell.publish(self._live(spec, before))
        for name, ready in old.items():
            if self._served.get(name) is not ready:
                self._retire(name, ready)
        # Metrics of what is not served any more vanish; those of the rest go on counting.
        self._record.keep_only({name: endpoint.deployments for name, endpoint in spec.endpoints.items()})

    def abort(self, revision: int) -> None:
        """Forget what was prepared; what is served stays."""
        if self._pending is not None and self._pending.revision == revision:
            self._forget_prepared(keep={})
            self._prepared = {}
            self._pending = None

    def measure(self) -> None:
        """Set the gauges of what is served: how many items wait in each queue, and since when the oldest does."""
        for name, ready in self._served.items():
            endpoint, key = name.split("/")
            status = ready.live.runtime.status()
            record = self._record.deployment(endpoint, key)
            record.queue_depth = status.queued_items
            record.queue_oldest_ns = status.oldest_wait_ns
            record.batch_rows_limit = status.rows_cap

    def close(self) -> None:
        self._loader.shutdown(wait=False, cancel_futures=True)

    async def _prove_callers(self, spec: SnapshotSpec) -> dict[str, Authenticator]:
        """One authenticator an endpoint. Verified tokens and fetched keys stay while its rules do not change."""
        authenticators = {}
        for name, endpoint in spec.endpoints.items():
            before = self._cell.current.endpoints.get(name)
            if before is not None and (before.spec.auth, before.spec.name) == (endpoint.auth, endpoint.name):
                authenticators[name] = before.authenticator
                continue
            authenticators[name] = Authenticator(endpoint.auth, endpoint.name)
        # Now, so that the first caller need not wait; an issuer that is away is asked again later.
        fresh = [authenticators[name] for name, endpoint in spec.endpoints.items() if endpoint.auth.oidc is not None]
        await asyncio.gather(*(authenticator.refresh() for authenticator in fresh))
        return authenticators

    def _known(self, name: str, spec: RuntimeSpec) -> _Ready | None:
        for ready in (self._served.get(name), self._prepared.get(name)):
            if ready is not None and ready.spec == spec:
                return ready
        return None

    async def _load(self, name: str, deployment: DeploymentSpec, learned: LearnedByName) -> _Ready:
        began_ns = now_ns()
        loop = asyncio.get_running_loop()
        # What is given for a deployment is shared out over the scorers, rounded up.
        share = replace(deployment.runtime, instance_count=-(-deployment.runtime.instance_count // self._scorers))
        cores = max(1, available_cores() // self._scorers)
        open_share = partial(open_model, share, learned.get(name), cores=cores)
        model: OpenModel = await loop.run_in_executor(self._loader, open_share)
        limits = deployment.runtime.batching.limits
        endpoint_name, deployment_name = name.split("/")
        runtime = Runtime(
            name=name,
            sessions=model.sessions,
            signature=model.signature,
            limits=replace(
                limits,
                batch_rows_max=model.learned.rows_max or limits.batch_rows_max,
                queue_items_max=-(-limits.queue_items_max // self._scorers),
            ),
            dispatch=model.learned.dispatch,
            run_times=model.learned.run_times,
            scheduler=self._scheduler,
            observer=self._record.deployment(endpoint_name, deployment_name),
        )
        load_s = (now_ns() - began_ns) / 1e9
        # The first scorer tells; those that take over what it learned have nothing new to say.
        level = logging.DEBUG if name in learned else logging.INFO
        log.log(level, "%s is loaded in %.2f s; %s", name, load_s, model.learned.reason)
        if model.learned.padding_reason and model.learned.padding is None:
            log.log(
                logging.DEBUG if name in learned else logging.WARNING, "%s: %s", name, model.learned.padding_reason
            )
        facts = Loaded(load_s=load_s, provider=model.provider, sha256=deployment.runtime.sha256)
        return _Ready(deployment.runtime, LiveRuntime(runtime), model.learned, facts)

    def _forget_prepared(self, keep: dict[str, _Ready]) -> None:
        for name, ready in self._prepared.items():
            if keep.get(name) is not ready and self._served.get(name) is not ready:
                self._retire(name, ready)

    def _retire(self, name: str, ready: _Ready) -> None:
        ready.live.retire(lambda: log.info("%s is drained and closed", name))

    def _live(self, spec: SnapshotSpec, before: LiveSnapshot) -> LiveSnapshot:
        endpoints = {
            name: self._live_endpoint(name, endpoint, before.endpoints.get(name))
            for name, endpoint in spec.endpoints.items()
        }
        targets: dict[str, Target] = {}
        for endpoint in endpoints.values():
            targets |= scoring_paths(endpoint)
        return LiveSnapshot(revision=spec.revision, endpoints=endpoints, targets=targets)

    def _live_endpoint(self, name: str, spec: EndpointSpec, before: LiveEndpoint | None) -> LiveEndpoint:
        deployments = {
            key: self._live_deployment(name, key, spec.name, deployment)
            for key, deployment in spec.deployments.items()
            if f"{name}/{key}" in self._served
        }
        failed = {key: self._failures[f"{name}/{key}"] for key in spec.deployments if key not in deployments}
        endpoint = LiveEndpoint(
            spec=spec,
            authenticator=self._authenticators[name],
            deployments=deployments,
            failed=failed,
            record=self._record.endpoint(name),
        )
        if before is not None and before.spec.traffic == spec.traffic:
            endpoint.turns = before.turns
        return endpoint

    def _live_deployment(self, endpoint: str, key: str, endpoint_name: str, spec: DeploymentSpec) -> LiveDeployment:
        return LiveDeployment(
            name=spec.name,
            endpoint_name=endpoint_name,
            spec=spec,
            live=self._served[f"{endpoint}/{key}"].live,
            gate=Gate(spec.name, spec.pending_max, self._seats, max(0, spec.seat), self._index),
            record=self._record.deployment(endpoint, key),
        )


def _deployments(spec: SnapshotSpec) -> list[tuple[str, DeploymentSpec]]:
    """Every deployment under its "endpoint/deployment" name, lower-cased as the keys are."""
    return [
        (f"{endpoint}/{key}", deployment)
        for endpoint, endpoint_spec in spec.endpoints.items()
        for key, deployment in endpoint_spec.deployments.items()
    ]
