"""Scoring scripts behind the scoring door, as callers see them: the same suite for every door.

The workers are the test's own, on real sockets (tests/support/scripts.py). Whatever a test does, `open_door` checks
at its end that no lease, seat or place in a queue is left behind.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.dataplane.score import ScoringOptions
from tests.support.door import BEARER, OTHER_KEY, WAYS, WIRED, Part, open_door
from tests.support.scripts import JSON, Answered, Asked, always, echo
from tests.support.wire import connected, parse, port_of, run

SCORE = "/endpoints/digits/score"
INFER = "/v2/models/digits/infer"
GUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
ROWS = {"input_data": [[1, 2], [3, 4]]}
V2_ROWS = {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
ECHO = {"blue": Part(script=echo)}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=WIRED)
def wired(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def _nothing_goes_wrong_inside(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No request of a caller, and no answer of a script, is an error in our log."""
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def refusal(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["request_id"]) == (code, answer.headers["x-request-id"])
    message: str = error["message"]
    return message


def seen(answer: httpx.Response) -> dict[str, Any]:
    """What the script saw, as it told."""
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told | {"headers": dict(told["headers"])}


# What a script gets.


def test_a_script_gets_the_body_as_it_was_sent(way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts=ECHO) as (door, client):
            for media, body in (("image/png", b"\x89PNG\x00\xff"), ("application/json", b"{no json"), ("", b"")):
                headers = {"content-type": media} if media else {}
                answer = await client.post(SCORE, content=body, headers=headers)
                told = seen(answer)
                assert told["body"].encode("latin-1") == body
                assert told["headers"].get("content-type") == (media or None)
                assert told["headers"]["content-length"] == str(len(body))
                assert (told["method"], told["target"]) == ("POST", "/score")
            assert door.codes() == {200: 3}
            assert door.counted().snapshot().request_bytes == 14

    run(main())


def test_a_body_that_is_too_large_for_one_datagram_arrives_whole(way: str) -> None:
    async def main() -> None:
        body = bytes(range(256)) * 300
        reply = bytes(reversed(range(256))) * 900

        def swap(asked: Asked) -> Answered:
            assert asked.body == body
            return Answered(body=reply, headers=[("content-type", "application/octet-stream")])

        async with open_door(way, parts={"blue": Part(script=swap)}) as (_, client):
            answer = await client.post(SCORE, content=body)
            assert (answer.status_code, answer.content) == (200, reply)

    run(main())


def test_a_script_never_sees_credentials_nor_what_concerns_the_connection(way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts=ECHO) as (_, client):
            headers = {
                "azureml-model-deployment": "blue",
                "x-request-id": GUID,
                "x-ms-client-request-id": "me !and/you",
                "connection": "x-hop",
                "x-hop": "1",
                "te": "trailers",
                "x-custom": "kept",
                "content-type": "text/csv",
            }
            answer = await client.post(SCORE, content=b"1,2", headers=headers)
            told = seen(answer)["headers"]
            assert (told["x-custom"], told["content-type"]) == ("kept", "text/csv")
            assert told["x-request-id"] == GUID == answer.headers["x-request-id"]
            assert told["x-ms-client-request-id"] == told["x-ms-request-id"] == "meandyou"
            assert {"authorization", "azureml-model-deployment", "connection", "x-hop", "te"}.isdisjoint(told)
            assert BEARER not in answer.text

    run(main())


def test_repeated_headers_stay_repeated_and_an_id_is_made_where_none_is_given(way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts=ECHO) as (door, client):
            headers = [("authorization", BEARER), ("x-tag", "a"), ("x-tag", "b"), ("x-request-id", "no guid")]
            answer = await client.post(SCORE, content=b"x", headers=headers)
            (asked,) = door.workers["blue"].asked
            assert [value for name, value in asked.headers if name == "x-tag"] == ["a", "b"]
            assert asked.header("x-request-id") == asked.request_id == answer.headers["x-request-id"] != "no guid"
            assert asked.header("x-ms-client-request-id") is None

    run(main())


