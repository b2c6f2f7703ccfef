"""Endpoints, deployments, their credentials and their operations over REST: real routes, control and store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.controlplane.authorize import Role
from gateway.controlplane.rest.urls import Urls
from gateway.controlplane.store.records import Kind, Ref
from gateway.errors import Code, Problem
from tests.support.house import HOST, WORKSPACE, House

BASE = f"https://{HOST}"
ENDPOINTS = f"{WORKSPACE}/onlineEndpoints"
DIGITS = f"{ENDPOINTS}/digits"
BLUE = f"{DIGITS}/deployments/blue"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    found = House(tmp_path)
    yield found
    found.close()


def refusal(response: httpx.Response, status: int, code: str) -> str:
    """The message of a refusal in ARM's shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert set(document) == {"error"}
    assert set(document["error"]) == {"code", "message", "target", "details", "additionalInfo"}
    assert document["error"]["code"] == code
    return str(document["error"]["message"])


def body_of(response: httpx.Response, status: int = 200) -> Any:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-ms-request-id"]
    return response.json()


# Endpoints.


def test_an_endpoint_lives_from_put_to_delete(house: House) -> None:
    made = body_of(house.add_endpoint("Digits", description="reads digits"), 201)
    assert made["id"] == f"{ENDPOINTS}/Digits"
    assert made["name"] == "Digits"
    properties = made["properties"]
    assert properties["provisioningState"] == "Succeeded"
    assert properties["scoringUri"] == "https://gateway.example:8443/endpoints/Digits/score"
    assert properties["swaggerUri"] == "https://gateway.example:8443/endpoints/Digits/swagger.json"
    assert properties["properties"]["azureml.onlineendpointid"] == made["id"].lower()
    assert properties["traffic"] == {}
    again = body_of(house.put(DIGITS, {"properties": {"authMode": "key", "description": "other"}}))
    assert (again["name"], again["properties"]["description"]) == ("Digits", "other")
    # A change tells of its operation; apart from that it answers what a GET does.
    operation = again["properties"]["properties"].pop("AzureAsyncOperationUri")
    assert body_of(house.get(operation.removeprefix(BASE)))["status"] == "Succeeded"
    assert body_of(house.get(f"{ENDPOINTS}/DIGITS")) == again
    patched = body_of(house.patch(DIGITS, {"tags": {"team": "a"}}))
    assert (patched["tags"], patched["properties"]["description"]) == ({"team": "a"}, "other")
    assert [one["name"] for one in body_of(house.get(ENDPOINTS))["value"]] == ["Digits"]
    deleted = house.delete(DIGITS)
    assert (deleted.status_code, deleted.content) == (200, b"")
    assert house.delete(DIGITS).status_code == 204
    assert "'digits'" in refusal(house.get(DIGITS), 404, "ResourceNotFound")
    assert "'digits'" in refusal(house.patch(DIGITS, {"tags": {}}), 404, "ResourceNotFound")


def test_segments_are_matched_whatever_their_case_and_ids_have_the_one_true_case(house: House) -> None:
    house.add_endpoint()
    path = DIGITS.replace("onlineEndpoints", "ONLINEENDPOINTS").replace("/resourceGroups/", "/resourcegroups/")
    assert body_of(house.get(path))["id"] == DIGITS


def test_all_mistakes_of_a_body_are_told_at_once_and_nothing_is_stored(house: House) -> None:
    body = {"tags": [], "properties": {"authMode": "password", "traffic": {"blue": 101}}}
    response = house.put(DIGITS, body)
    message = refusal(response, 400, "InvalidInput")
    targets = [one["target"] for one in response.json()["error"]["details"]]
    assert targets == ["tags", "properties.authMode", "properties.traffic.blue"]
    assert "password" in message
    assert body_of(house.get(ENDPOINTS))["value"] == []


