"""Where a deployment's model is: a path in YAML becomes the one ONNX file it means.

Why here: a missing file is told together with all other mistakes of a folder; a file that is there but broken is
found when it is loaded.
Errors: ModelFileError, one sentence with what was found and what to do instead.
"""

from __future__ import annotations

import re
from pathlib import Path

from gateway.controlplane.yaml_types import ModelYaml

_ACCEPTED = "accepted: a .onnx file, or a folder that holds exactly one, relative to the YAML file"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_REGISTERED = re.compile(r"[\w.-]+:[\w.-]+")
_OTHER_TYPES = {
    "mlflow_model": "MLflow models are not served; convert the model to ONNX and use type: custom_model",
    "triton_model": "Triton repositories are not read; give the path of the .onnx file itself and type: custom_model",
}


class ModelFileError(Exception):
    """The model cannot be used; `key` is the key of the deployment file to blame."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key
        self.text = text


def model_file(model: str | ModelYaml | None, folder: Path) -> Path:
    """The absolute path of the ONNX file. `folder` is where the YAML file is."""
    if model is None:
        raise ModelFileError("model", f"missing; {_ACCEPTED}")
    if isinstance(model, str):
        return _onnx_file(model, folder, "model")
    if model.type in _OTHER_TYPES:
        raise ModelFileError("model.type", f"found {model.type}; {_OTHER_TYPES[model.type]}")
    return _onnx_file(model.path, folder, "model.path")


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
    scheme = _SCHEME.match(text)
    if text.startswith("azureml:"):
        raise ModelFileError(
            key, f"found the reference {text!r}, and this version keeps no registered models; give a local path"
        )
    if scheme is not None and "://" in text:
        raise ModelFileError(key, f"found {text!r}, and models are not fetched; give a local path")
    if _REGISTERED.fullmatch(text):
        raise ModelFileError(
            key, f"there is no file {text!r}, and it is no reference to a registered model either; give a local path"
        )


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
    raise ModelFileError(key, f"{folder} holds {holds}; {_ACCEPTED}")
