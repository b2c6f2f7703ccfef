"""Claims: one change of an endpoint at a time, and who has to wait.

A caller who may come again is refused (409); the gateway's own changes wait for their turn.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

from gateway.errors import Code, Problem, retry_after


class Claims:
    """Endpoints that a change holds, by key, with the change's action."""

    def __init__(self) -> None:
        self._held: dict[str, str] = {}
        self._freed = asyncio.Event()

    def take(self, endpoint: str, action: str) -> None:
        """Errors: Problem(CONFLICT) while another change holds the endpoint."""
        if endpoint in self._held:
            raise Problem(
                Code.CONFLICT,
                f"endpoint {endpoint} is being changed ({self._held[endpoint]}); wait until that has ended",
                headers=(retry_after(1),),
            )
        self._held[endpoint] = action

    def free(self, endpoint: str) -> None:
        self._held.pop(endpoint, None)
        self._freed.set()

    @contextlib.asynccontextmanager
    async def holding(self, endpoints: Iterable[str], action: str) -> AsyncIterator[None]:
        """Wait until nobody holds any of these, then hold all of them."""
        wanted = set(endpoints)
        while wanted & self._held.keys():
            self._freed.clear()
            await self._freed.wait()
        self._held |= dict.fromkeys(wanted, action)
        try:
            yield
        finally:
            for endpoint in wanted:
                self.free(endpoint)
