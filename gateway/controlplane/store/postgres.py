"""PostgreSQL, for a store that several machines reach; the driver is psycopg 3, from the extra `postgres`.

Every transaction sees one moment (REPEATABLE READ). One that writes begins by locking a table that only writers lock:
gateways that share a server write one after the other, as they do with SQLite, and no work is thrown away because two
ran at once; readers wait for nobody. What fails all the same because of another writer is run again.
A server that was restarted is connected to again at the next call. A commit is on the server's disk when it returns,
even where the server's default is otherwise. No statement may take longer than ten seconds, no lock may be waited for
longer than five, and a writer that stops in the middle is thrown out: the store has one thread, which must not hang.
Errors: by SQLSTATE; where the driver has none, the connection is at fault.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import QueuePool

from gateway.controlplane.store.backend import MIGRATES, WRITES, Verdict
from gateway.controlplane.store.errors import StoreError
from gateway.controlplane.store.schema import VERSION_TABLE

_CONNECT = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,  # milliseconds
    "application_name": "inference-gateway",
}
_SETTINGS = (
    "SET statement_timeout = '10s'",
    "SET lock_timeout = '5s'",
    "SET idle_in_transaction_session_timeout = '10s'",
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
)
# Any number that others who use the same server are unlikely to have chosen.
_SCHEMA_LOCK = 0x1F6A7E5C0DE

# serialization_failure, deadlock_detected, unique_violation: another writer was quicker.
_AGAIN = frozenset({"40001", "40P01", "23505"})
# By class: connection exceptions, insufficient resources, operator intervention, system errors.
_LATER_CLASSES = ("08", "53", "57", "58")
# read_only_sql_transaction (a standby), lock_not_available, statement_completion_unknown.
_LATER = frozenset({"25006", "55P03", "40003"})


class Postgres:
    def __init__(self, url: URL) -> None:
        self._url = url.set(drivername="postgresql+psycopg")
        self.name = f"the database {url.set(query={}).render_as_string(hide_password=True)}"

    def engine(self) -> Engine:
        given = {name: value for name, value in _CONNECT.items() if name not in self._url.query}
        try:
            engine = create_engine(
                self._url,
                poolclass=QueuePool,
                pool_size=1,
                max_overflow=0,
                isolation_level="REPEATABLE READ",
                hide_parameters=True,
                connect_args=given,
            )
        except ImportError:
            raise StoreError(
                f"{self.name} needs the driver psycopg: pip install 'inference-gateway[postgres]'"
            ) from None
        event.listen(engine, "connect", _set_up)
        event.listen(engine, "begin", _begin)
        return engine

    def check(self, connection: Connection) -> None:
        """Nothing to do: the server looks after its files."""

    def lock_schema(self, connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _SCHEMA_LOCK})

    def judge(self, error: DBAPIError) -> Verdict:
        state = _state_of(error)
        if state in _AGAIN:
            return Verdict.AGAIN
        if state:
            return Verdict.LATER if state in _LATER or state.startswith(_LATER_CLASSES) else Verdict.BROKEN
        return Verdict.LATER if isinstance(error, OperationalError) else Verdict.BROKEN

    def explain(self, error: DBAPIError) -> str:
        words = " ".join(str(error.orig).split())
        password = self._url.password
        return words.replace(str(password), "***") if password else words


def _set_up(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for statement in _SETTINGS:
        cursor.execute(statement)
    cursor.close()
    connection.commit()


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get(WRITES):
        # Takes no snapshot: what is read after it includes all that the writer before has committed.
        connection.exec_driver_sql(f"LOCK TABLE {VERSION_TABLE} IN EXCLUSIVE MODE")
    elif options.get(MIGRATES):
        # As little may lock_schema's statement fix what is seen after it.
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")


def _state_of(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""
