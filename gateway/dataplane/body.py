"""A request's body: read whole, within its limit and before its deadline; inflated when gzip is enabled.

Units: bytes.
Errors: Problem PAYLOAD_TOO_LARGE, DEADLINE_EXCEEDED, UNSUPPORTED_MEDIA_TYPE, INVALID_INPUT; Disconnected when the
caller hung up.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.errors import Code, Problem

RATIO_MAX = 100

MEDIA_TYPES = frozenset(
    (
        *(b"", b"application/json", b"application/octet-stream"),
        # What curl -d, HTML forms and many HTTP clients send when they are not told.
        *(b"application/x-www-form-urlencoded", b"text/plain", b"text/json"),
    )
)
_LENGTH_DIGITS_MAX = 19

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Disconnected(Exception):
    """The caller is gone; nobody wants an answer."""


def too_large(found: str, limit: int) -> Problem:
    return Problem(
        Code.PAYLOAD_TOO_LARGE,
        f"the body {found}; at most {limit} bytes are accepted (setting max_body_bytes, or "
        "gateway.limits.max_body_bytes of the deployment)",
        reason="too_large",
    )


def body_is_late() -> Problem:
    return Problem(Code.DEADLINE_EXCEEDED, "the body did not arrive before the request's deadline", reason="deadline")


def declared_length(length: bytes | None) -> int:
    """The Content-Length, 0 where there is none."""
    if length is None:
        return 0
    if not length.isdigit() or len(length) > _LENGTH_DIGITS_MAX:
        raise Problem(Code.INVALID_INPUT, "the Content-Length is not a number of bytes")
    return int(length)


def check_media_type(content_type: bytes | None) -> None:
    """JSON and raw bytes are taken, and what clients say when nobody told them what they send."""
    if content_type is None or content_type == b"application/json":
        return
    media = content_type.split(b";", 1)[0].strip().lower()
    if media not in MEDIA_TYPES and not media.endswith(b"+json"):
        raise Problem(
            Code.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type {media[:80].decode('latin-1')!r} is not accepted; send application/json, or "
            "application/octet-stream for V2 binary tensors",
        )


def check_encoding(encoding: bytes | None, gzip_enabled: bool) -> bool:
    """Whether the body is to be inflated."""
    if encoding is None or encoding.lower() == b"identity":
        return False
    if encoding.lower() in (b"gzip", b"x-gzip") and gzip_enabled:
        return True
    accepted = "gzip or identity" if gzip_enabled else "identity (gzip is off: setting gzip)"
    raise Problem(
        Code.UNSUPPORTED_MEDIA_TYPE,
        f"Content-Encoding {encoding[:40].decode('latin-1')!r} is not accepted; send {accepted}",
    )


def accepts_gzip(accept_encoding: bytes) -> bool:
    """Whether the caller takes a gzip answer: it names gzip, and not with a weight of 0."""
    for part in accept_encoding.lower().split(b","):
        name, _, weight = part.partition(b";")
        if name.strip() == b"gzip":
            return weight.replace(b" ", b"").rstrip(b"0") not in (b"q=", b"q=0.", b"q=.")
    return False


async def read_body(receive: Receive, limit: int) -> bytes:
    """All of the body; one message, which is the usual case, is not copied."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Disconnected
    body: bytes = message["body"]
    if len(body) > limit:
        raise too_large("is larger", limit)
    if not message.get("more_body"):
        return body
    chunks = [body]
    size = len(body)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunks.append(message["body"])
        size += len(message["body"])
        if size > limit:
            raise too_large("is larger", limit)
        if not message.get("more_body"):
            return b"".join(chunks)


def inflate(body: bytes, limit: int) -> bytes:
    """Undo one layer of gzip; stops at the limit and at a ratio of 100, so a small bomb stays small."""
    bound = min(limit, max(len(body), 1024) * RATIO_MAX)
    engine = zlib.decompressobj(wbits=31)
    try:
        inflated = engine.decompress(body, bound + 1)
    except zlib.error as error:
        raise Problem(Code.INVALID_INPUT, f"the body is not gzip, as Content-Encoding says: {error}") from error
    if len(inflated) > limit:
        raise too_large("is larger once it is inflated", limit)
    if len(inflated) > bound:
        raise Problem(
            Code.PAYLOAD_TOO_LARGE,
            f"the body inflates to more than {RATIO_MAX} times its {len(body)} bytes; less is accepted",
            reason="too_large",
        )
    if not engine.eof:
        raise Problem(Code.INVALID_INPUT, "the gzip body is truncated")
    if engine.unused_data:
        raise Problem(Code.INVALID_INPUT, "the gzip body has bytes after its end")
    return inflated
