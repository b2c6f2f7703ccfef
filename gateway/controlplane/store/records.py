"""What the store keeps, as plain data: resources, operations, and the records beside them.

A resource is a document with an envelope. `document` is what is wanted, `served` what is published; they differ after
an update that failed, when the old goes on serving. Keys and parents are lower-cased, names as they were given first.
Units: *_at seconds since 1970; *_bytes bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar


class Kind(StrEnum):
    ONLINE_ENDPOINT = "online_endpoint"
    ONLINE_DEPLOYMENT = "online_deployment"
    BATCH_ENDPOINT = "batch_endpoint"
    BATCH_DEPLOYMENT = "batch_deployment"
    MODEL = "model"
    ENVIRONMENT = "environment"
    CODE = "code"
    DATA = "data"
    ROLLOUT = "rollout"


ASSETS = (Kind.MODEL, Kind.ENVIRONMENT, Kind.CODE, Kind.DATA)


class State(StrEnum):
    """A resource's provisioning state, spelled as Azure does."""

    CREATING = "Creating"
    UPDATING = "Updating"
    SCALING = "Scaling"
    DELETING = "Deleting"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELED = "Canceled"


class Status(StrEnum):
    """An operation's status, spelled as Azure does."""

    IN_PROGRESS = "InProgress"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELED = "Canceled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """Names one resource. `parent`: an endpoint's key for its deployments and rollouts, an asset's name for its
    versions, "" for endpoints. `key`: the name, or an asset's version."""

    kind: Kind
    parent: str = ""
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetFile:
    """One file of an asset: its path relative to the asset, and its content's hash and size."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """`owner` is "folder" for what an applied folder made. `version` is the ETag and is set by the store."""

    ref: Ref
    name: str
    parent_name: str = ""
    document: dict[str, Any]
    served: dict[str, Any] | None = None
    state: State = State.SUCCEEDED
    reason: str = ""
    owner: str = ""
    files: tuple[AssetFile, ...] = ()
    version: int = 0
    created_at: float
    created_by: str
    modified_at: float
    modified_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A change under way, or how one ended. `endpoint` is the key of the endpoint it holds, "" for none."""

    id: str
    action: str
    endpoint: str = ""
    targets: tuple[Ref, ...] = ()
    status: Status = Status.IN_PROGRESS
    error_code: str = ""
    error_message: str = ""
    actor: str
    started_at: float
    ended_at: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who did what, when, from where, and what came of it."""

    id: int = 0
    at: float
    who: str
    role: str
    source: str
    request_id: str
    action: str
    target: str
    outcome: str
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a deployment ("" where it concerns the endpoint)."""

    id: int = 0
    at: float
    endpoint: str
    deployment: str = ""
    name: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagementToken:
    """A credential of the management listener: its digest and what it may do. `expires_at` None: never."""

    name: str
    digest: bytes = field(repr=False)
    role: str
    created_at: float
    created_by: str
    expires_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A name in a container for content that is kept by its hash."""

    container: str
    path: str
    sha256: str
    size_bytes: int
    md5: bytes
    content_type: str = "application/octet-stream"
    metadata: dict[str, str] = field(default_factory=dict)
    etag: str
    modified_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A part of a blob that is uploaded in blocks, until its list of blocks is put."""

    container: str
    path: str
    block_id: str
    sha256: str
    size_bytes: int
    created_at: float


T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Some of a list, and an opaque mark where the rest begins; "" at the end."""

    items: list[T]
    next: str = ""