def test_the_query_travels_to_the_script(way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts=ECHO) as (_, client):
            told = seen(await client.get(f"{SCORE}?a=1&b=%20x&a=2"))
            assert (told["method"], told["target"]) == ("GET", "/score?a=1&b=%20x&a=2")
            assert (told["body"], told["headers"].get("content-length")) == ("", None)
            assert seen(await client.post(f"{SCORE}?a=1", content=b"x"))["target"] == "/score?a=1"
            by_host = await client.get("/score?a=1", headers={"host": "digits.models.example"})
            assert seen(by_host)["target"] == "/score?a=1"

    run(main())


def test_methods_that_a_script_does_not_take_are_refused(way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts=ECHO) as (door, client):
            for method in ("PUT", "DELETE", "PATCH", "HEAD"):
                answer = await client.request(method, SCORE)
                assert (answer.status_code, answer.headers["allow"]) == (405, "GET, OPTIONS, POST")
            assert seen(await client.options(SCORE))["method"] == "OPTIONS"
            assert len(door.workers["blue"].asked) == 1

    run(main())


def test_only_the_script_of_a_mixed_endpoint_takes_GET(way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts={"blue": Part(), "green": Part(script=echo)}) as (_, client):
            refused = await client.get(SCORE)
            assert "send POST with a body" in refusal(refused, 405, "method_not_allowed")
            assert refused.headers["allow"] == "POST"
            assert seen(await client.get(SCORE, headers={"azureml-model-deployment": "green"}))["method"] == "GET"

    run(main())


def test_a_head_that_a_script_took_is_read_anew_for_a_model(way: str) -> None:
    async def main() -> None:
        parts = {"blue": Part(script=echo), "green": Part()}
        async with open_door(way, parts=parts, traffic={"blue": 50, "green": 50}) as (_, client):
            headers = {"content-type": "image/png", "inference-header-content-length": "many"}
            answers = [await client.post(SCORE, content=b"abc", headers=headers) for _ in range(8)]
            assert sorted(answer.status_code for answer in answers) == [200] * 4 + [415] * 4

    run(main())


def test_gzip_is_undone_for_a_script_as_for_a_model(way: str) -> None:
    async def main() -> None:
        options = ScoringOptions(gzip=True)
        async with open_door(way, parts=ECHO, options=options) as (_, client):
            body = b'{"data": 1}' * 200
            headers = {"content-encoding": "gzip", "accept-encoding": "gzip"}
            answer = await client.post(SCORE, content=gzip.compress(body), headers=headers)
            told = seen(answer)
            assert told["body"].encode() == body
            assert told["headers"]["content-length"] == str(len(body))
            assert "content-encoding" not in told["headers"]
            assert answer.headers["content-encoding"] == "gzip"
        async with open_door(way, parts=ECHO) as (_, client):
            refused = await client.post(SCORE, content=gzip.compress(body), headers=headers)
            assert "gzip is off" in refusal(refused, 415, "unsupported_media_type")

    run(main())


# What goes back.


def test_the_answer_has_the_scripts_headers_and_how_the_run_went(way: str) -> None:
    async def main() -> None:
        headers = [("Content-Type", "text/csv"), ("X-Mine", " a "), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
        headers.append(("x-ms-server-version", "host/1.2"))
        script = always(headers=headers, body=b"1,2\n", ms=12.3456, failed=True)
        async with open_door(way, parts={"blue": Part(script=script)}) as (door, client):
            answer = await client.post(SCORE, content=b"x", headers={"x-ms-client-request-id": "me"})
            assert (answer.status_code, answer.content) == (200, b"1,2\n")
            found = answer.headers
            assert (found["content-type"], found["x-mine"], found["content-length"]) == ("text/csv", "a", "4")
            assert found.get_list("set-cookie") == ["a=1", "b=2"]
            assert (found["x-ms-run-fn-exec-ms"], found["x-ms-run-function-failed"]) == ("12.346", "True")
            assert (found["x-ms-client-request-id"], found["x-ms-request-id"]) == ("me", "me")
            assert (found["azureml-model-deployment"], found["x-ms-server-version"]) == ("blue", "host/1.2")
            counted = door.counted().snapshot()
            assert (counted.infer.count, counted.infer.total, counted.response_bytes) == (1, 12345, 4)

    run(main())


def test_headers_that_are_not_the_scripts_to_give_are_left_out(way: str) -> None:
    async def main() -> None:
        headers = [
            JSON,
            ("content-length", "999"),
            ("transfer-encoding", "chunked"),
            ("connection", "close, x-private"),
            ("x-private", "1"),
            ("x-request-id", "forged"),
            ("azureml-model-deployment", "green"),
            ("x-ms-run-function-failed", "True"),
            ("ms-azureml-model-error-statuscode", "500"),
            ("x-split", "a\r\nx-injected: 1"),
            ("bad name", "1"),
            ("", "1"),
            ("x-wide", "\u20ac"),
            ("x-nul", "a\0b"),
            ("x-latin", "caf\u00e9"),
        ]
        async with open_door(way, parts={"blue": Part(script=always(headers=headers))}) as (_, client):
            answer = await client.post(SCORE, content=b"x")
            assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"{}", "2")
            found = {name.lower(): value for name, value in answer.headers.raw}
            assert found[b"x-latin"] == b"caf\xe9"
            assert found[b"azureml-model-deployment"] == b"blue"
            assert found[b"x-ms-run-function-failed"] == b"False"
            assert found[b"x-request-id"] != b"forged"
            forbidden = {b"transfer-encoding", b"connection", b"x-private", b"x-split", b"x-injected", b"x-wide"}
            assert (forbidden | {b"x-nul", b"bad name", b"ms-azureml-model-error-statuscode"}).isdisjoint(found)

    run(main())


