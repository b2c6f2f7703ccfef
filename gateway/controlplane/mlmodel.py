"""An MLmodel file: what MLflow says of a model that it saved, as far as serving it needs. Pure.

Flavours: `python_function` (what loads the model, and the files of its environment) and `onnx` (its ONNX file). All
others say how one library reads the model, and are passed over; so are the signature and the example, which the
model's own mlflow reads. Paths in it stay inside the model's folder.
Errors: MlModelError, one sentence with the line or the key, what was found and what is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from gateway.yaml_text import Entries, Node, Scalar, read_documents

MLMODEL = "MLmodel"
BYTES_MAX = 256 * 1024
_SERVED = "python_function or onnx"
# Members of python_function that name files or folders of the model.
_PATHS = ("data", "model_path", "python_model", "code")
_SHOWN = 8


class MlModelError(Exception):
    """The file cannot be served by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MlModel:
    """Paths are relative to the MLmodel file; "" for what it does not name. `conda` and `virtualenv`: the files of
    the environment of the python_function flavour."""

    has_python_function: bool = False
    onnx: str = ""
    conda: str = ""
    virtualenv: str = ""


def read_mlmodel(data: bytes) -> MlModel:
    if len(data) > BYTES_MAX:
        raise MlModelError(f"{MLMODEL} has {len(data)} bytes; accepted: at most {BYTES_MAX}")
    documents, mistakes = read_documents(data)
    if mistakes:
        raise MlModelError(f"{MLMODEL}:{mistakes[0]}")
    if len(documents) != 1:
        raise MlModelError(f"{MLMODEL} has {len(documents)} documents; accepted: one, as mlflow writes it")
    root = _members(documents[0], "the file")
    flavors = _members(root.get("flavors"), "flavors")
    if not flavors.keys() & {"python_function", "onnx"}:
        raise MlModelError(f"{MLMODEL} has the flavors {_names(flavors)}; accepted: {_SERVED}")
    onnx = _members(flavors["onnx"], "flavors.onnx") if "onnx" in flavors else {}
    found = MlModel(onnx=_path(onnx, "flavors.onnx", "data"))
    return _with_python(found, flavors["python_function"]) if "python_function" in flavors else _whole(found)


def _whole(found: MlModel) -> MlModel:
    if not found.onnx:
        raise MlModelError(f"{MLMODEL}: flavors.onnx names no data; accepted: its ONNX file")
    return found


def _with_python(found: MlModel, flavor: Node) -> MlModel:
    where = "flavors.python_function"
    members = _members(flavor, where)
    if not _text(members, where, "loader_module"):
        raise MlModelError(f"{MLMODEL}: {where}.loader_module is missing; accepted: the module that loads the model")
    for name in _PATHS:
        _path(members, where, name)
    conda, virtualenv = _environment(members, f"{where}.env")
    return MlModel(has_python_function=True, onnx=found.onnx, conda=conda, virtualenv=virtualenv)


def _environment(members: Mapping[str, Node], where: str) -> tuple[str, str]:
    given = members.get("env")
    if given is None or (isinstance(given, Scalar) and given.is_null):
        return "", ""
    if isinstance(given, Scalar):
        return _inside(given.text, where), ""
    env = _members(given, where)
    conda, virtualenv = (_path(env, where, name) for name in ("conda", "virtualenv"))
    if not conda and not virtualenv:
        raise MlModelError(f"{MLMODEL}: {where} has {_names(env)}; accepted: conda, virtualenv, or a file's name")
    return conda, virtualenv


def _names(members: Mapping[str, Node]) -> str:
    return ", ".join(list(members)[:_SHOWN]) or "none"


def _members(node: Node | None, what: str) -> Mapping[str, Node]:
    if not isinstance(node, Entries):
        found = "missing" if node is None else "no mapping"
        raise MlModelError(f"{MLMODEL}: {what} is {found}; accepted: what mlflow writes when it saves a model")
    return node.entries


def _text(members: Mapping[str, Node], where: str, name: str) -> str:
    node = members.get(name)
    if node is None or (isinstance(node, Scalar) and node.is_null):
        return ""
    if not isinstance(node, Scalar):
        raise MlModelError(f"{MLMODEL}:{node.line}: {where}.{name} is no text; accepted: a name")
    return node.text


def _path(members: Mapping[str, Node], where: str, name: str) -> str:
    text = _text(members, where, name)
    return _inside(text, f"{where}.{name}") if text else ""


def _inside(text: str, where: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\\" in text or "\0" in text:
        raise MlModelError(f"{MLMODEL}: {where} is {text[:200]!r}; accepted: a path inside the model's folder")
    return str(path)
