"""What was collected, as the control plane keeps it: repaired at start, bounded, and what scripts send taken in.

    STATE/collected/modelDataCollector/ENDPOINT/DEPLOYMENT/COLLECTION/2026/01/31/23/scorer-0.jsonl

The folder stands for the container of the default datastore, of which its files are blobs (blobs/collected.py).
Units: bytes; *_s seconds.
Errors: none: a gateway whose collected data cannot be read serves all the same, and says so in its log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.collection.sink import Sink
from gateway.collection.tree import Tree
from gateway.collection.writer import writer_of

log = logging.getLogger(__name__)

EVERY_S = 30.0
FILES_MAX = 100_000


class Collected:
    """One gateway's. Made before anything is written. Closed before the crews are: what a script sends while the
    gateway ends is refused."""

    def __init__(
        self,
        folder: Path,
        bytes_max: int,
        queue_bytes_max: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.folder = folder
        self.tree = Tree(folder)
        self._writer = writer_of(folder, "scripts", bytes_max, queue_bytes_max)
        self.sink = Sink(self._writer)
        self._bytes_max = bytes_max
        self._sleep = sleep

    async def prepare(self) -> None:
        """Before a scorer writes: lines that a crash cut off go."""
        try:
            repaired = await asyncio.to_thread(self.tree.repair)
        except OSError as error:
            log.warning("collected data cannot be looked through for lines that a crash cut off: %s", error)
            return
        if repaired:
            log.warning("%d files of collected data ended within a line, which is cut off", repaired)

    async def run(self) -> None:
        """Keep to the bounds, until it is cancelled."""
        while True:
            await self._sleep(EVERY_S)
            try:
                removed = await asyncio.to_thread(self.tree.trim, self._bytes_max, FILES_MAX)
            except OSError as error:
                log.warning("collected data could not be tidied, and is looked at again: %s", error)
                continue
            if removed:
                size = sum(one.size_bytes for one in removed)
                log.warning(
                    "%d files of collected data, %d bytes, were the oldest of more than data_collection_max_bytes "
                    "(%d) or %d files, and are removed",
                    *(len(removed), size, self._bytes_max, FILES_MAX),
                )

    async def close(self) -> None:
        await self.sink.close()
        await asyncio.to_thread(self._writer.close)
