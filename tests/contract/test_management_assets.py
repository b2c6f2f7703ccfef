"""Assets, uploads, and what stands in the workspace without being stored, over REST."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest

from gateway.controlplane.blobs import sas
from tests.support.house import HOST, LINK_SECRET, WORKSPACE, House

BASE = f"https://{HOST}"
MODELS = f"{WORKSPACE}/models"
STORES = f"{WORKSPACE}/datastores"
DEFAULT = f"{STORES}/workspaceblobstore"
SHA = "ab" * 32


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    found = House(tmp_path)
    yield found
    found.close()


def body_of(response: httpx.Response, status: int = 200) -> Any:
    assert response.status_code == status, response.text
    return response.json()


def refusal(response: httpx.Response, status: int, code: str) -> str:
    assert body_of(response, status)["error"]["code"] == code, response.text
    return str(response.json()["error"]["message"])


def names_of(document: Any) -> list[str]:
    return [one["name"] for one in document["value"]]


def put_code(house: House, name: str, content: bytes = b"code") -> httpx.Response:
    house.upload(f"{name}/score.py", content, container="upload-1")
    properties = {"hash_sha256": SHA, "hash_version": "202208"}
    uri = f"{BASE}/blob/a/upload-1/{name}"
    body = {"properties": {"codeUri": uri, "isAnonymous": True, "properties": properties}}
    return house.put(f"{WORKSPACE}/codes/{name}/versions/1", body)


# Versions and their names.


def test_a_model_is_registered_once_and_described_again(house: House) -> None:
    house.upload("LocalUpload/m/model.onnx")
    uri = "azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/workspaceblobstore/paths/LocalUpload/m"
    body = {"properties": {"modelType": "custom_model", "modelUri": uri, "description": "first"}}
    path = f"{MODELS}/Digits/versions/1"
    made = body_of(house.put(path, body), 201)
    assert made["id"] == path
    assert made["properties"]["flavors"] == {}
    assert made["properties"]["modelUri"] == uri
    body["properties"]["description"] = "second"
    again = body_of(house.put(path, body))
    assert again["properties"]["description"] == "second"
    assert again["etag"] != made["etag"]
    assert body_of(house.get(path.replace("Digits", "DIGITS"))) == again
    assert house.get(path, headers={"if-none-match": again["etag"]}).status_code == 304
    house.upload("LocalUpload/other/model.onnx", b"another model")
    body["properties"]["modelUri"] = uri.replace("/m", "/other")
    refusal(house.put(path, body), 409, "Conflict")
    assert house.delete(path).status_code == 200
    assert house.delete(path).status_code == 204
    refusal(house.get(path), 404, "ResourceNotFound")


def test_a_model_that_was_not_uploaded_is_refused(house: House) -> None:
    uri = "azureml://datastores/workspaceblobstore/paths/LocalUpload/none"
    body = {"properties": {"modelUri": uri}}
    assert "none" in refusal(house.put(f"{MODELS}/digits/versions/1", body), 400, "InvalidInput")


def test_a_version_that_a_deployment_uses_is_not_deleted(house: House) -> None:
    house.add_endpoint()
    house.add_model()
    house.add_deployment()
    assert "blue" in refusal(house.delete(f"{MODELS}/digits/versions/1"), 409, "Conflict")


def test_a_name_tells_its_latest_and_its_next_version(house: House) -> None:
    refusal(house.get(f"{MODELS}/digits"), 404, "ResourceNotFound")
    for version in ("1", "9", "beta", "10"):
        house.add_model(version=version)
    one = body_of(house.get(f"{MODELS}/digits"))
    assert one["id"] == f"{MODELS}/digits"
    assert (one["properties"]["latestVersion"], one["properties"]["nextVersion"]) == ("10", "11")
    house.add_model("words")
    assert names_of(body_of(house.get(MODELS))) == ["digits", "words"]
    assert names_of(body_of(house.get(f"{MODELS}?name=WORDS"))) == ["words"]
    page = body_of(house.get(f"{MODELS}?count=1"))
    assert (names_of(page), names_of(body_of(house.get(page["nextLink"])))) == (["digits"], ["words"])


def test_the_latest_version_is_asked_for_as_the_sdk_does(house: House) -> None:
    versions = f"{MODELS}/digits/versions"
    latest = f"{versions}?$orderBy=createdtime%20desc&$top=1"
    assert body_of(house.get(latest)) == {"value": [], "nextLink": None}
    for version in ("1", "2"):
        house.add_model(version=version)
    found = body_of(house.get(latest))
    assert (names_of(found), found["nextLink"]) == (["2"], None)


def test_archived_versions_are_shown_to_who_asks_for_them(house: House) -> None:
    path = f"{WORKSPACE}/environments/env/versions"
    for version, is_archived in (("1", True), ("2", False)):
        body = {"properties": {"image": "image:1", "isArchived": is_archived, "tags": {"v": version}}}
        body_of(house.put(f"{path}/{version}", body), 201)
    views = {"": ["2"], "?listViewType=archivedonly": ["1"], "?listViewType=All": ["1", "2"], "?tags=v=2": ["2"]}
    for query, expected in views.items():
        assert names_of(body_of(house.get(path + query))) == expected, query
    assert names_of(body_of(house.get(f"{WORKSPACE}/environments?listViewType=ArchivedOnly"))) == []
    body_of(house.put(f"{path}/2", {"properties": {"image": "image:1", "isArchived": True}}))
    assert names_of(body_of(house.get(f"{WORKSPACE}/environments"))) == []
    archived = body_of(house.get(f"{WORKSPACE}/environments?listViewType=ArchivedOnly"))["value"]
    assert [one["properties"]["isArchived"] for one in archived] == [True]


def test_code_of_the_same_content_is_found_under_any_name(house: House) -> None:
    path = f"{WORKSPACE}/codes/other/versions?hash={SHA}&hashVersion=202208"
    assert body_of(house.get(path))["value"] == []
    made = body_of(put_code(house, "first"), 201)
    found = body_of(house.get(path))["value"]
    assert [one["id"] for one in found] == [made["id"]]
    assert found[0]["properties"]["properties"]["hash_sha256"] == SHA
    assert body_of(house.get(path.replace("ab", "cd")))["value"] == []


def test_data_says_where_it_is(house: House) -> None:
    body = {"properties": {"dataType": "uri_folder", "dataUri": "azureml://datastores/workspaceblobstore/paths/x"}}
    made = body_of(house.put(f"{WORKSPACE}/data/images/versions/1", body), 201)
    assert made["properties"]["dataType"] == "uri_folder"
    assert body_of(house.get(f"{WORKSPACE}/data/images"))["properties"]["nextVersion"] == "2"


def test_a_put_without_a_body_is_refused(house: House) -> None:
    assert "empty" in refusal(house.put(f"{MODELS}/digits/versions/1"), 400, "InvalidInput")


# Uploads.


def test_a_pending_upload_gets_a_container_of_its_own_and_a_link_to_it(house: House) -> None:
    path = f"{WORKSPACE}/codes/c0de/versions/1/startPendingUpload"
    first = body_of(house.post(path, {"pendingUploadType": "TemporaryBlobReference"}))
    second = body_of(house.post(path))
    blob = first["blobReferenceForConsumption"]
    assert first["pendingUploadType"] == "TemporaryBlobReference"
    assert blob["blobUri"] == f"{BASE}/blob/a/upload-{first['pendingUploadId']}"
    assert blob["blobUri"] != second["blobReferenceForConsumption"]["blobUri"]
    address, _, query = blob["credential"]["sasUri"].partition("?")
    assert (address, blob["credential"]["credentialType"]) == (blob["blobUri"], "SAS")
    container = address.rpartition("/")[2]
    assert "w" in sas.check(LINK_SECRET, parse_qsl(query), container, "folder/score.py", house.now_s)
    assert "pendingUploadType" in refusal(house.post(path, {"pendingUploadType": "Other"}), 400, "InvalidInput")


def test_the_datastore_leads_the_sdk_back_to_this_listener(house: House) -> None:
    store = body_of(house.get(DEFAULT.replace("datastores", "DataStores")))
    properties = store["properties"]
    assert store["id"] == DEFAULT
    account = f"https://{properties['accountName']}.blob.{properties['endpoint']}/{properties['containerName']}"
    assert account == f"{BASE}/blob/a.blob.core.windows.net/azureml"
    secret = body_of(house.post(f"{DEFAULT}/listSecrets", {"expirableSecret": True, "expireAfterHours": 1}))
    assert secret["secretsType"] == "Sas"
    assert "c" in sas.check(LINK_SECRET, parse_qsl(secret["sasToken"]), "azureml", "LocalUpload/x", house.now_s)
    assert "workspaceblobstore" in refusal(house.get(f"{STORES}/other"), 404, "ResourceNotFound")
    refusal(house.post(f"{STORES}/other/listSecrets"), 404, "ResourceNotFound")


def test_datastores_are_listed_as_asked(house: House) -> None:
    for query, count in (("", 1), ("?isDefault=true&count=30", 1), ("?isDefault=False", 0), ("?name=other", 0)):
        assert len(body_of(house.get(STORES + query))["value"]) == count, query
    assert "true or false" in refusal(house.get(f"{STORES}?isDefault=1"), 400, "InvalidInput")


# What stands there without being stored.


def test_the_workspace_is_whatever_its_path_calls_it(house: House) -> None:
    one, other = body_of(house.get(WORKSPACE)), body_of(house.get(WORKSPACE.replace("Work", "Play")))
    assert (one["id"], one["location"]) == (WORKSPACE, "local")
    assert other["name"] == "Play"
    assert one["properties"]["workspaceId"] != other["properties"]["workspaceId"]
    assert one["properties"]["workspaceId"] == body_of(house.get(WORKSPACE))["properties"]["workspaceId"]
    assert one["properties"]["discoveryUrl"] == f"{BASE}/discovery"


def test_clients_discover_everything_here_without_credentials(house: House) -> None:
    services = body_of(house.get("/discovery", token=None))
    assert services["api"] == services["history"] == BASE
    (cloud,) = body_of(house.get("/metadata/endpoints?api-version=2019-05-01", token=None))
    assert cloud["resourceManager"] == BASE
    assert cloud["authentication"]["loginEndpoint"] == BASE
    assert cloud["suffixes"]["storage"] == "core.windows.net"


def test_there_is_a_compute_of_any_name(house: House) -> None:
    one = body_of(house.get(f"{WORKSPACE}/computes/cpu-cluster"))
    assert one["id"] == f"{WORKSPACE}/computes/cpu-cluster"
    assert one["properties"]["provisioningState"] == "Succeeded"
