"""Triton repositories over HTTPS, for the real tritonclient: its server is an endpoint, batched as the file says."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent.ssl
import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import yaml
from tritonclient.utils import InferenceServerException

from tests.support.process import GatewayProcess, endpoint_yaml, write_folder
from tests.support.triton import DELAY_US, TIMES, repository

HELD = TIMES.replace("delay_microseconds: 100", f"delay_microseconds: {DELAY_US}")
ALONE = TIMES.split("dynamic_batching")[0]
ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)


def _deployment(name: str, path: str = "", **more: Any) -> str:
    model = {"path": path, "type": "triton_model"}
    fields = {"name": name, "endpoint_name": "nets", "model": model, "instance_type": "cpu"}
    return yaml.safe_dump({**fields, **more}, sort_keys=False)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One scorer, so that requests that are to share a run meet."""
    place = tmp_path_factory.mktemp("triton")
    both = repository("both", "first", config="") | repository("both", "second", config="")
    files = {
        "nets.yml": endpoint_yaml("nets", traffic={"blue": 100}),
        "blue.yml": _deployment("blue", "./wrapped"),
        "held.yml": _deployment("held", "./held", request_settings={"request_timeout_ms": 120_000}),
        "alone.yml": _deployment("alone", "./alone/times"),
        "model.yml": "name: named\nversion: 2\ntype: triton_model\npath: ./held\n",
        "named.yml": _deployment("named", model="azureml:named:2"),
        "other.yml": _deployment("other", "./both", gateway={"runtime": {"model": "second"}}),
        **repository("wrapped/models"),
        **repository("held", config=HELD),
        **repository("alone", config=ALONE),
        **both,
    }
    with GatewayProcess(write_folder(place / "folder", files), place / "state", scorers=1) as process:
        yield process


@contextmanager
def client_at(gateway: GatewayProcess, address: str, **options: Any) -> Iterator[Any]:
    """A client that takes this address, without its scheme, for a server of Triton."""

    def trust() -> ssl.SSLContext:
        context: ssl.SSLContext = gevent.ssl.create_default_context(cafile=gateway.urls["ca"])
        return context

    with triton.InferenceServerClient(address, ssl=True, ssl_context_factory=trust, **options) as client:
        yield client


def _client(gateway: GatewayProcess, path: str, **options: Any) -> Any:
    return client_at(gateway, gateway.urls["scoring"].removeprefix("https://") + path, **options)


