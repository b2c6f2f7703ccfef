"""Claims: one change of an endpoint, or of an asset, at a time, and who has to wait.

A caller who may come again is refused (409); the gateway's own changes wait for their turn.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator

from gateway.errors import Code, Problem, retry_after


class Claims:
    """What changes hold, by key, with the change's action. `noun` says what is held."""

    def __init__(self, noun: str = "endpoint") -> None:
        self._noun = noun
        self._held: dict[str, str] = {}
        self._freed = asyncio.Event()

    @property
    def held(self) -> frozenset[str]:
        return frozenset(self._held)

    def take(self, key: str, action: str) -> None:
        """Errors: Problem(CONFLICT) while another change holds it."""
        if key in self._held:
            raise Problem(
                Code.CONFLICT,
                f"{self._noun} {key} is being changed ({self._held[key]}); wait until that has ended",
                headers=(retry_after(1),),
            )
        self._held[key] = action

    def free(self, key: str) -> None:
        self._held.pop(key, None)
        self._freed.set()

    @contextlib.contextmanager
    def taking(self, key: str, action: str) -> Iterator[None]:
        """Hold it for a while. Errors: as `take`."""
        self.take(key, action)
        try:
            yield
        finally:
            self.free(key)

    @contextlib.asynccontextmanager
    async def holding(self, keys: Iterable[str], action: str) -> AsyncIterator[None]:
        """Wait until nobody holds any of these, then hold all of them."""
        wanted = set(keys)
        while wanted & self._held.keys():
            self._freed.clear()
            await self._freed.wait()
        self._held |= dict.fromkeys(wanted, action)
        try:
            yield
        finally:
            for key in wanted:
                self.free(key)
