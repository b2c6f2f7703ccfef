"""From a snapshot's plain data to what is served: the scorer's half of a two-phase change.

What: `load` makes one deployment ready beside everything else and holds it aside; `prepare` gathers what a snapshot
names: what is served, what is held aside, and what it loads itself; `commit` publishes that whole.
Promise: nothing that is served is touched until `commit`. A runtime whose spec did not change is kept, so a change of
traffic loads nothing; one that differs in its capacity alone grows or shrinks while it serves, and a script whose
pool is the same keeps its client.
Ownership: a runtime lives for as long as it is served, prepared or held aside (`_let_go`).
What `prepare` loads itself it tells before: opening a model may hold Python's lock, and then nobody is answered.
Errors: a deployment that cannot be loaded is named in `Prepared.failures`, with one sentence; of `load`: LoadFailed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial

from gateway.channel import LoadDone, Prepared
from gateway.dataplane.admit import Gate
from gateway.dataplane.authenticate import Authenticator
from gateway.dataplane.capture import Captures
from gateway.dataplane.live import (
    LiveDeployment,
    LiveEndpoint,
    LiveSnapshot,
    SnapshotCell,
    Target,
)
from gateway.dataplane.load import Loader, Ready, Ticket, WorkerPools
from gateway.dataplane.paths import scoring_paths
from gateway.seats import SeatTable
from gateway.snapshot import DeploymentSpec, EndpointSpec, LearnedByName, SnapshotSpec
from gateway.telemetry.record import ScorerRecord
from runtimes import Learned, LoadFailed, Scheduler

log = logging.getLogger(__name__)


class Preparer:
    """Prepares, commits and aborts snapshots for one scorer, one change at a time; loads may run beside it."""

    def __init__(
        self,
        *,
        cell: SnapshotCell,
        record: ScorerRecord,
        seats: SeatTable,
        index: int,
        scorers: int,
        scheduler: Scheduler,
        pools: WorkerPools | None = None,
        captures: Captures | None = None,
        opening: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`pools`: how script workers are reached; without, scripts cannot be loaded. `captures`: how requests are
        collected; without, they are not. `opening`: told of each deployment whose models a `prepare` opens."""
        self._cell = cell
        self._record = record
        self._seats = seats
        self._index = index
        self._captures = captures
        self._opening = opening
        self._loader = Loader(scorers, scheduler, index, pools)
        # Who holds a runtime, by "endpoint/deployment": what is served, what a prepare has gathered so far, what it
        # has prepared, and what was loaded ahead of one.
        self._served: dict[str, Ready] = {}
        self._gathering: dict[str, Ready] = {}
        self._prepared: dict[str, Ready] = {}
        self._aside: dict[str, Ready] = {}
        self._tickets: dict[str, Ticket] = {}
        self._pending: SnapshotSpec | None = None
        self._failures: dict[str, str] = {}
        self._authenticators: dict[str, Authenticator] = {}

    async def load(self, name: str, deployment: DeploymentSpec, learned: Learned | None) -> LoadDone:
        """Make one deployment ready and hold it aside until it is served or unloaded. Errors: LoadFailed, also when
        it is unloaded, or loaded anew, meanwhile."""
        self._drop_ticket(name)
        ticket = self._tickets[name] = Ticket()
        try:
            ready = await self._ready(name, deployment, learned, ticket)
        finally:
            if self._tickets.get(name) is ticket:
                del self._tickets[name]
        held = self._aside.pop(name, None)
        if self._served.get(name) is not ready:
            self._aside[name] = ready
        if held is not None:
            self._let_go([(name, held)])
        return LoadDone(learned=ready.learned, loaded=ready.facts)

    def unload(self, name: str) -> None:
        """Forget what is loaded or held aside; what is served, or prepared to be, stays."""
        self._drop_ticket(name)
        held = self._aside.pop(name, None)
        if held is not None:
            self._let_go([(name, held)])

    async def prepare(self, spec: SnapshotSpec, learned: LearnedByName) -> Prepared:
        """Load what the spec names and is not loaded yet. Errors: ValueError for a way of proving callers that
        cannot work."""
        authenticators = await self._prove_callers(spec)
        try:
            failures = await self._gather(spec, learned)
            earlier, self._prepared = self._prepared, self._gathering
        except BaseException:
            earlier = self._gathering
            raise
        finally:
            self._gathering = {}
            self._let_go(earlier.items())
        self._pending = spec
        self._failures = failures
        self._authenticators = authenticators
        return Prepared(
            revision=spec.revision,
            learned={name: ready.learned for name, ready in self._prepared.items()},
            failures=failures,
            loaded={name: ready.facts for name, ready in self._prepared.items()},
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
        for name, ready in self._served.items():
            endpoint_name, key = name.split("/")
            ready.live.runtime.observe(self._record.deployment(endpoint_name, key))
            self._loader.settle(name, ready)
        self._cell.publish(self._live(spec, before))
        self._let_go([*self._taken_up(), *old.items()])
        # Metrics of what is not served any more vanish; those of the rest go on counting.
        self._record.keep_only({name: endpoint.deployments for name, endpoint in spec.endpoints.items()})

    def abort(self, revision: int) -> None:
        """Forget what was prepared; what is served stays, and what is held aside."""
        if self._pending is not None and self._pending.revision == revision:
            self._pending = None
            earlier, self._prepared = self._prepared, {}
            self._let_go(earlier.items())

    def measure(self) -> None:
        """Set the gauges of what is served: its instances, and what waits for them since when."""
        for name, ready in self._served.items():
            endpoint, key = name.split("/")
            status = ready.live.runtime.status()
            record = self._record.deployment(endpoint, key)
            record.queue_depth = status.queued_items
            record.queue_oldest_ns = status.oldest_wait_ns
            record.batch_rows_limit = status.rows_cap
            record.max_abs_difference = ready.live.largest_difference
            record.instances = status.instances
            record.busy = status.busy
            record.waiting_runs = status.waiting_runs

    def worker_gone(self, pool: str, worker: int) -> None:
        """A script's worker died: what it was running fails. A pool that is not used any more is no error."""
        self._loader.worker_gone(pool, worker)

    def close(self) -> None:
        self._loader.close()

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

    # What is loaded, and who holds it.

    async def _gather(self, spec: SnapshotSpec, learned: LearnedByName) -> dict[str, str]:
        """Everything that the snapshot names into `_gathering`; what failed, with the reason."""
        failures = {}
        for name, deployment in _deployments(spec):
            if deployment.failure:
                failures[name] = deployment.failure
                continue
            if self._opening is not None and deployment.script is None and self._known(name, deployment) is None:
                await self._opening(name)
            try:
                self._gathering[name] = await self._ready(name, deployment, learned.get(name), Ticket())
            except LoadFailed as error:
                failures[name] = str(error)
        return failures

    async def _ready(self, name: str, deployment: DeploymentSpec, learned: Learned | None, ticket: Ticket) -> Ready:
        """What is loaded already, that with another capacity, or else a runtime of its own. It must be put where it
        is held before anything else is awaited. Errors: LoadFailed."""
        try:
            while (ready := self._known(name, deployment)) is None:
                base = self._alike(name, deployment)
                if base is None:
                    return await self._loader.load(name, deployment, learned, ticket)
                ready = await self._loader.resize(base, deployment, ticket)
                if any(held.live is ready.live for held in self._held()):
                    break
                # Meanwhile nobody holds the runtime any more that was to grow.
                self._loader.discard(ready)
            return ready
        except LoadFailed:
            raise
        except Exception as error:
            log.exception("deployment %s could not be loaded", name)
            raise LoadFailed(f"the gateway failed while loading it: {type(error).__name__}: {error}") from error

    def _known(self, name: str, deployment: DeploymentSpec) -> Ready | None:
        for ready in self._of(name):
            if ready.is_as(deployment) and ready.is_enough:
                return ready
        return None

    def _alike(self, name: str, deployment: DeploymentSpec) -> Ready | None:
        return next((ready for ready in self._of(name) if ready.is_like(deployment)), None)

    def _of(self, name: str) -> Iterator[Ready]:
        """What is held under this name; what is served comes first."""
        for holder in (self._served, self._prepared, self._aside):
            if name in holder:
                yield holder[name]

    def _held(self) -> Iterator[Ready]:
        for holder in (self._served, self._gathering, self._prepared, self._aside):
            yield from holder.values()

    def _taken_up(self) -> list[tuple[str, Ready]]:
        """Take away what need not be held aside any more, as it is what is served now."""
        served = {name: (ready.spec, ready.script) for name, ready in self._served.items()}
        names = [name for name, held in self._aside.items() if served.get(name) == (held.spec, held.script)]
        return [(name, self._aside.pop(name)) for name in names]

    def _let_go(self, gone: Iterable[tuple[str, Ready]]) -> None:
        """Close what nobody holds: sessions at once, runtimes after their last request."""
        held = set(self._held())
        lives = {ready.live for ready in held}
        for name, ready in gone:
            if ready in held:
                continue
            self._loader.discard(ready)
            if ready.live not in lives:
                lives.add(ready.live)
                ready.live.retire(partial(log.info, "%s is drained and closed", name))

    def _drop_ticket(self, name: str) -> None:
        ticket = self._tickets.pop(name, None)
        if ticket is not None:
            ticket.is_dropped = True

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
        if before is not None:
            endpoint.go_on_from(before)
        return endpoint

    def _live_deployment(self, endpoint: str, key: str, endpoint_name: str, spec: DeploymentSpec) -> LiveDeployment:
        record = self._record.deployment(endpoint, key)
        return LiveDeployment(
            name=spec.name,
            endpoint_name=endpoint_name,
            spec=spec,
            live=self._served[f"{endpoint}/{key}"].live,
            gate=Gate(spec.name, spec.pending_max, self._seats, max(0, spec.seat), self._index),
            record=record,
            capture=self._captures.of(spec.collector, record) if self._captures is not None else None,
        )


def _deployments(spec: SnapshotSpec) -> list[tuple[str, DeploymentSpec]]:
    """Every deployment under its "endpoint/deployment" name, lower-cased as the keys are."""
    return [
        (f"{endpoint}/{key}", deployment)
        for endpoint, endpoint_spec in spec.endpoints.items()
        for key, deployment in endpoint_spec.deployments.items()
    ]
