"""A change in two phases: every scorer prepares, then all commit, or all abort and the old goes on serving.

What takes long is done ahead of it: `load` makes one deployment ready on every scorer and holds it aside, beside
other loads and changes; the change that then names it finds it there.
Why the first scorer prepares, or loads, alone: it proves and measures each model, and the others take what it
learned, so that N scorers do not measure N times, against each other. Of a model of some size that is not worth a
scorer's time either: a prover does it, beside the scorers.
A process that dies: the one that proves refuses the load, for a model that ends a process must not end the next; one
of the others is left out, as its replacement loads with the change.
Errors: ChangeRefused, whose text names each deployment that failed and why; LoadRefused. Nothing has changed then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from gateway.channel import LoadDone, Loaded, Prepared, RemoteFailed
from gateway.snapshot import DeploymentSpec, LearnedByName, SnapshotSpec
from runtimes import Learned


class Prepares(Protocol):
    """What a change or a load needs of a scorer, wherever it runs. `is_up`: it can be asked.

    Names are "endpoint/deployment"."""

    @property
    def is_up(self) -> bool: ...

    async def prepare(self, spec: SnapshotSpec, learned: LearnedByName) -> Prepared: ...

    async def commit(self, revision: int) -> None: ...

    async def abort(self, revision: int) -> None: ...

    async def load(self, name: str, deployment: DeploymentSpec, learned: Learned | None) -> LoadDone | None:
        """None: it died meanwhile. Errors: RemoteFailed with the reason why it cannot be loaded."""
        ...

    async def unload(self, name: str) -> None: ...


class Proves(Protocol):
    async def prove(self, name: str, deployment: DeploymentSpec) -> LoadDone | None:
        """What there is to know of a model, found out by a process that serves nothing; None: it died meanwhile.
        Errors: RemoteFailed with the reason why it cannot be loaded."""
        ...


# What Azure calls it where it has no better name.
BAD_ARGUMENT = "BadArgument"


class LoadRefused(Exception):
    """The deployment cannot be served, in one sentence; it is held aside nowhere. `is_scorer_lost`: a scorer died, so
    that another attempt may go better. `code`: what Azure calls such a failure."""

    def __init__(self, reason: str, *, is_scorer_lost: bool = False, code: str = BAD_ARGUMENT) -> None:
        super().__init__(reason)
        self.is_scorer_lost = is_scorer_lost
        self.code = code


class ChangeRefused(Exception):
    """The change is not carried out; `reasons` has one sentence for each thing that is wrong."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = tuple(reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What is served after a change: facts by "endpoint/deployment", and which deployments failed, with why."""

    learned: LearnedByName
    loaded: dict[str, Loaded]
    failures: dict[str, str]


async def change(
    scorers: Sequence[Prepares], spec: SnapshotSpec, learned: LearnedByName, tolerated: Mapping[str, str] | None
) -> Applied:
    """Carry out one change.

    `tolerated` names deployments that may fail (they failed before and nobody touched them); None tolerates every
    failure as long as one deployment loads: that is how a gateway starts with what it can.
    """
    try:
        prepared = await _prepare(scorers, spec, learned)
        refused = _refusal(spec, prepared, tolerated)
        if refused:
            raise ChangeRefused(refused)
    except BaseException:
        await asyncio.gather(*(scorer.abort(spec.revision) for scorer in scorers), return_exceptions=True)
        raise
    await asyncio.gather(*(scorer.commit(spec.revision) for scorer in scorers))
    return Applied(learned=prepared.learned, loaded=prepared.loaded, failures=prepared.failures)


async def load(
    scorers: Sequence[Prepares],
    name: str,
    deployment: DeploymentSpec,
    learned: Learned | None,
    prover: Proves | None = None,
) -> tuple[Learned, Loaded]:
    """Make a deployment ready on every scorer, aside from what is served, until a change names it or `unload`.

    `prover` does what only one need do, where nothing is learned yet; without, it is the first scorer.
    May run beside changes and loads of other deployments; of one deployment there is one load at a time. When it is
    cancelled or refused, nothing is held aside. Errors: LoadRefused.
    """
    try:
        done = await _load(scorers, name, deployment, learned, prover)
    except BaseException:
        await unload(scorers, name)
        raise
    return done.learned, done.loaded


async def unload(scorers: Sequence[Prepares], name: str) -> None:
    """Give up what is loaded or held aside under this name; what is served stays."""
    await asyncio.gather(*(scorer.unload(name) for scorer in scorers), return_exceptions=True)


async def _load(
    scorers: Sequence[Prepares],
    name: str,
    deployment: DeploymentSpec,
    learned: Learned | None,
    prover: Proves | None,
) -> LoadDone:
    up = [scorer for scorer in scorers if scorer.is_up]
    if not up:
        raise LoadRefused("no scorer is running that could load it; try again later", is_scorer_lost=True)
    first, *others = up
    try:
        known, proving_s = learned, 0.0
        if prover is not None and learned is None:
            proven = await prover.prove(name, deployment)
            if proven is None:
                raise LoadRefused("the process that proved it ended before it was through", is_scorer_lost=True)
            known, proving_s = proven.learned, proven.loaded.load_s
        done = await first.load(name, deployment, known)
        if done is None:
            raise LoadRefused("the scorer that loaded it ended before it was ready", is_scorer_lost=True)
        await _follow(others, name, deployment, done.learned)
    except RemoteFailed as error:
        raise LoadRefused(str(error)) from error
    loaded = msgspec.structs.replace(done.loaded, load_s=done.loaded.load_s + proving_s)
    return msgspec.structs.replace(done, loaded=loaded)


async def _follow(scorers: Sequence[Prepares], name: str, deployment: DeploymentSpec, learned: Learned) -> None:
    """Half of them at a time: the others answer with a processor to themselves. Errors: RemoteFailed."""
    turns = asyncio.Semaphore((len(scorers) + 1) // 2 or 1)

    async def follow(scorer: Prepares) -> None:
        async with turns:
            # One that died loads with the change, as its replacement.
            await scorer.load(name, deployment, learned)

    # All are waited for, also when one fails: what is unloaded then is not still being loaded.
    followers = await asyncio.gather(*(follow(scorer) for scorer in scorers), return_exceptions=True)
    for follower in followers:
        if isinstance(follower, BaseException):
            raise follower


async def _prepare(scorers: Sequence[Prepares], spec: SnapshotSpec, learned: LearnedByName) -> Prepared:
    first, *others = scorers
    prepared = await first.prepare(spec, learned)
    if others:
        # All are waited for, also when one is lost: an abort must find no scorer that is still preparing.
        followers = await asyncio.gather(
            *(scorer.prepare(spec, prepared.learned) for scorer in others), return_exceptions=True
        )
        for follower in followers:
            if isinstance(follower, BaseException):
                raise follower
            prepared.failures.update(follower.failures)
    return prepared


def _refusal(spec: SnapshotSpec, prepared: Prepared, tolerated: Mapping[str, str] | None) -> list[str]:
    wanted = [f"{name}/{key}" for name, endpoint in spec.endpoints.items() for key in endpoint.deployments]
    if tolerated is not None:
        fatal = [name for name in prepared.failures if name not in tolerated]
    else:
        fatal = list(prepared.failures) if wanted and len(prepared.failures) == len(wanted) else []
    return [f"deployment {name}: {prepared.failures[name]}" for name in fatal]
