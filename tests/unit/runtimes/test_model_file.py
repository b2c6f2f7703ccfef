"""A model's file: what of it is looked at again, and when."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from runtimes import model_file
from runtimes.errors import LoadFailed
from runtimes.model_file import check
from runtimes.onnx import external
from tests.support import models


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return models.write(tmp_path, models.linear())


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was read of files."""
    seen: list[str] = []
    hashed, searched = model_file._check_hash, external.check

    def check_hash(path: Path, sha256: str) -> None:
        seen.append("hash")
        hashed(path, sha256)

    def search(path: Path) -> bool:
        seen.append("search")
        return searched(path)

    monkeypatch.setattr(model_file, "_check_hash", check_hash)
    monkeypatch.setattr(external, "check", search)
    return seen


def test_what_was_checked_and_has_not_changed_is_not_read_again(path: Path, looks: list[str]) -> None:
    stamp = check(path, hash_of(path))
    assert stamp and looks == ["hash", "search"]
    assert check(path, hash_of(path), stamp) == stamp
    assert looks == ["hash", "search"]


def test_a_write_is_seen_whatever_the_file_says_of_its_time(path: Path) -> None:
    sha256, before = hash_of(path), path.stat()
    stamp = check(path, sha256)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        # Kernels that tell time by the tick may need a few.
        path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    with pytest.raises(LoadFailed, match="changed: its SHA-256 is"):
        check(path, sha256, stamp)


def test_another_file_in_its_place_is_checked(path: Path, tmp_path: Path, looks: list[str]) -> None:
    stamp = check(path, hash_of(path))
    other = tmp_path / "other"
    other.write_bytes(path.read_bytes())
    other.replace(path)
    again = check(path, hash_of(path), stamp)
    assert again not in ((), stamp)
    assert looks == ["hash", "search"] * 2


def test_who_reads_other_files_is_checked_each_time(tmp_path: Path, looks: list[str]) -> None:
    (tmp_path / "data.bin").write_bytes(bytes(16))
    path = models.write(tmp_path, models.external_data("data.bin"))
    assert check(path, hash_of(path)) == ()
    (tmp_path / "data.bin").unlink()
    with pytest.raises(LoadFailed):
        check(path, hash_of(path), ())
    assert looks == ["hash", "search"] * 2


def test_without_a_hash_nothing_is_known_of_it(path: Path) -> None:
    assert check(path, "") == ()


def test_what_is_written_while_it_is_checked_is_in_no_known_state(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def writes(_: Path) -> bool:
        with path.open("ab") as file:
            file.write(b"\0")
        return False

    monkeypatch.setattr(external, "check", writes)
    assert check(path, hash_of(path)) == ()
