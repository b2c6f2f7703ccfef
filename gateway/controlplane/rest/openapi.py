"""The management listener's OpenAPI 3.1 document, made from the route table: what is asked, accepted and answered.

The same for every gateway of this version; asset storage below /blob is Azure Blob Storage's language and is not in
it. Pure. Errors: none.
"""

from __future__ import annotations

import re
from typing import Any

from gateway.controlplane.rest.query import API_VERSION, Parameter
from gateway.controlplane.rest.router import NAMES, SCOPES, Route
from gateway.controlplane.rest.schemas import schemas
from gateway.controlplane.rest.table import ROUTES

Document = dict[str, Any]

# What any route may answer, and what it takes to do so.
_ALWAYS = (400, 500, 503)
_MEANINGS = {
    200: "Done.",
    201: "Made.",
    202: "Accepted; the operation goes on.",
    204: "There was nothing to do, or nothing to tell.",
    304: "The reader has this version.",
    400: "The request cannot be read, or asks for what cannot be.",
    401: "No valid management credential.",
    403: "The caller's role does not allow it.",
    404: "There is no such thing.",
    409: "It is being changed, is in use, or is there already.",
    412: "It does not have the ETag that was asked for.",
    413: "The body is too large.",
    415: "The body is no plain JSON.",
    429: "Too many do so already.",
    500: "The gateway failed; its log has the cause under the request id.",
    503: "The store does not answer now; try again.",
}
_HEADERS: Document = {
    "RequestId": {"description": "The request's GUID, as in the log.", "schema": {"type": "string"}},
    "CorrelationId": {"description": "The caller's, or the request's.", "schema": {"type": "string"}},
    "ETag": {"description": "The version of what is told.", "schema": {"type": "string"}},
    "AsyncOperation": {"description": "The URL to ask how the operation goes.", "schema": {"type": "string"}},
    "Location": {"description": "The URL to ask what came of the operation.", "schema": {"type": "string"}},
    "RetryAfter": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}},
    "Authenticate": {"description": "Which credentials are taken.", "schema": {"type": "string"}},
}
_REFUSALS = tuple(status for status in _MEANINGS if status >= 400)
_CONDITIONS = ("If-Match", "If-None-Match")
_MORE_HEADERS = {
    "etag": {"ETag": "ETag"},
    "retry": {"Retry-After": "RetryAfter"},
    "operation": {"Azure-AsyncOperation": "AsyncOperation", "Location": "Location", "Retry-After": "RetryAfter"},
}


def management_openapi() -> Document:
    """The document."""
    paths: Document = {}
    for route in ROUTES:
        item = paths.setdefault(route.template, _item(route))
        item[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Inference Gateway: management",
            "version": "1",
            "description": "Endpoints, deployments and assets in the shapes of Azure Resource Manager, and the "
            "gateway's own routes. Path segments are matched whatever their case; any api-version is taken; HEAD is "
            "GET without its body, OPTIONS tells what is allowed.",
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A management token, or a token of the issuer that people use.",
                }
            },
            "schemas": schemas(),
            "parameters": _parameters(),
            "responses": {str(status): _refusal(status) for status in _REFUSALS},
            "headers": _HEADERS,
        },
    }


def _item(route: Route) -> Document:
    """What all operations of a path share."""
    named = [_ref("parameters", _path_key(name)) for name in route.parameters]
    return {"parameters": named} if named else {}


def _operation(route: Route) -> Document:
    operation: Document = {
        "operationId": route.operation_id or _operation_id(route),
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": [_ref("parameters", key) for key in _keys(route)],
        "responses": _responses(route),
    }
    if route.role is None:
        operation["security"] = []
    else:
        operation["description"] = f"Needs the role {route.role.text}."
    if route.body:
        operation["requestBody"] = {"required": route.needs_body, "content": _json(route.body)}
    return operation


def _keys(route: Route) -> list[str]:
    keys = [_query_key(one) for one in (*route.query, API_VERSION)]
    return [*keys, *_CONDITIONS] if 412 in route.refusals else keys


def _operation_id(route: Route) -> str:
    """The method and the segments that tell: getOnlineEndpointsDeployment."""
    segments = route.segments[8:] if len(route.segments) > 8 else route.segments
    words = [re.sub(r"[^A-Za-z0-9]", " ", one).title().replace(" ", "") for one in map(_word, segments)]
    return route.method.lower() + ("".join(words) or "Root")


def _word(segment: str) -> str:
    """A segment's own capitals are kept apart, so that onlineEndpoints is OnlineEndpoints."""
    return re.sub(r"([A-Z])", r" \1", segment)


def _parameters() -> Document:
    """All that routes share, by the keys that `_path_key` and `_query_key` give."""
    found = {_path_key(name): _path(name) for route in ROUTES for name in route.parameters}
    asked = {_query_key(one): _query(one) for route in ROUTES for one in (*route.query, API_VERSION)}
    conditions = {name: _condition(name) for name in _CONDITIONS}
    return dict(sorted((found | asked | conditions).items()))


def _path_key(name: str) -> str:
    return f"path-{name}"


def _query_key(parameter: Parameter) -> str:
    return f"query-{parameter.name.replace('$', '_')}"


def _path(name: str) -> Document:
    takes = NAMES[name]
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": f"The {takes.what}: {takes.accepts}.",
        "schema": {"type": "string", "pattern": takes.pattern},
    }


def _query(parameter: Parameter) -> Document:
    return {"name": parameter.name, "in": "query", "description": parameter.what, "schema": parameter.schema()}


def _condition(name: str) -> Document:
    return {"name": name, "in": "header", "description": "ETags, or *.", "schema": {"type": "string"}}


def _responses(route: Route) -> Document:
    responses: Document = {}
    for status, schema in route.answers.items():
        responses[str(status)] = _answer(route, status, schema)
    for status in sorted({*_ALWAYS, *_refusals(route)} - set(route.answers)):
        responses[str(status)] = _ref("responses", str(status))
    return dict(sorted(responses.items()))


def _refusals(route: Route) -> set[int]:
    found = set(route.refusals)
    if route.role is not None:
        found |= {401, 403}
    if route.body:
        found |= {413, 415}
    is_about_one = any(name not in SCOPES for name in route.parameters)
    return found | {404} if is_about_one or not route.answers else found


def _answer(route: Route, status: int, schema: str) -> Document:
    headers = {"x-ms-request-id": "RequestId", "x-ms-correlation-request-id": "CorrelationId"}
    for name in route.headers:
        headers |= _MORE_HEADERS[name]
    answer: Document = {
        "description": _MEANINGS[status],
        "headers": {name: _ref("headers", header) for name, header in headers.items()},
    }
    return answer | ({"content": _content(schema, route.media_type)} if schema else {})


def _refusal(status: int) -> Document:
    headers = {"x-ms-request-id": "RequestId"}
    headers |= {"WWW-Authenticate": "Authenticate"} if status == 401 else {}
    headers |= {"Retry-After": "RetryAfter"} if status in (429, 503) else {}
    return {
        "description": _MEANINGS[status],
        "headers": {name: _ref("headers", header) for name, header in headers.items()},
        "content": _json("Error"),
    }


def _json(schema: str) -> Document:
    return _content(schema, "application/json")


def _content(schema: str, media_type: str) -> Document:
    return {media_type: {"schema": _ref("schemas", schema)}}


def _ref(kind: str, name: str) -> Document:
    return {"$ref": f"#/components/{kind}/{name}"}
