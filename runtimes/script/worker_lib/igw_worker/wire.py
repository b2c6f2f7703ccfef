"""Frames between scorers and script workers: one request or one reply is one datagram on a Unix SEQPACKET socket.

Why: the kernel keeps datagrams whole and hands each to one reader, so it is the broker of a pool. Nothing is pickled:
a frame is a fixed header, a head in JSON and a body. A body that is not small travels in a sealed memory file whose
descriptor goes with the datagram, so it is copied once, however large it is.
Units: *_ns monotonic nanoseconds, the same in all processes of the machine; lengths in bytes.
Errors: BlockingIOError when the socket is full (nothing was sent) or empty; BadFrame for what the other side should
not have sent, its descriptors closed; None from `receive` when the other side is gone. Neither call ever blocks.
Trust: a worker runs code of the user. A memory file is only mapped when it is sealed against shrinking: without, its
sender could cut it short and so kill the process that reads it. Nor is more mapped than the reader allows: a file has
any size at no cost, until it is mapped and each of its pages is made.
"""

import errno
import fcntl
import json
import mmap
import os
import socket
import struct
import threading
from typing import Any, Callable, Dict, List, Optional, Union

# A PARCEL is many requests in one frame (parcel.py); RAN: a run of some of them has ended.
REQUEST, TAKEN, ANSWER, EXPIRED, PARCEL, RAN = 1, 2, 3, 4, 5, 6
_NAMES = ("", "REQUEST", "TAKEN", "ANSWER", "EXPIRED", "PARCEL", "RAN")
INLINE_BYTES = 16 * 1024
# A request's head and target are bounded by the listener at 24 KiB together; JSON at most doubles them.
HEAD_BYTES_MAX = 64 * 1024
# The body of an answer; the host refuses a larger result.
RESULT_BYTES_MAX = 100 * 1024 * 1024

Body = Union[bytes, bytearray, memoryview]
# The most bytes that a body in a memory file may have, by its frame's kind and request.
Bound = Callable[[int, int], int]

_VERSION = 1
_IN_MEMORY_FILE = 1
# kind, version, flags, bytes of the head, bytes of the body, request, worker, scorer, deadline.
_HEADER = struct.Struct("<BBHIQQIIq")
_DATAGRAM_MAX = _HEADER.size + HEAD_BYTES_MAX + INLINE_BYTES
_DESCRIPTOR = struct.Struct("i")
# The exact length of one descriptor. The aligned one (CMSG_SPACE) would let a second one in.
_ONE_DESCRIPTOR = socket.CMSG_LEN(_DESCRIPTOR.size)
_SEND_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_RECEIVE_FLAGS = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
# Their names came with Python 3.8 and later; the numbers are the kernel's.
_ADD_SEALS, _GET_SEALS = 1033, 1034
_SEAL_SHRINK = 2
_SEALS = 1 | _SEAL_SHRINK | 4 | 8
_POPULATE = 0x8000
# The kernel has no room just now: for descriptors under way, or for the datagram.
_FULL = (errno.ETOOMANYREFS, errno.ENOBUFS)


