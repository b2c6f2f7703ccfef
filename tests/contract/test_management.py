"""What an operator may ask over the control socket in the state folder."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.control import SOCKET_NAME, ask
from gateway.controlplane.management import LINE_BYTES_MAX, Answer, serve_control
from tests.support.waiting import PATIENCE_S

STATUS = {"revision": 3, "ready": True, "endpoints": {"digits": {"deployments": {}}}}
REFUSED = "the change is refused, what was served is served on: green: the weights are 99"


class FakeOperator:
    """Answers as it is told to; `raises` instead, where that is set."""

    def __init__(self, reply: Answer | None = None, raises: Exception | None = None) -> None:
        self.reply = reply or Answer(True, "revision 4 is served", STATUS)
        self.raises = raises
        self.reloads = 0

    async def reload(self) -> Answer:
        self.reloads += 1
        if self.raises is not None:
            raise self.raises
        return self.reply

    def status(self) -> dict[str, Any]:
        if self.raises is not None:
            raise self.raises
        return STATUS


def control(folder: Path, operator: FakeOperator, story: Callable[[Path], Awaitable[None]]) -> None:
    """The story gets the path of the socket, which is served meanwhile."""

    async def run() -> None:
        path = folder / SOCKET_NAME
        server = await serve_control(operator, path)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await story(path)
        finally:
            server.close()
            await server.wait_closed()

    asyncio.run(run())


async def talk(path: Path, line: bytes, *, is_ended: bool = False) -> dict[str, Any]:
    """One line out, one line back, and then the end. `is_ended` closes our half after the line."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(line)
    if is_ended:
        writer.write_eof()
    answered = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answered.endswith(b"\n")
    assert answered.count(b"\n") == 1
    document: dict[str, Any] = json.loads(answered)
    assert set(document) == {"ok", "message", "data"}
    return document


def test_status_and_reload_are_answered_in_a_line(tmp_path: Path) -> None:
    operator = FakeOperator()

    async def story(path: Path) -> None:
        assert await talk(path, b'{"command": "status"}\n') == {"ok": True, "message": "", "data": STATUS}
        assert await talk(path, b'{"command": "reload"}\n') == operator.reply.as_json()
        assert await talk(path, b'{"command": "reload"}', is_ended=True) == operator.reply.as_json()

    control(tmp_path, operator, story)
    assert operator.reloads == 2


def test_a_refused_reload_is_an_answer_too(tmp_path: Path) -> None:
    async def story(path: Path) -> None:
        answered = await talk(path, b'{"command": "reload"}\n')
        assert answered == {"ok": False, "message": REFUSED, "data": None}

    control(tmp_path, FakeOperator(Answer(False, REFUSED)), story)


def test_the_command_line_and_the_socket_speak_one_language(tmp_path: Path) -> None:
    async def story(_: Path) -> None:
        reply = await asyncio.to_thread(ask, tmp_path, "status", PATIENCE_S)
        assert (reply.ok, reply.message, reply.data) == (True, "", STATUS)
        unknown = await asyncio.to_thread(ask, tmp_path, "dance", PATIENCE_S)
        assert (unknown.ok, unknown.message) == (False, "there is no command 'dance'; there are: reload, status")

    control(tmp_path, FakeOperator(), story)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"\n", "1 bytes came that are not JSON"),
        (b"status\n", "7 bytes came that are not JSON"),
        (b"\xff\xfe\n", "3 bytes came that are not JSON"),
        (b"[" * 20_000 + b"\n", "not JSON"),
        (b"[]\n", "what came has no command"),
        (b"null\n", "what came has no command"),
        (b"{}\n", "what came has no command"),
        (b'{"command": null}\n', "what came has no command"),
        (b'{"command": ["reload"]}\n', "what came has no command"),
        (b'{"command": ""}\n', "there is no command ''; there are: reload, status"),
        (b"x" * (LINE_BYTES_MAX + 1) + b"\n", f"longer than {LINE_BYTES_MAX} bytes"),
        (b"x" * (LINE_BYTES_MAX + 1), f"longer than {LINE_BYTES_MAX} bytes"),
    ],
)
def test_what_is_no_command_is_told_so_and_runs_nothing(
    tmp_path: Path, line: bytes, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    operator = FakeOperator()

    async def story(path: Path) -> None:
        answered = await talk(path, line)
        assert not answered["ok"]
        assert said in answered["message"]
        assert (await talk(path, b'{"command": "status"}\n'))["ok"]

    control(tmp_path, operator, story)
    assert operator.reloads == 0
    # A caller's mistake is the caller's to hear of, not an error in our log.
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_caller_that_says_nothing_or_is_gone_harms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(path: Path) -> None:
        silent = await talk(path, b"", is_ended=True)
        assert "0 bytes came" in silent["message"]
        for line in (b"", b'{"comm', b'{"command": "status"}\n'):
            with socket.socket(socket.AF_UNIX) as gone:
                gone.connect(str(path))
                gone.sendall(line)
        assert (await talk(path, b'{"command": "status"}\n'))["ok"]

    control(tmp_path, FakeOperator(), story)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("failure", [ValueError("a secret"), AttributeError("a secret"), OSError("a secret")])
@pytest.mark.parametrize("command", ["status", "reload"])
def test_an_operator_that_fails_is_logged_and_answered(
    tmp_path: Path, failure: Exception, command: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is our failure, and never taken for a mistake in the command."""

    async def story(path: Path) -> None:
        answered = await talk(path, json.dumps({"command": command}).encode() + b"\n")
        assert not answered["ok"]
        assert answered["message"] == f"the gateway failed: {type(failure).__name__}; its log has the cause"

    control(tmp_path, FakeOperator(raises=failure), story)
    assert "a secret" in caplog.text


def test_an_answer_that_is_not_json_is_a_failure_and_not_a_hang(tmp_path: Path) -> None:
    async def story(path: Path) -> None:
        answered = await talk(path, b'{"command": "reload"}\n')
        assert answered["message"] == "the gateway failed: TypeError; its log has the cause"

    control(tmp_path, FakeOperator(Answer(True, "", {1, 2})), story)


def test_the_socket_is_its_owners_alone_and_replaces_one_that_was_left(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / SOCKET_NAME))
    left.close()

    async def story(path: Path) -> None:
        mode = path.stat().st_mode  # noqa: ASYNC240 - a socket file, once
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
        assert (await talk(path, b'{"command": "status"}\n'))["ok"]

    control(tmp_path, FakeOperator(), story)
