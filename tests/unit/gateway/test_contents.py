"""What the paths in a folder lead to: content by its hash, inline assets as references, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from gateway.controlplane import contents
from gateway.controlplane.apply import Wanted
from gateway.controlplane.contents import content_name, resolve
from gateway.controlplane.documents import to_builtins
from gateway.controlplane.folder import read_documents_of
from gateway.controlplane.store.records import AssetFile, Kind
from tests.support import models
from tests.support.applied import DEPLOYMENT, ENDPOINT, read, write


def documents(wanted: list[Wanted]) -> dict[Kind, dict[str, Any]]:
    return {one.ref.kind: to_builtins(one.document) for one in wanted}


def problems(folder: Path, root: Path | None = None) -> list[str]:
    found = read_documents_of(folder)
    resolve(found, root)
    return found.problems


def test_an_inline_model_becomes_an_asset_named_by_its_content(tmp_path: Path) -> None:
    found = read(write(tmp_path, a=ENDPOINT, b=DEPLOYMENT))
    sha256 = hashlib.sha256(b"a model").hexdigest()
    name = hashlib.sha256(f"{sha256} m.onnx\n".encode()).hexdigest()[:32]
    by_kind = documents(found.wanted)
    assert by_kind[Kind.ONLINE_DEPLOYMENT]["model"] == f"azureml:{name}:1"
    assert by_kind[Kind.MODEL] == {
        "name": name,
        "version": "1",
        "path": f"file://{tmp_path}/m.onnx",
        "is_anonymous": True,
    }
    assert [one.files for one in found.wanted if one.ref.kind is Kind.MODEL] == [
        (AssetFile(path="m.onnx", sha256=sha256, size_bytes=7),)
    ]
    assert found.sources == {sha256: tmp_path / "m.onnx"}


def test_a_model_brings_its_external_data_and_nothing_else_of_its_folder(tmp_path: Path) -> None:
    inside = tmp_path / "model"
    write(tmp_path, b=DEPLOYMENT.replace("m.onnx", "model"), c="name: all\nversion: 1\npath: model\n")
    inside.mkdir()
    (inside / "net.onnx").write_bytes(models.external_data("weights.bin"))
    (inside / "weights.bin").write_bytes(bytes(16))
    (inside / "README.md").touch()
    for hidden in (".git", "__pycache__"):
        (inside / hidden).mkdir()
        (inside / hidden / "x").touch()
    (inside / ".hidden").touch()
    anonymous, _, whole = read(tmp_path).wanted
    assert [file.path for file in anonymous.files] == ["net.onnx", "weights.bin"]
    assert [file.path for file in whole.files] == ["README.md", "net.onnx", "weights.bin"]
    assert to_builtins(whole.document)["path"] == f"file://{inside}"


def test_an_inline_mlflow_model_is_all_of_its_folder(tmp_path: Path) -> None:
    inside = tmp_path / "flow"
    inside.mkdir()
    write(tmp_path, b=DEPLOYMENT.replace("m.onnx", "{path: flow, type: mlflow_model}"))
    (inside / "MLmodel").write_text("flavors: {onnx: {data: net.onnx}}")
    (inside / "conda.yaml").write_text("dependencies: []")
    (inside / "net.onnx").write_bytes(models.external_data("weights.bin"))
    model, deployment = read(tmp_path).wanted
    assert [file.path for file in model.files] == ["MLmodel", "conda.yaml", "net.onnx"]
    document = to_builtins(model.document)
    assert (document["type"], document["path"]) == ("mlflow_model", f"file://{inside}")
    assert to_builtins(deployment.document)["model"] == f"azureml:{document['name']}:1"


def test_two_deployments_of_one_model_share_its_asset(tmp_path: Path) -> None:
    found = read(write(tmp_path, b=DEPLOYMENT, c=DEPLOYMENT.replace("blue", "green")))
    assert [one.ref.kind for one in found.wanted] == [
        Kind.MODEL,
        Kind.ONLINE_DEPLOYMENT,
        Kind.ONLINE_DEPLOYMENT,
    ]


def test_one_folder_as_models_of_two_types_is_two_assets(tmp_path: Path) -> None:
    code = "code_configuration: {code: code, scoring_script: s.py}\n"
    for name in ("flow/MLmodel", "code/s.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("flavors: {python_function: {loader_module: m}}" if "flow" in name else "")
    green = DEPLOYMENT.replace("blue", "green")
    found = read(
        write(
            tmp_path,
            b=DEPLOYMENT.replace("m.onnx", "{path: ./flow}") + code,
            c=green.replace("m.onnx", "{path: ./flow, type: mlflow_model}"),
        )
    )
    models_ = [one for one in found.wanted if one.ref.kind is Kind.MODEL]
    named = [to_builtins(one.document)["model"] for one in found.wanted if one.ref.kind is Kind.ONLINE_DEPLOYMENT]
    assert [to_builtins(one.document).get("type", "custom_model") for one in models_] == [
        "custom_model",
        "mlflow_model",
    ]
    assert named == [f"azureml:{one.parent_name}:1" for one in models_]
    assert models_[0].parent_name == content_name(models_[0].files, "flow") != models_[1].parent_name


def test_code_and_environment_become_assets_too(tmp_path: Path) -> None:
    more = (
        "code_configuration: {code: src, scoring_script: score.py}\n"
        "environment: {name: mine, image: x, conda_file: conda.txt, build: {path: src}}\n"
    )
    (tmp_path / "src" / "deep").mkdir(parents=True)
    (tmp_path / "src" / "deep" / "score.py").touch()
    (tmp_path / "conda.txt").write_text("channels: [a]\n")
    by_kind = documents(read(write(tmp_path, b=DEPLOYMENT + more)).wanted)
    code, environment = by_kind[Kind.CODE], by_kind[Kind.ENVIRONMENT]
    assert (code["path"], code["version"], code["is_anonymous"]) == (f"file://{tmp_path}/src", "1", True)
    assert environment["name"] == "CliV2AnonymousEnvironment"
    assert environment["conda_file"] == "channels: [a]\n"
    deployment = by_kind[Kind.ONLINE_DEPLOYMENT]
    assert deployment["code_configuration"]["code"] == f"azureml:{code['name']}:1"
    assert deployment["environment"] == f"azureml:CliV2AnonymousEnvironment:{environment['version']}"
    (tmp_path / "conda.txt").write_text("channels: [b]\n")
    assert documents(read(tmp_path).wanted)[Kind.ENVIRONMENT]["version"] != environment["version"]


def test_registered_assets_are_left_as_they_are(tmp_path: Path) -> None:
    more = "code_configuration: {code: azureml:c:1}\nenvironment: azureml:e@latest\n"
    (only,) = read(write(tmp_path, b=DEPLOYMENT.replace("m.onnx", "azureml:m:1") + more)).wanted
    found = to_builtins(only.document)
    assert (found["model"], found["environment"]) == ("azureml:m:1", "azureml:e@latest")
    assert found["code_configuration"] == {"code": "azureml:c:1"}


def test_files_with_keys_are_known_by_their_whole_path(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret")
    keys = "gateway: {keys: {primary: {file: key}, secondary: {env: KEY}}}\n"
    (only,) = read(write(tmp_path, a=ENDPOINT + keys)).wanted
    assert to_builtins(only.document)["gateway"]["keys"] == {
        "primary": {"file": f"{tmp_path}/key"},
        "secondary": {"env": "KEY"},
    }


def test_addresses_stay_and_are_looked_up_by_the_gateway(tmp_path: Path) -> None:
    texts = {
        "c": "name: m\nversion: 1\npath: azureml://datastores/workspaceblobstore/paths/LocalUpload/x\n",
        "d": "name: e\nversion: 1\nbuild: {path: https://far/context}\n",
    }
    model, environment = read(write(tmp_path, **texts), tmp_path).wanted
    assert model.files == environment.files == ()
    assert to_builtins(environment.document)["build"] == {"path": "https://far/context"}


def test_for_another_machine_a_path_is_the_address_of_the_upload(tmp_path: Path) -> None:
    folder = write(tmp_path, deep__c="name: m\nversion: 1\npath: ../m.onnx\n", d="name: a\nversion: 1\npath: deep\n")
    (folder / "deep" / "x.bin").touch()
    whole, single = read(folder, folder).wanted
    uploads = "azureml://datastores/workspaceblobstore/paths/LocalUpload"
    assert to_builtins(single.document)["path"] == f"{uploads}/{content_name(single.files)}/m.onnx"
    assert to_builtins(whole.document)["path"] == f"{uploads}/{content_name(whole.files)}/deep"


@pytest.mark.parametrize("is_sent", [False, True], ids=["here", "elsewhere"])
def test_a_scripts_model_keeps_the_name_of_its_folder(tmp_path: Path, is_sent: bool) -> None:
    text = DEPLOYMENT + "code_configuration: {code: c, scoring_script: s.py}\n"
    green = text.replace("blue", "green").replace("m.onnx", "m1/../m2")
    folder = write(tmp_path, a=ENDPOINT, b=text.replace("m.onnx", "./m1"), d=green)
    for path in ("c/s.py", "m1/in/w.bin", "m2/in/w.bin"):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).touch()

    wanted = read(folder, folder if is_sent else None).wanted
    models = [one for one in wanted if one.ref.kind is Kind.MODEL]

    # Equal content under another name is another model.
    assert [to_builtins(one.document)["path"].rpartition("/")[2] for one in models] == ["m1", "m2"]
    assert len({one.ref for one in models}) == 2
    assert [file.path for one in models for file in one.files] == ["in/w.bin"] * 2


@pytest.mark.parametrize("path", ["../out.onnx", "{outside}/out.onnx", "link.onnx", "../{name}/../out.onnx"])
def test_what_is_sent_elsewhere_stays_below_its_folder(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "folder"
    (tmp_path / "out.onnx").touch()
    path = path.format(outside=tmp_path, name="folder")
    write(folder, b=DEPLOYMENT.replace("m.onnx", path), c=f"name: m\nversion: 1\npath: {path}\n")
    (folder / "link.onnx").symlink_to(tmp_path / "out.onnx")
    deployment, model = problems(folder, folder)
    said = f"{path!r} leads to {tmp_path}/out.onnx, out of the folder {folder}; accepted: a path that stays below it"
    assert deployment == f"b.yml:3: model: {said}"
    assert model == f"c.yml:3: path: {said}"
    assert problems(folder) == []


def test_links_out_of_an_asset_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, c="name: m\nversion: 1\npath: inside\n")
    (folder / "inside").mkdir()
    (folder / "inside" / "link").symlink_to(folder / "m.onnx")
    (problem,) = problems(folder)
    assert problem.startswith(f"c.yml:3: path: 'link' leads to {folder}/m.onnx, out of the folder {folder}/inside;")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: m\npath: nowhere\n", "path: there is no file"),
        ("name: m\npath: empty\n", "empty holds no file; accepted: a folder with at least one file"),
        ("name: m\npath: ''\n", "path: found ''; accepted: a file or folder"),
        ("version: 1\npath: m.onnx\n", "name: missing; accepted: text"),
        ("name: e\nimage: x\nconda_file: nowhere.yml\n", "conda_file: cannot read"),
        ("name: e\nimage: x\nconda_file: binary\n", "binary is not UTF-8; accepted: a conda file"),
        ("name: e\nimage: x\nconda_file: m.onnx/x\n", "conda_file: cannot read"),
        ("name: e\nbuild: {path: nowhere}\n", "build.path: there is no file"),
        (DEPLOYMENT.replace("m.onnx", "nowhere.onnx"), "model: there is no file"),
        (DEPLOYMENT + "code_configuration: {code: nowhere}\n", "code_configuration.code: there is no file"),
        (DEPLOYMENT + "environment: {conda_file: no}\n", "environment.conda_file: cannot read"),
        (DEPLOYMENT.replace("instance_type: cpu", "type: model"), "model: there is no file"),
        (DEPLOYMENT + "environment: /subscriptions/x\n", "environment: found '/subscriptions/x'; accepted"),
    ],
)
def test_what_cannot_be_found_is_told_where_it_is_named(tmp_path: Path, text: str, said: str) -> None:
    if "type: model" in text:
        text = text.replace("m.onnx", "nowhere")
    folder = write(tmp_path, c=text)
    (folder / "empty").mkdir()
    (folder / "binary").write_bytes(b"\xff")
    (problem,) = problems(folder)
    assert problem.startswith("c.yml:")
    assert said in problem


def test_a_batch_deployment_fetches_nothing(tmp_path: Path) -> None:
    text = "name: main\nendpoint_name: nightly\ntype: model\nmodel: {path: 'https://far/m'}\n"
    (problem,) = problems(write(tmp_path, c=text))
    assert problem.startswith("c.yml:4: model.path: found 'https://far/m', from which nothing is fetched; accepted")


def test_a_document_with_mistakes_is_looked_at_as_far_as_it_goes(tmp_path: Path) -> None:
    folder = write(tmp_path, b=DEPLOYMENT.replace("m.onnx", "no.onnx") + "zzz: 1\n", c="name: red\n---\nmodel: []\n")
    assert len(problems(folder)) >= 2


def test_what_an_inline_model_says_of_itself_is_noted(tmp_path: Path) -> None:
    folder = write(tmp_path, b=DEPLOYMENT.replace("m.onnx", "{path: m.onnx, name: x, tags: {a: b}}"))
    found = read_documents_of(folder)
    resolve(found)
    assert found.notes == [
        "b.yml: model.tags: is not kept; give the model a document of its own, and its name",
    ]


def test_a_model_that_is_none_is_sent_as_it_is_for_the_loader_to_refuse(tmp_path: Path) -> None:
    folder = write(tmp_path, b=DEPLOYMENT)
    (folder / "m.onnx").write_bytes(b"location " * 10)
    assert [len(one.files) for one in read(folder).wanted] == [1, 0]


def test_bounds_and_unreadable_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, c="name: m\nversion: 1\npath: inside\n", d="name: e\nimage: x\nconda_file: long\n")
    (folder / "inside").mkdir()
    for name in "ab":
        (folder / "inside" / name).touch()
    (folder / "long").write_text("#" * 20)
    monkeypatch.setattr(contents, "FILES_MAX", 1)
    monkeypatch.setattr(contents, "TEXT_BYTES_MAX", 10)
    model, environment = problems(folder)
    assert "inside holds more than 1 files; accepted: at most that" in model
    assert "long has more than 10 bytes; accepted: a conda file" in environment

    def refuse(*_: object) -> object:
        raise PermissionError(13, "Permission denied", "x")

    monkeypatch.setattr(hashlib, "file_digest", refuse)
    write(folder, b=DEPLOYMENT, c="name: m\nversion: 1\npath: m.onnx\n")
    assert [one.rpartition(": ")[2] for one in problems(folder)[:2]] == ["Permission denied", "Permission denied"]
