"""What is stored as a folder of YAML that reads back to the same documents.

Layout: `endpoint-NAME/endpoint.yml`, `endpoint-NAME/deployment-NAME.yml`, and `models/NAME@VERSION.yml` with the
model's content in `models/NAME@VERSION/`; the same for the other assets. The answer to GET /export has the texts, and
where content belongs by its hash; whoever wants only the texts leaves out the documents that have content.
Secrets: keys are no part of a document, so none is exported; where a document says which file or variable holds a
key, that stays.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gateway.controlplane.assets import address_of
from gateway.controlplane.documents import legible
from gateway.controlplane.store.records import ASSETS, Kind, Resource, State
from gateway.yaml_text import write_yaml

if TYPE_CHECKING:
    from gateway.controlplane.store.transaction import Transaction

_SCHEMAS = "https://azuremlschemas.azureedge.net/latest/{}.schema.json"
_SCHEMA_OF = {
    Kind.ONLINE_ENDPOINT: "managedOnlineEndpoint",
    Kind.ONLINE_DEPLOYMENT: "managedOnlineDeployment",
    Kind.BATCH_ENDPOINT: "batchEndpoint",
    Kind.BATCH_DEPLOYMENT: "modelBatchDeployment",
    Kind.MODEL: "model",
    Kind.ENVIRONMENT: "environment",
    Kind.CODE: "codeAsset",
    Kind.DATA: "data",
}
_FOLDERS = {
    Kind.MODEL: "models",
    Kind.ENVIRONMENT: "environments",
    Kind.CODE: "code",
    Kind.DATA: "data",
}
_PLAIN = re.compile(r"[A-Za-z0-9][\w.-]{0,100}", re.ASCII)


class ExportedFile(msgspec.Struct, frozen=True, kw_only=True):
    """Content of an asset: its path below the folder, its hash, its size in bytes."""

    path: str
    sha256: str
    size: int


class ExportedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One file of YAML: its path below the folder, its text, and the content that it names."""

    file: str
    text: str
    files: tuple[ExportedFile, ...] = ()


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """A folder, in order of path."""

    documents: tuple[ExportedDocument, ...] = ()


class Reads(Protocol):
    """What is needed of the store (gateway/controlplane/store/database.py)."""

    async def read(self, work: Callable[[Transaction], list[Resource]]) -> list[Resource]: ...


async def export_all(store: Reads) -> dict[str, Any]:
    """GET /export."""
    resources = await store.read(stored)
    # Aside from the loop: YAML takes long to write, a second for a megabyte.
    found = await asyncio.to_thread(lambda: msgspec.to_builtins(export(resources)))
    assert isinstance(found, dict)
    return found


def stored(tx: Transaction) -> list[Resource]:
    """All that a folder can hold."""
    return [one for kind in _SCHEMA_OF for one in tx.find(kind)]


def export(resources: Iterable[Resource]) -> Exported:
    """A folder of these."""
    documents = [
        _exported(one) for one in resources if one.ref.kind in _SCHEMA_OF and one.state is not State.DELETING
    ]
    return Exported(documents=tuple(sorted(documents, key=lambda one: one.file)))


def _exported(one: Resource) -> ExportedDocument:
    path = _path(one)
    folder = path.removesuffix(".yml")
    files = tuple(
        ExportedFile(path=f"{folder}/{file.path}", sha256=file.sha256, size=file.size_bytes) for file in one.files
    )
    text = write_yaml({"$schema": _schema(one), **_document(one, folder.rpartition("/")[2])})
    return ExportedDocument(file=path, text=text, files=files)


def _path(one: Resource) -> str:
    kind, parent, name = one.ref.kind, _plain(one.parent_name), _plain(one.name)
    match kind:
        case Kind.ONLINE_ENDPOINT:
            return f"endpoint-{name}/endpoint.yml"
        case Kind.ONLINE_DEPLOYMENT:
            return f"endpoint-{parent}/deployment-{name}.yml"
        case Kind.BATCH_ENDPOINT:
            return f"batch-endpoint-{name}/endpoint.yml"
        case Kind.BATCH_DEPLOYMENT:
            return f"batch-endpoint-{parent}/deployment-{name}.yml"
        case _:
            return f"{_FOLDERS[kind]}/{parent}@{name}.yml"


def _plain(name: str) -> str:
    """The name as a file's; where it cannot be one, its hash."""
    return name if _PLAIN.fullmatch(name) else hashlib.sha256(name.encode()).hexdigest()[:32]


def _schema(one: Resource) -> str:
    is_kubernetes = one.document.get("type") == "kubernetes" or (
        one.ref.kind is Kind.ONLINE_ENDPOINT and bool(one.document.get("compute"))
    )
    name = _SCHEMA_OF[one.ref.kind]
    return _SCHEMAS.format(name.replace("managed", "kubernetes") if is_kubernetes else name)


def _document(one: Resource, folder: str) -> dict[str, Any]:
    """The document; content that is beside it is named by its place there."""
    if one.ref.kind not in ASSETS or not one.files:
        return one.document
    # What this version cannot read of it is exported as it is stored.
    if one.ref.kind is Kind.ENVIRONMENT:
        return one.document | {"build": one.document.get("build", {}) | {"path": f"./{folder}"}}
    document, _ = legible(one.ref.kind, one.document)
    is_file = len(one.files) == 1 and address_of(document).endswith(f"/{one.files[0].path}")
    return one.document | {"path": f"./{folder}/{one.files[0].path}" if is_file else f"./{folder}"}
