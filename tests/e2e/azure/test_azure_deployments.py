"""Deployments by azure-ai-ml: with what they bring inline, in pairs, scaled, and when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.azure import DIGITS, REQUEST, Sdk, deployed, deployment, endpoint, long_to_load
from tests.support.azure import sdk as client
from tests.support.models import external_data
from tests.support.process import GatewayProcess

# The SDK and what it needs warn about each other; the gateway is another process.
pytestmark = pytest.mark.filterwarnings("ignore")

BLUE, GREEN = (DIGITS / name / "model.onnx" for name in ("blue", "green"))


def test_an_inline_model_and_environment_travel_with_the_deployment(sdk: Sdk) -> None:
    endpoint(sdk, "inline")
    environment = sdk.e.Environment(
        image="mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04",
        conda_file={"name": "scoring", "dependencies": ["python=3.10"]},
    )
    made = deployed(
        *(sdk, "inline", "blue", BLUE),
        environment=environment,
        description="a forest",
        tags={"kind": "forest"},
        request_settings=sdk.e.OnlineRequestSettings(request_timeout_ms=2000, max_concurrent_requests_per_instance=4),
    )
    found = sdk.ml.online_deployments.get("blue", "inline")
    for one in (made, found):
        assert (one.provisioning_state, one.instance_count) == ("Succeeded", 1)
        assert (one.description, one.tags, one.instance_type) == ("a forest", {"kind": "forest"}, "Standard_DS3_v2")
        assert one.request_settings.request_timeout_ms == 2000
        assert "/models/" in one.model
        assert "/environments/CliV2AnonymousEnvironment/versions/" in one.environment


def test_the_same_again_is_an_update_and_uploads_nothing_new(sdk: Sdk) -> None:
    endpoint(sdk, "twice")
    first, second = (deployed(sdk, "twice", "blue", BLUE) for _ in range(2))
    assert first.model == second.model
    assert [one.name for one in sdk.ml.online_deployments.list("twice")] == ["blue"]


def test_a_registered_model_is_served_by_reference(sdk: Sdk) -> None:
    sdk.ml.models.create_or_update(sdk.e.Model(name="by-reference", version="3", path=str(GREEN)))
    endpoint(sdk, "referring")
    made = deployed(sdk, "referring", "green", "azureml:by-reference:3")
    assert made.model.endswith("/models/by-reference/versions/3")
    latest = deployed(sdk, "referring", "latest", "by-reference@latest")
    assert latest.model == made.model


def test_a_model_that_is_not_registered_is_named(sdk: Sdk) -> None:
    endpoint(sdk, "missing-model")
    with pytest.raises(sdk.errors.HttpResponseError, match="azureml:nowhere:1"):
        deployed(sdk, "missing-model", "blue", "azureml:nowhere:1")


def test_a_folder_with_external_data_is_a_model(sdk: Sdk, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(external_data("weights.bin"))
    (folder / "weights.bin").write_bytes(bytes(16))
    endpoint(sdk, "two-files")
    assert deployed(sdk, "two-files", "blue", folder).provisioning_state == "Succeeded"


def test_blue_is_replaced_by_green_without_a_pause(sdk: Sdk) -> None:
    endpoint(sdk, "replaced")
    deployed(sdk, "replaced", "blue", BLUE)
    entity = sdk.ml.online_endpoints.get("replaced")
    entity.traffic = {"blue": 100}
    sdk.ml.online_endpoints.begin_create_or_update(entity).result()
    deployed(sdk, "replaced", "green", GREEN)
    entity.traffic = {"green": 100}
    sdk.ml.online_endpoints.begin_create_or_update(entity).result()
    sdk.ml.online_deployments.begin_delete("blue", "replaced").result()
    assert [one.name for one in sdk.ml.online_deployments.list("replaced")] == ["green"]
    assert sdk.ml.online_endpoints.invoke("replaced", request_file=str(REQUEST)).startswith('{"label":[1,4,5,6,9]')


def test_a_deployment_with_traffic_is_not_deleted(sdk: Sdk) -> None:
    endpoint(sdk, "in-use")
    for name, model in (("blue", BLUE), ("green", GREEN)):
        deployed(sdk, "in-use", name, model)
    entity = sdk.ml.online_endpoints.get("in-use")
    entity.traffic, entity.mirror_traffic = {"blue": 100}, {"green": 10}
    sdk.ml.online_endpoints.begin_create_or_update(entity).result()
    for name, share in (("blue", "100 percent of traffic"), ("green", "10 percent of mirror_traffic")):
        with pytest.raises(sdk.errors.HttpResponseError, match=f"deployment {name} has {share}"):
            sdk.ml.online_deployments.begin_delete(name, "in-use").result()


def test_more_instances_are_a_change_that_loads_nothing(sdk: Sdk, gateway: GatewayProcess) -> None:
    endpoint(sdk, "scaled")
    deployed(sdk, "scaled", "blue", BLUE)
    loads = gateway.log().count("scaled/blue is loaded")
    assert loads
    entity = sdk.ml.online_deployments.get("blue", "scaled")
    entity.instance_count = 2
    assert sdk.ml.online_deployments.begin_create_or_update(entity).result().instance_count == 2
    assert sdk.ml.online_deployments.get("blue", "scaled").instance_count == 2
    assert gateway.log().count("scaled/blue is loaded") == loads
    assert "scaled/blue is drained" not in gateway.log()


def test_what_azure_has_no_word_for_survives_a_change_by_the_sdk(sdk: Sdk) -> None:
    endpoint(sdk, "own-words")
    ours = {"batching": {"max_rows": 8}}
    deployed(sdk, "own-words", "blue", BLUE, properties={"gateway": json.dumps(ours), "free": "text"})
    entity = sdk.ml.online_deployments.get("blue", "own-words")
    assert (json.loads(entity.properties["gateway"]), entity.properties["free"]) == (ours, "text")
    entity.description = "changed"
    sdk.ml.online_deployments.begin_create_or_update(entity).result()
    again = sdk.ml.online_deployments.get("blue", "own-words")
    assert (json.loads(again.properties["gateway"]), again.description) == (ours, "changed")


def test_a_broken_model_fails_with_its_reason_and_can_be_tried_again(sdk: Sdk, broken: Path) -> None:
    endpoint(sdk, "broken")
    poller = sdk.ml.online_deployments.begin_create_or_update(deployment(sdk, "broken", "blue", broken))
    with pytest.raises(sdk.errors.HttpResponseError, match="is not an ONNX model") as failure:
        poller.result()
    assert failure.value.error.code == "BadArgument"
    assert sdk.ml.online_deployments.get("blue", "broken").provisioning_state == "Failed"
    logs = sdk.ml.online_deployments.get_logs("blue", "broken", lines=50)
    assert "is not an ONNX model" in logs
    assert deployed(sdk, "broken", "blue", GREEN).provisioning_state == "Succeeded"


def test_a_failed_update_leaves_what_was_served(sdk: Sdk, broken: Path) -> None:
    endpoint(sdk, "kept")
    deployed(sdk, "kept", "blue", GREEN)
    entity = sdk.ml.online_endpoints.get("kept")
    entity.traffic = {"blue": 100}
    sdk.ml.online_endpoints.begin_create_or_update(entity).result()
    with pytest.raises(sdk.errors.HttpResponseError, match="is not an ONNX model"):
        deployed(sdk, "kept", "blue", broken)
    assert sdk.ml.online_deployments.get("blue", "kept").provisioning_state == "Failed"
    assert sdk.ml.online_endpoints.invoke("kept", request_file=str(REQUEST)).startswith('{"label":[1,4,5,6,9]')


def test_what_is_no_model_is_refused_before_anything_is_made(sdk: Sdk, tmp_path: Path) -> None:
    endpoint(sdk, "no-model")
    text = tmp_path / "notes.txt"
    text.write_text("no model")
    with pytest.raises(sdk.errors.HttpResponseError, match=r"holds no \.onnx file"):
        deployed(sdk, "no-model", "blue", text)
    assert list(sdk.ml.online_deployments.list("no-model")) == []


def script_folders(place: Path) -> tuple[Path, Path]:
    """A folder of code with a helper beside it, and a folder that is the model."""
    code, model = place / "code", place / "weights"
    (code / "inner").mkdir(parents=True)
    (code / "score.py").write_text(
        "import json, os\nfrom inner.helper import read\n\n"
        "def init():\n    global offset\n"
        "    offset = read(os.path.join(os.environ['AZUREML_MODEL_DIR'], 'weights', 'offset.txt'))\n\n"
        "def run(raw):\n    return {'sum': sum(json.loads(raw)['data']) + offset}\n"
    )
    (code / "inner" / "__init__.py").write_text("")
    (code / "inner" / "helper.py").write_text("def read(path):\n    return int(open(path).read())\n")
    model.mkdir()
    (model / "offset.txt").write_text("100")
    return code, model


def test_code_environment_and_model_are_deployed_and_invoked(sdk: Sdk, tmp_path: Path) -> None:
    code, model = script_folders(tmp_path)
    request = tmp_path / "request.json"
    request.write_text('{"data": [1, 2, 3]}')
    endpoint(sdk, "with-code")
    entity = deployment(
        *(sdk, "with-code", "blue", model),
        code_configuration=sdk.e.CodeConfiguration(code=str(code), scoring_script="score.py"),
        environment=sdk.e.Environment(image="mcr.microsoft.com/azureml/minimal"),
        environment_variables={"WORKER_COUNT": "2"},
    )
    for _ in range(2):
        # The second time the code is found by its hash and not sent again, and no worker is started.
        made = sdk.ml.online_deployments.begin_create_or_update(entity).result()
        assert made.provisioning_state == "Succeeded"
        assert made.code_configuration.scoring_script == "score.py"
        found = sdk.ml.online_endpoints.invoke("with-code", request_file=str(request), deployment_name="blue")
        assert json.loads(found) == {"sum": 106}
    logs = sdk.ml.online_deployments.get_logs("blue", "with-code", lines=100)
    assert "azmlinfsrv" in logs
    assert "POST /score 200" in logs
    sdk.ml.online_deployments.begin_delete("blue", "with-code").result()


def test_a_script_that_cannot_start_fails_with_its_reason_in_operation_and_logs(sdk: Sdk, tmp_path: Path) -> None:
    code, model = script_folders(tmp_path)
    (model / "offset.txt").write_text("a hundred")
    endpoint(sdk, "bad-code")

    def deploy() -> Any:
        entity = deployment(
            *(sdk, "bad-code", "blue", model),
            code_configuration=sdk.e.CodeConfiguration(code=str(code), scoring_script="score.py"),
            environment="azureml:AzureML-sklearn-1.5@latest",
        )
        return sdk.ml.online_deployments.begin_create_or_update(entity).result()

    with pytest.raises(sdk.errors.HttpResponseError, match="invalid literal for int") as failure:
        deploy()
    assert failure.value.error.code == "UserScriptInitFailed"
    assert sdk.ml.online_deployments.get("blue", "bad-code").provisioning_state == "Failed"
    logs = sdk.ml.online_deployments.get_logs("blue", "bad-code", lines=50)
    assert "Traceback" in logs
    assert "invalid literal for int" in logs
    (model / "offset.txt").write_text("7")
    assert deploy().provisioning_state == "Succeeded"


def test_logs_tell_what_happened(sdk: Sdk) -> None:
    endpoint(sdk, "logged")
    deployed(sdk, "logged", "blue", BLUE)
    logs = sdk.ml.online_deployments.get_logs("blue", "logged", lines=50)
    assert "create: succeeded" in logs
    last = sdk.ml.online_deployments.get_logs("blue", "logged", lines=1, container_type="storage-initializer")
    assert logs.endswith(last)
    assert last.count("\n") == 1


def test_a_second_change_has_to_wait_for_the_first(
    sdk: Sdk, gateway: GatewayProcess, tmp_path: Path, trust: None
) -> None:
    slow = tmp_path / "slow.onnx"
    slow.write_bytes(long_to_load())
    endpoint(sdk, "one-by-one")
    poller = sdk.ml.online_deployments.begin_create_or_update(deployment(sdk, "one-by-one", "slow", slow))
    assert sdk.ml.online_deployments.get("slow", "one-by-one").provisioning_state == "Creating"
    # With its retries the SDK waits for short changes by itself; this client tells at once.
    impatient = client(gateway, retry_total=0)
    with pytest.raises(sdk.errors.ResourceExistsError, match="is being changed"):
        impatient.ml.online_endpoints.begin_delete("one-by-one").result()
    assert poller.result().provisioning_state == "Succeeded"
    sdk.ml.online_endpoints.begin_delete("one-by-one").result()
