"""Collected data on a real disk: whole lines, files that follow each other, repair, lists, bounds; and as blobs."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections import namedtuple
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.collection import appending
from gateway.collection.appending import Appender
from gateway.collection.tree import Tree
from gateway.controlplane.blobs.collected import WithCollected
from gateway.controlplane.collected import Collected
from tests.support.blob_door import BLOCK_BLOB, Shop, open_shop

FOLDER = "modelDataCollector/e/d/request/2026/01/31/23"
Room = namedtuple("Room", "f_bavail f_frsize")


def texts(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def write(root: Path, path: str, content: bytes, at: int = 0) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    os.utime(file, (at, at))


# ---- writing ---------------------------------------------------------------------------------------------------


def test_lines_of_one_instance_follow_each_other_and_others_have_their_own_file(tmp_path: Path) -> None:
    first, second = Appender(tmp_path, "scorer-0"), Appender(tmp_path, "scorer-1")
    first.append(FOLDER, b"1\n2\n")
    second.append(FOLDER, b"3\n")
    first.append(FOLDER, b"4\n")
    assert texts(tmp_path) == {f"{FOLDER}/scorer-0.jsonl": b"1\n2\n4\n", f"{FOLDER}/scorer-1.jsonl": b"3\n"}
    assert (tmp_path / FOLDER / "scorer-0.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_full_is_followed_by_the_next_also_by_a_process_that_starts_later(tmp_path: Path) -> None:
    for _ in range(2):
        appender = Appender(tmp_path, "scorer-0", file_bytes_max=10)
        for _ in range(3):
            appender.append(FOLDER, b"12345\n")
    assert [len(content) for content in texts(tmp_path).values()] == [6] * 6
    # A line that is longer than a file may be has one for itself.
    Appender(tmp_path, "scorer-1", file_bytes_max=10).append(FOLDER, b"x" * 99 + b"\n")
    assert texts(tmp_path)[f"{FOLDER}/scorer-1.jsonl"] == b"x" * 99 + b"\n"


@pytest.mark.parametrize(
    ("left", "kept"),
    [(b"1\n2\n{cut", b"1\n2\n"), (b"{cut", b""), (b"1\n", b"1\n"), (b"1\n" + b"x" * 200_000, b"1\n"), (b"", b"")],
)
def test_what_a_crash_left_of_a_line_is_cut_off_before_the_next_is_written(
    tmp_path: Path, left: bytes, kept: bytes
) -> None:
    write(tmp_path, f"{FOLDER}/scorer-0.jsonl", left)
    Appender(tmp_path, "scorer-0").append(FOLDER, b"new\n")
    assert texts(tmp_path) == {f"{FOLDER}/scorer-0.jsonl": kept + b"new\n"}


def test_more_folders_than_are_remembered_are_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appending, "_FOLDERS_REMEMBERED", 2)
    appender = Appender(tmp_path, "scorer-0", file_bytes_max=4)
    for _ in range(3):
        for folder in ("a", "b", "c"):
            appender.append(folder, b"12\n")
    assert [len(list((tmp_path / folder).iterdir())) for folder in ("a", "b", "c")] == [3, 3, 3]


def test_a_write_that_ends_early_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    appender = Appender(tmp_path, "scorer-0")
    appender.append(FOLDER, b"1\n")
    write_whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write_whole(descriptor, data[:3]))
    with pytest.raises(OSError, match="No space left"):
        appender.append(FOLDER, b"12345\n")
    with pytest.raises(OSError, match="No space left"):
        appender.put(FOLDER, "a.raw", b"12345")
    monkeypatch.undo()
    appender.append(FOLDER, b"2\n")
    assert texts(tmp_path) == {f"{FOLDER}/scorer-0.jsonl": b"1\n2\n"}


def test_what_could_not_be_cut_off_at_once_is_cut_off_before_the_next_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int, size: int) -> None:
        raise OSError(errno.EIO, "broken")

    appender = Appender(tmp_path, "scorer-0")
    appender.append(FOLDER, b"1\n")
    write_whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write_whole(descriptor, data[:3]))
    monkeypatch.setattr(os, "ftruncate", broken)
    with pytest.raises(OSError, match="No space left"):
        appender.append(FOLDER, b"12345\n")
    monkeypatch.undo()
    assert texts(tmp_path) == {f"{FOLDER}/scorer-0.jsonl": b"1\n123"}
    appender.append(FOLDER, b"2\n")
    assert texts(tmp_path) == {f"{FOLDER}/scorer-0.jsonl": b"1\n2\n"}


def test_a_part_of_the_disk_stays_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    appender = Appender(tmp_path / "collected", "scorer-0", reserve_bytes=1000)
    monkeypatch.setattr(os, "statvfs", lambda _: Room(10, 101))
    appender.append(FOLDER, b"123456789\n")
    with pytest.raises(OSError, match="No space left") as refused:
        appender.append(FOLDER, b"1234567890\n")
    assert refused.value.errno == errno.ENOSPC


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "root" / FOLDER).mkdir(parents=True)
    (tmp_path / "root" / FOLDER / "scorer-0.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        Appender(tmp_path / "root", "scorer-0").append(FOLDER, b"1\n")
    assert not (tmp_path / "elsewhere").exists()


# ---- looking ---------------------------------------------------------------------------------------------------


def test_a_tree_is_listed_in_the_order_of_names_by_prefix_and_from_where_a_page_ended(tmp_path: Path) -> None:
    names = ["a/b/1", "a/b.x/1", "a/b0", "a!", "b/2", "b/1", "c"]
    for name in names:
        write(tmp_path, name, name.encode())
    tree = Tree(tmp_path)
    every = [one.path for one in tree.below("", "", 100)]
    assert every == sorted(names)
    assert [one.path for one in tree.below("a/b", "", 100)] == ["a/b.x/1", "a/b/1", "a/b0"]
    paged: list[str] = []
    while page := tree.below("", paged[-1] if paged else "", 2):
        paged += [one.path for one in page]
    assert paged == every
    assert tree.find("a/b") is None
    assert Tree(tmp_path / "nowhere").below("", "", 10) == []


def test_the_oldest_go_where_there_is_too_much_and_empty_folders_with_them(tmp_path: Path) -> None:
    for at, name in enumerate(("old/1", "old/2", "new/3", "new/4")):
        write(tmp_path, name, b"x" * 100, at + 1)
    tree = Tree(tmp_path)
    assert tree.trim(400, 4) == []
    assert [one.path for one in tree.trim(399, 100)] == ["old/1"]
    assert [one.path for one in tree.trim(250, 100)] == ["old/2"]
    assert not (tmp_path / "old").exists()
    assert [one.path for one in tree.trim(10_000, 1)] == ["new/3", "new/4"]
    assert tmp_path.exists()


def test_a_start_repairs_every_file_of_lines_and_touches_no_other(tmp_path: Path) -> None:
    write(tmp_path, "a/scorer-0.jsonl", b"1\n{cut")
    write(tmp_path, "a/scorer-1.jsonl", b"1\n")
    write(tmp_path, "a/id.raw", b"no line")
    collected = Collected(tmp_path, bytes_max=1 << 30, queue_bytes_max=1 << 20)
    asyncio.run(collected.prepare())
    assert list(texts(tmp_path).values()) == [b"no line", b"1\n", b"1\n"]


def test_a_start_goes_on_where_the_files_cannot_be_looked_through(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> int:
        raise OSError(errno.EIO, "the disk is gone")

    collected = Collected(tmp_path, bytes_max=1 << 30, queue_bytes_max=1 << 20)
    collected.tree.repair = broken  # type: ignore[method-assign]
    asyncio.run(collected.prepare())
    assert "the disk is gone" in caplog.text


def test_the_bound_is_kept_and_a_disk_that_fails_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at, name in enumerate(("1", "2", "3")):
        write(tmp_path, name, b"x" * 1000, at + 1)
    looks: list[float] = []

    class Enough(Exception):
        """The test has seen what it wanted."""

    async def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            monkeypatch.setattr(collected.tree, "trim", broken)
        if len(looks) == 3:
            raise Enough

    def broken(bytes_max: int, files_max: int) -> None:
        raise OSError(errno.EIO, "the disk is gone")

    collected = Collected(tmp_path, bytes_max=2500, queue_bytes_max=1 << 20, sleep=sleep)
    with pytest.raises(Enough):
        asyncio.run(collected.run())
    assert sorted(texts(tmp_path)) == ["2", "3"]


# ---- as blobs --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def shop_of(folder: Path) -> AsyncIterator[tuple[Shop, Path]]:
    """A storage, and the folder of collected files that it shows."""
    root = folder / "collected"
    async with open_shop(folder) as shop:
        tree = Tree(root)
        shop.storage.index = WithCollected(shop.memory, tree, shop.files.run)
        shop.storage._collected = tree
        yield shop, root


def test_collected_files_are_blobs_between_the_others(tmp_path: Path) -> None:
    async def main() -> None:
        async with shop_of(tmp_path) as (shop, root):
            write(root, f"{FOLDER}/scorer-0.jsonl", b'{"a":1}\n{"a":2}\n', at=1_700_000_000)
            for name in ("a/1", "z/2"):
                assert (await shop.ask("PUT", name, headers=BLOCK_BLOB, body=b"up")).status == 201
            listed = await shop.ask("GET", "", "restype=container&comp=list")
            names = [one.text for one in listed.xml.iter("Name")]
            assert names == ["a/1", f"{FOLDER}/scorer-0.jsonl", "z/2"]
            folders = await shop.ask("GET", "", "restype=container&comp=list&delimiter=/")
            assert [one.text for one in folders.xml.iter("Name")] == ["a/", "modelDataCollector/", "z/"]
            paged = await shop.ask("GET", "", "restype=container&comp=list&maxresults=1&prefix=modelData")
            assert [one.text for one in paged.xml.iter("Name")] == [f"{FOLDER}/scorer-0.jsonl"]
            other = await shop.ask("GET", "", "restype=container&comp=list", container="other")
            assert list(other.xml.iter("Name")) == []
            whole = await shop.ask("GET", f"{FOLDER}/scorer-0.jsonl")
            assert (whole.status, [json.loads(one)["a"] for one in whole.body.splitlines()]) == (200, [1, 2])
            assert whole.headers["content-type"] == "application/x-ndjson"
            part = await shop.ask("GET", f"{FOLDER}/scorer-0.jsonl", headers={"range": "bytes=8-14"})
            assert (part.status, part.body) == (206, b'{"a":2}')
            head = await shop.ask("HEAD", f"{FOLDER}/scorer-0.jsonl")
            assert (head.headers["content-length"], head.headers["etag"]) == ("16", whole.headers["etag"])

    asyncio.run(main())


def test_nobody_writes_over_collected_data_and_whoever_may_deletes_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with shop_of(tmp_path) as (shop, root):
            path = f"{FOLDER}/scorer-0.jsonl"
            write(root, path, b"1\n")
            put = await shop.ask("PUT", path, headers=BLOCK_BLOB, body=b"forged")
            assert (put.status, put.code) == (400, "InvalidResourceName")
            named = await shop.ask("PUT", path, "comp=metadata", headers={"x-ms-meta-a": "1"})
            assert named.status == 400
            assert texts(root) == {path: b"1\n"}
            assert (await shop.ask("DELETE", path, permissions="r")).status == 403
            assert (await shop.ask("DELETE", path)).status == 202
            assert texts(root) == {}
            assert (await shop.ask("GET", path)).status == 404
            # From now on it is a name like any other, and what was uploaded is shown.
            assert (await shop.ask("PUT", path, headers=BLOCK_BLOB, body=b"up")).status == 201
            write(root, path, b"again\n")
            assert (await shop.ask("GET", path)).body == b"up"
            write(root, f"{FOLDER}/scorer-1.jsonl", b"more\n")
            # Page by page, too: what is hidden takes no place of what comes behind it.
            for query in ("", "&maxresults=1"):
                names, marker = [], ""
                while True:
                    listed = await shop.ask("GET", "", f"restype=container&comp=list{query}&marker={marker}")
                    names += [one.text for one in listed.xml.iter("Name")]
                    marker = listed.xml.findtext("NextMarker") or ""
                    if not marker:
                        break
                assert names == [path, f"{FOLDER}/scorer-1.jsonl"]

    asyncio.run(main())


def test_a_file_that_goes_while_it_is_asked_for_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(path: str) -> int:
        raise FileNotFoundError(path)

    async def main() -> None:
        async with shop_of(tmp_path) as (shop, root):
            write(root, FOLDER + "/a.jsonl", b"1\n")
            monkeypatch.setattr(shop.storage._collected, "open", gone)
            assert (await shop.ask("GET", FOLDER + "/a.jsonl")).status == 404

    asyncio.run(main())
