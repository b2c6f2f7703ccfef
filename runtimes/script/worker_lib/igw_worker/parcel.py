"""Many requests in the body of one frame: packed by a scorer, unpacked by the worker that took it.

Why: a batch is handed over whole, so that one worker has it; each request in it keeps its number, its deadline, its
head and its body. Packing copies each body once, into the frame's; unpacked, each is a view of it.
Shapes: the number of requests, an entry of fixed size for each, then each one's head (JSON) and body.
Units: *_ns monotonic nanoseconds, 0 for none; lengths in bytes.
Errors: BadFrame for what does not fit its own numbers.
"""

import json
import struct
from typing import Any, Dict, Iterable, List, Union

from .wire import BadFrame, text_of

_COUNT = struct.Struct("<I")
# request, when its run must begin, bytes of the head, bytes of the body.
_ENTRY = struct.Struct("<QqIQ")

Body = Union[bytes, bytearray, memoryview]


class Part:
    """One request. `due_ns`: when its run must have begun; `deadline_ns`: when it must have ended."""

    __slots__ = ("body", "due_ns", "head", "request_id")

    def __init__(self, request_id: int, due_ns: int, head: Dict[str, Any], body: Body) -> None:
        self.request_id = request_id
        self.due_ns = due_ns
        self.head = head
        self.body = body

    @property
    def deadline_ns(self) -> int:
        return int(self.head.get("deadline_ns") or self.due_ns)


def pack(parts: Iterable[Part]) -> bytes:
    entries: List[bytes] = []
    rest: List[Body] = []
    for part in parts:
        text = text_of(part.head)
        entries.append(_ENTRY.pack(part.request_id, part.due_ns, len(text), len(part.body)))
        rest += (text, part.body)
    return b"".join((_COUNT.pack(len(entries)), *entries, *rest))


def unpack(body: Body) -> List[Part]:
    """Raises BadFrame."""
    view = memoryview(body)
    try:
        (count,) = _COUNT.unpack_from(view)
        at = _COUNT.size + count * _ENTRY.size
        parts = []
        for index in range(count):
            entry = _ENTRY.unpack_from(view, _COUNT.size + index * _ENTRY.size)
            request_id, due_ns, head_bytes, body_bytes = entry
            head = json.loads(bytes(view[at : at + head_bytes]))
            at += head_bytes
            parts.append(Part(request_id, due_ns, head, view[at : at + body_bytes]))
            at += body_bytes
    except (struct.error, ValueError) as exc:
        raise BadFrame(f"a parcel of {len(view)} bytes cannot be read: {exc}") from exc
    if not parts or at != len(view):
        raise BadFrame(f"a parcel of {len(view)} bytes whose entries tell of {count} requests and {at} bytes")
    return parts
