"""The Blob protocol: each request of contract section 4, what is refused and how, and nothing half-written."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.requests import Request

from gateway.controlplane.blobs import sas
from gateway.controlplane.blobs.storage import Storage
from gateway.errors import Code, Problem
from tests.support.blob_door import BLOCK_BLOB, LIMITS, NOW, SECRET, Answer, Shop, open_shop, send

NEW = BLOCK_BLOB | {"if-none-match": "*"}
BLOCK_ID = b64encode(b"block-00000").decode()


def in_shop(folder: Path, story: Callable[[Shop], Awaitable[None]], **options: object) -> None:
    async def main() -> None:
        async with open_shop(folder, **options) as shop:  # type: ignore[arg-type]
            await story(shop)

    asyncio.run(main())


def md5_of(data: bytes) -> str:
    return b64encode(hashlib.md5(data).digest()).decode()


def block_list(*ids: str, tag: str = "Latest") -> bytes:
    return f"<BlockList>{''.join(f'<{tag}>{one}</{tag}>' for one in ids)}</BlockList>".encode()


def id_of(number: int) -> str:
    return b64encode(b"block-%05d" % number).decode()


def code_of(answer: Answer, status: int) -> str:
    """The code of an error, said alike in header and body, with a message."""
    assert answer.status == status, (answer.status, answer.headers, answer.body[:300])
    assert answer.headers["content-type"] == "application/xml"
    document = answer.xml
    assert document.findtext("Code") == answer.code
    assert answer.headers["x-ms-request-id"] in (document.findtext("Message") or "")
    return answer.code


# Whole blobs.


def test_a_blob_is_put_and_got(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        data = b"the model" * 1000
        headers = BLOCK_BLOB | {
            "content-md5": md5_of(data),
            "content-type": "application/octet-stream",
            "x-ms-blob-content-type": "application/x-onnx",
            "x-ms-meta-Name": "digits",
        }
        put = await shop.ask("PUT", "LocalUpload/ab/m.onnx", headers=headers, body=[data[:100], b"", data[100:]])
        assert put.status == 201
        assert put.body == b""
        assert put.headers["content-md5"] == md5_of(data)
        assert put.headers["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
        head = await shop.ask("HEAD", "LocalUpload/ab/m.onnx")
        got = await shop.ask("GET", "LocalUpload/ab/m.onnx")
        assert got.status == head.status == 200
        assert got.body == data
        assert head.body == b""
        for name, value in {
            "content-length": "9000", "content-md5": md5_of(data), "content-type": "application/x-onnx",
            "etag": put.headers["etag"], "last-modified": put.headers["last-modified"], "accept-ranges": "bytes",
            "x-ms-blob-type": "BlockBlob", "x-ms-meta-name": "digits", "x-content-type-options": "nosniff",
        }.items():  # fmt: skip
            assert head.headers[name] == got.headers[name] == value

    in_shop(tmp_path, story)


def test_every_answer_says_which_it_is(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        said = {"x-ms-version": "2025-01-05", "x-ms-client-request-id": "abc def\tü"}
        for method in ("HEAD", "GET", "PUT", "OPTIONS"):
            answer = await shop.ask(method, "x", headers=said)
            assert len(answer.headers["x-ms-request-id"]) == 36
            assert answer.headers["x-ms-version"] == "2025-01-05"
            assert answer.headers["x-ms-client-request-id"] == "abcdef"
        assert (await shop.ask("GET", "x", headers={"x-ms-version": "any"})).headers["x-ms-version"] == "2021-12-02"

    in_shop(tmp_path, story)


def test_a_blob_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        head = await shop.ask("HEAD", "LocalUpload/ab/m.onnx")
        assert (head.status, head.code, head.body) == (404, "BlobNotFound", b"")
        for method, query in (("GET", ""), ("DELETE", ""), ("PUT", "comp=metadata")):
            assert code_of(await shop.ask(method, "x", query), 404) == "BlobNotFound"
        await shop.ask("PUT", "folder/x", headers=BLOCK_BLOB)
        for method in ("GET", "DELETE"):
            assert code_of(await shop.ask(method, "folder/"), 404) == "BlobNotFound"

    in_shop(tmp_path, story)


def test_an_empty_blob_is_one(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        assert (await shop.ask("PUT", "x", headers=BLOCK_BLOB | {"content-md5": md5_of(b"")})).status == 201
        got = await shop.ask("GET", "x")
        assert (got.status, got.body, got.headers["content-length"]) == (200, b"", "0")
        refused = await shop.ask("GET", "x", headers={"x-ms-range": "bytes=0-33554431"})
        assert code_of(refused, 416) == "InvalidRange"
        assert refused.headers["content-range"] == "bytes */0"

    in_shop(tmp_path, story)


def test_a_new_blob_does_not_replace_one(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        assert (await shop.ask("PUT", "x", headers=NEW, body=b"one")).status == 201
        assert code_of(await shop.ask("PUT", "x", headers=NEW, body=b"two"), 409) == "BlobAlreadyExists"
        assert (await shop.ask("GET", "x")).body == b"one"
        assert (await shop.ask("PUT", "x", headers=BLOCK_BLOB, body=b"three")).status == 201
        assert (await shop.ask("GET", "x")).body == b"three"

    in_shop(tmp_path, story)


def test_of_two_new_blobs_of_one_name_one_is_there_and_whole(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        bodies = [bytes([number]) * 5000 for number in range(8)]
        answers = await asyncio.gather(
            *(shop.ask("PUT", "x", headers=NEW, body=[body[:2500], body[2500:]]) for body in bodies)
        )
        assert sorted(answer.status for answer in answers) == [201] + [409] * 7
        won = next(body for body, answer in zip(bodies, answers, strict=True) if answer.status == 201)
        assert (await shop.ask("GET", "x")).body == won

    in_shop(tmp_path, story)


def test_the_last_of_several_puts_wins_whole(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        bodies = [bytes([number]) * 5000 for number in range(8)]
        await asyncio.gather(
            *(shop.ask("PUT", "x", headers=BLOCK_BLOB, body=[body[:9], body[9:]]) for body in bodies)
        )
        assert (await shop.ask("GET", "x")).body in bodies

    in_shop(tmp_path, story)


@pytest.mark.parametrize("header", ["content-md5", "x-ms-blob-content-md5"])
def test_content_with_another_md5_is_not_kept(tmp_path: Path, header: str) -> None:
    async def story(shop: Shop) -> None:
        wrong = await shop.ask("PUT", "x", headers=BLOCK_BLOB | {header: md5_of(b"other")}, body=b"data")
        assert code_of(wrong, 400) == "Md5Mismatch"
        for text in ("", "x", md5_of(b"")[:-4], "\xff"):
            bad = await shop.ask("PUT", "x", headers=BLOCK_BLOB | {header: text}, body=b"data")
            assert code_of(bad, 400) == "InvalidMd5"
        assert shop.on_disk() == []
        assert shop.memory.kept == {}

    in_shop(tmp_path, story)


def test_an_upload_that_is_cut_off_leaves_nothing(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        for query in ("", f"comp=block&blockid={BLOCK_ID}", "comp=blocklist"):
            cut = await shop.ask("PUT", "x", query, BLOCK_BLOB, [b"half of i"], hangs_up=True)
            assert cut.status == 0
        assert shop.on_disk() == []
        assert shop.memory.kept == {}
        assert shop.memory.waiting == {}

    in_shop(tmp_path, story)


def test_a_blob_is_deleted(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        await shop.ask("PUT", "x", headers=BLOCK_BLOB, body=b"data")
        await shop.ask("PUT", "x", f"comp=block&blockid={BLOCK_ID}", body=b"block")
        wrong = await shop.ask("DELETE", "x", headers={"if-match": '"0x0"'})
        assert code_of(wrong, 412) == "ConditionNotMet"
        assert (await shop.ask("DELETE", "x")).status == 202
        assert (await shop.ask("HEAD", "x")).status == 404
        assert shop.memory.waiting == {}
        assert [path.parts[0] for path in shop.on_disk()] == ["sha256"]

    in_shop(tmp_path, story)


# Parts, conditions, metadata.


@pytest.mark.parametrize("header", ["range", "x-ms-range"])
def test_a_part_of_a_blob_is_given(tmp_path: Path, header: str) -> None:
    async def story(shop: Shop) -> None:
        data = bytes(range(256)) * 2000
        await shop.ask("PUT", "x", headers=BLOCK_BLOB, body=data)
        part = await shop.ask("GET", "x", headers={header: "bytes=100-299999"})
        assert part.status == 206
        assert part.body == data[100:300_000]
        assert part.headers["content-range"] == "bytes 100-299999/512000"
        assert part.headers["content-length"] == "299900"
        assert part.headers["x-ms-blob-content-md5"] == md5_of(data)
        assert "content-md5" not in part.headers
        assert code_of(await shop.ask("GET", "x", headers={header: "bytes=512000-"}), 416) == "InvalidRange"
        assert code_of(await shop.ask("GET", "x", headers={header: "bytes=b-"}), 400) == "InvalidHeaderValue"
        assert (await shop.ask("GET", "x", headers={header: "bytes=0-1,4-5"})).status == 200

    in_shop(tmp_path, story)


def test_the_azure_range_counts_where_there_are_two(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        await shop.ask("PUT", "x", headers=BLOCK_BLOB, body=b"0123456789")
        part = await shop.ask("GET", "x", headers={"range": "bytes=0-0", "x-ms-range": "bytes=5-6"})
        assert part.body == b"56"

    in_shop(tmp_path, story)


def test_the_md5_of_a_part_is_given_where_it_is_small(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        data = bytes(100) * 100
        await shop.ask("PUT", "x", headers=BLOCK_BLOB, body=data)
        part = await shop.ask("GET", "x", headers={"range": "bytes=0-9", "x-ms-range-get-content-md5": "true"})
        assert part.headers["content-md5"] == md5_of(bytes(10))
        assert part.body == bytes(10)

    in_shop(tmp_path, story)


def test_the_md5_of_a_large_part_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.controlplane.blobs.http.RANGE_MD5_BYTES_MAX", 9)

    async def story(shop: Shop) -> None:
        await shop.ask("PUT", "x", headers=BLOCK_BLOB, body=bytes(100))
        part = await shop.ask("GET", "x", headers={"range": "bytes=0-9", "x-ms-range-get-content-md5": "true"})
        assert code_of(part, 400) == "OutOfRangeInput"

    in_shop(tmp_path, story)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_reader_who_has_it_already_is_told_so(tmp_path: Path, method: str) -> None:
    async def story(shop: Shop) -> None:
        etag = (await shop.ask("PUT", "x", headers=BLOCK_BLOB, body=b"data")).headers["etag"]
        same = await shop.ask(method, "x", headers={"if-none-match": etag})
        assert (same.status, same.body, same.headers["etag"]) == (304, b"", etag)
        other = await shop.ask(method, "x", headers={"if-match": '"0x0"'})
        assert (other.status, other.code) == (412, "ConditionNotMet")
        assert (await shop.ask(method, "x", headers={"if-match": etag})).status == 200

    in_shop(tmp_path, story)


def test_metadata_is_replaced_whole(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        first = await shop.ask("PUT", "x", headers=BLOCK_BLOB | {"x-ms-meta-old": "1"}, body=b"data")
        shop.now += 5
        said = {"x-ms-meta-upload_status": "completed", "x-ms-meta-name": "n", "x-ms-meta-version": "1"}
        put = await shop.ask("PUT", "x", "comp=metadata", said)
        assert put.status == 200
        assert put.headers["etag"] != first.headers["etag"]
        assert put.headers["last-modified"] == "Tue, 14 Nov 2023 22:13:25 GMT"
        head = await shop.ask("HEAD", "x")
        assert {name: value for name, value in head.headers.items() if name.startswith("x-ms-meta-")} == said
        stale = await shop.ask("PUT", "x", "comp=metadata", {"if-match": first.headers["etag"]})
        assert code_of(stale, 412) == "ConditionNotMet"
        assert (await shop.ask("GET", "x")).body == b"data"

    in_shop(tmp_path, story)


@pytest.mark.parametrize("name", ["1x", "a-b", "a.b", "", "ü", "n" * 129])
def test_a_name_of_metadata_is_an_identifier(tmp_path: Path, name: str) -> None:
    async def story(shop: Shop) -> None:
        for query in ("", "comp=metadata"):
            headers = BLOCK_BLOB | {f"x-ms-meta-{name}".encode().decode("latin-1"): "1"}
            raw = {key.encode("ascii", "replace").decode(): value for key, value in headers.items()}
            assert code_of(await shop.ask("PUT", "x", query, raw), 400) == "InvalidMetadata"

    in_shop(tmp_path, story)


def test_metadata_is_bounded(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        headers = BLOCK_BLOB | {"x-ms-meta-a": "x" * 8192}
        assert code_of(await shop.ask("PUT", "x", headers=headers), 400) == "MetadataTooLarge"

    in_shop(tmp_path, story)


# Blocks.


def test_a_blob_is_made_of_blocks_in_the_order_of_the_list(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        for number in (1, 0, 2):
            data = b"%d" % number * 3
            put = await shop.ask(
                "PUT", "x", f"comp=block&blockid={id_of(number)}", {"content-md5": md5_of(data)}, data
            )
            assert put.status == 201
            assert put.headers["content-md5"] == md5_of(data)
        assert (await shop.ask("HEAD", "x")).status == 404
        body = block_list(id_of(2), id_of(0), id_of(2))
        headers = {"x-ms-meta-a": "b", "content-md5": md5_of(body), "x-ms-blob-content-md5": md5_of(b"222000222")}
        commit = await shop.ask("PUT", "x", "comp=blocklist", headers, body)
        assert commit.status == 201
        assert commit.headers["content-md5"] == md5_of(body)
        got = await shop.ask("GET", "x")
        assert got.body == b"222000222"
        assert got.headers["x-ms-meta-a"] == "b"
        assert got.headers["etag"] == commit.headers["etag"]
        assert [path.parts[0] for path in shop.on_disk()] == ["sha256"]
        assert shop.memory.waiting == {}

    in_shop(tmp_path, story)


def test_a_commit_can_be_asked_for_again(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        await shop.ask("PUT", "x", f"comp=block&blockid={BLOCK_ID}", body=b"data")
        first = await shop.ask("PUT", "x", "comp=blocklist", body=block_list(BLOCK_ID))
        again = await shop.ask("PUT", "x", "comp=blocklist", body=block_list(BLOCK_ID))
        assert again.status == first.status == 201
        assert again.headers["etag"] == first.headers["etag"]
        new = await shop.ask("PUT", "x", "comp=blocklist", {"if-none-match": "*"}, block_list(BLOCK_ID))
        assert code_of(new, 409) == "BlobAlreadyExists"
        await shop.ask("PUT", "x", "comp=metadata")
        other = await shop.ask("PUT", "x", "comp=blocklist", body=block_list(BLOCK_ID))
        assert code_of(other, 400) == "InvalidBlockList"

    in_shop(tmp_path, story)


def test_only_so_many_commits_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.controlplane.blobs.storage._COMMITS_REMEMBERED", 1)

    async def story(shop: Shop) -> None:
        for name in ("x", "y"):
            await shop.ask("PUT", name, f"comp=block&blockid={BLOCK_ID}", body=b"data")
            await shop.ask("PUT", name, "comp=blocklist", body=block_list(BLOCK_ID))
        for name, status in (("x", 400), ("y", 201)):
            again = await shop.ask("PUT", name, "comp=blocklist", body=block_list(BLOCK_ID))
            assert again.status == status

    in_shop(tmp_path, story)


def test_a_list_may_be_empty(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        assert (await shop.ask("PUT", "x", "comp=blocklist", body=block_list())).status == 201
        assert (await shop.ask("GET", "x")).body == b""

    in_shop(tmp_path, story)


def test_a_list_names_only_blocks_that_wait(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        await shop.ask("PUT", "x", f"comp=block&blockid={BLOCK_ID}", body=b"data")
        for body in (
            block_list(BLOCK_ID, id_of(9)),
            block_list(BLOCK_ID, tag="Committed"),
            b"<BlockList><Latest/></BlockList>",
        ):
            assert code_of(await shop.ask("PUT", "x", "comp=blocklist", body=body), 400) == "InvalidBlockList"
        assert code_of(await shop.ask("PUT", "y", "comp=blocklist", body=block_list(BLOCK_ID)), 400)
        bomb = b'<!DOCTYPE l [<!ENTITY a "x">]><BlockList><Latest>&a;</Latest></BlockList>'
        assert code_of(await shop.ask("PUT", "x", "comp=blocklist", body=bomb), 400) == "InvalidXmlDocument"
        wrong = await shop.ask("PUT", "x", "comp=blocklist", {"content-md5": md5_of(b"")}, block_list(BLOCK_ID))
        assert code_of(wrong, 400) == "Md5Mismatch"
        wrong = await shop.ask(
            "PUT", "x", "comp=blocklist", {"x-ms-blob-content-md5": md5_of(b"")}, block_list(BLOCK_ID)
        )
        assert code_of(wrong, 400) == "Md5Mismatch"
        assert shop.memory.kept == {}
        assert (await shop.ask("PUT", "x", "comp=blocklist", body=block_list(BLOCK_ID))).status == 201

    in_shop(tmp_path, story)


def test_a_block_whose_file_is_gone_is_none(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        await shop.ask("PUT", "x", f"comp=block&blockid={BLOCK_ID}", body=b"data")
        for kept in list(shop.files.kept("blocks")):
            shop.files.remove(kept.name, "blocks")
        answer = await shop.ask("PUT", "x", "comp=blocklist", body=block_list(BLOCK_ID))
        assert code_of(answer, 400) == "InvalidBlockList"

    in_shop(tmp_path, story)


@pytest.mark.parametrize("block_id", ["", "x", "@@@@", "%C3%BC", b64encode(b"n" * 65).decode()])
def test_a_block_has_an_id_in_base64(tmp_path: Path, block_id: str) -> None:
    async def story(shop: Shop) -> None:
        answer = await shop.ask("PUT", "x", f"comp=block&blockid={block_id}", body=b"data")
        assert code_of(answer, 400) == "InvalidBlockId"
        assert shop.on_disk() == []

    in_shop(tmp_path, story)


def test_a_block_with_another_md5_is_not_kept(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        headers = {"content-md5": md5_of(b"other")}
        answer = await shop.ask("PUT", "x", f"comp=block&blockid={BLOCK_ID}", headers, b"data")
        assert code_of(answer, 400) == "Md5Mismatch"
        assert shop.on_disk() == []

    in_shop(tmp_path, story)


def test_only_so_many_blocks_wait_for_one_blob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.controlplane.blobs.storage.BLOCKS_MAX", 1)

    async def story(shop: Shop) -> None:
        assert (await shop.ask("PUT", "x", f"comp=block&blockid={id_of(0)}", body=b"data")).status == 201
        second = await shop.ask("PUT", "x", f"comp=block&blockid={id_of(1)}", body=b"data")
        assert code_of(second, 409) == "BlockCountExceedsLimit"
        assert len(shop.on_disk()) == 1

    in_shop(tmp_path, story)


def test_a_blob_that_is_put_whole_forgets_its_blocks(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        await shop.ask("PUT", "x", f"comp=block&blockid={BLOCK_ID}", body=b"data")
        await shop.ask("PUT", "x", headers=BLOCK_BLOB, body=b"whole")
        assert [path.parts[0] for path in shop.on_disk()] == ["sha256"]
        assert shop.memory.waiting == {}

    in_shop(tmp_path, story)


# Bounds.


def test_what_is_too_large_is_refused_announced_or_not(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        piece = bytes(60_000)
        length = {"content-length": "600001"}
        assert code_of(await shop.ask("PUT", "x", headers=BLOCK_BLOB | length), 413) == "RequestBodyTooLarge"
        chunked = await shop.ask("PUT", "x", headers=BLOCK_BLOB | {"content-length": "0"}, body=[piece] * 11)
        assert code_of(chunked, 413) == "RequestBodyTooLarge"
        block = await shop.ask("PUT", "x", f"comp=block&blockid={BLOCK_ID}", body=bytes(300_001))
        assert code_of(block, 413) == "RequestBodyTooLarge"
        listed = await shop.ask("PUT", "x", "comp=blocklist", {"content-length": str(9 << 20)})
        assert code_of(listed, 413) == "RequestBodyTooLarge"
        unannounced = await shop.ask("PUT", "x", "comp=blocklist", {"content-length": "0"}, [bytes(5 << 20)] * 2)
        assert code_of(unannounced, 413) == "RequestBodyTooLarge"
        odd = await shop.ask("PUT", "x", headers=BLOCK_BLOB | {"content-length": "1e3"})
        assert code_of(odd, 400) == "InvalidHeaderValue"
        await shop.ask("PUT", "x", f"comp=block&blockid={BLOCK_ID}", body=bytes(300_000))
        commit = await shop.ask("PUT", "x", "comp=blocklist", body=block_list(BLOCK_ID, BLOCK_ID, BLOCK_ID))
        assert code_of(commit, 413) == "RequestBodyTooLarge"
        assert shop.memory.kept == {}

    in_shop(tmp_path, story)


def test_all_blobs_together_are_bounded_and_deleting_makes_room_once_it_is_collected(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        assert (await shop.ask("PUT", "x", headers=BLOCK_BLOB, body=b"x" * 600)).status == 201
        assert code_of(await shop.ask("PUT", "y", headers=BLOCK_BLOB, body=b"y" * 600), 413) == "StorageQuotaExceeded"
        block = await shop.ask("PUT", "y", f"comp=block&blockid={BLOCK_ID}", body=b"y" * 600)
        assert code_of(block, 413) == "StorageQuotaExceeded"
        assert (await shop.ask("GET", "x")).body == b"x" * 600
        assert (await shop.ask("PUT", "y", headers=BLOCK_BLOB, body=b"y" * 400)).status == 201

    in_shop(tmp_path, story, limits=replace(LIMITS, assets_max_bytes=1000))


def test_blocks_do_not_count_twice_when_they_become_a_blob(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        await shop.ask("PUT", "x", f"comp=block&blockid={BLOCK_ID}", body=b"y" * 900)
        assert (await shop.ask("PUT", "x", "comp=blocklist", body=block_list(BLOCK_ID))).status == 201
        await shop.ask("PUT", "y", f"comp=block&blockid={BLOCK_ID}", body=b"z" * 100)
        twice = await shop.ask("PUT", "y", "comp=blocklist", body=block_list(BLOCK_ID, BLOCK_ID))
        assert code_of(twice, 413) == "StorageQuotaExceeded"

    in_shop(tmp_path, story, limits=replace(LIMITS, assets_max_bytes=1000))


def test_a_full_disk_is_told_and_nothing_is_half_written(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        assert code_of(await shop.ask("PUT", "x", headers=BLOCK_BLOB, body=b"data"), 507) == "InsufficientStorage"
        assert shop.on_disk() == []

    in_shop(tmp_path, story, limits=replace(LIMITS, disk_reserve_bytes=1 << 60))


def test_uploads_wait_for_each_other_where_they_are_too_many(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        answers = await asyncio.gather(
            *(shop.ask("PUT", f"x{number}", headers=BLOCK_BLOB, body=b"data") for number in range(5))
        )
        assert [answer.status for answer in answers] == [201] * 5
        assert "0 uploads" in repr(shop.storage)

    in_shop(tmp_path, story, limits=replace(LIMITS, uploads_max=2))


def test_uploads_that_waited_for_long_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.controlplane.blobs.storage._UPLOAD_WAIT_S", 0.0)

    async def story(shop: Shop) -> None:
        answers = await asyncio.gather(
            *(shop.ask("PUT", f"x{number}", headers=BLOCK_BLOB, body=b"data") for number in range(3))
        )
        assert sorted(answer.status for answer in answers) == [201, 503, 503]
        busy = next(answer for answer in answers if answer.status == 503)
        assert code_of(busy, 503) == "ServerBusy"
        assert busy.headers["retry-after"] == "1"
        assert (await shop.ask("PUT", "x", headers=BLOCK_BLOB, body=b"data")).status == 201

    in_shop(tmp_path, story, limits=replace(LIMITS, uploads_max=1))


# Lists.


async def listed(shop: Shop, query: str = "", **options: str) -> tuple[list[str], list[str], str]:
    """Blobs, folders, and the marker."""
    text = f"restype=container&comp=list{'&' if query else ''}{query}"
    answer = await shop.ask("GET", "", text, **options)  # type: ignore[arg-type]
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/xml"
    document = answer.xml
    blobs = [one.text or "" for one in document.iterfind("Blobs/Blob/Name")]
    folders = [one.text or "" for one in document.iterfind("Blobs/BlobPrefix/Name")]
    return blobs, folders, document.findtext("NextMarker") or ""


def test_a_container_is_listed_in_order_with_its_folders(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        for path in ("b", "a/x", "a/y/z", "a0", "a", "c/d/e", "ü/x"):
            await shop.ask("PUT", path, headers=BLOCK_BLOB)
        await shop.ask("PUT", "other", headers=BLOCK_BLOB, container="another")
        assert await listed(shop) == (["a", "a/x", "a/y/z", "a0", "b", "c/d/e", "ü/x"], [], "")
        assert await listed(shop, "delimiter=/") == (["a", "a0", "b"], ["a/", "c/", "ü/"], "")
        assert await listed(shop, "delimiter=/&prefix=a/") == (["a/x"], ["a/y/"], "")
        assert await listed(shop, "prefix=a") == (["a", "a/x", "a/y/z", "a0"], [], "")
        assert await listed(shop, "prefix=%C3%BC") == (["ü/x"], [], "")
        assert await listed(shop, "prefix=zz") == ([], [], "")
        assert await listed(shop, container="another") == (["other"], [], "")
        assert await listed(shop, container="empty") == ([], [], "")

    in_shop(tmp_path, story)


@pytest.mark.parametrize("size", [1, 2, 3, 5000])
@pytest.mark.parametrize("page_size", [1, 2, 1000])
def test_a_list_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, page_size: int
) -> None:
    monkeypatch.setattr("gateway.controlplane.blobs.storage._LIST_PAGE", page_size)

    async def story(shop: Shop) -> None:
        paths = sorted(["a", "a/1", "a/2", "a/3/4", "a0", "b/1", "b/2", "c"])
        for path in paths:
            await shop.ask("PUT", path, headers=BLOCK_BLOB)
        for query, wanted in (
            ("", [*paths]),
            ("delimiter=/&", ["a", "a/", "a0", "b/", "c"]),
            ("delimiter=/&prefix=a&", ["a", "a/", "a0"]),
            ("delimiter=/&prefix=b&", ["b/"]),
        ):
            found: list[str] = []
            marker = ""
            for _ in range(len(paths) + 1):
                blobs, folders, marker = await listed(shop, f"{query}maxresults={size}&marker={marker}")
                assert len(blobs) + len(folders) <= size
                found += sorted(blobs + folders)
                if not marker:
                    break
            assert found == wanted
            assert not marker

    in_shop(tmp_path, story)


def test_a_list_says_what_was_asked_and_gives_metadata(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        await shop.ask("PUT", "a/x", headers=BLOCK_BLOB | {"x-ms-meta-a": "<1>"}, body=b"data")
        answer = await shop.ask("GET", "", "restype=container&comp=list&include=metadata&prefix=a/&maxresults=7")
        document = answer.xml
        assert document.attrib == {"ServiceEndpoint": "https://gateway.test/blob/", "ContainerName": "azureml"}
        assert document.findtext("Prefix") == "a/"
        assert document.findtext("MaxResults") == "7"
        assert document.findtext("Blobs/Blob/Metadata/a") == "<1>"
        assert document.findtext("Blobs/Blob/Properties/Content-Length") == "4"

    in_shop(tmp_path, story)


@pytest.mark.parametrize(
    "query",
    ["maxresults=0", "maxresults=x", "marker=%C3%BC", "marker=x", "marker=AA==", "prefix=%00", "delimiter=%0A",
     "prefix=" + "n" * 1025, "prefix=%FF", "comp=list&comp=list", "&".join(f"x{n}=1" for n in range(70))],
)  # fmt: skip
def test_an_odd_question_is_refused(tmp_path: Path, query: str) -> None:
    async def story(shop: Shop) -> None:
        answer = await shop.ask("GET", "", f"restype=container&comp=list&{query}")
        assert code_of(answer, 400) == "InvalidQueryParameterValue"

    in_shop(tmp_path, story)


def test_every_container_is_there(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        for method in ("GET", "HEAD"):
            answer = await shop.ask(method, "", "restype=container")
            assert answer.status == 200
            assert answer.headers["etag"]
        made = await shop.ask("PUT", "", "restype=container")
        assert code_of(made, 409) == "ContainerAlreadyExists"

    in_shop(tmp_path, story)


def test_content_is_read_by_its_hash_and_never_written(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        await shop.ask("PUT", "x", headers=BLOCK_BLOB, body=b"data")
        digest = hashlib.sha256(b"data").hexdigest()
        got = await shop.ask("GET", digest, container="sha256")
        assert (got.status, got.body) == (200, b"data")
        assert "content-md5" not in got.headers
        part = await shop.ask("GET", digest, headers={"range": "bytes=1-2"}, container="sha256")
        assert (part.status, part.body) == (206, b"at")
        for name in ("0" * 64, "x", f"{digest}/"):
            assert (await shop.ask("HEAD", name, container="sha256")).status == 404
        for name, query in ((digest, ""), (digest, f"comp=block&blockid={BLOCK_ID}")):
            refused = await shop.ask("PUT", name, query, BLOCK_BLOB, b"other", container="sha256")
            assert code_of(refused, 400) == "InvalidResourceName"
        assert (await shop.ask("DELETE", digest, container="sha256")).status == 404
        assert (await shop.ask("GET", "x")).body == b"data"

    in_shop(tmp_path, story)


# Who is let in.


async def act(shop: Shop, permissions: str) -> dict[str, int]:
    """What each request is answered with, by its name."""

    async def status(method: str, path: str, query: str = "", headers: dict[str, str] | None = None) -> int:
        return (await shop.ask(method, path, query, headers, permissions=permissions)).status

    return {
        "get": await status("GET", "old"),
        "head": await status("HEAD", "old"),
        "list": await status("GET", "", "restype=container&comp=list"),
        "make": await status("PUT", "new", headers=BLOCK_BLOB),
        "replace": await status("PUT", "old", headers=BLOCK_BLOB),
        "block": await status("PUT", "new2", f"comp=block&blockid={BLOCK_ID}"),
        "commit": await status("PUT", "new3", "comp=blocklist"),
        "metadata": await status("PUT", "old", "comp=metadata"),
        "delete": await status("DELETE", "old"),
    }


@pytest.mark.parametrize(
    ("permissions", "allowed"),
    [
        ("r", {"get", "head"}),
        ("l", {"list"}),
        ("w", {"make", "replace", "block", "commit", "metadata"}),
        ("c", {"make", "block", "commit"}),
        ("d", {"delete"}),
        ("a", set()),
        ("rw", {"get", "head", "make", "replace", "block", "commit", "metadata"}),
    ],
)
def test_a_signature_permits_what_it_says(tmp_path: Path, permissions: str, allowed: set[str]) -> None:
    async def story(shop: Shop) -> None:
        await shop.ask("PUT", "old", headers=BLOCK_BLOB)
        found = await act(shop, permissions)
        # An empty document is no list of blocks: then it was let in.
        let_in = {name for name, status in found.items() if status in (200, 201, 202, 400)}
        assert let_in == allowed
        assert {found[name] for name in found.keys() - allowed} <= {403, 409}
        assert found["replace"] == 409 if permissions == "c" else True

    in_shop(tmp_path, story)


def test_without_a_good_signature_nobody_is_let_in(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        await shop.ask("PUT", "x", headers=BLOCK_BLOB)
        nothing = await shop.ask("GET", "x", permissions="")
        assert code_of(nothing, 401) == "NoAuthenticationInformation"
        assert nothing.headers["www-authenticate"] == "Bearer"
        old = sas.sign(SECRET, "azureml", "", "r", NOW)
        other = sas.sign(SECRET, "another", "", "r", NOW + 9)
        folder = sas.sign(SECRET, "azureml", "folder", "r", NOW + 9)
        for query in (old, other, folder, "sig=0", sas.sign(b"guess", "azureml", "", "r", NOW + 9)):
            refused = await shop.ask("GET", "x", query, permissions="")
            assert code_of(refused, 403) == "AuthenticationFailed"
        bearer = await shop.ask("GET", "x", headers={"authorization": "Bearer t"}, permissions="")
        assert code_of(bearer, 401) == "NoAuthenticationInformation"

    in_shop(tmp_path, story)


def test_a_signature_for_a_folder_lists_it_and_nothing_else(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        await shop.ask("PUT", "job/score/x", headers=BLOCK_BLOB)
        signed = sas.sign(SECRET, "azureml", "job/score", "rl", NOW + 9)
        assert (await shop.ask("GET", "job/score/x", signed, permissions="")).status == 200
        query = f"restype=container&comp=list&{signed}"
        assert (await shop.ask("GET", "", f"{query}&prefix=job/score/", permissions="")).status == 200
        for prefix in ("", "&prefix=job", "&prefix=job/score", "&prefix=job/other/"):
            assert (await shop.ask("GET", "", query + prefix, permissions="")).status == 403

    in_shop(tmp_path, story)


def test_a_bearer_token_is_the_callers_matter(tmp_path: Path) -> None:
    async def authorise(request: Request) -> str:
        token = request.headers["authorization"]
        if token == "Bearer expired":
            raise Problem(Code.UNAUTHENTICATED, "the token ended")
        if token == "Bearer stranger":
            raise Problem(Code.FORBIDDEN, "no role")
        if token == "Bearer busy":
            raise Problem(Code.UNAVAILABLE, "the store is busy")
        if token == "Bearer odd":
            raise Problem(Code.INTERNAL, "odd")
        return {"Bearer reader": "rl", "Bearer operator": "racwdl"}.get(token, "")

    async def story(shop: Shop) -> None:
        for token, put, got in (
            ("operator", 201, 200), ("reader", 403, 200), ("nobody", 401, 401), ("expired", 401, 401),
            ("stranger", 403, 403), ("busy", 503, 503), ("odd", 500, 500),
        ):  # fmt: skip
            headers = {"authorization": f"Bearer {token}"}
            assert (await shop.ask("PUT", "x", headers=BLOCK_BLOB | headers, permissions="")).status == put
            assert (await shop.ask("GET", "x", headers=headers, permissions="")).status == got
        assert (await shop.ask("GET", "x", permissions="")).status == 401
        assert (await shop.ask("GET", "x")).status == 200

    in_shop(tmp_path, story, authorise=authorise)


# What is not done, and what goes wrong.


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "status", "code"),
    [
        ("PUT", "x", "", {}, 400, "MissingRequiredHeader"),
        ("PUT", "x", "", {"x-ms-blob-type": "PageBlob"}, 400, "InvalidHeaderValue"),
        ("PUT", "x", "comp=appendblock", {}, 501, "NotImplemented"),
        ("PUT", "x", "comp=properties", {}, 501, "NotImplemented"),
        ("GET", "x", "comp=blocklist", {}, 501, "NotImplemented"),
        ("GET", "", "", {}, 501, "NotImplemented"),
        ("GET", "", "restype=account&comp=properties", {}, 501, "NotImplemented"),
        ("GET", "", "comp=list", {}, 501, "NotImplemented"),
        ("DELETE", "", "restype=container", {}, 405, "UnsupportedHttpVerb"),
        ("POST", "x", "", {}, 405, "UnsupportedHttpVerb"),
        ("PATCH", "", "", {}, 405, "UnsupportedHttpVerb"),
        ("GET", "x", "snapshot=2020", {}, 400, "UnsupportedQueryParameter"),
        ("GET", "x", "versionid=2020", {}, 400, "UnsupportedQueryParameter"),
        ("PUT", "x", "", BLOCK_BLOB | {"x-ms-copy-source": "https://x/y"}, 400, "UnsupportedHeader"),
        ("PUT", "x", "", BLOCK_BLOB | {"content-encoding": "gzip"}, 400, "UnsupportedHeader"),
        ("PUT", "x", "", BLOCK_BLOB | {"x-ms-structured-body": "XSM/1.0"}, 400, "UnsupportedHeader"),
        ("PUT", "x", "", BLOCK_BLOB | {"if-modified-since": "now"}, 400, "InvalidHeaderValue"),
        ("PUT", "folder/", "", BLOCK_BLOB, 400, "InvalidResourceName"),
        ("PUT", "folder/", f"comp=block&blockid={BLOCK_ID}", {}, 400, "InvalidResourceName"),
        ("PUT", "folder/", "comp=blocklist", {}, 400, "InvalidXmlDocument"),
    ],
)
def test_what_is_not_done_is_refused(
    tmp_path: Path, method: str, path: str, query: str, headers: dict[str, str], status: int, code: str
) -> None:
    async def story(shop: Shop) -> None:
        answer = await shop.ask(method, path, query, headers)
        assert code_of(answer, status) == code
        if status == 405:
            assert answer.headers["allow"]
        assert shop.on_disk() == []

    in_shop(tmp_path, story)


@pytest.mark.parametrize(
    "path",
    [b"/blob/a/azureml/../../etc/passwd", b"/blob/a/azureml/%2e%2e/%2e%2e/x", b"/blob/a/azureml//etc/passwd",
     b"/blob/a/azureml/x%00", b"/blob/a/azureml/..%2fx", b"/blob/a/azureml/..%5cx", b"/blob/a/azureml/%c0%ae%c0%ae/x",
     b"/blob/a/../azureml/x", b"/blob/%2e%2e/azureml/x", b"/blob/a/AZUREML/x", b"/blob/a/", b"/blob"],
)  # fmt: skip
def test_hostile_paths_are_refused_before_anything_is_written(tmp_path: Path, path: bytes) -> None:
    async def story(shop: Shop) -> None:
        for method in ("PUT", "GET", "HEAD", "DELETE"):
            answer = await shop.ask(method, path, headers=BLOCK_BLOB, body=b"data")
            assert answer.status == 400
            assert answer.code in ("InvalidUri", "InvalidResourceName")
        assert shop.on_disk() == []

    in_shop(tmp_path, story)


def test_what_was_escaped_twice_is_a_name_like_others(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        assert (await shop.ask("PUT", "%252e%252e%252fx", headers=BLOCK_BLOB, body=b"data")).status == 201
        assert list(shop.memory.kept) == [("azureml", "%2e%2e%2fx")]

    in_shop(tmp_path, story)


def test_all_spellings_reach_the_same_blob_also_without_a_raw_path(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        await shop.ask("PUT", "LocalUpload/x", headers=BLOCK_BLOB, body=b"data")
        for head in (b"/blob/azureml", b"/blob/a.blob.core.windows.net/azureml", b"/blob/acct.blob.x/azureml"):
            assert (await shop.ask("GET", head + b"/LocalUpload/x")).body == b"data"

    in_shop(tmp_path, story)


def test_damaged_content_is_an_error_and_not_a_wrong_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(shop: Shop) -> None:
        await shop.ask("PUT", "x", headers=BLOCK_BLOB, body=b"data")
        (file,) = shop.on_disk()
        (shop.folder / file).write_bytes(b"dat")
        assert code_of(await shop.ask("GET", "x"), 500) == "InternalError"
        assert "has 3 bytes; 4 were kept" in caplog.text
        (shop.folder / file).write_bytes(b"data")

    in_shop(tmp_path, story)


def test_content_that_is_cut_off_while_it_is_read_ends_the_answer(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        await shop.ask("PUT", "x", headers=BLOCK_BLOB, body=b"data")
        (file,) = shop.on_disk()
        blob = await shop.storage.index.blob("azureml", "x")
        assert blob is not None
        opened = Storage.open

        async def open_and_cut(storage: Storage, one: object) -> int:
            descriptor = await opened(storage, blob)
            (shop.folder / file).write_bytes(b"da")
            return descriptor

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Storage, "open", open_and_cut)
            with pytest.raises(Exception, match=r"ends at byte 2|unhandled errors"):
                await shop.ask("GET", "x")
        (shop.folder / file).write_bytes(b"data")

    in_shop(tmp_path, story)


def test_our_own_failure_is_told_without_its_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def authorise(_request: Request) -> str:
        raise RuntimeError("a secret")

    async def story(shop: Shop) -> None:
        with caplog.at_level(logging.ERROR):
            answer = await shop.ask("GET", "x", headers={"authorization": "Bearer x"}, permissions="")
        assert code_of(answer, 500) == "InternalError"
        assert b"secret" not in answer.body
        assert answer.headers["x-ms-request-id"] in caplog.text

    in_shop(tmp_path, story, authorise=authorise)


def test_a_path_is_read_where_the_server_gives_it_decoded_only(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        await shop.ask("PUT", "x", headers=BLOCK_BLOB, body=b"data")
        inner = shop.app

        class WithoutRawPath:
            async def __call__(self, scope: dict[str, object], receive: object, send_: object) -> None:
                del scope["raw_path"]
                await inner(scope, receive, send_)  # type: ignore[arg-type]

        signed = sas.sign(SECRET, "azureml", "", "r", NOW + 9)
        answer = await send(WithoutRawPath(), "GET", b"/blob/a/azureml/x", signed, {}, [])  # type: ignore[arg-type]
        assert answer.body == b"data"

    in_shop(tmp_path, story)


def test_the_state_survives_a_restart(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        await shop.ask("PUT", "x", headers=BLOCK_BLOB, body=b"data")
        blob = shop.memory.kept["azureml", "x"]
        (shop.folder / "unfinished" / f"upload-{'a' * 32}").write_bytes(b"half")
        async with open_shop(tmp_path) as again:
            again.memory.kept["azureml", "x"] = blob
            assert (await again.ask("GET", "x")).body == b"data"

    in_shop(tmp_path, story)


def test_a_folder_that_vanished_is_our_own_failure(tmp_path: Path) -> None:
    async def story(shop: Shop) -> None:
        shutil.rmtree(shop.folder / "sha256")
        assert code_of(await shop.ask("PUT", "x", headers=BLOCK_BLOB, body=b"data"), 500) == "InternalError"
        assert shop.memory.kept == {}

    in_shop(tmp_path, story)
