"""Publisher: what is served now, on every scorer, and the one way to change it.

What: `load` makes one deployment ready on every scorer while nothing else is held up; `publish` swaps what is served,
whole, in two phases (reconcile.py). Edits are functions over what is served at that moment, so changes of different
endpoints that end at the same time lose nothing of each other.
Errors: ChangeRefused, LoadRefused: nothing has changed then.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

from gateway.controlplane import reconcile
from gateway.controlplane.model_store import ModelStore
from gateway.controlplane.plan import Defaults, Secrets, bounded, deployment_spec, plan, with_instances
from gateway.controlplane.reconcile import Applied, LoadRefused, Prepares, Proves, change
from gateway.controlplane.scripts import ScriptRefused, Scripts
from gateway.resources import AssetModel, Deployment, Desired, Endpoint, LocalModel
from gateway.seats import ROWS_MAX, SeatTable
from gateway.snapshot import DeploymentSpec, LearnedByName, SnapshotSpec
from runtimes import RuntimeSpec, ScriptSpec, same_but_capacity

log = logging.getLogger(__name__)

EMPTY = Desired(endpoints={}, deployments={})
_NOTHING = Applied(learned={}, loaded={}, failures={})
PROVEN_APART_BYTES = 4 * 1024 * 1024
WHOLE_WITHIN_S, WHOLE_EVERY_S = 60.0, 0.1

# Which deployments may fail to load: "known" those that failed before and nobody touched, "some" any as long as one
# loads, "all" any.
Tolerate = Literal["known", "some", "all"]
Edit = Callable[[Desired], Desired]


class Fleet(Protocol):
    """The scorers as a publisher sees them."""

    changing: asyncio.Lock
    current: tuple[SnapshotSpec, LearnedByName] | None
    degraded: dict[str, str]

    @property
    def members(self) -> Sequence[Prepares]: ...

    async def started(self) -> None:
        """Returns once the scorers can be asked."""
        ...

    def keep_records(self, spec: SnapshotSpec) -> None:
        """Forget the counters of what the snapshot does not name."""
        ...


class Publisher:
    """Holds what is served. One a gateway; used from the supervisor's loop."""

    def __init__(self, models: ModelStore, defaults: Defaults, scripts: Scripts) -> None:
        self.desired = EMPTY
        self.applied = _NOTHING
        self.revision = 0
        # How many instances run where that is not what the document says, by "endpoint/deployment".
        self.instances: dict[str, int] = {}
        self._secrets: dict[str, Secrets] = {}
        # The models of what is loaded aside.
        self._ahead: dict[str, AssetModel] = {}
        self._models = models
        self._scripts = scripts
        self._rows: dict[str, int] = {}
        self._defaults = defaults
        self._revisions = itertools.count(1)

    def attach(self, fleet: Fleet, seats: SeatTable, prover: Proves | None = None) -> None:
        """The scorers, which are started once it is known how many are needed, and who proves models of some size."""
        self._fleet = fleet
        self._seats = seats
        self._prover = prover

    async def load(self, endpoint: str, deployment: Deployment) -> None:
        """Make a deployment ready everywhere, aside from what is served. Errors: LoadRefused."""
        name = f"{endpoint}/{deployment.name.lower()}"
        deployment = _scaled(deployment, self.instances.get(name))
        if deployment.script is not None:
            await self._load_script(name, deployment)
            return
        assert isinstance(deployment.model, AssetModel), "what is served has been registered"
        self._scripts.forget_words(name)
        await self.unload(endpoint, deployment.name.lower())
        self._ahead[name] = deployment.model
        self._models.hold(deployment.model)
        stored = await asyncio.to_thread(self._models.take, deployment.model)
        spec = deployment_spec(deployment, stored, -1, self._defaults)
        await self._fleet.started()
        if name not in self.applied.loaded or self._runtime(name) != spec.runtime:
            prover = self._prover if _is_proven_apart(deployment) else None
            await reconcile.load(self._fleet.members, name, spec, self._learned(name, spec), prover)

    async def _load_script(self, name: str, deployment: Deployment) -> None:
        await self._fleet.started()
        try:
            await self._scripts.ensure(name, deployment)
        except ScriptRefused as error:
            raise LoadRefused(str(error), code=error.code) from error

    async def whole(self) -> None:
        """Returns once every scorer can be asked, as one that died is being replaced; after `WHOLE_WITHIN_S` at the
        latest."""
        await self._fleet.started()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WHOLE_WITHIN_S):
                while not all(member.is_up for member in self._fleet.members):
                    await asyncio.sleep(WHOLE_EVERY_S)

    async def unload(self, endpoint: str, key: str) -> None:
        """Forget what `load` made ready, if nothing was published of it."""
        name = f"{endpoint}/{key}"
        model = self._ahead.pop(name, None)
        if model is not None:
            self._models.let_go(model)
            await reconcile.unload(self._fleet.members, name)
        await self._scripts.forget(name)

    def settle(self, endpoint: str, key: str) -> None:
        """What `load` made ready is served now."""
        model = self._ahead.pop(f"{endpoint}/{key}", None)
        if model is not None:
            self._models.let_go(model)

    async def publish(
        self, edit: Edit, secrets: Mapping[str, Secrets] | None = None, tolerate: Tolerate = "known"
    ) -> Applied:
        """Serve what the edit makes of what is served. `secrets` are those of endpoints whose secrets are new."""
        await self._fleet.started()
        async with self._fleet.changing:
            desired = edit(self.desired)
            merged = {**self._secrets, **(secrets or {})}
            kept = {name: merged[name] for name in desired.endpoints}
            instances = {name: count for name, count in self.instances.items() if _scales(desired, name)}
            rows = seat_rows(self._rows, list(bounded(desired)), self._seats)
            spec = await self._plan(with_instances(desired, instances), kept, rows)
            applied = await self._carry_out(spec, tolerate)
            self.desired, self.applied, self.revision = desired, applied, spec.revision
            self._rows, self._secrets, self.instances = rows, kept, instances
            self._scripts.settle({name: pool for name, pool in _pools(spec) if name not in applied.failures})
            await self._forget_models(spec)
        for name, reason in applied.failures.items():
            log.error("deployment %s failed to load and is not served: %s", name, reason)
        return applied

    async def _forget_models(self, spec: SnapshotSpec) -> None:
        served = [Path(runtime.path) for runtime in spec.runtimes() if runtime.path]
        try:
            await asyncio.to_thread(self._models.keep_only, served)
        except OSError as error:
            # The change is served; what is left over goes with the next one.
            log.warning("models that are not served any more are not removed yet: %s", error)

    async def scale(self, name: str, instances: int) -> None:
        """Run this many instances of "endpoint/deployment". Errors: as `load` and `publish`."""
        endpoint, _, key = name.partition("/")
        before = self.instances.get(name)
        self.instances[name] = instances
        try:
            await self.load(endpoint, self.desired.deployments[endpoint, key])
            await self.publish(lambda desired: desired)
        except BaseException:
            self.instances.pop(name, None)
            if before is not None:
                self.instances[name] = before
            await self.unload(endpoint, key)
            raise
        self.settle(endpoint, key)

    async def _plan(self, desired: Desired, secrets: Mapping[str, Secrets], rows: Mapping[str, int]) -> SnapshotSpec:
        models = await self._take(one for one in desired.deployments.values() if one.model is not None)
        return plan(
            desired,
            # Every attempt has a number of its own, so that no scorer can take one for another.
            revision=next(self._revisions),
            secrets=secrets,
            models=models,
            seats=rows,
            defaults=self._defaults,
            scripts={name: await self._script(name, one) for name, one in _scripts(desired)},
        )

    async def _script(self, name: str, deployment: Deployment) -> ScriptSpec | str:
        """Its workers, or why it has none."""
        try:
            return await self._scripts.ensure(name, deployment)
        except ScriptRefused as error:
            return str(error)

    async def _take(self, deployments: Any) -> dict[AssetModel | LocalModel, Any]:
        models = {deployment.model for deployment in deployments}
        return await asyncio.to_thread(lambda: {model: self._models.take(model) for model in models})

    async def _carry_out(self, spec: SnapshotSpec, tolerate: Tolerate) -> Applied:
        before = self._fleet.current[0] if self._fleet.current is not None else SnapshotSpec(revision=0)
        known = {name: one for name, one in self.applied.learned.items() if _is_same(before, spec, name)}
        tolerated: Mapping[str, str] | None = None
        if tolerate == "known":
            # Of what failed before, only that which nobody touched may fail again.
            tolerated = {name: why for name, why in self.applied.failures.items() if _is_same(before, spec, name)}
        elif tolerate == "all":
            tolerated = {f"{name}/{key}": "" for name, one in spec.endpoints.items() for key in one.deployments}
        applied = await change(self._fleet.members, spec, known, tolerated)
        self._fleet.current = (spec, applied.learned)
        self._fleet.degraded = {}
        self._fleet.keep_records(spec)
        return applied

    def _runtime(self, name: str) -> RuntimeSpec | None:
        return _runtime_of(self._fleet.current[0], name) if self._fleet.current is not None else None

    def _learned(self, name: str, spec: DeploymentSpec) -> Any:
        served = self._runtime(name)
        is_known = served is not None and same_but_capacity(served, spec.runtime)
        return self.applied.learned.get(name) if is_known else None

    # What is told of it.

    def forget_words(self, name: str) -> None:
        """Of "endpoint/deployment", or of a whole endpoint, which is gone."""
        self._scripts.forget_words(name)

    def tail(self, name: str, lines: int) -> str:
        """The last lines of the workers of a script, "" where there are none."""
        return self._scripts.tail(name, lines) or ""

    def status(self) -> dict[str, Any]:
        return {name: self._endpoint_status(name, endpoint) for name, endpoint in self.desired.endpoints.items()}

    def _endpoint_status(self, name: str, endpoint: Endpoint) -> dict[str, Any]:
        return {
            "auth_mode": endpoint.auth_mode.value,
            "traffic": endpoint.traffic,
            "mirror_traffic": endpoint.mirror_traffic,
            "deployments": {
                deployment.name: self.deployment_status(f"{name}/{key}")
                for (owner, key), deployment in self.desired.deployments.items()
                if owner == name
            },
        }

    def states(self, failed: Collection[str]) -> dict[str, int]:
        """How many deployments are in each state, every one counted once. `failed`: whose last update failed."""
        loaded = self.applied.loaded.keys()
        stale = loaded & set(failed)
        degraded = (loaded & self._fleet.degraded.keys()) - stale
        return {
            "serving": len(loaded) - len(degraded) - len(stale),
            "degraded": len(degraded),
            "update_failed": len(stale),
            "failed": len((self.applied.failures.keys() | set(failed)) - loaded),
        }

    def deployment_status(self, name: str) -> dict[str, Any]:
        failure = self.applied.failures.get(name)
        if failure is not None:
            return {"state": "Failed", "reason": failure}
        learned, loaded = self.applied.learned[name], self.applied.loaded[name]
        degraded = self._fleet.degraded.get(name)
        count = self.instances.get(name)
        return {
            "state": "Succeeded",
            **({"degraded": f"a scorer that was replaced could not load it again: {degraded}"} if degraded else {}),
            "sha256": loaded.sha256,
            **self._repository_status(name),
            "provider": loaded.provider,
            "load_s": round(loaded.load_s, 3),
            "batched": learned.batched,
            "batching": learned.reason,
            **({"padding": learned.padding_reason} if learned.padding_reason else {}),
            "dispatch": learned.dispatch,
            "rows_max": learned.rows_max,
            "threads": learned.threads,
            "instances": learned.instances,
            **({"instance_count": count} if count is not None else {}),
            "reasons": learned.reasons,
            "run_us": round(learned.run_ns / 1000, 1),
            "run_us_by_rows": {str(rows): round(ns / 1000, 1) for rows, ns in learned.run_times.items()},
        }

    def _repository_status(self, name: str) -> dict[str, Any]:
        """What a Triton repository calls the model, and what of its configuration shows nowhere else."""
        endpoint, _, key = name.partition("/")
        deployment = self.desired.deployments.get((endpoint, key))
        if deployment is None or deployment.triton is None:
            return {}
        limits = deployment.batching.limits
        return {
            "model": deployment.triton.name,
            "version": deployment.triton.version,
            "notes": list(deployment.triton.notes),
            "queue_delay_us": limits.queue_delay_ns // 1000,
            "preferred_rows": list(limits.preferred),
        }


