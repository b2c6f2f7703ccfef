"""What the head of a request to the asset storage says: its query, and the headers about content and metadata.

Texts come from the wire as they are; here they become data, or a Refusal that names the part.
Units: metadata up to 8 KiB in all, lists up to 5,000 results.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.requests import Request

from gateway.controlplane.blobs.names import LAST, is_writable
from gateway.controlplane.blobs.refusals import Fault, Refusal
from gateway.controlplane.blobs.storage import Given

LIST_MAX = 5000
_METADATA_BYTES_MAX = 8 * 1024
META = "x-ms-meta-"
_META_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_DIGITS = re.compile(r"[0-9]{1,19}")
_NO_MARKER = "the marker is none that a list gave"
_REFUSED_QUERY = ("snapshot", "versionid", "startFrom", "endBefore")
# What would change the meaning of the request, or of the bytes, and is not done.
_REFUSED_HEADERS = (
    *("content-encoding", "x-ms-blob-content-encoding", "x-ms-copy-source", "x-ms-structured-body"),
    *("x-ms-content-crc64", "x-ms-encryption-key", "x-ms-encryption-scope", "x-ms-lease-id", "x-ms-tags"),
    *("x-ms-if-tags", "x-ms-immutability-policy-until-date", "x-ms-legal-hold"),
)


def raw_path(request: Request) -> bytes:
    raw = request.scope.get("raw_path")
    return raw if isinstance(raw, bytes) else request.scope["path"].encode("utf-8", "surrogatepass")


def read_query(request: Request) -> list[tuple[str, str]]:
    text = request.scope["query_string"].decode("latin-1")
    try:
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=64)
    except ValueError as error:
        raise Refusal(Fault.INVALID_QUERY, "the query has more than 64 parts, or is not UTF-8") from error


def only_once(pairs: list[tuple[str, str]]) -> dict[str, str]:
    query = dict(pairs)
    if len(query) != len(pairs):
        raise Refusal(Fault.INVALID_QUERY, "the query names a parameter twice")
    return query


def refuse_what_is_not_done(request: Request, query: Mapping[str, str]) -> None:
    for name in _REFUSED_QUERY:
        if name in query:
            raise Refusal(Fault.UNSUPPORTED_QUERY, f"the parameter {name} is not known to this storage")
    for name in _REFUSED_HEADERS:
        if name in request.headers:
            raise Refusal(Fault.UNSUPPORTED_HEADER, f"the header {name} asks for what this storage does not do")


def read_given(headers: Headers, md5_header: str = "") -> Given:
    content_type = headers.get("x-ms-blob-content-type") or headers.get("content-type") or Given().content_type
    md5 = md5_of(headers, "x-ms-blob-content-md5")
    if md5 is None and md5_header:
        md5 = md5_of(headers, md5_header)
    return Given(content_type=content_type[:256], metadata=metadata_of(headers), md5=md5)


def md5_of(headers: Headers, name: str) -> bytes | None:
    text = headers.get(name)
    if text is None:
        return None
    try:
        md5 = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        md5 = b""
    if len(md5) != 16:
        raise Refusal(Fault.INVALID_MD5, f"{name} is not the Base64 of 16 bytes")
    return md5


def metadata_of(headers: Headers) -> dict[str, str]:
    metadata: dict[str, str] = {}
    size = 0
    for name, value in headers.items():
        if not name.startswith(META):
            continue
        key = name.removeprefix(META)
        if not _META_NAME.fullmatch(key) or key in metadata:
            text = f"{name[:80]!a}: a name is letters, digits and underscores, no digit first, and comes once"
            raise Refusal(Fault.INVALID_METADATA, text)
        metadata[key] = value
        size += len(key) + len(value)
    if size > _METADATA_BYTES_MAX:
        raise Refusal(Fault.METADATA_TOO_LARGE, f"the metadata has {size} bytes; at most {_METADATA_BYTES_MAX}")
    return metadata


def plain_text(query: Mapping[str, str], name: str) -> str:
    text = query.get(name, "")
    if not is_writable(text):
        raise Refusal(Fault.INVALID_QUERY, f"{name} holds what no blob's name can hold")
    return text


def check_length(headers: Headers, bytes_max: int) -> None:
    """Refuse before the body what says itself that it is too long."""
    text = headers.get("content-length", "0")
    if not _DIGITS.fullmatch(text):
        raise Refusal(Fault.INVALID_HEADER, "Content-Length is not a number of bytes")
    if int(text) > bytes_max:
        raise Refusal(Fault.TOO_LARGE, f"{text} bytes are announced; at most {bytes_max} are kept")


def results_max(query: Mapping[str, str]) -> int:
    text = query.get("maxresults", str(LIST_MAX))
    if not _DIGITS.fullmatch(text) or not int(text):
        raise Refusal(Fault.INVALID_QUERY, f"maxresults is a number from 1 to {LIST_MAX}")
    return min(int(text), LIST_MAX)


def write_marker(after: str) -> str:
    return urlsafe_b64encode(after.encode()).decode()


def read_marker(marker: str) -> str:
    try:
        after = urlsafe_b64decode(marker.encode("ascii")).decode()
    except ValueError as error:
        raise Refusal(Fault.INVALID_QUERY, _NO_MARKER) from error
    if not is_writable(after.removesuffix(LAST)):
        raise Refusal(Fault.INVALID_QUERY, _NO_MARKER)
    return after
