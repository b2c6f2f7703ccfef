"""The real client library reads our bodies without loss, and what it sends is what we keep.

Each test goes the whole way without a network: an entity as a user makes it, the body that the library would send,
our document, our answer, the library's reading of it, and the body that it would send to change nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.controlplane.arm import online
from gateway.controlplane.arm.envelope import operation_body
from gateway.controlplane.store.records import Kind, Operation
from gateway.controlplane.yaml_types import (
    BatchDeploymentYaml,
    EnvironmentYaml,
    ModelYaml,
    OnlineDeploymentYaml,
    OnlineEndpointYaml,
    ProbeYaml,
    ScaleYaml,
)
from tests.support.arm import WORKSPACE, body_of, read_back
from tests.support.azure_entities import Entities

MODEL = WORKSPACE.child("models", "m", "versions", "1")
CODE = WORKSPACE.child("codes", "c", "versions", "1")
ENVIRONMENT = WORKSPACE.child("environments", "e", "versions", "1")


@pytest.fixture(scope="module")
def sdk() -> Iterator[Entities]:
    with warnings.catch_warnings():
        # The library announces changes of its own classes; nothing here can answer them.
        warnings.simplefilter("ignore")
        yield Entities()


def endpoint_again(sdk: Entities, document: OnlineEndpointYaml) -> tuple[Any, OnlineEndpointYaml]:
    """The entity that a client gets, and the document of what it would send back."""
    body = body_of(Kind.ONLINE_ENDPOINT, document, document.name)
    entity = sdk.e.OnlineEndpoint._from_rest_object(sdk.answered(sdk.m.OnlineEndpoint, body))
    sent = sdk.wire_of(entity._to_rest_online_endpoint("local"))
    kept = read_back(Kind.ONLINE_ENDPOINT, sent, document.name)
    assert isinstance(kept, OnlineEndpointYaml)
    return entity, kept


def deployment_again(sdk: Entities, document: OnlineDeploymentYaml) -> tuple[Any, OnlineDeploymentYaml]:
    body = body_of(Kind.ONLINE_DEPLOYMENT, document, document.name, "Digits")
    rest = sdk.answered(sdk.m.OnlineDeployment, body)
    entity = sdk.e.OnlineDeployment._from_rest_object(rest)
    sent = sdk.wire_of(entity._to_rest_object("local"))
    return entity, online.read_deployment(sent, document.name, "digits", document)


def read_deployment(sdk: Entities, entity: Any) -> OnlineDeploymentYaml:
    document = read_back(Kind.ONLINE_DEPLOYMENT, sdk.wire_of(entity._to_rest_object("local")), entity.name, "digits")
    assert isinstance(document, OnlineDeploymentYaml)
    return document


def test_a_managed_endpoint_goes_there_and_back(sdk: Entities) -> None:
    entity = sdk.e.ManagedOnlineEndpoint(
        name="Digits",
        auth_mode="aml_token",
        description="reads digits",
        tags={"a": "b"},
        properties={"c": "d"},
        public_network_access="disabled",
        traffic={"Blue": 90, "green": 10},
        mirror_traffic={"red": 5},
    )
    sent = sdk.wire_of(entity._to_rest_online_endpoint("local"))
    document = read_back(Kind.ONLINE_ENDPOINT, sent, "Digits")
    assert document == OnlineEndpointYaml(
        name="Digits",
        auth_mode="aml_token",
        description="reads digits",
        tags={"a": "b"},
        properties={"c": "d"},
        public_network_access="disabled",
        traffic={"blue": 90, "green": 10},
        mirror_traffic={"red": 5},
    )
    again, kept = endpoint_again(sdk, document)
    assert kept == document
    assert type(again) is sdk.e.ManagedOnlineEndpoint
    assert (again.scoring_uri, again.openapi_uri) == ("https://g/score", "https://g/swagger.json")
    assert (again.provisioning_state, again.auth_mode, again.location) == ("Succeeded", "aml_token", "local")
    assert again.identity.type == "system_assigned"
    assert again.properties["azureml.onlineendpointid"] == again.id.lower()


@pytest.mark.parametrize("mode", ["key", "aml_token", "aad_token"])
def test_an_endpoint_with_a_user_identity_keeps_it(sdk: Entities, mode: str) -> None:
    user = sdk.e.ManagedIdentityConfiguration(resource_id="/subscriptions/s/id")
    identity = sdk.e.IdentityConfiguration(type="user_assigned", user_assigned_identities=[user])
    entity = sdk.e.ManagedOnlineEndpoint(name="digits", auth_mode=mode, identity=identity)
    document = read_back(Kind.ONLINE_ENDPOINT, sdk.wire_of(entity._to_rest_online_endpoint("local")), "digits")
    assert isinstance(document, OnlineEndpointYaml)
    assert document.identity is not None
    assert document.identity.user_assigned_identities[0].resource_id == "/subscriptions/s/id"
    again, kept = endpoint_again(sdk, document)
    assert kept == document
    assert (again.auth_mode, again.identity.type) == (mode, "user_assigned")


def test_a_kubernetes_endpoint_stays_one(sdk: Entities) -> None:
    compute = WORKSPACE.child("computes", "cluster")
    entity = sdk.e.KubernetesOnlineEndpoint(name="digits", compute=compute)
    document = read_back(Kind.ONLINE_ENDPOINT, sdk.wire_of(entity._to_rest_online_endpoint("local")), "digits")
    assert isinstance(document, OnlineEndpointYaml)
    assert document.compute == "azureml:cluster"
    again, kept = endpoint_again(sdk, document)
    assert (type(again), again.compute) == (sdk.e.KubernetesOnlineEndpoint, compute)
    assert kept == document


def test_a_managed_deployment_goes_there_and_back(sdk: Entities) -> None:
    entity = sdk.e.ManagedOnlineDeployment(
        name="blue",
        endpoint_name="digits",
        model=MODEL,
        environment=ENVIRONMENT,
        code_configuration=sdk.e.CodeConfiguration(code=CODE, scoring_script="score.py"),
        instance_type="Standard_DS3_v2",
        instance_count=2,
        environment_variables={"A": "1"},
        app_insights_enabled=True,
        egress_public_network_access="disabled",
        request_settings=sdk.e.OnlineRequestSettings(
            request_timeout_ms=3000, max_concurrent_requests_per_instance=2, max_queue_wait_ms=500
        ),
        liveness_probe=sdk.e.ProbeSettings(initial_delay=300, period=5, timeout=3, failure_threshold=7),
        tags={"a": "b"},
        data_collector=sdk.e.DataCollector(
            collections={"model_inputs": sdk.e.DeploymentCollection(enabled="true", data="azureml:x:1")},
            sampling_rate=0.5,
            rolling_rate="day",
        ),
    )
    document = read_deployment(sdk, entity)
    assert (document.model, document.environment) == ("azureml:m:1", "azureml:e:1")
    assert document.liveness_probe == ProbeYaml(initial_delay=300, period=5, timeout=3, failure_threshold=7)
    assert document.data_collector is not None
    assert document.data_collector.collections["model_inputs"].sampling_rate == 0.5
    again, kept = deployment_again(sdk, document)
    assert kept == document
    assert type(again) is sdk.e.ManagedOnlineDeployment
    assert (again.endpoint_name, again.instance_count, again.model) == ("Digits", 2, MODEL)
    assert again.code_configuration.code == CODE
    assert again.request_settings.request_timeout_ms == 3000
    assert again.provisioning_state == "Succeeded"


def test_the_least_deployment_gets_answers_that_the_library_can_read(sdk: Entities) -> None:
    entity = sdk.e.ManagedOnlineDeployment(name="blue", endpoint_name="digits", model=MODEL, instance_type="cpu")
    document = read_deployment(sdk, entity)
    assert document == OnlineDeploymentYaml(
        name="blue", endpoint_name="digits", model="azureml:m:1", instance_type="cpu"
    )
    again, kept = deployment_again(sdk, document)
    assert kept == document
    assert (again.scale_settings.type, again.instance_count) == ("default", 1)


def test_a_kubernetes_deployment_scales_by_itself(sdk: Entities) -> None:
    amounts = sdk.e.ResourceSettings(cpu="0.5", memory="1Gi", gpu="1")
    scale = sdk.e.TargetUtilizationScaleSettings(
        min_instances=2, max_instances=5, polling_interval=10, target_utilization_percentage=60
    )
    entity = sdk.e.KubernetesOnlineDeployment(
        name="blue",
        endpoint_name="digits",
        model=MODEL,
        resources=sdk.e.ResourceRequirementsSettings(requests=amounts, limits=amounts),
        scale_settings=scale,
        instance_type="small",
    )
    document = read_deployment(sdk, entity)
    assert document.type == "kubernetes"
    assert document.scale_settings == ScaleYaml(
        type="target_utilization",
        min_instances=2,
        max_instances=5,
        polling_interval=10,
        target_utilization_percentage=60,
    )
    again, kept = deployment_again(sdk, document)
    assert kept == document
    assert type(again) is sdk.e.KubernetesOnlineDeployment
    assert again.scale_settings == scale
    assert again.resources.limits == amounts


def test_a_kubernetes_deployment_without_resources_can_be_read(sdk: Entities) -> None:
    document = OnlineDeploymentYaml(name="blue", endpoint_name="digits", type="kubernetes", model="azureml:m:1")
    again, kept = deployment_again(sdk, document)
    assert kept == document
    assert again.instance_count == 1


def test_a_batch_endpoint_lets_users_set_its_default(sdk: Entities) -> None:
    entity = sdk.e.BatchEndpoint(name="files", description="d", tags={"a": "b"})
    document = read_back(Kind.BATCH_ENDPOINT, sdk.wire_of(entity._to_rest_batch_endpoint("local")), "files")
    body = body_of(Kind.BATCH_ENDPOINT, document, "files")
    again = sdk.e.BatchEndpoint._from_rest_object(sdk.answered(sdk.m.BatchEndpoint, body))
    again.defaults.deployment_name = "one"
    assert again.auth_mode == "aad_token"
    sent = sdk.wire_of(again._to_rest_batch_endpoint("local"))
    kept = body_of(Kind.BATCH_ENDPOINT, read_back(Kind.BATCH_ENDPOINT, sent, "files"), "files")
    assert kept["properties"]["defaults"] == {"deploymentName": "one"}
    assert (kept["tags"], kept["properties"]["description"]) == ({"a": "b"}, "d")


def test_a_batch_deployment_goes_there_and_back(sdk: Entities) -> None:
    entity = sdk.e.ModelBatchDeployment(
        name="one",
        endpoint_name="files",
        model=MODEL,
        environment=ENVIRONMENT,
        code_configuration=sdk.e.CodeConfiguration(code=CODE, scoring_script="score.py"),
        compute=WORKSPACE.child("computes", "cpu"),
        resources=sdk.e.ResourceConfiguration(instance_count=2),
        settings=sdk.e.ModelBatchDeploymentSettings(
            mini_batch_size=5,
            max_concurrency_per_instance=2,
            output_action="append_row",
            output_file_name="out.csv",
            retry_settings=sdk.e.BatchRetrySettings(max_retries=1, timeout=60),
            error_threshold=3,
            logging_level="debug",
        ),
    )
    document = read_back(Kind.BATCH_DEPLOYMENT, sdk.wire_of(entity._to_rest_object("local")), "one", "files")
    assert isinstance(document, BatchDeploymentYaml)
    assert (document.model, document.compute, document.resources.instance_count) == ("azureml:m:1", "azureml:cpu", 2)
    assert (document.settings.mini_batch_size, document.settings.output_file_name) == (5, "out.csv")
    body = body_of(Kind.BATCH_DEPLOYMENT, document, "one", "Files")
    again = sdk.e.BatchDeployment._from_rest_object(sdk.answered(sdk.m.BatchDeployment, body))
    assert (again.model, again.endpoint_name, again.output_action) == (MODEL, "Files", "append_row")
    assert again.retry_settings.timeout == 60
    sent = sdk.wire_of(again._to_rest_object("local"))
    assert read_back(Kind.BATCH_DEPLOYMENT, sent, "one", "files") == document


def test_assets_go_there_and_back(sdk: Entities) -> None:
    path = "azureml://datastores/workspaceblobstore/paths/LocalUpload/1/m"
    model = sdk.e.Model(
        name="m", version="1", path=path, type="custom_model", flavors={"onnx": {"v": "1"}}, stage="s"
    )
    document = read_back(Kind.MODEL, sdk.wire_of(model._to_rest_object()), "1", "m")
    assert document == ModelYaml(name="m", version="1", path=path, flavors={"onnx": {"v": "1"}}, stage="s")
    rest = sdk.answered(sdk.m.ModelVersion, body_of(Kind.MODEL, document, "1", "m"))
    again = sdk.e.Model._from_rest_object(rest)
    assert (again.name, again.version, again.path, again.flavors) == ("m", "1", path, {"onnx": {"v": "1"}})

    environment = sdk.e.Environment(
        name="e", version="1", image="python", conda_file={"dependencies": ["pip"]}, description="d"
    )
    document = read_back(Kind.ENVIRONMENT, sdk.wire_of(environment._to_rest_object()), "1", "e")
    assert isinstance(document, EnvironmentYaml)
    rest = sdk.answered(sdk.m.EnvironmentVersion, body_of(Kind.ENVIRONMENT, document, "1", "e"))
    again = sdk.e.Environment._from_rest_object(rest)
    assert (again.image, again.conda_file, again.os_type) == ("python", {"dependencies": ["pip"]}, "Linux")

    code = sdk.e._assets.Code(name="c", version="1", path="https://h/blob/a/c/src")
    document = read_back(Kind.CODE, sdk.wire_of(code._to_rest_object()), "1", "c")
    rest = sdk.answered(sdk.m.CodeVersion, body_of(Kind.CODE, document, "1", "c"))
    assert sdk.e._assets.Code._from_rest_object(rest).path == "https://h/blob/a/c/src"

    data = sdk.e.Data(name="x", version="1", path=path, type="uri_folder", tags={"a": "b"})
    document = read_back(Kind.DATA, sdk.wire_of(data._to_rest_object()), "1", "x")
    rest = sdk.answered(sdk.m.DataVersionBase, body_of(Kind.DATA, document, "1", "x"))
    again = sdk.e.Data._from_rest_object(rest)
    assert (again.type, again.path, again.tags) == ("uri_folder", path, {"a": "b"})


def test_an_operation_can_be_read(sdk: Entities) -> None:
    operation = Operation(id="1", action="create", actor="ann", started_at=1.0)
    body = operation_body(operation, "/id")
    assert (body["status"], body["error"]) == ("InProgress", None)


def test_the_older_client_reads_the_same_bodies(sdk: Entities) -> None:
    models = pytest.importorskip("azure.mgmt.machinelearningservices.models")
    endpoint = OnlineEndpointYaml(name="digits", traffic={"blue": 100})
    read = models.OnlineEndpoint.deserialize(body_of(Kind.ONLINE_ENDPOINT, endpoint, "digits"))
    sent = read.serialize()
    assert read.properties.provisioning_state == "Succeeded"
    assert read_back(Kind.ONLINE_ENDPOINT, sent, "digits") == endpoint
    deployment = OnlineDeploymentYaml(
        name="blue", endpoint_name="digits", model="azureml:m:1", instance_type="cpu", instance_count=3
    )
    read = models.OnlineDeployment.deserialize(body_of(Kind.ONLINE_DEPLOYMENT, deployment, "blue", "digits"))
    assert isinstance(read.properties, models.ManagedOnlineDeployment)
    assert read.sku.capacity == 3
    kept = read_back(Kind.ONLINE_DEPLOYMENT, read.serialize(), "blue", "digits")
    assert isinstance(kept, OnlineDeploymentYaml)
    assert (kept.model, kept.instance_count, kept.scale_settings) == ("azureml:m:1", 3, ScaleYaml())
