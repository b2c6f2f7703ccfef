"""SQLite: one file in the state folder, the store of a gateway that was told nothing else.

WAL with synchronous FULL: a transaction that was committed survives the loss of power. Writers take the write lock
when they begin (BEGIN IMMEDIATE), so none can fail half-way because of another; that one waits at most `timeout`
seconds (2 where the URL does not say).
Files: the database, with -wal and -shm beside it, all with mode 0600 where they are made here.
Source: SQLAlchemy's recipe for transactions with pysqlite; the driver's own would begin them too late.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from gateway.controlplane.store.backend import MIGRATES, WRITES, Verdict
from gateway.controlplane.store.errors import StoreError

_TIMEOUT_S = 2.0
# The check reads every page, a second or so for these from a slow disk: above them it would hold up the start.
_CHECKED_BYTES_MAX = 64 << 20
# What a large change leaves of the -wal file.
_WAL_BYTES_MAX = 16 << 20

_LATER = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Sqlite:
    """An empty path is a database in memory, which ends with the store."""

    def __init__(self, url: URL) -> None:
        path = url.database or ""
        self._path = None if path in ("", ":memory:") else Path(path).absolute()
        self._timeout_s = _timeout_of(url)
        self.name = f"the database {self._path or 'in memory'}"

    def engine(self) -> Engine:
        if self._path is not None:
            self._make_file(self._path)
        engine = create_engine(
            URL.create("sqlite+pysqlite", database=None if self._path is None else str(self._path)),
            poolclass=QueuePool,
            pool_size=1,
            max_overflow=0,
            hide_parameters=True,
            connect_args={"timeout": self._timeout_s, "check_same_thread": False},
        )
        event.listen(engine, "connect", _set_up)
        event.listen(engine, "begin", _begin)
        return engine

    def check(self, connection: Connection) -> None:
        if self._path is not None and self._path.stat().st_size > _CHECKED_BYTES_MAX:
            return
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        if found != "ok":
            raise StoreError(f"{self.name} is damaged ({' '.join(str(found).split())}); {_ADVICE}")

    def lock_schema(self, connection: Connection) -> None:
        """Nothing to do: the transaction has the write lock since it began."""

    def judge(self, error: DBAPIError) -> Verdict:
        return Verdict.LATER if _code_of(error) in _LATER else Verdict.BROKEN

    def explain(self, error: DBAPIError) -> str:
        code = _code_of(error)
        if code in _DAMAGED:
            return f"it is damaged, or no SQLite database ({error.orig}); {_ADVICE}"
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return f"another program holds it locked for more than {self._timeout_s:g} seconds"
        if code == sqlite3.SQLITE_FULL:
            return "there is no room left on its disk"
        return str(error.orig)

    def _make_file(self, path: Path) -> None:
        """Made here, so that nobody else can ever read it; SQLite gives the files beside it the same mode."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.close(descriptor)
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise StoreError(f"{self.name} cannot be opened: {error.strerror}") from error
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise StoreError(f"{self.name} cannot be opened: the files beside it cannot be made in {path.parent}")


_ADVICE = "restore a backup, or move the file away to begin with an empty one"


def _timeout_of(url: URL) -> float:
    unknown = set(url.query) - {"timeout"}
    if unknown:
        raise StoreError(f"the database's URL has {', '.join(sorted(unknown))}; for SQLite only timeout is accepted")
    text = url.query.get("timeout", str(_TIMEOUT_S))
    try:
        seconds = float(text) if isinstance(text, str) else -1.0
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 60:
        raise StoreError(f"the database's URL has timeout={text}; 0 to 60 seconds are accepted")
    return seconds


def _set_up(connection: Any, _record: object) -> None:
    # The driver begins no transaction of its own: _begin does.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        f"journal_size_limit = {_WAL_BYTES_MAX}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    writes = options.get(WRITES) or options.get(MIGRATES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _code_of(error: DBAPIError) -> int:
    """SQLite's primary result code; extended ones have it in their low byte."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else -1