@pytest.mark.parametrize(
    ("status", "reason"), [(500, "Internal Server Error"), (400, "Bad Request"), (201, "Created"), (599, "Unknown")]
)
def test_an_answer_that_is_not_200_is_a_424_that_names_it(status: int, reason: str, way: str) -> None:
    async def main() -> None:
        script = always(status=status, body=b'{"message": "no"}', headers=[JSON, ("x-mine", "1")])
        async with open_door(way, parts={"blue": Part(script=script)}) as (door, client):
            answer = await client.post(SCORE, content=b"x")
            assert (answer.status_code, answer.json()) == (424, {"message": "no"})
            assert answer.headers["ms-azureml-model-error-statuscode"] == str(status)
            assert answer.headers["ms-azureml-model-error-reason"] == reason
            assert (answer.headers["x-mine"], answer.headers["azureml-model-deployment"]) == ("1", "blue")
            assert door.codes() == {424: 1}

    run(main())


def test_a_worker_that_dies_fails_its_request_alone(way: str) -> None:
    async def main() -> None:
        parts = {"blue": Part(script=echo, workers=2, is_held=True)}
        async with open_door(way, parts=parts) as (door, client):
            first = asyncio.ensure_future(client.post(SCORE, content=b"1"))
            await door.until(lambda: len(door.workers["blue"]._taken) == 1)
            second = asyncio.ensure_future(client.post(SCORE, content=b"2"))
            await door.until(lambda: len(door.workers["blue"]._taken) == 2)
            scripts = door.deployments["blue"].live.scripts
            assert scripts is not None
            scripts.worker_gone(0)
            answer = await first
            assert "ended while it ran" in refusal(answer, 424, "model_failed")
            assert answer.headers["ms-azureml-model-error-statuscode"] == "500"
            door.workers["blue"].release()
            assert seen(await second)["body"] == "2"

    run(main())


# What is refused.


def test_callers_are_proven_and_bodies_bounded_before_a_worker_hears_of_them(way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts={"blue": Part(script=echo, body_bytes_max=10)}) as (door, client):
            for method in ("POST", "GET", "OPTIONS"):
                answer = await client.request(method, SCORE, headers={"authorization": "Bearer no"})
                refusal(answer, 401, "unauthenticated")
            refusal(await client.post(SCORE, content=b"x" * 11), 413, "payload_too_large")
            unknown = await client.get(SCORE, headers={"azureml-model-deployment": "red"})
            refusal(unknown, 404, "not_found")
            assert door.workers["blue"].asked == []
            right = await client.post(SCORE, content=b"x", headers={"authorization": f"Bearer {OTHER_KEY}"})
            assert right.status_code == 200

    run(main())


