"""Content by its hash, for whoever exports assets: read whatever names it has, and never written by that name."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.controlplane.blobs import sas
from tests.support.blob_door import BLOCK_BLOB, NOW, SECRET, Shop, open_shop

DATA = b"the model" * 1000
SHA = hashlib.sha256(DATA).hexdigest()


def in_shop(folder: Path, story: Callable[[Shop], Awaitable[None]]) -> None:
    async def main() -> None:
        async with open_shop(folder) as shop:
            put = await shop.ask("PUT", "LocalUpload/ab/m.onnx", headers=BLOCK_BLOB, body=[DATA])
            assert put.status == 201
            await story(shop)

    asyncio.run(main())


def test_content_is_read_by_its_hash_whole_or_in_part(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        found = await shop.ask("GET", SHA, container="sha256")
        assert (found.status, found.body) == (200, DATA)
        part = await shop.ask("GET", SHA, container="sha256", headers={"range": "bytes=4-8"})
        assert (part.status, part.body) == (206, b"model")
        head = await shop.ask("HEAD", SHA, container="sha256")
        assert (head.status, head.headers["content-length"]) == (200, str(len(DATA)))

    in_shop(tmp_path, story)


@pytest.mark.parametrize("name", ["0" * 64, SHA.upper(), SHA[:63], f"{SHA[:2]}/{SHA}"])
def test_what_is_no_hash_of_content_is_not_there(tmp_path: Path, name: str) -> None:
    async def story(shop: Shop) -> None:
        found = await shop.ask("GET", name, container="sha256")
        assert (found.status, found.code) == (404, "BlobNotFound")

    in_shop(tmp_path, story)


def test_a_link_in_place_of_content_is_not_followed(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        held = shop.files.path_of(SHA).rename(shop.files.path_of(SHA).with_name("held"))
        shop.files.path_of(SHA).symlink_to(held)
        found = await shop.ask("GET", SHA, container="sha256")
        assert found.status == 404
        held.replace(shop.files.path_of(SHA))

    in_shop(tmp_path, story)


def test_nothing_is_written_by_its_hash_and_another_containers_link_opens_nothing(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        put = await shop.ask("PUT", SHA, container="sha256", headers=BLOCK_BLOB, body=[b"x"])
        assert (put.status, put.code) == (400, "InvalidResourceName")
        gone = await shop.ask("DELETE", SHA, container="sha256")
        assert gone.status == 404
        other = sas.sign(SECRET, "azureml", "", sas.PERMISSIONS, NOW + 3600)
        refused = await shop.ask("GET", SHA, container="sha256", query=other, permissions="")
        assert refused.status == 403

    in_shop(tmp_path, story)
