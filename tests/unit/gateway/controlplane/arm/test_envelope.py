"""What is around resources has the members that clients read."""

from __future__ import annotations

import pytest

from gateway.controlplane.arm import envelope
from gateway.controlplane.store.records import Operation, Status
from gateway.errors import Code, Problem


def test_every_failure_has_an_arm_code_and_the_one_shape() -> None:
    for code in Code:
        body = envelope.error_body(Problem(code, "it failed"))["error"]
        assert body["code"][0].isupper() and body["code"].isalnum()
        assert body == {
            "code": envelope.arm_code(code),
            "message": "it failed",
            "target": None,
            "details": [],
            "additionalInfo": [],
        }
    assert envelope.arm_code(Code.NOT_FOUND) == "ResourceNotFound"


def test_a_detail_has_the_path_that_it_begins_with_as_its_target() -> None:
    problem = Problem(Code.INVALID_INPUT, "no", details=("properties.a: found 1", "what is this: no path", "plain"))
    details = envelope.error_body(problem, target="sku")["error"]["details"]
    assert [one["target"] for one in details] == ["properties.a", None, None]
    assert [one["message"] for one in details] == list(problem.details)
    assert envelope.error_body(problem, target="sku")["error"]["target"] == "sku"


def test_a_list_ends_with_null() -> None:
    assert envelope.list_body([{"id": 1}]) == {"value": [{"id": 1}], "nextLink": None}
    assert envelope.list_body([], "https://g/next")["nextLink"] == "https://g/next"


@pytest.mark.parametrize(
    ("status", "ended", "percent", "error"),
    [
        (Status.IN_PROGRESS, None, 0.0, None),
        (Status.SUCCEEDED, 2.5, 100.0, None),
        (Status.FAILED, 2.5, 100.0, ("InternalServerError", "the operation ended as Failed")),
        (Status.CANCELED, 2.5, 100.0, ("OperationCanceled", "the operation ended as Canceled")),
    ],
)
def test_an_operation_says_how_far_it_is(
    status: Status, ended: float | None, percent: float, error: tuple[str, str] | None
) -> None:
    operation = Operation(id="1", action="create", status=status, actor="ann", started_at=1.0, ended_at=ended)
    body = envelope.operation_body(operation, "/id")
    assert (body["id"], body["name"], body["status"], body["percentComplete"]) == ("/id", "1", status.value, percent)
    assert body["startTime"] == "1970-01-01T00:00:01.000000Z"
    assert body["endTime"] == (None if ended is None else "1970-01-01T00:00:02.500000Z")
    assert (body["error"] and (body["error"]["code"], body["error"]["message"])) == error


def test_a_failed_operation_says_why() -> None:
    operation = Operation(
        id="1",
        action="create",
        status=Status.FAILED,
        error_code="BadArgument",
        error_message="no",
        actor="a",
        started_at=0,
        ended_at=1,
    )
    assert envelope.operation_body(operation, "/id")["error"]["code"] == "BadArgument"
    assert envelope.operation_body(operation, "/id")["error"]["message"] == "no"
