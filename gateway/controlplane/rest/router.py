"""The route table's types, and which route a request's path means.

A template is literal segments, matched whatever their case, and `{parameters}`, whose text is kept as it was sent.
Percent-escapes are decoded once and strictly: a segment is text without control characters, slashes or backslashes.
Where a template begins with `{ws}`, it is the ARM path of a workspace.
Errors: Problem: 400 for a path that cannot be read, 404, and 405 with `Allow`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from urllib.parse import unquote_to_bytes

from gateway.controlplane.authorize import Role
from gateway.controlplane.rest.context import BODY_BYTES_MAX, Call, Reply
from gateway.controlplane.rest.query import Parameter
from gateway.errors import Code, Problem

WORKSPACE = (
    "/subscriptions/{subscription}/resourceGroups/{group}"
    "/providers/Microsoft.MachineLearningServices/workspaces/{workspace}"
)
# The same with the prefix that clients put before it when they take the address from the discovery document.
FRONT_END = f"/mferp/managementfrontend{WORKSPACE}"
HISTORY = f"/history/v1.0{WORKSPACE}"

PATH_BYTES_MAX = 8 * 1024

_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")

Handler = Callable[[Call], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Name:
    """What a path parameter takes."""

    pattern: str
    what: str
    accepts: str


_ENDPOINT = Name(
    r"^[A-Za-z][-A-Za-z0-9]{1,30}[A-Za-z0-9]$",
    "",
    "3 to 32 letters, digits and dashes, a letter first and no dash at the end",
)
_SCOPE = Name(
    r"^[A-Za-z0-9_(][-A-Za-z0-9_.()]{0,89}$", "", "1 to 90 letters, digits, dashes, dots, underscores and parentheses"
)
_ASSET = Name(
    r"^[A-Za-z0-9][-A-Za-z0-9_.]{0,254}$",
    "",
    "1 to 255 letters, digits, dashes, dots and underscores, a letter or digit first",
)

_TOKEN = Name(
    r"^[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?$",
    "",
    "1 to 63 letters, digits, dashes, dots and underscores, with a letter or digit at both ends",
)
_ROLLOUT = Name(
    r"^[A-Za-z0-9]([-_A-Za-z0-9]{0,62}[A-Za-z0-9])?$",
    "",
    "1 to 64 letters, digits, dashes and underscores, with a letter or digit at both ends",
)


def _as(name: Name, what: str) -> Name:
    return Name(name.pattern, what, name.accepts)


NAMES: Mapping[str, Name] = {
    "subscription": _as(_SCOPE, "subscription"),
    "group": _as(_SCOPE, "resource group"),
    "workspace": _as(_SCOPE, "workspace"),
    "location": _as(_SCOPE, "location"),
    "endpoint": _as(_ENDPOINT, "endpoint"),
    "deployment": _as(_ENDPOINT, "deployment"),
    "rollout": _as(_ROLLOUT, "rollout"),
    "asset": _as(_ASSET, "asset"),
    "version": _as(_ASSET, "version"),
    "datastore": _as(_ASSET, "datastore"),
    "compute": _as(_ASSET, "compute"),
    "job": _as(_ASSET, "job"),
    "operation": _as(_ASSET, "operation"),
    "token": _as(_TOKEN, "management token"),
}
# These are refused with 400 whatever is done with them; any other name that cannot be is one that is not there.
SCOPES = ("subscription", "group", "workspace", "location")


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. `body` and the values of `answers` name schemas (rest/schemas.py); "" is no content.

    `role` None: no credentials are asked for. `refusals`: statuses beside those every route has."""

    method: str
    template: str
    handler: Handler
    role: Role | None
    summary: str
    tag: str
    answers: Mapping[int, str]
    _: KW_ONLY
    query: tuple[Parameter, ...] = ()
    body: str = ""
    needs_body: bool = False
    body_bytes_max: int = BODY_BYTES_MAX
    refusals: tuple[int, ...] = ()
    # What answers have beside the headers of all: "etag", "operation", "retry"; see rest/openapi.py.
    headers: tuple[str, ...] = ()
    media_type: str = "application/json"
    # "": made from method and template.
    operation_id: str = ""

    @property
    def segments(self) -> tuple[str, ...]:
        return tuple(self.template.split("/")[1:])

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(one[1:-1] for one in self.segments if one.startswith("{"))


