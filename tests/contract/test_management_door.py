"""What every request to the management listener meets: paths, methods, heads, bodies, and our own failures.

Whatever happens, an answer that is no success is the ARM error body with the request's id in its head.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.controlplane.authorize import Role
from gateway.controlplane.rest.context import BODY_BYTES_MAX
from gateway.controlplane.store.database import StoreBusy, VersionConflict
from tests.support.house import FIRST_TOKEN, HOST, WORKSPACE, House

DIGITS = f"{WORKSPACE}/onlineEndpoints/digits"
ADMIN = {"authorization": f"Bearer {FIRST_TOKEN}"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    found = House(tmp_path_factory.mktemp("house"), blobs=blob_app)
    yield found
    found.close()


async def blob_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": scope["raw_path"]})


def refusal(response: httpx.Response, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-ms-request-id"]
    error = response.json()["error"]
    assert set(error) == {"code", "message", "target", "details", "additionalInfo"}
    assert error["code"] == code
    return str(error["message"])


def raw(house: House, method: str, path: bytes, headers: list[tuple[bytes, bytes]], *events: dict[str, Any]) -> Any:
    """A request as no client would send it: the events of the answer, by the application's own interface."""
    scope = {
        "type": "http",
        "method": method,
        "path": path.decode("latin-1"),
        "raw_path": path,
        "query_string": b"",
        "headers": [(b"host", HOST.encode()), *headers],
        "client": None,
    }
    sent: list[dict[str, Any]] = []
    waiting = iter(events or ({"type": "http.request", "body": b""},))

    async def receive() -> Any:
        return next(waiting)

    async def send(event: Any) -> None:
        sent.append(event)

    house.run(house.app(scope, receive, send))
    return sent


BEARER = (b"authorization", f"Bearer {FIRST_TOKEN}".encode())


# Paths and methods.


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/status/",
        "//status",
        f"{WORKSPACE}/",
        f"{WORKSPACE}/onlineEndpoints//deployments",
        "/subscriptions",
    ],
)
def test_a_path_that_leads_nowhere_is_not_found_with_or_without_credentials(house: House, path: str) -> None:
    for token in (FIRST_TOKEN, None):
        response = house.get(f"https://{HOST}{path}", token=token)
        assert "openapi.json" in refusal(response, 404, "ResourceNotFound")


@pytest.mark.parametrize(
    "segment",
    ["%2e%2e", "%2E", "a%2fb", "a%5Cb", "%00", "%0d%0a", "%ff", "%C3%28", "%zz", "%", "%E2%80%8B"],
)
def test_a_segment_that_hides_something_is_refused(house: House, segment: str) -> None:
    path = f"{WORKSPACE}/onlineEndpoints/{segment}".encode()
    start, body = raw(house, "GET", path, [BEARER])
    assert start["status"] == 400
    assert "segment" in json.loads(body["body"])["error"]["message"]


def test_what_is_escaped_twice_is_decoded_once(house: House) -> None:
    message = refusal(house.get(f"{WORKSPACE}/onlineEndpoints/%252e%252e"), 404, "ResourceNotFound")
    assert "'%2e%2e'" in message


def test_a_path_that_is_too_long_is_refused(house: House) -> None:
    start, _ = raw(house, "GET", b"/" + b"x" * 9000, [BEARER])
    assert start["status"] == 414


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/status", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/reload", {"POST", "OPTIONS"}),
        ("HEAD", "/reload", {"POST", "OPTIONS"}),
        ("POST", DIGITS, {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "PUT"}),
        ("TRACE", "/tokens", {"GET", "HEAD", "OPTIONS", "POST"}),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(house: House, method: str, path: str, allowed: set[str]) -> None:
    response = house.ask(method, path)
    assert set(response.headers["allow"].split(", ")) == allowed
    if method != "HEAD":
        assert method in refusal(response, 405, "MethodNotAllowed")


def test_options_tells_what_is_allowed_to_anybody(house: House) -> None:
    response = house.ask("OPTIONS", DIGITS, token=None)
    assert (response.status_code, response.content) == (204, b"")
    assert "PATCH" in response.headers["allow"]
    refusal(house.ask("OPTIONS", "/nothing", token=None), 404, "ResourceNotFound")


