"""The plain management client, azure-mgmt-machinelearningservices: the same resources with other bodies.

Results are read again where their class matters: of an answer that is complete at once, this client forgets which
subclass its `properties` are, as it reads it twice.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from tests.support.azure import (
    DIGITS,
    GROUP,
    SUBSCRIPTION,
    WORKSPACE,
    WORKSPACE_ID,
    Bearer,
    Sdk,
    management_token,
)
from tests.support.process import GatewayProcess

# The SDK and what it needs warn about each other; the gateway is another process.
pytestmark = pytest.mark.filterwarnings("ignore")

PLACE = (GROUP, WORKSPACE)
MODEL_ID = f"{WORKSPACE_ID}/models/for-mgmt/versions/1"


class Mgmt(NamedTuple):
    """The client and the module of its models."""

    client: Any
    m: Any


@pytest.fixture(scope="module")
def mgmt(gateway: GatewayProcess, shared_sdk: Sdk) -> Mgmt:
    """With a model to serve, which the other SDK has uploaded: this one has no uploads."""
    package = pytest.importorskip(
        "azure.mgmt.machinelearningservices", reason="azure-mgmt-machinelearningservices is not installed"
    )
    model = shared_sdk.e.Model(name="for-mgmt", version="1", path=str(DIGITS / "green" / "model.onnx"))
    shared_sdk.ml.models.create_or_update(model)
    credential = Bearer(management_token(gateway))
    client = package.MachineLearningServicesMgmtClient(credential, SUBSCRIPTION, base_url=gateway.urls["management"])
    return Mgmt(client, package.models)


def endpoint(mgmt: Mgmt, name: str, auth_mode: str = "Key", **properties: Any) -> Any:
    m = mgmt.m
    body = m.OnlineEndpoint(
        location="local",
        identity=m.ManagedServiceIdentity(type="SystemAssigned"),
        properties=m.OnlineEndpointProperties(auth_mode=auth_mode, **properties),
    )
    return mgmt.client.online_endpoints.begin_create_or_update(*PLACE, name, body).result()


def deployed(mgmt: Mgmt, endpoint_name: str, name: str = "blue") -> Any:
    m = mgmt.m
    body = m.OnlineDeployment(
        location="local",
        sku=m.Sku(name="Default", capacity=1),
        properties=m.ManagedOnlineDeployment(model=MODEL_ID, instance_type="cpu"),
    )
    return mgmt.client.online_deployments.begin_create_or_update(*PLACE, endpoint_name, name, body).result()


def test_an_endpoint_is_made_read_listed_and_deleted(mgmt: Mgmt) -> None:
    made = endpoint(mgmt, "mgmt-made", description="by the other client")
    assert made.properties.provisioning_state == "Succeeded"
    found = mgmt.client.online_endpoints.get(*PLACE, "mgmt-made")
    assert found.id == f"{WORKSPACE_ID}/onlineEndpoints/mgmt-made"
    assert (found.properties.description, found.properties.auth_mode) == ("by the other client", "Key")
    assert found.system_data.created_by == "management.token"
    assert "mgmt-made" in [one.name for one in mgmt.client.online_endpoints.list(*PLACE)]
    mgmt.client.online_endpoints.begin_delete(*PLACE, "mgmt-made").result()
    with pytest.raises(Exception, match="ResourceNotFound"):
        mgmt.client.online_endpoints.get(*PLACE, "mgmt-made")
    mgmt.client.online_endpoints.begin_delete(*PLACE, "mgmt-made").result()


def test_a_deployment_is_made_patched_and_given_traffic(mgmt: Mgmt) -> None:
    m, client = mgmt.m, mgmt.client
    endpoint(mgmt, "mgmt-served")
    deployed(mgmt, "mgmt-served")
    made = client.online_deployments.get(*PLACE, "mgmt-served", "blue")
    assert (made.properties.endpoint_compute_type, made.properties.model) == ("Managed", MODEL_ID)
    assert isinstance(made.properties.scale_settings, m.DefaultScaleSettings)
    more = m.PartialMinimalTrackedResourceWithSku(sku=m.PartialSku(capacity=2), tags={"size": "two"})
    patched = client.online_deployments.begin_update(*PLACE, "mgmt-served", "blue", more).result()
    assert (patched.sku.capacity, patched.tags, patched.properties.model) == (2, {"size": "two"}, MODEL_ID)
    assert endpoint(mgmt, "mgmt-served", traffic={"blue": 100}).properties.traffic == {"blue": 100}
    tagged = m.PartialMinimalTrackedResourceWithIdentity(tags={"team": "vision"})
    after = client.online_endpoints.begin_update(*PLACE, "mgmt-served", tagged).result()
    assert (after.tags, after.properties.traffic) == ({"team": "vision"}, {"blue": 100})
    sku = next(iter(client.online_deployments.list_skus(*PLACE, "mgmt-served", "blue")))
    assert (sku.sku.name, sku.capacity.minimum, sku.capacity.scale_type) == ("Default", 1, "Manual")
    with pytest.raises(Exception, match="has 100 percent of traffic"):
        client.online_deployments.begin_delete(*PLACE, "mgmt-served", "blue").result()
    logs = client.online_deployments.get_logs(*PLACE, "mgmt-served", "blue", m.DeploymentLogsRequest(tail=50))
    assert "create: succeeded" in logs.content


def test_keys_are_told_replaced_and_set(mgmt: Mgmt) -> None:
    m, endpoints = mgmt.m, mgmt.client.online_endpoints
    endpoint(mgmt, "mgmt-keys")
    before = endpoints.list_keys(*PLACE, "mgmt-keys")
    made = m.RegenerateEndpointKeysRequest(key_type="Primary")
    endpoints.begin_regenerate_keys(*PLACE, "mgmt-keys", made).result()
    after = endpoints.list_keys(*PLACE, "mgmt-keys")
    assert after.primary_key not in (before.primary_key, before.secondary_key)
    assert after.secondary_key == before.secondary_key
    given = m.RegenerateEndpointKeysRequest(key_type="Secondary", key_value="a-key-of-my-own-that-is-long-enough")
    endpoints.begin_regenerate_keys(*PLACE, "mgmt-keys", given).result()
    assert endpoints.list_keys(*PLACE, "mgmt-keys").secondary_key == given.key_value
    with pytest.raises(Exception, match="its auth_mode is key"):
        endpoints.get_token(*PLACE, "mgmt-keys")


def test_tokens_are_given_where_the_endpoint_has_them(mgmt: Mgmt) -> None:
    endpoint(mgmt, "mgmt-tokens", auth_mode="AMLToken")
    token = mgmt.client.online_endpoints.get_token(*PLACE, "mgmt-tokens")
    assert (token.token_type, bool(token.access_token)) == ("Bearer", True)
    assert token.refresh_after_time_utc < token.expiry_time_utc


def test_assets_are_listed_made_and_deleted(mgmt: Mgmt) -> None:
    m, client = mgmt.m, mgmt.client
    versions = client.model_versions.list(*PLACE, "for-mgmt", order_by="createdtime desc", top=1)
    assert [(one.name, one.properties.model_type) for one in versions] == [("1", "custom_model")]
    assert "for-mgmt" in [one.name for one in client.model_containers.list(*PLACE)]
    assert client.model_containers.get(*PLACE, "for-mgmt").properties.next_version == "2"
    made = m.EnvironmentVersion(properties=m.EnvironmentVersionProperties(image="mcr.microsoft.com/azureml/minimal"))
    assert client.environment_versions.create_or_update(*PLACE, "mgmt-env", "1", made).properties.image
    client.environment_versions.delete(*PLACE, "mgmt-env", "1")
    with pytest.raises(Exception, match="ResourceNotFound"):
        client.environment_versions.get(*PLACE, "mgmt-env", "1")
    data = m.DataVersionBase(properties=m.UriFileDataVersion(data_uri="https://example.org/rows.csv"))
    kept = client.data_versions.create_or_update(*PLACE, "mgmt-data", "1", data)
    assert kept.properties.data_uri == "https://example.org/rows.csv"


def test_a_model_in_use_is_not_deleted(mgmt: Mgmt) -> None:
    endpoint(mgmt, "mgmt-uses")
    deployed(mgmt, "mgmt-uses")
    with pytest.raises(Exception, match="is used by deployment"):
        mgmt.client.model_versions.delete(*PLACE, "for-mgmt", "1")


def test_batch_resources_are_kept_and_patched(mgmt: Mgmt) -> None:
    m, client = mgmt.m, mgmt.client
    body = m.BatchEndpoint(location="local", properties=m.BatchEndpointProperties(auth_mode="AADToken"))
    client.batch_endpoints.begin_create_or_update(*PLACE, "mgmt-batch", body).result()
    properties = m.BatchDeploymentProperties(
        model=m.IdAssetReference(asset_id=MODEL_ID), compute=f"{WORKSPACE_ID}/computes/cluster", mini_batch_size=3
    )
    deployment = m.BatchDeployment(location="local", properties=properties)
    client.batch_deployments.begin_create_or_update(*PLACE, "mgmt-batch", "nightly", deployment).result()
    made = client.batch_deployments.get(*PLACE, "mgmt-batch", "nightly")
    assert (made.properties.model.asset_id, made.properties.mini_batch_size) == (MODEL_ID, 3)
    words = m.PartialBatchDeploymentPartialMinimalTrackedResourceWithProperties(
        tags={"a": "b"}, properties=m.PartialBatchDeployment(description="every night")
    )
    after = client.batch_deployments.begin_update(*PLACE, "mgmt-batch", "nightly", words).result()
    assert (after.tags, after.properties.description) == ({"a": "b"}, "every night")
    assert [one.name for one in client.batch_deployments.list(*PLACE, "mgmt-batch")] == ["nightly"]
    client.batch_deployments.begin_delete(*PLACE, "mgmt-batch", "nightly").result()
    client.batch_endpoints.begin_delete(*PLACE, "mgmt-batch").result()
    assert "mgmt-batch" not in [one.name for one in client.batch_endpoints.list(*PLACE)]


def test_the_workspace_and_its_storage_are_described(mgmt: Mgmt) -> None:
    workspace = mgmt.client.workspaces.get(*PLACE)
    assert (workspace.id, workspace.provisioning_state) == (WORKSPACE_ID, "Succeeded")
    (store,) = mgmt.client.datastores.list(*PLACE)
    assert (store.name, store.properties.is_default) == ("workspaceblobstore", True)
    secrets = mgmt.client.datastores.list_secrets(*PLACE, "workspaceblobstore")
    assert "sig=" in secrets.sas_token
