"""One deployment's runtime, loaded beside what is served: from its spec to a Ready, which holds it until it serves.

Why here: this is the one caller of the runtimes' loader, whose models are opened on one thread, one after the other.
Capacity: a spec that differs from a loaded one in nothing but its instances makes a second Ready of the same runtime,
with the sessions that are missing; `settle` gives them to it, or takes instances away, while it serves.
Scripts: their workers are the supervisor's, ready before a scorer hears of them. Here a script is a client on the
sockets of its pool, made on the loop; a pool that stays keeps its client.
Ownership: a Ready owns its `extra` sessions until it is settled or they are discarded.
Threads: everything here is for the loop, but for what it gives to the loader's thread.
Errors: LoadFailed, with one sentence.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from gateway.channel import LoadDone, Loaded
from gateway.dataplane.live import LiveRuntime
from gateway.scheduling import yield_at_once
from gateway.snapshot import DeploymentSpec
from runtimes import (
    Learned,
    LoadFailed,
    NullObserver,
    RuntimeSpec,
    Scheduler,
    ScriptClient,
    ScriptSpec,
    Session,
    available_cores,
    now_ns,
    same_but_capacity,
    thread_ns,
)
from runtimes.loader import OpenModel, open_model, open_more, with_capacity
from runtimes.runtime import Runtime

log = logging.getLogger(__name__)

T = TypeVar("T")

# How long a pool's sockets may be on their way: the supervisor sends them before it asks for the load.
SOCKETS_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPools:
    """How a scorer reaches script workers. `sockets` gives the work and the reply socket of a pool, which then are
    the caller's; `recycle` asks the supervisor to replace a worker that runs on (pool, worker, number of the run).
    """

    sockets: Callable[[str], Awaitable[tuple[socket.socket, socket.socket]]]
    recycle: Callable[[str, int, int], None]


@dataclass(slots=True, kw_only=True, eq=False)
class Ready:
    """A runtime that is loaded, and as what: `script` where it is one. `extra`: sessions that it gets when this is
    what is served."""

    spec: RuntimeSpec
    script: ScriptSpec | None = None
    live: LiveRuntime
    learned: Learned
    facts: Loaded
    extra: tuple[Session, ...] = ()

    @property
    def is_enough(self) -> bool:
        """Whether it can have its instances: those that run may have become fewer since it was made. A script's are
        the supervisor's matter."""
        model = self.live.model
        return model is None or model.instances + len(self.extra) >= self.learned.instances

    def is_as(self, deployment: DeploymentSpec) -> bool:
        return self.spec == deployment.runtime and self.script == deployment.script

    def is_like(self, deployment: DeploymentSpec) -> bool:
        """Whether its runtime can become the deployment's while it serves."""
        if self.script is not None and deployment.script is not None:
            return self.script.pool == deployment.script.pool
        return self.script is deployment.script and same_but_capacity(self.spec, deployment.runtime)


class Ticket:
    """Who waits for a load; dropped when nobody does any more. Read by the loader's thread too."""

    def __init__(self) -> None:
        self.is_dropped = False

    def check(self) -> None:
        if self.is_dropped:
            raise LoadFailed("the load was given up, as it is not wanted any more")


def prove(name: str, deployment: DeploymentSpec) -> LoadDone:
    """Open a model, prove and measure it, and close it again, so that others need only open it. Blocks.
    Errors: LoadFailed."""
    began_ns = now_ns()
    # How many instances there shall be is each scorer's own matter.
    spec = replace(deployment.runtime, instance_count=1, instances=1)
    # Who proves may have to wait for a processor at any moment; a session of one thread runs on its caller's.
    model = open_model(spec, now=thread_ns if spec.threads <= 1 else now_ns)
    _close(model.sessions)
    load_s = (now_ns() - began_ns) / 1e9
    _tell(name, model.learned, load_s, is_news=True)
    facts = Loaded(load_s=load_s, provider=model.provider, sha256=spec.sha256)
    return LoadDone(learned=model.learned, loaded=facts)


