"""A gateway whose store is a real PostgreSQL server: what is kept over a kill, and done while that is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.control.management import (
    ENDPOINTS,
    deployment_body,
    deployment_path,
    endpoint_body,
    endpoint_path,
    model_path,
)
from tests.support.azure import long_to_load
from tests.support.load import Hammer
from tests.support.managed import Manager, error_of, killed, make_token
from tests.support.models import double, identity
from tests.support.postgres import PASSWORD, PostgresServer
from tests.support.process import GatewayProcess
from tests.support.waiting import eventually

BODY = {"input_data": [[1.0, 2.0]]}
ROLLOUT = f"{endpoint_path('rolling')}/rollouts/to-green"
SAME, DOUBLED = [[1.0, 2.0]], [[2.0, 4.0]]


def _gateway(server_url: str, state: Path) -> GatewayProcess:
    # In the environment, as other programs could read an argument.
    return GatewayProcess(None, state, environment={"GATEWAY_DATABASE": server_url}, scorers=1)


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    return postgres_server.new_database()


def _fill(manager: Manager) -> None:
    """Endpoint `digits` with `blue`, which has all the traffic."""
    model = manager.register("same", "1", identity(shape=("N", 2)))
    manager.register("double", "1", double(("N", 2)))
    manager.endpoint("digits")
    manager.deployment("digits", "blue", model)
    manager.do("PUT", endpoint_path("digits"), endpoint_body({"blue": 100}, {}))


def _begin_rollout(manager: Manager) -> None:
    """One that looks at its endpoint every second, and has not had enough requests."""
    manager.endpoint("rolling")
    for name, model in (("blue", "same"), ("green", "double")):
        manager.deployment("rolling", name, model_path(model, "1"))
    manager.do("PUT", endpoint_path("rolling"), endpoint_body({"blue": 100}, {}))
    manager.need("PUT", ROLLOUT, {"properties": {"from": "blue", "to": "green", "hold_s": 0}})


def _score(client: httpx.Client) -> httpx.Response:
    return client.post("/endpoints/digits/score", json=BODY)


def _told(manager: Manager) -> dict[str, Any]:
    """All that must be the same after a restart."""
    paths = [endpoint_path("digits"), deployment_path("digits", "blue"), model_path("double", "1"), "/tokens"]
    found = {path: manager.need("GET", path) for path in paths}
    found[endpoint_path("digits")]["properties"].pop("scoringUri")
    found[endpoint_path("digits")]["properties"].pop("swaggerUri")
    found["key"] = manager.key("digits")
    found["audit"] = manager.need("GET", "/audit?limit=1000")["value"]
    return found


def test_what_was_made_over_rest_is_there_after_a_kill(url: str, tmp_path: Path) -> None:
    with killed(_gateway(url, tmp_path / "state")) as first, Manager(first) as manager:
        _fill(manager)
        token = make_token(manager, "ci", "operator")
        before = _told(manager)
        audited = {(one["action"], one["target"]) for one in before["audit"]}
        assert ("create", "deployment digits/blue") in audited

    with _gateway(url, tmp_path / "state") as second, Manager(second) as manager:
        assert _told(manager) == before
        with Manager(second, token) as ci:
            assert ci.traffic("digits") == {"blue": 100}
        with manager.scoring("digits") as client:
            assert _score(client).json() == SAME
        # And it goes on from there.
        manager.deployment("digits", "green", model_path("double", "1"))
        manager.do("PUT", endpoint_path("digits"), endpoint_body({"green": 100}, {}))
        with manager.scoring("digits") as client:
            assert _score(client).json() == DOUBLED
        assert PASSWORD not in second.log() + first.log()
    assert not (tmp_path / "state" / "gateway.db").exists()


@pytest.fixture
def stopped(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """Other tests find it running."""
    yield postgres_server
    if not postgres_server.is_running:
        postgres_server.start()


def test_while_the_server_is_away_scoring_goes_on_and_changes_are_refused_whole(
    stopped: PostgresServer, url: str, tmp_path: Path
) -> None:
    with _gateway(url, tmp_path / "state") as gateway, Manager(gateway) as manager:
        _fill(manager)
        slow = manager.register("slow", "1", long_to_load(8_000))
        manager.endpoint("late")
        _begin_rollout(manager)
        token = make_token(manager, "ci", "operator")
        before, key, pids = _told(manager), manager.key("digits"), gateway.status()["pids"]
        with Hammer(lambda: manager.scoring("digits"), _score) as callers, Manager(gateway, token) as ci:
            # Under way when the server goes: its outcome must wait for it.
            under_way = manager.ask("PUT", deployment_path("late", "slow"), deployment_body(slow, {}))
            assert under_way.status_code == 201
            assert "azure-asyncoperation" in under_way.headers
            stopped.stop()

            reads = (ENDPOINTS, endpoint_path("digits"), "/export", "/tokens", "/audit", model_path("same", "1"))
            for path in reads:
                _is_away(manager.ask("GET", path))
            # A token that only the store knows is not refused as unknown.
            _is_away(ci.ask("GET", ENDPOINTS))
            for method, path, body in _changes():
                _is_away(manager.ask(method, path, body))
            # What needs no store is told all the same.
            assert gateway.status()["endpoints"]["digits"]["traffic"] == {"blue": 100}
            assert gateway.telemetry("/readyz").status_code == 200
            callers.go_on(200)

            # It is loaded and served meanwhile; that is written down once the store is back.
            eventually(
                lambda: "slow" in gateway.status()["endpoints"]["late"]["deployments"], "the slow one is served"
            )
            stopped.start()
            eventually(lambda: manager.ask("GET", ENDPOINTS).status_code == 200, "the store answers again")
            assert ci.ask("GET", ENDPOINTS).status_code == 200
            assert manager.ended(under_way)["status"] == "Succeeded"
            after = _told(manager)
            # None of the refused changes is there, in whole or in part.
            new = [one for one in after.pop("audit") if one not in before["audit"]]
            assert {one["target"] for one in new} == {"deployment late/slow"}
            assert after == {name: one for name, one in before.items() if name != "audit"}
            assert manager.endpoints() == {"digits", "late", "rolling"}
            assert manager.deployments("digits") == {"blue"}

            assert manager.need("GET", ROLLOUT)["properties"]["status"] == "Running"
            manager.need("POST", f"{ROLLOUT}/cancel")
            assert manager.traffic("rolling") == {"blue": 100}

            for method, path, body in _changes():
                manager.do(method, path, body)
            assert manager.traffic("digits") == {"green": 100}
            assert manager.key("digits") != key
            place = len(callers.answers)
            callers.go_on()
        assert gateway.status()["pids"] == pids
    assert callers.broken == []
    assert set(callers.since()) <= {(200, "blue"), (200, "green"), (401, "")}
    assert set(callers.since(place)) <= {(401, "")}


def _changes() -> list[tuple[str, str, Any]]:
    """Changes of every sort, which may be made one after the other."""
    return [
        ("PUT", endpoint_path("other"), endpoint_body({}, {})),
        ("POST", "/apply", {"resources": [{"kind": "online_endpoint", "document": {"name": "other"}}]}),
        ("PUT", deployment_path("digits", "green"), deployment_body(model_path("double", "1"), {})),
        ("PUT", endpoint_path("digits"), endpoint_body({"green": 100}, {})),
        ("DELETE", deployment_path("digits", "blue"), None),
        ("POST", f"{endpoint_path('digits')}/regenerateKeys", {"keyType": "Primary"}),
        ("POST", "/tokens", {"name": "more", "role": "reader"}),
        ("DELETE", endpoint_path("other"), None),
    ]


def _is_away(answer: httpx.Response) -> None:
    error = error_of(answer, 503)
    assert answer.headers["retry-after"] == "1"
    assert PASSWORD not in error["message"]
