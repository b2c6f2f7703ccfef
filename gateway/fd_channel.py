"""Descriptors from the supervisor to a scorer: the sockets of a pool of script workers, under the pool's name.

Why beside the channel: a byte stream read in pieces loses which descriptor came with which message; here a datagram
is one label with its descriptors, whole.
Ownership: the sender keeps its own; the receiver's are closed when the label is sent again, with others or with none.
Units: labels of at most LABEL_BYTES_MAX bytes of UTF-8, at most FDS_MAX descriptors each.
Errors: OSError when the other side is gone; TimeoutError when a label does not come.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket

LABEL_BYTES_MAX = 4096
FDS_MAX = 8


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends: one that sends, one for a FdInbox."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


async def send(sock: socket.socket, label: str, fds: tuple[int, ...]) -> None:
    """Give these descriptors away under this name; none: the name is not in use any more."""
    text = label.encode()
    if not 0 < len(text) <= LABEL_BYTES_MAX or len(fds) > FDS_MAX:
        raise ValueError(f"{len(fds)} descriptors under {label!r}: a label has 1 to {LABEL_BYTES_MAX} bytes")
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    while True:
        try:
            sock.sendmsg([text], rights)
            return
        except BlockingIOError:
            await _writable(sock)


async def _writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    room = asyncio.Event()
    loop.add_writer(sock.fileno(), room.set)
    try:
        await room.wait()
    finally:
        loop.remove_writer(sock.fileno())


class FdInbox:
    """What a scorer was given, by label. All of it is for the loop's thread."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._fds: dict[str, tuple[int, ...]] = {}
        self._waiting: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        loop.add_reader(self._sock.fileno(), self._read)

    async def wait_for(self, label: str, timeout_s: float) -> tuple[socket.socket, ...]:
        """Sockets over copies of what came under this name, the caller's own. Errors: TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while label not in self._fds:
                came = asyncio.Event()
                self._waiting.add(came)
                try:
                    await came.wait()
                finally:
                    self._waiting.discard(came)
        return tuple(socket.socket(fileno=os.dup(fd)) for fd in self._fds[label])

    def close(self) -> None:
        """Harmless when it is closed already."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.remove_reader(self._sock.fileno())
        self._sock.close()
        for label in list(self._fds):
            self._drop(label)

    def _read(self) -> None:
        while True:
            try:
                text, fds, _, _ = socket.recv_fds(self._sock, LABEL_BYTES_MAX, FDS_MAX)
            except BlockingIOError:
                return
            except OSError:
                text, fds = b"", []
            if not text:
                # The supervisor is gone; the channel ends this process.
                self.close()
                return
            label = text.decode()
            self._drop(label)
            if fds:
                for fd in fds:
                    os.set_inheritable(fd, False)
                self._fds[label] = tuple(fds)
            for came in self._waiting:
                came.set()

    def _drop(self, label: str) -> None:
        for fd in self._fds.pop(label, ()):
            os.close(fd)
