"""What nothing refers to goes, in time; what something refers to, or may refer to in a moment, stays."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.controlplane.blobs.collect import Collected, CollectLimits, collect
from tests.support.blob_door import BLOCK_BLOB, NOW, Shop, open_shop

LIMITS = CollectLimits(upload_lifetime_s=1000, block_lifetime_s=500, grace_s=100)
NONE = Collected()


def in_shop(folder: Path, story: Callable[[Shop], Awaitable[None]]) -> None:
    async def main() -> None:
        async with open_shop(folder) as shop:
            await story(shop)

    asyncio.run(main())


def age(shop: Shop, at: float = NOW) -> None:
    """As if all files had been written then."""
    for path in shop.on_disk():
        os.utime(shop.folder / path, (at, at))


async def upload(shop: Shop, *paths: str, container: str = "azureml") -> None:
    for path in paths:
        await shop.ask("PUT", path, headers=BLOCK_BLOB, body=f"{container} {path}".encode(), container=container)


def paths(shop: Shop) -> set[str]:
    return {path for _, path in shop.memory.kept}


def test_uploads_that_became_no_asset_go_after_their_time(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        await upload(
            shop, "LocalUpload/one/a", "LocalUpload/one/b/c", "LocalUpload/two/a", "other/x", "LocalUpload/x"
        )
        await upload(shop, "code/score.py", container="upload-17")
        age(shop)
        shop.now = NOW + 1000
        assert await collect(shop.storage, [("azureml", "LocalUpload/two/a")], LIMITS) == NONE
        shop.now = NOW + 1001
        done = await collect(shop.storage, [("azureml", "LocalUpload/two/a")], LIMITS)
        assert done == Collected(uploads=2, blobs=3, files=3)
        assert paths(shop) == {"LocalUpload/two/a", "other/x", "LocalUpload/x"}
        assert len(shop.on_disk()) == 3
        assert await collect(shop.storage, [], LIMITS) == Collected(uploads=1, blobs=1, files=1)

    in_shop(tmp_path, story)


def test_an_upload_that_goes_on_stays_whole(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        await upload(shop, "LocalUpload/one/a")
        age(shop)
        shop.now = NOW + 1001
        await upload(shop, "LocalUpload/one/b")
        assert await collect(shop.storage, [], LIMITS) == NONE
        assert paths(shop) == {"LocalUpload/one/a", "LocalUpload/one/b"}

    in_shop(tmp_path, story)


def test_content_goes_when_nothing_names_it_and_its_grace_is_over(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        await upload(shop, "x", "y", "z")
        digests = {path: blob.sha256 for (_, path), blob in shop.memory.kept.items()}
        for path in ("x", "y", "z"):
            await shop.ask("DELETE", path)
        shop.memory.named.add(digests["y"])
        age(shop)
        shop.now = NOW + 100
        assert await collect(shop.storage, [], LIMITS) == NONE
        shop.now = NOW + 101
        os.utime(shop.folder / "sha256" / digests["z"][:2] / digests["z"], (NOW + 50, NOW + 50))
        assert await collect(shop.storage, [], LIMITS) == Collected(files=1)
        assert {kept.name for kept in shop.files.kept()} == {digests["y"], digests["z"]}

    in_shop(tmp_path, story)


def test_content_that_is_put_again_meanwhile_stays(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        await shop.ask("PUT", "x", headers=BLOCK_BLOB, body=b"data")
        await shop.ask("DELETE", "x")
        age(shop)
        shop.now = NOW + 1001
        before = shop.memory.digests_in_use

        async def late() -> set[str]:
            in_use = await before()
            await shop.ask("PUT", "y", headers=BLOCK_BLOB, body=b"data")
            return in_use

        shop.memory.digests_in_use = late  # type: ignore[method-assign]
        assert await collect(shop.storage, [], LIMITS) == NONE
        assert (await shop.ask("GET", "y")).body == b"data"

    in_shop(tmp_path, story)


def test_blocks_that_became_no_blob_go_known_or_not(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        await shop.ask("PUT", "x", "comp=block&blockid=QQ==", body=b"one")
        await shop.ask("PUT", "x", "comp=block&blockid=Qg==", body=b"two")
        del shop.memory.waiting["azureml", "x", "Qg=="]
        age(shop)
        shop.now = NOW + 501
        assert await collect(shop.storage, [], LIMITS) == Collected(blocks=1)
        assert len(shop.on_disk()) == 1
        shop.now = NOW + 601
        assert await collect(shop.storage, [], LIMITS) == NONE
        assert shop.on_disk() == []

    in_shop(tmp_path, story)
