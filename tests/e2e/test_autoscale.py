"""Instances come and go with the load, and with a changed document, and no request fails."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.support.load import Hammer
from tests.support.process import GatewayProcess, deployment_yaml, endpoint_yaml, write_folder
from tests.support.slow import SETTINGS, slow_model
from tests.support.waiting import eventually

SCALE = {"type": "target_utilization", "min_instances": 1, "max_instances": 1, "polling_interval": 1}
# A request that keeps an instance busy for a while.
BODY = {"input_data": [[20]]}


def score(client: httpx.Client) -> httpx.Response:
    return client.post("/endpoints/scaled/score", json=BODY)


@pytest.fixture
def gateway(tmp_path: Path) -> GatewayProcess:
    files: dict[str, str | bytes] = {
        "slow.onnx": slow_model(),
        "endpoint.yml": endpoint_yaml("scaled", traffic={"slow": 100}),
        "slow.yml": deployment_yaml(
            "slow",
            "slow.onnx",
            "scaled",
            gateway=SETTINGS,
            scale_settings=SCALE,
            request_settings={"request_timeout_ms": 60_000},
        ),
    }
    return GatewayProcess(write_folder(tmp_path / "models", files), tmp_path / "state", scorers=1)


def test_instances_follow_the_load_and_no_request_fails(gateway: GatewayProcess) -> None:
    def instances() -> int:
        return int(gateway.status()["endpoints"]["scaled"]["deployments"]["slow"].get("instance_count", 1))

    def allow(before: int, after: int) -> None:
        assert gateway.folder is not None
        file = gateway.folder / "slow.yml"
        file.write_text(file.read_text().replace(f"max_instances: {before}", f"max_instances: {after}"))
        gateway.reload()

    with gateway:
        client = partial(gateway.client, "scaled")
        assert instances() == 1
        with Hammer(client, score, callers=8) as callers:
            # All are there before the first look that may add instances.
            eventually(lambda: gateway.metrics().value("gateway_requests_in_flight") == 8, "all callers wait")
            assert instances() == 1
            allow(1, 3)
            eventually(lambda: instances() == 3, "three instances")
            callers.go_on(100)
            # Fewer are allowed from now on: they go while all callers go on.
            allow(3, 1)
            eventually(lambda: instances() == 1, "one instance")
            callers.go_on(50)
        assert set(callers.since()) == {(200, "slow")}
        assert callers.broken == []
        log = gateway.log()
        assert "1 instance become 3" in log
        assert "3 instances become 1" in log
        # The model was opened for more instances, and never loaded again.
        assert log.count("slow is loaded in") == 1
