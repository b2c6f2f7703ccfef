"""The shapes around resources: errors, lists, operations, and the members that every resource has.

Errors have one shape whatever failed, because clients parse the body of every answer that is no success.
Units: seconds since 1970 in, RFC 3339 in UTC out.
Source: ARM's resource provider contract, and contract/azure-ml-endpoints.md sections 3 and 11. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from gateway.controlplane.store.records import Operation, Resource, Status
from gateway.errors import Code, Problem

# The code that clients of ARM know for each of ours. The HTTP status is ours.
_ARM_CODES = {
    Code.INVALID_INPUT: "InvalidInput",
    Code.UNAUTHENTICATED: "InvalidAuthenticationToken",
    Code.FORBIDDEN: "AuthorizationFailed",
    Code.NOT_FOUND: "ResourceNotFound",
    Code.METHOD_NOT_ALLOWED: "MethodNotAllowed",
    Code.DEADLINE_EXCEEDED: "RequestTimeout",
    Code.CONFLICT: "Conflict",
    Code.PRECONDITION_FAILED: "PreconditionFailed",
    Code.PAYLOAD_TOO_LARGE: "RequestEntityTooLarge",
    Code.URI_TOO_LONG: "RequestUriTooLong",
    Code.UNSUPPORTED_MEDIA_TYPE: "UnsupportedMediaType",
    Code.MODEL_FAILED: "BadArgument",
    Code.OVERLOADED: "TooManyRequests",
    Code.HEADERS_TOO_LARGE: "RequestHeaderFieldsTooLarge",
    Code.INTERNAL: "InternalServerError",
    Code.NOT_IMPLEMENTED: "NotImplemented",
    Code.UNAVAILABLE: "ServiceUnavailable",
    Code.VERSION_NOT_SUPPORTED: "HttpVersionNotSupported",
}


def arm_code(code: Code) -> str:
    """What ARM calls it."""
    return _ARM_CODES.get(code, "InternalServerError" if code.status >= 500 else "BadRequest")


def error_of(
    code: str, message: str, *, target: str | None = None, details: Iterable[tuple[str, str]] = ()
) -> dict[str, Any]:
    """An error's inside. `details`: a target ("" for none) and a message each."""
    return {
        "code": code,
        "message": message,
        "target": target,
        "details": [{"code": code, "message": said, "target": at or None} for at, said in details],
        "additionalInfo": [],
    }


def error_body(problem: Problem, *, target: str | None = None) -> dict[str, Any]:
    """The body of every answer that is no success. A detail "path: sentence" has the path as its target."""
    details = [_detail(one) for one in problem.details]
    return {"error": error_of(arm_code(problem.code), problem.message, target=target, details=details)}


def list_body(values: Sequence[dict[str, Any]], next_link: str | None = None) -> dict[str, Any]:
    """One page; `next_link` is the absolute URL of the next, None at the end."""
    return {"value": list(values), "nextLink": next_link or None}


def operation_body(operation: Operation, id_: str) -> dict[str, Any]:
    """What a client that polls an operation reads."""
    failed = operation.status in (Status.FAILED, Status.CANCELED)
    code = operation.error_code or (
        "OperationCanceled" if operation.status is Status.CANCELED else "InternalServerError"
    )
    message = operation.error_message or f"the operation ended as {operation.status}"
    return {
        "id": id_,
        "name": operation.id,
        "status": str(operation.status),
        "startTime": timestamp(operation.started_at),
        "endTime": None if operation.ended_at is None else timestamp(operation.ended_at),
        "percentComplete": 0.0 if operation.status is Status.IN_PROGRESS else 100.0,
        "error": error_of(code, message) if failed else None,
    }


def resource_body(resource: Resource, *, id_: str, type_: str, properties: dict[str, Any]) -> dict[str, Any]:
    """The members that every resource has. Those of one kind only (location, tags, sku) are added by its module."""
    return {
        "id": id_,
        "name": resource.name,
        "type": type_,
        "etag": f'"{resource.version}"',
        "systemData": system_data(resource),
        "properties": properties,
    }


def system_data(resource: Resource) -> dict[str, Any]:
    """Who made and who changed it, and when."""
    return {
        "createdAt": timestamp(resource.created_at),
        "createdBy": resource.created_by,
        "createdByType": "User",
        "lastModifiedAt": timestamp(resource.modified_at),
        "lastModifiedBy": resource.modified_by,
        "lastModifiedByType": "User",
    }


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC with microseconds: 2030-01-02T03:04:05.000006Z."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _detail(text: str) -> tuple[str, str]:
    path, separator, _ = text.partition(": ")
    is_path = bool(separator) and bool(path) and not any(one.isspace() for one in path)
    return (path if is_path else "", text)
