"""What passes between callers and scoring scripts: whatever either writes, no header becomes something else."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.head import Head
from gateway.dataplane.script import headers_for_script, headers_of_answer, is_success, preflight
from runtimes import ScriptAnswer
from tests.support.scripts import script_spec

LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
OURS = ("x-request-id", "content-length", "transfer-encoding", "connection", "x-ms-run-fn-exec-ms", "date")


def answer(headers: list[tuple[str, str]], status: int = 200) -> ScriptAnswer:
    return ScriptAnswer(status=status, headers=headers, body=b"", failed=False, run_ms=0.0)


names = st.text(max_size=12) | st.sampled_from([*OURS, "X-Mine", "Set-Cookie"])


@given(st.lists(st.tuples(names, st.text(max_size=12)), max_size=8))
def test_whatever_a_script_answers_each_header_stays_one_line(headers: list[tuple[str, str]]) -> None:
    found = headers_of_answer(answer(headers))
    for name, value in found:
        assert LINE.fullmatch(name)
        assert not {b"\r"[0], b"\n"[0], 0}.intersection(value)
    told = [name for name, _ in found]
    assert told[-2:] == [b"x-ms-run-function-failed", b"x-ms-run-fn-exec-ms"]
    assert not {name.encode() for name in OURS if not name.startswith("x-ms-run")}.intersection(told)


def test_a_valid_header_is_handed_on_in_its_order_and_as_often_as_it_is_given() -> None:
    given_headers = [("A", "1"), ("b", "x y\t"), ("a", ""), ("A", "1")]
    assert headers_of_answer(answer(given_headers))[:-2] == [(b"a", b"1"), (b"b", b"x y"), (b"a", b""), (b"a", b"1")]


@given(st.integers(100, 599))
def test_every_status_but_200_is_named_as_an_error(status: int) -> None:
    found = dict(headers_of_answer(answer([], status)))
    assert is_success(answer([], status)) == (b"ms-azureml-model-error-statuscode" not in found) == (status == 200)
    assert found.get(b"ms-azureml-model-error-statuscode", b"200") == b"%d" % status
    assert found.get(b"ms-azureml-model-error-reason") != b""


def test_the_connections_own_headers_stay_with_the_connection() -> None:
    lines = [(b"connection", b"Close, X-One"), (b"connection", b"x-two"), (b"x-one", b"1"), (b"x-two", b"2")]
    head = Head([*lines, (b"x-three", b"3"), (b"authorization", b"Bearer abc"), (b"expect", b"100-continue")])
    assert headers_for_script(head, "id", None) == [
        ("x-three", "3"),
        ("x-request-id", "id"),
        ("x-ms-request-id", "id"),
    ]


def test_a_preflight_answers_only_the_origins_that_are_allowed() -> None:
    spec = script_spec("blue", cors_origins=("https://a",))
    assert dict(preflight(spec, [(b"origin", b"https://a")]))[b"access-control-allow-origin"] == b"https://a"
    assert preflight(spec, [(b"origin", b"https://b")]) == [(b"vary", b"Origin")]
    assert preflight(spec, []) == [(b"vary", b"Origin")]
