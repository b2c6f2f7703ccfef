"""Records to rows and back: pure, and exact both ways for whatever JSON can say.

A resource's version is made of its row's number and its revision, so that one that is deleted and made again never
has a version of the old one: an ETag kept from before does not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.controlplane.store.errors import StoreError
from gateway.controlplane.store.records import (
    AssetFile,
    AuditEntry,
    Blob,
    Block,
    Event,
    Kind,
    ManagementToken,
    Operation,
    Ref,
    Resource,
    State,
    Status,
)

Row = Sequence[Any]
Values = dict[str, Any]

_REVISIONS = 1 << 32
_NUMBERS = 1 << 31  # what a column of numbers holds on either database
_INDEXED_CHARACTERS = 500  # PostgreSQL's indexes refuse a text of more than 2,704 bytes

# What a row that somebody else wrote, or half of one, comes to.
_DAMAGED = (ValueError, TypeError, KeyError)

_encode = msgspec.json.encode
_decode = msgspec.json.decode
_STATES = {state.value: state for state in State}
_KINDS = {kind.value: kind for kind in Kind}


def _damaged(table: str, row: str) -> StoreError:
    return StoreError(
        f"the store is damaged: the row {row} of its table {table} cannot be read; restore a backup, or delete it"
    )


def version_of(number: int, revision: int) -> int:
    return number * _REVISIONS + revision


def split_version(version: int) -> tuple[int, int]:
    """The row's number and its revision; those of no row where no row can have that version."""
    number, revision = divmod(version, _REVISIONS)
    return (number, revision) if 0 < number < _NUMBERS and 0 < revision < _NUMBERS - 1 else (0, 0)


def resource_values(resource: Resource) -> Values:
    return {
        "kind": resource.ref.kind.value,
        "parent": resource.ref.parent,
        "key": resource.ref.key,
        "name": resource.name,
        "parent_name": resource.parent_name,
        "document": _text(resource.document),
        "served": None if resource.served is None else _text(resource.served),
        "state": resource.state.value,
        "reason": resource.reason,
        "owner": resource.owner,
        "files": _text([(file.path, file.sha256, file.size_bytes) for file in resource.files]),
        "created_at": resource.created_at,
        "created_by": resource.created_by,
        "modified_at": resource.modified_at,
        "modified_by": resource.modified_by,
    }


def resource_of(row: Row) -> Resource:
    """From a row in the order of the table's columns. Errors: StoreError for one that is damaged."""
    try:
        return _resource(row)
    except _DAMAGED as error:
        raise _damaged("resources", " ".join(str(one) for one in row[1:4] if one)) from error


def _resource(row: Row) -> Resource:
    (number, kind, parent, key, revision, name, parent_name, document, served, state, reason, owner, files) = row[:13]
    created_at, created_by, modified_at, modified_by = row[13:17]
    return Resource(
        ref=Ref(kind=_KINDS[kind], parent=parent, key=key),
        name=name,
        parent_name=parent_name,
        document=_decode(document),
        served=None if served is None else _decode(served),
        state=_STATES[state],
        reason=reason,
        owner=owner,
        files=() if files == "[]" else files_of(files),
        version=version_of(number, revision),
        created_at=created_at,
        created_by=created_by,
        modified_at=modified_at,
        modified_by=modified_by,
    )


def files_of(text: str) -> tuple[AssetFile, ...]:
    return tuple(AssetFile(path=path, sha256=sha256, size_bytes=size) for path, sha256, size in _decode(text))


def operation_values(operation: Operation) -> Values:
    return {
        "id": operation.id,
        "action": operation.action,
        "endpoint": operation.endpoint,
        "targets": _text([(ref.kind.value, ref.parent, ref.key) for ref in operation.targets]),
        "status": operation.status.value,
        "error_code": operation.error_code,
        "error_message": operation.error_message,
        "actor": operation.actor,
        "started_at": operation.started_at,
        "ended_at": operation.ended_at,
        "detail": _text(operation.detail),
    }