def test_a_run_that_outlasts_the_deadline_is_408(way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts={"blue": Part(script=lambda _: None)}) as (door, client):
            headers = {"x-request-timeout-ms": "30"}
            answer = await client.post(SCORE, content=b"x", headers=headers)
            assert "while the scoring script ran" in refusal(answer, 408, "deadline_exceeded")
            late = await client.post(SCORE, content=b"x", headers=headers)
            assert "before a worker was free" in refusal(late, 408, "deadline_exceeded")
            assert door.codes() == {408: 2}

    run(main())


def test_an_answer_that_comes_after_the_deadline_is_not_given(way: str) -> None:
    async def main() -> None:
        parts = {"blue": Part(script=echo, is_held=True, timeout_ms=40)}
        async with open_door(way, parts=parts) as (door, client):
            sent = asyncio.ensure_future(client.post(SCORE, content=b"x"))
            await door.until(lambda: bool(door.workers["blue"]._taken))
            refusal(await sent, 408, "deadline_exceeded")
            door.workers["blue"].release()
            assert seen(await client.post(SCORE, content=b"y"))["body"] == "y"

    run(main())


def test_more_requests_than_may_be_pending_are_429(way: str) -> None:
    async def main() -> None:
        parts = {"blue": Part(script=echo, is_held=True, pending_max=2)}
        async with open_door(way, parts=parts) as (door, client):
            sent = [asyncio.ensure_future(client.post(SCORE, content=b"x")) for _ in range(2)]
            await door.until(lambda: door.pending() == 2)
            answer = await client.post(SCORE, content=b"x")
            assert "2 requests pending" in refusal(answer, 429, "overloaded")
            assert answer.headers["retry-after"] == "1"
            door.workers["blue"].release()
            assert [(await one).status_code for one in sent] == [200, 200]

    run(main())


def test_a_request_that_waits_longer_than_it_may_is_429(way: str) -> None:
    async def main() -> None:
        parts = {"blue": Part(script=echo, is_held=True, queue_wait_ms=30)}
        async with open_door(way, parts=parts) as (door, client):
            first = asyncio.ensure_future(client.post(SCORE, content=b"1"))
            await door.until(lambda: bool(door.workers["blue"]._taken))
            answer = await client.post(SCORE, content=b"2")
            assert "waited longer for a worker" in refusal(answer, 429, "overloaded")
            door.workers["blue"].release()
            assert seen(await first)["body"] == "1"

    run(main())


def test_a_deployment_that_drains_takes_no_more_and_gives_its_last_answer(way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts={"blue": Part(script=echo, is_held=True)}) as (door, client):
            sent = asyncio.ensure_future(client.post(SCORE, content=b"x"))
            await door.until(lambda: bool(door.workers["blue"]._taken))
            closed: list[bool] = []
            door.deployments["blue"].live.retire(lambda: closed.append(True))
            door.workers["blue"].release()
            assert seen(await sent)["body"] == "x"
            await door.until(lambda: closed == [True])
            refusal(await client.post(SCORE, content=b"x"), 503, "unavailable")

    run(main())


def test_a_caller_that_leaves_is_forgotten_and_its_waiting_request_never_run(wired: str) -> None:
    async def main() -> None:
        async with open_door(wired, parts={"blue": Part(script=echo, is_held=True)}) as (door, client):
            assert door.server is not None
            running = asyncio.ensure_future(client.post(SCORE, content=b"1"))
            await door.until(lambda: bool(door.workers["blue"]._taken))
            staged = [asyncio.ensure_future(client.post(SCORE, content=b"2")) for _ in range(2)]
            await door.until(lambda: door.pending() == 3)
            async with connected(port_of(door.server)) as peer:
                lines = (
                    f"POST {SCORE} HTTP/1.1\r\nHost: a\r\nAuthorization: {BEARER}\r\nContent-Length: 4\r\n\r\nleft"
                )
                await peer.send(lines.encode())
                await door.until(lambda: door.pending() == 4)
            await door.until(lambda: door.pending() == 3)
            door.workers["blue"].release()
            assert [(await one).status_code for one in (running, *staged)] == [200] * 3
            assert "left" not in [asked.body.decode() for asked in door.workers["blue"].asked]
            assert door.counted().snapshot().hung_up == 1

    run(main())


def test_requests_are_taken_by_whichever_worker_is_idle(way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts={"blue": Part(script=echo, workers=3)}) as (door, client):
            answers = await asyncio.gather(*(client.post(SCORE, content=b"%d" % n) for n in range(40)))
            assert [seen(answer)["body"] for answer in answers] == [str(n) for n in range(40)]
            assert door.codes() == {200: 40}

    run(main())