@dataclass(slots=True)
class _Node:
    """Where a path may go on. A segment is looked up as a literal first, and is a parameter otherwise."""

    literals: dict[str, _Node] = field(default_factory=dict)
    parameter: _Node | None = None
    routes: dict[str, Route] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """The route of a request, and what its path names, as it was sent."""

    route: Route
    params: dict[str, str]


class Router:
    """Made once from the table."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        for route in routes:
            self._add(route)

    def find(self, method: str, raw_path: bytes) -> Found:
        """HEAD means GET."""
        segments = segments_of(raw_path)
        node = self._node(segments)
        if node is None or not node.routes:
            shown = "/" + "/".join(segments)
            raise Problem(Code.NOT_FOUND, f"there is no {shown[:400]!r}; GET /openapi.json tells what there is")
        route = node.routes.get("GET" if method == "HEAD" else method)
        if route is None:
            raise _not_allowed(method, node)
        return Found(route, _params(route, segments))

    def methods(self, raw_path: bytes) -> str:
        """What is allowed on a path, as the header `Allow` has it; "" where there is nothing."""
        node = self._node(segments_of(raw_path))
        return _allowed(node) if node is not None and node.routes else ""

    def _node(self, segments: list[str]) -> _Node | None:
        node: _Node | None = self._root
        for segment in segments:
            assert node is not None
            node = node.literals.get(segment.lower(), node.parameter if segment else None)
            if node is None:
                return None
        return node

    def _add(self, route: Route) -> None:
        node = self._root
        for segment in route.segments:
            if segment.startswith("{"):
                assert segment[1:-1] in NAMES, f"{route.template}: NAMES does not say what {segment} takes"
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literals.setdefault(segment.lower(), _Node())
        assert route.method not in node.routes, f"{route.method} {route.template} is there twice"
        node.routes[route.method] = route


def segments_of(raw_path: bytes) -> list[str]:
    """A path's segments, decoded. Errors: Problem."""
    if len(raw_path) > PATH_BYTES_MAX:
        raise Problem(Code.URI_TOO_LONG, f"the path has {len(raw_path)} bytes; at most {PATH_BYTES_MAX} are taken")
    return [_decoded(segment) for segment in raw_path.split(b"/")[1:]]


def _decoded(segment: bytes) -> str:
    if b"%" in segment:
        if _ESCAPE.search(segment):
            raise _bad_segment(segment, "an escape that is not % and two hexadecimal digits")
        segment = unquote_to_bytes(segment)
    try:
        text = segment.decode("utf-8")
    except UnicodeDecodeError:
        raise _bad_segment(segment, "bytes that are not UTF-8") from None
    if any(char in "/\\" or not char.isprintable() for char in text):
        raise _bad_segment(segment, "a slash, a backslash or a character that cannot be shown")
    if text in (".", ".."):
        raise _bad_segment(segment, "nothing but dots")
    return text


def _bad_segment(segment: bytes, why: str) -> Problem:
    shown = repr(segment[:60])[1:]
    return Problem(
        Code.INVALID_INPUT, f"the path has the segment {shown} with {why}; names in plain text are accepted"
    )


def _allowed(node: _Node) -> str:
    methods = set(node.routes) | {"OPTIONS"} | ({"HEAD"} if "GET" in node.routes else set())
    return ", ".join(sorted(methods))


def _not_allowed(method: str, node: _Node) -> Problem:
    allowed = _allowed(node)
    return Problem(
        Code.METHOD_NOT_ALLOWED,
        f"{method[:20]} is not allowed here; allowed: {allowed}",
        headers=((b"allow", allowed.encode()),),
    )


def _params(route: Route, segments: list[str]) -> dict[str, str]:
    return {
        template[1:-1]: segment
        for template, segment in zip(route.segments, segments, strict=True)
        if template.startswith("{")
    }


def check_names(found: Found) -> None:
    """Refuse what no resource can be called. Errors: Problem."""
    for parameter, given in found.params.items():
        name = NAMES[parameter]
        if re.fullmatch(name.pattern.removesuffix("$"), given):
            continue
        is_wrong = parameter in SCOPES or found.route.method == "PUT"
        code = Code.INVALID_INPUT if is_wrong else Code.NOT_FOUND
        raise Problem(code, f"no {name.what} can be called {given[:100]!r}; accepted: {name.accepts}")
