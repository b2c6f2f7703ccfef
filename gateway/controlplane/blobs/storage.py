"""The asset storage: what can be done with blobs, whoever asks.

A blob is a name in the index for content in the files. Content is written and flushed first, its name second, so what
has a name is whole; of two who put one name the later wins, or the one with `If-None-Match: *` is refused. Content
that lost its name, or never got one, is collected (collect.py). Blocks wait in files of their own, which go when
their blob is committed or replaced.
Units: bytes; times in seconds since 1970.
Errors: Refusal; Problem INSUFFICIENT_STORAGE, PAYLOAD_TOO_LARGE from the files.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import hashlib
import logging
import os
import re
import secrets
import time
from base64 import b64decode
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gateway.collection.tree import Tree
from gateway.controlplane.blobs.conditions import ALWAYS, Conditions, check_write
from gateway.controlplane.blobs.files import PIECE_BYTES, Damaged, Files, Written, read_piece
from gateway.controlplane.blobs.index import Index
from gateway.controlplane.blobs.names import BY_HASH, LAST, Target
from gateway.controlplane.blobs.ranges import Span
from gateway.controlplane.blobs.refusals import Fault, Refusal, not_found
from gateway.controlplane.blobs.xml_text import BLOCKS_MAX, Listed
from gateway.controlplane.store.records import Blob, Block

log = logging.getLogger(__name__)

_GIB = 1024**3
_BLOCK_ID_BYTES_MAX = 64
_COMMITS_REMEMBERED = 256
_LIST_PAGE = 1000
_UPLOAD_WAIT_S = 20.0
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobLimits:
    """`disk_reserve_bytes`: how much of the disk uploads leave free; `uploads_max`: how many may run at once."""

    assets_max_bytes: int = 100 * _GIB
    upload_max_bytes: int = 20 * _GIB
    block_max_bytes: int = 256 * 1024 * 1024
    upload_link_lifetime_s: float = 3600.0
    disk_reserve_bytes: int = 256 * 1024 * 1024
    uploads_max: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a client says of a blob that it puts; `md5`: what the content must have, where it said so."""

    content_type: str = "application/octet-stream"
    metadata: Mapping[str, str] = field(default_factory=dict)
    md5: bytes | None = None


