"""What an operator asks of a running gateway over the control socket: status and reload.

The control socket lies in the state folder (mode 0600): who may use that folder may use the gateway. A command's
answer is `{"ok": bool, "message": str, "data": ...}`. Over HTTPS the same is asked by REST (controlplane/rest).
Units: *_bytes bytes.
Errors: an answer with `ok` false.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from pathlib import Path
from typing import Any, Protocol

from gateway.unix_address import unix_address

log = logging.getLogger(__name__)

LINE_BYTES_MAX = 64 * 1024


class Operator(Protocol):
    """The supervisor as an operator sees it."""

    async def reload(self) -> Answer: ...

    def status(self) -> dict[str, Any]: ...


class Answer:
    """What came of a command; `message` is one or more sentences for a person."""

    __slots__ = ("data", "message", "ok")

    def __init__(self, ok: bool, message: str, data: Any = None) -> None:
        self.ok = ok
        self.message = message
        self.data = data

    def as_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "message": self.message, "data": self.data}


async def answer(operator: Operator, command: str) -> Answer:
    match command:
        case "reload":
            return await operator.reload()
        case "status":
            return Answer(True, "", operator.status())
        case _:
            return Answer(False, f"there is no command {command!r}; there are: reload, status")


async def serve_control(operator: Operator, path: Path) -> asyncio.Server:
    """Listen on the control socket: one JSON line in, one out, then the connection is closed."""

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(await _answer_line(operator, reader))
            await writer.drain()
        writer.close()

    path.unlink(missing_ok=True)  # noqa: ASYNC240 - a socket file, once, at start
    with unix_address(path) as address:
        server = await asyncio.start_unix_server(on_connection, path=address, limit=LINE_BYTES_MAX)
    path.chmod(0o600)  # noqa: ASYNC240
    return server


async def _answer_line(operator: Operator, reader: asyncio.StreamReader) -> bytes:
    """The answer to the line that comes next, whatever it is."""
    try:
        command = _command(await _line(reader))
    except _BadCommand as error:
        return _as_line(Answer(False, str(error)))
    try:
        return _as_line(await answer(operator, command))
    except Exception as error:
        log.exception("a command on the control socket failed")
        return _as_line(Answer(False, f"the gateway failed: {type(error).__name__}; its log has the cause"))


class _BadCommand(Exception):
    """What came over the control socket is no command; the text says why."""


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ValueError as error:
        raise _BadCommand(f"the command is longer than {LINE_BYTES_MAX} bytes") from error


def _command(line: bytes) -> str:
    shape = 'a command is one line of JSON, such as {"command": "status"}'
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _BadCommand(f"{shape}; {len(line)} bytes came that are not JSON") from error
    command = found.get("command") if isinstance(found, dict) else None
    if not isinstance(command, str):
        raise _BadCommand(f"{shape}; what came has no command")
    return command


def _as_line(reply: Answer) -> bytes:
    return json.dumps(reply.as_json()).encode() + b"\n"