class Loader:
    """Loads for scorer `index` of `scorers`. What is given for a deployment is shared out over them, rounded up."""

    def __init__(self, scorers: int, scheduler: Scheduler, index: int = 0, pools: WorkerPools | None = None) -> None:
        self._scorers = scorers
        self._index = index
        self._pools = pools
        # Every client that is not closed, also of deployments that drain.
        self._clients: list[ScriptClient] = []
        self._cores = max(1, available_cores() // scorers)
        self._scheduler = scheduler
        # Opening a model takes tens of milliseconds, and requests come meanwhile.
        self._thread = ThreadPoolExecutor(1, "loader", yield_at_once)

    async def load(self, name: str, deployment: DeploymentSpec, learned: Learned | None, ticket: Ticket) -> Ready:
        """A runtime that is proven and warm, and observed by nobody yet."""
        if deployment.script is not None:
            return await self._join(name, deployment, deployment.script, ticket)
        began_ns = now_ns()
        spec = deployment.runtime
        opening = partial(open_model, self._share(spec), learned, cores=self._cores)
        model: OpenModel = await self._on_thread(opening, ticket, lambda opened: opened.sessions)
        load_s = (now_ns() - began_ns) / 1e9
        _tell(name, model.learned, load_s, is_news=learned is None)
        facts = Loaded(load_s=load_s, provider=model.provider, sha256=spec.sha256)
        live = LiveRuntime(self._runtime(name, spec, model))
        return Ready(spec=spec, live=live, learned=model.learned, facts=facts)

    async def resize(self, base: Ready, deployment: DeploymentSpec, ticket: Ticket) -> Ready:
        """The same runtime with another capacity. The loader's thread is asked only where sessions are missing."""
        spec, script, runtime = deployment.runtime, deployment.script, base.live.model
        if runtime is None:
            assert script is not None
            learned = _learned_of(script)
            return Ready(spec=spec, script=script, live=base.live, learned=learned, facts=base.facts)
        share = self._share(spec)
        learned = with_capacity(share, base.learned, self._cores)
        extra: tuple[Session, ...] = ()
        if learned.instances > runtime.instances:
            opening = partial(open_more, share, learned, runtime.signature, runtime.instances)
            extra = await self._on_thread(opening, ticket, lambda opened: opened)
        return Ready(spec=spec, live=base.live, learned=learned, facts=base.facts, extra=extra)

    def settle(self, name: str, ready: Ready) -> None:
        """Give the runtime the instances that this Ready says it has. May be asked for again."""
        runtime = ready.live.model
        if runtime is None:
            assert ready.live.scripts is not None
            assert ready.script is not None
            ready.live.scripts.adapt(self._share_of(ready.script))
            return
        before = runtime.instances
        missing = ready.learned.instances - before
        if missing > 0:
            given, ready.extra = ready.extra[:missing], ready.extra[missing:]
            runtime.grow(given)
        elif missing < 0:
            runtime.shrink(-missing)
        if runtime.instances != before:
            log.info("%s has %d instances here now, %d before", name, runtime.instances, before)
        self.discard(ready)

    def discard(self, ready: Ready) -> None:
        """Close the sessions that nobody will use."""
        sessions, ready.extra = ready.extra, ()
        if sessions:
            self._thread.submit(_close, sessions)

    def worker_gone(self, pool: str, worker: int) -> None:
        """A script's worker died: what it was running fails. A pool that is not used any more is no error."""
        self._forget_closed()
        for client in self._clients:
            if client.spec.pool == pool:
                client.worker_gone(worker)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _on_thread(
        self, opening: Callable[[], T], ticket: Ticket, sessions: Callable[[T], tuple[Session, ...]]
    ) -> T:
        def open_if_wanted() -> T:
            ticket.check()
            opened = opening()
            if ticket.is_dropped:
                _close(sessions(opened))
            return opened

        opened = await asyncio.get_running_loop().run_in_executor(self._thread, open_if_wanted)
        ticket.check()
        return opened

    async def _join(self, name: str, deployment: DeploymentSpec, script: ScriptSpec, ticket: Ticket) -> Ready:
        """A client of the pool, whose workers are ready."""
        if self._pools is None:
            raise LoadFailed(f"{name} runs a scoring script, and this process was given no way to its workers")
        began_ns = now_ns()
        try:
            async with asyncio.timeout(SOCKETS_TIMEOUT_S):
                work, replies = await self._pools.sockets(script.pool)
        except TimeoutError as error:
            raise LoadFailed(
                f"the sockets of the script's workers (pool {script.pool}) did not arrive within "
                f"{SOCKETS_TIMEOUT_S:g} s"
            ) from error
        if ticket.is_dropped:
            work.close()
            replies.close()
        ticket.check()
        client = ScriptClient(
            spec=self._share_of(script),
            name=deployment.name,
            scorer=self._index,
            work=work,
            replies=replies,
            scheduler=self._scheduler,
            observer=NullObserver(),
            recycle=self._pools.recycle,
        )
        client.attach(asyncio.get_running_loop())
        self._forget_closed()
        self._clients.append(client)
        facts = Loaded(load_s=(now_ns() - began_ns) / 1e9, provider="script", sha256=deployment.runtime.sha256)
        learned = _learned_of(script)
        return Ready(spec=deployment.runtime, script=script, live=LiveRuntime(client), learned=learned, facts=facts)

    def _forget_closed(self) -> None:
        self._clients = [client for client in self._clients if client.status().state != "closed"]

    def _share(self, spec: RuntimeSpec) -> RuntimeSpec:
        return replace(spec, instance_count=-(-spec.instance_count // self._scorers))

    def _share_of(self, script: ScriptSpec) -> ScriptSpec:
        """Its waiting requests are shared out; its workers are everybody's."""
        return replace(script, queue_items_max=-(-script.queue_items_max // self._scorers))

    def _runtime(self, name: str, spec: RuntimeSpec, model: OpenModel) -> Runtime:
        limits = spec.batching.limits
        return Runtime(
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
            observer=NullObserver(),
        )


def _learned_of(script: ScriptSpec) -> Learned:
    return Learned(
        batched=script.batching is not None,
        reason=script.batching_reason,
        instances=script.workers,
        rows_max=script.batching.batch_rows_max if script.batching is not None else 1,
    )


def _tell(name: str, learned: Learned, load_s: float, *, is_news: bool) -> None:
    """The first scorer tells; those that take over what it learned have nothing new to say."""
    log.log(logging.INFO if is_news else logging.DEBUG, "%s is loaded in %.2f s; %s", name, load_s, learned.reason)
    if learned.padding_reason and learned.padding is None:
        log.log(logging.WARNING if is_news else logging.DEBUG, "%s: %s", name, learned.padding_reason)


def _close(sessions: Iterable[Session]) -> None:
    for session in sessions:
        try:
            session.close()
        except Exception:
            # The others must still be closed; there is nobody to tell but the log.
            log.exception("a session that is not used failed to close")
