"""One request through a script: its answer, whatever happens."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest

from runtimes.script.worker_lib.igw_worker.forms import Answer
from runtimes.script.worker_lib.igw_worker.host import (
    FAILED_RUN,
    Leave,
    ScriptHost,
    event_line,
    head_of,
    origins_of,
    timeout_of,
)
from runtimes.script.worker_lib.igw_worker.script import UserScript
from runtimes.script.worker_lib.igw_worker.shims.aml_request import RawHttp


def module_of(**members: Any) -> ModuleType:
    module = ModuleType("entry_module")
    vars(module).update({"init": lambda: None, **members})
    return module


def host_of(run: Any, **options: Any) -> ScriptHost:
    options.setdefault("max_result_bytes", 1000)
    return ScriptHost(UserScript("score.py", module_of(run=run)), **options)


def head(method: str = "POST", target: str = "/score", **headers: str) -> dict[str, Any]:
    lines = [[name.replace("_", "-"), value] for name, value in headers.items()]
    return {"method": method, "target": target, "headers": lines}


def message(answer: Answer) -> str:
    return str(json.loads(answer.body)["message"])


def headers_of(answer: Answer) -> Mapping[str, str]:
    return dict(answer.headers)


def test_an_answer_names_its_host_and_its_time() -> None:
    answer = host_of(lambda raw: raw.upper(), server_version="igw/9").handle(head(), b"abc")
    assert answer.body == b'"ABC"'
    assert headers_of(answer)["x-ms-server-version"] == "igw/9"
    told = head_of(answer)
    assert (told["status"], told["failed"]) == (200, False)
    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize("name", ["x-request-id", "x-ms-request-id", "x-ms-client-request-id"])
def test_an_id_that_is_too_long_is_refused(name: str) -> None:
    host = host_of(lambda raw: raw)
    lines = {"method": "POST", "target": "/score", "headers": [[name, "a" * 101]]}
    answer = host.handle(lines, b"")
    assert (answer.status, message(answer)) == (431, f"{name} must not exceed 100 characters")
    lines["headers"] = [[name, "a" * 100]]
    assert host.handle(lines, b"").status == 200


def test_what_does_not_fit_run_is_refused() -> None:
    answer = host_of(lambda raw: raw).handle(head("PUT"), b"")
    assert (answer.status, message(answer), answer.failed) == (405, "Method not allowed", False)
    assert headers_of(answer)["x-ms-run-function-failed"] == "False"


def test_an_exception_is_a_failure_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    def run(raw: str) -> None:
        raise ValueError("secret")

    answer = host_of(run).handle(head(), b"")
    assert (answer.status, message(answer), answer.failed) == (500, FAILED_RUN, True)
    assert headers_of(answer)["x-ms-run-function-failed"] == "True"
    assert "ValueError: secret" in caplog.text


def test_a_script_that_exits_is_answered_first() -> None:
    def run(raw: str) -> None:
        raise SystemExit(raw and int(raw))

    host = host_of(run, server_version="v")
    for body, code in ((b"4", 4), (b"", 1)):
        with pytest.raises(Leave) as leave:
            host.handle(head(), body)
        assert leave.value.code == code
        assert leave.value.answer.failed
        assert headers_of(leave.value.answer)["x-ms-server-version"] == "v"


def test_a_result_has_a_bound() -> None:
    host = host_of(lambda raw: "x" * int(raw), max_result_bytes=10)
    assert host.handle(head(), b"8").status == 200
    answer = host.handle(head(), b"9")
    assert (answer.status, answer.failed) == (500, True)
    assert message(answer) == "The result has 11 bytes; at most 10 can be answered."


def test_a_result_that_is_not_json_is_a_failure() -> None:
    answer = host_of(lambda raw: {1}).handle(head(), b"")
    assert (answer.status, answer.failed) == (500, True)
    assert message(answer) == "An unexpected internal error occurred. Check the logs for more info."


def test_what_no_rule_foresaw_is_a_bad_request(monkeypatch: pytest.MonkeyPatch) -> None:
    host = host_of(lambda raw: raw)
    assert host.handle(head("GET", "/score?" + "&".join("a" * 3 for _ in range(5))), b"").status == 200

    def broken(*_: Any) -> None:
        raise ValueError("odd")

    monkeypatch.setattr("runtimes.script.worker_lib.igw_worker.forms.Form.arguments", broken)
    assert host.handle(head(), b"").status == 400


def test_a_scoring_timeout_is_told_and_the_timer_stopped() -> None:
    def run(raw: str) -> None:
        while raw:
            pass

    host = host_of(run, timeout_ms=20)
    answer = host.handle(head(), b"x")
    assert (answer.status, message(answer), answer.failed) == (500, "Scoring timeout after 20 ms", True)
    assert host.handle(head(), b"").status == 200


def test_a_timeout_of_the_scripts_own_is_a_failure() -> None:
    def run(raw: str) -> None:
        raise TimeoutError

    assert message(host_of(run, timeout_ms=1000).handle(head(), b"")) == FAILED_RUN


def test_options_need_cors_and_a_raw_run_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = host_of(lambda raw: raw).handle(head("OPTIONS"), b"")
    assert (answer.status, message(answer)) == (405, "Method not allowed")
    monkeypatch.setattr(RawHttp, "wanted", True)
    assert host_of(lambda request: request.method).handle(head("OPTIONS"), b"").body == b'"OPTIONS"'


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        ("*", "https://any.example", True),
        ("https://a.example", "https://A.example", True),
        ("https://a.example", "https://b.example", False),
        ("https://b.example,https://.*\\.example", "https://b.c.example", True),
        ("https://(", "https://(", False),
        ("*", "", False),
    ],
)
def test_cors_answers_origins_that_are_named(origins: str, origin: str, allowed: bool) -> None:
    host = host_of(lambda raw: raw, cors_origins=origins_of(origins))
    headers = headers_of(host.handle(head(origin=origin), b""))
    assert headers.get("access-control-allow-origin") == (origin if allowed else None)
    assert headers["vary"] == "Origin"
    preflight = headers_of(host.handle(head("OPTIONS", origin=origin), b""))
    assert ("access-control-allow-methods" in preflight) is allowed
    assert "access-control-allow-headers" not in preflight


def test_the_access_line_has_method_path_status_time_and_length(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "azmlinfsrv"):
        host_of(lambda raw: raw).log_access(head("GET", "/score?"), Answer(201, b"12345"), 1.5)
    assert caplog.messages == ["GET /score 201 1.500ms 5"]


def test_settings_are_read() -> None:
    assert timeout_of(" ") is None
    assert timeout_of("250") == 250
    for wrong in ("0", "-1", "1.5", "x"):
        with pytest.raises(ValueError):
            timeout_of(wrong)
    assert origins_of(" a , ,b") == ("a", "b")
    assert event_line({"event": "é"}) == b'{"event": "\\u00e9"}\n'
