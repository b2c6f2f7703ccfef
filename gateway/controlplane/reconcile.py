"""A change in two phases: every scorer prepares, then all commit, or all abort and the old goes on serving.

Why the first scorer prepares alone: it proves and measures each model, and the others take what it learned, so that
N scorers do not measure N times, against each other.
Errors: ChangeRefused, whose text names each deployment that failed and why; nothing has changed then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.channel import Loaded, Prepared
from gateway.snapshot import LearnedByName, SnapshotSpec


class Prepares(Protocol):
    """What a change needs of a scorer, wherever it runs."""

    async def prepare(self, spec: SnapshotSpec, learned: LearnedByName) -> Prepared: ...

    async def commit(self, revision: int) -> None: ...

    async def abort(self, revision: int) -> None: ...


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
