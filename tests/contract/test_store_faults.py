"""What the store does when its database does not: each fault is one sentence, and nothing is half-written."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event as listening
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, OperationalError

from gateway.controlplane.store.backend import Verdict
from gateway.controlplane.store.database import Store, StoreBusy, StoreError
from gateway.controlplane.store.postgres import Postgres
from gateway.controlplane.store.records import Kind
from gateway.controlplane.store.schema import VERSION_TABLE
from gateway.controlplane.store.sqlite import Sqlite
from gateway.controlplane.store.transaction import Transaction
from tests.support.postgres import PASSWORD, PostgresServer
from tests.support.stores import operation, read, resource, sql, write

ROOT = Path(__file__).parent.parent.parent
KILLS = {"sqlite": 20, "postgres": 5}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


@pytest.fixture
def sqlite_store(path: Path) -> Iterator[Store]:
    opened = Store.open(f"sqlite:///{path}?timeout=0.05")
    yield opened
    opened.close()


@pytest.fixture
def postgres_store(postgres_server: PostgresServer) -> Iterator[Store]:
    opened = Store.open(postgres_server.new_database())
    yield opened
    opened.close()


def put(key: str, size: int = 10) -> Callable[[Transaction], None]:
    def work(transaction: Transaction) -> None:
        transaction.put(resource(key, document={"description": "x" * size}), expected=None)
        transaction.add_operation(operation(key))

    return work


def names(store: Store) -> list[str]:
    found = read(store, lambda transaction: transaction.find(Kind.ONLINE_ENDPOINT))
    begun = read(store, Transaction.unfinished)
    assert [item.name for item in found] == [item.id for item in begun], "a transaction was half kept"
    return [item.name for item in found]


# URLs


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("hunter2", "cannot be read; sqlite:///PATH and postgresql://"),
        ("postgresql://ann:hunter2@host:port/name", "cannot be read"),
        ("mysql://ann:hunter2@host/name", "begins with mysql; sqlite:///PATH and"),
        ("sqlite:////tmp/x?mode=ro&hunter2=1", "for SQLite only timeout is accepted"),
        ("sqlite:////tmp/x?timeout=soon", "timeout=soon; 0 to 60 seconds are accepted"),
        ("sqlite:////tmp/x?timeout=61", "timeout=61; 0 to 60"),
        ("sqlite:////tmp/x?timeout=1&timeout=2", "0 to 60"),
    ],
)
def test_a_url_that_names_no_database_is_refused(url: str, says: str) -> None:
    with pytest.raises(StoreError) as refused:
        Store.open(url)

    assert says in str(refused.value)
    assert "ann:hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None or "hunter2" not in str(refused.value.__cause__)


def test_a_store_may_live_in_memory() -> None:
    for url in ("sqlite://", "sqlite:///:memory:"):
        store = Store.open(url)
        write(store, put("e"))
        assert names(store) == ["e"]
        assert repr(store) == "<Store the database in memory>"
        store.close()


# SQLite


def test_the_files_of_the_database_are_private(sqlite_store: Store, path: Path) -> None:
    write(sqlite_store, put("e"))

    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}

    assert modes == {"gateway.db": 0o600, "gateway.db-wal": 0o600, "gateway.db-shm": 0o600}


def test_every_commit_reaches_the_disk(sqlite_store: Store) -> None:
    settings = ("journal_mode", "synchronous", "foreign_keys")

    found = read(sqlite_store, lambda transaction: [sql(transaction, f"PRAGMA {name}") for name in settings])

    assert found == ["wal", 2, 1]


def test_a_path_that_can_hold_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    for place, says in [
        (tmp_path, "Is a directory"),
        (tmp_path / "none" / "gateway.db", "No such file or directory"),
        (tmp_path / "file" / "gateway.db", "Not a directory"),
    ]:
        with pytest.raises(StoreError) as refused:
            Store.open(f"sqlite:///{place}")
        assert str(refused.value) == f"the database {place} cannot be opened: {says}"


def test_a_folder_that_cannot_be_written_to_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whoever runs the tests may be allowed to write anywhere.
    monkeypatch.setattr("gateway.controlplane.store.sqlite.os.access", lambda *_: False)

    with pytest.raises(StoreError, match=f"the files beside it cannot be made in {path.parent}"):
        Store.open(f"sqlite:///{path}")


def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 100)

    with pytest.raises(
        StoreError, match=r"it is damaged, or no SQLite database .* restore a backup, or move the file"
    ):
        Store.open(f"sqlite:///{path}")

    assert path.read_bytes() == b"not a database at all" * 100


def test_a_damaged_database_is_refused(path: Path) -> None:
    store = Store.open(f"sqlite:///{path}")
    for number in range(20):
        write(store, put(f"e{number}", 1000))
    store.close()
    page = 4096
    whole = path.read_bytes()
    damaged = 0

    for place in range(1, len(whole) // page):
        path.write_bytes(whole[: place * page] + b"\xa5" * page + whole[(place + 1) * page :])
        try:
            Store.open(f"sqlite:///{path}").close()
        except StoreError as error:
            assert "is damaged" in str(error)
            damaged += 1

    assert damaged == len(whole) // page - 1, "every page but the first was in use"


def test_a_very_large_database_is_opened_without_reading_it_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(f"sqlite:///{path}")
    store.close()
    asked: list[str] = []
    monkeypatch.setattr("gateway.controlplane.store.sqlite._CHECKED_BYTES_MAX", 4096)

    again = Store.open(f"sqlite:///{path}")
    listening.listen(again._engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
    with again._engine.connect() as connection:
        again._backend.check(connection)
    again.close()

    assert not [statement for statement in asked if "quick_check" in statement]


def test_a_database_that_another_program_holds_is_busy_for_writers_only(sqlite_store: Store, path: Path) -> None:
    write(sqlite_store, put("before"))

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy, match=r"another program holds it locked for more than 0\.05 seconds"):
            write(sqlite_store, put("during"))
        assert names(sqlite_store) == ["before"]
        other.execute("ROLLBACK")
    write(sqlite_store, put("after"))

    assert names(sqlite_store) == ["before", "after"]


def test_a_new_database_that_another_program_holds_cannot_be_opened_now(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreBusy, match="another program holds it locked"):
            Store.open(f"sqlite:///{path}?timeout=0")


def test_a_full_disk_fails_a_change_whole_wherever_it_strikes(sqlite_store: Store) -> None:
    write(sqlite_store, put("before"))
    pages = read(sqlite_store, lambda transaction: sql(transaction, "PRAGMA page_count"))
    refused = 0

    for room in range(40):
        read(sqlite_store, lambda transaction, room=room: sql(transaction, f"PRAGMA max_page_count = {pages + room}"))  # type: ignore[misc]
        try:
            write(sqlite_store, lambda transaction: [put(f"e{number}", 9000)(transaction) for number in range(8)])
            break
        except StoreBusy as error:
            assert str(error).endswith("there is no room left on its disk")
            assert names(sqlite_store) == ["before"]
            refused += 1

    assert refused > 8, "the room ran out at one statement after the other"
    assert len(names(sqlite_store)) == 9
    assert read(sqlite_store, lambda transaction: sql(transaction, "PRAGMA integrity_check")) == "ok"


@pytest.mark.parametrize(
    ("code", "verdict", "says"),
    [
        (sqlite3.SQLITE_IOERR_FSYNC, Verdict.LATER, "it broke"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, Verdict.LATER, "holds it locked for more than 2 seconds"),
        (sqlite3.SQLITE_CORRUPT_INDEX, Verdict.BROKEN, "it is damaged, or no SQLite database (it broke)"),
        (sqlite3.SQLITE_READONLY, Verdict.BROKEN, "it broke"),
        (None, Verdict.BROKEN, "it broke"),
    ],
)
def test_an_error_of_sqlite_says_what_to_do(code: int | None, verdict: Verdict, says: str) -> None:
    cause = sqlite3.OperationalError("it broke")
    if code is not None:
        cause.sqlite_errorcode = code
    error = OperationalError("SELECT", None, cause)
    backend = Sqlite(make_url("sqlite:////x/gateway.db"))

    assert backend.judge(error) is verdict
    assert says in backend.explain(error)


# PostgreSQL


def test_a_server_that_refuses_us_is_named_without_the_password(postgres_server: PostgresServer) -> None:
    for url in (postgres_server.url("postgres", "hunter2"), postgres_server.url("nothing-of-that-name")):
        with pytest.raises(StoreBusy) as refused:
            Store.open(url)
        assert "the database postgresql://postgres:***@/" in str(refused.value)
        assert "hunter2" not in str(refused.value) and PASSWORD not in str(refused.value)


def test_a_store_is_busy_while_its_server_is_away_and_works_when_it_is_back(postgres_server: PostgresServer) -> None:
    store = Store.open(postgres_server.new_database())
    try:
        write(store, put("before"))
        postgres_server.stop()
        try:
            for _ in range(2):
                with pytest.raises(StoreBusy, match="cannot be used: connection"):
                    write(store, put("during"))
                with pytest.raises(StoreBusy):
                    read(store, Transaction.secrets)
        finally:
            postgres_server.start()
        write(store, put("after"))
        assert names(store) == ["before", "after"]
    finally:
        store.close()


def test_a_connection_that_was_cut_between_changes_is_not_noticed(
    postgres_store: Store, postgres_server: PostgresServer
) -> None:
    write(postgres_store, put("before"))
    postgres_server.cut_connections()
    write(postgres_store, put("between"))
    postgres_server.cut_connections()

    assert names(postgres_store) == ["before", "between"]


def test_a_connection_that_is_cut_in_a_change_has_it_run_again(
    postgres_store: Store, postgres_server: PostgresServer
) -> None:
    runs: list[int] = []

    def work(transaction: Transaction) -> None:
        put("e")(transaction)
        runs.append(len(runs))
        if len(runs) == 1:
            postgres_server.cut_connections()
        transaction.secrets()

    write(postgres_store, work)

    assert runs == [0, 1]
    assert names(postgres_store) == ["e"]


def test_a_server_that_goes_away_in_the_commit_leaves_it_open_whether_it_was_kept(
    postgres_store: Store, postgres_server: PostgresServer
) -> None:
    def cut(_: Any) -> None:
        postgres_server.cut_connections()

    listening.listen(postgres_store._engine, "commit", cut)
    with pytest.raises(StoreBusy, match="went away while a change was committed; read whether it was stored"):
        write(postgres_store, put("e"))
    listening.remove(postgres_store._engine, "commit", cut)

    assert names(postgres_store) in ([], ["e"])


def test_a_writer_that_another_holds_up_is_told_to_come_later(
    postgres_store: Store, postgres_server: PostgresServer
) -> None:
    write(postgres_store, lambda transaction: sql(transaction, "SET lock_timeout = '20ms'"))
    database = str(postgres_store._engine.url.database)

    with postgres_server.connect(database) as other, other.transaction():
        other.execute(f"LOCK TABLE {VERSION_TABLE} IN EXCLUSIVE MODE".encode())
        with pytest.raises(StoreBusy, match="lock timeout"):
            write(postgres_store, put("during"))
        assert names(postgres_store) == []
    write(postgres_store, put("after"))

    assert names(postgres_store) == ["after"]


def test_a_change_that_another_makes_fail_is_run_again_but_not_for_ever(
    postgres_store: Store, postgres_server: PostgresServer
) -> None:
    database = str(postgres_store._engine.url.database)
    write(postgres_store, lambda transaction: transaction.put_secret("n", b"0"))

    def meddled(times: int) -> Callable[[Transaction], int]:
        runs: list[None] = []

        def work(transaction: Transaction) -> int:
            transaction.secrets()
            runs.append(None)
            if len(runs) <= times:
                with postgres_server.connect(database) as other:
                    other.execute("UPDATE secrets SET sealed = 'x'")
            transaction.put_secret("n", b"1")
            return len(runs)

        return work

    assert write(postgres_store, meddled(2)) == 3
    with pytest.raises(StoreBusy, match="could not serialize access"):
        write(postgres_store, meddled(100))


def test_a_commit_is_durable_even_where_the_server_would_not_care(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()
    name = make_url(url).database
    with postgres_server.connect("postgres") as other:
        other.execute(f"ALTER DATABASE {name} SET synchronous_commit = off".encode())

    store = Store.open(url)
    found = read(store, lambda transaction: sql(transaction, "SHOW synchronous_commit"))
    store.close()

    assert found == "on"


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(StoreError, match=r"needs the driver psycopg: pip install 'inference-gateway\[postgres\]'"):
        Store.open("postgresql://ann@localhost/gateway")


class _Cause(Exception):
    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("it broke\n for ann:hunter2")
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("state", "verdict"),
    [
        ("40001", Verdict.AGAIN),
        ("23505", Verdict.AGAIN),
        ("53100", Verdict.LATER),
        ("25006", Verdict.LATER),
        ("57P03", Verdict.LATER),
        (None, Verdict.LATER),
        ("42501", Verdict.BROKEN),
    ],
)
def test_an_error_of_postgresql_says_what_to_do(state: str | None, verdict: Verdict) -> None:
    backend = Postgres(make_url("postgres://ann:hunter2@host/name"))

    assert backend.judge(OperationalError("SELECT", None, _Cause(state))) is verdict
    assert backend.judge(DBAPIError("SELECT", None, _Cause(state))) is (verdict if state else Verdict.BROKEN)
    assert backend.explain(DBAPIError("SELECT", None, _Cause(state))) == "it broke for ann:***"


# Kills


@pytest.mark.parametrize("kind", KILLS)
def test_what_was_acknowledged_outlives_a_kill_at_any_moment(
    kind: str, path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{path}" if kind == "sqlite" else request.getfixturevalue("postgres_server").new_database()
    chance = random.Random(4)
    acknowledged: set[str] = set()
    command = [sys.executable, "-m", "tests.support.store_writer", url]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        for _ in range(KILLS[kind]):
            writer.stdin.write("go\n")
            writer.stdin.flush()
            acknowledged |= _kill_after(writer.stdout, chance.randrange(1, 30), chance.random() * 2e-3)
        writer.stdin.close()

    store = Store.open(url)
    kept = read(store, lambda transaction: transaction.find(Kind.ONLINE_ENDPOINT))
    begun = read(store, Transaction.unfinished)
    entries = read(store, lambda transaction: transaction.audits(before=None, limit=10**6))
    if kind == "sqlite":
        assert read(store, lambda transaction: sql(transaction, "PRAGMA integrity_check")) == "ok"
    store.close()

    names = {item.name for item in kept}
    assert len(acknowledged) >= KILLS[kind]
    assert acknowledged <= names
    assert len(names - acknowledged) <= KILLS[kind], "at most the one under way at each kill"
    assert names == {f"e{item.id[1:]}" for item in begun} == {entry.target for entry in entries}


def _kill_after(lines: Iterator[str], count: int, delay_s: float) -> set[str]:
    """Kills the child a moment after its `count`th line; all that it acknowledged until it was dead."""
    child = int(next(lines).split()[1])
    said = [next(lines) for _ in range(count)]
    deadline_s = time.monotonic() + delay_s
    while time.monotonic() < deadline_s:
        pass  # shorter than a sleep can be
    os.kill(child, signal.SIGKILL)
    said += list(iter(lambda: next(lines), "dead\n"))
    return {f"e{line.split()[1]}" for line in said if line.startswith("ack ") and line.endswith("\n")}