def operation_of(row: Row) -> Operation:
    """As `resource_of`."""
    try:
        return _operation(row)
    except _DAMAGED as error:
        raise _damaged("operations", str(row[1])) from error


def _operation(row: Row) -> Operation:
    _, id_, action, endpoint, targets, status, error_code, error_message, actor, started_at, ended_at, detail = row
    return Operation(
        id=id_,
        action=action,
        endpoint=endpoint,
        targets=tuple(Ref(kind=Kind(kind), parent=parent, key=key) for kind, parent, key in _decode(targets)),
        status=Status(status),
        error_code=error_code,
        error_message=error_message,
        actor=actor,
        started_at=started_at,
        ended_at=ended_at,
        detail=_decode(detail),
    )


def audit_values(entry: AuditEntry) -> Values:
    return {
        "at": entry.at,
        "who": indexed(entry.who),
        "role": entry.role,
        "source": entry.source,
        "request_id": entry.request_id,
        "action": entry.action,
        "target": indexed(entry.target),
        "outcome": entry.outcome,
        "detail": _text(entry.detail),
    }


def indexed(text: str) -> str:
    """What is kept of a text that a stranger chose and that is looked up by: its beginning."""
    return text[:_INDEXED_CHARACTERS]


def audit_of(row: Row) -> AuditEntry:
    number, at, who, role, source, request_id, action, target, outcome, detail = row
    return AuditEntry(
        id=number,
        at=at,
        who=who,
        role=role,
        source=source,
        request_id=request_id,
        action=action,
        target=target,
        outcome=outcome,
        detail=_decode(detail),
    )


def event_values(event: Event) -> Values:
    return {
        "at": event.at,
        "endpoint": event.endpoint,
        "deployment": event.deployment,
        "name": event.name,
        "message": event.message,
    }


def event_of(row: Row) -> Event:
    number, at, endpoint, deployment, name, message = row
    return Event(id=number, at=at, endpoint=endpoint, deployment=deployment, name=name, message=message)


def token_values(token: ManagementToken) -> Values:
    return {
        "name": token.name,
        "digest": token.digest.hex(),
        "role": token.role,
        "created_at": token.created_at,
        "created_by": token.created_by,
        "expires_at": token.expires_at,
    }


def token_of(row: Row) -> ManagementToken:
    name, digest, role, created_at, created_by, expires_at = row
    return ManagementToken(
        name=name,
        digest=bytes.fromhex(digest),
        role=role,
        created_at=created_at,
        created_by=created_by,
        expires_at=expires_at,
    )


def blob_values(blob: Blob) -> Values:
    return {
        "container": blob.container,
        "path": blob.path,
        "sha256": blob.sha256,
        "size_bytes": blob.size_bytes,
        "md5": blob.md5.hex(),
        "content_type": blob.content_type,
        "metadata": _text(blob.metadata),
        "etag": blob.etag,
        "modified_at": blob.modified_at,
    }


def blob_of(row: Row) -> Blob:
    container, path, sha256, size_bytes, md5, content_type, metadata, etag, modified_at = row
    return Blob(
        container=container,
        path=path,
        sha256=sha256,
        size_bytes=size_bytes,
        md5=bytes.fromhex(md5),
        content_type=content_type,
        metadata=_decode(metadata),
        etag=etag,
        modified_at=modified_at,
    )


def block_values(block: Block) -> Values:
    return {
        "container": block.container,
        "path": block.path,
        "block_id": block.block_id,
        "sha256": block.sha256,
        "size_bytes": block.size_bytes,
        "created_at": block.created_at,
    }


def block_of(row: Row) -> Block:
    container, path, block_id, sha256, size_bytes, created_at = row
    return Block(
        container=container,
        path=path,
        block_id=block_id,
        sha256=sha256,
        size_bytes=size_bytes,
        created_at=created_at,
    )


def _text(value: Any) -> str:
    try:
        return _encode(value).decode()
    except UnicodeEncodeError:
        return _encode(_cleaned(value)).decode()


def _cleaned(value: Any) -> Any:
    """Half a surrogate pair, which no UTF-8 can hold, becomes a question mark; as schema.PlainText does."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    return value
