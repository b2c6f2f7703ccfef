"""Store: one database behind one thread, given work to run in a transaction.

`write` runs the work in one transaction that is committed, and on the disk, when it returns; `read` sees one moment.
The work may be run again when another writer was in the way, so it changes nothing but the store, and returns data.
Threads: every statement runs on the store's own thread, one work after the other. A caller who is cancelled does not
wait for it any more: a work that has not begun is never run, one that has begun commits whole or not at all.
Limits: WAITING_MAX works may wait; a work is tried ATTEMPTS times.
Errors: StoreBusy, StoreError; what the work itself raises comes through, and nothing of that work is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine, RootTransaction, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError

from gateway.controlplane.store import schema
from gateway.controlplane.store.backend import MIGRATES, WRITES, Backend, Verdict
from gateway.controlplane.store.errors import StoreBusy, StoreError, VersionConflict
from gateway.controlplane.store.postgres import Postgres
from gateway.controlplane.store.sqlite import Sqlite
from gateway.controlplane.store.transaction import Transaction
from gateway.telemetry.control import StoreRecord
from runtimes import now_ns

__all__ = ["Store", "StoreBusy", "StoreError", "VersionConflict"]

WAITING_MAX = 1024
ATTEMPTS = 5

T = TypeVar("T")


class Store:
    """Made by `open`; belongs to one event loop, where `record` counts. `close` waits for the work that has begun."""

    def __init__(self, backend: Backend, engine: Engine, thread: ThreadPoolExecutor) -> None:
        self._backend = backend
        self._engine = engine
        self._thread = thread
        self.record = StoreRecord()
        self._waiting = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"<Store {self._backend.name}{', closed' if self._closed else ''}>"

    @classmethod
    def open(cls, url: str) -> Store:
        """Opens the database, checks it, and brings its schema up to date. Blocks; StoreError or StoreBusy."""
        backend = _backend_for(url)
        engine = backend.engine()
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        store = cls(backend, engine, thread)
        try:
            thread.submit(store._prepare).result()
        except BaseException:
            store.close()
            raise
        return store

    async def write(self, work: Callable[[Transaction], T]) -> T:
        return await self._do(work, writes=True)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        return await self._do(work, writes=False)

    def close(self) -> None:
        """What waits still is refused."""
        if self._closed:
            return
        self._closed = True
        self._thread.shutdown(wait=True)
        self._engine.dispose()

    async def _do(self, work: Callable[[Transaction], T], *, writes: bool) -> T:
        self._need_open()
        if self._waiting >= WAITING_MAX:
            self.record.busy += 1
            raise StoreBusy(f"{self._backend.name} is behind: {self._waiting} changes and questions wait for it")
        self._waiting += 1
        began_ns = now_ns()
        try:
            return await asyncio.wrap_future(self._thread.submit(self._run, work, writes))
        except StoreBusy:
            self.record.busy += 1
            raise
        finally:
            self._waiting -= 1
            self.record.ended(writes=writes, took_ns=now_ns() - began_ns)

    # From here on: on the store's thread.

    def _run(self, work: Callable[[Transaction], T], writes: bool) -> T:
        for attempt in range(1, ATTEMPTS + 1):
            self._need_open()
            try:
                return self._try(work, writes)
            except DBAPIError as error:
                if self._verdict(error) is not Verdict.AGAIN or attempt == ATTEMPTS:
                    raise self._translated(error) from error
        raise AssertionError("the last attempt returns or raises")

    def _try(self, work: Callable[[Transaction], T], writes: bool) -> T:
        with self._engine.connect() as connection:
            connection.execution_options(**{WRITES: writes})
            transaction = connection.begin()
            try:
                result = work(Transaction(connection))
            except BaseException:
                transaction.rollback()
                raise
            self._commit(transaction)
            return result

    def _commit(self, transaction: RootTransaction) -> None:
        try:
            transaction.commit()
        except DBAPIError as error:
            if error.connection_invalidated:
                raise StoreBusy(
                    f"{self._backend.name} went away while a change was committed; read whether it was stored"
                ) from error
            raise

    def _verdict(self, error: DBAPIError) -> Verdict:
        # A connection that was lost before its commit has changed nothing; the next attempt makes a new one.
        return Verdict.AGAIN if error.connection_invalidated else self._backend.judge(error)

    def _translated(self, error: DBAPIError) -> StoreBusy | StoreError:
        message = f"{self._backend.name} cannot be used: {self._backend.explain(error)}"
        return StoreError(message) if self._backend.judge(error) is Verdict.BROKEN else StoreBusy(message)

    def _need_open(self) -> None:
        if self._closed:
            raise StoreError(f"{self._backend.name} was closed")

    def _prepare(self) -> None:
        try:
            with self._engine.connect() as connection:
                with connection.begin():
                    self._backend.check(connection)
                    found = _revision_of(connection)
                if found != schema.HEAD:
                    self._upgrade(connection)
        except DBAPIError as error:
            raise self._translated(error) from error

    def _upgrade(self, connection: Connection) -> None:
        # Only now: a database that is up to date is opened without loading Alembic.
        from gateway.controlplane.store import migrate

        connection.execution_options(**{MIGRATES: True})
        with connection.begin():
            self._backend.lock_schema(connection)
            found = _revision_of(connection)
            if found is None:
                self._need_own(connection)
            elif found not in migrate.known_revisions():
                raise StoreError(
                    f"{self._backend.name} was written by a newer version of this program: its schema is {found}, "
                    f"and this version knows {schema.HEAD}; use the newer version, or restore a backup from before it"
                )
            migrate.upgrade(connection)

    def _need_own(self, connection: Connection) -> None:
        foreign = sorted(set(inspect(connection).get_table_names()) & set(schema.METADATA.tables))
        if foreign:
            raise StoreError(
                f"{self._backend.name} belongs to another program: it has a table {foreign[0]} and no "
                f"{schema.VERSION_TABLE}; name a database that is empty"
            )


def _revision_of(connection: Connection) -> str | None:
    """How far the database has been migrated; None: not at all."""
    if not inspect(connection).has_table(schema.VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {schema.VERSION_TABLE}"))
    return found.scalar_one_or_none()


def _backend_for(url: str) -> Backend:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Without the cause, whose text may hold the URL and with it a password.
        raise StoreError(f"the database's URL cannot be read; {_ACCEPTED}") from None
    name = parsed.drivername
    if name in ("sqlite", "sqlite+pysqlite"):
        return Sqlite(parsed)
    if name in ("postgresql", "postgresql+psycopg", "postgres"):
        return Postgres(parsed)
    raise StoreError(f"the database's URL begins with {name}; {_ACCEPTED}")


_ACCEPTED = "sqlite:///PATH and postgresql://USER:PASSWORD@HOST/NAME are accepted"
