"""The index of the asset storage as plain dictionaries."""

from __future__ import annotations

from gateway.controlplane.blobs.index import Change, Changed
from gateway.controlplane.store.records import Blob, Block


class MemoryIndex:
    """As StoreIndex is, but for everything that a database adds. `named`: digests that assets name."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Blob] = {}
        self.waiting: dict[tuple[str, str, str], Block] = {}
        self.named: set[str] = set()

    async def blob(self, container: str, path: str) -> Blob | None:
        return self.kept.get((container, path))

    async def change(self, container: str, path: str, change: Change, *, clears_blocks: bool = False) -> Changed:
        blob = change(self.kept.get((container, path)))
        if blob is None:
            self.kept.pop((container, path), None)
        else:
            self.kept[container, path] = blob
        cleared = await self.blocks(container, path) if clears_blocks else []
        for block in cleared:
            del self.waiting[container, path, block.block_id]
        return Changed(blob=blob, cleared=cleared)

    async def list_blobs(self, container: str, prefix: str, after: str, limit: int) -> list[Blob]:
        found = [
            blob
            for (place, path), blob in self.kept.items()
            if place == container and path.startswith(prefix) and path > after
        ]
        return sorted(found, key=lambda blob: blob.path)[:limit]

    async def add_block(self, block: Block, blocks_max: int) -> bool:
        if len(await self.blocks(block.container, block.path)) >= blocks_max:
            return False
        self.waiting[block.container, block.path, block.block_id] = block
        return True

    async def blocks(self, container: str, path: str) -> list[Block]:
        return [block for key, block in self.waiting.items() if key[:2] == (container, path)]

    async def drop_blocks(self, before: float) -> list[Block]:
        dropped = [block for block in self.waiting.values() if block.created_at < before]
        for block in dropped:
            del self.waiting[block.container, block.path, block.block_id]
        return dropped

    async def old_blobs(self, before: float) -> list[Blob]:
        return [blob for blob in self.kept.values() if blob.modified_at < before]

    async def delete_folder(self, container: str, folder: str, before: float) -> int:
        found = await self.list_blobs(container, f"{folder}/" if folder else "", "", len(self.kept))
        if any(blob.modified_at >= before for blob in found):
            return 0
        for blob in found:
            del self.kept[blob.container, blob.path]
        return len(found)

    async def digests_in_use(self) -> set[str]:
        return {blob.sha256 for blob in self.kept.values()} | self.named
