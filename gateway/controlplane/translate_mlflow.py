"""An MLflow model without a scoring script: served natively by its ONNX file, or by mlflow in an environment.

What: its MLmodel file says which. The onnx flavour is an ONNX model like any other; a deployment that brings an
environment of its own wants Python, and gets the python_function flavour in that. Without one, python_function runs
in the environment whose files the MLmodel names: its conda file, else its python_env.yaml.
Errors: ModelFileError, at the key that names the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.controlplane.mlmodel import BYTES_MAX, MLMODEL, MlModel, MlModelError, read_mlmodel
from gateway.controlplane.model_files import ModelFileError
from gateway.controlplane.place import Place
from gateway.controlplane.translate_script import Tree, Trees, environment_of, init_timeout_of, liveness_of, note_vain
from gateway.controlplane.yaml_types import OnlineDeploymentYaml
from gateway.environments import EnvironmentRefused, conda_of_python_env
from gateway.resources import AssetTree, LocalModel, LocalTree, Script, ScriptEnvironment

_FOLDER = "accepted: the folder that mlflow saved, relative to the YAML file, or azureml:NAME:VERSION"
_NAMES_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxFile:
    """Which file of the model is served natively."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """The model's folder. `read` gives a file's bytes, None where they cannot be read here; `at_top` names files."""

    key: str
    has: Callable[[str], bool]
    read: Callable[[str], bytes | None]
    at_top: Callable[[], Iterable[str]]

    def text(self, name: str) -> str:
        """Errors: ModelFileError."""
        data = self.read(name) if self.has(name) else None
        if data is None:
            raise ModelFileError(self.key, f"{MLMODEL} names {name!r}, which the model does not have")
        if len(data) > BYTES_MAX:
            raise ModelFileError(self.key, f"{name} has more than {BYTES_MAX} bytes; accepted: at most that")
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ModelFileError(self.key, f"{name} is not UTF-8") from error


def local_mlflow(text: str, source: OnlineDeploymentYaml, place: Place, trees: Trees) -> Script | LocalModel:
    """Of a folder beside the YAML file."""
    key, path = "model.path", place.file.parent.absolute() / text
    try:
        if not text.strip() or not path.is_dir():
            what = "there is no folder" if not path.exists() else "this is no folder:"
            raise ModelFileError(key, f"{what} {text!r}; {_FOLDER}")
        files = _Files(
            key=key,
            has=lambda name: (path / name).is_file(),
            read=lambda name: _bytes_of(path, name),
            at_top=lambda: (one.name for one in path.iterdir()),
        )
        found = _served(files, LocalTree(path=path), source, place, trees)
    except (OSError, ValueError) as error:
        # Of a name that no file can have, too.
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ModelFileError(key, f"cannot look at {text[:200]!r}: {why}; {_FOLDER}") from error
    return LocalModel(path=path / found.path) if isinstance(found, OnnxFile) else found


def registered_mlflow(found: Tree, source: OnlineDeploymentYaml, place: Place, trees: Trees) -> Script | OnnxFile:
    """Of a registered model, whose content may be away: then loading it says so."""
    digests = {path: digest for path, digest, _ in found.files}
    files = _Files(key="model", has=digests.__contains__, read=found.read, at_top=lambda: digests)
    tree = AssetTree(reference=found.reference, files=found.files, folder=found.folder)
    if MLMODEL in digests and files.read(MLMODEL) is None:
        return _script(tree, ScriptEnvironment(), source, place)
    return _served(files, tree, source, place, trees)


def _served(
    files: _Files, tree: LocalTree | AssetTree, source: OnlineDeploymentYaml, place: Place, trees: Trees
) -> Script | OnnxFile:
    model = _mlmodel(files)
    if model.onnx and not (source.environment is not None and model.has_python_function):
        if not files.has(model.onnx):
            raise ModelFileError(
                files.key, f"{MLMODEL} names the ONNX file {model.onnx!r}, which is not in the model"
            )
        return OnnxFile(path=model.onnx)
    if source.environment is not None:
        environment = environment_of(source.environment, trees)
    else:
        environment = ScriptEnvironment(document={"conda_file": _conda_file(model, files)})
    return _script(tree, replace(environment, needs_mlflow=True), source, place)


def _script(
    tree: LocalTree | AssetTree, environment: ScriptEnvironment, source: OnlineDeploymentYaml, place: Place
) -> Script:
    what = "a python_function model"
    note_vain(source.gateway, place, what, f"has no effect with {what}, which is given one request at a time")
    return Script(
        model=tree,
        environment=environment,
        variables=dict(source.environment_variables),
        init_timeout_s=init_timeout_of(source),
        liveness=liveness_of(source, place),
    )


def _mlmodel(files: _Files) -> MlModel:
    if not files.has(MLMODEL):
        found = ", ".join(sorted(files.at_top())[:_NAMES_SHOWN]) or "nothing"
        raise ModelFileError(
            files.key, f"an mlflow_model has a file {MLMODEL} at its top, and this one has {found}; {_FOLDER}"
        )
    try:
        return read_mlmodel(files.text(MLMODEL).encode())
    except MlModelError as error:
        raise ModelFileError(files.key, str(error)) from error


def _conda_file(model: MlModel, files: _Files) -> object:
    """A conda file as recipe.py reads it: its text, or what another file asks for in that form."""
    if model.conda:
        return files.text(model.conda)
    if not model.virtualenv:
        raise ModelFileError(
            files.key,
            f"{MLMODEL} names no environment (flavors.python_function.env); give the deployment an environment",
        )
    try:
        return conda_of_python_env(
            model.virtualenv,
            files.text(model.virtualenv),
            lambda name: files.text(name) if files.has(name) else None,
        )
    except EnvironmentRefused as error:
        raise ModelFileError(files.key, str(error)) from error


def _bytes_of(folder: Path, name: str) -> bytes | None:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        return None
    try:
        with path.open("rb") as file:
            return file.read(BYTES_MAX + 1)
    except OSError:
        return None
