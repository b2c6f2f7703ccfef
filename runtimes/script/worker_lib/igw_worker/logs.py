"""A script's logs: records in the inference server's format on stderr, and print() as records too.

Why: users read the logs of a deployment in the format that Azure has, whoever wrote them. A `logging.json` beside the
script is the user's own set-up and replaces ours.
Shapes: `2026-01-31 12:00:00,000 I [123] azmlinfsrv - the message`, in UTC. What print() writes to stdout becomes one
record a line of `azmlinfsrv.print`; the rest of an unfinished line waits for its end or for the end of the request.
Errors: `configure` raises ValueError, with a sentence, for a logging.json that cannot be used.
"""

import builtins
import json
import logging
import sys
import threading
import time
from pathlib import Path
from typing import Any, Iterable, Optional

FORMAT = "%(asctime)s %(levelname).1s [%(process)d] %(name)s - %(message)s"
_LINE_MAX = 64 * 1024


class AMLLogFormatter(logging.Formatter):
    converter = time.gmtime  # type: ignore[assignment]

    def __init__(self, fmt: str = FORMAT, datefmt: Optional[str] = None, style: Any = "%", **more: Any) -> None:
        super().__init__(fmt, datefmt, style, **more)


def configure(level: str, folders: Iterable[str]) -> None:
    """Sets logging up, from the first folder that has a logging.json, else as described above."""
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    for folder in folders:
        path = Path(folder) / "logging.json"
        if path.is_file():
            _configure_from(path)
            logging.getLogger("azmlinfsrv").info("Loaded logging config from %s", path)
            return
    handler = logging.StreamHandler()
    handler.setFormatter(AMLLogFormatter())
    for name in ("", "azmlinfsrv"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level_of(level))
    logging.getLogger("azmlinfsrv").propagate = False


def level_of(name: str) -> int:
    """A level by its name in any case; INFO for what is none."""
    found = logging.getLevelName(name.strip().upper())
    return found if isinstance(found, int) else logging.INFO


def _configure_from(path: Path) -> None:
    # Slow to import, and seldom needed.
    import logging.config

    try:
        logging.config.dictConfig(json.loads(path.read_text("utf-8-sig")))
    except Exception as exc:
        raise ValueError(f"logging.json cannot be used: {type(exc).__name__}: {exc}") from exc


class Prints:
    """Stands in for print(): text for stdout is logged line by line, all else is written where it was meant to go."""

    def __init__(self) -> None:
        self._print = builtins.print
        self._logger = logging.getLogger("azmlinfsrv.print")
        self._lock = threading.Lock()
        self._rest = ""

    def install(self) -> None:
        builtins.print = self

    def __call__(self, *values: Any, **options: Any) -> None:
        file = options.get("file")
        if file is not None and file is not sys.stdout:
            self._print(*values, **options)
            return
        sep, end = options.get("sep"), options.get("end")
        text = (" " if sep is None else sep).join(map(str, values)) + ("\n" if end is None else end)
        with self._lock:
            *lines, rest = (self._rest + text).split("\n")
            # An unfinished line has a bound as well.
            self._rest = "" if options.get("flush") or len(rest) > _LINE_MAX else rest
        if rest and not self._rest:
            lines.append(rest)
        self._log(lines)

    def flush(self) -> None:
        """Logs the unfinished line, if there is one."""
        if self._rest:
            with self._lock:
                rest, self._rest = self._rest, ""
            self._log([rest])

    def _log(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._logger.info("%s", line)
