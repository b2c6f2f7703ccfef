"""Operations over REST: the headers that tell of one, and the two addresses at which it is asked about.

`Azure-AsyncOperation` answers how it goes, with 200 always; `Location` answers 202 while it runs and what came of it
once it has ended. Both are below the subscription, so that clients that build them find them too.
Source: ARM's asynchronous operations.
"""

from __future__ import annotations

from gateway.controlplane.arm.envelope import operation_body
from gateway.controlplane.rest.context import Call, Reply
from gateway.controlplane.rest.query import API_VERSION
from gateway.controlplane.store.records import Operation, Status
from gateway.errors import Code, Problem

LOCATION = "local"
DEFAULT_API_VERSION = "2023-04-01"
_AFTER = {"retry-after": "1"}
# Of one that has ended: ask now. In Azure's own header, for Retry-After knows no less than a second.
_AT_ONCE = {"retry-after-ms": "10"}
_TIMEOUT = {"x-ms-async-operation-timeout": "PT1H"}


def status_url(call: Call, operation: Operation) -> str:
    return _url(call, operation, "mfeOperationsStatus")


def headers(call: Call, operation: Operation, *, result: bool = False) -> dict[str, str]:
    """The headers of an answer to a change; `result`: with `Location` too. A change that has ended has them as well:
    some clients read a resource whole only at the end of an operation."""
    after = _AFTER if operation.status is Status.IN_PROGRESS else _AT_ONCE
    found = {"azure-asyncoperation": status_url(call, operation), **after, **_TIMEOUT}
    return found | {"location": _url(call, operation, "mfeOperationResults")} if result else found


async def status(call: Call) -> Reply:
    """GET .../mfeOperationsStatus/{operation}"""
    operation = await _operation(call)
    after = _AFTER if operation.status is Status.IN_PROGRESS else {}
    return Reply(body=operation_body(operation, _path(call, operation, "mfeOperationsStatus")), headers=after)


async def result(call: Call) -> Reply:
    """GET .../mfeOperationResults/{operation}"""
    operation = await _operation(call)
    match operation.status:
        case Status.IN_PROGRESS:
            return Reply(status=202, headers=headers(call, operation, result=True))
        case Status.SUCCEEDED:
            return Reply(status=204)
        case _:
            reason = operation.error_message or f"the operation ended as {operation.status}"
            raise Problem(Code.INVALID_INPUT, f"the operation ({operation.action}) failed: {reason}")


async def _operation(call: Call) -> Operation:
    name = call.params["operation"]
    operation = await call.control.operation(name)
    if operation is None:
        raise Problem(
            Code.NOT_FOUND, f"there is no operation {name!r}; operations are forgotten some days after they ended"
        )
    return operation


def _url(call: Call, operation: Operation, kind: str) -> str:
    version = call.query.text(API_VERSION) or DEFAULT_API_VERSION
    return f"{call.base}{_path(call, operation, kind)}?api-version={version}"


def _path(call: Call, operation: Operation, kind: str) -> str:
    subscription = call.params["subscription"]
    place = f"providers/Microsoft.MachineLearningServices/locations/{LOCATION}"
    return f"/subscriptions/{subscription}/{place}/{kind}/{operation.id}"
