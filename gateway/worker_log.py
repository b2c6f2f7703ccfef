"""What one script worker writes, kept in files that are turned over: `name`, `name.1` … the oldest `name.4`.

Why: a script may print without end; what is kept of it is bounded, and so is how much of it is read at once.
Units: at most FILES_MAX files of FILE_BYTES_MAX bytes.
Errors: none; what cannot be written is lost, and the first time said in the gateway's own log.
"""

from __future__ import annotations

import logging
from pathlib import Path

log = logging.getLogger(__name__)

FILES_MAX = 5
FILE_BYTES_MAX = 1024 * 1024


class WorkerLog:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file_bytes = path.stat().st_size if path.exists() else 0
        self._is_failing = False

    def write(self, data: bytes) -> None:
        try:
            for start in range(0, len(data), FILE_BYTES_MAX):
                self._append(data[start : start + FILE_BYTES_MAX])
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                log.warning("the output of a script is not kept: %s", error)
            self._is_failing = True

    def tail(self, lines: int) -> list[str]:
        """The last lines, oldest first; the newest file has them, or the one before it as well."""
        text = b""
        for path in (self._path, self._turned(1)):
            if path.exists() and text.count(b"\n") <= lines:
                text = path.read_bytes() + text
        return text.decode("utf-8", "replace").splitlines()[-lines:] if lines > 0 else []

    def _append(self, data: bytes) -> None:
        if self._file_bytes and self._file_bytes + len(data) > FILE_BYTES_MAX:
            self._turn()
        with self._path.open("ab") as file:
            file.write(data)
        self._file_bytes += len(data)

    def _turn(self) -> None:
        for number in range(FILES_MAX - 1, 1, -1):
            older = self._turned(number - 1)
            if older.exists():
                older.replace(self._turned(number))
        if self._path.exists():
            self._path.replace(self._turned(1))
        self._file_bytes = 0

    def _turned(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
