"""The scorer processes: started, watched, replaced.

Promise: a scorer that dies is replaced, with a growing pause when it dies again; the replacement loads what is
served now, with what was learned, and takes over the same listening socket. Until then, and while a scorer does not
answer, the others accept from its socket as well, so that no new connection waits for one that is not there.
One that hangs is ended, whatever it was asked: HUNG_AFTER_S after its last answer, or, while it opens a model and may
well be silent, after `load_timeout_s`. So what waits for a scorer needs no time limit of its own.
Counters of a dead scorer are kept as they were last collected; its seats are cleared.
Units: *_s seconds.
Errors: ScorerDied when a scorer is lost during a change, LoadOverdue when a model was opened for too long meanwhile;
a load that loses its scorer gives None.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import msgspec

from gateway import fd_channel
from gateway.channel import (
    Abort,
    Channel,
    ChannelClosed,
    Collect,
    Collected,
    Commit,
    Cover,
    Done,
    Drain,
    Load,
    LoadDone,
    LoadOverdue,
    Message,
    Opening,
    Prepare,
    Prepared,
    Recycle,
    ReloadTls,
    RemoteFailed,
    ScorerDied,
    ScorerSettings,
    Start,
    Unload,
    WorkerGone,
)
from gateway.child import Child
from gateway.seats import SeatTable
from gateway.snapshot import DeploymentSpec, LearnedByName, SnapshotSpec
from gateway.telemetry.record import slo_edge_us
from gateway.telemetry.totals import ScorerTotals, add, fold, re_edge, restrict
from gateway.tls import Pair
from runtimes import Learned

log = logging.getLogger(__name__)

SCORER = "gateway.scorer"
START_TIMEOUT_S = 30.0
COLLECT_TIMEOUT_S = 1.0
COLLECT_EVERY_S = 1.0
SILENT_AFTER_S = 3.0
HUNG_AFTER_S = 10.0
LOAD_TIMEOUT_S = 600.0
PAUSE_MIN_S, PAUSE_MAX_S = 0.05, 10.0
STEADY_AFTER_S = 30.0


class ScorerProcess:
    """One scorer, over the lives of the processes that play it."""

    def __init__(self, index: int, fleet: Fleet) -> None:
        self.index = index
        self.is_serving = False
        self.answered_s = 0.0
        # Whether it answered when it was asked last.
        self.is_answering = False
        self._fleet = fleet
        self._process: Child | None = None
        self._channel: Channel | None = None
        # Where descriptors are given to it.
        self._fds: socket.socket | None = None
        self._giving = asyncio.Lock()
        self._is_started = False
        # What it loads: by a Load that it has not answered, also where nobody waits for that any more, or within a
        # Prepare. It takes one after the other, in this order: the first has run since `_load_began_s`.
        self._loading: dict[asyncio.Task[Message], str] = {}
        self._load_began_s = 0.0
        self._overdue: asyncio.Task[Message] | None = None
        self._overdue_name = ""
        self._preparing: asyncio.Task[Message] | None = None
        # What it is not to load again, with the reason: it has ended a replacement that was loading it for too long.
        self.left_out: dict[str, str] = {}

    @property
    def is_up(self) -> bool:
        """Whether it knows who it is and can be asked, be it serving or not."""
        return self._is_started

    @property
    def is_loading(self) -> bool:
        return bool(self._loading)

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Start the process and tell it who it is."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._close_fds()
        self._fds, inbox = fd_channel.pair()
        with theirs, inbox:
            process = self._fleet.begun.pop() if self._fleet.begun else Child.begin(SCORER)
            given = (theirs, inbox, *self._fleet.sockets)
            process.tell({}, (self._fleet.seats_fd, *(sock.fileno() for sock in given)))
        self._process = process
        ours.setblocking(False)
        self._channel = await Channel.over(ours, self._handle)
        self._reading = asyncio.create_task(self._channel.serve())
        await self.call(Start(index=self.index, settings=self._fleet.settings), START_TIMEOUT_S)
        self.answered_s = asyncio.get_running_loop().time()
        self._is_started = True
        for label, fds in list(self._fleet.given.items()):
            await self.give(label, fds[self.index])

    async def give(self, label: str, fds: tuple[int, ...]) -> None:
        """Give it these descriptors under this name; none: it is to forget the name. One that is not up gets what is
        given at its start."""
        if self._fds is not None and self._is_started:
            # A scorer that dies meanwhile is replaced, and so is what it was given.
            async with self._giving:
                with contextlib.suppress(OSError):
                    await fd_channel.send(self._fds, label, fds)

    async def tell_gone(self, pool: str, worker: int) -> None:
        # What a scorer that is gone had asked for is nobody's any more.
        with contextlib.suppress(ScorerDied, RemoteFailed):
            await self.call(WorkerGone(pool=pool, worker=worker))

    async def call(self, message: Message, timeout_s: float | None = None) -> Message:
        if self._channel is None:
            raise ScorerDied(f"scorer {self.index} is not running")
        try:
            return await self._channel.call(message, timeout_s)
        except ChannelClosed as error:
            self._is_started = False
            raise ScorerDied(f"scorer {self.index} died while it was asked to {_verb(message)}") from error

    async def prepare(self, spec: SnapshotSpec, learned: LearnedByName) -> Prepared:
        preparing = self._preparing = self._ask(Prepare(spec=spec, learned=learned))
        try:
            answer = await asyncio.shield(preparing)
        except ScorerDied as error:
            if preparing is self._overdue:
                # Not as one that died: it would be tried again, and hold up all others again.
                raise LoadOverdue(self._overdue_name, self._not_loaded()) from error
            raise
        assert isinstance(answer, Prepared)
        return answer

    async def load(self, name: str, deployment: DeploymentSpec, learned: Learned | None) -> LoadDone | None:
        loading = self._ask(Load(name=name, deployment=deployment, learned=learned))
        self._loads(loading, name)
        try:
            answer = await asyncio.shield(loading)
        except ScorerDied as error:
            if loading is self._overdue:
                # As above.
                raise RemoteFailed(self._not_loaded()) from error
            log.warning("%s", error)
            return None
        assert isinstance(answer, LoadDone)
        return answer

    def _ask(self, message: Message) -> asyncio.Task[Message]:
        """Who stops waiting for it does not stop it: the scorer may be silent until it is through."""
        asked = asyncio.create_task(self.call(message))
        asked.add_done_callback(self._answered)
        return asked

    def _loads(self, asked: asyncio.Task[Message], name: str) -> None:
        if not self._loading:
            self._load_began_s = asyncio.get_running_loop().time()
        self._loading[asked] = name

    async def _handle(self, message: Message) -> Message:
        if not isinstance(message, Opening):
            return await self._fleet.handle(message)
        if self._preparing is not None and not self._preparing.done():
            # What it opened before is open.
            self._loaded(self._preparing)
            self._loads(self._preparing, message.name)
        return Done()

    def end_overdue_load(self) -> None:
        """A load that takes too long ends with its process, for nothing else ends it; those behind it come again."""
        if self._loading and asyncio.get_running_loop().time() - self._load_began_s > self._fleet.load_timeout_s:
            self._overdue, self._overdue_name = next(iter(self._loading.items()))
            limit_s = self._fleet.load_timeout_s
            name = self._overdue_name
            log.error("%s was not loaded by scorer %d within %g s, which is killed", name, self.index, limit_s)
            self.kill()

    def _not_loaded(self) -> str:
        return f"it was not loaded within {self._fleet.load_timeout_s:g} s (setting load_timeout_s)"

    def _loaded(self, asked: asyncio.Task[Message]) -> None:
        is_first = asked is next(iter(self._loading), None)
        if self._loading.pop(asked, None) is not None:
            self.answered_s = asked.get_loop().time()
        if is_first:
            self._load_began_s = self.answered_s

    def _answered(self, asked: asyncio.Task[Message]) -> None:
        self._loaded(asked)
        # Looked at, so that a failure that nobody waits for any more is no mystery in the log.
        if not asked.cancelled():
            asked.exception()

    async def unload(self, name: str) -> None:
        # A scorer that is gone holds nothing.
        with contextlib.suppress(ScorerDied):
            await self.call(Unload(name=name))

    async def commit(self, revision: int) -> None:
        try:
            await self.call(Commit(revision=revision))
            self.is_serving = self.is_answering = True
            self.answered_s = asyncio.get_running_loop().time()
        except ScorerDied as error:
            # Its replacement loads what is committed: the change stands.
            log.warning("%s; its replacement will serve revision %d", error, revision)
        except RemoteFailed:
            log.exception("scorer %d could not publish revision %d and is replaced", self.index, revision)
            self.kill()

    async def abort(self, revision: int) -> None:
        await self.call(Abort(revision=revision))

    async def collect(self) -> ScorerTotals | None:
        """Its counters now; None when it does not answer in time."""
        try:
            answer = await self.call(Collect(), COLLECT_TIMEOUT_S)
        except (ScorerDied, TimeoutError):
            self.is_answering = False
            return None
        assert isinstance(answer, Collected)
        # One that is not serving yet accepts nothing.
        self.is_answering = self.is_serving
        self.answered_s = asyncio.get_running_loop().time()
        return answer.totals

    async def cover(self, scorers: tuple[int, ...]) -> bool:
        """Accept for these as well. Whether it was heard."""
        try:
            await self.call(Cover(scorers=scorers), COLLECT_TIMEOUT_S)
        except (ScorerDied, RemoteFailed, TimeoutError):
            log.warning("scorer %d could not be told to accept for %s", self.index, list(scorers))
            return False
        return True

    async def wait(self) -> int:
        assert self._process is not None
        status = await self._process.wait()
        self.is_serving = self.is_answering = self._is_started = False
        await self._reading
        return status

    def kill(self) -> None:
        """Whoever waits for it learns so at once, however long the kernel takes to end it."""
        if self._process is not None:
            self._process.kill()
        if self._channel is not None:
            self._channel.close()

    def close(self) -> None:
        """A scorer whose channel is closed ends by itself."""
        if self._channel is not None:
            self._channel.close()
        self._close_fds()

    def _close_fds(self) -> None:
        fds, self._fds = self._fds, None
        if fds is not None:
            fds.close()

    async def end(self) -> None:
        """End the process now, and wait until it has."""
        self.close()
        self.kill()
        if self._process is not None:
            await self.wait()


class Ledger:
    """The account of all scorers: the last report of each that lives, and the sum of the dead.

    A scorer that did not answer counts with its last report, so no counter goes back between two scrapes. Reports
    from before and after a change of an endpoint's SLO are added by the one that is served.
    """

    def __init__(self) -> None:
        self._live: dict[int, ScorerTotals] = {}
        self._dead = ScorerTotals()
        self._slo_us: Mapping[str, int] = {}

    def collected(self, scorer: int, totals: ScorerTotals) -> None:
        self._live[scorer] = re_edge(totals, self._slo_us, self._live.get(scorer, ScorerTotals()))

    def died(self, scorer: int) -> None:
        """Call once a scorer is gone, before its successor reports under the same number."""
        last = self._live.pop(scorer, None)
        if last is not None:
            self._dead = add(self._dead, fold(last))

    def keep(self, served: Mapping[str, Collection[str]], slo_us: Mapping[str, int]) -> None:
        """Forget every endpoint and deployment but these, whose SLOs are these; 0 for no edge of its own."""
        self._slo_us = slo_us
        self._dead = self._kept(self._dead, served)
        self._live = {scorer: self._kept(totals, served) for scorer, totals in self._live.items()}

    def _kept(self, totals: ScorerTotals, served: Mapping[str, Collection[str]]) -> ScorerTotals:
        return re_edge(restrict(totals, served), self._slo_us, ScorerTotals())

    def total(self) -> ScorerTotals:
        total = self._dead
        for totals in self._live.values():
            total = add(total, totals)
        return total


class Fleet:
    """All scorers of one gateway. `current` is what a replacement loads; the supervisor sets it at each commit."""

    def __init__(
        self,
        settings: ScorerSettings,
        sockets: list[socket.socket],
        seats: SeatTable,
        seats_fd: int,
        on_restart: Callable[[str], None],
        on_degraded: Callable[[Mapping[str, str]], None] = lambda _: None,
        load_timeout_s: float = LOAD_TIMEOUT_S,
        begun: list[Child] | None = None,
    ) -> None:
        """`begun`: processes for scorers that were begun before; the fleet takes them all."""
        self.load_timeout_s = load_timeout_s
        self.begun = begun if begun is not None else []
        self.settings = settings
        self.seats_fd = seats_fd
        self.sockets = sockets
        self.scorers = [ScorerProcess(index, self) for index in range(len(sockets))]
        self.current: tuple[SnapshotSpec, LearnedByName] | None = None
        self._seats = seats
        self._on_restart = on_restart
        self._on_degraded = on_degraded
        # Held by whoever changes what is served: a change, or the replacement of a dead scorer.
        self.changing = asyncio.Lock()
        self.ledger = Ledger()
        # What a replacement could not load again, with the reason, by "endpoint/deployment".
        self.degraded: dict[str, str] = {}
        # The descriptors that scorers hold, by name; one entry for each scorer.
        self.given: dict[str, list[tuple[int, ...]]] = {}
        # Told of (pool, worker, request) where a scorer finds that a script's worker hangs.
        self.on_recycle: Callable[[str, int, int], None] = _ignore
        self._telling: set[asyncio.Task[None]] = set()
        # Whose sockets the others were told to accept from.
        self._covered: tuple[int, ...] = ()
        self._is_stopping = False
        self._watching: list[asyncio.Task[None]] = []
        self._starting: asyncio.Task[None] | None = None

    @property
    def members(self) -> list[ScorerProcess]:
        return self.scorers

    def start_soon(self) -> None:
        """Start the processes while others get on; `started` waits for them."""
        self._starting = asyncio.create_task(self.start())

    async def started(self) -> None:
        """Errors: whatever kept a scorer from starting."""
        if self._starting is not None:
            await asyncio.shield(self._starting)

    def keep_records(self, spec: SnapshotSpec) -> None:
        """Forget the counters of what the snapshot does not name."""
        self.ledger.keep(
            {name: endpoint.deployments for name, endpoint in spec.endpoints.items()},
            {name: slo_edge_us(endpoint.slo_ns) for name, endpoint in spec.endpoints.items()},
        )

    async def start(self) -> None:
        await asyncio.gather(*(scorer.start() for scorer in self.scorers))
        while self.begun:
            # More than there are cores to be used, or room for models.
            spare = self.begun.pop()
            spare.kill()
            await spare.wait()
        self._watching = [asyncio.create_task(self._watch(scorer)) for scorer in self.scorers]
        self._watching.append(asyncio.create_task(self._keep_collecting()))

    @property
    def serving(self) -> int:
        """Scorers that serve and have answered of late."""
        now_s = asyncio.get_running_loop().time()
        return sum(scorer.is_serving and now_s - scorer.answered_s < SILENT_AFTER_S for scorer in self.scorers)

    async def collect(self) -> ScorerTotals:
        """The sum over all scorers, living and dead."""
        await asyncio.gather(*(self._collect(scorer) for scorer in self.scorers))
        return self.ledger.total()

    async def _collect(self, scorer: ScorerProcess) -> None:
        totals = await scorer.collect()
        if totals is not None:
            self.ledger.collected(scorer.index, totals)

    # Pools of script workers.

    @property
    def count(self) -> int:
        return len(self.scorers)

    async def give(self, label: str, fds: list[tuple[int, ...]]) -> None:
        """Give each scorer its descriptors under this name, and each that takes its place. They stay the caller's,
        open until they are taken back."""
        self.given[label] = fds
        await asyncio.gather(*(scorer.give(label, fds[scorer.index]) for scorer in self.scorers))

    async def take_back(self, label: str) -> None:
        """Scorers close what came under this name; sockets that they use stay open until they close those."""
        if self.given.pop(label, None) is not None:
            await asyncio.gather(*(scorer.give(label, ()) for scorer in self.scorers))

    def worker_gone(self, pool: str, worker: int) -> None:
        """Tell all scorers that a worker has ended."""
        for scorer in self.scorers:
            if scorer.is_up:
                telling = asyncio.create_task(scorer.tell_gone(pool, worker))
                self._telling.add(telling)
                telling.add_done_callback(self._telling.discard)

    async def handle(self, message: Message) -> Message:
        """What a scorer asks of the supervisor: the counters of all; or tells it: a worker that hangs."""
        if isinstance(message, Recycle):
            self.on_recycle(message.pool, message.worker, message.request)
            return Done()
        return Collected(totals=await self.collect())

    async def reload_tls(self, pair: Pair) -> None:
        """Errors: RemoteFailed with the reason; the old certificate is served on."""
        message = ReloadTls(pair=pair)
        async with self.changing:
            answers = await asyncio.gather(
                *(scorer.call(message, START_TIMEOUT_S) for scorer in self.scorers), return_exceptions=True
            )
            for answer in answers:
                # A scorer that is gone gets it when it is replaced.
                if isinstance(answer, BaseException) and not isinstance(answer, ScorerDied):
                    raise answer
            self.settings = msgspec.structs.replace(self.settings, tls=pair)

    async def drain(self, grace_s: float, timeout_s: float) -> None:
        """Stop accepting after the grace, finish what runs, and end every process."""
        self._is_stopping = True
        drains = [self._drain(scorer, Drain(grace_s=grace_s, timeout_s=timeout_s)) for scorer in self.scorers]
        closing = asyncio.get_running_loop().call_later(grace_s, self._close_sockets)
        await asyncio.gather(*drains)
        closing.cancel()
        self._close_sockets()

    async def stop(self) -> None:
        """End every process now."""
        self._is_stopping = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await asyncio.gather(*(scorer.end() for scorer in self.scorers))
        self._close_sockets()

    async def _drain(self, scorer: ScorerProcess, message: Drain) -> None:
        # A scorer that died, or that outstays its time, cannot be drained any further.
        with contextlib.suppress(ScorerDied, RemoteFailed, TimeoutError):
            await scorer.call(message, message.grace_s + message.timeout_s + message.flush_s + 2)
        await self._collect(scorer)
        scorer.is_serving = False
        scorer.close()

    def _close_sockets(self) -> None:
        for sock in self.sockets:
            sock.close()

    async def _keep_collecting(self) -> None:
        """Keeps the last totals of each scorer fresh, and ends one that has not answered for long."""
        while True:
            await asyncio.sleep(COLLECT_EVERY_S)
            await self._look()

    async def _look(self) -> None:
        await asyncio.gather(*(self._collect(scorer) for scorer in self.scorers if scorer.is_up))
        await self._cover()
        now_s = asyncio.get_running_loop().time()
        for scorer in self.scorers:
            scorer.end_overdue_load()
            # While it loads a model a scorer may be silent for long: opening one holds Python's lock. A change is no
            # such excuse: it would wait for a scorer that hangs, and keep everything else from changing meanwhile.
            if scorer.is_up and not scorer.is_loading and now_s - scorer.answered_s > HUNG_AFTER_S:
                log.error("scorer %d has not answered for %g s and is killed", scorer.index, HUNG_AFTER_S)
                scorer.kill()

    async def _watch(self, scorer: ScorerProcess) -> None:
        loop = asyncio.get_running_loop()
        pause_s = PAUSE_MIN_S
        while True:
            began_s = loop.time()
            status = await scorer.wait()
            if self._is_stopping:
                return
            await self._cover()
            reason = f"signal {-status}" if status < 0 else f"exit status {status}"
            log.error("scorer %d (pid %d) ended with %s and is replaced", scorer.index, scorer.pid, reason)
            self._seats.clear_column(scorer.index)
            self.ledger.died(scorer.index)
            self._on_restart("signal" if status < 0 else "exit")
            pause_s = PAUSE_MIN_S if loop.time() - began_s > STEADY_AFTER_S else min(pause_s * 2, PAUSE_MAX_S)
            await asyncio.sleep(pause_s)
            await self._replace(scorer)
            await self._cover()

    async def _cover(self) -> None:
        """Those that answer accept for those that do not. What they were told already is not said again."""
        missing = tuple(scorer.index for scorer in self.scorers if not scorer.is_answering)
        if missing == self._covered or self._is_stopping:
            return
        self._covered = missing
        others = [scorer for scorer in self.scorers if scorer.is_answering]
        if missing and others:
            log.warning("scorers %s do not answer; the others accept their connections", list(missing))
        if not all(await asyncio.gather(*(scorer.cover(missing) for scorer in others))):
            # It is told again at the next look.
            self._covered = ()

    async def _replace(self, scorer: ScorerProcess) -> None:
        try:
            async with self.changing:
                await scorer.start()
                if self.current is not None:
                    spec, learned = self.current
                    prepared = await scorer.prepare(_without(spec, scorer.left_out), learned)
                    await scorer.commit(spec.revision)
                    scorer.left_out = {}
                    for name, reason in prepared.failures.items():
                        log.error("scorer %d could not load %s again: %s", scorer.index, name, reason)
                    self.degraded |= prepared.failures
                    if not self._is_stopping:
                        self._on_degraded(prepared.failures)
        except LoadOverdue as error:
            # All changes have waited for it. The next attempt does without, and serves the rest.
            log.error("the replacement of scorer %d failed: %s", scorer.index, error)
            scorer.left_out[error.name] = error.reason
        except (ScorerDied, RemoteFailed, TimeoutError, OSError) as error:
            # It is watched again at once: a process that is still there is ended, and the next pause is longer.
            log.error("the replacement of scorer %d failed: %s", scorer.index, error)
            scorer.kill()


def _ignore(pool: str, worker: int, request: int) -> None:
    """Nobody keeps script workers here."""


def _without(spec: SnapshotSpec, left_out: Mapping[str, str]) -> SnapshotSpec:
    """The same, with these deployments as failed, by "endpoint/deployment"."""
    endpoints = {
        name: replace(
            endpoint,
            deployments={
                key: replace(one, failure=left_out.get(f"{name}/{key}", one.failure))
                for key, one in endpoint.deployments.items()
            },
        )
        for name, endpoint in spec.endpoints.items()
    }
    return replace(spec, endpoints=endpoints)


def _verb(message: Message) -> str:
    verbs = {Prepare: "load the models", Load: "load a model", Commit: "publish", Collect: "report"}
    return verbs.get(type(message), "work")
