"""Seats: how many requests are pending on a deployment, counted over all scorers without a lock.

Why: `max_concurrent_requests_per_instance` bounds a deployment, not a scorer, and the kernel spreads connections
unevenly; a share per scorer would refuse work while seats are free elsewhere. The table is shared memory: a row a
deployment, a column a scorer; each scorer writes its own column only, so no lock is needed and a dead scorer's
column is simply cleared.
Promise: the sum of a row never exceeds its bound. Two scorers that take the last seat at the same moment may both be
refused; never both let in.
Units: counts of requests, 32-bit.
"""

from __future__ import annotations

import mmap
import os

ROWS_MAX = 4096


class SeatTable:
    """The shared table. The supervisor creates it; scorers attach by an inherited file descriptor."""

    def __init__(self, fd: int, columns: int) -> None:
        self._columns = columns
        self._map = mmap.mmap(fd, ROWS_MAX * columns * 4)
        self._cells = memoryview(self._map).cast("i")

    @staticmethod
    def create(columns: int) -> int:
        """A new, zeroed table; returns its file descriptor, which the caller owns."""
        fd = os.memfd_create("gateway-seats")
        os.ftruncate(fd, ROWS_MAX * columns * 4)
        return fd

    def take(self, row: int, column: int, bound: int) -> bool:
        """Count one more; False, with nothing counted, when the row would exceed its bound."""
        first = row * self._columns
        self._cells[first + column] += 1
        if self.taken(row) <= bound:
            return True
        self._cells[first + column] -= 1
        return False

    def give(self, row: int, column: int) -> None:
        self._cells[row * self._columns + column] -= 1

    def taken(self, row: int) -> int:
        first = row * self._columns
        return sum(self._cells[first : first + self._columns])

    def clear_column(self, column: int) -> None:
        """A scorer died: what it had pending is gone."""
        for row in range(ROWS_MAX):
            self._cells[row * self._columns + column] = 0

    def clear_row(self, row: int) -> None:
        first = row * self._columns
        for column in range(self._columns):
            self._cells[first + column] = 0

    def close(self) -> None:
        self._cells.release()
        self._map.close()
