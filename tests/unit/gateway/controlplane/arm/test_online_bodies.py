"""Bodies of online endpoints and deployments: read leniently, kept whole, written with all that clients need."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.controlplane.arm import ids, online
from gateway.controlplane.documents import to_builtins
from gateway.controlplane.store.records import Kind, State
from gateway.controlplane.yaml_types import (
    BatchingYaml,
    CollectedDataYaml,
    CollectionYaml,
    DataCollectorYaml,
    DeploymentGatewayYaml,
    EndpointGatewayYaml,
    IdentityYaml,
    ModelYaml,
    OnlineDeploymentYaml,
    OnlineEndpointYaml,
    RequestYaml,
    ScaleYaml,
    UserIdentityYaml,
)
from gateway.errors import Code, Problem
from tests.support.arm import WORKSPACE, body_of, row

MODEL = WORKSPACE.child("models", "m", "versions", "1")


def deployment(body: dict[str, Any], existing: OnlineDeploymentYaml | None = None) -> OnlineDeploymentYaml:
    return online.read_deployment(body, "blue", "digits", existing)


def refused(read: Any, *arguments: Any) -> list[str]:
    with pytest.raises(Problem) as problem:
        read(*arguments)
    assert problem.value.code is Code.INVALID_INPUT
    assert all(one in problem.value.message for one in problem.value.details)
    return list(problem.value.details)


# ---- endpoints -------------------------------------------------------------------------------------------------


def test_an_endpoint_is_read_as_the_sdk_sends_it() -> None:
    body = {
        "location": "local",
        "identity": {"type": "SystemAssigned"},
        "tags": {"team": "a", "none": None, "count": 3},
        "properties": {
            "description": "reads digits",
            "authMode": "AMLToken",
            "properties": {
                "owner": "b",
                "createdBy": "x",
                "createdAt": "t",
                "lastModifiedAt": "t",
                "deep": {"a": [1]},
            },
            "traffic": {"Blue": 90, "green": "10"},
            "mirrorTraffic": {},
            "publicNetworkAccess": "disabled",
            "unknown": {"member": 1},
        },
    }
    assert online.read_endpoint(body, "Digits") == OnlineEndpointYaml(
        name="Digits",
        description="reads digits",
        auth_mode="aml_token",
        tags={"team": "a", "count": "3"},
        properties={"owner": "b", "deep": '{"a":[1]}'},
        traffic={"blue": 90, "green": 10},
        public_network_access="disabled",
    )


@pytest.mark.parametrize(
    "body", [{}, {"properties": None}, {"properties": {"authMode": "", "traffic": None}, "tags": None, "sku": None}]
)
def test_what_is_null_or_absent_is_not_given(body: dict[str, Any]) -> None:
    assert online.read_endpoint(body, "digits") == OnlineEndpointYaml(name="digits")


@pytest.mark.parametrize(
    ("spelled", "mode"),
    [
        ("Key", "key"),
        ("KEY", "key"),
        ("aadToken", "aad_token"),
        ("AADToken", "aad_token"),
        ("aml_token", "aml_token"),
    ],
)
def test_choices_are_taken_in_any_spelling(spelled: str, mode: str) -> None:
    assert online.read_endpoint({"properties": {"authMode": spelled}}, "digits").auth_mode == mode


def test_an_absent_mirror_is_none() -> None:
    existing = OnlineEndpointYaml(name="digits", mirror_traffic={"green": 10}, traffic={"blue": 100})
    assert online.read_endpoint({"properties": {"traffic": {"blue": 100}}}, "digits", existing).mirror_traffic == {}


def test_our_block_travels_as_text_and_stays_where_a_body_does_not_speak_of_it() -> None:
    existing = OnlineEndpointYaml(name="digits", gateway=EndpointGatewayYaml(token_lifetime_s=60))
    body = body_of(Kind.ONLINE_ENDPOINT, existing, "digits")
    assert json.loads(body["properties"]["properties"]["gateway"]) == {"token_lifetime_s": 60}
    assert online.read_endpoint(body, "digits").gateway == existing.gateway
    assert online.read_endpoint({}, "digits", existing).gateway == existing.gateway
    blocks: tuple[object, ...] = ("{}", {})
    for cleared in blocks:
        put = {"properties": {"properties": {"gateway": cleared}}}
        assert online.read_endpoint(put, "digits", existing).gateway == EndpointGatewayYaml()


@pytest.mark.parametrize("text", ["{", "[]", "3", 3, "[" * 5000])
def test_a_block_that_is_no_object_is_refused(text: object) -> None:
    (said,) = refused(online.read_endpoint, {"properties": {"properties": {"gateway": text}}}, "digits")
    assert said.startswith("properties.properties.gateway: found ")


def test_a_property_that_is_called_as_our_block_is_not_shown() -> None:
    document = OnlineEndpointYaml(name="digits", properties={"gateway": "mine", "a": "b"})
    assert "gateway" not in body_of(Kind.ONLINE_ENDPOINT, document, "digits")["properties"]["properties"]


def test_an_endpoint_is_answered_whole() -> None:
    resource = row(Kind.ONLINE_ENDPOINT, OnlineEndpointYaml(name="Digits"), "Digits", state=State.UPDATING)
    body = online.endpoint_body(
        resource, WORKSPACE, location="west", scoring_uri="s", swagger_uri="w", operation_uri="https://g/op"
    )
    assert body["id"] == WORKSPACE.child("onlineEndpoints", "Digits")
    assert (body["name"], body["location"], body["kind"], body["tags"]) == ("Digits", "west", "Managed", {})
    assert body["type"] == "Microsoft.MachineLearningServices/workspaces/onlineEndpoints"
    assert body["etag"] == '"7"'
    assert body["systemData"]["createdAt"] == "2030-03-17T17:46:40.250000Z"
    assert body["identity"]["type"] == "SystemAssigned"
    assert body["properties"] == {
        "description": None,
        "properties": {
            "azureml.onlineendpointid": body["id"].lower(),
            "AzureAsyncOperationUri": "https://g/op",
        },
        "authMode": "Key",
        "traffic": {},
        "mirrorTraffic": {},
        "compute": None,
        "publicNetworkAccess": "Enabled",
        "scoringUri": "s",
        "swaggerUri": "w",
        "provisioningState": "Updating",
    }


def test_a_compute_makes_it_kubernetes() -> None:
    put = {"properties": {"compute": WORKSPACE.child("computes", "cluster")}}
    document = online.read_endpoint(put, "digits")
    assert document.compute == "azureml:cluster"
    body = body_of(Kind.ONLINE_ENDPOINT, document, "digits")
    assert (body["kind"], body["properties"]["compute"]) == ("K8S", WORKSPACE.child("computes", "cluster"))
    assert refused(online.read_endpoint, {"properties": {"compute": "a b"}}, "digits") == [
        "properties.compute: found 'a b'; accepted: azureml:NAME, or the id of a compute"
    ]


@pytest.mark.parametrize("kind", ["UserAssigned", "SystemAssigned,UserAssigned", "user_assigned"])
def test_a_user_identity_is_kept_and_shown(kind: str) -> None:
    put = {"identity": {"type": kind, "principalId": "p", "userAssignedIdentities": {"/id": {"clientId": "c"}}}}
    document = online.read_endpoint(put, "digits")
    assert document.identity == IdentityYaml(
        type="user_assigned", user_assigned_identities=(UserIdentityYaml(resource_id="/id"),)
    )
    shown = body_of(Kind.ONLINE_ENDPOINT, document, "digits")["identity"]
    assert (shown["type"], list(shown["userAssignedIdentities"])) == ("UserAssigned", ["/id"])
    assert online.read_endpoint({"identity": {"principalId": "p"}}, "digits").identity is None
    two = {"identity": {"type": kind, "userAssignedIdentities": {"/a": {}, "/b": {}}}}
    assert refused(online.read_endpoint, two, "digits")[0].startswith(
        "identity.userAssignedIdentities: found 2 items"
    )


def test_all_mistakes_of_an_endpoint_are_told_at_once() -> None:
    put = {
        "tags": [],
        "identity": 3,
        "properties": {"authMode": "basic", "traffic": {"a": 101, "b": "x"}, "mirrorTraffic": {"A": 1, "a": 2}},
    }
    assert refused(online.read_endpoint, put, "digits") == [
        "tags: found a list; accepted: an object",
        "identity: found 3; accepted: an object",
        "properties.mirrorTraffic: deployment 'a' is named twice; names are equal whatever their case",
        "properties.authMode: found 'basic'; accepted: one of aad_token, aml_token, key",
        "properties.traffic.a: found '101'; accepted: an integer from 0 to 100",
        "properties.traffic.b: found 'x'; accepted: an integer from 0 to 100",
    ]


@pytest.mark.parametrize("body", [None, [], "text", 3, True])
def test_a_body_is_an_object(body: object) -> None:
    (said,) = refused(online.read_endpoint, body, "digits")
    assert said.endswith("accepted: an object")


def test_an_object_in_between_must_be_one() -> None:
    assert refused(online.read_endpoint, {"properties": "text"}, "digits") == [
        "properties: found 'text'; accepted: an object"
    ]


def test_a_patch_merges() -> None:
    document = OnlineEndpointYaml(
        name="digits",
        tags={"a": "1", "b": "2"},
        traffic={"blue": 100},
        mirror_traffic={"green": 10},
        gateway=EndpointGatewayYaml(token_lifetime_s=60),
    )
    patched = online.patch_endpoint(
        document, {"tags": {"a": None, "c": "3"}, "properties": {"traffic": {"blue": 50, "green": 50}}}
    )
    assert patched.tags == {"b": "2", "c": "3"}
    assert patched.traffic == {"blue": 50, "green": 50}
    assert (patched.mirror_traffic, patched.gateway) == (document.mirror_traffic, document.gateway)
    assert online.patch_endpoint(document, {"identity": {"type": "None"}}).identity == IdentityYaml(type="none")
    removed = online.patch_endpoint(document, {"properties": {"properties": {"gateway": None}}})
    assert removed.gateway == EndpointGatewayYaml()
    assert refused(online.patch_endpoint, document, [])


# ---- deployments -----------------------------------------------------------------------------------------------


def test_a_deployment_is_read_with_durations_and_references() -> None:
    body = {
        "sku": {"name": "Default", "capacity": 3},
        "properties": {
            "endpointComputeType": "managed",
            "instanceType": "Standard_DS3_v2",
            "model": MODEL,
            "environmentId": "azureml:e@latest",
            "codeConfiguration": {"codeId": WORKSPACE.child("codes", "c", "versions", "2"), "scoringScript": "s.py"},
            "requestSettings": {"requestTimeout": "PT1M30S", "maxQueueWait": "PT0.5S"},
            "livenessProbe": {"initialDelay": "PT0.5S", "timeout": "PT3S"},
            "readinessProbe": {},
            "scaleSettings": {"scaleType": "targetUtilization", "maxInstances": 4, "pollingInterval": "PT10S"},
            "environmentVariables": {"A": 1, "B": True},
            "properties": {"private-network-connection": True},
        },
    }
    document = deployment(body)
    assert document.type is None
    assert document.instance_count == 3
    assert (document.model, document.environment) == ("azureml:m:1", "azureml:e@latest")
    assert document.code_configuration is not None
    assert document.code_configuration.code == "azureml:c:2"
    assert document.request_settings.request_timeout_ms == 90_000
    assert document.request_settings.max_queue_wait_ms == 500
    assert document.liveness_probe is not None
    assert (document.liveness_probe.initial_delay, document.liveness_probe.timeout) == (1, 3)
    assert document.readiness_probe is None
    assert document.scale_settings == ScaleYaml(type="target_utilization", max_instances=4, polling_interval=10)
    assert document.environment_variables == {"A": "1", "B": "true"}
    assert document.properties == {}


@pytest.mark.parametrize("given", ["local", "Local", WORKSPACE.child("environments", "local", "labels", "latest")])
def test_the_gateways_own_environment_is_shown_by_an_id_and_is_the_same_when_it_is_sent_back(given: str) -> None:
    body = {"properties": {"model": MODEL, "environmentId": given, "instanceType": "cpu"}}
    document = deployment(body)
    assert document.environment == "local"
    shown = body_of(Kind.ONLINE_DEPLOYMENT, document, "blue", "digits")["properties"]["environmentId"]
    assert shown == WORKSPACE.child("environments", "local", "labels", "latest")
    assert deployment({"properties": {**body["properties"], "environmentId": shown}}).environment == "local"


def test_a_deployment_is_answered_whole() -> None:
    document = OnlineDeploymentYaml(name="blue", endpoint_name="digits", model="azureml:m:1", instance_type="cpu")
    resource = row(Kind.ONLINE_DEPLOYMENT, document, "blue", "Digits", State.SCALING)
    body = online.deployment_body(resource, WORKSPACE, location="west", instances=5, operation_uri="https://g/op")
    assert body["id"] == WORKSPACE.child("onlineEndpoints", "Digits", "deployments", "blue")
    assert body["sku"] == {"name": "Default", "tier": "Standard", "capacity": 5}
    said = body["properties"]
    assert (said["endpointComputeType"], said["scaleSettings"]) == ("Managed", {"scaleType": "Default"})
    assert said["model"] == MODEL
    assert (said["codeConfiguration"], said["environmentId"], said["modelMountPath"]) == (None, None, None)
    assert said["requestSettings"] == {"requestTimeout": "PT5S"}
    assert said["livenessProbe"]["initialDelay"] == "PT10S"
    assert said["provisioningState"] == "Scaling"
    assert said["properties"] == {
        "azureml.onlineendpointid": WORKSPACE.child("onlineEndpoints", "Digits").lower(),
        "AzureAsyncOperationUri": "https://g/op",
    }
    assert "containerResourceRequirements" not in said


def test_the_count_of_instances_stays_where_sku_has_none() -> None:
    existing = OnlineDeploymentYaml(
        name="blue",
        endpoint_name="digits",
        instance_count=7,
        gateway=DeploymentGatewayYaml(batching=BatchingYaml(max_rows=4)),
    )
    kept: list[dict[str, Any]] = [{}, {"sku": None}, {"sku": {"name": "Default"}}, {"sku": {"capacity": None}}]
    for body in kept:
        assert deployment(body, existing).instance_count == 7
        assert deployment(body, existing).gateway == existing.gateway
        assert deployment(body).instance_count == 1
    assert deployment({"sku": {"capacity": "2"}}, existing).instance_count == 2


def test_times_below_a_second_stay_where_a_client_could_not_send_them() -> None:
    settings = RequestYaml(request_timeout_ms=500, max_queue_wait_ms=250)
    existing = OnlineDeploymentYaml(name="blue", endpoint_name="digits", request_settings=settings)
    assert deployment({"properties": {"requestSettings": {}}}, existing).request_settings == settings
    changed = deployment({"properties": {"requestSettings": {"requestTimeout": "PT2S"}}}, existing)
    assert changed.request_settings == RequestYaml(request_timeout_ms=2000, max_queue_wait_ms=250)
    for put in ({}, {"properties": None}, {"properties": {"requestSettings": None}}):
        assert deployment(put, existing).request_settings == RequestYaml()
    longer = OnlineDeploymentYaml(
        name="blue", endpoint_name="digits", request_settings=RequestYaml(max_queue_wait_ms=1500)
    )
    assert deployment({"properties": {"requestSettings": {}}}, longer).request_settings == RequestYaml()


def test_a_patch_of_the_capacity_changes_nothing_else() -> None:
    document = OnlineDeploymentYaml(
        name="blue",
        endpoint_name="digits",
        model="azureml:m:1",
        instance_count=2,
        scale_settings=ScaleYaml(max_instances=3),
    )
    patched = online.patch_deployment(document, {"sku": {"name": "Default", "capacity": 4}, "tags": {"a": "b"}})
    assert to_builtins(patched) == to_builtins(document) | {"instance_count": 4, "tags": {"a": "b"}}


def test_kubernetes_has_resources() -> None:
    put = {
        "properties": {
            "endpointComputeType": "Kubernetes",
            "containerResourceRequirements": {
                "containerResourceRequests": {"cpu": 0.5, "memory": "1Gi", "gpu": None},
                "containerResourceLimits": {"gpu": "1"},
            },
        }
    }
    document = deployment(put)
    assert (document.type, document.resources is not None) == ("kubernetes", True)
    said = body_of(Kind.ONLINE_DEPLOYMENT, document, "blue", "digits")["properties"]
    assert said["endpointComputeType"] == "Kubernetes"
    assert said["containerResourceRequirements"] == {
        "containerResourceRequests": {"cpu": "0.5", "memory": "1Gi"},
        "containerResourceLimits": {"gpu": "1"},
    }


def test_collection_is_told_per_collection() -> None:
    collector = DataCollectorYaml(
        sampling_rate=0.5,
        collections={
            "model_inputs": CollectionYaml(enabled=True, data=CollectedDataYaml(name="x")),
            "request": CollectionYaml(sampling_rate=1.0, client_id="c"),
        },
    )
    document = OnlineDeploymentYaml(name="blue", endpoint_name="digits", data_collector=collector)
    body = body_of(Kind.ONLINE_DEPLOYMENT, document, "blue", "digits")
    said = body["properties"]["dataCollector"]
    assert said["rollingRate"] == "Hour"
    assert said["requestLogging"] == {"captureHeaders": []}
    assert said["collections"]["model_inputs"]["samplingRate"] == 0.5
    assert said["collections"]["request"] == {
        "dataCollectionMode": "Disabled",
        "samplingRate": 1.0,
        "dataId": None,
        "clientId": "c",
    }


def test_a_collector_is_read_back() -> None:
    data = WORKSPACE.child("data", "x", "versions", "1")
    put = {
        "collections": {"in": {"dataCollectionMode": "enabled", "samplingRate": 0.25, "dataId": data}, "out": None},
        "rollingRate": "Minute",
        "requestLogging": {"captureHeaders": ["a", "b"]},
    }
    document = deployment({"properties": {"dataCollector": put}})
    assert document.data_collector is not None
    assert document.data_collector.rolling_rate == "minute"
    assert document.data_collector.collections["in"].data == "azureml:x:1"
    said = body_of(Kind.ONLINE_DEPLOYMENT, document, "blue", "digits")["properties"]["dataCollector"]
    assert said["requestLogging"] == {"captureHeaders": ["a", "b"]}
    assert said["collections"]["in"]["dataId"] == data


def test_an_inline_model_is_shown_by_its_path() -> None:
    document = OnlineDeploymentYaml(name="blue", endpoint_name="digits", model=ModelYaml(path="m.onnx"))
    assert body_of(Kind.ONLINE_DEPLOYMENT, document, "blue", "digits")["properties"]["model"] == "m.onnx"


def test_all_mistakes_of_a_deployment_are_told_at_their_paths() -> None:
    put = {
        "sku": {"capacity": "x"},
        "properties": {
            "endpointComputeType": "Hybrid",
            "model": "azureml://registries/r/models/m/versions/1",
            "environmentId": 3,
            "requestSettings": {"requestTimeout": "5", "maxQueueWait": "PT10M"},
            "livenessProbe": 3,
            "properties": {"gateway": '{"batching": {"max_row": 8}}'},
            "dataCollector": {"collections": {"a_b": {"samplingRate": 3}, "c": {"dataCollectionMode": "perhaps"}}},
        },
    }
    said = refused(deployment, put)
    assert said == [
        "properties.model: found 'azureml://registries/r/models/m/versions/1', and registries are not served here; "
        "register the model in this workspace and give azureml:NAME:VERSION",
        "properties.environmentId: found 3; accepted: text",
        "properties.requestSettings.requestTimeout: found '5'; accepted: an ISO 8601 duration such as PT5S, "
        "PT1M30S or PT0.5S",
        "properties.livenessProbe: found 3; accepted: an object",
        "properties.dataCollector: dataCollectionMode: found 'perhaps'; accepted: Enabled or Disabled",
        "sku.capacity: found 'x'; accepted: an integer from 1 to 10000",
        "properties.properties.gateway.batching.max_row: unknown key; did you mean max_rows?",
        "properties.endpointComputeType: found 'Hybrid'; accepted: one of kubernetes, managed",
        "properties.requestSettings.maxQueueWait: found a duration out of bounds; accepted: PT0.001S to PT5M",
    ]
    (inside,) = refused(deployment, {"properties": {"dataCollector": {"collections": {"a": {"samplingRate": 3}}}}})
    assert inside == "properties.dataCollector.collections.a.samplingRate: found '3'; accepted: a number from 0 to 1"
    (data,) = refused(deployment, {"properties": {"dataCollector": {"collections": {"a": {"dataId": "azureml:"}}}}})
    assert data.startswith("properties.dataCollector.collections.a.dataId: found 'azureml:'; accepted: azureml:NAME")


def test_an_id_of_another_kind_is_no_model() -> None:
    (said,) = refused(deployment, {"properties": {"model": ids.resource_id(WORKSPACE, Kind.CODE, "1", "c")}})
    assert "the id of a model" in said
