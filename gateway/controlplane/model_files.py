"""Where a deployment's model is: the one ONNX file that a path means, or a registered model.

Why here: a missing file is told together with all other mistakes of a folder; a file that is there but broken is
found when it is loaded.
Errors: ModelFileError, one sentence with what was found and what to do instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.controlplane.arm import ids
from gateway.controlplane.mlmodel import MLMODEL
from gateway.controlplane.store.records import Kind
from gateway.controlplane.yaml_types import ModelYaml
from gateway.resources import LocalModel

_ACCEPTED = (
    "accepted: a .onnx file or a folder that holds exactly one, relative to the YAML file, or azureml:NAME:VERSION"
)
_REFERENCE = re.compile(r"azureml:(?P<name>[A-Za-z0-9][\w.-]{0,254})(?::(?P<version>[\w.-]{1,255})|@latest)")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_REGISTERED = re.compile(r"[\w.-]+:[\w.-]+")


class ModelFileError(Exception):
    """The model cannot be used; `key` is the key of the deployment file to blame."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReference:
    """A registered model; version "latest" is the newest."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"azureml:{self.name}:{self.version}"


def model_of(model: str | ModelYaml | None, folder: Path) -> LocalModel | ModelReference:
    """What a deployment's `model` means. `folder` is where the YAML file is."""
    if model is None:
        raise ModelFileError("model", f"missing; {_ACCEPTED}")
    if isinstance(model, str):
        return reference_of(model, "model") or LocalModel(path=_onnx_file(model, folder, "model"))
    return LocalModel(path=_onnx_file(model.path, folder, "model.path"))


def reference_of(text: str, key: str) -> ModelReference | None:
    """The registered model that a text names; None where it does not begin with azureml:."""
    if not ids.is_asset_reference(text):
        return None
    try:
        found = _REFERENCE.fullmatch(ids.asset_reference(text, Kind.MODEL))
    except ids.IdError as error:
        raise ModelFileError(key, f"{error}, or a local path") from error
    assert found is not None
    return ModelReference(name=found["name"], version=found["version"] or "latest")


def entry_of(paths: Sequence[str], model: str, key: str) -> str:
    """The one ONNX file among a registered model's files: not in a deeper folder than all others."""
    found = sorted(path for path in paths if path.lower().endswith(".onnx"))
    depth = min((path.count("/") for path in found), default=0)
    highest = [path for path in found if path.count("/") == depth]
    if len(highest) == 1:
        return highest[0]
    names = ", ".join(highest[:5]) + (", ..." if len(highest) > 5 else "")
    holds = f"{len(highest)} .onnx files ({names})" if highest else "no .onnx file"
    raise ModelFileError(key, f"{model} holds {holds}; accepted: a model of exactly one .onnx file")


def _onnx_file(text: str, folder: Path, key: str) -> Path:
    if not text.strip() or "\0" in text:
        raise ModelFileError(key, f"found {text!r}; {_ACCEPTED}")
    path = folder.absolute() / text
    try:
        if not path.exists():
            _refuse_reference(text, key)
            raise ModelFileError(key, f"there is no file {path}; {_ACCEPTED}")
        return _only_onnx(path, key) if path.is_dir() else _checked(path, key)
    except OSError as error:
        raise ModelFileError(key, f"cannot look at {path}: {error.strerror}; {_ACCEPTED}") from error


def _refuse_reference(text: str, key: str) -> None:
    if _SCHEME.match(text) is not None and "://" in text:
        raise ModelFileError(key, f"found {text!r}, and models are not fetched; give a local path")
    if _REGISTERED.fullmatch(text):
        raise ModelFileError(key, f"there is no file {text!r}; a registered model is azureml:{text}")


def _checked(path: Path, key: str) -> Path:
    if path.suffix.lower() != ".onnx":
        raise ModelFileError(key, f"{path} is no .onnx file; {_ACCEPTED}")
    return path


def _only_onnx(folder: Path, key: str) -> Path:
    files = sorted(one for one in folder.iterdir() if one.suffix.lower() == ".onnx" and one.is_file())
    if len(files) == 1:
        return files[0]
    names = ", ".join(one.name for one in files[:5]) + (", ..." if len(files) > 5 else "")
    holds = f"{len(files)} .onnx files ({names})" if files else "no .onnx file"
    if (folder / MLMODEL).is_file():
        holds += f" but {MLMODEL}, which is served where the model's type is mlflow_model"
    raise ModelFileError(key, f"{folder} holds {holds}; {_ACCEPTED}")
