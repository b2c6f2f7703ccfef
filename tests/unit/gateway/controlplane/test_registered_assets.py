"""Registered versions: written down once, from where they may come, gone when nothing needs them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec
import pytest

from gateway.controlplane import assets
from gateway.controlplane.authorize import FOLDER
from gateway.controlplane.control import Accepted
from gateway.controlplane.matching import Match
from gateway.controlplane.model_store import ModelChanged
from gateway.controlplane.store.records import Blob, Kind, Ref
from gateway.controlplane.store.transaction import Transaction
from gateway.controlplane.yaml_types import (
    BatchDeploymentYaml,
    BuildYaml,
    CodeAssetYaml,
    DataYaml,
    EnvironmentYaml,
    ModelYaml,
)
from gateway.errors import Code, Problem
from gateway.resources import AssetModel
from tests.support.plane import ANN, UPLOADS, Plane, deployment_ref, model_ref


def upload(plane: Plane, *paths: str, container: str = "azureml", content: str = "a") -> None:
    def write(tx: Transaction) -> None:
        for path in paths:
            tx.put_blob(
                Blob(
                    container=container,
                    path=path,
                    sha256=content * 64,
                    size_bytes=1,
                    md5=b"",
                    etag="1",
                    modified_at=1.0,
                )
            )

    plane.write(write)


def put(plane: Plane, kind: Kind, document: msgspec.Struct, match: Match | None = None) -> Accepted:
    return plane.run(plane.control.put_asset(kind, "thing", "1", document, ANN, match=match or Match()))


def why_not(plane: Plane, kind: Kind, document: msgspec.Struct) -> Problem:
    with pytest.raises(Problem) as caught:
        put(plane, kind, document)
    plane.agree()
    return caught.value


def model(path: str, **members: object) -> ModelYaml:
    return msgspec.convert({"name": "thing", "version": "1", "path": path, **members}, ModelYaml)


# ---- content that was uploaded ----


def test_an_asset_is_the_files_below_its_address(plane: Plane) -> None:
    upload(plane, "up/m.onnx", "up/deep/w.bin", "upper/other")
    made = put(plane, Kind.MODEL, model(f"{UPLOADS}up"))
    assert made.created
    assert [one.path for one in made.resource.files] == ["deep/w.bin", "m.onnx"]
    upload(plane, "score.py", container="upload-17")
    code = put(plane, Kind.CODE, CodeAssetYaml(name="thing", path="https://gw/blob/upload-17/score.py"))
    assert [one.path for one in code.resource.files] == ["score.py"]
    build = EnvironmentYaml(name="thing", build=BuildYaml(path=f"{UPLOADS}up"))
    assert len(put(plane, Kind.ENVIRONMENT, build).resource.files) == 2


def test_pages_of_files_are_read_to_their_end_up_to_a_bound(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(plane, *(f"up/{number:04d}" for number in range(1005)))
    assert len(put(plane, Kind.DATA, DataYaml(name="thing", path=f"{UPLOADS}up")).resource.files) == 1005
    monkeypatch.setattr(assets, "FILES_MAX", 1004)
    assert "holds more than 1004 files" in why_not(plane, Kind.MODEL, model(f"{UPLOADS}up")).message


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (f"{UPLOADS}up", "nothing was uploaded to"),
        ("azureml://datastores/elsewhere/paths/up", "found the datastore 'elsewhere'; accepted: workspaceblobstore"),
        (f"{UPLOADS}../up", "accepted: a path without empty segments"),
        ("https://models.example/m.onnx", "from which nothing is fetched"),
        ("wasbs://somewhere/m.onnx", "from which nothing is fetched"),
        ("/etc/m.onnx", "from which nothing is fetched"),
    ],
)
def test_an_address_without_content_is_refused(plane: Plane, path: str, said: str) -> None:
    problem = why_not(plane, Kind.MODEL, model(path))
    assert problem.code is Code.INVALID_INPUT
    assert said in problem.message


def test_data_and_environments_may_be_elsewhere(plane: Plane) -> None:
    assert put(plane, Kind.DATA, DataYaml(name="thing", path="https://data.example/rows.csv")).resource.files == ()
    assert put(plane, Kind.ENVIRONMENT, EnvironmentYaml(name="thing", image="python:3.12")).resource.files == ()
    assert put(plane, Kind.DATA, DataYaml(name="thing", path="https://data.example/rows.csv")).created is False
    assert assets.address_of(BatchDeploymentYaml(name="main", endpoint_name="e")) == ""


# ---- a version never changes ----


def test_a_registered_version_keeps_its_content_and_changes_its_words(plane: Plane) -> None:
    upload(plane, "up/m.onnx", "copy/m.onnx")
    first = put(plane, Kind.MODEL, model(f"{UPLOADS}up")).resource
    again = put(plane, Kind.MODEL, model(f"{UPLOADS}copy", description="better", tags={"a": "b"}))
    assert not again.created
    assert again.resource.document["description"] == "better"
    assert again.resource.created_at == first.created_at
    assert again.resource.files == first.files
    upload(plane, "up/m.onnx", content="b")
    for document in (
        model(f"{UPLOADS}up"),
        model(f"{UPLOADS}copy/m.onnx", type="mlflow_model"),
    ):
        problem = why_not(plane, Kind.MODEL, document)
        assert problem.code is Code.CONFLICT
        assert "model thing:1 is registered with other content; a version never changes" in problem.message


@pytest.mark.parametrize(
    "other",
    [
        {"image": "python:3.13"},
        {"conda_file": "name: other"},
        {"os_type": "windows"},
    ],
)
def test_an_environment_keeps_what_it_is_made_of(plane: Plane, other: dict[str, str]) -> None:
    first = {"name": "thing", "image": "python:3.12"}
    put(plane, Kind.ENVIRONMENT, msgspec.convert(first, EnvironmentYaml))
    changed = msgspec.convert({**first, **other}, EnvironmentYaml)
    assert why_not(plane, Kind.ENVIRONMENT, changed).code is Code.CONFLICT


def test_conditions_hold_for_assets_too(plane: Plane) -> None:
    upload(plane, "up/m.onnx")
    put(plane, Kind.MODEL, model(f"{UPLOADS}up"))
    with pytest.raises(Problem) as caught:
        put(plane, Kind.MODEL, model(f"{UPLOADS}up"), Match(if_none_match="*"))
    assert caught.value.code is Code.PRECONDITION_FAILED


# ---- delete ----


def test_a_version_in_use_is_not_deleted(plane: Plane) -> None:
    plane.serving()
    plane.add_model("2")
    plane.scorers.failing["azureml:m:2"] = "no"
    plane.put_deployment(model="azureml:m:2")
    # One is served, the other wanted.
    for version in ("1", "2"):
        with pytest.raises(Problem, match=f"model m:{version}|model m/{version}") as caught:
            plane.run(plane.control.delete_asset(model_ref(version), ANN))
        assert caught.value.code is Code.CONFLICT
        assert "is used by deployment digits/blue; delete those first" in caught.value.message
    plane.put_endpoint()
    plane.delete(deployment_ref())
    with pytest.raises(Problem) as caught:
        plane.run(plane.control.delete_asset(model_ref(), ANN, match=Match(if_match='"0"')))
    assert caught.value.code is Code.PRECONDITION_FAILED
    assert plane.run(plane.control.delete_asset(model_ref(), ANN))
    assert not plane.run(plane.control.delete_asset(model_ref(), ANN))
    plane.agree()


def test_an_environment_that_a_deployment_names_is_in_use(plane: Plane) -> None:
    plane.add_model()
    put(plane, Kind.ENVIRONMENT, EnvironmentYaml(name="thing", image="python:3.12"))
    plane.put_endpoint()
    plane.put_deployment(environment="azureml:Thing:1")
    ref = Ref(kind=Kind.ENVIRONMENT, parent="thing", key="1")
    with pytest.raises(Problem, match="is used by deployment digits/blue"):
        plane.run(plane.control.delete_asset(ref, ANN))


# ---- files of this machine ----


@pytest.fixture
def shelf(plane: Plane) -> Path:
    """The folder from which models may be registered."""
    folder = plane.folder / "shelf"
    folder.mkdir()
    (folder / "m.onnx").write_bytes(b"a model")
    plane.control._model_folders = (str(folder),)
    return folder


def test_a_local_model_is_registered_from_the_folders_that_may_be_and_kept(plane: Plane, shelf: Path) -> None:
    made = put(plane, Kind.MODEL, model(f"file://{shelf / 'm.onnx'}")).resource
    (file,) = made.files
    assert (file.path, file.size_bytes) == ("m.onnx", 7)
    assert plane.control.has_content(file.sha256, 7)
    assert not plane.control.has_content(file.sha256, 8)
    assert not plane.control.has_content("b" * 64, 7)
    plane.put_endpoint()
    plane.put_deployment(model="azureml:thing:1")
    (shelf / "m.onnx").unlink()
    plane.restart()
    plane.agree()
    (runtime,) = plane.scorers.serves.runtimes()
    assert Path(runtime.path).read_bytes() == b"a model"


def test_a_local_model_elsewhere_is_refused_and_not_looked_at(plane: Plane, shelf: Path) -> None:
    (plane.folder / "secret.onnx").write_bytes(b"a secret")
    (plane.folder / "shelf-2").mkdir()
    (shelf / "link.onnx").symlink_to(plane.folder / "secret.onnx")
    (shelf / "folder").symlink_to(plane.folder)
    for path in (
        plane.folder / "secret.onnx",
        plane.folder / "gone.onnx",
        shelf / "link.onnx",
        shelf / "folder" / "secret.onnx",
        f"{shelf}/../secret.onnx",
        plane.folder / "shelf-2" / "m.onnx",
        "relative.onnx",
        "",
    ):
        problem = why_not(plane, Kind.MODEL, model(f"file://{path}"))
        assert problem.code is Code.INVALID_INPUT
        assert "lies in no folder of the setting model_folders" in problem.message
    plane.control._model_folders = ()
    assert "model_folders (none)" in why_not(plane, Kind.MODEL, model(f"file://{shelf / 'm.onnx'}")).message


def test_a_local_file_that_is_not_there_or_a_folder_is_said(plane: Plane, shelf: Path) -> None:
    for path in (shelf / "gone.onnx", shelf):
        assert (
            f"there is no file {path} that can be read" in why_not(plane, Kind.MODEL, model(f"file://{path}")).message
        )


def test_who_holds_the_machine_may_register_any_file_of_it(plane: Plane) -> None:
    (plane.folder / "m.onnx").write_bytes(b"a model")
    document = model(f"file://{plane.folder / 'm.onnx'}")
    made = plane.run(plane.control.put_asset(Kind.MODEL, "thing", "1", document, FOLDER))
    assert len(made.resource.files) == 1


def test_a_local_file_that_changes_meanwhile_is_a_conflict(
    plane: Plane, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changes(local: object) -> None:
        raise ModelChanged("the file m.onnx changed while it was read; try it again")

    monkeypatch.setattr(plane.control.models, "register", changes)
    problem = why_not(plane, Kind.MODEL, model(f"file://{shelf / 'm.onnx'}"))
    assert (problem.code, problem.message[:15]) == (Code.CONFLICT, "the file m.onnx")


# ---- what a deployment makes of it ----


def test_only_a_custom_model_of_one_onnx_file_is_served(plane: Plane) -> None:
    plane.put_endpoint()
    upload(plane, "none/readme.txt", "two/a.onnx", "two/b.onnx", "flow/m.onnx")
    for name, said in (("none", "holds no .onnx file"), ("two", "holds 2 .onnx files (a.onnx, b.onnx)")):
        document = model(f"{UPLOADS}{name}")
        plane.run(plane.control.put_asset(Kind.MODEL, name, "1", document, ANN))
        with pytest.raises(Problem) as caught:
            plane.put_deployment(model=f"azureml:{name}:1")
        assert said in caught.value.message
    plane.run(plane.control.put_asset(Kind.MODEL, "flow", "1", model(f"{UPLOADS}flow", type="mlflow_model"), ANN))
    with pytest.raises(Problem, match=r"has a file MLmodel at its top, and this one has m\.onnx"):
        plane.put_deployment(model="azureml:flow:1")
    plane.agree()


def keep(plane: Plane, **files: str) -> None:
    """Real content below `flow/`; `__` in a name is a dot."""
    for name, text in files.items():
        source = plane.folder / "given"
        source.write_text(text)
        sha256, size = plane.files.add_file(source)
        blob = Blob(
            container="azureml",
            path=f"flow/{name.replace('__', '.')}",
            sha256=sha256,
            size_bytes=size,
            md5=b"",
            etag="1",
            modified_at=1.0,
        )
        plane.write(partial(Transaction.put_blob, blob=blob))


def test_an_onnx_flavour_is_served_by_its_file_and_again_after_a_restart(plane: Plane) -> None:
    plane.put_endpoint()
    keep(plane, MLmodel="flavors: {onnx: {data: net.onnx}}", net__onnx="a model", other__onnx="another")
    plane.run(plane.control.put_asset(Kind.MODEL, "flow", "1", model(f"{UPLOADS}flow", type="mlflow_model"), ANN))
    plane.put_deployment(model="azureml:flow:1")
    for _ in range(2):
        plane.settle()
        (served,) = plane.publisher.desired.deployments.values()
        assert isinstance(served.model, AssetModel)
        assert (served.model.entry, served.script) == ("net.onnx", None)
        plane.agree()
        plane.restart()
