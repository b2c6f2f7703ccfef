"""Collected data among the blobs of the default datastore: listed, read and deleted there, and written by nobody.

Why not put into the store by hash: these files grow. A blob of this kind has no hash; what is read of it is as much
as it had when it was found. Where an uploaded blob has the same name, that one is shown.
Errors: as the index; Refusal InvalidResourceName for whoever would write there.
"""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.collection.tree import Found, Tree
from gateway.controlplane.blobs.index import Change, Changed, Index
from gateway.controlplane.blobs.names import DATASTORE
from gateway.controlplane.blobs.refusals import Fault, Refusal
from gateway.controlplane.store.records import Blob, Block

Run = Callable[..., Awaitable[Any]]
LINES = "application/x-ndjson"


class WithCollected:
    """An index, and the files of a tree beside it. `run`: does what reads the disk on a thread."""

    def __init__(self, index: Index, tree: Tree, run: Run) -> None:
        self._index = index
        self._tree = tree
        self._run = run

    async def blob(self, container: str, path: str) -> Blob | None:
        found = await self._index.blob(container, path)
        if found is not None or container != DATASTORE:
            return found
        one = await self._run(self._tree.find, path)
        return _blob(one) if one is not None else None

    async def change(self, container: str, path: str, change: Change, *, clears_blocks: bool = False) -> Changed:
        found = await self.blob(container, path)
        if found is None or found.sha256:
            return await self._index.change(container, path, change, clears_blocks=clears_blocks)
        if change(found) is not None:
            text = f"{path!r} is collected data, which is read and deleted, and written by nobody"
            raise Refusal(Fault.INVALID_RESOURCE_NAME, text)
        await self._run(self._tree.remove, path)
        return Changed(blob=None)

    async def list_blobs(self, container: str, prefix: str, after: str, limit: int) -> list[Blob]:
        uploaded = await self._index.list_blobs(container, prefix, after, limit)
        if container != DATASTORE:
            return uploaded
        names = {blob.path for blob in uploaded}
        # So many more as may be hidden by an uploaded one: a page that is not full would be the last.
        found: list[Found] = await self._run(self._tree.below, prefix, after, limit + len(names))
        collected = [_blob(one) for one in found if one.path not in names]
        return list(heapq.merge(uploaded, collected, key=lambda blob: blob.path))[:limit]

    async def add_block(self, block: Block, blocks_max: int) -> bool:
        return await self._index.add_block(block, blocks_max)

    async def blocks(self, container: str, path: str) -> list[Block]:
        return await self._index.blocks(container, path)

    async def drop_blocks(self, before: float) -> list[Block]:
        return await self._index.drop_blocks(before)

    async def old_blobs(self, before: float) -> list[Blob]:
        return await self._index.old_blobs(before)

    async def delete_folder(self, container: str, folder: str, before: float) -> int:
        return await self._index.delete_folder(container, folder, before)

    async def digests_in_use(self) -> set[str]:
        return await self._index.digests_in_use()


def _blob(found: Found) -> Blob:
    return Blob(
        container=DATASTORE,
        path=found.path,
        sha256="",
        size_bytes=found.size_bytes,
        md5=b"",
        content_type=LINES if found.path.endswith(".jsonl") else "application/octet-stream",
        etag=f"0x{round(found.modified_at * 1e6):X}{found.size_bytes:X}",
        modified_at=found.modified_at,
    )
