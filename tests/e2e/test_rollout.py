"""Rollouts of real traffic: what is good gets all of it, what is worse goes back by itself, and nobody is fought."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.control.management import endpoint_body, endpoint_path
from tests.support.load import Hammer
from tests.support.managed import Manager, killed
from tests.support.models import double, fails_on_index, identity
from tests.support.process import GatewayProcess, deployment_yaml, endpoint_yaml, write_folder
from tests.support.slow import SETTINGS, slow_model
from tests.support.waiting import eventually

ROW = [1.0, 2.0, 3.0, 4.0]
ANSWERS = {"blue": [ROW], "green": [[2.0, 4.0, 6.0, 8.0]]}
# Endpoints whose blue answers what it gets and whose green answers its double, one for each test.
PLAIN = ("good", "shown", "foreign")
# What a noisy machine does to a request must not look like a slow deployment.
CALM = {"requests_min": 20, "p99_floor_ms": 500}
# A guard acts long before this.
LONG_S = 300
# As many may be on their way when the traffic changes.
CALLERS = 3


def _endpoint(name: str, blue: str, green: str, **more: Any) -> dict[str, str | bytes]:
    return {
        f"{name}.yml": endpoint_yaml(name, traffic={"blue": 100}),
        f"{name}-blue.yml": deployment_yaml("blue", blue, name, **more),
        f"{name}-green.yml": deployment_yaml("green", green, name, **more),
    }


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    place = tmp_path_factory.mktemp("rollout")
    files: dict[str, str | bytes] = {"identity.onnx": identity(shape=("N", 4)), "double.onnx": double()}
    for name in PLAIN:
        files |= _endpoint(name, "identity.onnx", "double.onnx")
    files |= {"many.onnx": fails_on_index(100), "few.onnx": fails_on_index(2)}
    files |= {"quick.onnx": identity(shape=(1, 1)), "slow.onnx": slow_model()}
    files |= _endpoint("failing", "many.onnx", "few.onnx")
    files |= _endpoint("slow", "quick.onnx", "slow.onnx", gateway=SETTINGS)
    with GatewayProcess(write_folder(place / "models", files), place / "state") as process:
        yield process


@pytest.fixture(scope="module")
def manager(gateway: GatewayProcess) -> Iterator[Manager]:
    with Manager(gateway) as found:
        yield found


class Caller:
    """Scores one input again and again; answers that are not those of the deployment that gave them are kept."""

    def __init__(self, manager: Manager, endpoint: str, row: object, truth: dict[str, Any] | None = None) -> None:
        self.wrong: list[tuple[str, Any]] = []
        self._manager = manager
        self._endpoint = endpoint
        self._body = {"input_data": [row]}
        self._truth = truth

    def client(self) -> httpx.Client:
        return self._manager.scoring(self._endpoint)

    def post(self, client: httpx.Client) -> httpx.Response:
        reply = client.post(f"/endpoints/{self._endpoint}/score", json=self._body)
        name = reply.headers.get("azureml-model-deployment", "")
        if self._truth is not None and reply.status_code == 200 and reply.json() != self._truth[name]:
            self.wrong.append((name, reply.json()))
        return reply

    def hammer(self) -> Hammer:
        return Hammer(self.client, self.post, CALLERS)


def _path(endpoint: str, name: str = "to-green") -> str:
    return f"{endpoint_path(endpoint)}/rollouts/{name}"


def _begin(manager: Manager, endpoint: str, **keys: Any) -> None:
    body = {"properties": {"from": "blue", "to": "green", **keys}}
    assert manager.ask("PUT", _path(endpoint), body).status_code == 201


def _told(manager: Manager, endpoint: str, name: str = "to-green") -> dict[str, Any]:
    """As the command tells it."""
    found = manager.need("GET", _path(endpoint, name))
    return {"name": found["name"], **found["properties"]}


def _await(manager: Manager, endpoint: str, status: str, timeout_s: float = 30.0) -> dict[str, Any]:
    def reached() -> dict[str, Any] | None:
        told = _told(manager, endpoint)
        return told if told["status"] == status else None

    try:
        return eventually(reached, f"the rollout of {endpoint} is {status}", timeout_s) or {}
    except AssertionError as error:
        raise AssertionError(f"{error}; it is {_told(manager, endpoint)}") from None


def _events(manager: Manager, endpoint: str) -> list[str]:
    return [one["name"] for one in manager.events(endpoint) if one["name"].startswith("Rollout")]


# By itself.


def test_a_good_deployment_gets_all_traffic_and_no_request_fails(gateway: GatewayProcess, manager: Manager) -> None:
    caller = Caller(manager, "good", ROW, ANSWERS)
    with caller.hammer() as callers:
        _begin(manager, "good", steps=[10, 100], hold_s=0, guards=CALM)
        assert gateway.status()["endpoints"]["good"]["rollout"]["status"] == "Running"
        assert manager.traffic("good") == {"blue": 90, "green": 10}
        _await(manager, "good", "Succeeded")
        place = len(callers.answers)
        callers.go_on(100)
    assert callers.since(place)[200, "blue"] <= CALLERS
    assert set(callers.since()) == {(200, "blue"), (200, "green")}
    assert (callers.broken, caller.wrong) == ([], [])
    assert manager.traffic("good") == {"green": 100}
    assert gateway.metrics().value("gateway_traffic_weight", endpoint="good", deployment="green") == 100
    assert "rollout" not in gateway.status()["endpoints"]["good"]
    assert _events(manager, "good") == ["RolloutStarted", *["RolloutStep"] * 2, "RolloutSucceeded"]


def test_a_deployment_that_fails_goes_back_and_few_callers_see_it(manager: Manager) -> None:
    percent = 10
    # An id that blue has in its table, and green has not.
    caller = Caller(manager, "failing", 50, {"blue": [[50.0]]})
    with caller.hammer() as callers:
        place = len(callers.answers)
        _begin(manager, "failing", steps=[percent, 100], hold_s=LONG_S, stall_s=LONG_S, guards=CALM)
        told = _await(manager, "failing", "RolledBack")
        seen = callers.since(place)
        place = len(callers.answers)
        callers.go_on(100)
    assert set(seen) == {(200, "blue"), (424, "green")}
    # Weights come out exactly on each scorer, but for a beginning and an end.
    assert seen[424, "green"] <= sum(seen.values()) * percent / 100 + 2 * percent
    assert callers.since(place)[424, "green"] <= CALLERS
    assert (callers.broken, caller.wrong) == ([], [])
    assert told["ended_at"] - told["started_at"] < 15
    assert told["reason"].startswith("green failed ")
    assert manager.traffic("failing") == {"blue": 100}
    assert _events(manager, "failing") == ["RolloutStarted", "RolloutStep", "RolloutRolledBack"]


def test_a_deployment_that_is_slow_goes_back(manager: Manager) -> None:
    caller = Caller(manager, "slow", [100.0])
    with caller.hammer() as callers:
        guards = {"requests_min": 20, "p99_ratio_max": 2}
        _begin(manager, "slow", steps=[20, 100], hold_s=LONG_S, stall_s=LONG_S, guards=guards)
        told = _await(manager, "slow", "RolledBack")
        place = len(callers.answers)
        callers.go_on(100)
    assert told["reason"].startswith("p99 of green is ")
    assert told["ended_at"] - told["started_at"] < 15
    assert manager.traffic("slow") == {"blue": 100}
    assert callers.since(place)[200, "green"] <= CALLERS
    assert set(callers.since()) == {(200, "blue"), (200, "green")}
    assert callers.broken == []


# Beside others.


def test_traffic_that_somebody_else_changes_is_left_alone_until_a_person_says_so(manager: Manager) -> None:
    _begin(manager, "foreign", steps=[10, 40, 100], hold_s=LONG_S, stall_s=LONG_S)
    manager.do("PUT", endpoint_path("foreign"), endpoint_body({"blue": 70, "green": 30}, {}))
    told = _await(manager, "foreign", "Paused")
    assert told["reason"].startswith("the traffic was changed by somebody else: found blue: 70, green: 30")
    assert manager.traffic("foreign") == {"blue": 70, "green": 30}

    manager.need("POST", f"{_path('foreign')}/resume")
    # On from what it found, and nothing is taken from green.
    assert manager.traffic("foreign") == {"blue": 60, "green": 40}
    manager.need("POST", f"{_path('foreign')}/cancel")
    assert _told(manager, "foreign")["status"] == "Cancelled"
    assert manager.traffic("foreign") == {"blue": 100}
    told_events = ["Started", "Step", "Paused", "Resumed", "Step", "Cancelled"]
    assert _events(manager, "foreign") == [f"Rollout{name}" for name in told_events]


def _command(gateway: GatewayProcess, *words: str) -> Any:
    done = gateway.run(*words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_commands_and_rest_tell_and_do_the_same(gateway: GatewayProcess, manager: Manager) -> None:
    begin = ("--from", "blue", "--to", "green", "--steps", "10,100", "--hold", str(LONG_S), "--name", "canary")
    started = _command(gateway, "rollout", "start", "shown", *begin)
    assert (started["status"], started["percent"], started["traffic"]) == ("Running", 10, {"blue": 90, "green": 10})

    paused = _command(gateway, "rollout", "pause", "shown")
    assert paused == _told(manager, "shown", "canary")
    assert (paused["status"], paused["reason"]) == ("Paused", "paused by management.token")
    assert _command(gateway, "rollout", "status", "shown") == [paused]
    shown = _command(gateway, "status")["endpoints"]["shown"]["rollout"]
    assert shown.items() <= paused.items()

    assert manager.need("POST", f"{_path('shown', 'canary')}/resume")["properties"]["status"] == "Running"
    promoted = _command(gateway, "rollout", "promote", "shown", "--name", "canary")
    assert (promoted["percent"], promoted["traffic"]) == (100, {"green": 100})
    assert manager.need("POST", f"{_path('shown', 'canary')}/promote")["properties"]["status"] == "Succeeded"
    refused = gateway.run("rollout", "cancel", "shown")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert refused.stderr == "error: endpoint shown has 0 rollouts under way; name one with --name\n"


# After a crash.


def test_a_rollout_goes_on_after_the_gateway_was_killed_in_its_middle(tmp_path: Path) -> None:
    with killed(GatewayProcess(None, tmp_path / "state", scorers=1)) as first, Manager(first) as manager:
        manager.endpoint("good")
        for name, model in (("blue", identity(shape=("N", 4))), ("green", double())):
            manager.deployment("good", name, manager.register(name, "1", model))
        manager.do("PUT", endpoint_path("good"), endpoint_body({"blue": 100}, {}))
        _begin(manager, "good", steps=[10, 100], hold_s=1, guards=CALM)

    with GatewayProcess(None, tmp_path / "state", scorers=1) as gateway, Manager(gateway) as manager:
        told = _told(manager, "good")
        assert (told["status"], told["percent"], told["from"]) == ("Running", 10, "blue")
        assert manager.traffic("good") == {"blue": 90, "green": 10}
        caller = Caller(manager, "good", ROW, ANSWERS)
        with caller.hammer() as callers:
            _await(manager, "good", "Succeeded")
        assert {status for status, _ in callers.since()} == {200}
        assert (callers.broken, caller.wrong) == ([], [])
        assert manager.traffic("good") == {"green": 100}
        story = ["Started", "Step", "Restored", "Step", "Succeeded"]
        assert _events(manager, "good") == [f"Rollout{name}" for name in story]