def test_head_is_get_without_its_body(house: House) -> None:
    got, headed = house.get("/status"), house.ask("HEAD", "/status")
    assert headed.status_code == got.status_code == 200
    assert headed.headers["content-length"] == got.headers["content-length"]
    assert headed.content == b""
    refused = house.ask("HEAD", "/status", token=None)
    assert (refused.status_code, refused.content) == (401, b"")


def test_blobs_are_another_application(house: House) -> None:
    for path in ("/blob/a/container/x", "/blob"):
        response = house.put(path, token=None)
        assert (response.status_code, response.text) == (299, path)
    refusal(house.get("/blobs"), 404, "ResourceNotFound")


def test_what_is_no_http_is_left_alone(house: House) -> None:
    async def never() -> Any:
        raise AssertionError("nobody asks")

    house.run(house.app({"type": "websocket"}, never, never))  # type: ignore[arg-type]


def test_a_server_that_tells_no_raw_path_is_served(house: House) -> None:
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"h")], "client": ("::1", 5)}
    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)

    async def receive() -> Any:
        raise AssertionError("there is no body to read")

    house.run(house.app(scope, receive, send))
    assert sent[0]["status"] == 200


# Heads.


def test_ids_are_given_back_and_made_where_there_are_none(house: House) -> None:
    given = {
        "x-ms-client-request-id": "abc-<1>" + "x" * 60,
        "x-ms-correlation-request-id": "11111111-2222-3333-4444-555555555555",
    }
    response = house.get("/status", headers=given)
    assert response.headers["x-ms-client-request-id"] == ("abc-1" + "x" * 60)[:40]
    assert response.headers["x-ms-correlation-request-id"] == given["x-ms-correlation-request-id"]
    plain = house.get("/status", headers={"x-ms-correlation-request-id": "<script>"})
    assert plain.headers["x-ms-correlation-request-id"] == plain.headers["x-ms-request-id"]
    assert "x-ms-client-request-id" not in plain.headers
    assert "strict-transport-security" not in plain.headers
    assert plain.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("name", ["authorization", "host", "if-match", "content-type"])
def test_what_decides_is_said_once(house: House, name: str) -> None:
    start, body = raw(house, "GET", b"/status", [BEARER, (name.encode(), b"1"), (name.encode(), b"2")])
    assert start["status"] == 400
    assert "more than once" in json.loads(body["body"])["error"]["message"]


@pytest.mark.parametrize("host", ["", "evil.example/path", "a b", "<x>", "h:99999", "user@host", "h\\x", "[::1"])
def test_a_host_header_that_is_no_host_is_put_into_no_answer(house: House, host: str) -> None:
    assert "Host" in refusal(house.get("/", headers={"host": host}), 400, "InvalidInput")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8444", "[::1]:8444", "models.example.org"])
def test_a_host_is_what_answers_lead_back_to(house: House, host: str) -> None:
    assert house.get("/", headers={"host": host}).json()["status"] == f"https://{host}/status"


def test_refusals_of_credentials_are_logged_and_counted(house: House, caplog: pytest.LogCaptureFixture) -> None:
    reader = house.add_token("reader", Role.READER)
    before = dict(house.app.record.refused)
    with caplog.at_level(logging.WARNING):
        refusal(house.get("/status", token="wrong"), 401, "InvalidAuthenticationToken")
        message = refusal(house.post("/reload", token=reader), 403, "AuthorizationFailed")
    assert "operator" in message and "reader" in message
    assert house.app.record.refused[401] == before.get(401, 0) + 1
    assert house.app.record.refused[403] == before.get(403, 0) + 1
    assert "wrong" not in caplog.text.replace("wrong method", "")
    assert "POST /reload" in caplog.text
    assert house.operator.reloads == 0


# Bodies.