class _Room(threading.local):
    """Each thread's, used again for each datagram: memory for the largest one would have to be found each time."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(_DATAGRAM_MAX))


_room = _Room()


class BadFrame(ValueError):
    """What arrived is not a frame, or does not fit its own header."""


class Frame:
    """One message. `worker` and `scorer` are numbers within the pool; `head` may be empty."""

    __slots__ = ("body", "deadline_ns", "head", "kind", "request_id", "scorer", "worker")

    def __init__(
        self, kind: int, request_id: int, worker: int, scorer: int, deadline_ns: int, head: Dict[str, Any], body: Body
    ) -> None:
        self.kind = kind
        self.request_id = request_id
        self.worker = worker
        self.scorer = scorer
        self.deadline_ns = deadline_ns
        self.head = head
        self.body = body

    def __repr__(self) -> str:
        name = _NAMES[self.kind]
        where = f"scorer {self.scorer}, worker {self.worker}"
        return f"<Frame {name} {self.request_id}, {where}, {len(self.body)} bytes>"


def send(
    sock: socket.socket,
    kind: int,
    *,
    request_id: int,
    worker: int = 0,
    scorer: int = 0,
    deadline_ns: int = 0,
    head: Optional[Dict[str, Any]] = None,
    body: Body = b"",
) -> None:
    """Sends one frame whole, or raises and has sent nothing. Raises ValueError when the head is too large."""
    text = b"" if head is None else text_of(head)
    if len(text) > HEAD_BYTES_MAX:
        raise ValueError(f"the head of a frame has {len(text)} bytes; at most {HEAD_BYTES_MAX} fit")
    size = body.nbytes if isinstance(body, memoryview) else len(body)
    flags = 0 if size <= INLINE_BYTES else _IN_MEMORY_FILE
    header = _HEADER.pack(kind, _VERSION, flags, len(text), size, request_id, worker, scorer, deadline_ns)
    try:
        if flags:
            _send_in_memory_file(sock, header + text, body)
        else:
            sock.sendmsg((header, text, body), (), _SEND_FLAGS)
    except OSError as exc:
        if exc.errno in _FULL:
            raise BlockingIOError(exc.errno, exc.strerror) from exc
        raise


def text_of(head: Dict[str, Any]) -> bytes:
    """A head in JSON, also where a text of it is no proper Unicode."""
    return json.dumps(head, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _send_in_memory_file(sock: socket.socket, datagram: bytes, body: Body) -> None:
    descriptor = os.memfd_create("body", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(body).cast("B")
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        fcntl.fcntl(descriptor, _ADD_SEALS, _SEALS)
        ancillary = (socket.SOL_SOCKET, socket.SCM_RIGHTS, _DESCRIPTOR.pack(descriptor))
        sock.sendmsg((datagram,), (ancillary,), _SEND_FLAGS)
    finally:
        os.close(descriptor)


def receive(sock: socket.socket, bound: Optional[Bound] = None) -> Optional[Frame]:
    """The next frame; None when the other side is gone. A large body is a view of mapped memory, released with it.

    `bound`: without, the sender is trusted."""
    try:
        room = _room.view
        size, ancillary, _, _ = sock.recvmsg_into((room,), _ONE_DESCRIPTOR, _RECEIVE_FLAGS)
    except ConnectionResetError:
        return None
    descriptors = _descriptors(ancillary) if ancillary else []
    try:
        return _parse(room[:size], descriptors, bound) if size else None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _descriptors(ancillary: List[Any]) -> List[int]:
    found: List[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = len(data) - len(data) % _DESCRIPTOR.size
            found.extend(number for (number,) in _DESCRIPTOR.iter_unpack(data[:whole]))
    return found


def _parse(datagram: memoryview, descriptors: List[int], bound: Optional[Bound]) -> Frame:
    if len(datagram) < _HEADER.size:
        raise BadFrame(f"a frame of {len(datagram)} bytes; its header alone has {_HEADER.size}")
    kind, version, flags, head_size, size, request_id, worker, scorer, deadline_ns = _HEADER.unpack_from(datagram)
    if version != _VERSION or not 0 < kind < len(_NAMES):
        raise BadFrame(f"a frame of version {version} and kind {kind}; version {_VERSION} and kinds 1 to 6 are known")
    in_file = bool(flags & _IN_MEMORY_FILE)
    body_at = _HEADER.size + head_size
    if len(datagram) != body_at + (0 if in_file else size):
        raise BadFrame(f"a frame of {len(datagram)} bytes whose header tells of {head_size} and {size}")
    if in_file and bound is not None and size > bound(kind, request_id):
        raise BadFrame(f"a body of {size} bytes, where at most {bound(kind, request_id)} are expected")
    head = _head(bytes(datagram[_HEADER.size : body_at])) if head_size else {}
    body = _mapped(descriptors, size) if in_file else bytes(datagram[body_at:])
    return Frame(kind, request_id, worker, scorer, deadline_ns, head, body)


def _head(text: bytes) -> Dict[str, Any]:
    try:
        head = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise BadFrame(f"the head of a frame is not JSON: {exc}") from exc
    if not isinstance(head, dict):
        raise BadFrame("the head of a frame is not a JSON object")
    return head


def _mapped(descriptors: List[int], size: int) -> memoryview:
    if len(descriptors) != 1:
        raise BadFrame(f"a frame with {len(descriptors)} descriptors where one memory file was told of")
    descriptor = descriptors[0]
    try:
        sealed = fcntl.fcntl(descriptor, _GET_SEALS) & _SEAL_SHRINK
        found = os.fstat(descriptor).st_size
    except OSError as exc:
        raise BadFrame(f"the descriptor of a frame is no memory file: {exc.strerror}") from exc
    if not sealed or not size or found != size:
        raise BadFrame(f"a memory file of {found} bytes, sealed: {bool(sealed)}; {size} bytes, sealed, were told of")
    # Private: a shared mapping of a file that is sealed against writing is refused by kernels before 6.7.
    return memoryview(mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE | _POPULATE, prot=mmap.PROT_READ))
