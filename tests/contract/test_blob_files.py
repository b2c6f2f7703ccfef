"""Files kept by content: whole or not at all, never through a link, within their quota."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.controlplane.blobs.files import PIECE_BYTES, Damaged, Files, Written, read_piece
from gateway.errors import Code, Problem

SHA = hashlib.sha256(b"hello").hexdigest()


@contextlib.contextmanager
def opened(folder: Path, *, bytes_max: int = 1 << 20, reserve_bytes: int = 0) -> Iterator[Files]:
    files = Files(folder, bytes_max=bytes_max, reserve_bytes=reserve_bytes)
    try:
        yield files
    finally:
        files.close()


async def put(files: Files, data: bytes, *, bytes_max: int = 1 << 20, credit_bytes: int = 0) -> Written:
    async with files.upload(bytes_max=bytes_max, credit_bytes=credit_bytes) as upload:
        for start in range(0, len(data), 1000):
            await upload.write(data[start : start + 1000])
        written = await upload.written()
        await upload.finish()
    return written


def content_of(files: Files, sha256: str, size_bytes: int) -> bytes:
    descriptor = files.open(sha256, size_bytes)
    try:
        return read_piece(descriptor, 0, size_bytes + 1)
    finally:
        os.close(descriptor)


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def place_of(folder: Path, sha256: str = SHA) -> Path:
    return folder / "sha256" / sha256[:2] / sha256


@pytest.mark.parametrize("size", [0, 1, 5000, PIECE_BYTES, 3 * PIECE_BYTES + 7])
def test_what_was_written_is_read_again(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    with opened(tmp_path) as files:
        written = asyncio.run(put(files, data))
        assert written.sha256 == hashlib.sha256(data).hexdigest()
        assert written.md5 == hashlib.md5(data).digest()
        assert written.size_bytes == size
        assert content_of(files, written.sha256, size) == data
        assert files.verify(written.sha256)
        assert files.used_bytes == size
        assert everything(tmp_path) == [f"sha256/{written.sha256[:2]}/{written.sha256}"]
        assert stat.S_IMODE(place_of(tmp_path, written.sha256).stat().st_mode) == 0o600


def test_the_same_content_is_kept_once_and_repaired(tmp_path: Path) -> None:
    with opened(tmp_path) as files:
        asyncio.run(put(files, b"hello"))
        place_of(tmp_path).write_bytes(b"hell0")
        assert not files.verify(SHA)
        asyncio.run(put(files, b"hello"))
        assert files.verify(SHA)
        assert files.used_bytes == 5


def test_an_upload_that_ends_early_leaves_nothing(tmp_path: Path) -> None:
    async def main(files: Files) -> None:
        with contextlib.suppress(KeyError):
            async with files.upload(bytes_max=1 << 20) as upload:
                await upload.write(b"x" * (PIECE_BYTES + 1))
                assert files.used_bytes == PIECE_BYTES + 1
                raise KeyError
        async with files.upload(bytes_max=1 << 20) as upload:
            await upload.write(b"never finished")

    with opened(tmp_path) as files:
        asyncio.run(main(files))
        assert everything(tmp_path) == []
        assert files.used_bytes == 0


def test_an_upload_that_is_cancelled_waits_for_its_thread_and_leaves_nothing(tmp_path: Path) -> None:
    began, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        go_on.wait(5)

    async def one(files: Files) -> None:
        async with files.upload(bytes_max=1 << 20) as upload:
            await upload.write(b"x")
            await files.run(slow)

    async def main(files: Files) -> None:
        task = asyncio.create_task(one(files))
        await asyncio.to_thread(began.wait, 5)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    with opened(tmp_path) as files:
        asyncio.run(main(files))
        assert everything(tmp_path) == []


def test_what_a_thread_raises_after_its_task_was_cancelled_is_not_told(tmp_path: Path) -> None:
    began, go_on = threading.Event(), threading.Event()

    def failing() -> None:
        began.set()
        go_on.wait(5)
        raise OSError("the disk is gone")

    async def main(files: Files) -> None:
        task = asyncio.create_task(files.run(failing))
        await asyncio.to_thread(began.wait, 5)
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    with opened(tmp_path) as files:
        asyncio.run(main(files))


def test_leftovers_of_a_crash_go_at_start_and_nothing_else(tmp_path: Path) -> None:
    with opened(tmp_path) as files:
        asyncio.run(put(files, b"hello"))
    leftover = tmp_path / "unfinished" / f"upload-{'0' * 32}"
    leftover.write_bytes(b"half")
    (tmp_path / "unfinished" / "note.txt").write_bytes(b"somebody's")
    with opened(tmp_path) as files:
        assert everything(tmp_path) == [f"sha256/{SHA[:2]}/{SHA}", "unfinished/note.txt"]
        assert files.used_bytes == 5
        assert [kept.name for kept in files.kept()] == [SHA]


def test_content_that_is_missing_or_cut_off_is_damaged(tmp_path: Path) -> None:
    with opened(tmp_path) as files:
        with pytest.raises(Damaged, match="No such file"):
            files.open(SHA, 5)
        assert not files.verify(SHA)
        asyncio.run(put(files, b"hello"))
        place_of(tmp_path).write_bytes(b"hell")
        with pytest.raises(Damaged, match="has 4 bytes; 5 were kept"):
            files.open(SHA, 5)


def test_nothing_is_read_or_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / SHA).write_bytes(b"hello")
    folder = tmp_path / "assets"
    with opened(folder) as files:
        (folder / "sha256" / SHA[:2]).symlink_to(outside)
        with pytest.raises(Damaged):
            files.open(SHA, 5)
        with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
            asyncio.run(put(files, b"hello"))
        assert not files.verify(SHA)
        assert not files.hold(SHA)
        assert list(files.kept()) == []
        assert files.used_bytes == 0
        (folder / "sha256" / SHA[:2]).unlink()
        (folder / "sha256" / SHA[:2]).mkdir()
        place_of(folder).symlink_to(outside / SHA)
        with pytest.raises(Damaged):
            files.open(SHA, 5)
        assert list(files.kept()) == []
        asyncio.run(put(files, b"hello"))
        assert not place_of(folder).is_symlink()
    assert (outside / SHA).read_bytes() == b"hello"


def test_a_pipe_is_no_content(tmp_path: Path) -> None:
    with opened(tmp_path) as files:
        place_of(tmp_path).parent.mkdir()
        os.mkfifo(place_of(tmp_path))
        with pytest.raises(Damaged):
            files.open(SHA, 5)
        assert not files.verify(SHA)


def test_a_shelf_that_is_a_link_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "assets"
    folder.mkdir()
    (folder / "sha256").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        Files(folder, bytes_max=1)


def test_only_hashes_name_files(tmp_path: Path) -> None:
    with opened(tmp_path) as files, pytest.raises(ValueError, match="64 digits"):
        files.open("../../etc/passwd", 5)


def test_one_file_is_as_long_as_it_may_be(tmp_path: Path) -> None:
    with opened(tmp_path) as files:
        asyncio.run(put(files, b"x" * 10, bytes_max=10))
        with pytest.raises(Problem) as refused:
            asyncio.run(put(files, b"x" * 11, bytes_max=10))
        assert refused.value.code is Code.PAYLOAD_TOO_LARGE
        assert files.used_bytes == 10


def test_all_files_are_as_long_as_they_may_be(tmp_path: Path) -> None:
    with opened(tmp_path, bytes_max=10) as files:
        asyncio.run(put(files, b"hello"))
        with pytest.raises(Problem) as refused:
            asyncio.run(put(files, b"world!"))
        assert refused.value.code is Code.INSUFFICIENT_STORAGE
        assert "assets_max_bytes" in refused.value.message
        assert files.used_bytes == 5
        asyncio.run(put(files, b"world!", credit_bytes=1))
        assert files.remove(SHA)
        assert files.used_bytes == 6
    with opened(tmp_path, bytes_max=10) as files:
        assert files.used_bytes == 6


def test_a_part_of_the_disk_stays_free(tmp_path: Path) -> None:
    with opened(tmp_path, reserve_bytes=1 << 60) as files:
        with pytest.raises(Problem) as refused:
            asyncio.run(put(files, b"hello"))
        assert refused.value.code is Code.INSUFFICIENT_STORAGE
        assert files.used_bytes == 0
        assert everything(tmp_path) == []


@pytest.mark.parametrize("where", ["open", "write", "fsync", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fails_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, number: int
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    async def main(files: Files) -> None:
        with monkeypatch.context() as patched:
            if where != "open":
                patched.setattr(os, where, fail)
                with pytest.raises(Problem if number != errno.EIO else OSError):
                    await put(files, b"hello")
                return
            upload = files.upload(bytes_max=5)
            patched.setattr(os, where, fail)
            with pytest.raises(Problem if number != errno.EIO else OSError):
                await upload.__aenter__()

    with opened(tmp_path) as files:
        asyncio.run(main(files))
        assert everything(tmp_path) == []
        assert files.used_bytes == 0
        asyncio.run(put(files, b"hello"))
        assert files.verify(SHA)


def test_short_writes_of_the_disk_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def a_little(descriptor: int, data: bytes) -> int:
        return write(descriptor, data[:3])

    with opened(tmp_path) as files, monkeypatch.context() as patched:
        patched.setattr(os, "write", a_little)
        written = asyncio.run(put(files, b"hello"))
        assert written.sha256 == SHA
        assert files.verify(SHA)


def test_what_was_held_or_written_since_stays(tmp_path: Path) -> None:
    with opened(tmp_path) as files:
        asyncio.run(put(files, b"hello"))
        os.utime(place_of(tmp_path), (1000, 1000))
        assert [kept.modified_at for kept in files.kept()] == [1000]
        assert not files.remove(SHA, unless_since=1000)
        assert files.hold(SHA)
        assert not files.remove(SHA, unless_since=1001)
        os.utime(place_of(tmp_path), (1000, 1000))
        asyncio.run(put(files, b"hello"))
        assert not files.remove(SHA, unless_since=1001)
        os.utime(place_of(tmp_path), (1000, 1000))
        assert files.remove(SHA, unless_since=1001)
        assert not files.remove(SHA)
        assert not files.hold(SHA)
        assert files.used_bytes == 0


def test_shelves_are_apart(tmp_path: Path) -> None:
    async def main(files: Files) -> None:
        async with files.upload(bytes_max=10) as upload:
            await upload.write(b"hello")
            await upload.written()
            await upload.finish("blocks", "ab" * 32)

    with opened(tmp_path) as files:
        asyncio.run(main(files))
        assert everything(tmp_path) == [f"blocks/ab/{'ab' * 32}"]
        os.close(files.open("ab" * 32, 5, "blocks"))
        assert [kept.name for kept in files.kept("blocks")] == ["ab" * 32]
        assert list(files.kept()) == []
        assert files.remove("ab" * 32, "blocks")
        (tmp_path / "blocks" / "README").write_bytes(b"")
        (tmp_path / "blocks" / "ab" / "README").write_bytes(b"")
        assert list(files.kept("blocks")) == []


def test_a_local_file_is_kept_as_a_copy(tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    data = os.urandom(PIECE_BYTES + 7)
    source.write_bytes(data)
    folder = tmp_path / "assets"
    with opened(folder) as files:
        assert files.find(hashlib.sha256(data).hexdigest()) is None
        digest, size = files.add_file(source)
        assert (digest, size) == (hashlib.sha256(data).hexdigest(), len(data))
        found = files.find(digest)
        assert found is not None
        assert (found.name, found.size_bytes) == (digest, size)
        assert files.path_of(digest).read_bytes() == data
        assert files.used_bytes == size
        with pytest.raises(FileNotFoundError):
            files.add_file(tmp_path / "none")
        place_of(folder, "ab" * 32).parent.mkdir(exist_ok=True)
        place_of(folder, "ab" * 32).symlink_to(source)
        assert files.find("ab" * 32) is None
    with opened(folder, bytes_max=5) as files:
        source.write_bytes(b"other")
        with pytest.raises(Problem):
            files.add_file(source)
        assert everything(folder) == sorted(f"sha256/{one[:2]}/{one}" for one in (digest, "ab" * 32))


def test_many_uploads_of_one_content_at_once_keep_it_once(tmp_path: Path) -> None:
    async def main(files: Files) -> None:
        await asyncio.gather(*(put(files, b"hello") for _ in range(20)))

    with opened(tmp_path) as files:
        asyncio.run(main(files))
        assert files.used_bytes == 5
        assert everything(tmp_path) == [f"sha256/{SHA[:2]}/{SHA}"]
