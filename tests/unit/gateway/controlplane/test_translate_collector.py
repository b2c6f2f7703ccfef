"""What a deployment's data_collector means: places, shares, bounds, what is refused and what has no effect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.collection.spec import CollectorSpec
from gateway.controlplane.model_files import ModelFileError
from gateway.controlplane.place import Place
from gateway.controlplane.store.records import Kind
from gateway.controlplane.translate_collector import collector_of
from gateway.controlplane.translate_script import Tree
from gateway.controlplane.yaml_types import (
    CodeYaml,
    CollectedDataYaml,
    CollectionYaml,
    DataCollectorYaml,
    OnlineDeploymentYaml,
    RequestLoggingYaml,
)
from gateway.resources import AssetModel, AssetTree, LocalModel
from gateway.yaml_text import Entries

PATHS = "azureml://datastores/workspaceblobstore/paths"
Trees = Callable[[Kind, str], Tree]


def nowhere(kind: Kind, reference: str) -> Tree:
    raise ModelFileError("data_collector", f"there is no registered {kind} {reference}; register it first")


def at(address: str) -> Trees:
    return lambda kind, reference: Tree(reference=reference, address=address)


def read(
    collector: DataCollectorYaml | None, *, script: bool = False, trees: Trees = nowhere, model: Any = None
) -> tuple[CollectorSpec | None, list[str], list[str]]:
    """What is collected, the mistakes, and the notes."""
    source = OnlineDeploymentYaml(
        name="Blue",
        endpoint_name="Digits",
        data_collector=collector,
        code_configuration=CodeYaml(code=".", scoring_script="score.py") if script else None,
    )
    place = Place(file=Path("/document"), label="d.yml", document=Entries({}, 0, {}))
    found = collector_of(source, place, trees, model)
    return found, [f"{one.path}: {one.text}" for one in place.mistakes], list(place.notes)


def collections(**given: Any) -> DataCollectorYaml:
    return DataCollectorYaml(collections={name: CollectionYaml(enabled=True, **one) for name, one in given.items()})


def test_a_collection_lies_by_endpoint_deployment_and_name_where_nothing_else_is_said() -> None:
    found, mistakes, notes = read(collections(Request={}, response={}), model=LocalModel(path=Path("/m")))
    assert found is not None
    assert [one.folder for one in found.collections] == [
        "modelDataCollector/Digits/Blue/Request",
        "modelDataCollector/Digits/Blue/response",
    ]
    # A reserved name is one whatever its case.
    assert [one.name for one in found.collections] == ["request", "response"]
    assert found.source.endswith("/workspaces/gateway/onlineEndpoints/Digits/deployments/Blue")
    assert (found.rolling_rate, found.headers, found.model_version, mistakes, notes) == ("hour", (), "", [], [])


def test_shares_headers_and_the_models_version_are_told() -> None:
    given = DataCollectorYaml(
        sampling_rate=0.5,
        rolling_rate="minute",
        request_logging=RequestLoggingYaml(capture_headers=("X-Tenant",)),
        collections={
            "request": CollectionYaml(enabled=True),
            "response": CollectionYaml(enabled=True, sampling_rate=0.25),
        },
    )
    found, _, _ = read(given, model=AssetModel(reference="azureml:digits:7"))
    assert found is not None
    assert [one.sampling_rate for one in found.collections] == [0.5, 0.25]
    assert (found.rolling_rate, found.headers, found.model_version) == ("minute", ("x-tenant",), "7")
    found, _, _ = read(given, model=AssetTree(reference="azureml:digits:8"))
    assert found is not None
    assert found.model_version == "8"


def test_what_is_not_enabled_is_not_collected() -> None:
    given = DataCollectorYaml(collections={"request": CollectionYaml(), "response": CollectionYaml(enabled=False)})
    assert read(given)[0] is None
    assert read(None)[0] is None


@pytest.mark.parametrize(
    ("data", "folder"),
    [
        (CollectedDataYaml(path=f"{PATHS}/mine/answers/"), "mine/answers"),
        (f"{PATHS}/mine", "mine"),
        (
            "azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/WorkspaceBlobStore/paths/long",
            "long",
        ),
        ("azureml:answers:1", "asset"),
        (CollectedDataYaml(name="answers"), "asset"),
        (CollectedDataYaml(data_id="azureml:answers:2"), "asset"),
        (CollectedDataYaml(), "modelDataCollector/Digits/Blue/request"),
    ],
)
def test_data_says_where_a_collection_lies(data: Any, folder: str) -> None:
    found, mistakes, notes = read(collections(request={"data": data}), trees=at(f"{PATHS}/asset"))
    assert found is not None
    assert ([one.folder for one in found.collections], mistakes, notes) == ([folder], [], [])


def test_a_data_asset_that_is_gone_stops_no_deployment() -> None:
    found, mistakes, notes = read(collections(request={"data": "azureml:gone:1"}))
    assert found is not None
    assert (found.collections[0].folder, mistakes) == ("modelDataCollector/Digits/Blue/request", [])
    assert "there is no registered data azureml:gone:1" in notes[0]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("azureml://datastores/other/paths/a", "accepted: a folder of the default datastore, azureml://datastores/"),
        ("https://account.blob.core.windows.net/c/a", "accepted: a folder of the default datastore"),
        ("./local", "found './local'; accepted: a folder of the default datastore"),
        (f"{PATHS}/a/../b", "without empty segments, '.', '..'"),
        (f"{PATHS}/{'a/' * 300}a", "accepted: at most 512 characters"),
        (f"{PATHS}/{'a' * 300}", "255 bytes between two slashes"),
    ],
)
def test_a_place_that_is_not_here_is_refused(data: str, said: str) -> None:
    _, mistakes, _ = read(collections(request={"data": data}))
    assert len(mistakes) == 1
    assert mistakes[0].startswith("data_collector.collections.request.data: ")
    assert said in mistakes[0]


def test_at_most_five_collections_are_the_scripts_own() -> None:
    names = [f"c{number}" for number in range(6)]
    enough = collections(**{name: {} for name in ("request", "response", *names[:5])})
    assert read(enough, script=True)[1] == []
    _, mistakes, _ = read(collections(**{name: {} for name in names}), script=True)
    assert mistakes == [
        "data_collector.collections: found 6 collections beside request and response; accepted: at most 5"
    ]


@pytest.mark.parametrize("name", ["a/b", "..", "", "ä", "a" * 65, "a b"])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    _, mistakes, _ = read(collections(**{name: {}}), script=True)
    assert "accepted: a name of at most 64 letters" in mistakes[0]


def test_two_names_that_differ_in_case_are_one() -> None:
    _, mistakes, _ = read(collections(inputs={}, Inputs={}), script=True)
    assert mistakes == [
        "data_collector.collections.Inputs: the collection is named twice; names are equal whatever their case"
    ]


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (("Authorization",), "found 'Authorization', which proves a caller and is never collected; remove it"),
        (("x-api-key",), "never collected"),
        (("a b",), "found 'a b'; accepted: names of headers, such as x-tenant"),
        (tuple(f"x-{number}" for number in range(33)), "found 33 headers; accepted: at most 32"),
    ],
)
def test_headers_that_prove_a_caller_and_what_are_no_headers_are_refused(headers: tuple[str, ...], said: str) -> None:
    given = DataCollectorYaml(
        request_logging=RequestLoggingYaml(capture_headers=headers),
        collections={"request": CollectionYaml(enabled=True)},
    )
    _, mistakes, _ = read(given)
    assert len(mistakes) == 1
    assert said in mistakes[0]


def test_what_has_no_effect_is_noted() -> None:
    given = DataCollectorYaml(
        request_logging=RequestLoggingYaml(capture_headers=("x-tenant",)),
        collections={"inputs": CollectionYaml(enabled=True, client_id="x")},
    )
    _, mistakes, notes = read(given)
    assert mistakes == []
    assert notes == [
        "d.yml: data_collector.collections.inputs.client_id: accepted, not enforced here: there is no managed "
        "identity",
        "d.yml: data_collector.collections.inputs: has no effect without code_configuration; an ONNX model collects "
        "request and response",
        "d.yml: data_collector.request_logging: has no effect while neither request nor response is collected",
    ]
    assert len(read(given, script=True)[2]) == 2
