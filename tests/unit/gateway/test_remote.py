"""Requests to a running gateway: which one is meant, what is sent, and what is said when it does not answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.cli import manage
from gateway.cli.remote import Remote, RemoteError, Target, target_of

Handler = Callable[[httpx.Request], httpx.Response]


def remote(handler: Handler, sleeps: list[float] | None = None) -> Remote:
    target = Target(url="https://gateway:8444", token="secret")
    slept = [] if sleeps is None else sleeps
    return Remote(target, timeout_s=3, transport=httpx.MockTransport(handler), sleep=slept.append)


def refusal(call: Callable[[], Any]) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        call()
    return caught.value


# ---- which gateway ----------------------------------------------------------------------------------------------


def test_the_gateway_of_the_state_folder_is_found_by_what_it_wrote_there(tmp_path: Path) -> None:
    (tmp_path / "management.json").write_text(json.dumps({"url": "https://0.0.0.0:8444", "certificate": "PEM"}))
    (tmp_path / "management.token").write_text("token\n")
    found = target_of(tmp_path, {})
    assert found == Target(url="https://127.0.0.1:8444", token="token", certificate="PEM")
    assert "token=" not in repr(found)
    (tmp_path / "other").write_text("other")
    there = target_of(tmp_path, {"GATEWAY_CA": "mine.pem"}, token_file=str(tmp_path / "other"))
    assert (there.token, there.ca) == ("other", "mine.pem")
    (tmp_path / "management.json").write_text(json.dumps({"url": "http://[::]"}))
    assert target_of(tmp_path, {}) == Target(url="http://[::1]", token="token")


def test_one_elsewhere_is_named_by_arguments_or_the_environment(tmp_path: Path) -> None:
    environ = {"GATEWAY_URL": "https://far:1/", "GATEWAY_TOKEN": " t ", "GATEWAY_CA": "a.pem"}
    assert target_of(tmp_path, environ) == Target(url="https://far:1", token="t", ca="a.pem")
    (tmp_path / "token").write_text("u")
    found = target_of(tmp_path, environ, url="https://near", token_file=str(tmp_path / "token"), ca="b.pem")
    assert found == Target(url="https://near", token="u", ca="b.pem")


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "no gateway runs on the state folder"),
        ({"GATEWAY_URL": "https://far"}, "no credential for https://far: give --token-file, or set GATEWAY_TOKEN"),
        (
            {"GATEWAY_URL": "http://far", "GATEWAY_TOKEN": "t"},
            "would travel in the open to http://far; accepted: an h",
        ),
        ({"GATEWAY_URL": "ftp://far", "GATEWAY_TOKEN": "t"}, "found 'ftp://far'; accepted: the management URL"),
        ({"GATEWAY_URL": "https://a:b", "GATEWAY_TOKEN": "t"}, "found 'https://a:b'; accepted"),
        ({"GATEWAY_URL": "https://u@far", "GATEWAY_TOKEN": "t"}, "found 'https://u@far'; accepted"),
    ],
)
def test_a_gateway_that_cannot_be_asked_is_explained(tmp_path: Path, environ: dict[str, str], said: str) -> None:
    assert said in str(refusal(lambda: target_of(tmp_path, environ)))


def test_files_that_do_not_say_it_are_named(tmp_path: Path) -> None:
    (tmp_path / "management.json").write_text("[]")
    assert "management.json does not say where the gateway is" in str(refusal(lambda: target_of(tmp_path, {})))
    (tmp_path / "management.json").write_text('{"url": "https://here"}')
    assert "cannot read the token from" in str(refusal(lambda: target_of(tmp_path, {})))
    (tmp_path / "management.token").write_text("\n")
    assert "is empty; accepted: a management token" in str(refusal(lambda: target_of(tmp_path, {})))
    bad = Target(url="https://here", token="t", ca=str(tmp_path / "none.pem"))
    assert "cannot read the authority's certificate" in str(refusal(lambda: Remote(bad)))


def test_a_gateway_without_tls_is_asked_on_this_machine_only() -> None:
    with Remote(Target(url="http://127.0.0.1:1", token="t")) as asked:
        said = str(refusal(lambda: asked.ask("GET", "/status")))
    assert said.startswith("cannot reach the gateway at http://127.0.0.1:1: ")


# ---- asking -----------------------------------------------------------------------------------------------------


def test_a_question_carries_the_token_and_json() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"a": 1}) if request.method == "POST" else httpx.Response(204)

    asked = remote(handler)
    assert asked.ask("POST", "/apply", {"b": 2}) == {"a": 1}
    assert asked.ask("DELETE", "/tokens/x", query={"y": "z"}) is None
    assert seen[0].headers["authorization"] == "Bearer secret"
    assert json.loads(seen[0].content) == {"b": 2}
    assert str(seen[1].url) == "https://gateway:8444/tokens/x?y=z"


@pytest.mark.parametrize(
    ("response", "lines"),
    [
        (httpx.Response(400, json={"error": {"message": "m", "details": [{"message": "a"}, {"message": "b"}]}}), 2),
        (httpx.Response(409, json={"error": {"message": "m", "details": []}}), 1),
        (httpx.Response(401, json={"error": {"message": "m"}}), 2),
        (httpx.Response(502, text="<html>"), 1),
        (httpx.Response(507, json=[]), 1),
    ],
)
def test_a_refusal_is_what_the_gateway_said(response: httpx.Response, lines: int) -> None:
    error = refusal(lambda: remote(lambda _: response).ask("GET", "/x"))
    assert (len(error.lines), error.status) == (lines, response.status_code)
    assert "secret" not in str(error)


def test_an_answer_that_is_none_is_told() -> None:
    said = str(refusal(lambda: remote(lambda _: httpx.Response(200, text="<html>")).ask("GET", "/x")))
    assert said == "https://gateway:8444 answered GET /x with 6 bytes that are no JSON; is it a gateway?"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]"), "name its authority with --ca or GATEWAY_CA"),
        (httpx.ReadTimeout(""), "https://gateway:8444 gave no answer in time (ReadTimeout)"),
        (httpx.RemoteProtocolError(""), "cannot reach the gateway at https://gateway:8444: RemoteProtocolError"),
    ],
)
def test_a_connection_that_fails_is_told(error: httpx.HTTPError, said: str) -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        raise error

    assert said in str(refusal(lambda: remote(handler).ask("GET", "/x")))
    assert said in str(refusal(lambda: remote(handler).download("/x", Path("/nowhere/x"), "")))


def test_a_change_of_another_is_waited_for() -> None:
    answers = [httpx.Response(409, json={"error": {"message": "busy"}}), httpx.Response(503, text="starting")]
    waits: list[str] = []
    slept: list[float] = []
    asked = remote(lambda _: answers.pop(0) if answers else httpx.Response(200, json=1), slept)
    assert asked.ask_patiently("POST", "/apply", {}, waits.append) == 1
    assert (waits, slept) == (["busy"], [1.0, 1.0])


def test_a_wait_has_an_end_and_other_refusals_are_not_waited_for() -> None:
    slept: list[float] = []
    busy = remote(lambda _: httpx.Response(409, json={"error": {"message": "busy"}}), slept)
    assert str(refusal(lambda: busy.ask_patiently("POST", "/apply", {}, lambda _: None))) == "busy"
    assert sum(slept) == 3
    wrong = remote(lambda _: httpx.Response(400, json={"error": {"message": "wrong"}}), slept)
    assert refusal(lambda: wrong.ask_patiently("POST", "/apply", {}, lambda _: None)).status == 400


# ---- content ----------------------------------------------------------------------------------------------------


def test_a_log_is_read_line_by_line_with_what_is_told_of_it() -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.url.path.rpartition('/workspaces/gateway')[2]}?{request.url.query.decode()}")
        text = (
            ": here\n\nid: a.1.0\ndata: one\u2028still one\ndata: \n\n"
            "event: lost\ndata: 4 lines\n\ndata: two\n\nevent: end\ndata: gone\n\n"
        )
        return httpx.Response(200, content=text.encode(), headers={"content-type": "text/event-stream"})

    found = list(manage.logs(remote(handler), "digits", "blue", 7, follow=True))

    assert found == [("", "one\u2028still one"), ("", ""), ("lost", "4 lines"), ("", "two"), ("end", "gone")]
    assert asked == ["/onlineEndpoints/digits/deployments/blue/logs?tail=7&follow=true"]


def test_a_log_that_cannot_be_read_is_explained() -> None:
    refused = httpx.Response(404, json={"error": {"code": "NotFound", "message": "there is no such"}})
    assert refusal(lambda: list(manage.logs(remote(lambda _: refused), "e", "d", 1, follow=False))).status == 404

    def broken(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("quiet")

    assert "no answer in time" in str(refusal(lambda: list(manage.logs(remote(broken), "e", "d", 1, follow=True))))


def test_a_file_is_sent_as_a_blob(tmp_path: Path) -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        request.read()
        seen.append(request)
        return httpx.Response(201)

    source = tmp_path / "m.onnx"
    source.write_bytes(b"x" * 3_000_000)
    remote(handler).upload(
        "azureml", "LocalUpload/a b/m.onnx", source, hashlib.sha256(b"x" * 3_000_000).hexdigest(), 3_000_000
    )
    assert seen[0].url.raw_path == b"/blob/azureml/LocalUpload/a%20b/m.onnx"
    assert (seen[0].headers["x-ms-blob-type"], seen[0].headers["content-length"]) == ("BlockBlob", "3000000")
    assert len(seen[0].content) == 3_000_000


def test_a_file_that_changes_or_goes_while_it_is_sent_is_told(tmp_path: Path) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        request.read()
        return httpx.Response(201)

    source = tmp_path / "m.onnx"
    source.write_bytes(b"x")
    assert "changed while it was sent" in str(refusal(lambda: remote(handler).upload("c", "p", source, "0", 1)))
    gone = tmp_path / "gone"
    assert "cannot read" in str(refusal(lambda: remote(handler).upload("c", "p", gone, "0", 1)))
    full = httpx.Response(507, headers={"x-ms-error-code": "InsufficientStorage"}, text="<Error/>")
    error = refusal(lambda: remote(lambda _: full).upload("c", "p", source, "0", 1))
    assert str(error) == f"the upload of {source} was answered with 507 InsufficientStorage"


def test_content_is_received_whole_or_not_at_all(tmp_path: Path) -> None:
    target, sha256 = tmp_path / "m.onnx", hashlib.sha256(b"model").hexdigest()
    remote(lambda _: httpx.Response(200, content=b"model")).download("/blob/sha256/x", target, sha256)
    assert target.read_bytes() == b"model"
    error = refusal(lambda: remote(lambda _: httpx.Response(200, content=b"mod")).download("/x", target, sha256))
    assert "is not the content" in str(error)
    error = refusal(lambda: remote(lambda _: httpx.Response(404)).download("/x", target, sha256))
    assert error.status == 404
    error = refusal(lambda: remote(lambda _: httpx.Response(200)).download("/x", tmp_path / "no" / "x", sha256))
    assert "cannot write" in str(error)
    assert [one.name for one in tmp_path.iterdir()] == ["m.onnx"]
