"""What the control plane counts and tells, put together as a gateway puts it together; only the scorers stand in.

Real: the assembly, the management listener's application, its asset storage, the store and the telemetry page.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.controlplane.assembly import ControlPlane
from gateway.controlplane.rest.urls import Urls
from gateway.controlplane.state import open_state
from gateway.controlplane.store import database
from gateway.controlplane.store.database import StoreBusy
from gateway.settings import Settings
from gateway.telemetry.metrics import SupervisorFacts, render
from gateway.telemetry.record import ScorerRecord
from gateway.telemetry.totals import ScorerTotals
from tests.support.house import MODEL, WORKSPACE, House, TheOperator
from tests.support.plane import Scorers
from tests.support.process import Metrics
from tests.support.waiting import PATIENCE_S

DIGITS = f"{WORKSPACE}/onlineEndpoints/digits"
BLUE = f"{DIGITS}/deployments/blue"
SKU = {"name": "Default", "capacity": 1}


class Gateway:
    """An assembled control plane, asked over its own application with the first management token."""

    def __init__(self, plane: ControlPlane, scorers: Scorers, client: httpx.AsyncClient) -> None:
        self.plane = plane
        self.scorers = scorers
        self._client = client

    async def ask(self, method: str, path: str, status: int, body: Any = None, content: bytes = b"") -> Any:
        more: dict[str, Any] = {"json": body} if body is not None else {"content": content} if content else {}
        headers = {"x-ms-blob-type": "BlockBlob"} if content else {}
        reply = await self._client.request(method, path, headers=headers, **more)
        assert reply.status_code == status, reply.text
        return reply.json() if reply.content.startswith(b"{") else None

    async def serve(self, *names: str) -> None:
        """An endpoint with these deployments of one uploaded model; the first has all traffic."""
        await self.ask("PUT", "/blob/azureml/up/model.onnx", 201, content=b"a model")
        path = "azureml://datastores/workspaceblobstore/paths/up/model.onnx"
        model = {"properties": {"modelUri": path, "modelType": "custom_model"}}
        await self.ask("PUT", f"{WORKSPACE}/models/digits/versions/1", 201, model)
        await self.endpoint(201)
        for name in names:
            await self.deployment(name, 201)
        await self.endpoint(200, traffic={names[0]: 100})

    async def endpoint(self, status: int, **properties: Any) -> None:
        await self.ask("PUT", DIGITS, status, {"location": "local", "properties": {"authMode": "Key", **properties}})

    async def deployment(self, name: str, status: int, **properties: Any) -> None:
        said = {"endpointComputeType": "Managed", "instanceType": "cpu", "model": MODEL, **properties}
        body = {"location": "local", "sku": SKU, "properties": said}
        await self.ask("PUT", f"{DIGITS}/deployments/{name}", status, body)

    async def log(self, name: str = "blue") -> list[str]:
        """The lines of getLogs, without their times."""
        found = await self.ask("POST", f"{DIGITS}/deployments/{name}/getLogs", 200, {})
        return [line.split(maxsplit=1)[1] for line in found["content"].splitlines()]

    def page(self) -> Metrics:
        facts = SupervisorFacts(
            version="0", python="3", onnxruntime="1", started_unix_s=0, control=self.plane.facts()
        )
        return Metrics(render(ScorerTotals(), facts).decode())


def run(folder: Path, story: Callable[[Gateway], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with assembled(folder) as gateway:
            await story(gateway)

    asyncio.run(whole())


@asynccontextmanager
async def assembled(folder: Path) -> AsyncIterator[Gateway]:
    state = open_state(folder)
    plane = await ControlPlane.open(replace(Settings(), state=folder, assets_max_bytes=1 << 20), state, {})
    try:
        scorers = Scorers()
        plane.publisher.attach(scorers, scorers)  # type: ignore[arg-type]
        await plane.start(await plane.plan_start(), nothing_counted)
        app = plane.app(TheOperator(), Urls(), "1.2.3")
        headers = {"authorization": f"Bearer {state.management_token()}"}
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="https://gateway.example", headers=headers) as one:
            yield Gateway(plane, scorers, one)
    finally:
        await plane.close()
        state.close()


async def nothing_counted() -> ScorerTotals:
    return ScorerRecord().snapshot()


def test_a_plane_that_has_not_started_has_facts_too(tmp_path: Path) -> None:
    async def story() -> None:
        state = open_state(tmp_path)
        plane = await ControlPlane.open(replace(Settings(), state=tmp_path), state, {})
        scorers = Scorers()
        plane.publisher.attach(scorers, scorers)  # type: ignore[arg-type]
        facts = plane.facts()
        assert (facts.operations_under_way, facts.rollouts, sum(facts.deployments.values())) == (0, (), 0)
        await plane.close()
        state.close()

    asyncio.run(story())


def test_changes_requests_and_bytes_are_on_the_page(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        await gateway.serve("blue", "green")
        gateway.scorers.failing["digits/red"] = "model.onnx is no ONNX model"
        await gateway.deployment("red", 201)
        await gateway.ask("GET", DIGITS, 200)
        await gateway.ask("GET", f"{DIGITS}-not", 404)
        page = gateway.page()
        for action, outcome, count in (
            ("create", "succeeded", 3),
            ("create", "failed", 1),
            ("update", "succeeded", 1),
        ):
            assert page.value("gateway_operations_total", action=action, outcome=outcome) == count
        assert page.value("gateway_operation_duration_seconds_count") == 5
        assert page.value("gateway_operations_under_way") == 0
        assert page.value("gateway_management_requests_total", kind="blob", status="2xx") == 1
        assert page.value("gateway_management_requests_total", kind="change", status="2xx") == 6
        assert page.value("gateway_management_requests_total", kind="read", status="4xx") == 1
        assert page.value("gateway_management_refused_total", code="404") == 1
        assert page.value("gateway_deployments", state="serving") == 2
        assert page.value("gateway_deployments", state="failed") == 1
        assert page.value("gateway_assets_bytes") == len(b"a model")
        assert page.value("gateway_assets_bytes_max") == 1 << 20
        assert page.value("gateway_store_duration_seconds_count", mode="write") >= 10

    run(tmp_path, story)


def test_a_rollout_is_on_the_page_while_it_goes_on(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        await gateway.serve("blue", "green")
        rollout = f"{DIGITS}/rollouts/careful"
        body = {"properties": {"from": "blue", "to": "green", "steps": [10, 100], "hold_s": 3600}}
        await gateway.ask("PUT", rollout, 201, body)
        page = gateway.page()
        assert page.value("gateway_rollout_percent", endpoint="digits") == 10
        assert page.value("gateway_rollout_paused", endpoint="digits") == 0
        await gateway.ask("POST", f"{rollout}/pause", 200)
        assert gateway.page().value("gateway_rollout_paused", endpoint="digits") == 1
        await gateway.ask("POST", f"{rollout}/cancel", 200)
        assert not any(one.name.startswith("gateway_rollout") for one in gateway.page().samples)

    run(tmp_path, story)


def test_a_replacement_that_cannot_load_is_told_in_the_log_and_on_the_page(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        await gateway.serve("blue", "green")
        failures = {"digits/blue": "no memory"}
        gateway.scorers.degraded = dict(failures)
        gateway.plane.on_degraded(failures)
        said = "a scorer that was replaced could not load it again: no memory"
        async with asyncio.timeout(PATIENCE_S):
            while (await gateway.log())[-1] != f"degraded: {said}":
                await asyncio.sleep(0)
        assert (await gateway.log("green"))[-1] == "create: succeeded"
        page = gateway.page()
        assert page.value("gateway_deployments", state="degraded") == 1
        assert page.value("gateway_deployments", state="serving") == 1
        # A change that all scorers carry out is served by all of them.
        await gateway.endpoint(200, description="again")
        assert gateway.page().value("gateway_deployments", state="degraded") == 0

    run(tmp_path, story)


def test_an_update_that_fails_is_told_apart_from_what_is_not_served(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        await gateway.serve("blue")
        gateway.scorers.failing["digits/blue"] = "no memory"
        await gateway.deployment("blue", 200, properties={"gateway": '{"runtime": {"threads": 2}}'})
        page = gateway.page()
        assert page.value("gateway_operations_total", action="update", outcome="failed") == 1
        assert page.value("gateway_deployments", state="update_failed") == 1
        assert page.value("gateway_deployments") == 1
        assert (await gateway.log())[-1] == "update: failed: deployment digits/blue: no memory"

    run(tmp_path, story)


def test_keys_without_effect_are_told_over_rest(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.add_model()
    house.add_endpoint()
    probe = {
        "failureThreshold": 5,
        "successThreshold": 1,
        "timeout": "PT3S",
        "period": "PT5S",
        "initialDelay": "PT9S",
    }
    house.add_deployment(livenessProbe=probe, environmentVariables={"A": "b"})
    content = house.post(f"{BLUE}/getLogs", {}).json()["content"]
    house.close()
    told = [line.split()[2] for line in content.splitlines() if line.split()[1] == "note:"]
    assert told == ["environment_variables:", "liveness_probe:"]


def test_a_busy_store_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path)
    before = house.store.record.totals()["read"].count
    with pytest.raises(StoreBusy, match="went away"):
        house.read(_goes_away)
    monkeypatch.setattr(database, "WAITING_MAX", 0)
    with pytest.raises(StoreBusy, match="is behind"):
        house.read(lambda tx: tx.unfinished())
    monkeypatch.undo()
    assert house.store.record.busy == 2
    # One that was never begun took no time.
    assert house.store.record.totals()["read"].count == before + 1
    house.close()


def _goes_away(tx: object) -> None:
    raise StoreBusy("the database went away")
