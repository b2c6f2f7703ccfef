"""What a worker runs, written down where its crew can read it: one record a worker, in a memory file of the pool.

Why: a worker inside run() cannot be asked, and the scorer that could tell may have died; so each worker notes what it
runs and until when, and the crew ends one that still does long after that.
Units: *_ns monotonic nanoseconds, 0 for no deadline; request 0 for none. Offsets in bytes.
Errors: OSError, where the descriptor is not what it was.
"""

import os
import struct

_RECORD = struct.Struct("<QqI4x")
RECORD_BYTES = _RECORD.size


def note(descriptor: int, offset: int, request: int, deadline_ns: int, scorer: int) -> None:
    """This worker runs this request from now on."""
    os.pwrite(descriptor, _RECORD.pack(request, deadline_ns, scorer), offset)


def clear(descriptor: int, offset: int) -> None:
    """It runs none."""
    os.pwrite(descriptor, bytes(RECORD_BYTES), offset)


def read(descriptor: int, offset: int) -> "tuple[int, int, int]":
    """The request, its deadline, and the scorer that it came from."""
    request, deadline_ns, scorer = _RECORD.unpack(os.pread(descriptor, RECORD_BYTES, offset))
    return request, deadline_ns, scorer