def test_every_door_answers_with_the_same_bytes() -> None:
    async def main() -> None:
        answers = []
        script = always(headers=[JSON, ("x-mine", "1")], body=b"[1]")
        for way in WIRED:
            async with open_door(way, parts={"blue": Part(script=script)}) as (door, _):
                assert door.server is not None
                async with connected(port_of(door.server)) as peer:
                    head = f"POST {SCORE} HTTP/1.1\r\nHost: a\r\nAuthorization: {BEARER}\r\nx-request-id: {GUID}\r\n"
                    await peer.send(f"{head}Content-Length: 2\r\n\r\n{{}}".encode())
                    (answer,) = parse(await peer.read_until(b"[1]"))
                    answers.append((answer.status, {**answer.headers, "date": ""}, answer.body))
        assert answers[0] == answers[1]

    run(main())


# Browsers.


def test_a_browser_may_ask_without_credentials_where_origins_are_allowed(way: str) -> None:
    async def main() -> None:
        parts = {"blue": Part(script=echo, cors_origins=("https://a.example",))}
        async with open_door(way, parts=parts) as (door, client):
            client.headers.pop("authorization")
            asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
            answer = await client.options(SCORE, headers={"origin": "https://a.example", **asks})
            assert (answer.status_code, answer.content) == (200, b"")
            assert answer.headers["access-control-allow-origin"] == "https://a.example"
            assert answer.headers["access-control-allow-methods"] == "GET, OPTIONS, POST"
            assert answer.headers["access-control-allow-headers"] == "authorization"
            other = await client.options(SCORE, headers={"origin": "https://b.example", **asks})
            assert (other.status_code, "access-control-allow-origin" in other.headers) == (200, False)
            unknown = await client.options(SCORE, headers={"azureml-model-deployment": "red"})
            refusal(unknown, 401, "unauthenticated")
            refusal(await client.post(SCORE, content=b"x"), 401, "unauthenticated")
            assert (await client.options(SCORE)).status_code == 200
            assert door.workers["blue"].asked == []
            by_hand = await client.options(SCORE, headers={"authorization": BEARER})
            assert seen(by_hand)["method"] == "OPTIONS"

    run(main())


def test_any_origin_may_be_allowed(way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts={"blue": Part(script=echo, cors_origins=("*",))}) as (_, client):
            headers = {"origin": "https://a.example", "access-control-request-method": "POST"}
            headers["access-control-request-headers"] = "x;y"
            answer = await client.options(SCORE, headers=headers)
            assert answer.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-headers" not in answer.headers

    run(main())


# Documents.


def test_a_script_is_healthy_and_describes_itself(way: str) -> None:
    async def main() -> None:
        swagger = {"2": '{"swagger": "2.0"}', "3": '{"openapi": "3.0.3"}'}
        parts = {"blue": Part(script=echo, swagger=swagger)}
        async with open_door(way, parts=parts) as (_, client):
            healthy = await client.get("/endpoints/digits/")
            assert (healthy.text, healthy.headers["azureml-model-deployment"]) == ("Healthy", "blue")
            answer = await client.get("/endpoints/digits/swagger.json")
            assert (answer.json(), answer.headers["content-type"]) == ({"swagger": "2.0"}, "application/json")
            assert (await client.get("/endpoints/digits/swagger.json?version=3")).text == swagger["3"]
            missing = await client.get("/endpoints/digits/swagger.json?version=3.1")
            assert "there are: 2, 3" in refusal(missing, 404, "not_found")
            refusal(await client.get("/endpoints/digits/swagger.json?version=7"), 404, "not_found")
            anonymous = await client.get("/endpoints/digits/swagger.json", headers={"authorization": ""})
            refusal(anonymous, 401, "unauthenticated")
            refusal(await client.get("/endpoints/digits/other"), 404, "not_found")

    run(main())


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", INFER), ("POST", "/v2/models/digits/versions/blue/infer")]
    + [("GET", f"/v2/models/digits{rest}") for rest in ("", "/config", "/ready", "/versions/blue/ready")],
)
def test_a_script_has_no_V2_routes_and_the_refusal_says_where_to_go(method: str, path: str, way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts=ECHO) as (door, client):
            answer = await client.request(method, path, json=V2_ROWS)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
            assert "score with POST /endpoints/Digits/score" in answer.json()["error"]
            assert door.workers["blue"].asked == []

    run(main())