def test_a_name_that_cannot_be_is_a_bad_request_where_it_is_made_and_not_there_otherwise(house: House) -> None:
    for name in ("1st", "a", "under_score", "dash-", "x" * 33, "d%C3%A9j%C3%A0"):
        assert "accepted: 3 to 32 letters" in refusal(house.add_endpoint(name), 400, "InvalidInput")
        assert "accepted" in refusal(house.get(f"{ENDPOINTS}/{name}"), 404, "ResourceNotFound")
        assert "accepted" in refusal(house.delete(f"{ENDPOINTS}/{name}"), 404, "ResourceNotFound")
    bad_scope = DIGITS.replace("Sub-1", "sub%20x")
    assert "no subscription can be called" in refusal(house.get(bad_scope), 400, "InvalidInput")


def test_a_block_of_ours_stays_where_a_later_put_does_not_speak_of_it(house: House) -> None:
    house.add_endpoint(properties={"gateway": '{"slo_ms": 5}'})
    body_of(house.put(DIGITS, {"properties": {"authMode": "Key"}}))
    free = body_of(house.get(DIGITS))["properties"]["properties"]
    assert free["gateway"] == '{"slo_ms":5.0}'


def test_two_changes_at_once_lose_nothing_of_each_other(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between reading and writing, somebody else changes the endpoint: the change is made anew of what is there."""
    house.add_endpoint()
    put = house.control.put
    raced: list[bool] = []

    async def racing(*args: Any, **kwargs: Any) -> Any:
        if not raced:
            raced.append(True)
            await house._send("PATCH", DIGITS, headers_of_admin(), {"json": {"tags": {"first": "1"}}})
        return await put(*args, **kwargs)

    monkeypatch.setattr(house.control, "put", racing)
    body_of(house.patch(DIGITS, {"tags": {"second": "2"}}))
    assert body_of(house.get(DIGITS))["tags"] == {"first": "1", "second": "2"}


def headers_of_admin() -> httpx.Headers:
    from tests.support.house import FIRST_TOKEN

    return httpx.Headers({"authorization": f"Bearer {FIRST_TOKEN}"})


def test_a_change_that_always_comes_too_late_is_refused_in_the_end(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(*_: Any, **__: Any) -> Any:
        raise Problem(Code.PRECONDITION_FAILED, "it was changed")

    house.add_endpoint()
    monkeypatch.setattr(house.control, "put", late)
    refusal(house.patch(DIGITS, {"tags": {}}), 412, "PreconditionFailed")


# ETags.


def test_an_etag_saves_reading_what_is_known(house: House) -> None:
    made = house.add_endpoint()
    etag = made.headers["etag"]
    assert made.json()["etag"] == etag
    for known in (etag, f"W/{etag}", f'"1", {etag}', "*"):
        response = house.get(DIGITS, headers={"if-none-match": known})
        assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", etag)
    assert house.get(DIGITS, headers={"if-none-match": '"1"'}).status_code == 200
    assert house.get(DIGITS, headers={"if-match": etag}).status_code == 200
    refusal(house.get(DIGITS, headers={"if-match": '"1"'}), 412, "PreconditionFailed")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_a_change_may_ask_for_the_version_it_was_made_of(house: House, method: str) -> None:
    old = house.add_endpoint().headers["etag"]
    etag = house.patch(DIGITS, {"tags": {"a": "1"}}).headers["etag"]
    body = None if method == "DELETE" else {"tags": {"b": "2"}}
    message = refusal(house.ask(method, DIGITS, body, headers={"if-match": old}), 412, "PreconditionFailed")
    assert etag in message
    assert body_of(house.get(DIGITS))["tags"] == {"a": "1"}
    assert house.ask(method, DIGITS, body, headers={"if-match": etag}).status_code == 200


def test_if_none_match_star_makes_and_never_replaces(house: House) -> None:
    headers = {"if-none-match": "*"}
    body = {"properties": {"authMode": "Key"}}
    assert house.put(DIGITS, body, headers=headers).status_code == 201
    refusal(house.put(DIGITS, body, headers=headers), 412, "PreconditionFailed")
    refusal(house.put(f"{ENDPOINTS}/other", body, headers={"if-match": "*"}), 412, "PreconditionFailed")


# Deployments and their operations.


def test_a_deployment_is_put_scaled_and_deleted(house: House) -> None:
    house.add_endpoint("Digits")
    house.add_model()
    made = body_of(house.add_deployment("Blue"), 201)
    assert made["id"] == f"{ENDPOINTS}/Digits/deployments/Blue"
    properties = made["properties"]
    assert properties["model"] == f"{WORKSPACE}/models/digits/versions/1"
    assert properties["endpointComputeType"] == "Managed"
    assert properties["scaleSettings"]["scaleType"] == "Default"
    assert properties["codeConfiguration"] is None
    assert made["sku"]["capacity"] == 1
    scaled = body_of(house.patch(BLUE, {"sku": {"capacity": 3}}))
    assert scaled["sku"]["capacity"] == 3
    house.scorers.instances["digits/blue"] = 2
    assert body_of(house.get(BLUE))["sku"]["capacity"] == 2
    assert [one["name"] for one in body_of(house.get(f"{DIGITS}/deployments"))["value"]] == ["Blue"]
    sku = body_of(house.get(f"{BLUE}/skus"))["value"][0]
    assert (sku["sku"]["name"], sku["capacity"]["default"]) == ("Default", 3)
    assert house.delete(BLUE).status_code == 200
    assert house.delete(BLUE).status_code == 204


def test_a_deployment_needs_its_endpoint(house: House) -> None:
    house.add_model()
    for response in (house.add_deployment(), house.get(BLUE), house.get(f"{DIGITS}/deployments")):
        assert "online endpoint 'digits'" in refusal(response, 404, "ResourceNotFound")
    house.add_endpoint()
    message = refusal(house.get(BLUE), 404, "ResourceNotFound")
    assert "'blue' on endpoint 'digits'" in message


def test_a_change_that_takes_time_is_told_by_an_operation(house: House) -> None:
    house.add_endpoint()
    house.add_model()
    house.scorers.may_load.clear()
    response = house.add_deployment()
    made = body_of(response, 201)
    assert made["properties"]["provisioningState"] == "Creating"
    asked = response.headers["azure-asyncoperation"]
    assert asked.startswith(
        f"{BASE}/subscriptions/Sub-1/providers/Microsoft.MachineLearningServices/locations/local/"
    )
    assert asked.endswith("?api-version=2023-04-01")
    assert made["properties"]["properties"]["AzureAsyncOperationUri"] == asked
    assert response.headers["retry-after"] == "1"
    assert response.headers["x-ms-async-operation-timeout"] == "PT1H"
    going = house.get(asked)
    assert (body_of(going)["status"], going.headers["retry-after"]) == ("InProgress", "1")
    result = house.get(asked.replace("mfeOperationsStatus", "mfeOperationResults"))
    assert (result.status_code, result.content) == (202, b"")
    assert "mfeOperationResults" in result.headers["location"]
    assert "digits" in refusal(house.delete(DIGITS), 409, "Conflict")
    house.scorers.may_load.set()
    house.settle()
    ended = house.get(asked.replace("mfeOperationsStatus", "operationsStatus"))
    assert (body_of(ended)["status"], ended.json()["error"]) == ("Succeeded", None)
    assert "retry-after" not in ended.headers
    assert house.get(result.headers["location"]).status_code == 204
    assert body_of(house.get(BLUE))["properties"]["provisioningState"] == "Succeeded"


def test_a_deployment_that_fails_stays_with_its_reason_and_may_be_put_again(house: House) -> None:
    house.add_endpoint()
    house.add_model()
    house.scorers.failing["digits/blue"] = "model.onnx is no ONNX model"
    asked = house.add_deployment().headers["azure-asyncoperation"]
    status = body_of(house.get(asked))
    assert status["status"] == "Failed"
    assert "no ONNX model" in status["error"]["message"]
    result = house.get(asked.replace("mfeOperationsStatus", "mfeOperationResults"))
    assert "no ONNX model" in refusal(result, 400, "InvalidInput")
    assert body_of(house.get(BLUE))["properties"]["provisioningState"] == "Failed"
    assert "no ONNX model" in body_of(house.post(f"{BLUE}/getLogs", {"tail": 10}))["content"]
    house.scorers.failing.clear()
    assert body_of(house.add_deployment())["properties"]["provisioningState"] == "Succeeded"


def test_a_patch_and_a_delete_that_take_time_are_accepted(house: House) -> None:
    house.add_endpoint()
    house.scorers.may_publish.clear()
    patched = house.patch(DIGITS, {"tags": {"a": "b"}})
    assert body_of(patched, 202)["tags"] == {"a": "b"}
    assert {"azure-asyncoperation", "location", "retry-after"} <= set(patched.headers)
    house.scorers.may_publish.set()
    house.settle()
    house.scorers.may_publish.clear()
    deleted = house.delete(DIGITS)
    assert (deleted.status_code, deleted.content) == (202, b"")
    assert {"azure-asyncoperation", "location", "retry-after"} <= set(deleted.headers)
    assert body_of(house.get(DIGITS))["properties"]["provisioningState"] == "Deleting"
    house.scorers.may_publish.set()
    house.settle()
    assert house.get(deleted.headers["location"]).status_code == 204
    refusal(house.get(DIGITS), 404, "ResourceNotFound")


def test_an_operation_that_there_is_not_is_not_found(house: House) -> None:
    path = "/subscriptions/s/providers/Microsoft.MachineLearningServices/locations/local/mfeOperationsStatus/none"
    assert "'none'" in refusal(house.get(path), 404, "ResourceNotFound")


def test_logs_are_as_long_as_asked(house: House) -> None:
    house.add_endpoint()
    house.add_model()
    house.add_deployment()
    everything = body_of(house.post(f"{BLUE}/getlogs"))["content"]
    assert everything.splitlines()[-1].endswith("succeeded")
    last = body_of(house.post(f"{BLUE}/getLogs", {"tail": 1, "containerType": "InferenceServer"}))["content"]
    assert everything.endswith(last)
    assert last.count("\n") == 1
    assert body_of(house.post(f"{BLUE}/getLogs", {"tail": 0}))["content"] == ""
    for tail in (-1, True, "many"):
        assert "tail" in refusal(house.post(f"{BLUE}/getLogs", {"tail": tail}), 400, "InvalidInput")


def test_traffic_goes_to_deployments_that_are_there_and_keeps_them(house: House) -> None:
    house.add_endpoint()
    house.add_model()
    refusal(house.add_endpoint(traffic={"blue": 100}), 400, "InvalidInput")
    house.add_deployment()
    assert body_of(house.add_endpoint(traffic={"BLUE": 100}))["properties"]["traffic"] == {"blue": 100}
    refusal(house.delete(BLUE), 400, "InvalidInput")
    refusal(house.add_endpoint(traffic={"blue": 99}), 400, "InvalidInput")


def test_what_happened_is_told_in_order(house: House) -> None:
    house.add_endpoint()
    house.add_model()
    house.add_deployment()
    events = body_of(house.get(f"{DIGITS}/events"))["value"]
    assert [(one["deployment"], one["name"], one["message"]) for one in events] == [
        ("", "create", "accepted"),
        ("", "create", "succeeded"),
        ("blue", "create", "accepted"),
        ("blue", "create", "succeeded"),
    ]
    assert len(body_of(house.get(f"{DIGITS}/events?deployment=BLUE&limit=1"))["value"]) == 1


# Credentials.


def test_keys_are_told_and_replaced_one_at_a_time(house: House) -> None:
    house.add_endpoint()
    first = body_of(house.post(f"{DIGITS}/listKeys"))
    assert set(first) == {"primaryKey", "secondaryKey"}
    replaced = house.post(f"{DIGITS}/regenerateKeys", {"keyType": "Secondary", "keyValue": first["secondaryKey"]})
    assert (replaced.status_code, replaced.content) == (200, b"")
    second = body_of(house.post(f"{DIGITS}/listkeys"))
    assert second["primaryKey"] == first["primaryKey"]
    assert second["secondaryKey"] != first["secondaryKey"]
    house.post(f"{DIGITS}/regenerateKeys", {"keyType": "primary", "keyValue": "k" * 32})
    assert body_of(house.post(f"{DIGITS}/listKeys"))["primaryKey"] == "k" * 32


def test_a_regeneration_that_fails_is_an_operation_that_says_so(house: House) -> None:
    house.add_endpoint()

    async def broken(*_: Any, **__: Any) -> Any:
        raise TimeoutError("no scorer answers")

    house.scorers.publish = broken  # type: ignore[method-assign]
    response = house.post(f"{DIGITS}/regenerateKeys", {"keyType": "Primary"})
    assert response.status_code == 202
    assert body_of(house.get(response.headers["azure-asyncoperation"]))["status"] == "Failed"


@pytest.mark.parametrize(
    "body", [{}, {"keyType": "Third"}, {"keyType": 1}, {"keyType": "Primary", "keyValue": 5}, {"keyType": None}]
)
def test_what_is_no_regeneration_is_refused(house: House, body: dict[str, Any]) -> None:
    house.add_endpoint()
    assert "accepted" in refusal(house.post(f"{DIGITS}/regenerateKeys", body), 400, "InvalidInput")


def test_an_endpoint_tells_only_the_credentials_of_its_mode(house: House) -> None:
    house.add_endpoint()
    house.add_endpoint("tokens", authMode="AMLToken")
    token = body_of(house.post(f"{ENDPOINTS}/tokens/token"))
    assert set(token) == {"accessToken", "expiryTimeUtc", "refreshAfterTimeUtc", "tokenType"}
    assert token["refreshAfterTimeUtc"] < token["expiryTimeUtc"]
    refusal(house.post(f"{ENDPOINTS}/tokens/listKeys"), 400, "InvalidInput")
    refusal(house.post(f"{DIGITS}/token"), 400, "InvalidInput")
    refusal(house.post(f"{ENDPOINTS}/none/token"), 404, "ResourceNotFound")


# Lists.


def names_of(document: Any) -> list[str]:
    return [one["name"] for one in document["value"]]


def test_a_list_comes_in_pages(house: House) -> None:
    for number in range(5):
        house.add_endpoint(f"endpoint{number}")
    page = body_of(house.get(f"{ENDPOINTS}?count=2&api-version=2022-05-01"))
    seen = names_of(page)
    while page["nextLink"]:
        assert page["nextLink"].startswith(f"{BASE}{ENDPOINTS}?")
        assert "api-version=2022-05-01" in page["nextLink"]
        page = body_of(house.get(page["nextLink"]))
        seen += names_of(page)
    assert seen == [f"endpoint{number}" for number in range(5)]


def test_top_bounds_the_whole_list_and_orderby_turns_it(house: House) -> None:
    house.add_endpoint()
    house.add_model()
    for name in ("red", "green", "blue"):
        house.add_deployment(name)
    page = body_of(house.get(f"{DIGITS}/deployments?$orderBy=createdtime desc&$top=2"))
    assert (names_of(page), page["nextLink"]) == (["blue", "green"], None)
    page = body_of(house.get(f"{DIGITS}/deployments?$top=2&count=1"))
    assert names_of(page) == ["red"]
    rest = body_of(house.get(page["nextLink"]))
    assert (names_of(rest), rest["nextLink"]) == (["green"], None)
    newest = body_of(house.get(f"{ENDPOINTS}?orderBy=CreatedAtDesc"))
    assert names_of(newest) == ["digits"]


def test_a_list_is_filtered_by_what_the_query_says(house: House) -> None:
    house.put(f"{ENDPOINTS}/one", {"tags": {"team": "a"}, "properties": {"properties": {"p": "1"}}})
    house.put(f"{ENDPOINTS}/two", {"tags": {"team": "b"}, "properties": {"compute": "azureml:cluster"}})
    cases = {
        "name=TWO": ["two"],
        "name=none": [],
        "tags=team": ["one", "two"],
        "tags=team%3Db": ["two"],
        "tags=team,other": [],
        "properties=p=1": ["one"],
        "computeType=kubernetes": ["two"],
        "computeType=Managed": ["one"],
        "tags=team&count=1": ["one"],
        "unknown=1": ["one", "two"],
    }
    for query, expected in cases.items():
        assert names_of(body_of(house.get(f"{ENDPOINTS}?{query}"))) == expected, query
    sparse = body_of(house.get(f"{ENDPOINTS}?tags=team=b&count=1"))
    assert names_of(sparse) == ["two"]


@pytest.mark.parametrize(
    "query",
    [
        *("count=0", "count=x", "count=1&count=2", "$top=-1", "$top=", "$skip=", "$skip=xyz", "$skip=1&$SKIP=2"),
        *("computeType=Cloud", "orderBy=name", "api-version=" + "1" * 65, "name=%FF", "name=%00", "name=%zz"),
        "&".join(f"p{number}=1" for number in range(65)),
    ],
)
def test_a_query_that_cannot_be_read_is_refused(house: House, query: str) -> None:
    message = refusal(house.get(f"{ENDPOINTS}?{query}"), 400, "InvalidInput")
    assert "accepted" in message or "taken" in message


# Batch.


def test_batch_endpoints_and_deployments_are_kept_and_checked(house: House) -> None:
    house.add_model()
    path = f"{WORKSPACE}/batchEndpoints/nightly"
    made = body_of(house.put(path, {"location": "local", "properties": {"authMode": "aadToken"}}), 201)
    assert made["properties"]["authMode"] == "aadToken"
    assert isinstance(made["properties"]["defaults"], dict)
    assert made["properties"]["scoringUri"] == f"{BASE}/batchEndpoints/nightly/jobs"
    assert "has no keys" in refusal(house.post(f"{path}/listkeys"), 404, "ResourceNotFound")
    deployment = {
        "properties": {
            "model": {"referenceType": "Id", "assetId": f"{WORKSPACE}/models/digits/versions/1"},
            "compute": f"{WORKSPACE}/computes/cluster",
        }
    }
    one = body_of(house.put(f"{path}/deployments/first", deployment), 201)
    assert one["properties"]["model"]["assetId"] == f"{WORKSPACE}/models/digits/versions/1"
    assert one["properties"]["retrySettings"] == {"maxRetries": 3, "timeout": "PT30S"}
    body_of(house.patch(path, {"properties": {"defaults": {"deploymentName": "first"}}}))
    body_of(house.patch(f"{path}/deployments/first", {"tags": {"a": "b"}}))
    assert names_of(body_of(house.get(f"{path}/deployments"))) == ["first"]
    assert house.delete(path).status_code == 200
    refusal(house.get(f"{path}/deployments/first"), 404, "ResourceNotFound")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{WORKSPACE}/jobs/one"),
        ("POST", "/batchEndpoints/nightly/jobs"),
        ("GET", f"/mferp/managementfrontend{WORKSPACE}/batchEndpoints/nightly/jobs"),
        ("POST", f"/history/v1.0{WORKSPACE}/rundata"),
    ],
)
def test_jobs_say_that_they_do_not_run_yet(house: House, method: str, path: str) -> None:
    assert "do not run here yet" in refusal(house.ask(method, path), 404, "ResourceNotFound")


# Where answers say that this is.


def test_urls_follow_the_host_header_and_settings_win_over_it(tmp_path: Path) -> None:
    urls = Urls(management_url="https://manage.example", scoring_url="https://score.example/x")
    house = House(tmp_path, urls=urls)
    try:
        made = house.add_endpoint().json()
        assert made["properties"]["scoringUri"] == "https://score.example/x/endpoints/digits/score"
        workspace = body_of(house.get(WORKSPACE))
        assert workspace["properties"]["discoveryUrl"] == "https://manage.example/discovery"
    finally:
        house.close()


def test_who_changed_it_is_told(house: House) -> None:
    token = house.add_token("robot", Role.OPERATOR)
    made = house.put(DIGITS, {"properties": {}}, token=token).json()
    assert made["systemData"]["createdBy"] == "token:robot"
    found = house.read(lambda tx: tx.get(Ref(kind=Kind.ONLINE_ENDPOINT, key="digits")))
    assert found is not None
    assert found.created_by == "token:robot"