def _is_proven_apart(deployment: Deployment) -> bool:
    """A small model is proven before a process is started; one on a device would need the device's memory twice."""
    model = deployment.model
    assert isinstance(model, AssetModel)
    return deployment.provider == "cpu" and sum(size for _, _, size in model.files) >= PROVEN_APART_BYTES


def _scales(desired: Desired, name: str) -> bool:
    """Whether this deployment is there, and its number of instances goes with its load."""
    endpoint, _, key = name.partition("/")
    found = desired.deployments.get((endpoint, key))
    return found is not None and found.scale is not None


def _scripts(desired: Desired) -> Iterator[tuple[str, Deployment]]:
    for key, deployment in desired.deployments.items():
        if deployment.script is not None:
            yield "/".join(key), deployment


def _pools(spec: SnapshotSpec) -> Iterator[tuple[str, str]]:
    """The pool of workers of each script deployment."""
    for endpoint, one in spec.endpoints.items():
        for key, deployment in one.deployments.items():
            if deployment.script is not None:
                yield f"{endpoint}/{key}", deployment.script.pool


def _scaled(deployment: Deployment, instances: int | None) -> Deployment:
    if instances is None or deployment.scale is None:
        return deployment
    return replace(deployment, instance_count=instances)


def seat_rows(rows: Mapping[str, int], names: list[str], table: SeatTable) -> dict[str, int]:
    """A row for each name: those that had one keep it, a new one gets one that nobody had or holds a seat in."""
    kept = {name: rows[name] for name in names if name in rows}
    had = set(rows.values())
    free = (row for row in range(ROWS_MAX) if row not in had and table.taken(row) == 0)
    return kept | {name: next(free) for name in names if name not in kept}


def _is_same(before: SnapshotSpec, after: SnapshotSpec, name: str) -> bool:
    """Whether "endpoint/deployment" has the same runtime in both: what was learned of one holds for the other."""
    one, other = _runtime_of(before, name), _runtime_of(after, name)
    return one is other is None or (one is not None and other is not None and same_but_capacity(one, other))


def _runtime_of(snapshot: SnapshotSpec, name: str) -> RuntimeSpec | None:
    endpoint, _, key = name.partition("/")
    found = snapshot.endpoints.get(endpoint)
    deployment = found.deployments.get(key) if found is not None else None
    return deployment.runtime if deployment is not None else None
