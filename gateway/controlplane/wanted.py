"""From stored documents to what can be served: decoded, translated and checked against everything beside them.

Why apart from folder.py: there a person is told file and line, here a caller is told the path of keys. The rules are
the same ones.
Errors: Problem(INVALID_INPUT) with one sentence for each thing that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from gateway.controlplane import rules
from gateway.controlplane.arm.ids import is_asset_reference
from gateway.controlplane.assets import address_of, folder_of
from gateway.controlplane.documents import from_builtins
from gateway.controlplane.folder import FolderOptions
from gateway.controlplane.model_files import ModelFileError, ModelReference, entry_of, reference_of
from gateway.controlplane.place import Place
from gateway.controlplane.store.records import Kind, Ref, Resource
from gateway.controlplane.translate import Resolve, deployment_of, endpoint_of, notes_of
from gateway.controlplane.translate_script import Tree, Trees
from gateway.controlplane.yaml_types import (
    BatchDeploymentYaml,
    BatchEndpointYaml,
    ModelYaml,
    OnlineDeploymentYaml,
    OnlineEndpointYaml,
)
from gateway.errors import Code, Problem
from gateway.resources import AssetModel, Deployment, Endpoint, ScriptEnvironment
from gateway.yaml_text import Entries

# An asset by kind, name and version; the newest where the version is "latest", None where there is none.
FindAsset = Callable[[Kind, str, str], Resource | None]
# The beginning of content by its SHA-256; None where it cannot be read.
ReadContent = Callable[[str], bytes | None]


_KEYS = {Kind.CODE: "code_configuration.code", Kind.MODEL: "model", Kind.ENVIRONMENT: "environment"}


def endpoint(name: str, source: OnlineEndpointYaml, options: FolderOptions) -> Endpoint:
    place = _place(f"endpoint {name}")
    found = endpoint_of(source, place, options.oidc)
    _refuse(place)
    return found


def deployment(
    source: OnlineDeploymentYaml, options: FolderOptions, find: FindAsset, read: ReadContent
) -> Deployment:
    place = _place(f"deployment {source.endpoint_name}/{source.name}")
    code = source.code_configuration.code if source.code_configuration is not None else None
    for key, given in (("model", source.model), ("code_configuration.code", code)):
        if given is not None and not (isinstance(given, str) and is_asset_reference(given)):
            # A path would be one of this machine, and nothing of it is named here.
            what = "a registered model" if key == "model" else "registered code"
            place.blame(key, f"found a path; accepted: {what}, azureml:NAME:VERSION")
            _refuse(place)

    found = deployment_of(source, place, options.allow_cpu_fallback, *_lookups(find, read))
    _refuse(place)
    assert found is not None
    return found


def _lookups(find: FindAsset, read: ReadContent) -> tuple[Resolve, Trees]:
    def resolve(reference: ModelReference, entry: str) -> AssetModel:
        return asset_model(reference, entry, find)

    def trees(kind: Kind, reference: str) -> Tree:
        return asset_tree(kind, reference, find, read)

    return resolve, trees


def notes(source: msgspec.Struct, find: FindAsset, read: ReadContent) -> list[str]:
    """A sentence for each key of a document that was accepted and has no effect here."""
    place = _place("")
    match source:
        case OnlineEndpointYaml():
            endpoint_of(source, place, None)
        case OnlineDeploymentYaml():
            deployment_of(source, place, True, *_lookups(find, read))
        case _:
            return list(notes_of(source))
    return [note.removeprefix(": ") for note in place.notes]


def asset_model(reference: ModelReference, entry: str, find: FindAsset) -> AssetModel:
    """`entry`: its ONNX file, "" for the one that it holds. Errors: ModelFileError."""
    found = find(Kind.MODEL, reference.name, reference.version)
    if found is None:
        raise ModelFileError("model", f"there is no registered model {reference}; register it first, or give a path")
    document = from_builtins(Kind.MODEL, found.document)
    assert isinstance(document, ModelYaml)
    if document.type != "custom_model" and not entry:
        raise ModelFileError("model", f"{reference} is a {document.type}; accepted: a custom_model of one .onnx file")
    entry = entry or entry_of([file.path for file in found.files], str(reference), "model")
    return AssetModel(
        reference=f"azureml:{found.parent_name}:{found.name}",
        files=tuple((file.path, file.sha256, file.size_bytes) for file in found.files),
        entry=entry,
        origin=_origin(document.path, entry),
    )


def asset_tree(kind: Kind, reference: str, find: FindAsset, read: ReadContent) -> Tree:
    """What a script needs of a registered asset. Errors: ModelFileError."""
    name, _, version = reference.removeprefix("azureml:").replace("@latest", ":latest").rpartition(":")
    found = find(kind, name, version)
    if found is None:
        raise ModelFileError(_KEYS[kind], f"there is no registered {kind} {reference}; register it first")
    document = from_builtins(kind, found.document)
    files = tuple((file.path, file.sha256, file.size_bytes) for file in found.files)
    called = f"azureml:{found.parent_name}:{found.name}"
    folder = folder_of(address_of(document), found.files)
    environment = ScriptEnvironment(reference=called, document=found.document, files=files)
    if kind is not Kind.ENVIRONMENT:
        environment = ScriptEnvironment()
    model_type = document.type if isinstance(document, ModelYaml) else ""
    return Tree(reference=called, files=files, folder=folder, type=model_type, read=read, environment=environment)


def check(
    endpoint: Endpoint,
    deployments: Sequence[Deployment],
    limits: rules.Limits,
    siblings: Iterable[tuple[str, str]],
) -> None:
    """Whether an endpoint may be served with these deployments, beside those that it has already."""
    problems = rules.check([endpoint], deployments, limits, rules.Known(deployments=frozenset(siblings)))
    if problems:
        raise refused(problems)


def check_batch(document: msgspec.Struct, find: FindAsset) -> None:
    """Whether a batch endpoint or deployment may be kept. Errors: Problem."""
    if not isinstance(document, BatchEndpointYaml | BatchDeploymentYaml):
        return
    problems = [f"name: {said}" for said in rules.name_problems(document.name)]
    model = document.model if isinstance(document, BatchDeploymentYaml) else None
    if isinstance(model, str):
        try:
            reference = reference_of(model, "model")
            if reference is not None and find(Kind.MODEL, reference.name, reference.version) is None:
                problems.append(f"model: there is no registered model {reference}; register it first")
        except ModelFileError as error:
            problems.append(f"{error.key}: {error.text}")
    if problems:
        raise refused(f"batch {document.name}: {said}" for said in problems)


def refused(problems: Iterable[str]) -> Problem:
    said = tuple(problems)
    return Problem(Code.INVALID_INPUT, "; ".join(said), details=said)


def key_of(ref: Ref) -> tuple[str, str]:
    return (ref.parent, ref.key)


def _origin(path: str, entry: str) -> str:
    if not path.startswith("file://"):
        return ""
    origin = Path(path.removeprefix("file://"))
    return str(origin if origin.name == entry else origin / entry)


def _place(label: str) -> Place:
    return Place(file=Path("/document"), label=label, document=Entries({}, 0, {}))


def _refuse(place: Place) -> None:
    if place.mistakes:
        raise refused(f"{place.label}: {one.path}: {one.text}" for one in place.mistakes)
