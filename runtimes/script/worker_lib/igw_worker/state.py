"""What a worker runs, written down where its crew can read it: one record a worker, in a memory file of the pool.

Why: a worker inside run() cannot be asked, and the scorer that could tell may have died; so each worker notes what it
runs and until when, and the crew ends one that still does long after that. The worker maps the file: then a note is
no call of the kernel, and the script has no descriptor that it could close.
Units: *_ns monotonic nanoseconds, 0 for no deadline; request 0 for none. Offsets in bytes.
Errors: OSError, ValueError where the descriptor is none of such a file.
"""

import mmap
import os
import struct

_RECORD = struct.Struct("<QqI4x")
RECORD_BYTES = _RECORD.size


class Record:
    """A worker's own. What is read while it is written may be torn: the crew looks twice before it acts."""

    __slots__ = ("_map", "_offset")

    def __init__(self, descriptor: int, offset: int) -> None:
        self._map = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        self._offset = offset

    def note(self, request: int, deadline_ns: int, scorer: int) -> None:
        """This worker runs this request from now on."""
        _RECORD.pack_into(self._map, self._offset, request, deadline_ns, scorer)

    def clear(self) -> None:
        """It runs none."""
        _RECORD.pack_into(self._map, self._offset, 0, 0, 0)


def clear(descriptor: int, offset: int) -> None:
    """The worker is not there any more."""
    os.pwrite(descriptor, bytes(RECORD_BYTES), offset)


def read(descriptor: int, offset: int) -> "tuple[int, int, int]":
    """The request, its deadline, and the scorer that it came from."""
    request, deadline_ns, scorer = _RECORD.unpack(os.pread(descriptor, RECORD_BYTES, offset))
    return request, deadline_ns, scorer
