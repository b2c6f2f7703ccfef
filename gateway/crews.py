"""All crews of a gateway: a pool of script workers is started, reachable from every scorer, resized and stopped.

Why beside Crew: a crew knows processes; that scorers hold its sockets and hear of its dead is the fleet's business.
Units: *_s seconds.
Errors: CrewFailed.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Protocol

from gateway.crew import Crew, CrewSpec, CrewStatus, Ready

log = logging.getLogger(__name__)

STOP_GRACE_S = 5.0


class Scorers(Protocol):
    """The fleet, as crews need it."""

    @property
    def count(self) -> int: ...

    async def give(self, label: str, fds: list[tuple[int, ...]]) -> None: ...

    async def take_back(self, label: str) -> None: ...

    def worker_gone(self, pool: str, worker: int) -> None: ...


class Crews:
    def __init__(self, scorers: Scorers) -> None:
        self._scorers = scorers
        self._crews: dict[str, Crew] = {}
        self._recycling: set[asyncio.Task[None]] = set()

    async def start(self, spec: CrewSpec) -> Ready:
        """All workers are ready, and every scorer can reach them. Errors: CrewFailed."""
        if spec.pool in self._crews:
            raise ValueError(f"the pool {spec.pool!r} runs already")
        crew = self._crews[spec.pool] = Crew(spec, partial(self._scorers.worker_gone, spec.pool))
        try:
            ready = await crew.start(self._scorers.count)
            await self._scorers.give(spec.pool, [crew.sockets(index) for index in range(self._scorers.count)])
        except BaseException:
            await self._end(spec.pool, 0.0)
            raise
        return ready

    async def resize(self, pool: str, workers: int) -> None:
        """Errors: CrewFailed, and it is as it was."""
        await self._crews[pool].resize(workers)

    async def stop(self, pool: str, after_s: float) -> None:
        """End a pool once that much time is over. One that is not there is no error."""
        if pool in self._crews:
            await asyncio.sleep(after_s)
            await self._end(pool, STOP_GRACE_S)

    def tail(self, pool: str, lines: int) -> str:
        """The last lines of what its workers wrote; "" where there is no such pool."""
        crew = self._crews.get(pool)
        return crew.tail(lines) if crew is not None else ""

    def status(self) -> dict[str, CrewStatus]:
        return {pool: crew.status() for pool, crew in self._crews.items()}

    def recycle(self, pool: str, worker: int, request: int) -> None:
        """What a scorer reports: end the worker if it still runs this request."""
        crew = self._crews.get(pool)
        if crew is not None:
            task = asyncio.create_task(crew.recycle(worker, request))
            self._recycling.add(task)
            task.add_done_callback(self._recycling.discard)

    async def close(self, grace_s: float) -> None:
        """End all, each after what it runs or after the grace."""
        await asyncio.gather(*(self._end(pool, grace_s) for pool in list(self._crews)))

    async def _end(self, pool: str, grace_s: float) -> None:
        crew = self._crews.pop(pool, None)
        if crew is not None:
            await self._scorers.take_back(pool)
            await crew.stop(grace_s)
