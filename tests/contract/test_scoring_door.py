"""The scoring door, as callers see it: one suite for the application in-process and behind the real server.

Whatever a test does, `open_door` checks at its end that no lease, seat or place in a queue is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.credentials import sign_token
from gateway.dataplane.authenticate import Authenticator
from gateway.dataplane.body import declared_length
from gateway.dataplane.live import LiveSnapshot
from gateway.dataplane.score import ScoringOptions
from gateway.errors import Code, Problem
from gateway.snapshot import AuthSpec
from runtimes import BatchLimits
from runtimes.simulated import Behaviour, SimulatedSession
from tests.support.door import BEARER, OTHER_KEY, POISON, WAYS, WIRED, Door, EchoSession, Part, ask, keys, open_door
from tests.support.tokens import LateKeys
from tests.support.waiting import PATIENCE_S
from tests.support.wire import connected, parse, port_of, run, talk

SCORE = "/endpoints/digits/score"
INFER = "/v2/models/digits/infer"
ROWS = {"input_data": [[1, 2], [3, 4]]}
V2_ROWS = {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
MODEL = SimulatedSession(7)
RIGHT = MODEL.answer(np.array([[1, 2], [3, 4]], np.float32)).tolist()


@pytest.fixture(params=WIRED)
def wired(request: pytest.FixtureRequest) -> str:
    """Over a socket: by way of the application's task, or of the lane."""
    way: str = request.param
    return way


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def _nothing_goes_wrong_inside(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No request of a caller is an error in our log."""
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def check_refusal(answer: httpx.Response, status: int, code: str, *, is_v2: bool = False) -> str:
    """The one shape of refusals (V2 has its own); returns the message."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    error = document if is_v2 else document["error"]
    assert error.keys() == (
        {"error", "code", "request_id"} if is_v2 else {"code", "message", "details", "request_id"}
    )
    assert error["code"] == code
    assert error["request_id"] == answer.headers["x-request-id"]
    assert GUID.fullmatch(error["request_id"])
    message: str = error["error"] if is_v2 else error["message"]
    return message


# Answers.


def test_rows_are_scored(way: str) -> None:
    async def main() -> None:
        async with open_door(way) as (door, client):
            answer = await client.post(SCORE, json=ROWS)
            assert (answer.status_code, answer.json()) == (200, RIGHT)
            assert answer.headers["azureml-model-deployment"] == "blue"
            assert answer.headers["content-type"] == "application/json"
            assert GUID.fullmatch(answer.headers["x-request-id"])
            assert answer.headers["x-ms-request-id"] == answer.headers["x-request-id"]
            assert door.codes() == {200: 1}

    run(main())


PATHS = [SCORE, "/Endpoints/DIGITS/Score", "/endpoints/%64igits/score", f"{SCORE}?version=1"]
V2_PATHS = [INFER, "/v2/models/Digits/versions/blue/infer", "/V2/models/digits/infer"]


@pytest.mark.parametrize("path", PATHS + V2_PATHS)
def test_a_scoring_path_is_found_in_every_spelling(path: str, way: str) -> None:
    async def main() -> None:
        async with open_door(way) as (_, client):
            answer = await client.post(path, json=V2_ROWS if path in V2_PATHS else ROWS)
            assert answer.status_code == 200
            assert answer.json() == RIGHT or answer.json()["outputs"][0]["data"] == RIGHT

    run(main())


@pytest.mark.parametrize("host", ["digits.models.example", "Digits.Models.Example:443"])
def test_an_endpoint_is_found_by_its_host_name(host: str, way: str) -> None:
    async def main() -> None:
        async with open_door(way) as (_, client):
            assert (await client.post("/score", json=ROWS, headers={"host": host})).status_code == 200
            assert (await client.get("/", headers={"host": host})).text == "Healthy"
            unknown = await client.post("/score", json=ROWS, headers={"host": "other.models.example"})
            check_refusal(unknown, 404, "not_found")

    run(main())


def test_requests_that_come_together_share_batches_and_get_their_own_rows(way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts={"blue": Part(is_held=True)}) as (door, client):
            rows = [[[float(n), 2.0], [float(n), 3.0]] for n in range(1, 21)]
            sent = [asyncio.ensure_future(client.post(SCORE, json={"data": pair})) for pair in rows]
            await door.until(lambda: door.pending() == 20)
            door.pools["blue"].release()
            answers = [(await one).json() for one in sent]
            assert answers == [MODEL.answer(np.array(pair, np.float32)).tolist() for pair in rows]
            assert len(door.pools["blue"].ran) <= 3

    run(main())


def test_a_poisoned_row_fails_alone(way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts={"blue": Part(is_held=True)}) as (door, client):
            rows = [[[float(n), 1.0]] for n in range(1, 9)]
            rows[5][0][0] = POISON
            sent = [asyncio.ensure_future(client.post(SCORE, json={"data": row})) for row in rows]
            await door.until(lambda: door.pending() == 8)
            door.pools["blue"].release()
            answers = [await one for one in sent]
            assert [answer.status_code for answer in answers] == [424 if n == 5 else 200 for n in range(8)]
            for row, answer in zip(rows, answers, strict=True):
                if answer.status_code == 200:
                    assert answer.json() == MODEL.answer(np.array(row, np.float32)).tolist()

    run(main())


# Every status, with its headers.

TOKEN_SECRET = b"s" * 32
TOKENS = AuthSpec(mode="aml_token", token_secret=TOKEN_SECRET)
LONG_AGO_S = 1_000_000_000.0
CENTURY_S = 3_200_000_000


@pytest.mark.parametrize(
    "authorization",
    [
        *(None, "", "Bearer", "Bearer wrong", f"Basic {BEARER[7:]}", BEARER[7:], f"Bearer {BEARER}"),
        *(f"{BEARER}x", BEARER[:-1], f"Bearer {'x' * 8000}", "Bearer \xe9", f"Bearer\t{BEARER[7:]}"),
    ],
)
def test_401_is_one_answer_for_every_bad_credential(authorization: str | None, way: str) -> None:
    async def main() -> None:
        async with open_door(way) as (door, client):
            headers = {} if authorization is None else {b"authorization": authorization.encode("latin-1")}
            del client.headers["authorization"]
            for path, is_v2 in ((SCORE, False), (INFER, True), ("/v2/models/digits", True)):
                method = "GET" if path.endswith("digits") else "POST"
                answer = await client.request(method, path, content=b"{}", headers=headers)
                message = check_refusal(answer, 401, "unauthenticated", is_v2=is_v2)
                assert "Authorization: Bearer" in message
                assert answer.headers["www-authenticate"] == "Bearer"
                assert "azureml-model-deployment" not in answer.headers
            assert door.codes() == {}

    run(main())


@pytest.mark.parametrize("authorization", [BEARER, f"Bearer {OTHER_KEY}", BEARER.replace("Bearer", "bEARER")])
def test_both_keys_open_the_door(authorization: str, way: str) -> None:
    async def main() -> None:
        async with open_door(way) as (_, client):
            answer = await client.post(SCORE, json=ROWS, headers={"authorization": authorization})
            assert answer.status_code == 200

    run(main())


@pytest.mark.parametrize(("blanks", "status"), [(b" ", 200), (b"\t ", 200), (b"\x0b", 400), (b"\xa0", 401)])
def test_blanks_after_a_key_do_not_belong_to_it(blanks: bytes, status: int, wired: str) -> None:
    body = orjson.dumps(ROWS)
    lines = [b"POST /endpoints/digits/score HTTP/1.1", b"Host: a", b"Connection: close"]
    lines += [b"Content-Length: %d" % len(body), b"Authorization: " + BEARER.encode() + blanks]

    async def main() -> None:
        async with open_door(wired) as (door, _):
            (answer,) = parse(await talk(port_of_door(door), b"\r\n".join([*lines, b"", body])))
            assert answer.status == status

    run(main())


def test_403_is_for_a_token_of_another_endpoint(way: str) -> None:
    def headers(name: str, issued_s: float, lifetime_s: int) -> dict[str, str]:
        token = sign_token(name, TOKEN_SECRET, lifetime_s, issued_s).access_token
        return {"authorization": f"Bearer {token}"}

    async def main() -> None:
        async with open_door(way, auth=TOKENS) as (_, client):
            for name in ("Digits", "Other"):
                expired = await client.post(SCORE, json=ROWS, headers=headers(name, LONG_AGO_S, 60))
                check_refusal(expired, 401, "unauthenticated")
            good = await client.post(SCORE, json=ROWS, headers=headers("Digits", LONG_AGO_S, CENTURY_S))
            assert good.status_code == 200
            other = await client.post(SCORE, json=ROWS, headers=headers("Other", LONG_AGO_S, CENTURY_S))
            check_refusal(other, 403, "forbidden")

    run(main())


def test_404_names_what_was_asked_for_and_what_there_is(way: str) -> None:
    async def main() -> None:
        async with open_door(way, traffic={}) as (_, client):
            assert "'nope'" in check_refusal(await client.post("/endpoints/nope/score"), 404, "not_found")
            assert "'nope'" in check_refusal(await client.post("/v2/models/nope/infer"), 404, "not_found", is_v2=True)
            unknown = await client.post(SCORE, json=ROWS, headers={"azureml-model-deployment": "green"})
            assert "'green'; it has: blue" in check_refusal(unknown, 404, "not_found")
            assert "no deployment with traffic" in check_refusal(
                await client.post(SCORE, json=ROWS), 404, "not_found"
            )
            named = await client.post(SCORE, json=ROWS, headers={"azureml-model-deployment": "BLUE"})
            assert named.status_code == 200

    run(main())


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_405_says_which_method_is_allowed(method: str, way: str) -> None:
    async def main() -> None:
        async with open_door(way) as (_, client):
            for path, is_v2 in ((SCORE, False), (INFER, True)):
                answer = await client.request(method, path)
                assert answer.headers["allow"] == "POST"
                assert answer.status_code == 405
                # In-process nothing takes the body from the answer to HEAD; a server must.
                if method != "HEAD":
                    assert method in check_refusal(answer, 405, "method_not_allowed", is_v2=is_v2)
                elif way != "asgi":
                    assert answer.content == b""

    run(main())


def test_408_is_for_a_model_that_takes_too_long(way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts={"blue": Part(is_held=True, timeout_ms=30)}) as (door, client):
            answer = await client.post(SCORE, json=ROWS)
            check_refusal(answer, 408, "deadline_exceeded")
            assert answer.headers["azureml-model-deployment"] == "blue"
            door.pools["blue"].release()
            assert door.pools["blue"].ran == []

    run(main())


def test_408_can_be_504_as_on_kubernetes(way: str) -> None:
    async def main() -> None:
        parts = {"blue": Part(is_held=True, timeout_ms=30)}
        async with open_door(way, parts=parts, options=ScoringOptions(timeout_status=504)) as (_, client):
            check_refusal(await client.post(SCORE, json=ROWS), 504, "deadline_exceeded")

    run(main())


@pytest.mark.parametrize(("asked_ms", "limit_ms"), [(30, 300_000), (300_000, 30), (0, 300_000)])
def test_the_shorter_of_two_timeouts_wins(asked_ms: int, limit_ms: int, way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts={"blue": Part(is_held=True, timeout_ms=limit_ms)}) as (door, client):
            async with asyncio.timeout(PATIENCE_S):
                answer = await client.post(SCORE, json=ROWS, headers={"x-request-timeout-ms": str(asked_ms)})
            check_refusal(answer, 408, "deadline_exceeded")
            door.pools["blue"].release()
            assert door.pools["blue"].ran == []

    run(main())


def test_413_comes_before_the_body_where_its_size_is_declared(way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts={"blue": Part(body_bytes_max=100)}) as (_, client):
            message = check_refusal(await client.post(SCORE, content=b"x" * 101), 413, "payload_too_large")
            assert "101 bytes; at most 100" in message
            assert (await client.post(SCORE, json=ROWS)).status_code == 200

    run(main())


def test_413_is_also_for_a_body_that_grows(way: str) -> None:
    async def chunks() -> Any:
        for _ in range(300):
            yield b"x" * 1000

    async def main() -> None:
        async with open_door(way) as (_, client):
            check_refusal(await client.post(SCORE, content=chunks()), 413, "payload_too_large")
            assert (await client.post(SCORE, json=ROWS)).status_code == 200

    run(main())


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate", "gzip, gzip", ""])
def test_415_is_for_an_encoding_that_is_not_enabled(encoding: str, way: str) -> None:
    async def main() -> None:
        async with open_door(way) as (_, client):
            answer = await client.post(SCORE, content=b"{}", headers={"content-encoding": encoding})
            assert "send identity" in check_refusal(answer, 415, "unsupported_media_type")

    run(main())


def test_415_is_also_for_a_media_type_that_is_neither_json_nor_bytes(way: str) -> None:
    async def main() -> None:
        async with open_door(way) as (_, client):
            answer = await client.post(SCORE, content=b"{}", headers={"content-type": "image/png"})
            assert "'image/png'" in check_refusal(answer, 415, "unsupported_media_type")

    run(main())


@pytest.mark.parametrize(("path", "body"), [(SCORE, ROWS), (INFER, V2_ROWS)])
def test_424_says_that_the_model_failed(path: str, body: Any, way: str) -> None:
    async def main() -> None:
        poisoned = orjson.loads(orjson.dumps(body).replace(b"1", str(POISON).encode(), 1))
        async with open_door(way) as (_, client):
            answer = await client.post(path, json=poisoned)
            check_refusal(answer, 424, "model_failed", is_v2=path == INFER)
            assert answer.headers["ms-azureml-model-error-statuscode"] == "500"
            assert answer.headers["ms-azureml-model-error-reason"] == "model_failed"
            assert answer.headers["azureml-model-deployment"] == "blue"

    run(main())


FULL = {
    "pending": Part(is_held=True, pending_max=2),
    "queue": Part(is_held=True, limits=BatchLimits(queue_items_max=1, batch_rows_max=2)),
}


@pytest.mark.parametrize("part", FULL.values(), ids=FULL.keys())
def test_429_is_for_more_than_may_wait(part: Part, way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts={"blue": part}) as (door, client):
            waiting = [asyncio.ensure_future(client.post(SCORE, json=ROWS))]
            await door.until(lambda: door.pending() == 1)
            await asyncio.sleep(0)
            waiting.append(asyncio.ensure_future(client.post(SCORE, json=ROWS)))
            await door.until(lambda: door.pending() == 2)
            answer = await client.post(SCORE, json=ROWS)
            check_refusal(answer, 429, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
            door.pools["blue"].release()
            assert [(await one).status_code for one in waiting] == [200, 200]
            assert (await client.post(SCORE, json=ROWS)).status_code == 200

    run(main())


def test_429_is_for_a_wait_that_is_too_long(way: str) -> None:
    async def main() -> None:
        part = Part(is_held=True, queue_wait_ms=30, limits=BatchLimits(batch_rows_max=2))
        async with open_door(way, parts={"blue": part}) as (door, client):
            answers = await asyncio.gather(client.post(SCORE, json=ROWS), client.post(SCORE, json=ROWS))
            for answer in answers:
                check_refusal(answer, 429, "overloaded")
                assert int(answer.headers["retry-after"]) >= 1
            door.pools["blue"].release()
            assert door.pools["blue"].ran == []

    run(main())


def test_503_is_for_a_deployment_that_failed_to_load_or_drains(way: str) -> None:
    async def main() -> None:
        async with open_door(way, failed={"green": "no such file"}) as (door, client):
            failed = await client.post(SCORE, json=ROWS, headers={"azureml-model-deployment": "green"})
            assert "no such file" in check_refusal(failed, 503, "unavailable")
            assert int(failed.headers["retry-after"]) >= 1
            door.deployments["blue"].live.runtime.drain(lambda: None)
            draining = await client.post(SCORE, json=ROWS)
            check_refusal(draining, 503, "unavailable")
            assert int(draining.headers["retry-after"]) >= 1

    run(main())


@pytest.mark.parametrize(
    "name",
    [
        *("authorization", "azureml-model-deployment", "content-type", "content-encoding"),
        *("inference-header-content-length", "x-request-timeout-ms"),
    ],
)
def test_a_header_that_decides_may_be_said_once_only(name: str, way: str) -> None:
    async def main() -> None:
        async with open_door(way) as (_, client):
            answer = await client.post(
                SCORE, json=ROWS, headers=[(name, "1"), (name, "2"), ("authorization", BEARER)]
            )
            assert f"header {name} is given more than once" in check_refusal(answer, 400, "invalid_input")
            other = [("accept", "text/html"), ("accept", "application/json")]
            assert (await client.post(SCORE, json=ROWS, headers=other)).status_code == 200

    run(main())


BUGS = {
    "before the body": "gateway.dataplane.head.declared_length",
    "with the body": "gateway.dataplane.score.decode_score",
    "with the answer": "gateway.dataplane.codecs.azureml.AzureCall.encode",
}


@pytest.mark.parametrize("where", BUGS.values(), ids=BUGS.keys())
def test_500_is_for_our_own_bugs_and_tells_nothing_but_an_id(
    where: str, way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret")

    async def main() -> None:
        async with open_door(way) as (_, client):
            with monkeypatch.context() as patched:
                patched.setattr(where, broken)
                answer = await client.post(SCORE, json=ROWS)
            assert "secret" not in check_refusal(answer, 500, "internal")
            assert (await client.post(SCORE, json=ROWS)).json() == RIGHT

    run(main())
    assert "a secret" in caplog.text
    caplog.clear()


def test_an_answer_that_cannot_be_written_is_a_refusal(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise Problem(Code.INVALID_INPUT, "no such form of answer")

    async def main() -> None:
        async with open_door(way) as (_, client):
            monkeypatch.setattr("gateway.dataplane.codecs.azureml.AzureCall.encode", refused)
            check_refusal(await client.post(SCORE, json=ROWS), 400, "invalid_input")

    run(main())


def test_a_token_whose_key_is_not_known_yet_waits_for_the_keys(way: str) -> None:
    async def main() -> None:
        async with open_door(way) as (door, client):
            late = LateKeys()
            door.endpoint.authenticator = late.authenticator("Digits")
            assert (await client.post(SCORE, json=ROWS)).json() == RIGHT
            assert (await client.post(SCORE, json=ROWS)).json() == RIGHT
            assert late.asked.count("refresh") == 1

    run(main())


def test_what_a_connection_sent_before_opens_nothing_once_the_keys_have_changed(wired: str) -> None:
    other = AuthSpec(mode="key", key_digests=(sha256(b"quite-another-key").digest(),))

    async def main() -> None:
        async with open_door(wired) as (door, client):
            for _ in range(3):
                assert (await client.post(SCORE, json=ROWS)).json() == RIGHT
            door.endpoint.authenticator = Authenticator(other, "Digits")
            check_refusal(await client.post(SCORE, json=ROWS), 401, "unauthenticated")
            door.endpoint.authenticator = Authenticator(keys(), "Digits")
            assert (await client.post(SCORE, json=ROWS)).json() == RIGHT
            door.cell.publish(LiveSnapshot(revision=2, endpoints={}, targets={}))
            check_refusal(await client.post(SCORE, json=ROWS), 404, "not_found")
            assert door.server is not None
            assert door.server.edge.total_requests == 6

    run(main())


def test_without_a_domain_there_is_no_routing_by_host_name(way: str) -> None:
    async def main() -> None:
        async with open_door(way, domain="") as (_, client):
            answer = await client.post("/score", json=ROWS, headers={"host": "digits.models.example"})
            check_refusal(answer, 404, "not_found")

    run(main())


# Before the body, and without it.


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"Authorization: Bearer wrong", 401),
        (b"Authorization: " + BEARER.encode() + b"\r\nazureml-model-deployment: nope", 404),
        (b"Authorization: " + BEARER.encode() + b"\r\nContent-Encoding: br", 415),
        (b"Authorization: " + BEARER.encode() + b"\r\nx-request-timeout-ms: soon", 400),
    ],
)
@pytest.mark.parametrize("size", [b"Content-Length: 90000", b"Transfer-Encoding: chunked"])
def test_what_the_head_decides_is_answered_though_the_body_never_comes(
    lines: bytes, status: int, size: bytes, wired: str
) -> None:
    async def main() -> None:
        async with open_door(wired) as (door, _), connected(port_of_door(door)) as peer:
            await peer.send(
                b"POST /endpoints/digits/score HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n" + size + b"\r\n\r\n"
            )
            assert (await peer.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 %d" % status)

    run(main())


def test_the_application_does_not_ask_for_a_body_before_it_knows_the_caller() -> None:
    async def never() -> Any:
        raise AssertionError("the body was asked for")

    async def main() -> None:
        async with open_door("asgi") as (door, _):
            for headers in ([], [(b"authorization", b"Bearer wrong")]):
                answer = await ask(door.app, SCORE, headers, b"", receive=never)
                assert answer.status == 401

    run(main())


def port_of_door(door: Door) -> int:
    assert door.server is not None
    return port_of(door.server)


def test_a_body_that_does_not_arrive_in_time_is_408_and_the_connection_goes_on(wired: str) -> None:
    head = b"POST /endpoints/digits/score HTTP/1.1\r\nHost: a\r\nAuthorization: " + BEARER.encode()
    body = orjson.dumps(ROWS)

    async def main() -> None:
        async with open_door(wired) as (door, _), connected(port_of_door(door)) as peer:
            await peer.send(head + b"\r\nx-request-timeout-ms: 40\r\nContent-Length: 100\r\n\r\n" + body)
            first = await peer.read_until(b"}}")
            await peer.send(b" " * (100 - len(body)))
            await peer.send(head + b"\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            answers = parse(first + await peer.read_all())
            assert [answer.status for answer in answers] == [408, 200]
            assert answers[0].headers["azureml-model-deployment"] == "blue"
            assert door.codes() == {408: 1, 200: 1}

    run(main())


def test_requests_are_answered_on_one_connection_in_order(wired: str) -> None:
    body = orjson.dumps(ROWS)
    head = b"POST /endpoints/digits/score HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n" % len(body)
    good = head + b"Authorization: " + BEARER.encode() + b"\r\n\r\n" + body
    bad = head + b"\r\n" + body
    last = good.replace(b"Host: a", b"Host: a\r\nConnection: close")

    async def main() -> None:
        async with open_door(wired) as (door, _):
            answers = parse(await talk(port_of_door(door), good + bad + good + last))
            assert [answer.status for answer in answers] == [200, 401, 200, 200]

    run(main())


# Callers that leave.


async def _send_and_leave(door: Door, client: httpx.AsyncClient, way: str, how: str) -> None:
    """Send a request, wait until it is queued, and go away."""
    if way != "asgi":
        body = orjson.dumps(ROWS)
        head = b"POST /endpoints/digits/score HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nAuthorization: " % len(
            body
        )
        async with connected(port_of_door(door)) as peer:
            await peer.send(head + BEARER.encode() + b"\r\n\r\n" + body)
            await door.until(lambda: door.pending() == 1)
            if how == "resets":
                peer.cut()
            elif how == "half-closes":
                peer.half_close()
            else:
                await peer.close()
            await door.until(lambda: door.pending() == 0)
        return
    if how == "closes":
        sent = asyncio.ensure_future(client.post(SCORE, json=ROWS))
        await door.until(lambda: door.pending() == 1)
        sent.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sent
        return
    messages = [{"type": "http.request", "body": orjson.dumps(ROWS)}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await door.until(lambda: door.pending() == 1)
        return {"type": "http.disconnect"}

    sent_messages: list[Any] = []

    async def send(message: Any) -> None:
        sent_messages.append(message)

    headers = [(b"authorization", BEARER.encode())]
    await door.app({"type": "http", "method": "POST", "path": SCORE, "headers": headers}, receive, send)
    assert sent_messages == []


@pytest.mark.parametrize("how", ["closes", "resets", "half-closes"])
def test_work_of_a_caller_that_left_is_never_run(how: str, way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts={"blue": Part(is_held=True, pending_max=1)}) as (door, client):
            await _send_and_leave(door, client, way, how)
            assert not any(door.held().values())
            door.pools["blue"].release()
            await asyncio.sleep(0)
            assert door.pools["blue"].ran == []
            counted = door.counted().snapshot()
            assert (counted.hung_up, counted.cancelled, counted.codes) == (1, 1, {})
            # Its seat was the only one.
            assert (await client.post(SCORE, json=ROWS)).status_code == 200

    run(main())


def test_a_caller_that_leaves_in_the_middle_of_the_body_holds_nothing(wired: str) -> None:
    head = (
        b"POST /endpoints/digits/score HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\nAuthorization: "
        + BEARER.encode()
    )

    async def main() -> None:
        async with open_door(wired) as (door, _):
            async with connected(port_of_door(door)) as peer:
                await peer.send(head + b"\r\n\r\n{")
                await door.until(lambda: door.held()["blue leases"] == 1)
            await door.until(lambda: door.held()["blue leases"] == 0)
            assert door.counted().snapshot().hung_up == 1

        async def gone() -> Any:
            return {"type": "http.disconnect"}

        async with open_door("asgi") as (door, _):
            headers = [(b"authorization", BEARER.encode())]
            scope = {"type": "http", "method": "POST", "path": SCORE, "headers": headers}
            await door.app(scope, gone, gone)  # type: ignore[arg-type]
            assert door.counted().snapshot().hung_up == 1

    run(main())


@pytest.mark.parametrize("pipelined", [1, 3])
def test_a_connection_that_is_lost_before_its_requests_are_scored_scores_none(pipelined: int, wired: str) -> None:
    body = orjson.dumps(ROWS)
    head = b"POST /endpoints/digits/score HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nAuthorization: " % len(body)

    async def main() -> None:
        async with open_door(wired) as (door, _):
            assert door.server is not None
            async with connected(port_of_door(door)) as peer:
                await door.until(lambda: door.server is not None and door.server.connections == 1)
                (connection,) = door.server.edge.connections
                # Bytes and the end of the connection come in one turn of the loop.
                connection.data_received((head + BEARER.encode() + b"\r\n\r\n" + body) * pipelined)
                connection.transport.abort()
                await peer.read_all()
                await door.until(lambda: door.server is not None and not door.server.edge.tasks)
            assert door.pools["blue"].ran == []
            assert door.counted().snapshot().hung_up == 1

    run(main())


# Gzip.


def test_gzip_goes_in_and_out_where_it_is_enabled(way: str) -> None:
    async def main() -> None:
        async with open_door(way, options=ScoringOptions(gzip=True)) as (_, client):
            headers = {"content-encoding": "gzip", "accept-encoding": "gzip"}
            small = await client.post(SCORE, content=gzip.compress(orjson.dumps(ROWS)), headers=headers)
            assert (small.json(), "content-encoding" in small.headers) == (RIGHT, False)
            many = {"data": [[n, 2] for n in range(1000)]}
            large = await client.post(SCORE, content=gzip.compress(orjson.dumps(many)), headers=headers)
            plain = await client.post(SCORE, json=many, headers={"accept-encoding": "identity"})
            assert (large.headers["content-encoding"], plain.headers.get("content-encoding")) == ("gzip", None)
            assert large.json() == plain.json()
            assert int(large.headers["content-length"]) < int(plain.headers["content-length"])

    run(main())


ONCE = gzip.compress(orjson.dumps(ROWS))
BAD_GZIP = {
    "truncated": (ONCE[:-9], "gzip", 400, "truncated"),
    "without its checksum": (ONCE[:-1], "gzip", 400, "truncated"),
    "of another checksum": (ONCE[:-8] + b"xxxx" + ONCE[-4:], "gzip", 400, "not gzip"),
    "empty": (b"", "gzip", 400, "truncated"),
    "not gzip": (orjson.dumps(ROWS), "gzip", 400, "not gzip"),
    "with bytes after it": (ONCE + b"x", "gzip", 400, "after its end"),
    "two in a row": (ONCE + ONCE, "gzip", 400, "after its end"),
    "gzip in gzip": (gzip.compress(ONCE), "gzip", 400, "not JSON"),
    "said twice": (gzip.compress(ONCE), "gzip, gzip", 415, "gzip or identity"),
    "zstd": (ONCE, "zstd", 415, "gzip or identity"),
    "a bomb": (gzip.compress(bytes(10_000_000)), "gzip", 413, "100000 bytes"),
    "a small bomb": (gzip.compress(b" " * 99_000_000), "gzip", 413, "at most 100000 bytes"),
}


@pytest.mark.parametrize(("body", "encoding", "status", "text"), BAD_GZIP.values(), ids=BAD_GZIP.keys())
def test_bad_gzip_is_refused_with_the_reason(body: bytes, encoding: str, status: int, text: str, way: str) -> None:
    async def main() -> None:
        async with open_door(way, options=ScoringOptions(gzip=True)) as (_, client):
            answer = await client.post(SCORE, content=body, headers={"content-encoding": encoding})
            codes = {400: "invalid_input", 413: "payload_too_large", 415: "unsupported_media_type"}
            assert text in check_refusal(answer, status, codes[status])
            assert (await client.post(SCORE, content=ONCE, headers={"content-encoding": "x-gzip"})).json() == RIGHT

    run(main())


def test_a_bomb_within_the_limit_is_refused_for_its_ratio(way: str) -> None:
    async def main() -> None:
        parts = {"blue": Part(body_bytes_max=10_000_000)}
        async with open_door(way, parts=parts, options=ScoringOptions(gzip=True)) as (_, client):
            bomb = gzip.compress(b" " * 9_000_000)
            answer = await client.post(SCORE, content=bomb, headers={"content-encoding": "gzip"})
            assert "more than 100 times" in check_refusal(answer, 413, "payload_too_large")

    run(main())


# Ids.


@pytest.mark.parametrize(
    ("given_id", "echoed"),
    [
        ("abc-DEF_123", "abc-DEF_123"),
        ("a b;c\td", "abcd"),
        ("x" * 90, "x" * 40),
        ("é<script>", "script"),
        ("!?", None),
    ],
)
def test_the_callers_id_is_cleaned_and_echoed(given_id: str, echoed: str | None, way: str) -> None:
    async def main() -> None:
        async with open_door(way) as (_, client):
            headers = {b"x-ms-client-request-id": given_id.encode("latin-1")}
            for answer in (
                await client.post(SCORE, json=ROWS, headers=headers),
                await client.post(SCORE, json={"data": [[POISON]]}, headers=headers),
                await client.post(SCORE, json={}, headers=headers),
            ):
                assert answer.headers.get("x-ms-client-request-id") == echoed
                assert answer.headers["x-ms-request-id"] == (echoed or answer.headers["x-request-id"])
                assert GUID.fullmatch(answer.headers["x-request-id"])

    run(main())


def test_an_id_that_is_a_guid_is_kept_and_any_other_is_not(way: str) -> None:
    async def main() -> None:
        async with open_door(way) as (_, client):
            guid = "12345678-1234-4234-8234-123456789abc"
            for body in (ROWS, {}):
                kept = await client.post(SCORE, json=body, headers={"x-request-id": guid})
                assert kept.headers["x-request-id"] == guid
                other = await client.post(SCORE, json=body, headers={"x-request-id": guid[:-1] + "x"})
                assert GUID.fullmatch(other.headers["x-request-id"])

    run(main())


@pytest.mark.parametrize("name", ["x-request-id", "x-ms-request-id", "x-ms-client-request-id"])
def test_431_is_for_an_id_that_is_too_long(name: str, way: str) -> None:
    async def main() -> None:
        async with open_door(way) as (_, client):
            answer = await client.post(SCORE, json=ROWS, headers={name: "x" * 101})
            assert f"{name} has 101 characters" in check_refusal(answer, 431, "headers_too_large")

    run(main())


def test_a_trace_is_echoed_where_it_is_one(way: str) -> None:
    async def main() -> None:
        async with open_door(way) as (_, client):
            trace = f"00-{'a' * 32}-{'b' * 16}-01"
            good = await client.post(SCORE, json=ROWS, headers={"traceparent": trace, "traceid": "a b"})
            assert (good.headers["traceparent"], good.headers["traceid"]) == (trace, "ab")
            bad = await client.post(SCORE, json=ROWS, headers={"traceparent": f"{trace}x"})
            assert "traceparent" not in bad.headers

    run(main())


def test_every_answer_has_an_id_of_its_own(way: str) -> None:
    async def main() -> None:
        async with open_door(way) as (_, client):
            answers = [await client.post(SCORE, json=ROWS if n % 2 else {}) for n in range(10)]
            assert len({answer.headers["x-request-id"] for answer in answers}) == 10

    run(main())


# Weights and copies.

TWO = {"blue": Part(), "green": Part()}


def test_any_hundred_requests_are_shared_out_exactly(way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts=TWO, traffic={"blue": 90, "green": 10}) as (_, client):
            names = [(await client.post(SCORE, json=ROWS)).headers["azureml-model-deployment"] for _ in range(130)]
            for start in (0, 7, 30):
                assert names[start : start + 100].count("green") == 10

    run(main())


def test_a_copy_of_exactly_the_share_goes_to_the_mirror(way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts=TWO, mirror={"green": 10}) as (door, client):
            for _ in range(100):
                answer = await client.post(SCORE, json=ROWS)
                assert answer.headers["azureml-model-deployment"] == "blue"
            await door.until(lambda: door.counted("green").snapshot().mirrored["answered"] == 10)
            assert len(door.pools["green"].ran) == 10
            assert door.codes("green") == {}

    run(main())


def test_requests_for_a_named_deployment_are_never_copied(way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts=TWO, mirror={"green": 50}) as (door, client):
            for _ in range(10):
                await client.post(SCORE, json=ROWS, headers={"azureml-model-deployment": "blue"})
            assert door.pools["green"].ran == []

    run(main())


BAD_MIRRORS = {
    "fails": (
        Part(session=lambda: SimulatedSession(7, Behaviour(poison=1.0))),
        {"answered": 0, "dropped": 0, "failed": 20},
    ),
    "hangs": (Part(is_held=True), {"answered": 0, "dropped": 17, "failed": 0}),
    "is full": (Part(is_held=True, pending_max=1), {"answered": 0, "dropped": 19, "failed": 0}),
    "has another signature": (Part(session=EchoSession), {"answered": 0, "dropped": 0, "failed": 20}),
    "is too slow": (Part(is_held=True, timeout_ms=0), {"answered": 0, "dropped": 20, "failed": 0}),
}


@pytest.mark.parametrize(("part", "outcomes"), BAD_MIRRORS.values(), ids=BAD_MIRRORS.keys())
def test_no_caller_notices_a_bad_mirror(part: Part, outcomes: dict[str, int], way: str) -> None:
    async def main() -> None:
        options = ScoringOptions(mirror_in_flight_max=3)
        parts = {"blue": Part(), "green": part}
        async with open_door(way, parts=parts, mirror={"green": 50}, options=options) as (door, client):
            for _ in range(40):
                answer = await client.post(SCORE, json=ROWS)
                assert (answer.status_code, answer.json()) == (200, RIGHT)
                await asyncio.sleep(0)
            await door.until(lambda: door.counted("green").snapshot().mirrored == outcomes)
            assert door.codes("blue") == {200: 40}

    run(main())


# Bad input: what was found is named.

TYPED = {"blue": Part(session=EchoSession)}


def azure(ids: bytes = b"[1]", x: bytes = b"[[1,2,3]]") -> bytes:
    return b'{"input_data":{"ids":%s,"x":%s}}' % (ids, x)


def v2(ids: bytes = b'"shape":[1],"datatype":"INT64","data":[1]', x: bytes = b"") -> bytes:
    x = x or b'"shape":[1,3],"datatype":"FP32","data":[1,2,3]'
    return b'{"inputs":[{"name":"ids",%s},{"name":"x",%s}]}' % (ids, x)


def binary(size: int, tail: bytes) -> tuple[bytes, dict[str, str]]:
    x = b'"shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":%d}' % size
    head = v2(x=x)
    return head + tail, {"inference-header-content-length": str(len(head))}


BAD_INPUT: dict[str, tuple[str, bytes, dict[str, str], str]] = {
    "nothing": (SCORE, b"", {}, "not JSON"),
    "half a document": (SCORE, b'{"input_data": [[1', {}, "not JSON"),
    "two documents": (SCORE, azure() + azure(), {}, "not JSON"),
    "Latin-1": (SCORE, b'{"input_data": "\xe9"}', {}, "not JSON"),
    "a byte order mark": (SCORE, b"\xef\xbb\xbf" + azure(), {}, "not JSON"),
    "a list": (SCORE, b"[[1]]", {}, "no object"),
    "no data": (SCORE, b"{}", {}, "no keys"),
    "another key": (SCORE, b'{"rows": [[1]]}', {}, "'rows'"),
    "two kinds of data": (SCORE, b'{"data": [[1]], "input_data": [[1]]}', {}, "both"),
    "an unknown input": (SCORE, b'{"input_data":{"ids":[1],"y":[[1,2,3]]}}', {}, "'y'"),
    "a missing input": (SCORE, b'{"input_data":{"ids":[1]}}', {}, "'x' is missing"),
    "rows without names": (SCORE, b'{"input_data":[[1,2,3]]}', {}, "2 inputs"),
    "a text for a number": (SCORE, azure(x=b'[[1,"2",3]]'), {}, '"2" at [0][1]'),
    "true for a number": (SCORE, azure(x=b"[[1,true,3]]"), {}, "true at [0][1]"),
    "null": (SCORE, azure(x=b"[[1,null,3]]"), {}, "null at [0][1]"),
    "an object": (SCORE, azure(x=b"[[1,{},3]]"), {}, "an object at [0][1]"),
    "a fraction for a whole number": (SCORE, azure(ids=b"[1.5]"), {}, "1.5 at [0]"),
    "2^64": (SCORE, azure(ids=b"[18446744073709551616]"), {}, "[0]; INT64 takes whole numbers"),
    "2^63": (SCORE, azure(ids=b"[9223372036854775808]"), {}, "9223372036854775808 at [0]"),
    "more than a float holds": (SCORE, azure(x=b"[[1,1e39,3]]"), {}, "at [0][1]; FP32 takes"),
    "more than a double holds": (SCORE, azure(x=b"[[1,1e999,3]]"), {}, "not JSON"),
    "NaN": (SCORE, azure(x=b"[[1,NaN,3]]"), {}, "not JSON"),
    "Infinity": (SCORE, azure(x=b"[[1,-Infinity,3]]"), {}, "not JSON"),
    "ragged rows": (SCORE, azure(x=b"[[1,2,3],[1,2]]"), {}, "ragged"),
    "rows of another depth": (SCORE, azure(x=b"[[1,2,3],4]"), {}, "ragged"),
    "too many columns": (SCORE, azure(x=b"[[1,2,3,4]]"), {}, "shape [1, 4]"),
    "too few dimensions": (SCORE, azure(x=b"[1,2,3]"), {}, "shape [3]"),
    "rows that differ in number": (SCORE, azure(ids=b"[1,2]"), {}, "rows"),
    "one name twice": (SCORE, b'{"input_data":{"ids":[1],"ids":[2],"x":[[1,2,3]]}}', {}, "'ids' twice"),
    "one key twice": (SCORE, b'{"data":[[1]],"data":[[2]]}', {}, "'data' twice"),
    "70 levels": (SCORE, azure(x=b"[" * 70 + b"]" * 70), {}, "nests more than 64"),
    "100,000 levels": (SCORE, b"[" * 99_000, {}, "not JSON"),
    "a binary length for JSON": (SCORE, azure(), {"inference-header-content-length": "5"}, "not JSON"),
    "no inputs": (INFER, b"{}", {}, '"inputs"'),
    "inputs that are no list": (INFER, b'{"inputs": {}}', {}, '"inputs"'),
    "another datatype": (INFER, v2(ids=b'"shape":[1],"datatype":"INT32","data":[1]'), {}, "INT32"),
    "no such datatype": (INFER, v2(ids=b'"shape":[1],"datatype":"INT65","data":[1]'), {}, "INT65"),
    "another shape": (INFER, v2(x=b'"shape":[1,4],"datatype":"FP32","data":[1,2,3,4]'), {}, "[1, 4]"),
    "a negative shape": (INFER, v2(ids=b'"shape":[-1],"datatype":"INT64","data":[1]'), {}, "-1"),
    "more data than shape": (INFER, v2(ids=b'"shape":[1],"datatype":"INT64","data":[1,2]'), {}, "2"),
    "a huge shape": (INFER, v2(ids=b'"shape":[1099511627776],"datatype":"INT64","data":[1]'), {}, "1099511627776"),
    "no data in V2": (INFER, v2(ids=b'"shape":[1],"datatype":"INT64"'), {}, "data"),
    "one input twice": (INFER, v2().replace(b'"x"', b'"ids"'), {}, "ids"),
    "an unknown output": (INFER, v2()[:-1] + b',"outputs":[{"name":"z"}]}', {}, "'z'"),
    "a timeout of text": (INFER, v2()[:-1] + b',"parameters":{"timeout":"soon"}}', {}, "timeout"),
    "truncated binary": (INFER, *binary(12, b"1234567"), "12"),
    "too much binary": (INFER, *binary(12, b"1" * 13), "1 "),
    "binary of another size": (INFER, *binary(8, b"1" * 8), "8"),
    "NaN in 2^64 rows": (INFER, v2(ids=b'"shape":[1],"datatype":"INT64","data":[18446744073709551616]'), {}, "INT64"),
    "a header longer than the body": (INFER, v2(), {"inference-header-content-length": "9999"}, "9999"),
    "a header of text": (INFER, v2(), {"inference-header-content-length": "all"}, "'all'"),
    "a negative header": (INFER, v2(), {"inference-header-content-length": "-1"}, "'-1'"),
    "a header beyond numbers": (INFER, v2(), {"inference-header-content-length": "9" * 40}, "9999"),
    "a timeout header of text": (SCORE, azure(), {"x-request-timeout-ms": "1e3"}, "'1e3'"),
    "a raw request for two inputs": (INFER, b"1234", {"inference-header-content-length": "0"}, "2 inputs"),
}


@pytest.mark.parametrize(("path", "body", "headers", "text"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_is_400_and_names_what_was_found(
    path: str, body: bytes, headers: dict[str, str], text: str, way: str
) -> None:
    async def main() -> None:
        async with open_door(way, parts=TYPED) as (door, client):
            answer = await client.post(path, content=body, headers=headers)
            message = check_refusal(answer, 400, "invalid_input", is_v2=path == INFER)
            assert text in message
            assert len(message) < 800
            assert (await client.post(SCORE, content=azure())).status_code == 200
            assert len(door.pools["blue"].ran) == 1

    run(main())


# Both ways are one door.

SAME: list[tuple[str, str, dict[str, str], bytes]] = [
    ("POST", SCORE, {}, orjson.dumps(ROWS)),
    ("POST", SCORE, {"x-ms-client-request-id": "me"}, orjson.dumps(ROWS)),
    ("POST", SCORE, {}, b'{"data": [[-1]]}'),
    ("POST", SCORE, {}, b"{}"),
    ("POST", SCORE, {"authorization": "Bearer no"}, b"{}"),
    ("POST", SCORE, {"azureml-model-deployment": "no"}, b"{}"),
    ("POST", SCORE, {"azureml-model-deployment": "green"}, b"{}"),
    ("POST", SCORE, {"x-request-timeout-ms": "no"}, orjson.dumps(ROWS)),
    ("POST", SCORE, {"content-encoding": "br"}, b"{}"),
    ("POST", SCORE, {}, b"x" * 200_000),
    ("GET", SCORE, {}, b""),
    ("POST", INFER, {}, orjson.dumps(V2_ROWS)),
    ("POST", INFER, {}, orjson.dumps({**V2_ROWS, "outputs": [{"name": "y", "parameters": {"binary_data": True}}]})),
    ("POST", INFER, {}, b"{}"),
    ("GET", INFER, {}, b""),
    ("GET", "/v2", {}, b""),
    ("GET", "/v2/health/ready", {}, b""),
    ("GET", "/v2/models/digits", {}, b""),
    ("GET", "/v2/models/digits/config", {}, b""),
    ("GET", "/v2/models/digits/versions/blue/ready", {}, b""),
    ("GET", "/v2/models/nope", {}, b""),
    ("POST", "/v2/repository/index", {}, b""),
    ("GET", "/endpoints/digits/", {}, b""),
    ("GET", "/nope", {}, b""),
    ("POST", "/endpoints/nope/score", {}, b"{}"),
]


@pytest.mark.parametrize(("method", "path", "headers", "body"), SAME)
def test_all_ways_give_the_same_answer(method: str, path: str, headers: dict[str, str], body: bytes) -> None:
    async def answer(way: str) -> tuple[int, dict[str, str], str]:
        async with open_door(way, failed={"green": "broken"}) as (_, client):
            found = await client.request(method, path, headers=headers, content=body)
            assert found.status_code != 500
            shown = {name: GUID.sub("ID", value) for name, value in found.headers.items() if name != "date"}
            return found.status_code, shown, GUID.sub("ID", found.content.decode("latin-1"))

    async def main() -> None:
        assert await answer("asgi") == await answer("wire") == await answer("lane")

    run(main())


# Whatever they send.

BYTES = st.binary(max_size=60) | st.sampled_from(
    [b"", b"\r\nX: y", b"\x00", "\u2028".encode(), b"9" * 30, b"\xb2", b"-0"]
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        b"azureml-model-deployment": BYTES | st.just(b"blue"),
        b"x-ms-client-request-id": BYTES,
        b"x-request-timeout-ms": BYTES | st.just(b"2000"),
        b"inference-header-content-length": BYTES,
        b"authorization": BYTES | BYTES.map(lambda value: b"Bearer " + value),
        b"content-encoding": BYTES,
        b"content-type": BYTES,
        b"accept-encoding": BYTES,
        b"x-request-id": BYTES,
        b"x-ms-request-id": BYTES,
        b"traceparent": BYTES,
        b"traceid": BYTES,
    },
)
PATHS_AT_ALL = (
    st.sampled_from([SCORE, INFER, "/v2/models/digits/versions/blue/infer"])
    | st.text(max_size=30).map(lambda text: "/" + text)
    | st.text(max_size=20).map(lambda text: f"/v2/models/{text}/infer")
)
KNOWN = re.compile(
    rb"content-type|content-length|content-encoding|x-request-id|x-ms-request-id|x-ms-client-request-id|date|allow"
    rb"|azureml-model-deployment|www-authenticate|retry-after|connection|inference-header-content-length"
    rb"|traceid|x-gateway-nonfinite|ms-azureml-model-error-(statuscode|reason)"
)
PROFILE = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def check_safe(status: int, headers: list[tuple[bytes, bytes]]) -> None:
    assert status < 500
    for name, value in headers:
        assert KNOWN.fullmatch(name), name
        assert re.fullmatch(rb"[\x20-\x7e]*", value), value


@contextlib.contextmanager
def one_door(way: str) -> Iterator[tuple[Door, Callable[[Any], Any]]]:
    """One door for many examples, with a function that runs a coroutine in its loop."""
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        door, _ = runner.run(stack.enter_async_context(open_door(way, options=ScoringOptions(gzip=True))))
        yield door, runner.run
        runner.run(stack.aclose())


@pytest.mark.parametrize("body", [orjson.dumps(ROWS), orjson.dumps(V2_ROWS)], ids=["azure", "v2"])
def test_no_bytes_in_headers_or_path_break_the_application(body: bytes) -> None:
    with one_door("asgi") as (door, in_loop):

        @PROFILE
        @given(path=PATHS_AT_ALL, headers=HEADERS)
        def check(path: str, headers: dict[bytes, bytes]) -> None:
            head = {b"authorization": BEARER.encode(), b"content-length": b"%d" % len(body), **headers}
            path = path.encode("utf-8", "replace").decode()
            answer = in_loop(ask(door.app, path, list(head.items()), body))
            check_safe(answer.status, answer.headers)

        check()


def test_no_bytes_in_headers_or_path_break_the_server(wired: str) -> None:
    body = orjson.dumps(ROWS)
    with one_door(wired) as (door, in_loop):

        @PROFILE
        @given(target=st.just(SCORE.encode()) | st.binary(max_size=30).map(lambda raw: b"/" + raw), headers=HEADERS)
        def check(target: bytes, headers: dict[bytes, bytes]) -> None:
            head = {b"Authorization": BEARER.encode(), **headers, b"Content-Length": b"%d" % len(body)}
            lines = b"".join(name + b": " + value + b"\r\n" for name, value in head.items())
            data = b"POST " + target + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + lines + b"\r\n" + body
            answers = parse(in_loop(talk(port_of_door(door), data)))
            # A line end in a value ends the head early: then the rest is a body, or another request.
            assert answers
            for answer in answers:
                check_safe(answer.status, [(name.encode(), value.encode()) for name, value in answer.headers.items()])

        check()


@pytest.mark.parametrize("value", [b"", b"-1", b"+1", b"1_0", b"x", b"\xb2", b"9" * 5000])
def test_a_declared_length_that_is_no_number_is_refused_behind_any_server(value: bytes) -> None:
    with pytest.raises(Problem, match="Content-Length"):
        declared_length(value)
