"""Registered assets: models, environments, code and data, by name and version, whose content never changes.

What: an asset's document says where its content is; registering it writes down which files these are, by hash. From
then on the asset is those files, whatever becomes of the address. Local files may be registered from the folders that
the setting `model_folders` names, and by an applied folder.
Errors: Problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway.controlplane.arm.ids import IdError, StoredAt, stored_at
from gateway.controlplane.documents import to_builtins
from gateway.controlplane.store.records import AssetFile, Kind, Resource
from gateway.controlplane.yaml_types import CodeAssetYaml, DataYaml, EnvironmentYaml, ModelYaml
from gateway.errors import Code, Problem
from gateway.resources import AssetModel

if TYPE_CHECKING:
    from gateway.controlplane.store.transaction import Transaction

FILES_MAX = 10_000
LOCAL = "file://"
# The container of the one datastore that there is.
CONTAINER = "azureml"
DATASTORE = "workspaceblobstore"
# What of a document never changes, beside its files; without files, where they are as well.
_CONTENT = ("type", "image", "conda_file", "os_type")


def address_of(document: msgspec.Struct) -> str:
    """Where the content of an asset is; "" for one without content."""
    match document:
        case ModelYaml() | CodeAssetYaml() | DataYaml():
            return document.path
        case EnvironmentYaml():
            return document.build.path if document.build is not None else ""
        case _:
            return ""


def folder_of(address: str, files: Sequence[AssetFile]) -> str:
    """The name of the folder that an address means, which scripts see; "" where it means one file."""
    is_file = len(files) == 1 and f"/{address}".endswith(f"/{files[0].path}")
    return "" if is_file else address.rstrip("/").rpartition("/")[2]


def local_path(address: str, folders: Sequence[str], may_read_all: bool) -> Path | None:
    """The local file or folder that a file:// address means; None for other addresses. Errors: Problem."""
    if not address.startswith(LOCAL):
        return None
    path = Path(address.removeprefix(LOCAL))
    if may_read_all:
        return path
    real = path.resolve()
    if any(real.is_relative_to(Path(folder).resolve()) for folder in folders):
        return real
    allowed = ", ".join(folders) or "none"
    raise Problem(
        Code.INVALID_INPUT,
        f"found {address!r}, which lies in no folder of the setting model_folders ({allowed}); "
        "upload the model, or have that folder added to the setting",
    )


def files_of_model(model: AssetModel) -> tuple[AssetFile, ...]:
    return tuple(AssetFile(path=path, sha256=digest, size_bytes=size) for path, digest, size in model.files)


def uploaded_files(tx: Transaction, kind: Kind, address: str) -> tuple[AssetFile, ...]:
    """The files below an address in the gateway's own storage; none for addresses elsewhere. Errors: Problem."""
    where = _stored_at(address)
    if where is None:
        return ()
    container = CONTAINER if where.datastore else where.container
    if where.datastore and where.datastore.lower() != DATASTORE:
        raise Problem(Code.INVALID_INPUT, f"found the datastore {where.datastore!r}; accepted: {DATASTORE}")
    single = tx.blob(container, where.path)
    if single is not None:
        name = where.path.rpartition("/")[2]
        return (AssetFile(path=name, sha256=single.sha256, size_bytes=single.size_bytes),)
    files = _below(tx, container, f"{where.path}/")
    if not files and kind in (Kind.MODEL, Kind.CODE):
        raise Problem(
            Code.INVALID_INPUT, f"nothing was uploaded to {address!r}; upload the content, then register it"
        )
    return files


def check_known(kind: Kind, address: str, files: Sequence[AssetFile]) -> None:
    """Whether the content of a model or of code is here. Errors: Problem."""
    if kind in (Kind.MODEL, Kind.CODE) and not files:
        raise Problem(
            Code.INVALID_INPUT,
            f"found {address!r}, from which nothing is fetched; accepted: the address of an upload "
            f"(azureml://datastores/{DATASTORE}/paths/...)",
        )


def check_same(existing: Resource, document: msgspec.Struct, files: Sequence[AssetFile]) -> None:
    """A registered version keeps its content. Errors: Problem(CONFLICT)."""
    before = {(one.path, one.sha256) for one in existing.files}
    after = {(one.path, one.sha256) for one in files}
    keys = _CONTENT if files else ("path", *_CONTENT)
    given = to_builtins(document)
    if before != after or any(existing.document.get(key) != given.get(key) for key in keys):
        raise Problem(
            Code.CONFLICT,
            f"{existing.ref.kind} {existing.parent_name}:{existing.name} is registered with other content; "
            "a version never changes: register the next one",
        )


def _stored_at(address: str) -> StoredAt | None:
    try:
        return stored_at(address)
    except IdError as error:
        raise Problem(Code.INVALID_INPUT, str(error)) from error


def _below(tx: Transaction, container: str, prefix: str) -> tuple[AssetFile, ...]:
    files: list[AssetFile] = []
    after = ""
    while True:
        page = tx.list_blobs(container, prefix, after, 1000)
        files += [
            AssetFile(path=one.path.removeprefix(prefix), sha256=one.sha256, size_bytes=one.size_bytes)
            for one in page.items
        ]
        if len(files) > FILES_MAX:
            raise Problem(Code.INVALID_INPUT, f"{prefix} holds more than {FILES_MAX} files; accepted: at most that")
        if not page.next:
            return tuple(files)
        after = page.next
