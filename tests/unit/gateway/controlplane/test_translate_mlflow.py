"""An MLflow model of a deployment: which flavour serves it, in which environment, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.controlplane.model_files import ModelFileError, ModelReference
from gateway.controlplane.place import Place
from gateway.controlplane.store.records import Kind
from gateway.controlplane.translate import deployment_of
from gateway.controlplane.translate_script import Tree
from gateway.controlplane.yaml_types import (
    BatchingYaml,
    BuildYaml,
    CodeYaml,
    DeploymentGatewayYaml,
    EnvironmentYaml,
    ModelYaml,
    OnlineDeploymentYaml,
    ProbeYaml,
    RuntimeYaml,
)
from gateway.resources import AssetModel, AssetTree, Deployment, LocalModel, LocalTree, Script, ScriptEnvironment
from gateway.yaml_text import Entries

MLMODEL = "flavors:\n  python_function: {loader_module: m, env: {conda: conda.yaml, virtualenv: python_env.yaml}}\n"
ONNX = "  onnx: {data: sub/model.onnx}\n"
CONDA = "dependencies: [{pip: [mlflow]}]\n"
FILES = {
    "MLmodel": MLMODEL,
    "conda.yaml": CONDA,
    "python_env.yaml": "python: 3.11.7\ndependencies: [-r requirements.txt]\n",
    "requirements.txt": "mlflow==3\n",
    "sub/model.onnx": "onnx",
}


def place_of(folder: Path) -> Place:
    return Place(file=folder / "d.yml", label="d.yml", document=Entries({}, 1, {}))


def write(folder: Path, files: dict[str, str]) -> Place:
    for name, text in files.items():
        (folder / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "model" / name).write_text(text)
    return place_of(folder)


def source(**given: Any) -> OnlineDeploymentYaml:
    given.setdefault("model", ModelYaml(path="./model", type="mlflow_model"))
    return OnlineDeploymentYaml(name="blue", endpoint_name="flows", instance_type="cpu", **given)


def local(place: Place, **given: Any) -> Deployment:
    found = deployment_of(source(**given), place, True)
    assert found is not None, place.mistakes
    return found


def refused(place: Place, **given: Any) -> str:
    assert deployment_of(source(**given), place, True) is None
    return "; ".join(f"{one.path}: {one.text}" for one in place.mistakes)


def registered(
    files: dict[str, str], kept: bool = True, known: ScriptEnvironment | None = None, **given: Any
) -> Deployment | str:
    """A deployment of `azureml:m:1` with these files; the mistakes where it is refused. `known`: a registered
    environment."""
    listed = tuple((name, f"sha of {name}", len(text)) for name, text in files.items())
    contents = {name: text.encode() for name, text in files.items()} if kept else {}

    def trees(kind: Kind, reference: str) -> Tree:
        if kind is Kind.ENVIRONMENT:
            if known is not None:
                return Tree(reference=reference, environment=known)
            raise ModelFileError("environment", "there is no such asset")
        return Tree(reference="azureml:m:1", files=listed, folder="model", type="mlflow_model", read=contents.get)

    def resolve(reference: ModelReference, entry: str) -> AssetModel:
        return AssetModel(reference=str(reference), files=listed, entry=entry)

    place = place_of(Path("/nowhere"))
    found = deployment_of(source(model="azureml:m:1", **given), place, True, resolve, trees)
    return found if found is not None and not place.mistakes else str(place.mistakes[0].text)


def test_python_function_runs_in_the_environment_that_the_model_names(tmp_path: Path) -> None:
    probe = ProbeYaml(initial_delay=5, period=1, failure_threshold=2)
    found = local(write(tmp_path, FILES), environment_variables={"A": "b"}, readiness_probe=probe)
    assert found.model is None
    assert found.script == Script(
        model=LocalTree(path=tmp_path / "model"),
        environment=ScriptEnvironment(document={"conda_file": CONDA}, needs_mlflow=True),
        variables={"A": "b"},
        init_timeout_s=7.0,
    )
    # A script's bound, for nothing is batched.
    assert found.max_pending == 2


def test_without_a_conda_file_it_is_what_virtualenv_asks_for(tmp_path: Path) -> None:
    files = {**FILES, "MLmodel": MLMODEL.replace("conda: conda.yaml, ", "")}
    script = local(write(tmp_path, files)).script
    assert script is not None
    assert script.environment.document == {
        "conda_file": {"dependencies": ["python=3.11.7", {"pip": ["mlflow==3\n"]}]}
    }


def test_an_environment_of_its_own_is_used_instead(tmp_path: Path) -> None:
    files = {"MLmodel": MLMODEL + ONNX, "sub/model.onnx": ""}
    script = local(write(tmp_path, files), environment=EnvironmentYaml(conda_file=CONDA)).script
    assert script is not None
    assert script.environment.document is not None
    assert (script.environment.document["conda_file"], script.environment.needs_mlflow) == (CONDA, True)
    named = local(write(tmp_path, files), environment="local").script
    assert named is not None
    assert named.environment == ScriptEnvironment(reference="local", needs_mlflow=True)


def test_an_environment_of_a_build_context_is_for_python_alone(tmp_path: Path) -> None:
    context = EnvironmentYaml(build=BuildYaml(path="./context"))
    found = local(write(tmp_path, FILES), environment=context)
    assert found.script is not None
    assert found.script.environment.document == {"build": {"path": "./context"}}
    place = write(tmp_path / "onnx", {"MLmodel": "flavors:\n" + ONNX, "sub/model.onnx": "onnx"})
    deployment_of(source(environment=context), place, True)
    assert [one.path for one in place.mistakes] == ["environment.build"]
    away = (
        (ModelYaml(path="./away"), ["model.path", "environment.build"]),
        (ModelYaml(path="./away", type="mlflow_model"), ["model.path"]),
    )
    for model, said in away:
        place = place_of(tmp_path)
        deployment_of(source(environment=context, model=model), place, True)
        assert [one.path for one in place.mistakes] == said


def test_a_registered_environment_of_a_build_context_is_for_python_alone() -> None:
    kept = ScriptEnvironment(reference="azureml:e:1", document={"build": {"path": "x"}})
    found = registered(FILES, environment="azureml:e:1", known=kept)
    assert isinstance(found, Deployment)
    assert found.script is not None
    assert found.script.environment == replace(kept, needs_mlflow=True)
    onnx = {"MLmodel": "flavors:\n" + ONNX, "sub/model.onnx": "onnx"}
    found = registered(onnx, environment="azureml:e:1", known=kept)
    assert isinstance(found, str)
    assert "azureml:e:1 is a custom container (build)" in found


def test_a_registered_model_that_cannot_be_looked_up_may_be_one_of_python(tmp_path: Path) -> None:
    place = place_of(tmp_path)
    context = EnvironmentYaml(build=BuildYaml(path="./context"))
    given = source(model="azureml:m:1", environment=context, environment_variables={"A": "b"})
    assert deployment_of(given, place, True) is not None
    assert (place.mistakes, place.notes) == ([], [])


def test_an_onnx_flavour_is_an_onnx_model(tmp_path: Path) -> None:
    place = write(tmp_path, {**FILES, "MLmodel": MLMODEL + ONNX})
    found = local(place, environment_variables={"A": "b"})
    assert (found.model, found.script) == (LocalModel(path=tmp_path / "model" / "sub" / "model.onnx"), None)
    assert [note.split(":")[1].strip() for note in place.notes] == ["environment_variables"]
    alone = local(write(tmp_path, {"MLmodel": "flavors:\n" + ONNX}), environment="local")
    assert alone.script is None


def test_what_has_no_effect_on_python_is_told_and_what_has_is_not(tmp_path: Path) -> None:
    place = write(tmp_path, FILES)
    ours = DeploymentGatewayYaml(
        batching=BatchingYaml(max_rows=8, sizes=(1, 2), queue_items_max=9), runtime=RuntimeYaml(threads=2)
    )
    local(place, gateway=ours, environment="local", environment_variables={"A": "b"}, readiness_probe=ProbeYaml())
    vain = "has no effect with a python_function model"
    assert place.notes == [
        f"d.yml: gateway.runtime: {vain}; it is for ONNX models",
        f"d.yml: gateway.batching.max_rows: {vain}, which is given one request at a time",
        f"d.yml: gateway.batching.sizes: {vain}; it is for ONNX models",
    ]


def test_with_code_it_is_a_script_that_finds_the_folder(tmp_path: Path) -> None:
    place = write(tmp_path, {"MLmodel": "nothing that is read", "score.py": ""})
    found = local(place, code_configuration=CodeYaml(code="model", scoring_script="score.py")).script
    assert found is not None
    assert (found.model, found.scoring_script) == (LocalTree(path=tmp_path / "model"), "score.py")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.pkl": "", "sub/MLmodel": ""}, "has a file MLmodel at its top, and this one has a.pkl, sub; accepted"),
        ({"MLmodel": "flavors: {keras: {}}"}, "MLmodel has the flavors keras; accepted: python_function or onnx"),
        ({"MLmodel": MLMODEL}, "MLmodel names 'conda.yaml', which the model does not have"),
        ({"MLmodel": "flavors:\n" + ONNX}, "the ONNX file 'sub/model.onnx', which is not in the model"),
        ({"MLmodel": "flavors: {python_function: {loader_module: m}}"}, "names no environment"),
        ({"MLmodel": MLMODEL, "conda.yaml": "#" * (256 * 1024)}, "conda.yaml has more than 262144 bytes"),
        (
            {"MLmodel": MLMODEL.replace("conda: conda.yaml, ", ""), "python_env.yaml": "a: b"},
            "python_env.yaml cannot be used: found the key 'a'; accepted: python, build_dependencies, dependencies",
        ),
    ],
)
def test_a_model_that_cannot_be_served_is_refused_with_its_reason(
    tmp_path: Path, files: dict[str, str], said: str
) -> None:
    files = {name: text + "\n" for name, text in files.items()}
    assert refused(write(tmp_path, files)).startswith("model.path: ")
    assert said in refused(write(tmp_path, files))
    as_registered = registered(files)
    assert isinstance(as_registered, str)
    assert said.replace(", sub;", ", sub/MLmodel;") in as_registered


def test_a_folder_of_mlflows_that_is_called_something_else_is_recognised(tmp_path: Path) -> None:
    place = write(tmp_path, {"MLmodel": MLMODEL})
    said = refused(place, model=ModelYaml(path="model"))
    assert "holds no .onnx file but MLmodel, which is served where the model's type is mlflow_model" in said


@pytest.mark.parametrize("path", ["", "nowhere", "model/MLmodel", "x" * 300, "a\0b"])
def test_a_path_that_is_no_folder_is_refused(tmp_path: Path, path: str) -> None:
    place = write(tmp_path, FILES)
    said = refused(place, model=ModelYaml(path=path, type="mlflow_model"))
    assert "accepted: the folder that mlflow saved" in said


def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    place = write(tmp_path, {"MLmodel": MLMODEL})
    (tmp_path / "secret").write_text("s")
    (tmp_path / "model" / "conda.yaml").symlink_to(tmp_path / "secret")
    assert "names 'conda.yaml', which the model does not have" in refused(place)


def test_a_registered_model_is_read_by_its_content() -> None:
    found = registered(FILES)
    assert isinstance(found, Deployment)
    assert found.script is not None
    listed = tuple((name, f"sha of {name}", len(text)) for name, text in FILES.items())
    assert found.script.model == AssetTree(reference="azureml:m:1", files=listed, folder="model")
    assert found.script.environment.document == {"conda_file": CONDA}
    native = registered({**FILES, "MLmodel": MLMODEL + ONNX})
    assert isinstance(native, Deployment)
    assert isinstance(native.model, AssetModel)
    assert native.model.entry == "sub/model.onnx"
    curated = registered(FILES, environment="azureml:AzureML-mlflow@latest")
    assert isinstance(curated, Deployment)
    assert curated.script is not None
    assert curated.script.environment == ScriptEnvironment(
        reference="azureml:AzureML-mlflow@latest", needs_mlflow=True
    )


def test_content_that_is_away_is_found_missing_when_it_is_loaded() -> None:
    """Not before: what would change may be asked before anything is uploaded."""
    found = registered(FILES, kept=False)
    assert isinstance(found, Deployment)
    assert found.script is not None
    assert found.script.environment == ScriptEnvironment()
