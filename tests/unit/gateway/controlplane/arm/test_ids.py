"""Ids are read in any form that clients send, and written in the one that they match."""

from __future__ import annotations

import pytest

from gateway.controlplane.arm import ids
from gateway.controlplane.arm.ids import ArmId, IdError, StoredAt, Workspace
from gateway.controlplane.store.records import Kind, Ref

WORKSPACE = Workspace("S1", "Group", "Work")
ROOT = "/subscriptions/S1/resourceGroups/Group/providers/Microsoft.MachineLearningServices/workspaces/Work"


def test_an_id_is_written_exactly_and_read_in_any_case() -> None:
    written = ids.resource_id(WORKSPACE, Kind.ONLINE_DEPLOYMENT, "Blue", "Digits")
    assert written == f"{ROOT}/onlineEndpoints/Digits/deployments/Blue"
    expected = ArmId(WORKSPACE, (("onlineEndpoints", "Digits"), ("deployments", "Blue")))
    assert ids.parse(written) == expected
    shouted = (
        "SUBSCRIPTIONS/S1/RESOURCEGROUPS/Group/PROVIDERS/MICROSOFT.MACHINELEARNINGSERVICES/WORKSPACES/Work"
        "/ONLINEENDPOINTS/Digits/DEPLOYMENTS/Blue/"
    )
    assert ids.parse(shouted) == expected
    assert expected.name_of("deployments") == "Blue"
    assert expected.name_of("models") == ""


@pytest.mark.parametrize(
    ("kind", "name", "parent", "path", "type_"),
    [
        (Kind.ONLINE_ENDPOINT, "d", "", "onlineEndpoints/d", "onlineEndpoints"),
        (Kind.BATCH_ENDPOINT, "d", "", "batchEndpoints/d", "batchEndpoints"),
        (Kind.BATCH_DEPLOYMENT, "b", "d", "batchEndpoints/d/deployments/b", "batchEndpoints/deployments"),
        (Kind.ROLLOUT, "r", "d", "onlineEndpoints/d/rollouts/r", "onlineEndpoints/rollouts"),
        (Kind.MODEL, "1", "m", "models/m/versions/1", "models/versions"),
        (Kind.ENVIRONMENT, "1", "e", "environments/e/versions/1", "environments/versions"),
        (Kind.CODE, "1", "c", "codes/c/versions/1", "codes/versions"),
        (Kind.DATA, "1", "x", "data/x/versions/1", "data/versions"),
    ],
)
def test_every_kind_has_its_place_in_the_workspace(kind: Kind, name: str, parent: str, path: str, type_: str) -> None:
    assert ids.resource_id(WORKSPACE, kind, name, parent) == f"{ROOT}/{path}"
    assert ids.resource_type(kind) == f"Microsoft.MachineLearningServices/workspaces/{type_}"


@pytest.mark.parametrize(
    "text",
    ["", "/", "/subscriptions/s", f"{ROOT}/models", ROOT.replace("MachineLearning", "Compute"), "m:1", f"{ROOT}//m"],
)
def test_what_is_no_id_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(IdError, match="accepted: an id such as /subscriptions/S/"):
        ids.parse(text)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("azureml:m:1", "azureml:m:1"),
        (" azureml:m@latest ", "azureml:m@latest"),
        ("azureml:AzureML-sklearn.1-0:2", "azureml:AzureML-sklearn.1-0:2"),
        (f"{ROOT}/models/m/versions/1", "azureml:m:1"),
        (f"azureml:{ROOT}/models/m/versions/1", "azureml:m:1"),
        (f"{ROOT.lower()}/MODELS/m/VERSIONS/1", "azureml:m:1"),
        (f"{ROOT}/models/m/labels/latest", "azureml:m@latest"),
        ("azureml://subscriptions/s/resourcegroups/g/workspaces/w/models/m/versions/1", "azureml:m:1"),
        ("azureml://locations/local/workspaces/1-2/models/m/versions/1", "azureml:m:1"),
    ],
)
def test_an_asset_is_named_in_many_ways_and_kept_in_one(text: str, reference: str) -> None:
    assert ids.asset_reference(text, Kind.MODEL) == reference
    assert ids.is_asset_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        "m:1",
        "azureml:m",
        "azureml:m@production",
        "azureml:../m:1",
        f"{ROOT}/environments/m/versions/1",
        f"{ROOT}/models/m",
        f"{ROOT}/models/m/labels/production",
        f"{ROOT}/onlineEndpoints/m",
        "/subscriptions/s",
        "azureml://datastores/d/paths/p",
        "azureml://subscriptions/s/workspaces/w/environments/m/versions/1",
        "https://h/m",
    ],
)
def test_what_names_no_model_is_refused_with_what_would(text: str) -> None:
    with pytest.raises(IdError, match=r"accepted: azureml:NAME:VERSION, azureml:NAME@latest, or the id of a model"):
        ids.asset_reference(text, Kind.MODEL)


