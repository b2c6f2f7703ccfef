"""A deployment of a Triton repository: from a folder or registered, its own YAML before the repository's file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.controlplane.contents import resolve
from gateway.controlplane.folder import FolderError, FolderOptions, read_documents_of, read_folder
from gateway.controlplane.store.records import AssetFile, Kind, Ref, Resource, State
from gateway.controlplane.wanted import ContentMissing, deployment, notes
from gateway.controlplane.yaml_types import OnlineDeploymentYaml
from gateway.errors import Problem
from gateway.resources import AssetModel, Deployment, LocalModel
from tests.support.process import endpoint_yaml, write_folder
from tests.support.triton import TIMES

FULL = TIMES.replace("count: 1", "count: 3").replace(
    "max_queue_size: 100", "max_queue_size: 7 default_timeout_microseconds: 2500"
)
FULL += """optimization { graph { level: 1 } }
parameters { key: "intra_op_thread_count" value: { string_value: "2" } }
model_warmup { }
"""


def folder(place: Path, config: str = FULL, **more: Any) -> Path:
    fields: dict[str, Any] = {
        "name": "blue",
        "endpoint_name": "nets",
        "model": {"path": "./triton", "type": "triton_model"},
        "instance_type": "cpu",
        "instance_count": 2,
    }
    files = {
        "nets.yml": endpoint_yaml("nets"),
        "blue.yml": yaml.safe_dump({**fields, **more}),
        "triton/times/config.pbtxt": config,
        "triton/times/1/model.onnx": "one",
        "triton/times/3/model.onnx": "three",
        "triton/times/3/weights.bin": "heavy",
    }
    return write_folder(place, files)


def served(place: Path) -> Deployment:
    return read_folder(place).deployments["nets", "blue"]


def problem(place: Path) -> str:
    with pytest.raises(FolderError) as caught:
        read_folder(place)
    (found,) = caught.value.problems
    return found


def test_what_the_yaml_leaves_open_the_file_says(tmp_path: Path) -> None:
    found = served(folder(tmp_path))
    assert found.model == LocalModel(path=tmp_path / "triton/times/3/model.onnx")
    assert found.triton is not None
    assert (found.triton.name, found.triton.version) == ("times", "3")
    limits = found.batching.limits
    assert (limits.batch_rows_max, limits.rows_learned, limits.rows_from) == (
        8,
        False,
        "max_batch_size of config.pbtxt",
    )
    assert (limits.queue_delay_ns, limits.preferred, limits.queue_items_max) == (100_000, (4, 8), 7)
    assert (found.instance_count, found.sessions, found.provider) == (2, 3, "cpu")
    assert (found.threads, found.graph_level) == (2, "extended")
    assert found.max_queue_wait_ms == 2.5
    assert found.batching.enabled
    assert found.declared is not None
    assert found.declared.rows_max == 8


def test_what_the_yaml_says_wins(tmp_path: Path) -> None:
    own = {
        "batching": {"enabled": False, "max_rows": 16, "queue_delay_ms": 0, "queue_items_max": 5},
        "runtime": {"provider": "cuda", "device_ids": [1], "gpu_memory_mb": 1, "threads": 4, "instances": 6},
    }
    found = served(folder(tmp_path, gateway=own, request_settings={"max_queue_wait_ms": 40}))
    limits = found.batching.limits
    assert (limits.batch_rows_max, limits.rows_from) == (16, "gateway.batching.max_rows")
    assert (limits.queue_delay_ns, limits.queue_items_max) == (0, 5)
    assert not found.batching.enabled
    assert found.batching.why_not == "batching is turned off in the deployment's settings"
    assert (found.provider, found.device_ids, found.gpu_memory_bytes) == ("cuda", (1,), 1 << 20)
    assert (found.threads, found.instances, found.max_queue_wait_ms) == (4, 6, 40)


def test_batching_can_be_turned_on_where_the_file_does_not(tmp_path: Path) -> None:
    alone = FULL.split("dynamic_batching")[0]
    assert not served(folder(tmp_path / "a", alone)).batching.enabled
    turned_on = served(folder(tmp_path / "b", alone, gateway={"batching": {"enabled": True}}))
    assert turned_on.batching.enabled


@pytest.mark.parametrize(
    ("config", "size", "provider"),
    [
        ("", "gpu", "cuda"),
        ("instance_group { kind: KIND_CPU }", "gpu", "cpu"),
        ("instance_group { kind: KIND_GPU gpus: 0 }", "cpu", "cuda"),
        ("instance_group { kind: KIND_AUTO }", "cpu", "cpu"),
        ("TRT", "gpu", "tensorrt"),
        ("TRT", "cpu", "cpu"),
        ("TRT instance_group { kind: KIND_GPU gpus: 0 }", "cpu", "tensorrt"),
    ],
)
def test_the_provider_is_the_files_or_the_sizes(tmp_path: Path, config: str, size: str, provider: str) -> None:
    trt = 'optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" } } }'
    found = served(folder(tmp_path, config.replace("TRT", trt), instance_type=size))
    assert found.provider == provider


def test_what_is_for_gpus_counts_on_gpus_alone(tmp_path: Path) -> None:
    config = 'parameters { key: "gpu_mem_limit" value { string_value: "2097152" } } instance_group { gpus: [ 1 ] }'
    found = served(folder(tmp_path / "gpu", config, instance_type="gpu"))
    assert (found.device_ids, found.gpu_memory_bytes) == ((1,), 2 << 20)
    place = folder(tmp_path / "cpu", config)
    assert (served(place).device_ids, served(place).gpu_memory_bytes) == ((), 0)
    assert "blue.yml: config.pbtxt: gpus, gpu_mem_limit: has no effect on the CPU" in read_folder(place).notes


def test_notes_name_the_file_and_mistakes_the_key(tmp_path: Path) -> None:
    assert [one for one in read_folder(folder(tmp_path / "a")).notes if "config.pbtxt" in one] == [
        "blue.yml: config.pbtxt: model_warmup: has no effect: every model runs samples of its own making before it "
        "serves",
        "blue.yml: config.pbtxt: version_policy: admits versions 3, 1; a deployment serves one, the newest: 3",
    ]
    said = problem(folder(tmp_path / "b", "max_batch_size: -1 sequence_batching {}"))
    assert said.startswith("blue.yml:5: model.path: times/config.pbtxt: sequence_batching: is not offered;")
    assert "; max_batch_size: found -1; accepted: 0 and more" in said
    said = problem(folder(tmp_path / "c", gateway={"runtime": {"model": "tines"}}))
    assert "gateway.runtime.model: the repository has no model 'tines'; did you mean times?" in said
    assert "line 2, column 3" in problem(folder(tmp_path / "d", "input {\n  nmae: 'x' }"))


def test_a_models_name_without_a_repository_is_named_as_vain(tmp_path: Path) -> None:
    place = folder(tmp_path, model={"path": "./triton/times/3/model.onnx"}, gateway={"runtime": {"model": "times"}})
    assert any("gateway.runtime.model: has no effect here" in one for one in read_folder(place).notes)


def test_an_inline_repository_is_sent_whole_and_judged_before(tmp_path: Path) -> None:
    found = resolve(read_documents_of(folder(tmp_path / "a")))
    (model,) = (one for one in found.wanted if one.ref.kind is Kind.MODEL)
    assert [file.path for file in model.files] == [
        "times/1/model.onnx",
        "times/3/model.onnx",
        "times/3/weights.bin",
        "times/config.pbtxt",
    ]
    documents = read_documents_of(folder(tmp_path / "b", 'platform: "pytorch_libtorch"'))
    resolve(documents)
    assert ["found 'pytorch_libtorch'" in one for one in documents.problems] == [True]


# ---- registered


class Registered:
    """A registered repository of two files and a configuration; `content` is where the bytes lie."""

    def __init__(self, place: Path, config: str = FULL, path: str = "azureml://datastores/x/paths/a/triton") -> None:
        self.place = place
        contents = {"times/config.pbtxt": config, "times/1/model.onnx": "one", "times/3/model.onnx": "three"}
        self.files = [self._file(name, text.encode()) for name, text in contents.items()]
        self.path = path

    def _file(self, name: str, data: bytes) -> AssetFile:
        digest = hashlib.sha256(data).hexdigest()
        self.place.mkdir(exist_ok=True)
        (self.place / digest).write_bytes(data)
        return AssetFile(path=name, sha256=digest, size_bytes=len(data))

    def find(self, kind: Kind, name: str, version: str) -> Resource | None:
        if kind is Kind.ENVIRONMENT and name == "served":
            return self._resource(kind, {"name": "served", "inference_config": {"scoring_route": {"port": 1}}}, ())
        document = {"name": "net", "version": "1", "type": "triton_model", "path": self.path}
        return self._resource(kind, document, self.files) if (kind, name) == (Kind.MODEL, "net") else None

    def _resource(self, kind: Kind, document: dict[str, Any], files: Any) -> Resource:
        return Resource(
            ref=Ref(kind=kind, parent="net", key="1"),
            name="1",
            parent_name="net",
            document=document,
            files=tuple(files),
            state=State.SUCCEEDED,
            owner="",
            created_at=0.0,
            created_by="",
            modified_at=0.0,
            modified_by="",
        )

    def options(self, content: Callable[[str], Path] | None = None) -> FolderOptions:
        return FolderOptions(content=content or (lambda digest: self.place / digest))


SOURCE = OnlineDeploymentYaml(name="blue", endpoint_name="nets", model="azureml:net:1", instance_type="cpu")


def test_a_registered_repository_means_the_same_and_keeps_only_its_version(tmp_path: Path) -> None:
    known = Registered(tmp_path / "content")
    found = deployment(SOURCE, known.options(), known.find)
    assert isinstance(found.model, AssetModel)
    assert (found.model.entry, found.model.reference) == ("times/3/model.onnx", "azureml:net:1")
    assert [path for path, _, _ in found.model.files] == ["times/3/model.onnx"]
    local = served(folder(tmp_path / "folder"))
    assert (found.batching, found.declared, found.triton) == (local.batching, local.declared, local.triton)
    assert any(one.startswith("config.pbtxt: model_warmup") for one in notes(SOURCE, known.options(), known.find))


def test_content_that_is_not_kept_is_read_where_it_came_from(tmp_path: Path) -> None:
    place = folder(tmp_path / "folder") / "triton"
    known = Registered(tmp_path / "content", path=f"file://{place}")
    found = deployment(SOURCE, known.options(lambda digest: tmp_path / "nowhere"), known.find)
    assert isinstance(found.model, AssetModel)
    assert found.model.origin == str(place / "times/3/model.onnx")


def test_content_that_is_nowhere_is_said(tmp_path: Path) -> None:
    known = Registered(tmp_path / "content")
    options = known.options(lambda digest: tmp_path / "nowhere")
    with pytest.raises(ContentMissing, match=r"the content of times/config.pbtxt is not here"):
        deployment(SOURCE, options, known.find)
    assert notes(SOURCE, options, known.find) == []
    place = folder(tmp_path / "folder", FULL + "# it was changed\n") / "triton"
    moved = Registered(tmp_path / "moved", path=f"file://{place}")
    with pytest.raises(ContentMissing):
        deployment(SOURCE, moved.options(lambda digest: tmp_path / "nowhere"), moved.find)


def test_a_registered_custom_container_is_refused_with_what_to_do(tmp_path: Path) -> None:
    known = Registered(tmp_path / "content")
    source = OnlineDeploymentYaml(
        name="blue", endpoint_name="nets", model="azureml:net:1", instance_type="cpu", environment="azureml:served:1"
    )
    with pytest.raises(Problem, match=r"azureml:served:1 is a custom container \(inference_config\).*conda_file"):
        deployment(source, known.options(), known.find)
