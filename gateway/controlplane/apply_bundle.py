"""A folder on its way to a gateway elsewhere: what `gateway apply` and `gateway diff` send, and what is answered.

The exchange: the client reads the folder and sends its documents, with hash and size of each file of their assets
(POST /apply). If content is missing here, nothing is changed and the answer names the hashes; the client uploads
these (PUT /blob/CONTAINER/PATH, where the asset's address says) and asks again. With `dry_run` nothing is ever
changed, and no content is needed. An operation that goes on after the answer is asked for by its id, as all are.
Escapes: a file's path inside its asset stays inside; documents may not name files of the gateway's own machine.
Units: size in bytes, sha256 as 64 hexadecimal digits.
Errors: Problem(INVALID_INPUT) with one sentence for each document that cannot be taken.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, Protocol, cast

import msgspec

from gateway.controlplane.apply import ApplyReport, Wanted, title
from gateway.controlplane.assets import DATASTORE, LOCAL, address_of
from gateway.controlplane.authorize import Actor
from gateway.controlplane.documents import DocumentError, from_builtins, normal_form, to_builtins
from gateway.controlplane.store.records import ASSETS, AssetFile, Kind
from gateway.controlplane.translate import notes_of
from gateway.controlplane.yaml_types import ModelYaml, OnlineDeploymentYaml
from gateway.errors import Code, Problem

RESOURCES_MAX = 10_000
FILES_MAX = 10_000
PATH_MAX = 1024
# POST /apply may have a body of so many bytes.
BODY_BYTES_MAX = 16 * 1024 * 1024

_UPLOADS = f"azureml://datastores/{DATASTORE}/paths/"

BundleKind = Literal[
    "online_endpoint",
    "online_deployment",
    "batch_endpoint",
    "batch_deployment",
    "model",
    "environment",
    "code",
    "data",
]


class BundleFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of an asset: its path inside the asset, its content's hash and its size in bytes."""

    path: Annotated[str, msgspec.Meta(min_length=1, max_length=PATH_MAX)]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, msgspec.Meta(ge=0)]


class BundleResource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One document: the keys of its YAML file as JSON, and where it was written."""

    kind: BundleKind
    document: dict[str, Any]
    files: Annotated[tuple[BundleFile, ...], msgspec.Meta(max_length=FILES_MAX)] = ()
    label: Annotated[str, msgspec.Meta(max_length=PATH_MAX)] = ""


class Bundle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A folder. `prune`: what others made is deleted too. `dry_run`: say what would change, and change nothing."""

    resources: Annotated[tuple[BundleResource, ...], msgspec.Meta(max_length=RESOURCES_MAX)]
    prune: bool = False
    dry_run: bool = False


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """With `missing`, nothing was changed: upload these and ask again. With `operation`, it goes on under that id."""

    applied: bool
    changes: tuple[str, ...] = ()
    summary: str = ""
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    operation: str = ""


class Applies(Protocol):
    """What is needed of the gateway (gateway/controlplane/control.py)."""

    async def apply(
        self, wanted: Sequence[Wanted], actor: Actor, *, prune: bool, dry_run: bool, notes: Sequence[str] = ()
    ) -> ApplyReport:
        """Make the wanted true as one change, or say what that would change. Errors: Problem."""
        ...

    def has_content(self, sha256: str, size_bytes: int) -> bool: ...


async def apply_bundle(control: Applies, body: dict[str, Any], actor: Actor) -> dict[str, Any]:
    """POST /apply. Errors: Problem."""
    try:
        bundle = msgspec.convert(body, Bundle)
    except msgspec.ValidationError as error:
        raise Problem(Code.INVALID_INPUT, f"the body is no folder of documents: {error}") from error
    wanted = wanted_of(bundle)
    if not bundle.dry_run:
        files = [file for one in wanted for file in one.files]
        missing = sorted({one.sha256 for one in files if not control.has_content(one.sha256, one.size_bytes)})
        if missing:
            return _answer(Applied(applied=False, missing=tuple(missing)))
    onnx = _onnx_models(wanted)
    notes = [
        f"{one.label or title(one)}: {note}"
        for one in wanted
        for note in notes_of(one.document, is_native=_is_native(one.document, onnx))
    ]
    found = await control.apply(wanted, actor, prune=bundle.prune, dry_run=bundle.dry_run, notes=notes)
    return _answer(
        Applied(
            applied=not bundle.dry_run,
            changes=found.changes,
            summary=found.summary,
            notes=found.notes,
            operation=found.operation,
        )
    )


