"""Where a model's external data lies, read from the bare protobuf before onnxruntime opens the file.

Why: an ONNX file may ask its reader to load any file as weights. A hard link to a secret passes onnxruntime's own
checks, so this reads the names first and accepts only a plain file beside the model.
Accepted: a location that is a plain name in the model's folder, a regular file (no symbolic link) with one link,
and offset + length inside it.
Errors: LoadFailed, with the location and what is wrong with it.
Source: onnx.proto (field numbers below), the protobuf wire format, onnx `docs/ExternalDataSecurity.md`.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from runtimes.errors import LoadFailed

# Which fields of a message lead to a tensor, and the message they hold. A TensorProto's field 13 is one entry
# (key, value) of its external data.
_FIELDS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_DEPTH_MAX = 100
# Every entry that leads out of the file has this key, as it stands.
_KEY = b"location"
# A search holds Python's lock, and an event loop in the process may want it: 20 MB at once are 7 ms of that.
_PIECE_BYTES = 256 * 1024
_TAG_MAX = 0xFFFFFFFF

Entries = list[tuple[str, str]]


class _Malformed(Exception):
    """The bytes are no protobuf message."""


def check(model: Path) -> bool:
    """Refuse the model if any of its external data lies where it should not. Whether it has any."""
    found = read(model)
    for entries in found:
        _check_entries(model.parent, entries)
    return bool(found)


def files(model: Path) -> tuple[Path, ...]:
    """The files beside the model that it reads its weights from, checked. Errors: LoadFailed, OSError, ValueError."""
    check(model)
    names = {value for entries in read(model) for key, value in entries if key == "location"}
    return tuple(model.parent / name for name in sorted(names))


def read(model: Path) -> list[Entries]:
    """The external data entries of each tensor that has any, in the file's order."""
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if not _has_key(data):
            # To walk a large forest takes 0.1 s.
            return []
        try:
            return list(_walk(data, 0, len(data), "model", 0))
        except (_Malformed, UnicodeDecodeError):
            raise LoadFailed(f"{model} is not an ONNX model: its protobuf cannot be read") from None


def _has_key(data: mmap.mmap) -> bool:
    reach = _PIECE_BYTES + len(_KEY) - 1
    return any(data.find(_KEY, start, start + reach) >= 0 for start in range(0, len(data), _PIECE_BYTES))


def _walk(data: mmap.mmap, start: int, end: int, message: str, depth: int) -> Iterator[Entries]:
    if depth > _DEPTH_MAX:
        raise _Malformed
    wanted = _FIELDS[message]
    entries: Entries = []
    for field, first, last in _fields(data, start, end):
        inner = wanted.get(field)
        if inner == "entry":
            entries.append(_entry(data, first, last))
        elif inner is not None:
            yield from _walk(data, first, last, inner, depth + 1)
    if entries:
        yield entries


def _entry(data: mmap.mmap, start: int, end: int) -> tuple[str, str]:
    parts = {field: data[first:last].decode() for field, first, last in _fields(data, start, end)}
    return parts.get(1, ""), parts.get(2, "")


def _fields(data: mmap.mmap, place: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each length-delimited field; others are skipped."""
    while place < end:
        tag, place = _varint(data, place, end)
        if tag > _TAG_MAX:
            # Other readers cut it down to 32 bits and would see another field than we do.
            raise _Malformed
        kind = tag & 7
        if kind == 0:
            _, place = _varint(data, place, end)
        elif kind == 1:
            place += 8
        elif kind == 2:
            size, place = _varint(data, place, end)
            if size > end - place:
                raise _Malformed
            yield tag >> 3, place, place + size
            place += size
        elif kind == 5:
            place += 4
        else:
            raise _Malformed
    if place > end:
        raise _Malformed


def _varint(data: mmap.mmap, place: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while place < end and shift < 70:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise _Malformed


def _check_entries(folder: Path, entries: Entries) -> None:
    # A key may come twice, and readers differ in which one they use: all must be harmless.
    for key, location in entries:
        if key == "location":
            _check_location(folder, location, entries)


def _check_location(folder: Path, location: str, entries: Entries) -> None:
    refused = f"the model's external data {location[:100]!r} is refused:"
    if not location or location in (".", "..") or any(sign in location for sign in "/\\\0"):
        raise LoadFailed(f"{refused} it must be a plain file name in the model's own folder")
    try:
        found = os.lstat(folder / location)
    except OSError:
        raise LoadFailed(f"{refused} there is no such file beside the model") from None
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise LoadFailed(f"{refused} it must be a regular file, no link, with one name only")
    numbers = [value for key, value in entries if key in ("offset", "length")]
    if not all(number.isdecimal() for number in numbers) or sum(map(int, numbers)) > found.st_size:
        raise LoadFailed(f"{refused} its offset and length reach past the file's {found.st_size} bytes")
