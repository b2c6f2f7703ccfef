"""What is stored as a folder of YAML that reads back to the same."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.controlplane.export import export, export_all
from gateway.controlplane.store.records import Kind, Ref, Resource, State
from gateway.controlplane.yaml_types import CollectedDataYaml, OnlineDeploymentYaml
from gateway.yaml_text import write_yaml
from tests.support.applied import DEPLOYMENT, ENDPOINT, Stored, contents_of, read, write, write_export

BATCH = "$schema: https://x/batchEndpoint.schema.json\nname: nightly\n"
MAIN = "name: main\nendpoint_name: nightly\ntype: model\nmodel: azureml:Digits:3\ncompute: azureml:any\n"
KUBERNETES = "$schema: https://x/kubernetesOnlineEndpoint.schema.json\nname: k8s\n"
ON_KUBERNETES = "name: red\nendpoint_name: k8s\ntype: kubernetes\nmodel: azureml:Digits:3\n"
MODEL = "name: Digits\nversion: 3\npath: m.onnx\n"
ENVIRONMENT = "name: env\nversion: 1.10\nimage: x\nconda_file: {channels: [a]}\n---\n"
ENVIRONMENT += "name: built\nversion: 1\nbuild: {path: src, dockerfile_path: D}\n"
CODE = "$schema: https://x/codeAsset.schema.json\nname: src\nversion: 1\npath: src\n"
DATA = "$schema: https://x/data.schema.json\nname: images\nversion: 2\ntype: mltable\npath: https://far/images\n"


def whole(folder: Path) -> Path:
    """A folder with one of everything."""
    texts = {"a": ENDPOINT, "b": DEPLOYMENT, "c": BATCH, "d": MAIN, "e": KUBERNETES, "f": ON_KUBERNETES}
    write(folder, **texts, g=MODEL, h=ENVIRONMENT, i=CODE, j=DATA)
    (folder / "src" / "deep").mkdir(parents=True)
    (folder / "src" / "deep" / "score.py").write_text("def run(): ...")
    (folder / "src" / "D").write_text("FROM x")
    return folder


def test_apply_then_export_then_apply_changes_nothing(tmp_path: Path) -> None:
    stored, resolved = Stored(), read(whole(tmp_path / "folder"))
    stored.carry_out(stored.changes(resolved.wanted))
    exported = write_export(stored, tmp_path / "exported", contents_of(resolved))
    again = read(exported, exported)
    assert stored.changes(again.wanted, prune=True).is_empty
    elsewhere = Stored()
    elsewhere.carry_out(elsewhere.changes(again.wanted))
    assert elsewhere.changes(resolved.wanted, prune=True).is_empty


def test_a_collector_is_exported_as_it_is_read(tmp_path: Path) -> None:
    collector = (
        "data_collector:\n  sampling_rate: 0.5\n  rolling_rate: day\n"
        "  request_logging: {capture_headers: [x-tenant]}\n  collections:\n    request: {enabled: 'True'}\n"
        "    response: {enabled: 'False', sampling_rate: 1, data: azureml:answers:2}\n"
        "    inputs: {enabled: true, client_id: x, data: {name: a, version: 3, "
        "path: azureml://datastores/workspaceblobstore/paths/inputs}}\n"
    )
    stored = Stored()
    resolved = read(write(tmp_path / "folder", a=ENDPOINT, b=DEPLOYMENT + collector))
    wanted = resolved.wanted
    stored.carry_out(stored.changes(wanted))
    exported = write_export(stored, tmp_path / "exported", contents_of(resolved))
    again = read(exported, exported).wanted
    (before,), (after,) = (
        [one.document for one in found if isinstance(one.document, OnlineDeploymentYaml)] for found in (wanted, again)
    )
    assert after.data_collector == before.data_collector
    assert after.data_collector is not None
    assert after.data_collector.rolling_rate == "day"
    assert after.data_collector.collections["response"].data == "azureml:answers:2"
    assert after.data_collector.collections["request"].sampling_rate == 0.5
    inputs = after.data_collector.collections["inputs"].data
    assert isinstance(inputs, CollectedDataYaml)
    assert inputs.path.endswith("/paths/inputs")


def test_files_are_laid_out_by_endpoint_and_kind(tmp_path: Path) -> None:
    stored = Stored()
    stored.carry_out(stored.changes(read(whole(tmp_path / "folder")).wanted))
    found = {one.file: [file.path for file in one.files] for one in stored.export()}
    anonymous = next(name for name in found if name.startswith("models/") and "Digits" not in name)
    assert list(found) == sorted(found)
    assert found == {
        "batch-endpoint-nightly/deployment-main.yml": [],
        "batch-endpoint-nightly/endpoint.yml": [],
        "code/src@1.yml": ["code/src@1/D", "code/src@1/deep/score.py"],
        "data/images@2.yml": [],
        "endpoint-digits/deployment-blue.yml": [],
        "endpoint-digits/endpoint.yml": [],
        "endpoint-k8s/deployment-red.yml": [],
        "endpoint-k8s/endpoint.yml": [],
        "environments/built@1.yml": ["environments/built@1/D", "environments/built@1/deep/score.py"],
        "environments/env@1.10.yml": [],
        anonymous: [f"{anonymous.removesuffix('.yml')}/m.onnx"],
        "models/Digits@3.yml": ["models/Digits@3/m.onnx"],
    }


def test_a_text_begins_with_its_schema_and_says_only_what_is_not_the_default(tmp_path: Path) -> None:
    stored = Stored()
    stored.carry_out(stored.changes(read(whole(tmp_path / "folder")).wanted))
    texts = {one.file: one.text for one in stored.export()}
    assert texts["endpoint-digits/endpoint.yml"] == (
        "$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineEndpoint.schema.json\n"
        "name: digits\ntraffic:\n  blue: 100\n"
    )
    assert "kubernetesOnlineEndpoint" in texts["endpoint-k8s/endpoint.yml"]
    assert "kubernetesOnlineDeployment" in texts["endpoint-k8s/deployment-red.yml"]
    assert "path: ./Digits@3/m.onnx\n" in texts["models/Digits@3.yml"]
    assert "path: ./src@1\n" in texts["code/src@1.yml"]


def test_made_keys_are_not_there_and_given_ones_only_as_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a secret that nobody sees")
    keys = "gateway: {keys: {primary: {file: key}, secondary: {env: KEY}}}\n"
    stored = Stored()
    stored.carry_out(stored.changes(read(write(tmp_path, a="name: digits\n" + keys)).wanted))
    (one,) = stored.export()
    assert "a secret" not in one.text
    assert f"file: {tmp_path}/key" in one.text


def test_rollouts_and_what_is_being_deleted_are_left_out() -> None:
    stored = Stored()
    endpoint = stored.put(Kind.ONLINE_ENDPOINT, {"name": "digits"})
    rollout = replace(endpoint, ref=Ref(kind=Kind.ROLLOUT, parent="digits", key="x"))
    gone = replace(endpoint, ref=Ref(kind=Kind.ONLINE_ENDPOINT, key="gone"), state=State.DELETING)
    assert [one.file for one in export([endpoint, rollout, gone]).documents] == ["endpoint-digits/endpoint.yml"]


def test_a_name_that_is_no_files_becomes_its_hash() -> None:
    stored = Stored()
    stored.put(Kind.DATA, {"name": "a", "version": "../../x", "path": "https://far"})
    (one,) = stored.export()
    assert one.file.startswith("data/a@")
    assert ".." not in one.file
    assert len(one.file) == len("data/a@.yml") + 32


def test_the_answer_is_all_that_a_folder_can_hold() -> None:
    stored = Stored()
    resource = stored.put(Kind.ONLINE_ENDPOINT, {"name": "digits"})

    class Transaction:
        def find(self, kind: Kind) -> list[Resource]:
            return [resource] if kind is Kind.ONLINE_ENDPOINT else []

    class Store:
        async def read(self, work: Any) -> Any:
            return work(Transaction())

    found = asyncio.run(export_all(Store()))
    assert [one["file"] for one in found["documents"]] == ["endpoint-digits/endpoint.yml"]


def test_several_lines_are_written_as_a_block() -> None:
    assert write_yaml({"conda_file": "a: b\nc: d\n", "version": "1.10", "name": "no", "x": "one\n"}) == (
        "conda_file: |\n  a: b\n  c: d\nversion: '1.10'\nname: 'no'\nx: 'one\n\n  '\n"
    )
