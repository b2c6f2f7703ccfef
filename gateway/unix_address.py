"""The address of a Unix socket, however deep its folder lies: the kernel takes 107 bytes, and a path may have more.

Source: unix(7); a folder that is open can be named through /proc in a few bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ADDRESS_BYTES_MAX = 107


@contextmanager
def unix_address(path: Path) -> Iterator[str]:
    """What to bind or connect to for this path, inside the block. Errors: OSError where the folder is missing."""
    if len(os.fsencode(path)) <= ADDRESS_BYTES_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
