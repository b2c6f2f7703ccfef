"""One record of a collection as one line of JSON. Pure.

    {"specversion": "1.0", "id": ..., "source": ..., "type": "azureml.inference.request", "datacontenttype": ...,
     "time": ..., "data": ..., ..., "contentrange": "bytes 0-59/60"}

`data` is the payload itself where it is JSON (as it was sent, on one line), and a string where it is other text. What
is neither, or has more than INLINE_BYTES_MAX, is kept as it came in a file of its own; then `datainblob` is "true"
and `data` is that file's address.
Units: times in seconds since 1970, in UTC on the line; bytes.
Errors: none; whatever the payload is, there is a line.
Source: contract/azure-ml-endpoints.md section 8.4.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from gateway.collection.spec import Rolling

INLINE_BYTES_MAX = 4 * 1024 * 1024
# How far a compressed payload is inflated to be looked at; beyond, it is kept compressed.
INFLATED_BYTES_MAX = 64 * 1024 * 1024
TYPE = "azureml.inference."
ADDRESS = "azureml://datastores/workspaceblobstore/paths/"

_BINARY = ("application/octet-stream", "application/x-gzip", "application/zip")
_FOLDERS: dict[Rolling, str] = {"minute": "%Y/%m/%d/%H/%M", "hour": "%Y/%m/%d/%H", "day": "%Y/%m/%d"}
# A Raw is checked to be JSON, and not turned into Python values.
_JSON = msgspec.json.Decoder(msgspec.Raw)
_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """`members`: what stands on the line behind `data`; those that are None or "" are left out. `file_id`: what a
    file beside is called where `id` is not sure to be unique."""

    id: str
    type: str
    time_s: float
    content_type: str
    body: bytes
    is_gzip: bool = False
    file_id: str = ""
    members: Mapping[str, Any] = field(default_factory=dict)


def rolled(folder: str, rate: Rolling, time_s: float) -> str:
    """Where the lines of this time lie."""
    return f"{folder}/{datetime.fromtimestamp(time_s, UTC).strftime(_FOLDERS[rate])}"


def line_of(record: Record, source: str, folder: str) -> tuple[bytes, str, bytes]:
    """The line with its end; and the name and content of the file in `folder` that it needs, "" for none."""
    body = _inflated(record.body) if record.is_gzip else record.body
    data, name, beside = _data(body, record.content_type), "", b""
    head = {
        "specversion": "1.0",
        "id": record.id,
        "source": source,
        "type": TYPE + record.type,
        "datacontenttype": record.content_type or "application/json",
        "time": timestamp(record.time_s),
    }
    if data is None:
        name, beside = f"{record.file_id or record.id}.raw", body
        head["datainblob"] = "true"
        data = _encode(f"{ADDRESS}{folder}/{name}")
    tail = {key: value for key, value in record.members.items() if value not in (None, "")}
    tail["contentrange"] = f"bytes 0-{len(body) - 1}/{len(body)}" if body else "bytes */0"
    # Joined and not formatted: that would be half of all that a large one costs.
    return b"".join((_encode(head)[:-1], b',"data":', data, b",", _encode(tail)[1:], b"\n")), name, beside


def timestamp(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def media_type(content_type: str) -> str:
    """Without parameters, such as the character set."""
    return content_type.partition(";")[0].strip().lower()


def _data(body: bytes, content_type: str) -> bytes | None:
    """The payload as JSON on one line; None where it needs a file of its own."""
    if len(body) > INLINE_BYTES_MAX:
        return None
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    try:
        # Within a string of JSON no line can end, so these are between its parts.
        return bytes(_JSON.decode(body)).replace(b"\n", b" ").replace(b"\r", b" ")
    except (msgspec.DecodeError, RecursionError):
        return None if media_type(content_type) in _BINARY else _encode(text)


def _inflated(body: bytes) -> bytes:
    """As it was before it was compressed; as it is where that cannot be had."""
    engine = zlib.decompressobj(wbits=31)
    try:
        plain = engine.decompress(body, INFLATED_BYTES_MAX)
    except zlib.error:
        return body
    return plain if engine.eof else body
