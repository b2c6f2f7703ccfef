"""What the telemetry listener tells after known traffic: exactly what was sent, over all scorers."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest

from examples.digits.data import Digits
from gateway.dataplane import lane
from tests.support.load import one_client_a_scorer
from tests.support.models import identity
from tests.support.process import (
    GatewayProcess,
    Metrics,
    deployment_yaml,
    endpoint_yaml,
    replace_file,
    write_folder,
)
from tests.support.promtool import promtool
from tests.support.waiting import eventually

GREEN = {"endpoint": "digits", "deployment": "green"}


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz"])
def test_probes_answer_ok_without_credentials(gateway: GatewayProcess, path: str) -> None:
    reply = gateway.telemetry(path)
    assert (reply.status_code, reply.text) == (200, "ok\n")


def test_the_scoring_listener_tells_no_metrics(gateway: GatewayProcess) -> None:
    with gateway.client("digits") as client:
        assert client.get("/metrics").status_code == 404


def test_counters_equal_what_was_sent_over_all_scorers(gateway: GatewayProcess, digits: Digits) -> None:
    before = gateway.metrics()
    with ExitStack() as stack:
        for client in one_client_a_scorer(stack, lambda: gateway.client("digits")):
            _send_known_traffic(client, digits)
    after = gateway.metrics()

    def grown(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    # Twice, as each of two scorers got all of it.
    assert grown("gateway_requests_total", code="200", **GREEN) == 2 * 8
    assert grown("gateway_requests_total", code="400", **GREEN) == 2 * 2
    assert grown("gateway_requests_total", endpoint="digits", code="401", deployment="") == 2 * 1
    assert grown("gateway_requests_total", endpoint="digits", code="404", deployment="") == 2 * 3
    assert grown("gateway_rejected_total", endpoint="digits", reason="auth") == 2 * 1
    assert grown("gateway_rejected_total", endpoint="digits", reason="not_found") == 2 * 3
    assert grown("gateway_request_duration_seconds_count", **GREEN) == 2 * (8 + 2)
    assert grown("gateway_stage_duration_seconds_count", stage="infer", **GREEN) == 2 * 8
    assert grown("gateway_batched_requests_total", **GREEN) == 2 * 8
    assert grown("gateway_batch_size_sum", **GREEN) == 2 * (5 * 1 + 3 * 4)
    assert after.value("gateway_requests_in_flight") == 0
    assert after.value("gateway_queue_depth") == 0
    assert after.value("gateway_queue_oldest_seconds") == 0
    assert 0 < after.value("gateway_min_rtt_seconds") < 1


def _send_known_traffic(client: httpx.Client, digits: Digits) -> None:
    named = {"azureml-model-deployment": "green"}
    url = "/endpoints/digits/score"

    def body(rows: int) -> dict[str, object]:
        return {"input_data": np.asarray(digits.pixels[:rows]).tolist()}

    for headers, sent, status, times in (
        (named, body(1), 200, 5),
        (named, body(4), 200, 3),
        (named, {"input_data": [[1]]}, 400, 2),
        ({"authorization": "Bearer nobody"}, body(1), 401, 1),
        ({"azureml-model-deployment": "red"}, body(1), 404, 3),
    ):
        for _ in range(times):
            assert client.post(url, json=sent, headers=headers).status_code == status


def test_bytes_are_counted_as_they_travel(gateway: GatewayProcess, digits: Digits) -> None:
    before = gateway.metrics()
    with gateway.client("digits", headers={**_key(gateway), "azureml-model-deployment": "green"}) as client:
        reply = client.post("/endpoints/digits/score", json={"input_data": digits.pixels[:9].tolist()})
    after = gateway.metrics()
    sent, got = int(reply.request.headers["content-length"]), len(reply.content)
    assert (
        after.value("gateway_request_bytes_total", **GREEN) - before.value("gateway_request_bytes_total", **GREEN)
        == sent
    )
    assert (
        after.value("gateway_response_bytes_total", **GREEN) - before.value("gateway_response_bytes_total", **GREEN)
        == got
    )


def _key(gateway: GatewayProcess) -> dict[str, str]:
    return {"authorization": f"Bearer {gateway.keys('digits')['primaryKey']}"}


def test_facts_about_the_gateway_are_told(gateway: GatewayProcess) -> None:
    metrics = gateway.metrics()
    assert metrics.value("gateway_traffic_weight", deployment="blue") == 90
    assert metrics.value("gateway_traffic_weight", deployment="green") == 10
    assert metrics.value("gateway_scorers", state="serving") == 2
    assert metrics.value("gateway_scorer_restarts_total") == 0
    assert metrics.value("gateway_config_last_reload_success") == 1
    form = "pure" if lane.__file__.endswith(".py") else "compiled"
    assert metrics.value("gateway_build_info", form=form) == 1
    infos = [sample.labels for sample in metrics.samples if sample.name == "gateway_model_info"]
    assert {info["deployment"] for info in infos} == {"blue", "green"}
    assert all(len(info["sha256"]) >= 12 for info in infos)


def test_what_the_listener_refuses_is_counted_by_reason(gateway: GatewayProcess) -> None:
    before = gateway.metrics()
    with gateway.client() as client:
        assert client.get("/v2/health/live", headers={"x_user": "somebody"}).status_code == 200
        assert client.get("/" + "x" * 9000).status_code == 414
    after = gateway.metrics()
    for reason, count in (("underscore_header", 1), ("uri_too_long", 1), ("connections", 0)):
        shown = [one for one in after.samples if one.labels.get("reason") == reason]
        assert "gateway_edge_refused_total" in {one.name for one in shown}
        name = "gateway_edge_refused_total"
        assert after.value(name, reason=reason) - before.value(name, reason=reason) == count


def test_answers_within_the_slo_are_counted_and_a_new_slo_by_a_reload_forgets_none(tmp_path: Path) -> None:
    def endpoint(**gateway: float) -> str:
        return endpoint_yaml(traffic={"blue": 100}, gateway=gateway)

    def within(page: Metrics, le: str) -> list[float]:
        """What the page shows for this edge, of the one deployment."""
        name = "gateway_request_duration_seconds_bucket"
        return [one.value for one in page.samples if one.name == name and one.labels["le"] == le]

    def score(times: int) -> None:
        for client in clients * times:
            assert client.post("/endpoints/digits/score", json={"input_data": [[1, 2, 3, 4]]}).status_code == 200

    files: dict[str, str | bytes] = {
        "endpoint.yml": endpoint(slo_ms=45_000),
        "blue.yml": deployment_yaml("blue", "blue.onnx"),
        "blue.onnx": identity(shape=("N", 4)),
    }
    with (
        GatewayProcess(write_folder(tmp_path / "models", files), tmp_path / "state", scheme="http") as gateway,
        ExitStack() as stack,
    ):
        clients = one_client_a_scorer(stack, lambda: gateway.client("digits"))
        score(3)
        page = gateway.metrics()
        assert page.value("gateway_slo_seconds", endpoint="digits") == 45
        assert (within(page, "45.0"), within(page, "+Inf")) == ([6], [6])

        replace_file(tmp_path / "models" / "endpoint.yml", endpoint(slo_ms=60_000).encode())
        gateway.reload()
        score(1)
        page = gateway.metrics()
        assert page.value("gateway_slo_seconds", endpoint="digits") == 60
        edges = ("45.0", "10.0", "60.0", "+Inf")
        # All were faster than 10 s, where the standard edges end.
        assert [within(page, le) for le in edges] == [[], [8], [8], [8]]

        replace_file(tmp_path / "models" / "endpoint.yml", endpoint().encode())
        gateway.reload()
        page = gateway.metrics()
        assert [within(page, le) for le in edges] == [[], [8], [], [8]]
        assert "gateway_slo_seconds" not in {one.name for one in page.samples}


def test_open_connections_are_counted(gateway: GatewayProcess) -> None:
    def opened() -> float:
        return gateway.metrics().value("gateway_connections_open")

    # Those of earlier tests first have to go.
    eventually(lambda: opened() == 0, "no connection is open")
    with ExitStack() as stack:
        for _ in range(3):
            assert stack.enter_context(gateway.client()).get("/v2/health/live").status_code == 200
        assert opened() == 3


def test_the_page_is_clean_for_prometheus(gateway: GatewayProcess) -> None:
    page = gateway.telemetry("/metrics").text
    done = subprocess.run(
        [promtool(), "check", "metrics"], input=page, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
