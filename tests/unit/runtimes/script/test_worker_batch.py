"""run_batch(): how it may be declared, what each request of a batch is answered, and what one failure costs."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from runtimes.script.worker_lib.igw_worker.batch import Batches, Listener
from runtimes.script.worker_lib.igw_worker.forms import Answer
from runtimes.script.worker_lib.igw_worker.host import FAILED_RUN, ScriptHost
from runtimes.script.worker_lib.igw_worker.parcel import Part, pack, unpack
from runtimes.script.worker_lib.igw_worker.script import StartFailed, UserScript
from runtimes.script.worker_lib.igw_worker.shims.aml_request import RawHttp
from runtimes.script.worker_lib.igw_worker.shims.aml_response import AMLResponse
from runtimes.script.worker_lib.igw_worker.wire import BadFrame


class Told(Listener):
    """`answers` by number; `runs` are (rows, failed); `until` the deadlines that were noted."""

    def __init__(self) -> None:
        self.answered: dict[int, Answer] = {}
        self.expired: list[int] = []
        self.runs: list[tuple[int, bool]] = []
        self.until: list[int] = []

    def begins(self, deadline_ns: int) -> None:
        self.until.append(deadline_ns)

    def ran(self, rows: int, run_ms: float, failed: bool) -> None:
        self.runs.append((rows, failed))

    def answers(self, part: Part, answer: Answer) -> None:
        assert part.request_id not in self.answered
        self.answered[part.request_id] = answer

    def expires(self, part: Part) -> None:
        self.expired.append(part.request_id)

    @property
    def values(self) -> list[Any]:
        return [json.loads(self.answered[number].body) for number in sorted(self.answered)]

    @property
    def statuses(self) -> list[int]:
        return [self.answered[number].status for number in sorted(self.answered)]


def script_of(**members: Any) -> UserScript:
    module = ModuleType("entry_module")
    vars(module).update({"init": lambda: None, **members})
    return UserScript("score.py", module)


def part(number: int, body: bytes = b"x", deadline_ns: int = 0, method: str = "POST", **headers: str) -> Part:
    lines = [[name.replace("_", "-"), value] for name, value in headers.items()]
    head = {"method": method, "target": "/score", "headers": lines, "deadline_ns": deadline_ns}
    return Part(number, 0, head, body)


def served(run_batch: Callable[..., Any], *parts: Part, **options: Any) -> tuple[Told, int | None]:
    script = script_of(run_batch=run_batch)
    assert script.batch is not None
    told = Told()
    host = ScriptHost(script, max_result_bytes=1000, **options)
    return told, Batches(script.batch, host).serve(parts, told)


def test_each_request_gets_its_own_result() -> None:
    def run_batch(batch: list[str]) -> list[Any]:
        return [None, {"was": batch[1]}, AMLResponse("no", 404)]

    told, code = served(run_batch, part(1, b"a"), part(2, "ü".encode()), part(3, b"c"), server_version="v")
    assert (told.statuses, code) == ([200, 200, 404], None)
    assert json.loads(told.answered[2].body) == {"was": "ü"}
    assert told.runs == [(3, False)]
    for answer in told.answered.values():
        headers = dict(answer.headers)
        assert headers["x-ms-server-version"] == "v"
        assert float(headers["x-ms-run-fn-exec-ms"]) == round(answer.run_ms, 3)


def test_a_tuple_will_do() -> None:
    assert served(lambda batch: tuple(batch), part(1, b"a"))[0].values == ["a"]


def test_headers_come_as_a_list_beside_the_batch() -> None:
    def run_batch(batch: list[str], request_headers: list[dict[str, str]]) -> list[str]:
        return [one["X-Who"] for one in request_headers]

    assert served(run_batch, part(1, x_who="a"), part(2, x_who="b"))[0].values == ["a", "b"]


def test_a_batch_is_the_scripts_to_use_up() -> None:
    def run_batch(batch: list[str], request_headers: list[dict[str, str]]) -> list[str]:
        request_headers.clear()
        return [batch.pop(0) for _ in range(len(batch))]

    assert served(run_batch, part(1, b"a"), part(2, b"b"))[0].values == ["a", "b"]


def test_what_cannot_be_given_to_run_is_refused_and_the_rest_is_run() -> None:
    told, _ = served(lambda batch: batch, part(1, b"\xff"), part(2, b"ok"), part(3, x_request_id="i" * 101))
    assert told.statuses == [400, 200, 431]
    assert told.runs == [(1, False)]
    told, _ = served(lambda batch: batch, part(1, b"\xff"))
    assert (told.statuses, told.runs) == ([400], [])


def test_one_poisoned_request_fails_alone_and_each_is_tried_once_more() -> None:
    calls = []

    def run_batch(batch: list[str]) -> list[str]:
        calls.append(batch)
        if "bad" in batch:
            raise ValueError("secret")
        return batch

    told, _ = served(run_batch, part(1, b"a"), part(2, b"bad"), part(3, b"c"))
    assert told.statuses == [200, 500, 200]
    assert json.loads(told.answered[2].body) == {"message": FAILED_RUN}
    assert calls == [["a", "bad", "c"], ["a"], ["bad"], ["c"]]
    assert told.runs == [(3, True), (1, False), (1, True), (1, False)]


def test_a_lone_request_that_fails_is_not_tried_again() -> None:
    told, _ = served(lambda batch: 1 / 0, part(1))
    assert (told.statuses, told.runs) == ([500], [(1, True)])


def test_who_is_too_late_by_then_is_not_tried_again() -> None:
    def run_batch(batch: list[str]) -> list[str]:
        if len(batch) > 1:
            raise ValueError
        return batch

    late_ns = time.monotonic_ns()
    told, _ = served(run_batch, part(1, b"a", deadline_ns=late_ns), part(2, b"b", deadline_ns=late_ns + 10**12))
    assert (told.expired, told.statuses, told.values) == ([1], [200], ["b"])


def test_a_batch_may_run_until_its_last_deadline_and_each_alone_until_its_own() -> None:
    def run_batch(batch: list[str]) -> list[str]:
        raise ValueError

    far_ns = time.monotonic_ns() + 10**12
    told, _ = served(run_batch, part(1, deadline_ns=far_ns), part(2, deadline_ns=far_ns + 5))
    assert told.until == [far_ns + 5, far_ns, far_ns + 5]
    told, _ = served(lambda batch: batch, part(1, deadline_ns=far_ns), part(2))
    assert told.until == [0]


def test_an_exception_as_a_result_fails_its_request_alone(caplog: pytest.LogCaptureFixture) -> None:
    told, _ = served(lambda batch: [1, ValueError("mine"), 3], part(1), part(2), part(3))
    assert told.statuses == [200, 500, 200]
    assert told.runs == [(3, False)]
    assert "ValueError: mine" in caplog.text
    assert b"mine" not in told.answered[2].body


def test_what_json_does_not_know_and_what_is_too_large_fails_alone() -> None:
    told, _ = served(lambda batch: [1, object(), "x" * 2000], part(1), part(2), part(3))
    assert told.statuses == [200, 500, 500]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1], "returned 1 results for 2 requests"),
        ([1, 2, 3], "returned 3 results for 2 requests"),
        ({"a": 1, "b": 2}, "returned dict; it must return a list of 2"),
        (None, "returned NoneType"),
        ("ab", "returned str"),
    ],
)
def test_a_result_of_the_wrong_shape_fails_all_once(value: Any, said: str, caplog: pytest.LogCaptureFixture) -> None:
    told, _ = served(lambda batch: value, part(1), part(2))
    assert (told.statuses, told.runs) == ([500, 500], [(2, True)])
    assert said in caplog.text


def test_a_scoring_timeout_holds_for_the_batch_and_for_each_alone() -> None:
    def run_batch(batch: list[str]) -> list[str]:
        while "bad" in batch:
            pass
        return batch

    told, _ = served(run_batch, part(1, b"a"), part(2, b"bad"), timeout_ms=20)
    assert told.statuses == [200, 500]
    assert json.loads(told.answered[2].body) == {"message": "Scoring timeout after 20 ms"}


def test_a_script_that_leaves_answers_all_before() -> None:
    def run_batch(batch: list[str]) -> list[str]:
        raise SystemExit(9)

    told, code = served(run_batch, part(1), part(2))
    assert (told.statuses, code, told.runs) == ([500, 500], 9, [(2, True)])


def test_a_script_that_leaves_when_asked_again_answers_all_before() -> None:
    def run_batch(batch: list[str]) -> list[str]:
        if len(batch) > 1:
            raise ValueError
        if batch == ["bad"]:
            raise SystemExit(4)
        return batch

    told, code = served(run_batch, part(1, b"a"), part(2, b"bad"), part(3, b"c"))
    assert (told.statuses, code) == ([200, 500, 500], 4)


# How it is declared.


def test_without_run_a_request_alone_is_a_batch_of_one() -> None:
    script = script_of(run_batch=lambda batch, request_headers: [[batch, len(request_headers)]])
    host = ScriptHost(script, max_result_bytes=1000)
    answer = host.handle({"method": "GET", "target": "/score?a=1", "headers": []}, b"")
    assert json.loads(answer.body) == [['{"a": 1}'], 1]


@pytest.mark.parametrize(("value", "status"), [([ValueError()], 500), ([], 500), (3, 500), (["ok"], 200)])
def test_without_run_a_request_alone_fails_as_in_a_batch(value: Any, status: int) -> None:
    host = ScriptHost(script_of(run_batch=lambda batch: value), max_result_bytes=1000)
    assert host.handle({"method": "POST", "target": "/score", "headers": []}, b"").status == status


def test_run_stays_what_it_is_beside_run_batch() -> None:
    script = script_of(run=lambda raw: "one", run_batch=lambda batch: batch)
    assert script.run("x") == "one"
    assert script_of(run=lambda raw: raw, run_batch=3).batch is None


@pytest.mark.parametrize(
    ("run_batch", "found"),
    [
        (list, "()"),
        (lambda a, b: [], "(a, b)"),
        (lambda *batch: [], "(*batch)"),
        (lambda request_headers: [], "(request_headers)"),
        (lambda batch, **more: [], "(batch, **more)"),
    ],
)
def test_a_run_batch_that_no_batch_can_be_given_to_does_not_start(run_batch: Any, found: str) -> None:
    with pytest.raises(StartFailed) as failed:
        script_of(run_batch=run_batch)
    assert failed.value.code == "BadArgument"
    assert "takes one list, and request_headers where it wants them" in failed.value.message
    assert found in failed.value.message


def test_rawhttp_and_run_batch_do_not_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RawHttp, "wanted", True)
    with pytest.raises(StartFailed, match="@rawhttp the request itself; keep one of them"):
        script_of(run=lambda request: 1, run_batch=lambda batch: batch)


def test_a_schema_and_run_batch_do_not_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    class Schemas:
        @staticmethod
        def is_schema_decorated(run: Any) -> bool:
            return True

    monkeypatch.setitem(__import__("sys").modules, "inference_schema.schema_util", Schemas)
    with pytest.raises(StartFailed, match="which @input_schema does not convert"):
        script_of(run=lambda data: 1, run_batch=lambda batch: batch)


# How many requests travel.


def test_a_parcel_travels_whole() -> None:
    parts = [part(1 << 60, "ä".encode(), 5), part(2, b""), part(3, bytes(range(256)))]
    parts[1].due_ns = 9
    found = unpack(pack(parts))
    assert [(one.request_id, one.due_ns, one.head, bytes(one.body)) for one in found] == [
        (one.request_id, one.due_ns, one.head, bytes(one.body)) for one in parts
    ]
    assert [one.deadline_ns for one in found] == [5, 9, 0]


@pytest.mark.parametrize("cut", [0, 3, 4, 20, 40, -1])
def test_a_parcel_that_does_not_fit_its_numbers_is_no_parcel(cut: int) -> None:
    with pytest.raises(BadFrame, match="a parcel of"):
        unpack(bytes(pack([part(1, b"body")]))[:cut])


def test_a_parcel_with_more_than_it_tells_of_or_nothing_is_no_parcel() -> None:
    with pytest.raises(BadFrame, match="entries tell of 1 requests"):
        unpack(bytes(pack([part(1)])) + b"x")
    with pytest.raises(BadFrame):
        unpack(pack([]))


def test_the_failure_of_a_batch_is_in_the_log_once_with_what_follows(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "azmlinfsrv"):
        served(lambda batch: [1 / 0], part(1), part(2))
    assert "run_batch() failed for 2 requests; each of them is run alone" in caplog.text
