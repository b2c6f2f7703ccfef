"""Which deployment answers, which one gets a copy, and how many requests a deployment takes at once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.load import in_thread, one_client_a_scorer
from tests.support.models import double, identity, never_runs
from tests.support.process import GatewayProcess, deployment_yaml, endpoint_yaml, write_folder
from tests.support.slow import SETTINGS, slow_model
from tests.support.waiting import eventually

BODY = {"input_data": [[1, 2, 3, 4]]}
DOMAIN = "models.example"


def _slow(name: str, endpoint: str, **request_settings: int) -> str:
    more = {"request_settings": request_settings} if request_settings else {}
    return deployment_yaml(name, "slow.onnx", endpoint, gateway=SETTINGS, **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files: dict[str, str | bytes] = {
        "double.onnx": double(),
        "same.onnx": identity(shape=("N", 4)),
        "number.onnx": identity(shape=(1, 1)),
        "fails.onnx": never_runs(),
        "slow.onnx": slow_model(),
        # 90 to 10, a third one without traffic.
        "split.yml": endpoint_yaml("split", traffic={"blue": 90, "green": 10, "spare": 0}),
        "blue.yml": deployment_yaml("Blue", "double.onnx", "split"),
        "green.yml": deployment_yaml("green", "same.onnx", "split"),
        "spare.yml": deployment_yaml("spare", "same.onnx", "split"),
        # No traffic at all.
        "idle.yml": endpoint_yaml("idle", traffic={"only": 0}),
        "only.yml": deployment_yaml("only", "double.onnx", "idle"),
        # Half of the requests are copied, to one that fails, or to one that takes what the request says.
        "failing.yml": endpoint_yaml("failing", traffic={"main": 100}, mirror_traffic={"shadow": 50}),
        "main1.yml": deployment_yaml("main", "double.onnx", "failing"),
        "shadow1.yml": deployment_yaml("shadow", "fails.onnx", "failing"),
        "lagging.yml": endpoint_yaml("lagging", traffic={"main": 100}, mirror_traffic={"shadow": 50}),
        "main2.yml": deployment_yaml("main", "number.onnx", "lagging"),
        "shadow2.yml": _slow("shadow", "lagging", request_timeout_ms=60_000),
        # Bounds and deadlines.
        "bounded.yml": endpoint_yaml("bounded", traffic={"slow": 100}),
        "bound.yml": _slow("slow", "bounded", max_concurrent_requests_per_instance=1, request_timeout_ms=60_000),
        "timed.yml": endpoint_yaml("timed", traffic={"slow": 100}),
        "time.yml": _slow("slow", "timed", request_timeout_ms=300),
        "queued.yml": endpoint_yaml("queued", traffic={"slow": 100}),
        "queue.yml": _slow("slow", "queued", request_timeout_ms=60_000, max_queue_wait_ms=100),
    }
    return write_folder(tmp_path_factory.mktemp("routing"), files)


@pytest.fixture(scope="module")
def one(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One scorer, so that its turns can be counted."""
    state = tmp_path_factory.mktemp("one") / "state"
    with GatewayProcess(folder, state, "--domain", DOMAIN, "--mirror-in-flight-max", "3", scorers=1) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def two(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(folder, tmp_path_factory.mktemp("two") / "state", "--timeout-status", "504") as gateway:
        yield gateway


def _score(client: httpx.Client, endpoint: str, deployment: str = "", **options: Any) -> httpx.Response:
    headers = {"azureml-model-deployment": deployment} if deployment else {}
    return client.post(f"/endpoints/{endpoint}/score", **{"json": BODY, "headers": headers, **options})


def _take(client: httpx.Client, endpoint: str, ms: float, **options: Any) -> httpx.Response:
    return _score(client, endpoint, json={"input_data": [[ms]]}, **options)


def _chosen(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    return reply.headers["azureml-model-deployment"]


# Weights, header, versions, host names.


def test_any_100_consecutive_requests_are_split_exactly_as_the_weights_say(one: GatewayProcess) -> None:
    with one.client("split") as client:
        chosen = [_chosen(_score(client, "split")) for _ in range(250)]
    for first in range(len(chosen) - 100):
        assert Counter(chosen[first : first + 100]) == {"Blue": 90, "green": 10}
    # Evenly spread, not in a block.
    places = [place for place, name in enumerate(chosen) if name == "green"]
    assert {later - earlier for earlier, later in pairwise(places)} == {10}


def test_both_scorers_split_exactly(two: GatewayProcess) -> None:
    with ExitStack() as stack:
        for client in one_client_a_scorer(stack, lambda: two.client("split")):
            chosen = Counter(_chosen(_score(client, "split")) for _ in range(100))
            assert chosen == {"Blue": 90, "green": 10}


@pytest.mark.parametrize("name", ["spare", "SPARE"])
def test_the_header_names_any_deployment_also_one_without_traffic(one: GatewayProcess, name: str) -> None:
    with one.client("split") as client:
        reply = _score(client, "split", name)
    assert _chosen(reply) == "spare"
    assert reply.json() == [[1, 2, 3, 4]]


def test_a_header_that_names_nothing_is_404_with_what_there_is(one: GatewayProcess) -> None:
    with one.client("split") as client:
        for name in ("purple", "split", "blue,green", "a" * 200):
            reply = _score(client, "split", name)
            assert reply.status_code == 404, name
            assert "it has: blue, green, spare" in reply.json()["error"]["message"]


def test_naming_a_deployment_takes_no_turn_of_the_weights(one: GatewayProcess) -> None:
    with one.client("split") as client:
        chosen = []
        for _ in range(100):
            _score(client, "split", "spare")
            chosen.append(_chosen(_score(client, "split")))
    assert Counter(chosen) == {"Blue": 90, "green": 10}


def test_no_traffic_is_404_and_the_header_still_works(one: GatewayProcess) -> None:
    with one.client("idle") as client:
        refused = _score(client, "idle")
        assert refused.status_code == 404
        assert "traffic" in refused.json()["error"]["message"]
        assert _chosen(_score(client, "idle", "only")) == "only"


def test_v2_versions_are_deployments(one: GatewayProcess) -> None:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
    with one.client("split") as client:
        found = {}
        for version in ("blue", "Blue", "green", "spare", "purple"):
            reply = client.post(f"/v2/models/split/versions/{version}/infer", json={"inputs": [tensor]})
            found[version] = (reply.status_code, reply.json().get("model_version"))
        assert found == {
            "blue": (200, "Blue"),
            "Blue": (200, "Blue"),
            "green": (200, "green"),
            "spare": (200, "spare"),
            "purple": (404, None),
        }
        weighted = Counter(
            client.post("/v2/models/split/infer", json={"inputs": [tensor]}).json()["model_version"]
            for _ in range(100)
        )
    assert weighted == {"Blue": 90, "green": 10}


def test_a_host_name_under_the_domain_is_an_endpoint(one: GatewayProcess) -> None:
    port = one.urls["scoring"].rsplit(":", 1)[1]
    with one.client("split") as client:
        for host in (f"split.{DOMAIN}", f"SPLIT.Models.Example:{port}"):
            reply = client.post("/score", json=BODY, headers={"host": host})
            assert _chosen(reply) in ("Blue", "green")
        hosted = {"host": f"split.{DOMAIN}"}
        assert client.get("/swagger.json", headers=hosted).json()["swagger"] == "2.0"
        assert client.get("/", headers=hosted).text == "Healthy"
        for host in (DOMAIN, f"nobody.{DOMAIN}", f"a.split.{DOMAIN}", "split.elsewhere.example", "split"):
            assert client.post("/score", json=BODY, headers={"host": host}).status_code == 404, host
        # The key of one endpoint opens no other one, whatever the way there.
        assert client.post("/score", json=BODY, headers={"host": f"idle.{DOMAIN}"}).status_code == 401


def test_the_certificate_is_good_for_the_host_names(one: GatewayProcess) -> None:
    context = one.trust()
    with one.client("split", verify=context) as client:
        reply = client.post(
            "/score", json=BODY, extensions={"sni_hostname": f"split.{DOMAIN}"}, headers={"host": f"split.{DOMAIN}"}
        )
    assert reply.status_code == 200


# Mirror.


def _mirrored(gateway: GatewayProcess, endpoint: str, outcome: str) -> float:
    labels = {"endpoint": endpoint, "deployment": "shadow", "outcome": outcome}
    return gateway.metrics().value("gateway_mirror_total", **labels)


def test_a_mirror_that_fails_is_counted_and_nobody_notices(one: GatewayProcess) -> None:
    with one.client("failing") as client:
        for _ in range(20):
            reply = _score(client, "failing")
            assert (_chosen(reply), reply.json()) == ("main", [[2, 4, 6, 8]])
            assert not [name for name in reply.headers if "error" in name]
        eventually(lambda: _mirrored(one, "failing", "failed") == 10, "half of the requests were copied", 5)
        # A named deployment is never mirrored, and a mirror can be named.
        assert _chosen(_score(client, "failing", "main")) == "main"
        refused = _score(client, "failing", "shadow")
        assert refused.status_code == 424
        assert refused.headers["ms-azureml-model-error-statuscode"] == "500"
    metrics = one.metrics()
    assert metrics.value("gateway_mirror_total", endpoint="failing") == 10
    assert metrics.value("gateway_requests_total", endpoint="failing", deployment="main", code="200") == 21
    # Copies are no requests: only the one by name counts.
    assert metrics.value("gateway_requests_total", endpoint="failing", deployment="shadow") == 1


def test_a_mirror_that_lags_delays_nobody_and_drops_what_it_has_no_room_for(one: GatewayProcess) -> None:
    ms = 500.0
    with one.client("lagging") as client:
        took_s = []
        for _ in range(16):
            began_s = time.perf_counter()
            reply = _take(client, "lagging", ms)
            took_s.append(time.perf_counter() - began_s)
            assert (_chosen(reply), reply.json()) == ("main", [[ms]])
    assert sorted(took_s)[len(took_s) // 2] < 0.1
    assert max(took_s) < ms / 1000
    # Eight copies: three have room, the others come while these still run.
    eventually(lambda: _mirrored(one, "lagging", "answered") + _mirrored(one, "lagging", "dropped") == 8, "8 copies")
    assert _mirrored(one, "lagging", "answered") >= 3
    assert _mirrored(one, "lagging", "dropped") >= 3


# Bounds and deadlines.


def test_a_bound_on_pending_requests_holds_over_all_scorers(two: GatewayProcess) -> None:
    """Bound 2: twice one concurrent request of one instance, for both scorers together."""
    with ExitStack() as stack:
        first, second = one_client_a_scorer(stack, lambda: two.client("bounded"))
        running = [in_thread(partial(_alone, two, ms)) for ms in (900.0, 900.0)]
        eventually(lambda: two.metrics().value("gateway_requests_in_flight", endpoint="bounded") == 2, "2 run")
        for client in (first, second, first, second):
            refused = _take(client, "bounded", 1)
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert "2 requests pending" in refused.json()["error"]["message"]
        assert [result().status_code for result in running] == [200, 200]
        # The seats are free again.
        assert _take(first, "bounded", 1).status_code == 200
        assert _take(second, "bounded", 1).status_code == 200
    assert two.metrics().value("gateway_rejected_total", endpoint="bounded", reason="concurrency") == 4


def test_callers_that_hang_up_give_their_seats_back(two: GatewayProcess) -> None:
    with two.client("bounded") as client:
        for _ in range(3):
            with pytest.raises(httpx.ReadTimeout), two.client("bounded", timeout=0.2) as impatient:
                _take(impatient, "bounded", 700)
        eventually(lambda: _take(client, "bounded", 1).status_code == 200, "a seat is free")


def _alone(gateway: GatewayProcess, ms: float) -> httpx.Response:
    with gateway.client("bounded") as client:
        return _take(client, "bounded", ms)


def test_a_request_that_takes_too_long_is_408_in_time(one: GatewayProcess) -> None:
    with one.client("timed") as client:
        began_s = time.perf_counter()
        refused = _take(client, "timed", 1200)
        took_s = time.perf_counter() - began_s
        assert refused.status_code == 408
        assert refused.json()["error"]["code"] == "deadline_exceeded"
        assert refused.headers["azureml-model-deployment"] == "slow"
        assert 0.3 <= took_s < 1.0
        # The instance is busy until the model ends, and then it serves again.
        eventually(lambda: _take(client, "timed", 1).status_code == 200, "it serves again", 5)


def test_a_caller_may_ask_for_a_shorter_deadline_and_not_for_a_longer_one(one: GatewayProcess) -> None:
    with one.client("bounded") as client:
        refused = _take(client, "bounded", 800, headers={"x-request-timeout-ms": "100"})
        assert refused.status_code == 408
    with one.client("timed") as client:
        refused = _take(client, "timed", 800, headers={"x-request-timeout-ms": "10000"})
        assert refused.status_code == 408
        eventually(lambda: _take(client, "timed", 1).status_code == 200, "it serves again", 5)


def test_the_status_of_a_missed_deadline_is_a_setting(two: GatewayProcess) -> None:
    with two.client("timed") as client:
        assert _take(client, "timed", 1000).status_code == 504


def test_waiting_longer_than_the_queue_allows_is_429(one: GatewayProcess) -> None:
    with ExitStack() as stack:
        busy, waiting = (stack.enter_context(one.client("queued")) for _ in range(2))
        running = in_thread(lambda: _take(busy, "queued", 700))
        eventually(lambda: one.metrics().value("gateway_requests_in_flight", endpoint="queued") == 1, "one runs")
        refused = _take(waiting, "queued", 1)
        assert refused.status_code == 429
        assert "retry-after" in refused.headers
        assert running().status_code == 200
        assert _take(waiting, "queued", 1).status_code == 200
