"""What the asset storage keeps beside the files: names, and the blocks of unfinished uploads.

`Index` is the seam; `StoreIndex` is the gateway's own store. Whatever looks and then writes does both in one
transaction, so that of two who put one name each is judged by what the other left.
Units: *_at and `before` in seconds since 1970.
Errors: Refusal ServerBusy where the store cannot be asked now; what `change` raises comes through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from gateway.controlplane.blobs.refusals import Fault, Refusal
from gateway.controlplane.store.database import Store, StoreBusy
from gateway.controlplane.store.records import Blob, Block
from gateway.controlplane.store.transaction import Transaction

T = TypeVar("T")

# From what is there to what shall be there; None: nothing.
Change = Callable[[Blob | None], Blob | None]
_PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What is there now, and the blocks that were waiting under the name and are forgotten."""

    blob: Blob | None
    cleared: Sequence[Block] = ()


class Index(Protocol):
    async def blob(self, container: str, path: str) -> Blob | None: ...

    async def change(self, container: str, path: str, change: Change, *, clears_blocks: bool = False) -> Changed:
        """One transaction; `change` may be asked more than once, and refuses by raising."""
        ...

    async def list_blobs(self, container: str, prefix: str, after: str, limit: int) -> list[Blob]:
        """In the order of their names' characters; those behind `after`."""
        ...

    async def add_block(self, block: Block, blocks_max: int) -> bool:
        """Whether there was room for it; a block with the same id is replaced."""
        ...

    async def blocks(self, container: str, path: str) -> list[Block]: ...

    async def drop_blocks(self, before: float) -> list[Block]:
        """Forget those that are older, and say which they were."""
        ...

    async def old_blobs(self, before: float) -> list[Blob]: ...

    async def delete_folder(self, container: str, folder: str, before: float) -> int:
        """Forget every blob in it, unless one of them is younger; how many there were. "": the whole container."""
        ...

    async def digests_in_use(self) -> set[str]:
        """Of all content that a blob or an asset names."""
        ...


class StoreIndex:
    """The index in the gateway's store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def blob(self, container: str, path: str) -> Blob | None:
        return await self._read(lambda found: found.blob(container, path))

    async def change(self, container: str, path: str, change: Change, *, clears_blocks: bool = False) -> Changed:
        def work(transaction: Transaction) -> Changed:
            blob = change(transaction.blob(container, path))
            if blob is None:
                transaction.delete_blob(container, path)
            else:
                transaction.put_blob(blob)
            cleared = transaction.blocks(container, path) if clears_blocks else []
            if cleared:
                transaction.clear_blocks(container, path)
            return Changed(blob=blob, cleared=cleared)

        return await self._write(work)

    async def list_blobs(self, container: str, prefix: str, after: str, limit: int) -> list[Blob]:
        return await self._read(lambda found: found.list_blobs(container, prefix, after, limit).items)

    async def add_block(self, block: Block, blocks_max: int) -> bool:
        def work(transaction: Transaction) -> bool:
            if transaction.block_count(block.container, block.path) >= blocks_max:
                return False
            transaction.add_block(block)
            return True

        return await self._write(work)

    async def blocks(self, container: str, path: str) -> list[Block]:
        return await self._read(lambda found: found.blocks(container, path))

    async def drop_blocks(self, before: float) -> list[Block]:
        def work(transaction: Transaction) -> list[Block]:
            dropped = transaction.old_blocks(before)
            transaction.delete_old_blocks(before)
            return dropped

        return await self._write(work)

    async def old_blobs(self, before: float) -> list[Blob]:
        return await self._read(lambda found: found.old_blobs(before))

    async def delete_folder(self, container: str, folder: str, before: float) -> int:
        def work(transaction: Transaction) -> int:
            names = []
            after = ""
            prefix = f"{folder}/" if folder else ""
            while True:
                page = transaction.list_blobs(container, prefix, after, _PAGE)
                if any(blob.modified_at >= before for blob in page.items):
                    return 0
                names += [blob.path for blob in page.items]
                if not page.next:
                    break
                after = page.next
            for name in names:
                transaction.delete_blob(container, name)
            return len(names)

        return await self._write(work)

    async def digests_in_use(self) -> set[str]:
        return await self._read(lambda found: found.digests_in_use())

    async def _read(self, work: Callable[[Transaction], T]) -> T:
        try:
            return await self._store.read(work)
        except StoreBusy as error:
            raise _busy(error) from error

    async def _write(self, work: Callable[[Transaction], T]) -> T:
        try:
            return await self._store.write(work)
        except StoreBusy as error:
            raise _busy(error) from error


def _busy(error: StoreBusy) -> Refusal:
    return Refusal(Fault.SERVER_BUSY, f"the store cannot be asked now: {error}", (("retry-after", "1"),))
