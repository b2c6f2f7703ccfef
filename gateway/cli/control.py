"""One question to the gateway that runs on a state folder, over its control socket.

Wire: a Unix stream socket `control.sock` in the state folder; the client sends one line of JSON,
{"command": "reload"}, and reads one line, {"ok": true, "message": "...", "data": ...}; then both close.
Units: *_s seconds, *_bytes bytes.
Errors: ControlError, one sentence.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path

from gateway.unix_address import unix_address

SOCKET_NAME = "control.sock"
ANSWER_BYTES_MAX = 16 * 1024 * 1024


class ControlError(Exception):
    """The question could not be asked, or its answer not be understood."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the gateway said: whether it did it, in words, and any data."""

    ok: bool
    message: str
    data: object = None


def ask(state: Path, command: str, timeout_s: float) -> Reply:
    """Send one command and wait for its end. Errors: ControlError."""
    path = state.absolute() / SOCKET_NAME
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            with unix_address(path) as address:
                connection.connect(address)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise ControlError(
                f"no gateway runs on the state folder {state}; start one with: gateway serve --state {state}"
            ) from error
        except OSError as error:
            raise ControlError(f"cannot reach the gateway at {path}: {error.strerror or error}") from error
        try:
            connection.sendall(json.dumps({"command": command}).encode() + b"\n")
            line = _line(connection)
        except TimeoutError:
            raise ControlError(f"the gateway gave no answer to {command!r} in {timeout_s:g} s; see its log") from None
        except OSError as error:
            raise ControlError(f"the gateway hung up on {command!r}: {error.strerror or error}") from error
    return _reply(line, command)


def _line(connection: socket.socket) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n") and len(received) <= ANSWER_BYTES_MAX:
        part = connection.recv(65_536)
        if not part:
            break
        received += part
    return bytes(received)


def _reply(line: bytes, command: str) -> Reply:
    try:
        answer = json.loads(line)
        return Reply(ok=bool(answer["ok"]), message=str(answer.get("message", "")), data=answer.get("data"))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        found = f"{len(line)} bytes that are no answer" if line else "nothing"
        raise ControlError(f"the gateway answered {found} to {command!r}; its log may say more") from error