def deep(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"a": NaN}', "not JSON"),
        (b'{"a": "\\ud800"}', "not JSON"),
        (b"[]", "a list"),
        (b"null", "null"),
        (b'"text"', "a text"),
        (b"1", "a number"),
        (b"true", "true or false"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": {"b": 1, "\\u0062": 2}}', "twice"),
        (deep(65), "nests"),
        (deep(5000), "not JSON"),
        (b'{"a": "\\u0000"}', "NUL"),
        (b'{"\\u0000": 1}', "NUL"),
    ],
)
def test_a_body_that_is_no_strict_object_is_refused(house: House, content: bytes, said: str) -> None:
    response = house.put(DIGITS, content=content, headers={"content-type": "application/json"})
    assert said in refusal(response, 400, "InvalidInput")


def test_large_numbers_and_what_nobody_knows_are_taken(house: House) -> None:
    content = b'{"x": 1' + b"0" * 5000 + b', "y": 1e400, "properties": {"z": ' + deep(50) + b"}}"
    response = house.put(DIGITS, content=content, headers={"content-type": "application/json"})
    assert response.status_code in (200, 201, 400)
    assert response.status_code != 400 or "not JSON" in response.text


def test_a_body_that_is_too_large_is_refused_before_it_is_read(house: House) -> None:
    length = (b"content-length", str(BODY_BYTES_MAX + 1).encode())
    start, body = raw(house, "PUT", DIGITS.encode(), [BEARER, length])
    assert start["status"] == 413
    assert json.loads(body["body"])["error"]["code"] == "RequestEntityTooLarge"


def test_a_body_that_grows_too_large_is_refused(house: House) -> None:
    piece = {"type": "http.request", "body": b" " * (1 << 20), "more_body": True}
    start, _ = raw(house, "PUT", DIGITS.encode(), [BEARER], *[piece] * 5)
    assert start["status"] == 413


def test_a_caller_who_leaves_gets_no_answer(house: House) -> None:
    part = {"type": "http.request", "body": b"{", "more_body": True}
    assert raw(house, "PUT", DIGITS.encode(), [BEARER], part, {"type": "http.disconnect"}) == []


@pytest.mark.parametrize("media", ["text/plain", "application/xml", "multipart/form-data; boundary=x"])
def test_a_body_of_another_type_is_refused(house: House, media: str) -> None:
    response = house.put(DIGITS, content=b"{}", headers={"content-type": media})
    assert "application/json" in refusal(response, 415, "UnsupportedMediaType")


@pytest.mark.parametrize("media", ["application/json; charset=utf-8", "TEXT/JSON", "application/merge-patch+json"])
def test_json_has_many_names(house: House, media: str) -> None:
    response = house.put(DIGITS, content=b'{"properties": {}}', headers={"content-type": media})
    assert response.status_code in (200, 201)


def test_a_compressed_body_is_refused(house: House) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    response = house.put(DIGITS, content=gzip.compress(b"{}"), headers=headers)
    refusal(response, 415, "UnsupportedMediaType")


# Failures.


def test_our_own_bug_is_a_500_whose_cause_only_the_log_has(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.operator.raises = ValueError("a secret")
    try:
        with caplog.at_level(logging.ERROR):
            response = house.get("/status")
    finally:
        house.operator.raises = None
    assert "secret" not in refusal(response, 500, "InternalServerError")
    assert response.headers["x-ms-request-id"] in caplog.text
    assert "a secret" in caplog.text


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (StoreBusy("the database is locked"), 503, "ServiceUnavailable"),
        (VersionConflict("it has version 7 now", 7), 409, "Conflict"),
    ],
)
def test_a_store_that_is_away_may_be_asked_again(
    house: House, monkeypatch: pytest.MonkeyPatch, raised: Exception, status: int, code: str
) -> None:
    async def broken(_: Any) -> Any:
        raise raised

    monkeypatch.setattr(house.store, "read", broken)
    response = house.get(f"{WORKSPACE}/onlineEndpoints")
    refusal(response, status, code)
    assert ("retry-after" in response.headers) == (status == 503)


def test_a_request_that_is_cancelled_is_no_failure_of_ours(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def cancelled(_: Any) -> Any:
        raise asyncio.CancelledError

    monkeypatch.setattr(house.store, "read", cancelled)
    with pytest.raises(asyncio.CancelledError):
        house.get(f"{WORKSPACE}/onlineEndpoints")
    assert caplog.records == []
