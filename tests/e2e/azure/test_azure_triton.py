"""Triton repositories and custom containers by azure-ai-ml: the one is served, the other refused with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tritonclient.http as triton
from tritonclient.utils import np_to_triton_dtype

from tests.e2e.test_triton import ROWS, client_at
from tests.support.azure import DIGITS, Sdk, deployed, deployment, endpoint
from tests.support.process import GatewayProcess, write_folder
from tests.support.triton import TIMES, repository

# The SDK and what it needs warn about each other; the gateway is another process.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return write_folder(tmp_path, repository("triton")) / "triton"


def test_a_registered_repository_is_served_and_batched_as_its_file_says(
    sdk: Sdk, gateway: GatewayProcess, repo: Path
) -> None:
    model = sdk.e.Model(name="times", version="1", type="triton_model", path=str(repo))
    registered = sdk.ml.models.create_or_update(model)
    assert (registered.type, registered.version) == ("triton_model", "1")
    endpoint(sdk, "triton-sdk")
    made = deployed(sdk, "triton-sdk", "blue", "azureml:times:1")
    assert made.provisioning_state == "Succeeded"
    status = gateway.status()["endpoints"]["triton-sdk"]["deployments"]["blue"]
    assert (status["model"], status["version"], status["rows_max"], status["preferred_rows"]) == (
        "times",
        "3",
        8,
        [4, 8],
    )
    assert any("version_policy" in line for line in _logs(sdk, "triton-sdk").splitlines())
    _assert_scores(sdk, gateway, "triton-sdk")


def test_an_inline_repository_travels_with_the_deployment(sdk: Sdk, gateway: GatewayProcess, repo: Path) -> None:
    endpoint(sdk, "triton-inline")
    deployed(sdk, "triton-inline", "blue", sdk.e.Model(type="triton_model", path=str(repo)))
    _assert_scores(sdk, gateway, "triton-inline")


def _assert_scores(sdk: Sdk, gateway: GatewayProcess, name: str) -> None:
    """As the sample of Azure's documentation does it: the scoring URI is the server, the key is in the headers."""
    key = sdk.ml.online_endpoints.get_keys(name).primary_key
    uri = sdk.ml.online_endpoints.get(name).scoring_uri
    headers = {"Authorization": f"Bearer {key}", "azureml-model-deployment": "blue"}
    with client_at(gateway, uri.removeprefix("https://")) as client:
        assert client.is_server_ready(headers=headers)
        assert client.is_model_ready("times", "3", headers=headers)
        tensor = triton.InferInput("x", list(ROWS.shape), np_to_triton_dtype(ROWS.dtype))
        tensor.set_data_from_numpy(ROWS)
        result = client.infer("times", [tensor], headers=headers)
    assert (result.as_numpy("y") == 30 * ROWS).all()


def _logs(sdk: Sdk, name: str) -> str:
    found: Any = sdk.ml.online_deployments.get_logs("blue", name, lines=100)
    return str(found)


def test_a_repository_that_is_not_onnx_fails_with_what_to_do(sdk: Sdk, tmp_path: Path) -> None:
    files = repository("plan", config=TIMES.replace("onnxruntime_onnx", "tensorrt_plan"))
    folder = write_folder(tmp_path, files) / "plan"
    endpoint(sdk, "triton-plan")
    model: Any = sdk.e.Model(type="triton_model", path=str(folder))
    with pytest.raises(sdk.errors.HttpResponseError, match=r"tensorrt_plan.*convert the model to ONNX"):
        sdk.ml.online_deployments.begin_create_or_update(deployment(sdk, "triton-plan", "blue", model)).result()


def test_a_custom_container_is_refused_with_what_to_do(sdk: Sdk) -> None:
    """With routes of its own, as Azure's samples of other servers have it, registered and inline alike."""
    routes = {kind: {"port": 8501, "path": "/v1"} for kind in ("liveness_route", "readiness_route", "scoring_route")}
    environment = sdk.e.Environment(
        name="tf-serving", version="1", image="docker.io/tf/serving", inference_config=routes
    )
    endpoint(sdk, "container")
    with pytest.raises(
        sdk.errors.HttpResponseError, match="no container is run here; give the model as an ONNX file"
    ):
        deployed(sdk, "container", "blue", DIGITS / "blue" / "model.onnx", environment=environment)
