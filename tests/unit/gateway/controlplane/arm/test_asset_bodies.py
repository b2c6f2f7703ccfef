"""Bodies of models, environments, code and data, and of the containers around their versions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.controlplane.arm import assets
from gateway.controlplane.store.records import Kind
from gateway.controlplane.yaml_types import (
    BuildYaml,
    CodeAssetYaml,
    DataYaml,
    EnvironmentYaml,
    InferenceYaml,
    ModelYaml,
    RouteYaml,
)
from gateway.errors import Problem
from tests.support.arm import WORKSPACE, body_of, row

LONG = "azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/workspaceblobstore/paths/LocalUpload/1/m"


def test_a_model_always_has_flavors() -> None:
    put = {"properties": {"modelUri": LONG, "modelType": "custom_model", "isAnonymous": True, "flavors": None}}
    document = assets.read_version(put, Kind.MODEL, "m", "1")
    assert document == ModelYaml(name="m", version="1", path=LONG, is_anonymous=True)
    body = body_of(Kind.MODEL, document, "1", "m")
    assert body["id"] == WORKSPACE.child("models", "m", "versions", "1")
    assert body["name"] == "1"
    assert body["properties"] == {
        "description": None,
        "tags": {},
        "properties": {},
        "isAnonymous": True,
        "isArchived": False,
        "modelUri": LONG,
        "modelType": "custom_model",
        "flavors": {},
        "stage": None,
        "jobName": None,
        "provisioningState": "Succeeded",
    }


def test_flavors_are_wrapped_at_the_edge_only() -> None:
    put = {"properties": {"modelUri": "x", "flavors": {"onnx": {"data": {"v": "1"}}, "none": {"data": None}}}}
    document = assets.read_version(put, Kind.MODEL, "m", "1")
    assert isinstance(document, ModelYaml)
    assert document.flavors == {"onnx": {"v": "1"}, "none": {}}
    shown = body_of(Kind.MODEL, document, "1", "m")["properties"]["flavors"]
    assert shown == {"onnx": {"data": {"v": "1"}}, "none": {"data": {}}}
    odd = ModelYaml(path="x", flavors={"a": "b"})
    assert body_of(Kind.MODEL, odd, "1", "m")["properties"]["flavors"] == {"a": {"data": {}}}
    put = {"properties": {"modelUri": "x", "flavors": {"a": "b"}}}
    assert isinstance(assets.read_version(put, Kind.MODEL, "m", "1"), ModelYaml)


def test_an_environment_keeps_its_packages_as_text() -> None:
    packages = "name: e\ndependencies:\n- python=3.11\n"
    put = {
        "properties": {
            "image": "docker.io/python",
            "condaFile": packages,
            "osType": "Linux",
            "inferenceConfig": {"scoringRoute": {"port": 8501, "path": "/v1"}, "livenessRoute": None},
        }
    }
    document = assets.read_version(put, Kind.ENVIRONMENT, "e", "1")
    assert document == EnvironmentYaml(
        name="e",
        version="1",
        image="docker.io/python",
        conda_file=packages,
        inference_config=InferenceYaml(scoring_route=RouteYaml(port=8501, path="/v1")),
    )
    shown = body_of(Kind.ENVIRONMENT, document, "1", "e")["properties"]
    assert (shown["condaFile"], shown["osType"], shown["environmentType"]) == (packages, "Linux", "UserCreated")
    assert shown["build"] is None
    assert shown["inferenceConfig"] == {
        "livenessRoute": None,
        "readinessRoute": None,
        "scoringRoute": {"port": 8501, "path": "/v1"},
    }


def test_a_build_has_a_dockerfile() -> None:
    put = {"properties": {"build": {"contextUri": "https://h/blob/azureml/x", "dockerfilePath": None}}}
    document = assets.read_version(put, Kind.ENVIRONMENT, "e", "1")
    assert isinstance(document, EnvironmentYaml)
    assert document.build == BuildYaml(path="https://h/blob/azureml/x")
    shown = body_of(Kind.ENVIRONMENT, document, "1", "e")["properties"]
    assert shown["build"] == {"contextUri": "https://h/blob/azureml/x", "dockerfilePath": "Dockerfile"}
    assert (shown["condaFile"], shown["inferenceConfig"]) == (None, None)


def test_packages_as_a_mapping_are_shown_as_json_which_is_yaml() -> None:
    document = EnvironmentYaml(conda_file={"dependencies": ["pip", {"pip": ["a"]}]})
    shown = body_of(Kind.ENVIRONMENT, document, "1", "e")["properties"]["condaFile"]
    assert json.loads(shown) == document.conda_file


def test_code_keeps_its_hash_and_data_its_type() -> None:
    put = {"properties": {"codeUri": "u", "properties": {"hash_sha256": "ab", "hash_version": 202208}}}
    code = assets.read_version(put, Kind.CODE, "c", "1")
    assert code == CodeAssetYaml(
        name="c", version="1", path="u", properties={"hash_sha256": "ab", "hash_version": "202208"}
    )
    assert body_of(Kind.CODE, code, "1", "c")["properties"]["codeUri"] == "u"
    data = assets.read_version({"properties": {"dataType": "uri_file", "dataUri": "u"}}, Kind.DATA, "x", "1")
    assert data == DataYaml(name="x", version="1", type="uri_file", path="u")
    shown = body_of(Kind.DATA, data, "1", "x")["properties"]
    assert (shown["dataType"], shown["dataUri"]) == ("uri_file", "u")


@pytest.mark.parametrize(
    ("kind", "properties", "said"),
    [
        (Kind.MODEL, {}, "model m version 1: properties.modelUri: missing; accepted: text"),
        (Kind.MODEL, {"modelUri": []}, "properties.modelUri: found a list; accepted: text"),
        (Kind.MODEL, {"modelUri": "u", "modelType": "onnx"}, "properties.modelType: found 'onnx'; accepted: one of"),
        (Kind.MODEL, {"modelUri": "u", "flavors": 1}, "properties.flavors: found 1; accepted: an object"),
        (Kind.CODE, {"codeUri": None}, "properties.codeUri: missing; accepted: text"),
        (Kind.DATA, {"dataUri": "u", "isArchived": "x"}, "properties.isArchived: found 'x'; accepted: true or false"),
        (Kind.ENVIRONMENT, {"build": 1}, "properties.build: found 1; accepted: an object"),
        (
            Kind.ENVIRONMENT,
            {"build": {"contextUri": []}},
            "properties.build.contextUri: found a list; accepted: text",
        ),
        (
            Kind.ENVIRONMENT,
            {"inferenceConfig": {"scoringRoute": {"port": 0}}},
            "properties.inferenceConfig.scoringRoute.port: found '0'; accepted: an integer from 1 to 65535",
        ),
    ],
)
def test_what_is_wrong_is_told_at_its_path(kind: Kind, properties: dict[str, Any], said: str) -> None:
    with pytest.raises(Problem) as problem:
        assets.read_version({"properties": properties}, kind, "m", "1")
    assert said in problem.value.message


def test_a_container_names_the_latest_and_the_next_version() -> None:
    data = DataYaml(name="X", version="2", path="u", tags={"a": "b"})
    body = assets.container_body(row(Kind.DATA, data, "2", "X"), WORKSPACE, "3", is_archived=True)
    assert (body["id"], body["name"]) == (WORKSPACE.child("data", "X"), "X")
    assert body["type"] == "Microsoft.MachineLearningServices/workspaces/data"
    assert body["properties"] == {
        "description": None,
        "tags": {"a": "b"},
        "properties": {},
        "dataType": "uri_folder",
        "latestVersion": "2",
        "nextVersion": "3",
        "isArchived": True,
        "provisioningState": "Succeeded",
    }


def test_the_next_version_is_one_more_than_the_largest_number() -> None:
    assert assets.next_version([]) == "1"
    assert assets.next_version(["a", "1.5", "٣", "-1"]) == "1"
    assert assets.next_version(["9", "10", "b", "9" * 400]) == "11"
