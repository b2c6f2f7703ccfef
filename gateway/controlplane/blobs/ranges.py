"""Which bytes of a blob a reader asks for: the header `x-ms-range` or `Range`, as first and last byte.

Pure. Units: bytes, both ends inclusive.
Errors: Refusal InvalidRange where nothing of it exists, also of an empty blob: clients ask for the first part of
everything and, told that there is none, ask again for the whole. InvalidHeaderValue for what is no range.
Source: RFC 9110, section 14. Several ranges, and other units than bytes, are answered with the whole blob.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.controlplane.blobs.refusals import Fault, Refusal

_RANGE = re.compile(r"([0-9]{0,19})-([0-9]{0,19})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    first: int
    last: int

    @property
    def size_bytes(self) -> int:
        return self.last - self.first + 1


def parse_range(header: str, size_bytes: int) -> Span | None:
    """None: everything."""
    unit, _, text = header.strip().partition("=")
    if unit.strip().lower() != "bytes" or "," in text:
        return None
    match = _RANGE.fullmatch(text.strip())
    if match is None or text.strip() == "-":
        raise Refusal(Fault.INVALID_HEADER, f"the range {header[:80]!r} is not of the form bytes=<first>-<last>")
    first, last = match.groups()
    if not first:
        span = Span(first=max(0, size_bytes - int(last)), last=size_bytes - 1)
    elif last and int(last) < int(first):
        raise Refusal(Fault.INVALID_HEADER, f"the range {header[:80]!r} ends before it begins")
    else:
        span = Span(first=int(first), last=min(int(last or size_bytes), size_bytes - 1))
    if span.size_bytes < 1:
        headers = (("content-range", f"bytes */{size_bytes}"),)
        raise Refusal(Fault.INVALID_RANGE, f"the blob has {size_bytes} bytes, and none of {header[:80]!r}", headers)
    return span
