"""The telemetry application: the probe table, and the metrics page."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx
import pytest

from gateway.telemetry.app import telemetry_app


@dataclass
class _Telemetry:
    started: bool = True
    ready: tuple[bool, str] = (True, "")
    draining: bool = False

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        return f"# asked for {accept}\n".encode(), "text/plain; version=0.0.4; charset=utf-8"

    def is_started(self) -> bool:
        return self.started

    def is_ready(self) -> tuple[bool, str]:
        return self.ready

    def is_draining(self) -> bool:
        return self.draining


def _get(telemetry: _Telemetry, path: str, method: str = "GET", accept: str = "text/plain") -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=telemetry_app(telemetry))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.request(method, path, headers={"accept": accept})

    return asyncio.run(ask())


STARTING = _Telemetry(started=False, ready=(False, "no"))
SERVING = _Telemetry()
UNREADY = _Telemetry(ready=(False, "1 of 2 scorers is serving"))
SPEECHLESS = _Telemetry(ready=(False, ""))
DRAINING = _Telemetry(draining=True)


@pytest.mark.parametrize(
    ("telemetry", "path", "status", "text"),
    [
        (STARTING, "/livez", 200, "ok"),
        (STARTING, "/readyz", 503, "starting: the first configuration is not served yet"),
        (STARTING, "/startupz", 503, "starting: the first configuration is not served yet"),
        (SERVING, "/livez", 200, "ok"),
        (SERVING, "/readyz", 200, "ok"),
        (SERVING, "/startupz", 200, "ok"),
        (UNREADY, "/livez", 200, "ok"),
        (UNREADY, "/readyz", 503, "1 of 2 scorers is serving"),
        (UNREADY, "/startupz", 200, "ok"),
        (SPEECHLESS, "/readyz", 503, "not ready"),
        (DRAINING, "/livez", 200, "ok"),
        (DRAINING, "/readyz", 503, "draining: no new work is taken"),
        (DRAINING, "/startupz", 200, "ok"),
    ],
)
def test_each_probe_says_what_it_should(telemetry: _Telemetry, path: str, status: int, text: str) -> None:
    response = _get(telemetry, path)
    assert (response.status_code, response.text) == (status, f"{text}\n")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"


def test_metrics_come_in_the_format_that_was_asked_for() -> None:
    response = _get(SERVING, "/metrics", accept="application/openmetrics-text")
    assert response.text == "# asked for application/openmetrics-text\n"
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_other_paths_and_methods_are_refused() -> None:
    assert _get(SERVING, "/").status_code == 404
    assert _get(SERVING, "/metrics", method="POST").status_code == 405
