"""Batch endpoints and deployments by azure-ai-ml: kept, checked and read back. Their jobs do not run yet."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.azure import DIGITS, Sdk

# The SDK and what it needs warn about each other; the gateway is another process.
pytestmark = pytest.mark.filterwarnings("ignore")

MODEL = DIGITS / "green" / "model.onnx"


def batch_endpoint(sdk: Sdk, name: str) -> Any:
    entity = sdk.e.BatchEndpoint(name=name, description="nightly", tags={"team": "vision"})
    return sdk.ml.batch_endpoints.begin_create_or_update(entity).result()


def nightly(sdk: Sdk, endpoint_name: str) -> Any:
    """A deployment as YAML of `type: model` describes it."""
    from azure.ai.ml.entities._load_functions import load_model_batch_deployment

    sdk.ml.models.create_or_update(sdk.e.Model(name=f"of-{endpoint_name}", version="1", path=str(MODEL)))
    fields = {
        "name": "nightly",
        "endpoint_name": endpoint_name,
        "type": "model",
        "model": f"azureml:of-{endpoint_name}:1",
        "compute": "azureml:cluster",
        "resources": {"instance_count": 2},
        "settings": {
            "mini_batch_size": 5,
            "output_action": "append_row",
            "output_file_name": "labels.csv",
            "retry_settings": {"max_retries": 1, "timeout": 60},
        },
    }
    return load_model_batch_deployment(None, params_override=[fields])


def test_a_batch_endpoint_is_made_read_changed_and_deleted(sdk: Sdk) -> None:
    made = batch_endpoint(sdk, "by-night")
    assert made.scoring_uri.endswith("/jobs")
    made.description = "every night"
    sdk.ml.batch_endpoints.begin_create_or_update(made).result()
    found = sdk.ml.batch_endpoints.get("by-night")
    assert (found.description, found.tags, found.auth_mode) == ("every night", {"team": "vision"}, "aad_token")
    assert "by-night" in [one.name for one in sdk.ml.batch_endpoints.list()]
    sdk.ml.batch_endpoints.begin_delete("by-night").result()
    with pytest.raises(sdk.errors.ResourceNotFoundError, match="by-night"):
        sdk.ml.batch_endpoints.get("by-night")


def test_a_batch_deployment_keeps_its_settings_and_becomes_the_default(sdk: Sdk) -> None:
    batch_endpoint(sdk, "with-settings")
    sdk.ml.batch_deployments.begin_create_or_update(nightly(sdk, "with-settings")).result()
    found = sdk.ml.batch_deployments.get("nightly", "with-settings")
    assert found.model.endswith("/models/of-with-settings/versions/1")
    assert found.compute.endswith("/computes/cluster")
    assert (found.mini_batch_size, found.output_action, found.output_file_name) == (5, "append_row", "labels.csv")
    assert (found.retry_settings.max_retries, found.retry_settings.timeout) == (1, 60)
    assert found.resources.instance_count == 2
    entity = sdk.ml.batch_endpoints.get("with-settings")
    entity.defaults.deployment_name = "nightly"
    sdk.ml.batch_endpoints.begin_create_or_update(entity).result()
    assert sdk.ml.batch_endpoints.get("with-settings").defaults.deployment_name == "nightly"
    assert [one.name for one in sdk.ml.batch_deployments.list("with-settings")] == ["nightly"]


def test_a_deleted_batch_deployment_is_gone(sdk: Sdk) -> None:
    batch_endpoint(sdk, "emptied")
    sdk.ml.batch_deployments.begin_create_or_update(nightly(sdk, "emptied")).result()
    sdk.ml.batch_deployments.begin_delete("nightly", "emptied").result()
    assert list(sdk.ml.batch_deployments.list("emptied")) == []


def test_a_batch_deployment_needs_its_endpoint(sdk: Sdk) -> None:
    with pytest.raises(sdk.errors.ResourceNotFoundError, match="there is no batch endpoint"):
        sdk.ml.batch_deployments.begin_create_or_update(nightly(sdk, "not-there")).result()


def test_a_job_is_refused_with_a_sentence(sdk: Sdk) -> None:
    batch_endpoint(sdk, "no-jobs")
    sdk.ml.batch_deployments.begin_create_or_update(nightly(sdk, "no-jobs")).result()
    rows = sdk.ai.Input(type="uri_folder", path="azureml://datastores/workspaceblobstore/paths/rows/")
    with pytest.raises(sdk.errors.HttpResponseError, match="batch jobs do not run here yet"):
        sdk.ml.batch_endpoints.invoke("no-jobs", deployment_name="nightly", input=rows)
