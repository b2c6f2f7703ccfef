"""What an operator may ask: the management listener's routes, and the control socket in the state folder."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from gateway.cli.control import SOCKET_NAME, ask
from gateway.controlplane.management import LINE_BYTES_MAX, Answer, management_app, serve_control

TOKEN = "the-management-token"
STATUS = {"revision": 3, "ready": True, "endpoints": {"digits": {"deployments": {}}}}
REFUSED = "the change is refused, what was served is served on: green: the weights are 99"
PATIENCE_S = 5.0


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


# Over HTTPS.


def request(operator: FakeOperator, method: str, path: str, authorization: str | None = None) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=management_app(operator, TOKEN), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="https://gateway") as client:
            headers = httpx.Headers(encoding="latin-1")
            if authorization is not None:
                headers["authorization"] = authorization
            return await client.request(method, path, headers=headers)

    return asyncio.run(send())


def refusal(response: httpx.Response, status: int, code: str) -> str:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    document = orjson.loads(response.content)
    assert set(document) == {"error"}
    error = document["error"]
    assert set(error) == {"code", "message", "details", "request_id"}
    assert error["code"] == code
    assert response.headers["x-request-id"] == error["request_id"]
    return str(error["message"])


def test_the_index_is_open_and_names_the_routes() -> None:
    response = request(FakeOperator(), "GET", "/")
    assert response.status_code == 200
    assert response.json() == {"name": "inference-gateway", "routes": ["GET /status", "POST /reload"]}


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_token_opens_status_and_reload(scheme: str) -> None:
    operator = FakeOperator()
    status = request(operator, "GET", "/status", f"{scheme} {TOKEN}")
    assert (status.status_code, status.json()) == (200, STATUS)
    reloaded = request(operator, "POST", "/reload", f"{scheme} {TOKEN}")
    assert reloaded.status_code == 200
    assert reloaded.json() == {"ok": True, "message": "revision 4 is served", "data": STATUS}
    assert operator.reloads == 1


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer \xe9",
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/status"), ("POST", "/reload")])
def test_nothing_but_the_token_opens_them(method: str, path: str, authorization: str | None) -> None:
    operator = FakeOperator()
    response = request(operator, method, path, authorization)
    assert "management token" in refusal(response, 401, "unauthenticated")
    assert response.headers["www-authenticate"] == "Bearer"
    assert operator.reloads == 0


def test_a_refused_reload_is_a_conflict_that_says_why() -> None:
    response = request(FakeOperator(Answer(False, REFUSED)), "POST", "/reload", f"Bearer {TOKEN}")
    assert response.status_code == 409
    assert response.json() == {"ok": False, "message": REFUSED, "data": None}


@pytest.mark.parametrize(("method", "path"), [("GET", "/status"), ("POST", "/reload")])
def test_an_operator_that_fails_is_a_500_with_an_id_that_the_log_has(
    method: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    operator = FakeOperator(raises=ValueError("a secret"))
    with caplog.at_level(logging.ERROR):
        response = request(operator, method, path, f"Bearer {TOKEN}")
    assert "secret" not in refusal(response, 500, "internal")
    assert response.headers["x-request-id"] in caplog.text


@pytest.mark.parametrize("path", ["/nothing", "/status/", "/reload/", "//status"])
def test_an_unknown_path_is_told_which_there_are(path: str) -> None:
    response = request(FakeOperator(), "GET", f"https://gateway{path}", f"Bearer {TOKEN}")
    assert refusal(response, 404, "not_found") == f"there is no {path}; there are GET /status, POST /reload"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/", {"GET", "HEAD"}),
        ("POST", "/status", {"GET", "HEAD"}),
        ("GET", "/reload", {"POST"}),
        ("DELETE", "/reload", {"POST"}),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(method: str, path: str, allowed: set[str]) -> None:
    operator = FakeOperator()
    response = request(operator, method, path, f"Bearer {TOKEN}")
    assert set(response.headers["allow"].split(", ")) == allowed
    assert f"{method} is not allowed on {path}" in refusal(response, 405, "method_not_allowed")
    assert operator.reloads == 0
    assert request(operator, "HEAD", "/reload", f"Bearer {TOKEN}").status_code == 405
    assert request(operator, "HEAD", "/status", f"Bearer {TOKEN}").status_code == 200


# Over the control socket.


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