@pytest.fixture(params=["/endpoints/nets", "/endpoints/nets/score"])
def client(gateway: GatewayProcess, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The endpoint's address as the server's, or its scoring URI as Azure's samples take it."""
    with _client(gateway, request.param) as client:
        yield client


@pytest.fixture
def headers(gateway: GatewayProcess) -> dict[str, str]:
    return {"Authorization": f"Bearer {gateway.keys('nets')['primaryKey']}"}


def _tensor(rows: Any = ROWS) -> Any:
    tensor = triton.InferInput("x", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    return tensor


def test_a_client_of_triton_finds_its_server_below_the_endpoint(client: Any, headers: dict[str, str]) -> None:
    assert client.is_server_live(headers=headers)
    assert client.is_server_ready(headers=headers)
    assert client.is_model_ready("times", headers=headers)
    assert client.is_model_ready("times", "3", headers=headers)
    assert not client.is_model_ready("times", "1", headers=headers)
    assert not client.is_server_ready()
    assert "binary_tensor_data" in client.get_server_metadata(headers=headers)["extensions"]
    metadata = client.get_model_metadata("times", headers=headers)
    assert (metadata["name"], metadata["versions"]) == ("times", ["3"])
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    index = client.get_model_repository_index(headers=headers)
    assert {(one["name"], one["version"], one["state"]) for one in index} == {
        ("times", "3", "READY"),
        ("second", "3", "READY"),
    }


def test_the_newest_version_answers_by_the_repositorys_names(client: Any, headers: dict[str, str]) -> None:
    for version in ("", "3"):
        result = client.infer("times", [_tensor()], model_version=version, headers=headers)
        np.testing.assert_array_equal(result.as_numpy("y"), 30 * ROWS)
        response = result.get_response()
        assert (response["model_name"], response["model_version"]) == ("times", "3")
    with pytest.raises(InferenceServerException, match="model 'times' has no version '1'; it has: 3"):
        client.infer("times", [_tensor()], model_version="1", headers=headers)


def test_the_config_is_what_the_file_says(client: Any, headers: dict[str, str]) -> None:
    config = client.get_model_config("times", headers=headers)
    assert config["name"] == "times"
    assert config["max_batch_size"] == 8
    assert config["input"][0]["dims"] == config["output"][0]["dims"] == [4]
    assert config["dynamic_batching"]["preferred_batch_size"] == [4, 8]
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 100
    assert config["version_policy"] == {"specific": {"versions": [3]}}


def test_the_deployments_header_counts_and_a_model_elsewhere_is_named(client: Any, headers: dict[str, str]) -> None:
    for chosen in ({"azureml-model-deployment": "other"}, {}):
        result = client.infer("second", [_tensor()], headers=headers | chosen)
        np.testing.assert_array_equal(result.as_numpy("y"), 30 * ROWS)
        assert result.get_response()["model_name"] == "second"
    with pytest.raises(InferenceServerException, match=r"'blue' .* serves model 'times', not 'second'"):
        client.infer("second", [_tensor()], headers=headers | {"azureml-model-deployment": "blue"})


def test_azures_json_and_the_old_paths_score_it_too(gateway: GatewayProcess) -> None:
    with gateway.client("nets") as http:
        answer = http.post("/endpoints/nets/score", json={"input_data": ROWS.tolist()})
        assert answer.json() == (30 * ROWS).tolist()
        v2 = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
        answer = http.post("/v2/models/nets/versions/blue/infer", json=v2)
        assert answer.json()["model_name"] == "nets"
        assert answer.json()["outputs"][0]["data"] == [30, 60, 90, 120]


def _runs(client: Any, headers: dict[str, str]) -> dict[int, int]:
    """How many runs there were, by their rows."""
    (stats,) = client.get_inference_statistics("nets", "held", headers=headers)["model_stats"]
    return {one["batch_size"]: one["compute_infer"]["count"] for one in stats["batch_stats"]}


def test_a_preferred_size_goes_though_it_could_be_held(gateway: GatewayProcess, headers: dict[str, str]) -> None:
    """Four requests of a row each leave as one run: not one by one, and long before the delay is over."""
    held = headers | {"azureml-model-deployment": "held"}
    with _client(gateway, "") as root:
        before = _runs(root, headers)
        with ThreadPoolExecutor(4) as pool:

            def score(row: int) -> Any:
                with _client(gateway, "/endpoints/nets", network_timeout=60) as client:
                    return client.infer("times", [_tensor(ROWS[:1] + row)], headers=held).as_numpy("y")

            answers = list(pool.map(score, range(4)))
        after = _runs(root, headers)
    for row, answer in enumerate(answers):
        np.testing.assert_array_equal(answer, 30 * (ROWS[:1] + row))
    assert after.get(4, 0) == before.get(4, 0) + 1
    assert {
        rows: after[rows] - before.get(rows, 0) for rows in after if rows != 4 and after[rows] != before.get(rows, 0)
    } == {}


def test_more_rows_than_the_file_allows_are_refused(client: Any, headers: dict[str, str]) -> None:
    for deployment in ("blue", "alone"):
        chosen = headers | {"azureml-model-deployment": deployment}
        with pytest.raises(InferenceServerException, match="has 9 rows; a request of this model has at most 8"):
            client.infer("times", [_tensor(np.ones((9, 4), np.float32))], headers=chosen)
        result = client.infer("times", [_tensor(np.ones((8, 4), np.float32))], headers=chosen)
        assert result.as_numpy("y").shape == (8, 4)


def test_status_says_what_is_batched_and_why(gateway: GatewayProcess) -> None:
    found = gateway.status()["endpoints"]["nets"]["deployments"]
    blue = found["blue"]
    assert (blue["model"], blue["version"], blue["batched"], blue["rows_max"]) == ("times", "3", True, 8)
    assert blue["reasons"]["rows_max"] == "set by max_batch_size of config.pbtxt"
    assert (blue["preferred_rows"], blue["queue_delay_us"]) == ([4, 8], 100)
    assert blue["notes"] == [
        "config.pbtxt: version_policy: admits versions 3, 1; a deployment serves one, the newest: 3"
    ]
    assert found["held"]["queue_delay_us"] == DELAY_US
    assert not found["alone"]["batched"]
    assert found["alone"]["batching"] == (
        "config.pbtxt has max_batch_size 8 and no dynamic_batching: requests are not merged"
    )
    assert (found["other"]["model"], found["other"]["batched"]) == ("second", True)
    # The folder of `held`, registered by name: the same file, the same meaning.
    assert all(found["named"][key] == found["held"][key] for key in ("model", "version", "queue_delay_us", "notes"))


def test_what_cannot_be_served_is_said_before_anything_changes(gateway: GatewayProcess, tmp_path: Path) -> None:
    files = {
        "e.yml": endpoint_yaml("nets"),
        **{f"{name}.yml": _deployment(name, f"./{name}") for name in ("many", "plan", "cut")},
        **repository("many", "first"),
        **repository("many", "second"),
        **repository("plan", config=TIMES.replace("onnxruntime_onnx", "tensorrt_plan")),
        **repository("cut", config="input: ["),
    }
    done = gateway.run("diff", "--file", str(write_folder(tmp_path / "folder", files)))
    assert done.returncode != 0
    for said in (
        "it holds 2 models (first, second) and a deployment serves one; name it in gateway.runtime.model",
        "times/config.pbtxt: platform: found 'tensorrt_plan', which is not run here; convert the model",
        "times/config.pbtxt: line 1, column 9: found the end",
    ):
        assert said in done.stderr


def test_without_credentials_nothing_is_told(gateway: GatewayProcess) -> None:
    with httpx.Client(base_url=gateway.urls["scoring"], verify=gateway.trust()) as http:
        for path in ("", "/health/ready", "/models/times", "/models/times/config", "/models/stats"):
            answer = http.get(f"/endpoints/nets/v2{path}")
            assert answer.status_code == 401
            assert isinstance(answer.json()["error"], str)