def _onnx_models(wanted: Sequence[Wanted]) -> set[str]:
    """References to the models of the folder that nothing but ONNX Runtime serves."""
    return {
        f"azureml:{one.parent_name}:{one.name}".lower()
        for one in wanted
        if isinstance(one.document, ModelYaml) and one.document.type in ("custom_model", "triton_model")
    }


def _is_native(document: msgspec.Struct, onnx: Collection[str]) -> bool:
    """Whether it surely is: what was registered before may be a model of mlflow's."""
    if not isinstance(document, OnlineDeploymentYaml) or document.code_configuration is not None:
        return False
    return isinstance(document.model, str) and document.model.lower() in onnx


def _answer(answer: msgspec.Struct) -> dict[str, Any]:
    found = msgspec.to_builtins(answer)
    assert isinstance(found, dict)
    return found


# ---- to and from the wire ----------------------------------------------------------------------------------------


def bundle_of(wanted: Iterable[Wanted], *, prune: bool = False, dry_run: bool = False) -> Bundle:
    """What is sent of a resolved folder."""
    resources = tuple(
        BundleResource(
            kind=cast("BundleKind", one.ref.kind.value),
            document=to_builtins(one.document),
            files=tuple(BundleFile(path=file.path, sha256=file.sha256, size=file.size_bytes) for file in one.files),
            label=one.label,
        )
        for one in wanted
    )
    return Bundle(resources=resources, prune=prune, dry_run=dry_run)


def uploads_of(wanted: Iterable[Wanted]) -> dict[str, str]:
    """Where each content is uploaded to: the path in the container, by hash."""
    paths: dict[str, str] = {}
    for one in wanted:
        address = address_of(one.document)
        for file in one.files:
            below = address.removeprefix(_UPLOADS)
            is_file = len(one.files) == 1 and below.endswith(f"/{file.path}")
            paths[file.sha256] = below if is_file else f"{below}/{file.path}"
    return paths


def wanted_of(bundle: Bundle) -> list[Wanted]:
    """The documents, checked one by one; the rules over the whole come later. Errors: Problem."""
    wanted: list[Wanted] = []
    problems: list[str] = []
    for index, one in enumerate(bundle.resources):
        label = one.label or f"resources[{index}]"
        try:
            document, blames = normal_form(from_builtins(Kind(one.kind), one.document))
        except DocumentError as error:
            problems.append(f"{label}: {error}")
            continue
        problems += [f"{label}: {blame.path}: {blame.text}" for blame in blames]
        files = tuple(AssetFile(path=file.path, sha256=file.sha256, size_bytes=file.size) for file in one.files)
        found = Wanted.of(Kind(one.kind), document, files=files, label=one.label)
        problems += [f"{label}: {said}" for said in _refusals(found)]
        wanted.append(found)
    if problems:
        raise Problem(Code.INVALID_INPUT, "; ".join(problems), details=tuple(problems))
    return wanted


def _refusals(one: Wanted) -> Iterator[str]:
    document: Any = one.document
    if one.ref.kind in ASSETS:
        if not one.parent_name:
            yield "name: missing; accepted: text"
        if address_of(document).startswith(LOCAL):
            yield f"found {address_of(document)!r}, a file of the gateway's own machine; accepted: uploaded content"
    elif one.files:
        yield "files: found on what is no asset; accepted: files of models, environments, code and data"
    for key in ("model", "environment"):
        if isinstance(getattr(document, key, None), msgspec.Struct):
            yield f"{key}: found it inline; accepted: azureml:NAME:VERSION, and a document of its own"
    if len({file.path for file in one.files}) < len(one.files):
        yield "files: found a path twice; accepted: each file once"
    for file in one.files:
        if not is_inside(file.path):
            yield f"files: found {file.path[:100]!r}; accepted: a path that stays inside the asset"


def is_inside(path: str) -> bool:
    """Whether a path inside an asset or an export is plain: relative, without `..`, and of printable text."""
    segments = path.split("/")
    return path.isprintable() and "\\" not in path and not any(one in ("", ".", "..") for one in segments)
