"""The numbers of a long JSON body straight into a buffer, without a Python object for each of them.

Why: orjson makes a float of every number and a list of every row, and these are then taken apart again. simdjson
writes doubles into memory that numpy reads, in half the time or less from some hundred numbers on.

How it stays exact: only the block of numbers goes this way, the list under `data` or `input_data`. The rest of the
body, with `[]` in the block's place, is read as any other body is. Something unusual in the block, in the rest or
where they meet is no error here: the caller then reads the whole body the slow way, which also finds the words for a
refusal.

Why the cut is right: the rest is JSON, has no backslash and one `data": [` only. So every quote in it begins or ends
a string, and the empty list there is the value of a name that ends with `data`, the only such one with a list. If
`data` or `input_data` is an empty list in the parsed rest, it is this one. JSON stays JSON when one value takes the
place of another.

Units: bytes of text. Shapes: the block's own, row-major.
Errors: none of its own.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import Any, Literal

import numpy as np
import orjson
import simdjson

from runtimes import Array

# Below, orjson and struct are faster: the ways met at 2,000 (short numbers) to 3,300 bytes (all digits of a double).
BYTES_MIN = 2560
# A parser takes up to 16 bytes for each byte of its text.
_BYTES_MAX = 1 << 24
# A longer rest is not worth reading, for it may have to be read again.
_REST_MAX = 1024
# It keeps most of that for the longest text that it has seen, so long texts get a parser of their own.
_KEPT_MAX = 1 << 18

_OPENING = re.compile(rb'data"[ \t\n\r]*:[ \t\n\r]*\[')
_EMPTY = b"[]"
_BACKSLASH = ord("\\")

_PARSER = simdjson.Parser()


class Cut:
    """A body in two: the parsed rest, its text, and the text of the block, which belongs where `data` is empty."""

    __slots__ = ("block", "rest", "text")

    def __init__(self, rest: Any, text: bytes, block: bytes) -> None:
        self.rest = rest
        self.text = text
        self.block = block


def cut(body: bytes) -> Cut | None:
    """The body in two; None where there is no block of numbers, or the rest is unusual."""
    opening = _OPENING.search(body, 0, _REST_MAX)
    if opening is None or len(body) > _BYTES_MAX:
        return None
    start = opening.end() - 1
    # The block has no strings and no objects: it ends before the next brace and before the next quote.
    limit = body.find(b"}", start)
    quote = body.find(b'"', start, limit)
    end = body.rfind(b"]", start, limit if quote < 0 else quote) + 1
    if not end or len(body) - end > _REST_MAX:
        return None
    text = body[:start] + _EMPTY + body[end:]
    if _BACKSLASH in text or _OPENING.search(text, start) is not None:
        return None
    try:
        return Cut(orjson.loads(text), text, body[start:end])
    except orjson.JSONDecodeError:
        return None


def numbers_in(block: bytes, kind: Literal["d", "i"]) -> Array | None:
    """Doubles or 64-bit integers, None where the block is anything but lists of one depth and length of them."""
    parser = _PARSER if len(block) <= _KEPT_MAX else simdjson.Parser()
    try:
        # The parser lets nobody in while `root` lives, so another thread goes the slow way.
        root: Any = parser.parse(block)
        shape = _shape(root, block)
        if shape is None:
            return None
        return np.ndarray(shape, np.float64 if kind == "d" else np.int64, root.as_buffer(of_type=kind))
    except (ValueError, TypeError, RuntimeError):
        # No JSON, not all numbers or not of the kind, beyond 64 bits, deeper than numpy goes; or a parser in use.
        return None


def _shape(root: Any, block: bytes) -> tuple[int, ...] | None:
    """The size of each level, None where they differ or one is 0. A list among numbers is one bracket too many."""
    lists = _lists_in(block)
    rows = len(root)
    if lists == 1:
        return (rows,) if rows else None
    if lists == 2:
        size = len(root[0]) if rows == 1 else 0
        return (1, size) if size else None
    return _nested_shape(root, lists)


def _nested_shape(root: Any, lists: int) -> tuple[int, ...] | None:
    shape: tuple[int, ...] = ()
    level = [root]
    seen = 1
    while True:
        size = len(level[0])
        if not size or set(map(len, level)) != {size}:
            return None
        shape = (*shape, size)
        if seen == lists:
            return shape
        seen += size * len(level)
        if seen > lists:
            return None
        level = list(chain.from_iterable(level))


def _lists_in(block: bytes) -> int:
    """How many lists there are. One or two are the usual thing, and found faster than counted."""
    second = block.find(b"[", 1)
    if second < 0:
        return 1
    return 2 if block.find(b"[", second + 1) < 0 else block.count(b"[")
