"""What a handler is given and what it gives: the call, the services behind it, and the reply.

Why protocols: handlers ask for a few things of large parts of the control plane; this file says which, and tests give
others. Nothing here knows HTTP's server.
Units: *_s seconds, *_bytes bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from gateway.controlplane.arm.ids import Workspace
from gateway.controlplane.authorize import Actor
from gateway.controlplane.matching import Match, etag_of
from gateway.controlplane.rest.query import Query
from gateway.controlplane.store.records import Kind, Operation, Ref, Resource
from gateway.errors import Code, Problem
from gateway.log_stream import LogStreams
from gateway.strict_json import NotStrict, read_object

if TYPE_CHECKING:
    from gateway.controlplane.keyring import Which
    from gateway.controlplane.rollout.document import RolloutYaml
    from gateway.controlplane.rollout.state import RolloutState
    from gateway.controlplane.rollout.view import View
    from gateway.controlplane.store.transaction import Transaction

T = TypeVar("T")

BODY_BYTES_MAX = 4 * 1024 * 1024


class Store(Protocol):
    """Reads; every change goes through Control."""

    async def read(self, work: Callable[[Transaction], T]) -> T: ...

    async def write(self, work: Callable[[Transaction], T]) -> T: ...


class Keys(Protocol):
    """An endpoint's two keys."""

    @property
    def primary(self) -> str: ...

    @property
    def secondary(self) -> str: ...


class Accepted(Protocol):
    """A change that is stored; `operation` None where nothing is left to do."""

    @property
    def resource(self) -> Resource: ...

    @property
    def operation(self) -> Operation | None: ...

    @property
    def created(self) -> bool: ...


class Control(Protocol):
    """gateway/controlplane/control.py, as handlers use it."""

    @property
    def store(self) -> Store: ...

    async def put(
        self, kind: Kind, parent_name: str, name: str, document: msgspec.Struct, actor: Actor, *, match: Match
    ) -> Accepted: ...

    async def put_asset(
        self, kind: Kind, name: str, version: str, document: msgspec.Struct, actor: Actor, *, match: Match
    ) -> Accepted: ...

    async def delete(self, ref: Ref, actor: Actor, *, match: Match) -> Operation | None: ...

    async def delete_asset(self, ref: Ref, actor: Actor, *, match: Match) -> bool: ...

    async def keys(self, endpoint_key: str) -> Keys: ...

    async def regenerate(self, endpoint_key: str, which: Which, value: str | None, actor: Actor) -> Operation: ...

    async def token(self, endpoint_key: str) -> dict[str, Any]: ...

    async def logs(self, endpoint_key: str, deployment_key: str, tail: int | None) -> str: ...

    async def operation(self, id: str) -> Operation | None: ...

    def instances(self, endpoint_key: str, deployment_key: str) -> int | None: ...


class Doorkeeper(Protocol):
    """gateway/controlplane/authorize.py: who asks. Errors: Problem, 401 and 403."""

    async def identify(self, authorization: str | None, source: str, request_id: str) -> Actor: ...

    def forget(self) -> None: ...


class Rollouts(Protocol):
    """gateway/controlplane/rollout/runner.py: rollouts that are not over. Commands are durable when they return."""

    def view(self, endpoint: str) -> View | None: ...

    async def start(self, rollout: RolloutYaml, actor_name: str) -> RolloutState: ...

    async def pause(self, endpoint: str, name: str, actor_name: str) -> RolloutState: ...

    async def resume(self, endpoint: str, name: str, actor_name: str) -> RolloutState: ...

    async def promote(self, endpoint: str, name: str, actor_name: str) -> RolloutState: ...

    async def cancel(self, endpoint: str, name: str, actor_name: str) -> RolloutState: ...


class Operator(Protocol):
    """The supervisor as an operator sees it (controlplane/management.py)."""

    async def reload(self) -> Any: ...

    def status(self) -> dict[str, Any]: ...


# The body of POST /apply and whom it comes from → what was, or would be, changed.
Apply = Callable[[dict[str, Any], Actor], Awaitable[dict[str, Any]]]
# All that is stored, as YAML documents.
Export = Callable[[], Awaitable[dict[str, Any]]]
# container, permissions ("r", "rw" ...) → the query string that opens it for a while.
Link = Callable[[str, str], str]


class Stream(Protocol):
    """A body that is sent as it comes. Whoever sends it closes it, also where nobody asked for a piece."""

    def chunks(self) -> AsyncIterator[bytes]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """`body` is JSON-ready, None for no content; with `stream` there is none, and `headers` say what it is."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Stream | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What stands behind the handlers. One a gateway."""

    control: Control
    doorkeeper: Doorkeeper
    operator: Operator
    rollouts: Rollouts
    apply: Apply
    export: Export
    link: Link
    openapi: Callable[[], dict[str, Any]]
    now: Callable[[], float]
    new_id: Callable[[], str]
    version: str = ""
    streams: LogStreams = field(default_factory=LogStreams)
    # Whether workers of "endpoint/deployment" run or are made ready.
    is_running: Callable[[str], bool] = lambda name: False


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, once its route is found and its caller known. `actor` None: the route is open, nobody was asked.

    `base` and `scoring` are the absolute URLs of the management and the scoring listener as the caller reaches them,
    without a slash at the end; `path` is the request's own, as it was sent."""

    services: Services
    method: str
    path: str
    params: Mapping[str, str]
    query: Query
    headers: Mapping[str, str]
    caller: Actor | None
    request_id: str
    base: str
    scoring: str
    read_body: Callable[[], Awaitable[bytes]]
    needs_body: bool = False

    @property
    def actor(self) -> Actor:
        assert self.caller is not None, "a route without a role has no actor"
        return self.caller

    @property
    def control(self) -> Control:
        return self.services.control

    @property
    def workspace(self) -> Workspace:
        params = self.params
        return Workspace(params["subscription"], params["group"], params["workspace"])

    @property
    def match(self) -> Match:
        return Match(if_match=self.headers.get("if-match"), if_none_match=self.headers.get("if-none-match"))

    def match_read(self, resource: Resource) -> None:
        """Refuse a read that If-Match forbids. Errors: Problem 412."""
        Match(if_match=self.headers.get("if-match")).check(resource, resource.name)

    def is_known(self, resource: Resource) -> bool:
        """Whether the reader has said with If-None-Match that it has this version: 304."""
        given = self.headers.get("if-none-match", "")
        tags = [tag.strip().removeprefix("W/") for tag in given.split(",")]
        return "*" in tags or etag_of(resource.version) in tags

    async def json(self) -> dict[str, Any]:
        """The body, a JSON object; where none is needed, no body is an empty one. Errors: Problem."""
        check_media_type(self.headers)
        body = await self.read_body()
        if self.needs_body and not body.strip():
            raise Problem(Code.INVALID_INPUT, "the body is empty; a JSON object is accepted")
        try:
            return read_object(body)
        except NotStrict as error:
            raise Problem(Code.INVALID_INPUT, str(error)) from None

    async def read(self, work: Callable[[Transaction], T]) -> T:
        return await self.control.store.read(work)


def check_media_type(headers: Mapping[str, str]) -> None:
    """Refuse what says of itself that it is not JSON."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = media_type in ("", "application/json", "text/json") or media_type.endswith("+json")
    coding = headers.get("content-encoding", "identity").strip().lower()
    if not is_json or coding != "identity":
        found = f"content-type {media_type[:80]!r}" if not is_json else f"content-encoding {coding[:80]!r}"
        raise Problem(Code.UNSUPPORTED_MEDIA_TYPE, f"the body has {found}; plain application/json is accepted")
