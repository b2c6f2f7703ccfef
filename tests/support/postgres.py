"""A PostgreSQL server of the tests' own: a private cluster in a temporary folder, reached over a Unix socket.

The server refuses to run as root; for root it runs as the user `postgres`, who owns the folder then. It forces
nothing to the disk (fsync off): the tests are about our program, and the folder is gone with them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import psycopg
import pytest

from tests.support.waiting import eventually

PASSWORD = "correct-horse-battery"
_STOP_TIMEOUT_S = 20.0
_OPTIONS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "20",
    "autovacuum": "off",
}


class PostgresServer:
    """`with PostgresServer(programs) as server:` runs one until the block ends."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        # Not pytest's folder: the server's user must get to it, and a socket's address must be short.
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def __enter__(self) -> PostgresServer:
        try:
            self._make_cluster()
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def start(self) -> None:
        settings = [word for name, value in _OPTIONS.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = self._spawn(
                ["postgres", "-D", self._data, "-k", str(self._folder), *settings], log.fileno()
            )
        eventually(self._answers, f"the PostgreSQL server answers; its log is {self.log()}")

    def stop(self) -> None:
        """Ends it fast: connections are cut off, what was committed is kept."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            finally:
                if self._process.poll() is None:
                    self._process.kill()
                    self._process.wait()
                self._process = None

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def url(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql://postgres:{password}@/{database}?host={self._folder}"

    def new_database(self) -> str:
        """The URL of an empty one."""
        self._databases += 1
        name = f"test{self._databases}"
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    @contextmanager
    def connect(self, database: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        """As an administrator; every statement is committed by itself."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            yield connection

    def cut_connections(self) -> None:
        with self.connect("postgres") as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )

    def log(self) -> str:
        path = self._folder / "log"
        return path.read_text()[-2000:] if path.exists() else ""

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _make_cluster(self) -> None:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
        options = ["--auth=scram-sha-256", "-U", "postgres", f"--pwfile={password}", "--no-sync", "--encoding=UTF8"]
        with (self._folder / "log").open("ab") as log:
            made = self._spawn(["initdb", "-D", self._data, *options, "--locale=C.UTF-8"], log.fileno()).wait()
        assert made == 0, f"initdb failed: {self.log()}"

    def _spawn(self, words: list[str], log: int) -> subprocess.Popen[bytes]:
        command = [str(self._programs / words[0]), *words[1:]]
        is_root = os.geteuid() == 0
        return subprocess.Popen(
            command,
            cwd=self._folder,
            user="postgres" if is_root else None,
            group="postgres" if is_root else None,
            extra_groups=[] if is_root else None,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, f"the server ended: {self.log()}"
        try:
            with self.connect("postgres"):
                return True
        except psycopg.OperationalError:
            return False

    def _remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def postgres_programs() -> Path:
    """The folder of the server's programs; skips the test, with the reason, where there is none."""
    script = Path(__file__).parent / "get-postgres.sh"
    found = subprocess.run([str(script), "--only-look"], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip("no PostgreSQL server on this machine; tests/support/get-postgres.sh installs Debian's as root")
    return Path(found.stdout.strip())
