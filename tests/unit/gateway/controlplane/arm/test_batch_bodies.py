"""Bodies of batch endpoints and deployments."""

from __future__ import annotations

import pytest

from gateway.controlplane.arm import batch
from gateway.controlplane.documents import to_builtins
from gateway.controlplane.store.records import Kind
from gateway.controlplane.yaml_types import (
    BatchDefaultsYaml,
    BatchDeploymentYaml,
    BatchEndpointYaml,
    BatchRetryYaml,
    BatchSettingsYaml,
    CodeYaml,
)
from gateway.errors import Problem
from tests.support.arm import WORKSPACE, body_of, read_back

MODEL = WORKSPACE.child("models", "m", "versions", "1")


def test_an_endpoint_has_defaults_as_an_object_even_where_there_are_none() -> None:
    body = body_of(Kind.BATCH_ENDPOINT, batch.read_endpoint({}, "files"), "files")
    assert body["properties"]["defaults"] == {"deploymentName": None}
    assert body["properties"]["authMode"] == "aadToken"
    assert body["properties"]["properties"] == {}
    put = {"properties": {"authMode": "AADToken", "defaults": {"deploymentName": "one"}}, "tags": {"a": "b"}}
    document = batch.read_endpoint(put, "files")
    assert document == BatchEndpointYaml(
        name="files", tags={"a": "b"}, defaults=BatchDefaultsYaml(deployment_name="one")
    )
    assert batch.patch_endpoint(document, {"tags": {"a": None}}).tags == {}


def test_a_batch_endpoint_takes_tokens_only() -> None:
    with pytest.raises(Problem, match=r"properties\.authMode: found 'Key'; accepted: one of aad_token"):
        batch.read_endpoint({"properties": {"authMode": "Key"}}, "files")


def test_a_deployment_is_read_and_answered() -> None:
    put = {
        "properties": {
            "model": {"referenceType": "Id", "assetId": MODEL},
            "codeConfiguration": {"codeId": WORKSPACE.child("codes", "c", "versions", "1"), "scoringScript": "s.py"},
            "environmentId": WORKSPACE.child("environments", "e", "versions", "1"),
            "compute": WORKSPACE.child("computes", "cpu"),
            "miniBatchSize": 5,
            "maxConcurrencyPerInstance": 2,
            "errorThreshold": 0,
            "retrySettings": {"maxRetries": 1, "timeout": "PT1M"},
            "outputAction": "SummaryOnly",
            "outputFileName": None,
            "loggingLevel": "Debug",
            "resources": {"instanceCount": 3, "properties": {"a": {"b": "c"}}},
            "deploymentConfiguration": {"deploymentConfigurationType": "Model"},
        }
    }
    document = batch.read_deployment(put, "one", "files")
    assert document.settings == BatchSettingsYaml(
        mini_batch_size=5,
        max_concurrency_per_instance=2,
        error_threshold=0,
        retry_settings=BatchRetryYaml(max_retries=1, timeout=60),
        output_action="summary_only",
        logging_level="debug",
    )
    assert (document.compute, document.model) == ("azureml:cpu", "azureml:m:1")
    assert document.code_configuration == CodeYaml(code="azureml:c:1", scoring_script="s.py")
    body = body_of(Kind.BATCH_DEPLOYMENT, document, "one", "Files")
    assert body["id"] == WORKSPACE.child("batchEndpoints", "Files", "deployments", "one")
    assert "sku" not in body
    assert body["properties"]["model"] == {"referenceType": "Id", "assetId": MODEL}
    assert body["properties"]["compute"] == WORKSPACE.child("computes", "cpu")
    assert body["properties"]["retrySettings"] == {"maxRetries": 1, "timeout": "PT1M"}
    assert body["properties"]["deploymentConfiguration"] is None
    assert read_back(Kind.BATCH_DEPLOYMENT, body, "one", "files") == document


def test_a_model_may_be_missing_or_without_an_id() -> None:
    for model in (None, {}, {"assetId": None}, ""):
        assert batch.read_deployment({"properties": {"model": model}}, "one", "files").model is None
    body = body_of(Kind.BATCH_DEPLOYMENT, BatchDeploymentYaml(name="one", endpoint_name="files"), "one", "files")
    assert body["properties"]["model"] is None
    assert body["properties"]["codeConfiguration"] is None


def test_a_pipeline_is_refused_by_name() -> None:
    put = {"properties": {"deploymentConfiguration": {"deploymentConfigurationType": "PipelineComponent"}}}
    with pytest.raises(Problem) as problem:
        batch.read_deployment(put, "one", "files")
    assert problem.value.details == (
        "properties.deploymentConfiguration: pipeline deployments are not supported; accepted: type: model, "
        "with a model",
    )


def test_a_patch_merges() -> None:
    document = BatchDeploymentYaml(name="one", endpoint_name="files", model="azureml:m:1", description="a")
    patched = batch.patch_deployment(document, {"properties": {"description": "b"}})
    assert to_builtins(patched) == to_builtins(document) | {"description": "b"}
