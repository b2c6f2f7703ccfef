"""The telemetry listener's application: metrics for Prometheus and the three probes for whoever runs the process.

Why apart from scoring: it is served by the supervisor, on an address of its own, with no key and no model behind it.
Shapes: probes answer plain text, `ok` with 200 or the reason with 503. `/livez` says that the event loop turns, and
depends on nothing else; `/readyz` that requests may be sent; `/startupz` that the first snapshot is served.
Source: contract, operators and users, section 4; edge, section 2 (while draining: not ready, and alive).
"""

from __future__ import annotations

from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


class Telemetry(Protocol):
    """What the application asks of the supervisor. The questions are answered at once, from memory."""

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """The page and its content type; `accept` is the caller's header, "" without one."""
        ...

    def is_started(self) -> bool: ...

    def is_ready(self) -> tuple[bool, str]:
        """Whether requests may be sent, and if not, why, in one sentence."""
        ...

    def is_draining(self) -> bool: ...


def telemetry_app(telemetry: Telemetry) -> Starlette:
    async def metrics(request: Request) -> Response:
        body, content_type = await telemetry.metrics(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type, **_NO_STORE})

    async def live(request: Request) -> Response:
        return _answer("")

    async def ready(request: Request) -> Response:
        return _answer(_why_not_ready(telemetry))

    async def startup(request: Request) -> Response:
        return _answer("" if telemetry.is_started() else _STARTING)

    return Starlette(
        routes=[
            Route("/metrics", metrics),
            Route("/livez", live),
            Route("/readyz", ready),
            Route("/startupz", startup),
        ]
    )


_NO_STORE = {"cache-control": "no-store"}
_STARTING = "starting: the first configuration is not served yet"


def _why_not_ready(telemetry: Telemetry) -> str:
    if telemetry.is_draining():
        return "draining: no new work is taken"
    if not telemetry.is_started():
        return _STARTING
    is_ready, reason = telemetry.is_ready()
    return "" if is_ready else reason or "not ready"


def _answer(why_not: str) -> Response:
    return PlainTextResponse(f"{why_not or 'ok'}\n", status_code=503 if why_not else 200, headers=_NO_STORE)
