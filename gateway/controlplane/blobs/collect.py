"""What nothing refers to any more goes: forgotten blocks, uploads that became no asset, and content without a name.

A blob is an upload when a client put it where uploads go: into a folder of its own below `LocalUpload/` of the
default datastore, or into a container made for it. Such a folder stays or goes whole, for clients look at one file of
it to learn whether all are there. It goes when no asset was made of it and its youngest blob is older than a time to
live. Content goes when no blob and no asset names it; what was written or held within the grace time stays, for its
name may be on the way (Files.hold).
Units: seconds. `plan` and `expired` are pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from gateway.controlplane.blobs.names import DATASTORE, PENDING, UPLOADS
from gateway.controlplane.blobs.storage import Storage, block_file
from gateway.controlplane.store.records import Blob, Block

# A container and a path in it.
Place = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectLimits:
    """`upload_lifetime_s`: how long blobs wait to become an asset; `block_lifetime_s`: blocks, to become a blob;
    `grace_s`: content, to get a name."""

    upload_lifetime_s: float = 7 * 86400.0
    block_lifetime_s: float = 7 * 86400.0
    grace_s: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """How many went."""

    blocks: int = 0
    uploads: int = 0
    blobs: int = 0
    files: int = 0


def plan(in_use: set[str], present: Iterable[tuple[str, float]], now: float, grace_s: float) -> list[str]:
    """Which content to remove. `present`: each digest with the time of its last writing."""
    return [digest for digest, modified_at in present if digest not in in_use and modified_at < now - grace_s]


def expired(old: Iterable[Blob], referenced: Collection[Place]) -> list[Place]:
    """The folders of uploads in which there is something old and to which nothing refers, each once, in order."""
    folders = {folder for blob in old if (folder := upload_folder(blob.container, blob.path)) is not None}
    return sorted(folder for folder in folders if not any(_touches(folder, place) for place in referenced))


def upload_folder(container: str, path: str) -> Place | None:
    """What a blob stays or goes with; None: it is no upload. The folder "" is a whole container."""
    if container.startswith(PENDING):
        return container, ""
    parts = path.split("/", 2)
    if container == DATASTORE and parts[0] == UPLOADS and len(parts) == 3:
        return container, f"{parts[0]}/{parts[1]}"
    return None


def _touches(folder: Place, place: Place) -> bool:
    """Whether one of them lies in the other."""
    inner, outer = (f"{path.strip('/')}/".removeprefix("/") for _, path in (folder, place))
    return folder[0] == place[0] and (inner.startswith(outer) or outer.startswith(inner))


async def collect(storage: Storage, referenced: Collection[Place], limits: CollectLimits) -> Collected:
    """One round. `referenced`: where the blobs of every asset, and of everything else that stays, are."""
    now = storage.now()
    files = storage.files
    blocks = await storage.index.drop_blocks(now - limits.block_lifetime_s)
    await files.run(_remove_blocks, storage, blocks, now - limits.block_lifetime_s - limits.grace_s)
    before = now - limits.upload_lifetime_s
    folders = expired(await storage.index.old_blobs(before), referenced)
    counts = [await storage.index.delete_folder(*folder, before) for folder in folders]
    in_use = await storage.index.digests_in_use()
    removed = await files.run(_remove_content, storage, in_use, now, limits.grace_s)
    return Collected(
        blocks=len(blocks), uploads=sum(1 for count in counts if count), blobs=sum(counts), files=removed
    )


def _remove_blocks(storage: Storage, dropped: Iterable[Block], before: float) -> None:
    """Those that were forgotten now, and those that were never known: their upload was cut off."""
    for block in dropped:
        storage.files.remove(block_file(block), "blocks")
    for kept in list(storage.files.kept("blocks")):
        if kept.modified_at < before:
            storage.files.remove(kept.name, "blocks", unless_since=before)


def _remove_content(storage: Storage, in_use: set[str], now: float, grace_s: float) -> int:
    present = [(kept.name, kept.modified_at) for kept in storage.files.kept()]
    chosen = plan(in_use, present, now, grace_s)
    return sum(storage.files.remove(name, unless_since=now - grace_s) for name in chosen)
