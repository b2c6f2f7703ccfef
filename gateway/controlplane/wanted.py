"""From stored documents to what can be served: decoded, translated and checked against everything beside them.

Why apart from folder.py: there a person is told file and line, here a caller is told the path of keys. The rules are
the same ones.
Errors: Problem(INVALID_INPUT) with one sentence for each thing that is wrong.
"""

from __future__ import annotations

import hashlib
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
from gateway.controlplane.translate import Resolve, deployment_of, endpoint_of, notes_of, unresolved
from gateway.controlplane.translate_script import Tree, Trees
from gateway.controlplane.triton.served import TritonServed, of_asset
from gateway.controlplane.triton.text_format import TEXT_BYTES_MAX
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
# Where content lies, by its SHA-256.
Content = Callable[[str], Path]


_KEYS = {
    Kind.CODE: "code_configuration.code",
    Kind.MODEL: "model",
    Kind.ENVIRONMENT: "environment",
    Kind.DATA: "data_collector",
}


class ContentMissing(Problem):
    """What a registered asset says in its files is not here, or not yet."""


def endpoint(name: str, source: OnlineEndpointYaml, options: FolderOptions) -> Endpoint:
    place = _place(f"endpoint {name}")
    found = endpoint_of(source, place, options.oidc)
    _refuse(place)
    return found


def deployment(source: OnlineDeploymentYaml, options: FolderOptions, find: FindAsset) -> Deployment:
    place = _place(f"deployment {source.endpoint_name}/{source.name}")
    code = source.code_configuration.code if source.code_configuration is not None else None
    for key, given in (("model", source.model), ("code_configuration.code", code)):
        if given is not None and not (isinstance(given, str) and is_asset_reference(given)):
            # A path would be one of this machine, and nothing of it is named here.
            what = "a registered model" if key == "model" else "registered code"
            place.blame(key, f"found a path; accepted: {what}, azureml:NAME:VERSION")
            _refuse(place)

    found = deployment_of(source, place, options.allow_cpu_fallback, *_lookups(source, options, find))
    _refuse(place)
    assert found is not None
    return found


def _lookups(source: OnlineDeploymentYaml, options: FolderOptions, find: FindAsset) -> tuple[Resolve, Trees]:
    def resolve(reference: ModelReference, entry: str) -> AssetModel | TritonServed:
        return asset_model(reference, entry, find, options.content, source.gateway.runtime.model)

    def trees(kind: Kind, reference: str) -> Tree:
        return asset_tree(kind, reference, find, options.content)

    return resolve, trees


def notes(source: msgspec.Struct, options: FolderOptions, find: FindAsset) -> list[str]:
    """A sentence for each key of a document, or of its model's own configuration, that was accepted and has no effect
    here."""
    place = _place("")
    match source:
        case OnlineEndpointYaml():
            endpoint_of(source, place, None)
        case OnlineDeploymentYaml():
            resolve, trees = _lookups(source, options, find)
            deployment_of(source, place, True, _tolerant(resolve), trees)
        case _:
            return list(notes_of(source))
    return [note.removeprefix(": ") for note in place.notes]


def _tolerant(resolve: Resolve) -> Resolve:
    def resolved(reference: ModelReference, entry: str) -> AssetModel | TritonServed:
        try:
            return resolve(reference, entry)
        except (ModelFileError, ContentMissing):
            # Whoever serves it is told; these are notes.
            return unresolved(reference, entry)

    return resolved


def asset_model(
    reference: ModelReference, entry: str, find: FindAsset, content: Content | None = None, wanted: str = ""
) -> AssetModel | TritonServed:
    """A registered model. `entry`: its ONNX file, "" for the one that it holds; `wanted`: which one of a Triton
    repository. Errors: ModelFileError, ContentMissing."""
    found = find(Kind.MODEL, reference.name, reference.version)
    if found is None:
        raise ModelFileError("model", f"there is no registered model {reference}; register it first, or give a path")
    document = from_builtins(Kind.MODEL, found.document)
    assert isinstance(document, ModelYaml)
    if document.type == "triton_model":
        return _repository(found, document, content, wanted)
    if document.type != "custom_model" and not entry:
        raise ModelFileError("model", f"{reference} is a {document.type}; accepted: a custom_model of one .onnx file")
    entry = entry or entry_of([file.path for file in found.files], str(reference), "model")
    return AssetModel(
        reference=f"azureml:{found.parent_name}:{found.name}",
        files=tuple((file.path, file.sha256, file.size_bytes) for file in found.files),
        entry=entry,
        origin=_origin(document.path, entry),
    )


def _repository(found: Resource, document: ModelYaml, content: Content | None, wanted: str) -> TritonServed:
    def read(path: str, sha256: str) -> bytes:
        data = _beginning(document.path, path, sha256, content)
        if data is None:
            raise ContentMissing(Code.INVALID_INPUT, f"model: the content of {path} is not here; upload it again")
        return data

    return of_asset(
        f"azureml:{found.parent_name}:{found.name}",
        [(file.path, file.sha256, file.size_bytes) for file in found.files],
        folder_of(document.path, found.files),
        read,
        lambda path: _origin(document.path, path),
        wanted,
    )


def _beginning(address: str, path: str, sha256: str, content: Content | None) -> bytes | None:
    """The beginning of a file of an asset at this address: as it is kept, or where it is not, of what it came from if
    that is still the same. None where neither can be read."""
    origin = _origin(address, path)
    places = [content(sha256)] if content is not None else []
    for place in (*places, *([Path(origin)] if origin else [])):
        try:
            with place.open("rb") as file:
                data = file.read(TEXT_BYTES_MAX + 1)
        except OSError:
            continue
        if len(data) > TEXT_BYTES_MAX or hashlib.sha256(data).hexdigest() == sha256:
            return data
    return None


def asset_tree(kind: Kind, reference: str, find: FindAsset, content: Content | None = None) -> Tree:
    """What a script needs of a registered asset. Errors: ModelFileError."""
    name, _, version = reference.removeprefix("azureml:").replace("@latest", ":latest").rpartition(":")
    found = find(kind, name, version)
    if found is None:
        raise ModelFileError(_KEYS[kind], f"there is no registered {kind} {reference}; register it first")
    document = from_builtins(kind, found.document)
    files = tuple((file.path, file.sha256, file.size_bytes) for file in found.files)
    called = f"azureml:{found.parent_name}:{found.name}"
    address = address_of(document)
    folder = folder_of(address, found.files)
    environment = ScriptEnvironment(reference=called, document=found.document, files=files)
    if kind is not Kind.ENVIRONMENT:
        environment = ScriptEnvironment()
    digests = {path: sha256 for path, sha256, _ in files}
    return Tree(
        reference=called,
        address=address,
        files=files,
        folder=folder,
        type=document.type if isinstance(document, ModelYaml) else "",
        read=lambda path: _beginning(address, path, digests[path], content),
        environment=environment,
    )


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
