"""Endpoints by azure-ai-ml: made, read, changed, deleted; their traffic and credentials; and scoring by `invoke`."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.support.azure import (
    DIGITS,
    REQUEST,
    WORKSPACE_ID,
    Sdk,
    deployed,
    deployment,
    endpoint,
    forget_deployment,
    management_token,
)
from tests.support.azure import (
    sdk as client,
)
from tests.support.process import GatewayProcess

# The SDK and what it needs warn about each other; the gateway is another process.
pytestmark = pytest.mark.filterwarnings("ignore")

BLUE, GREEN = (DIGITS / name / "model.onnx" for name in ("blue", "green"))


def update(sdk: Sdk, entity: Any) -> Any:
    return sdk.ml.online_endpoints.begin_create_or_update(entity).result()


def blue_and_green(sdk: Sdk, name: str, **more: Any) -> Any:
    """An endpoint with two deployments, and no traffic yet."""
    endpoint(sdk, name, **more)
    deployed(sdk, name, "blue", BLUE)
    deployed(sdk, name, "green", GREEN)
    return sdk.ml.online_endpoints.get(name)


def answer(sdk: Sdk, name: str, deployment_name: str | None = None) -> Any:
    return json.loads(
        sdk.ml.online_endpoints.invoke(name, deployment_name=deployment_name, request_file=str(REQUEST))
    )


def test_an_endpoint_is_made_and_read_as_it_was_given(sdk: Sdk, gateway: GatewayProcess) -> None:
    made = endpoint(sdk, "made-here", description="first", tags={"team": "vision"}, properties={"cost": "low"})
    found = sdk.ml.online_endpoints.get("Made-Here")
    for one in (made, found):
        assert one.name == "made-here"
        assert one.provisioning_state == "Succeeded"
        assert (one.description, one.tags, one.auth_mode) == ("first", {"team": "vision"}, "key")
        assert one.properties["cost"] == "low"
        assert one.id == f"{WORKSPACE_ID}/onlineEndpoints/made-here"
        assert one.scoring_uri == f"{gateway.urls['scoring']}/endpoints/made-here/score"
        assert one.openapi_uri == f"{gateway.urls['scoring']}/endpoints/made-here/swagger.json"
        assert (one.traffic, one.mirror_traffic) == ({}, {})
        assert one.identity.type == "system_assigned"


def test_endpoints_are_listed(sdk: Sdk) -> None:
    for name in ("listed-1", "listed-2"):
        endpoint(sdk, name)
    assert {"listed-1", "listed-2"} <= {one.name for one in sdk.ml.online_endpoints.list()}


def test_tags_and_description_are_changed(sdk: Sdk) -> None:
    entity = endpoint(sdk, "changed", tags={"a": "1"})
    entity.description, entity.tags = "new words", {"b": "2"}
    update(sdk, entity)
    found = sdk.ml.online_endpoints.get("changed")
    assert (found.description, found.tags) == ("new words", {"b": "2"})


def test_a_deleted_endpoint_is_gone_with_its_deployments(sdk: Sdk) -> None:
    endpoint(sdk, "deleted")
    deployed(sdk, "deleted", "blue", BLUE)
    sdk.ml.online_endpoints.begin_delete("deleted").result()
    with pytest.raises(sdk.errors.ResourceNotFoundError, match="there is no online endpoint 'deleted'"):
        sdk.ml.online_endpoints.get("deleted")
    endpoint(sdk, "deleted")
    assert list(sdk.ml.online_deployments.list("deleted")) == []


def test_deleting_what_is_not_there_is_no_error(sdk: Sdk) -> None:
    sdk.ml.online_endpoints.begin_delete("never-made").result()


def test_traffic_is_set_and_zero_weights_are_nothing(sdk: Sdk) -> None:
    entity = blue_and_green(sdk, "shared-out")
    assert entity.traffic == {"blue": 0, "green": 0}
    entity.traffic = {"blue": 90, "green": 10}
    assert update(sdk, entity).traffic == {"blue": 90, "green": 10}
    entity.traffic = {"blue": 100, "green": 0}
    assert update(sdk, entity).traffic == {"blue": 100}
    assert sdk.ml.online_endpoints.get("shared-out").traffic == {"blue": 100, "green": 0}


def test_traffic_that_does_not_add_up_is_refused_and_nothing_changes(sdk: Sdk) -> None:
    entity = blue_and_green(sdk, "adds-up")
    entity.traffic = {"blue": 100}
    update(sdk, entity)
    for traffic, reason in (({"blue": 90}, "sums to 90"), ({"nobody": 100}, "has no deployment 'nobody'")):
        entity.traffic = traffic
        with pytest.raises(sdk.errors.HttpResponseError, match=reason):
            update(sdk, entity)
    assert sdk.ml.online_endpoints.get("adds-up").traffic == {"blue": 100, "green": 0}


def test_a_mirror_is_set_and_is_gone_when_it_is_left_out(sdk: Sdk) -> None:
    entity = blue_and_green(sdk, "mirrored")
    entity.traffic, entity.mirror_traffic = {"blue": 100}, {"green": 10}
    update(sdk, entity)
    found = sdk.ml.online_endpoints.get("mirrored")
    assert (found.traffic["blue"], found.mirror_traffic) == (100, {"green": 10})
    again = sdk.e.ManagedOnlineEndpoint(name="mirrored", auth_mode="key", traffic={"blue": 100})
    assert update(sdk, again).mirror_traffic == {}


def test_invoke_follows_the_traffic_or_the_name(sdk: Sdk) -> None:
    entity = blue_and_green(sdk, "invoked")
    entity.traffic = {"green": 100}
    update(sdk, entity)
    green = answer(sdk, "invoked")
    assert green["label"] == [1, 4, 5, 6, 9]
    blue = answer(sdk, "invoked", "blue")
    assert blue["probabilities"] != green["probabilities"]
    # The SDK goes on naming the deployment of the last call that named one.
    assert answer(sdk, "invoked") == blue
    forget_deployment()
    assert answer(sdk, "invoked") == green


def test_invoke_without_traffic_says_what_to_do(sdk: Sdk) -> None:
    endpoint(sdk, "no-traffic")
    deployed(sdk, "no-traffic", "blue", BLUE)
    with pytest.raises(sdk.errors.HttpResponseError, match="has no deployment with traffic"):
        answer(sdk, "no-traffic")
    with pytest.raises(Exception, match="Deployment name red not found"):
        answer(sdk, "no-traffic", "red")


def test_keys_are_told_and_replaced_one_at_a_time(sdk: Sdk, gateway: GatewayProcess) -> None:
    entity = blue_and_green(sdk, "with-keys")
    entity.traffic = {"blue": 100}
    update(sdk, entity)
    before = sdk.ml.online_endpoints.get_keys("with-keys")
    # The SDK sends the old key along; that asks for a new one.
    sdk.ml.online_endpoints.begin_regenerate_keys("with-keys", key_type="secondary").result()
    after = sdk.ml.online_endpoints.get_keys("with-keys")
    assert after.primary_key == before.primary_key
    assert after.secondary_key not in (before.secondary_key, before.primary_key)
    statuses = {key: scored(gateway, "with-keys", key) for key in (before.secondary_key, *vars(after).values())}
    assert statuses == {before.secondary_key: 401, after.primary_key: 200, after.secondary_key: 200}


def test_an_endpoint_with_tokens_gives_tokens_and_takes_them(sdk: Sdk, gateway: GatewayProcess) -> None:
    entity = blue_and_green(sdk, "with-tokens", auth_mode="aml_token")
    entity.traffic = {"green": 100}
    update(sdk, entity)
    token = sdk.ml.online_endpoints.get_keys("with-tokens")
    assert token.token_type == "Bearer"
    assert token.refresh_after_time_utc < token.expiry_time_utc
    assert scored(gateway, "with-tokens", token.access_token) == 200
    assert answer(sdk, "with-tokens")["label"] == [1, 4, 5, 6, 9]


def test_the_public_yaml_is_read_by_the_sdk_and_served(sdk: Sdk) -> None:
    read = sdk.ai.load_online_endpoint
    folder = DIGITS
    # Its traffic names deployments that are not there yet.
    update(sdk, read(str(folder / "endpoint.yml"), params_override=[{"traffic": {}}]))
    for name in ("blue", "green"):
        entity = sdk.ai.load_online_deployment(str(folder / f"{name}.yml"))
        sdk.ml.online_deployments.begin_create_or_update(entity).result()
    assert update(sdk, read(str(folder / "endpoint.yml"))).traffic == {"blue": 90, "green": 10}
    assert answer(sdk, "digits")["label"] == [1, 4, 5, 6, 9]


def test_a_kubernetes_endpoint_keeps_its_form(sdk: Sdk) -> None:
    update(sdk, sdk.e.KubernetesOnlineEndpoint(name="on-cluster", compute="my-cluster"))
    entity = sdk.e.KubernetesOnlineDeployment(
        name="blue",
        endpoint_name="on-cluster",
        model=sdk.e.Model(path=str(GREEN)),
        instance_count=1,
        resources=sdk.e.ResourceRequirementsSettings(requests=sdk.e.ResourceSettings(cpu="0.1", memory="0.2Gi")),
        scale_settings=sdk.e.TargetUtilizationScaleSettings(min_instances=1, max_instances=2, polling_interval=10),
    )
    sdk.ml.online_deployments.begin_create_or_update(entity).result()
    found = sdk.ml.online_deployments.get("blue", "on-cluster")
    assert isinstance(found, sdk.e.KubernetesOnlineDeployment)
    assert (found.resources.requests.cpu, found.resources.requests.memory) == ("0.1", "0.2Gi")
    assert (found.scale_settings.max_instances, found.scale_settings.polling_interval) == (2, 10)
    kept = sdk.ml.online_endpoints.get("on-cluster")
    assert isinstance(kept, sdk.e.KubernetesOnlineEndpoint)
    assert kept.compute == f"{WORKSPACE_ID}/computes/my-cluster"


def test_a_wrong_management_token_is_an_authentication_error(sdk: Sdk, gateway: GatewayProcess) -> None:
    stranger = client(gateway, token="wrong")
    with pytest.raises(sdk.errors.ClientAuthenticationError, match="no valid credential for management"):
        list(stranger.ml.online_endpoints.list())


def test_a_reader_looks_and_changes_nothing(sdk: Sdk, gateway: GatewayProcess) -> None:
    endpoint(sdk, "looked-at")
    with gateway.client(base_url=gateway.urls["management"]) as http:
        headers = {"authorization": f"Bearer {management_token(gateway)}"}
        made = http.post("/tokens", headers=headers, json={"name": "looker", "role": "reader"})
    assert made.status_code == 201, made.text
    reader = client(gateway, token=made.json()["token"])
    assert "looked-at" in [one.name for one in reader.ml.online_endpoints.list()]
    with pytest.raises(sdk.errors.HttpResponseError, match="operator") as refusal:
        endpoint(reader, "looked-at", description="changed")
    assert refusal.value.error.code == "AuthorizationFailed"
    with pytest.raises(sdk.errors.HttpResponseError, match="operator"):
        reader.ml.online_endpoints.get_keys("looked-at")


def test_a_key_of_an_endpoint_manages_nothing(sdk: Sdk, gateway: GatewayProcess) -> None:
    endpoint(sdk, "no-manager")
    stranger = client(gateway, token=sdk.ml.online_endpoints.get_keys("no-manager").primary_key)
    with pytest.raises(sdk.errors.ClientAuthenticationError):
        stranger.ml.online_endpoints.get("no-manager")


def test_a_deployment_needs_its_endpoint(sdk: Sdk) -> None:
    with pytest.raises(sdk.errors.ResourceNotFoundError, match="there is no online endpoint 'not-there'"):
        sdk.ml.online_deployments.begin_create_or_update(deployment(sdk, "not-there", "blue", BLUE))


def scored(gateway: GatewayProcess, name: str, credential: str) -> int:
    headers = {"authorization": f"Bearer {credential}"}
    with gateway.client(headers=headers) as http:
        reply: httpx.Response = http.post(f"/endpoints/{name}/score", content=REQUEST.read_bytes())
    return reply.status_code
