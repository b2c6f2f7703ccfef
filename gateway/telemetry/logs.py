"""Logs: one record is one line on stderr, in UTC, as text or JSON, with nothing in it that a caller could misuse.

Why: names and headers that strangers choose end up in messages. A line break in one of them must not look like a
second record, a terminal must not obey it, and a key in one of them must not stay in a file.
Shapes: text `2026-01-31T12:00:00.000Z WARNING gateway.fleet the message key=value`; JSON one object a line with
`time`, `level`, `logger`, `message`, the extra fields, and `error` with the traceback.
Errors: `configure` raises ValueError for a level or format there is not; a record never raises.
Threads: any, as logging itself.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

import orjson

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

REDACTED = "[redacted]"

# Everything that breaks a line somewhere (C0, DEL, C1, U+2028, U+2029), turns text around on a screen, or cannot be
# written as UTF-8.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# A cheap look before the real patterns: few records hold any of these words.
_SUSPICIOUS = re.compile(
    r"authorization|bearer|cookie|api[-_]?key|(?:primary|secondary)[-_]?key|password|token=|[?&](?:code|key|sig)=|eyJ|igm_",
    re.IGNORECASE,
)
_SECRETS = (
    # A header or JSON field by name, up to the end of its quotes or of the line.
    re.compile(
        r"""(\b(?:proxy-)?authorization\b|\b(?:set-)?cookie\b|\b(?:x-)?api[-_]?key\b"""
        r"""|\b(?:primary|secondary)[-_]?key\b|\bpassword\b)"""
        r"""((?:["'\]]+\s*[:=,]|\s*[:=])\s*b?["']?)[^"'\r\n]+""",
        re.IGNORECASE,
    ),
    re.compile(r"""(\bbearer)(\s+)[^"'\r\n]+""", re.IGNORECASE),
    re.compile(r"""([?&](?:access_)?(?:code|key|sig|token))(=)[^&\s"']+""", re.IGNORECASE),
    # A management token, wherever it stands.
    re.compile(r"()()\bigm_[\w-]{43}"),
    # A JSON Web Token, wherever it stands. The look behind starts no second scan inside one word.
    re.compile(r"()()(?<![\w-])eyJ[\w-]{5,}\.[\w-]+\.[\w-]*"),
)

# What a LogRecord has of its own; the rest came in by `extra=`.
_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


def redact(text: str) -> str:
    """The text without secrets: values of Authorization and its kin, bearer tokens, keys in query strings."""
    if _SUSPICIOUS.search(text) is None:
        return text
    for pattern in _SECRETS:
        text = pattern.sub(rf"\1\2{REDACTED}", text)
    return text


def one_line(text: str) -> str:
    """The text with every control character written as an escape."""
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char)
    return short if short is not None else f"\\u{ord(char):04x}"


class _Formatter(logging.Formatter):
    """What both formats share: the time, a message that never raises, and the fields beside it."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def time(self, record: logging.LogRecord) -> str:
        return (
            datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(record.msecs):03d}Z"
        )

    def message(self, record: logging.LogRecord) -> str:
        try:
            text = record.getMessage()
        except Exception as error:  # noqa: BLE001 - arguments format themselves by code of any kind
            text = f"{record.msg} (its arguments could not be written: {type(error).__name__})"
        return redact(text)

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """Extra fields; what is not a number is text, with no secrets in it."""
        found: dict[str, object] = {"process": self._process} if self._process else {}
        for name, value in vars(record).items():
            if name not in _OWN_FIELDS:
                plain = value is None or isinstance(value, bool | int | float)
                found[name] = value if plain else redact(str(value))
        return found

    def error(self, record: logging.LogRecord) -> str:
        parts = [self.formatException(record.exc_info)] if record.exc_info else []
        if record.stack_info:
            parts.append(record.stack_info)
        return redact("\n".join(parts))


class TextFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        parts = [self.time(record), record.levelname, record.name, self.message(record)]
        parts += [f"{name}={value}" for name, value in self.fields(record).items()]
        error = self.error(record)
        if error:
            parts.append(f"error={error}")
        return one_line(" ".join(parts))


class JsonFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            **self.fields(record),
            "time": self.time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.message(record),
        }
        error = self.error(record)
        if error:
            line["error"] = error
        # What JSON lets stand but a line reader or a terminal does not is inside strings only, where \u is at home.
        return one_line(_json(line).decode())


def _json(line: Mapping[str, object]) -> bytes:
    try:
        return orjson.dumps(line, default=str)
    except orjson.JSONEncodeError:
        # Lone surrogates, or an integer past 64 bits: as text, every one of them can be written.
        return orjson.dumps({_valid(name): _valid(str(value)) for name, value in line.items()})


def _valid(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Nobody is left to tell: stderr is closed or full, and a traceback there could show what was redacted."""


def configure(level: str, format: str, process: str = "", stream: TextIO | None = None) -> None:
    """Set up logging for this process; calling it again replaces what was set up before.

    `process` names the process in every line, "" for none. Errors: ValueError.
    """
    if level not in LEVELS:
        raise ValueError(f"the log level is {level!r}; it is one of {', '.join(LEVELS)}")
    if format not in FORMATS:
        raise ValueError(f"the log format is {format!r}; it is one of {', '.join(FORMATS)}")
    handler = _Handler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter(process) if format == "json" else TextFormatter(process))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    _tame()


def _tame() -> None:
    """Other people's loggers: through our handler only, and quiet about what is no news."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)
    # Requests are counted, not written; their lines would hold paths that strangers choose.
    logging.getLogger("uvicorn.access").disabled = True
    for name in ("httpx", "httpcore", "watchfiles", "asyncio", "alembic", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.WARNING)
