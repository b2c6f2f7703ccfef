"""A script with run_batch() behind a real gateway: requests share runs, and each gets its own answer."""

from __future__ import annotations

import json
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.process import GatewayProcess, endpoint_yaml, write_folder

CALLERS = 16
EACH = 6

# Waits as a device would, so that requests gather behind it.
SCRIPT = """
    import json, os, time

    def init():
        pass

    def act(asked, size):
        if asked.get("do") == "raise":
            raise ValueError("poisoned")
        return {"double": 2 * asked["value"], "size": size, "pid": os.getpid()}

    def run(raw):
        time.sleep(0.005)
        return act(json.loads(raw), 0)
"""
BATCH = """
    def run_batch(batch):
        time.sleep(0.02)
        print("a batch of", len(batch))
        return [act(json.loads(one), len(batch)) for one in batch]
"""
# Azure's default is one request at a time, which holds for what is not batched.
BOUNDED: dict[str, Any] = {
    "request_settings": {"request_timeout_ms": 10_000, "max_concurrent_requests_per_instance": 50}
}


def deployment(name: str, **more: Any) -> str:
    fields: dict[str, Any] = {
        "name": name,
        "endpoint_name": "sums",
        "instance_type": "cpu",
        "environment": "local",
        "code_configuration": {"code": f"./{name}", "scoring_script": "score.py"},
        "request_settings": {"request_timeout_ms": 10_000},
    }
    return json.dumps({**fields, **more})


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    place = tmp_path_factory.mktemp("batches")
    text = textwrap.dedent(SCRIPT)
    folder = write_folder(
        place / "models",
        {
            "endpoint.yml": endpoint_yaml("sums", traffic={"many": 100, "alone": 0}),
            "many.yml": deployment("many", gateway={"batching": {"max_rows": 8}}),
            "many/score.py": text + textwrap.dedent(BATCH),
            "alone.yml": deployment("alone", **BOUNDED),
            "alone/score.py": text,
        },
    )
    with GatewayProcess(folder, place / "state") as process:
        yield process


def score(client: httpx.Client, name: str, asked: dict[str, Any]) -> httpx.Response:
    return client.post("/endpoints/sums/score", json=asked, headers={"azureml-model-deployment": name})


def stormed(gateway: GatewayProcess, name: str, poison_every: int = 0) -> list[tuple[dict[str, Any], httpx.Response]]:
    """What many callers asked at once and were answered, each a few times in a row on a connection of its own."""
    start, trust = threading.Barrier(CALLERS), gateway.trust()
    gateway.keys("sums")

    def call(caller: int) -> list[tuple[dict[str, Any], httpx.Response]]:
        found = []
        with gateway.client("sums", verify=trust) as client:
            start.wait(20)
            for turn in range(EACH):
                number = caller * EACH + turn
                asked: dict[str, Any] = {"value": number}
                if poison_every and number % poison_every == 0:
                    asked["do"] = "raise"
                found.append((asked, score(client, name, asked)))
        return found

    with ThreadPoolExecutor(CALLERS) as callers:
        return [one for found in callers.map(call, range(CALLERS)) for one in found]


def sizes_of(answers: list[tuple[dict[str, Any], httpx.Response]]) -> set[int]:
    """Of the runs, where each answer is its own."""
    sizes = set()
    for asked, reply in answers:
        assert reply.status_code == 200, reply.text
        assert reply.json()["double"] == 2 * asked["value"]
        sizes.add(reply.json()["size"])
    return sizes


def status_of(gateway: GatewayProcess, name: str) -> dict[str, Any]:
    found: dict[str, Any] = gateway.status()["endpoints"]["sums"]["deployments"][name]
    return found


def test_requests_share_runs_and_each_gets_its_own_answer(gateway: GatewayProcess) -> None:
    answers = stormed(gateway, "many")
    assert 1 < max(sizes_of(answers)) <= 8
    assert all(float(reply.headers["x-ms-run-fn-exec-ms"]) >= 20 for _, reply in answers)
    assert len({reply.headers["x-ms-request-id"] for _, reply in answers}) == CALLERS * EACH
    metrics = gateway.metrics()
    labels = {"endpoint": "sums", "deployment": "many"}
    rows = metrics.value("gateway_batch_size_sum", **labels)
    assert rows == metrics.value("gateway_batched_requests_total", **labels) == CALLERS * EACH
    assert metrics.value("gateway_batch_size_count", **labels) < rows
    assert metrics.value("gateway_batch_rows_limit", **labels) > 0


def test_a_script_without_run_batch_is_given_one_request_at_a_time(gateway: GatewayProcess) -> None:
    assert sizes_of(stormed(gateway, "alone")) == {0}
    metrics = gateway.metrics()
    labels = {"endpoint": "sums", "deployment": "alone"}
    assert metrics.value("gateway_batch_size_sum", **labels) == metrics.value("gateway_batch_size_count", **labels)


def test_poisoned_requests_fail_alone(gateway: GatewayProcess) -> None:
    answers = stormed(gateway, "many", poison_every=7)
    for asked, reply in answers:
        assert reply.status_code == (424 if "do" in asked else 200), reply.text
    assert max(sizes_of([one for one in answers if "do" not in one[0]])) > 1


def test_the_status_says_who_shares_runs_and_why(gateway: GatewayProcess) -> None:
    many, alone = status_of(gateway, "many"), status_of(gateway, "alone")
    assert (many["batched"], many["rows_max"]) == (True, 8)
    assert many["batching"] == "batched by run_batch(), at most 8 rows: gateway.batching.max_rows says so"
    assert (alone["batched"], alone["rows_max"]) == (False, 1)
    assert "without run_batch()" in alone["batching"]


def test_other_limits_are_taken_up_by_the_same_workers(gateway: GatewayProcess) -> None:
    assert gateway.folder is not None
    with gateway.client("sums") as client:
        before = score(client, "many", {"value": 1}).json()["pid"]
        write_folder(gateway.folder, {"many.yml": deployment("many", gateway={"batching": {"max_rows": 3}})})
        gateway.reload()
        assert max(sizes_of(stormed(gateway, "many"))) == 3
        write_folder(
            gateway.folder, {"many.yml": deployment("many", gateway={"batching": {"enabled": False}}, **BOUNDED)}
        )
        gateway.reload()
        assert sizes_of(stormed(gateway, "many")) == {0}
        assert status_of(gateway, "many")["batching"].startswith("gateway.batching.enabled is false")
        assert score(client, "many", {"value": 1}).json()["pid"] == before