@pytest.mark.parametrize(
    "text",
    [
        "azureml://registries/azureml/models/m/versions/1",
        "azureml://registries/azureml/models/m/labels/latest",
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/registries/r/models/m/versions/1",
    ],
)
def test_a_registry_is_refused_by_name(text: str) -> None:
    with pytest.raises(IdError, match="registries are not served here; register the model in this workspace"):
        ids.asset_reference(text, Kind.MODEL)


def test_a_reference_becomes_an_id_and_a_row() -> None:
    assert ids.asset_id(WORKSPACE, Kind.CODE, "azureml:c:1") == f"{ROOT}/codes/c/versions/1"
    assert ids.asset_id(WORKSPACE, Kind.CODE, "azureml:c@latest") == f"{ROOT}/codes/c/labels/latest"
    assert ids.asset_id(WORKSPACE, Kind.MODEL, "models/m.onnx") == "models/m.onnx"
    assert ids.asset_ref("azureml:Digits:V1", Kind.MODEL) == Ref(kind=Kind.MODEL, parent="digits", key="v1")
    assert ids.asset_ref("azureml:Digits@latest", Kind.MODEL) is None
    assert ids.asset_ref("m.onnx", Kind.MODEL) is None
    assert not ids.is_asset_reference("models/m.onnx")
    assert not ids.is_asset_reference("azureml://datastores/d/paths/p")


def test_a_compute_is_named_by_id_reference_or_name() -> None:
    for text in ("azureml:cpu", "cpu", f"{ROOT}/computes/cpu"):
        assert ids.compute_reference(text) == "azureml:cpu"
    assert ids.compute_reference(" ") == ""
    assert ids.compute_id(WORKSPACE, "azureml:cpu") == f"{ROOT}/computes/cpu"
    assert ids.compute_id(WORKSPACE, "") == ""
    for text in ("a b", f"{ROOT}/models/m"):
        with pytest.raises(IdError, match="accepted: azureml:NAME, or the id of a compute"):
            ids.compute_reference(text)


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("azureml://datastores/blobs/paths/a/b/", StoredAt(datastore="blobs", path="a/b")),
        (ids.datastore_uri(WORKSPACE, "blobs", "a/b"), StoredAt(datastore="blobs", path="a/b")),
        ("AZUREML://Datastores/blobs/Paths/a", StoredAt(datastore="blobs", path="a")),
        (
            "https://h:8443/blob/a/azureml/LocalUpload/1/m%20n/",
            StoredAt(container="azureml", path="LocalUpload/1/m n"),
        ),
        ("https://h/blob/a.blob.core.windows.net/azureml/x", StoredAt(container="azureml", path="x")),
        ("https://h/blob/azureml/x?sig=s&se=e", StoredAt(container="azureml", path="x")),
        ("https://h/blob/azureml", StoredAt(container="azureml", path="")),
        ("https://h/other/azureml/x", None),
        ("https://h/", None),
        ("https://[h/blob/a/b", None),
        ("file:///blob/a/b", None),
        ("runs:/1/model", None),
        ("models/m.onnx", None),
    ],
)
def test_an_address_says_where_content_is(uri: str, place: StoredAt | None) -> None:
    assert ids.stored_at(uri) == place


@pytest.mark.parametrize(
    "uri",
    [
        "azureml://datastores/d/paths/../p",
        "azureml://datastores/d/paths/a//p",
        "https://h/blob/a/azureml/%2e%2e/p",
        "https://h/blob/a/azureml/p%00",
        "https://h/blob/a/azureml/a%5c..%5cp",
    ],
)
def test_an_address_that_climbs_is_refused(uri: str) -> None:
    with pytest.raises(IdError, match=r"accepted: a path without empty segments, '\.', '\.\.' and control"):
        ids.stored_at(uri)


def test_a_long_text_is_shown_in_part() -> None:
    with pytest.raises(IdError, match=r"found 'azureml:a{180,}\.\.\.'"):
        ids.asset_reference("azureml:" + "a" * 5000, Kind.MODEL)
