"""The index of the asset storage: one suite for the gateway's store, the one in memory that tests use, and one that
shows collected data as well, of which there is none here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.collection.tree import Tree
from gateway.controlplane.blobs.collected import WithCollected
from gateway.controlplane.blobs.index import Index, StoreIndex
from gateway.controlplane.blobs.refusals import Fault, Refusal
from gateway.controlplane.store.database import Store, StoreBusy
from gateway.controlplane.store.records import AssetFile, Blob, Block, Kind, Ref, Resource
from tests.support.blob_door import BLOCK_BLOB, NOW, open_shop
from tests.support.blob_index import MemoryIndex

BLOB = Blob(
    container="azureml", path="x", sha256="1" * 64, size_bytes=1, md5=b"m" * 16, metadata={"a": "ü"}, etag="0x1",
    modified_at=NOW,
)  # fmt: skip
NEVER = replace(BLOB, path="never")
BLOCK = Block(container="azureml", path="x", block_id="QQ==", sha256="2" * 64, size_bytes=2, created_at=NOW)

Story = Callable[[Index], Awaitable[None]]
Play = Callable[[Story], None]


@pytest.fixture(params=["memory", "store", "with collected"])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Play:
    def in_memory(story: Story) -> None:
        asyncio.run(as_coroutine(story, MemoryIndex()))

    def in_store(story: Story) -> None:
        store = Store.open(f"sqlite:///{tmp_path / 'store.db'}")
        try:
            asyncio.run(as_coroutine(story, StoreIndex(store)))
        finally:
            store.close()

    def with_collected(story: Story) -> None:
        index = WithCollected(MemoryIndex(), Tree(tmp_path / "nothing"), asyncio.to_thread)
        asyncio.run(as_coroutine(story, index))

    plays: dict[str, Play] = {"memory": in_memory, "store": in_store, "with collected": with_collected}
    return plays[request.param]


async def as_coroutine(story: Story, index: Index) -> None:
    await story(index)


async def put(index: Index, *blobs: Blob) -> None:
    for blob in blobs:
        await index.change(blob.container, blob.path, lambda _, blob=blob: blob)  # type: ignore[misc]


def test_a_blob_is_kept_replaced_and_removed(play: Play) -> None:
    async def story(index: Index) -> None:
        assert await index.blob("azureml", "x") is None
        assert (await index.change("azureml", "x", lambda found: BLOB)).blob == BLOB
        assert await index.blob("azureml", "x") == BLOB
        await index.change("azureml", "x", lambda found: replace(found or NEVER, etag="0x2"))
        assert await index.blob("azureml", "x") == replace(BLOB, etag="0x2")
        assert (await index.change("azureml", "x", lambda found: None)).blob is None
        assert await index.blob("azureml", "x") is None

    play(story)


def test_a_change_that_refuses_changes_nothing(play: Play) -> None:
    def refuse(_found: Blob | None) -> Blob:
        raise Refusal(Fault.BLOB_EXISTS, "no")

    async def story(index: Index) -> None:
        await put(index, BLOB)
        await index.add_block(BLOCK, 10)
        with pytest.raises(Refusal):
            await index.change("azureml", "x", refuse, clears_blocks=True)
        assert await index.blob("azureml", "x") == BLOB
        assert await index.blocks("azureml", "x") == [BLOCK]

    play(story)


def test_blobs_are_listed_in_the_order_of_their_characters(play: Play) -> None:
    async def story(index: Index) -> None:
        names = ["B", "a", "a-b", "a/b", "a0", "ab", "z", "ü", "模", "😀"]
        await put(index, *(replace(BLOB, path=name) for name in reversed(names)))
        await put(index, replace(BLOB, container="other"))

        async def listed(prefix: str, after: str, limit: int) -> list[str]:
            return [blob.path for blob in await index.list_blobs("azureml", prefix, after, limit)]

        assert await listed("", "", 100) == names
        assert await listed("", "a/b", 2) == ["a0", "ab"]
        assert await listed("a", "", 100) == ["a", "a-b", "a/b", "a0", "ab"]
        assert await listed("a", "a/\U0010ffff", 100) == ["a0", "ab"]
        assert await listed("", "😀", 100) == []

    play(story)


def test_blocks_wait_until_their_blob_is_there(play: Play) -> None:
    async def story(index: Index) -> None:
        other = replace(BLOCK, block_id="Qg==")
        assert await index.add_block(BLOCK, 2)
        again = replace(BLOCK, sha256="3" * 64)
        assert await index.add_block(again, 2)
        assert await index.add_block(other, 2)
        assert not await index.add_block(replace(BLOCK, block_id="Qw=="), 2)
        elsewhere = replace(BLOCK, path="y")
        assert await index.add_block(elsewhere, 2)
        assert sorted(await index.blocks("azureml", "x"), key=lambda block: block.block_id) == [again, other]
        assert (await index.change("azureml", "x", lambda found: BLOB)).cleared == []
        changed = await index.change("azureml", "x", lambda found: BLOB, clears_blocks=True)
        assert {block.block_id for block in changed.cleared} == {"QQ==", "Qg=="}
        assert await index.blocks("azureml", "x") == []
        assert await index.blocks("azureml", "y") == [elsewhere]

    play(story)


def test_old_blocks_are_dropped(play: Play) -> None:
    async def story(index: Index) -> None:
        young = replace(BLOCK, block_id="Qg==", created_at=NOW + 1)
        await index.add_block(BLOCK, 9)
        await index.add_block(young, 9)
        assert await index.drop_blocks(NOW) == []
        assert await index.drop_blocks(NOW + 1) == [BLOCK]
        assert await index.blocks("azureml", "x") == [young]

    play(story)


def test_a_folder_goes_whole_or_not_at_all(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.controlplane.blobs.index._PAGE", 2)

    async def story(index: Index) -> None:
        names = ["f/1", "f/2", "f/3", "f/4", "f/5/6", "f0", "f"]
        await put(index, *(replace(BLOB, path=name) for name in names))
        await put(index, replace(BLOB, path="f/7", modified_at=NOW + 5))
        assert {blob.path for blob in await index.old_blobs(NOW + 1)} == set(names)
        assert await index.delete_folder("azureml", "f", NOW + 1) == 0
        assert await index.delete_folder("azureml", "f", NOW + 6) == 6
        assert await index.delete_folder("azureml", "f", NOW + 6) == 0
        assert [blob.path for blob in await index.list_blobs("azureml", "", "", 9)] == ["f", "f0"]
        assert await index.delete_folder("azureml", "", NOW + 6) == 2

    play(story)


def test_the_content_of_blobs_is_in_use(play: Play) -> None:
    async def story(index: Index) -> None:
        assert await index.digests_in_use() == set()
        await put(index, BLOB, replace(BLOB, path="y", sha256="4" * 64))
        assert await index.digests_in_use() == {"1" * 64, "4" * 64}

    play(story)


def test_the_content_of_assets_is_in_use(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'store.db'}")
    asset = Resource(
        ref=Ref(kind=Kind.MODEL, parent="m", key="1"), name="1", parent_name="m", document={},
        files=(AssetFile(path="a", sha256="5" * 64, size_bytes=1),), created_at=NOW, created_by="t", modified_at=NOW,
        modified_by="t",
    )  # fmt: skip

    async def story() -> None:
        await store.write(lambda transaction: transaction.put(asset, expected=None))
        assert await StoreIndex(store).digests_in_use() == {"5" * 64}

    try:
        asyncio.run(story())
    finally:
        store.close()


def test_a_store_that_is_busy_is_told_as_busy(tmp_path: Path) -> None:
    class Busy:
        async def read(self, _work: object) -> None:
            raise StoreBusy("it is locked")

        write = read

    async def story() -> None:
        async with open_shop(tmp_path, index=StoreIndex(Busy())) as shop:  # type: ignore[arg-type]
            for method, headers in (("GET", {}), ("PUT", BLOCK_BLOB)):
                answer = await shop.ask(method, "x", headers=headers)
                assert (answer.status, answer.code) == (503, "ServerBusy")
                assert answer.headers["retry-after"] == "1"

    asyncio.run(story())


def test_the_protocol_works_on_the_store(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'store.db'}")

    async def story() -> None:
        async with open_shop(tmp_path, index=StoreIndex(store)) as shop:
            new = BLOCK_BLOB | {"if-none-match": "*", "x-ms-meta-a": "1"}
            answers = await asyncio.gather(*(shop.ask("PUT", "f/x", headers=new, body=b"data") for _ in range(4)))
            assert sorted(answer.status for answer in answers) == [201, 409, 409, 409]
            await shop.ask("PUT", "f/y", "comp=block&blockid=QQ==", body=b"block")
            body = b"<BlockList><Latest>QQ==</Latest></BlockList>"
            assert (await shop.ask("PUT", "f/y", "comp=blocklist", body=body)).status == 201
            assert (await shop.ask("GET", "f/y")).body == b"block"
            assert (await shop.ask("HEAD", "f/x")).headers["x-ms-meta-a"] == "1"
            found = await shop.ask("GET", "", "restype=container&comp=list&delimiter=/")
            assert found.xml.findtext("Blobs/BlobPrefix/Name") == "f/"
            assert (await shop.ask("DELETE", "f/x")).status == 202

    try:
        asyncio.run(story())
    finally:
        store.close()
