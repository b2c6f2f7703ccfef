"""From requests to run()'s arguments, and from what it returns to answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from runtimes.script.worker_lib.igw_worker.forms import Form, Refused, Unfit, answer_of
from runtimes.script.worker_lib.igw_worker.shims.aml_request import AMLRequest
from runtimes.script.worker_lib.igw_worker.shims.aml_response import AMLResponse

JSON = [("content-type", "application/json")]


def plain(run: Callable[..., Any]) -> Form:
    return Form(run, is_raw=False, has_schema=False)


def schema(run: Callable[..., Any]) -> Form:
    return Form(run, is_raw=False, has_schema=True)


def arguments(form: Form, method: str = "POST", target: str = "/score", body: bytes = b"", headers: Any = ()) -> Any:
    return form.arguments(AMLRequest(method, target, headers, body), body)


def test_a_plain_run_gets_text_whatever_the_content_type() -> None:
    form = plain(lambda data: None)
    assert arguments(form, body="ß".encode(), headers=[("content-type", "image/png")]) == {"data": "ß"}
    assert form.arguments(AMLRequest("POST"), memoryview(b"view")) == {"data": "view"}
    assert repr(form) == "<Form plain run(data)>"


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(Refused, match="cannot be decoded as UTF-8") as refused:
        arguments(plain(lambda data: None), body=b"ab\xff")
    assert refused.value.status == 400


def test_a_get_gives_its_query_as_json_text() -> None:
    target = "/score?a=1&b=[1,2]&c=word&d=null&e=1&e=x&f="
    found = arguments(plain(lambda data: None), "GET", target)
    assert json.loads(found["data"]) == {"a": 1, "b": [1, 2], "c": "word", "d": None, "e": [1, "x"], "f": ""}


def test_other_methods_are_refused_but_by_a_raw_run() -> None:
    with pytest.raises(Refused) as refused:
        arguments(plain(lambda data: None), "PUT")
    assert refused.value.status == 405
    raw = Form(lambda request: None, is_raw=True, has_schema=False)
    assert arguments(raw, "PUT")["request"].method == "PUT"


def test_request_headers_are_a_dict_in_title_case() -> None:
    def run(raw: str, request_headers: Any) -> None: ...

    headers = [("x-ms-thing", "1"), ("accept", "a"), ("accept", "b")]
    found = arguments(plain(run), body=b"x", headers=headers)
    assert found == {"raw": "x", "request_headers": {"X-Ms-Thing": "1", "Accept": "a,b"}}


def test_schema_arguments_come_by_name() -> None:
    def run(a: int, *, b: int = 5) -> None: ...

    assert arguments(schema(run), body=b'{"a": 1, "c": 2}', headers=JSON) == {"a": 1, "b": 5}
    vendor = [("content-type", "application/vnd.x+json")]
    assert arguments(schema(run), body=b'{"a": 1, "b": null}', headers=vendor) == {"a": 1, "b": None}
    assert arguments(schema(run), "GET", "/score?a=[1]") == {"a": [1], "b": 5}
    assert schema(run).arguments(AMLRequest("POST", headers=JSON), memoryview(b'{"a": 1}')) == {"a": 1, "b": 5}


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        (b"{}", [], 415, "Expects Content-Type to be application/json"),
        (b"", JSON, 400, "POST body is empty"),
        (b"{", JSON, 400, "could not be decoded as JSON"),
        (b"\xff{}", JSON, 400, "could not be decoded as JSON"),
        (b"[" * 100_000, JSON, 400, "could not be decoded as JSON"),
        (b"3", JSON, 400, "should be a JSON dictionary"),
        (b"{}", JSON, 400, "A value is not provided for the 'a' parameter."),
    ],
)
def test_what_does_not_fit_a_schema_is_refused(body: bytes, headers: Any, status: int, says: str) -> None:
    with pytest.raises(Refused, match=says) as refused:
        arguments(schema(lambda a: None), body=body, headers=headers)
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (lambda *args: None, "positional-only"),
        (lambda **more: None, "positional-only"),
        (eval("lambda a, /: None"), "positional-only"),
        (lambda: None, "argument for input data"),
        (lambda request_headers: None, 'other than "request_headers"'),
    ],
)
def test_a_run_that_cannot_be_called_is_unfit(run: Callable[..., Any], says: str) -> None:
    with pytest.raises(Unfit, match=says):
        plain(run)
    with pytest.raises(Unfit, match="both"):
        Form(lambda a: None, is_raw=True, has_schema=True)


@pytest.mark.parametrize(
    ("value", "body"), [("a", b'"a"'), (None, b"{}"), ([1, {"b": None}], b'[1, {"b": null}]'), (1.5, b"1.5")]
)
def test_values_become_json(value: Any, body: bytes) -> None:
    answer = answer_of(value, 1.23456)
    assert (answer.status, answer.body, answer.failed, answer.run_ms) == (200, body, False, 1.23456)
    assert answer.headers == [
        ("content-type", "application/json"),
        ("x-ms-run-function-failed", "False"),
        ("x-ms-run-fn-exec-ms", "1.235"),
    ]


def test_a_response_goes_back_as_it_is() -> None:
    answer = answer_of(AMLResponse(b"\x00", 201, {"Content-Type": "image/png", "X-A": "b, c"}), 1.0)
    assert (answer.status, answer.body, answer.failed) == (201, b"\x00", False)
    assert answer.headers[:3] == [("content-type", "image/png"), ("x-a", "b"), ("x-a", "c")]
    assert answer_of(AMLResponse("", 200, run_function_failed=True), 1.0).failed
    assert answer_of(AMLResponse("", 503), 1.0).failed


def test_a_response_of_another_package_is_known_by_its_members() -> None:
    class Response:
        status_code = 200

        def __init__(self) -> None:
            self.headers = {"Content-Type": "text/plain", "Content-Length": "99"}

        def get_data(self) -> bytes:
            return b"theirs"

    answer = answer_of(Response(), 1.0)
    assert answer.body == b"theirs"
    assert answer.headers[0] == ("content-type", "text/plain")
    assert "content-length" not in dict(answer.headers)


def test_what_json_does_not_know_raises() -> None:
    with pytest.raises(TypeError):
        answer_of({1, 2}, 1.0)