def test_lists_for_V2_clients_say_what_they_can_use(way: str) -> None:
    async def main() -> None:
        parts = {"blue": Part(), "green": Part(script=echo)}
        async with open_door(way, parts=parts) as (_, client):
            entries = {entry["version"]: entry for entry in (await client.get("/v2/models")).json()}
            assert (entries["blue"]["state"], entries["green"]["state"]) == ("READY", "UNAVAILABLE")
            assert "scoring script" in entries["green"]["reason"]
            ready = (await client.post("/v2/repository/index", json={"ready": True})).json()
            assert [entry["version"] for entry in ready] == ["blue"]
            assert (await client.get("/v2/models/digits")).json()["versions"] == ["blue"]
            assert seen(await client.post(SCORE, content=b"x", headers={"azureml-model-deployment": "green"}))
            stats = (await client.get("/v2/models/digits/stats")).json()["model_stats"]
            assert {one["version"]: one["inference_count"] for one in stats} == {"blue": 0, "green": 1}

    run(main())


# Mirrors.


def mirrored(parts: dict[str, Part]) -> dict[str, Any]:
    return {"parts": parts, "traffic": {"blue": 100}, "mirror": {"green": 100}}


def told(door: Any) -> tuple[dict[str, int], dict[str, int], int]:
    found = door.counted("green").snapshot()
    assert found.comparison is not None
    skipped = {reason: count for reason, count in found.comparison.skipped.items() if count}
    return {name: count for name, count in found.mirrored.items() if count}, skipped, found.comparison.latency.count


def test_a_script_gets_copies_of_another_scripts_requests(way: str) -> None:
    async def main() -> None:
        parts = {"blue": Part(script=always(body=b"1")), "green": Part(script=echo)}
        async with open_door(way, **mirrored(parts)) as (door, client):
            answer = await client.get(f"{SCORE}?q=1", headers={"x-mine": "1"})
            assert answer.content == b"1"
            await door.until(lambda: told(door) == ({"answered": 1}, {"script": 1}, 1))
            live, copied = door.workers["blue"].asked[0], door.workers["green"].asked[0]
            assert copied == live
            assert (copied.target, copied.header("x-mine")) == ("/score?q=1", "1")

    run(main())


@pytest.mark.parametrize(
    ("live", "target", "expected"),
    [
        (Part(script=echo), Part(), ({"answered": 1}, {"script": 1}, 1)),
        (Part(), Part(script=echo), ({"answered": 1}, {"script": 1}, 1)),
        (Part(script=echo), Part(script=always(status=500)), ({"failed": 1}, {"failed": 1}, 0)),
        (Part(script=always(status=500)), Part(script=echo), ({"answered": 1}, {"live_failed": 1}, 0)),
    ],
    ids=["script to model", "model to script", "the copy fails", "the live one fails"],
)
def test_copies_between_scripts_and_models_are_counted(live: Part, target: Part, expected: Any, way: str) -> None:
    async def main() -> None:
        async with open_door(way, **mirrored({"blue": live, "green": target})) as (door, client):
            await client.post(SCORE, json=ROWS)
            await door.until(lambda: told(door) == expected)

    run(main())


def test_a_copy_that_its_target_cannot_take_has_failed(way: str) -> None:
    async def main() -> None:
        async with open_door(way, **mirrored({"blue": Part(), "green": Part(script=echo)})) as (door, client):
            assert (await client.post(INFER, json=V2_ROWS)).status_code == 200
            await door.until(lambda: told(door) == ({"failed": 1}, {"failed": 1}, 0))
        async with open_door(way, **mirrored({"blue": Part(script=echo), "green": Part()})) as (door, client):
            assert (await client.get(SCORE)).status_code == 200
            headers = {"content-type": "image/png"}
            assert (await client.post(SCORE, content=b"x", headers=headers)).status_code == 200
            await door.until(lambda: told(door) == ({"failed": 2}, {"failed": 2}, 0))

    run(main())