class Storage:
    """Belongs to one event loop."""

    def __init__(
        self,
        files: Files,
        index: Index,
        limits: BlobLimits,
        now: Callable[[], float] = time.time,
        collected: Tree | None = None,
    ) -> None:
        """`collected`: where the blobs without a hash are, which the index has beside its own."""
        self.files = files
        self._collected = collected
        self.index = index
        self.limits = limits
        self.now = now
        self._uploads = 0
        self._slots = asyncio.Semaphore(limits.uploads_max)
        # The last commits, so that one whose answer was lost can be asked for again: its blocks are gone.
        self._commits: OrderedDict[tuple[str, str], tuple[bytes, str]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Storage {self.files.used_bytes} of {self.limits.assets_max_bytes} bytes, {self._uploads} uploads>"

    async def find(self, target: Target) -> Blob:
        if target.container == BY_HASH:
            return await self._by_hash(target)
        found = None if target.is_folder else await self.index.blob(target.container, target.path)
        if found is None:
            raise not_found(target.container, target.path)
        return found

    async def _by_hash(self, target: Target) -> Blob:
        is_hash = bool(_HASH.fullmatch(target.path))
        kept = await self.files.run(self.files.find, target.path) if is_hash else None
        if kept is None:
            raise not_found(target.container, target.path)
        return Blob(
            container=target.container,
            path=target.path,
            sha256=target.path,
            size_bytes=kept.size_bytes,
            md5=b"",
            etag=target.path,
            modified_at=kept.modified_at,
        )

    async def put(
        self, target: Target, body: AsyncIterator[bytes], given: Given, conditions: Conditions = ALWAYS
    ) -> Blob:
        """The body is read only where the conditions hold now; they are asked again when it is there."""
        _need_name(target)
        if conditions != ALWAYS:
            check_write(conditions, await self.index.blob(target.container, target.path))
        async with self._uploading():
            written = await self._write(body, given.md5)
            return await self._name(target, written, given, conditions)

    async def put_block(
        self, target: Target, block_id: str, body: AsyncIterator[bytes], md5: bytes | None = None
    ) -> Written:
        _need_name(target)
        _check_block_id(block_id)
        async with self._uploading():
            async with self.files.upload(bytes_max=self.limits.block_max_bytes) as upload:
                async for piece in body:
                    await upload.write(piece)
                written = await upload.written()
                _check_md5(md5, written)
                block = Block(
                    container=target.container,
                    path=target.path,
                    block_id=block_id,
                    sha256=written.sha256,
                    size_bytes=written.size_bytes,
                    created_at=self.now(),
                )
                await upload.finish("blocks", block_file(block))
            if not await self.index.add_block(block, BLOCKS_MAX):
                await self._remove_blocks([block])
                raise Refusal(Fault.TOO_MANY_BLOCKS, f"{BLOCKS_MAX} blocks wait for this blob already")
        return written

    async def commit(
        self, target: Target, listed: Sequence[Listed], given: Given, conditions: Conditions = ALWAYS
    ) -> Blob:
        """Make a blob of blocks, in the order of the list."""
        _need_name(target)
        key = (target.container, target.path)
        digest = hashlib.sha256("\n".join(f"{one.where} {one.block_id}" for one in listed).encode()).digest()
        found = await self.index.blob(*key)
        check_write(conditions, found)
        if found is not None and self._commits.get(key) == (digest, found.etag):
            return found
        blocks = _chosen(listed, await self.index.blocks(*key))
        size = sum(block.size_bytes for block in blocks)
        if size > self.limits.upload_max_bytes:
            text = f"the blocks have {size} bytes together; at most {self.limits.upload_max_bytes} are kept"
            raise Refusal(Fault.TOO_LARGE, text)
        async with self._uploading():
            written = await self._write(self._content_of(blocks), given.md5, credit_bytes=_size_of(set(blocks)))
            blob = await self._name(target, written, given, conditions)
        self._commits[key] = (digest, blob.etag)
        if len(self._commits) > _COMMITS_REMEMBERED:
            self._commits.popitem(last=False)
        return blob

    async def set_metadata(
        self, target: Target, metadata: Mapping[str, str], conditions: Conditions = ALWAYS
    ) -> Blob:
        def change(found: Blob | None) -> Blob:
            if found is None:
                raise not_found(target.container, target.path)
            check_write(conditions, found)
            return replace(found, metadata=dict(metadata), etag=_new_etag(), modified_at=self.now())

        changed = await self.index.change(target.container, target.path, change)
        assert changed.blob is not None
        return changed.blob

    async def delete(self, target: Target, conditions: Conditions = ALWAYS) -> None:
        """Its content stays until it is collected: others may have it, too."""

        def change(found: Blob | None) -> None:
            if found is None:
                raise not_found(target.container, target.path)
            check_write(conditions, found)

        changed = await self.index.change(target.container, target.path, change, clears_blocks=True)
        await self._remove_blocks(changed.cleared)

    async def list_blobs(
        self, container: str, prefix: str, delimiter: str, after: str, limit: int
    ) -> tuple[list[Blob | str], str]:
        """Up to `limit` blobs and, where there is a delimiter, folders; and where to go on, "" at the end."""
        found: list[Blob | str] = []
        folder = ""
        page_size = min(_LIST_PAGE, limit + 1)
        while True:
            page = await self.index.list_blobs(container, prefix, after, page_size)
            for blob in page:
                if folder and blob.path.startswith(folder):
                    continue
                if len(found) == limit:
                    return found, after
                cut = blob.path.find(delimiter, len(prefix)) if delimiter else -1
                folder = blob.path[: cut + len(delimiter)] if cut >= 0 else ""
                found.append(folder or blob)
                after = folder + LAST if folder else blob.path
            if len(page) < page_size:
                return found, ""

    async def open(self, blob: Blob) -> int:
        """A file descriptor of its content, which the caller closes by `close`. Errors: Refusal InternalError."""
        if self._collected is not None and not blob.sha256:
            try:
                return await self.files.run(self._collected.open, blob.path)
            except OSError as error:
                # It was removed a moment ago, as the oldest of too many.
                raise not_found(blob.container, blob.path) from error
        try:
            return await self.files.run(self.files.open, blob.sha256, blob.size_bytes)
        except Damaged as error:
            log.error("the blob %s/%s cannot be read: %s", blob.container, blob.path, error)
            raise Refusal(Fault.INTERNAL, "the content of the blob is damaged; the log has more") from error

    async def read(self, descriptor: int, span: Span) -> AsyncIterator[bytes]:
        """Piece by piece; ends early only where the file was cut off meanwhile."""
        offset = span.first
        while offset <= span.last:
            size = min(PIECE_BYTES, span.last + 1 - offset)
            piece = await self.files.run(read_piece, descriptor, offset, size)
            if not piece:
                raise Damaged(f"the content ends at byte {offset}, and more was kept")
            offset += len(piece)
            yield piece

    async def close(self, descriptor: int) -> None:
        await self.files.run(os.close, descriptor)

    async def _write(self, body: AsyncIterator[bytes], md5: bytes | None, credit_bytes: int = 0) -> Written:
        bytes_max = self.limits.upload_max_bytes
        async with self.files.upload(bytes_max=bytes_max, credit_bytes=credit_bytes) as upload:
            async for piece in body:
                await upload.write(piece)
            written = await upload.written()
            _check_md5(md5, written)
            await upload.finish()
        return written

    async def _name(self, target: Target, written: Written, given: Given, conditions: Conditions) -> Blob:
        blob = Blob(
            container=target.container,
            path=target.path,
            sha256=written.sha256,
            size_bytes=written.size_bytes,
            md5=written.md5,
            content_type=given.content_type,
            metadata=dict(given.metadata),
            etag=_new_etag(),
            modified_at=self.now(),
        )

        def change(found: Blob | None) -> Blob:
            check_write(conditions, found)
            return blob

        changed = await self.index.change(target.container, target.path, change, clears_blocks=True)
        await self._remove_blocks(changed.cleared)
        return blob

    async def _content_of(self, blocks: Sequence[Block]) -> AsyncIterator[bytes]:
        for block in blocks:
            try:
                descriptor = await self.files.run(self.files.open, block_file(block), block.size_bytes, "blocks")
            except Damaged as error:
                # Another upload of this name ended meanwhile, and took the blocks with it.
                raise Refusal(Fault.INVALID_BLOCK_LIST, f"the block {block.block_id!r} is gone") from error
            try:
                async for piece in self.read(descriptor, Span(first=0, last=block.size_bytes - 1)):
                    yield piece
            finally:
                await self.close(descriptor)

    async def _remove_blocks(self, blocks: Sequence[Block]) -> None:
        def work() -> None:
            for block in blocks:
                self.files.remove(block_file(block), "blocks")

        if blocks:
            await self.files.run(work)

    @contextlib.asynccontextmanager
    async def _uploading(self) -> AsyncIterator[None]:
        """Clients send many files at once: too many wait, and are refused only if none ends for long."""
        try:
            async with asyncio.timeout(_UPLOAD_WAIT_S):
                await self._slots.acquire()
        except TimeoutError as error:
            text = f"{self._uploads} uploads run already; try again when one has ended"
            raise Refusal(Fault.SERVER_BUSY, text, (("retry-after", "1"),)) from error
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1
            self._slots.release()


def block_file(block: Block) -> str:
    """The name of a block's file: of the block's own, so that no other upload misses it when it goes."""
    names = "\0".join((block.container, block.path, block.block_id, block.sha256))
    return hashlib.sha256(names.encode()).hexdigest()


def _chosen(listed: Sequence[Listed], waiting: Sequence[Block]) -> list[Block]:
    by_id = {block.block_id: block for block in waiting}
    chosen = [by_id.get(one.block_id) if one.where != "Committed" else None for one in listed]
    for one, block in zip(listed, chosen, strict=True):
        if block is None:
            text = (
                f"there is no block {one.block_id[:100]!a} waiting; blocks of blobs that are committed are not kept"
            )
            raise Refusal(Fault.INVALID_BLOCK_LIST, text)
    return [block for block in chosen if block is not None]


def _size_of(blocks: set[Block]) -> int:
    return sum(block.size_bytes for block in blocks)


def _need_name(target: Target) -> None:
    if not target.path or target.is_folder:
        text = f"{target.path!r} is no blob's name: it ends with a slash, and there are no empty names"
        raise Refusal(Fault.INVALID_RESOURCE_NAME, text)
    if target.container == BY_HASH:
        text = f"container {BY_HASH} is content by its hash; put it into another one, and it is there too"
        raise Refusal(Fault.INVALID_RESOURCE_NAME, text)


def _check_block_id(block_id: str) -> None:
    try:
        size = len(b64decode(block_id, validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if not 0 < size <= _BLOCK_ID_BYTES_MAX:
        text = f"a block's id is the Base64 of 1 to {_BLOCK_ID_BYTES_MAX} bytes, not {block_id[:100]!a}"
        raise Refusal(Fault.INVALID_BLOCK_ID, text)


def _check_md5(wanted: bytes | None, written: Written) -> None:
    if wanted is not None and wanted != written.md5:
        text = f"the {written.size_bytes} bytes that came do not have the MD5 that was sent; nothing was kept"
        raise Refusal(Fault.MD5_MISMATCH, text)


def _new_etag() -> str:
    return f"0x{secrets.token_hex(8).upper()}"
