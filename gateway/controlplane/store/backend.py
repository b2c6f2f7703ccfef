"""What the store needs to know of a database beyond SQL: how to open it, and what its errors mean.

Two are known: sqlite.py and postgres.py. An error of a database has one of three meanings, the Verdict: run the work
again at once, tell the caller to try later, or give up.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

# Execution options of a connection: whether its transactions will write, or will change the schema.
WRITES = "store_writes"
MIGRATES = "store_migrates"


class Verdict(Enum):
    AGAIN = auto()  # another writer was in the way, or the connection was lost before anything was committed
    LATER = auto()  # locked, no room, not reachable
    BROKEN = auto()  # trying again will not help


class Backend(Protocol):
    """`name` is how messages call the database; it never holds a password."""

    name: str

    def engine(self) -> Engine:
        """One connection at most; StoreError where the database cannot even be tried."""
        ...

    def check(self, connection: Connection) -> None:
        """Raises StoreError where the database is damaged. Bounded."""
        ...

    def lock_schema(self, connection: Connection) -> None:
        """Lets one process at a time migrate, until the transaction ends."""
        ...

    def judge(self, error: DBAPIError) -> Verdict: ...

    def explain(self, error: DBAPIError) -> str:
        """The cause in the database's words, as the end of a sentence."""
        ...
