"""Transaction: typed reads and writes over one connection, inside one transaction of the database.

Given to the work that `Store.read` and `Store.write` run; must not be used after that work has returned. The work may
be run again from the start when another writer was in the way, so it changes nothing but the store.
Order is the order of insertion, whatever the clock said. A page's mark is opaque, and good while rows come and go.
Errors: VersionConflict where a row is not as the writer thought; ValueError for a mark that no page gave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, Table, and_, delete, func, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from gateway.controlplane.store import rows, schema
from gateway.controlplane.store.errors import VersionConflict
from gateway.controlplane.store.records import (
    AuditEntry,
    Blob,
    Block,
    Event,
    Kind,
    ManagementToken,
    Operation,
    Page,
    Ref,
    Resource,
    Status,
)

EVENTS_MAX = 1000
_MARK_CHARACTERS = 15  # hexadecimal digits: below 2^60, so that both databases take the number

_RESOURCES = schema.resources.c
_OPERATIONS = schema.operations.c
_AUDIT = schema.audit.c
_EVENTS = schema.events.c
_BLOBS = schema.blobs.c
_BLOCKS = schema.blocks.c

R = TypeVar("R")
Condition = ColumnElement[bool]


def mark_of(resource: Resource) -> str:
    """Where a page ends whose last one this is: the `after` of the next."""
    return f"{rows.split_version(resource.version)[0]:x}"


class Transaction:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # Resources

    def get(self, ref: Ref) -> Resource | None:
        return self._one(select(schema.resources).where(_is(ref)), rows.resource_of)

    def find(self, kind: Kind, parent: str | None = None) -> list[Resource]:
        """All of a kind, of one parent or of every one, in order of creation."""
        return self._all(select(schema.resources).where(_of(kind, parent)).order_by(_RESOURCES.id), rows.resource_of)

    def count(self, kind: Kind) -> int:
        """How many there are of a kind."""
        found = select(func.count()).select_from(schema.resources).where(_of(kind, None))
        return int(self._connection.execute(found).scalar_one())

    def page(
        self, kind: Kind, parent: str | None, *, limit: int, after: str = "", newest_first: bool = False
    ) -> Page[Resource]:
        number = _RESOURCES.id
        chosen = select(schema.resources).where(_of(kind, parent))
        if after:
            mark = _number_of(after)
            chosen = chosen.where(number < mark if newest_first else number > mark)
        chosen = chosen.order_by(number.desc() if newest_first else number).limit(limit + 1)
        found = self._connection.execute(chosen).all()
        items = [rows.resource_of(row) for row in found[:limit]]
        return Page(items=items, next=f"{found[limit - 1][0]:x}" if len(found) > limit else "")

    def asset_names(self, kind: Kind) -> list[tuple[str, str, Resource]]:
        """Every asset's lower-cased name, its name as given, and its latest version; in order of first creation."""
        spans = (
            select(func.min(_RESOURCES.id).label("first"), func.max(_RESOURCES.id).label("last"))
            .where(_RESOURCES.kind == kind.value)
            .group_by(_RESOURCES.parent)
            .subquery()
        )
        chosen = select(schema.resources).join(spans, _RESOURCES.id == spans.c.last).order_by(spans.c.first)
        latest = self._all(chosen, rows.resource_of)
        return [(resource.ref.parent, resource.parent_name, resource) for resource in latest]

    def latest(self, kind: Kind, parent: str) -> Resource | None:
        """The version of an asset that was made last."""
        chosen = select(schema.resources).where(_of(kind, parent)).order_by(_RESOURCES.id.desc()).limit(1)
        return self._one(chosen, rows.resource_of)

    def put(self, resource: Resource, *, expected: int | None) -> Resource:
        """Makes the resource where `expected` is None, else replaces the version that is expected."""
        values = rows.resource_values(resource)
        if expected is None:
            self._need_absent(resource.ref)
            made = self._connection.execute(insert(schema.resources).values(revision=1, **values))
            return replace(resource, version=rows.version_of(_key_of(made.inserted_primary_key), 1))
        number, revision = rows.split_version(expected)
        done = self._connection.execute(
            update(schema.resources)
            .where(_is(resource.ref), _RESOURCES.id == number, _RESOURCES.revision == revision)
            .values(revision=revision + 1, **values)
        )
        if not done.rowcount:
            raise self._conflict(resource.ref)
        return replace(resource, version=rows.version_of(number, revision + 1))

    def delete(self, ref: Ref, *, expected: int | None = None) -> bool:
        """False: it was not there, whatever was expected."""
        condition = _is(ref)
        if expected is not None:
            number, revision = rows.split_version(expected)
            condition = and_(condition, _RESOURCES.id == number, _RESOURCES.revision == revision)
        if self._delete(schema.resources, condition):
            return True
        if expected is not None and self._version(ref) is not None:
            raise self._conflict(ref)
        return False

    # Operations

    def add_operation(self, operation: Operation) -> None:
        if self.operation(operation.id) is not None:
            raise VersionConflict(f"operation {operation.id} exists already")
        self._insert(schema.operations, rows.operation_values(operation))

    def update_operation(self, operation: Operation) -> None:
        values = rows.operation_values(operation)
        if not self._update(schema.operations, _OPERATIONS.id == operation.id, values):
            raise VersionConflict(f"operation {operation.id} is not known; it may have been forgotten")

    def operation(self, id_: str) -> Operation | None:
        return self._one(select(schema.operations).where(_OPERATIONS.id == id_), rows.operation_of)

    def unfinished(self, endpoint: str | None = None) -> list[Operation]:
        """What is under way, of one endpoint or of all, in the order in which it was begun."""
        chosen = select(schema.operations).where(_OPERATIONS.status == Status.IN_PROGRESS.value)
        if endpoint is not None:
            chosen = chosen.where(_OPERATIONS.endpoint == endpoint)
        return self._all(chosen.order_by(_OPERATIONS.seq), rows.operation_of)

    def forget_operations(self, before: float) -> int:
        """Drops what ended before then; how many those were."""
        ended = and_(_OPERATIONS.status != Status.IN_PROGRESS.value, _OPERATIONS.ended_at < before)
        return self._delete(schema.operations, ended)

    # Audit and events

    def add_audit(self, entry: AuditEntry) -> None:
        """`entry.id` is not looked at: the store counts."""
        self._insert(schema.audit, rows.audit_values(entry))

    def audits(self, *, before: int | None, limit: int, who: str = "", target: str = "") -> list[AuditEntry]:
        """The newest first, from before that id; `who` and `target` must be the same to the letter."""
        chosen = select(schema.audit)
        if before is not None:
            chosen = chosen.where(_AUDIT.id < before)
        if who:
            chosen = chosen.where(_AUDIT.who == rows.indexed(who))
        if target:
            chosen = chosen.where(_AUDIT.target == rows.indexed(target))
        return self._all(chosen.order_by(_AUDIT.id.desc()).limit(limit), rows.audit_of)

    def add_event(self, event: Event) -> None:
        """Keeps the last EVENTS_MAX of each deployment. `event.id` is not looked at: the store counts."""
        self.add_events([event])

    def add_events(self, events: Sequence[Event]) -> None:
        """The same for several of one deployment, in their order."""
        if not events:
            return
        last = events[-1]
        self._connection.execute(insert(schema.events), [rows.event_values(event) for event in events])
        same = and_(_EVENTS.endpoint == last.endpoint, _EVENTS.deployment == last.deployment)
        newest = select(_EVENTS.id).where(same).order_by(_EVENTS.id.desc())
        oldest_kept = newest.limit(1).offset(EVENTS_MAX - 1).scalar_subquery()
        self._delete(schema.events, and_(same, _EVENTS.id < oldest_kept))

    def events(self, endpoint: str, deployment: str | None, limit: int, after: int = 0) -> list[Event]:
        """The last `limit` of those with an id above `after`, the oldest first. None: of all its deployments and
        of the endpoint itself."""
        found = self._all(
            select(schema.events)
            .where(_of_deployment(endpoint, deployment), _EVENTS.id > after)
            .order_by(_EVENTS.id.desc())
            .limit(limit),
            rows.event_of,
        )
        return found[::-1]

    def forget_events(self, endpoint: str, deployment: str | None) -> int:
        """Drops a deployment's events, or with None all of an endpoint; how many those were."""
        return self._delete(schema.events, _of_deployment(endpoint, deployment))

    # Secrets and management tokens

    def secret(self, name: str) -> bytes | None:
        found = self._connection.execute(select(schema.secrets.c.sealed).where(schema.secrets.c.name == name))
        row = found.first()
        return None if row is None else bytes(row[0])

    def put_secret(self, name: str, sealed: bytes) -> None:
        self._put(schema.secrets, schema.secrets.c.name == name, {"name": name, "sealed": sealed})

    def delete_secret(self, name: str) -> bool:
        return bool(self._delete(schema.secrets, schema.secrets.c.name == name))

    def secrets(self) -> list[str]:
        return self._all(select(schema.secrets.c.name).order_by(schema.secrets.c.name), _first)

    def token(self, digest: bytes) -> ManagementToken | None:
        return self._one(select(schema.tokens).where(schema.tokens.c.digest == digest.hex()), rows.token_of)

    def tokens(self) -> list[ManagementToken]:
        return self._all(select(schema.tokens).order_by(schema.tokens.c.name), rows.token_of)

    def add_token(self, token: ManagementToken) -> None:
        columns = schema.tokens.c
        taken = (columns.name == token.name) | (columns.digest == token.digest.hex())
        if self._connection.execute(select(columns.name).where(taken)).first() is not None:
            raise VersionConflict(f"a management token {token.name} exists already")
        self._insert(schema.tokens, rows.token_values(token))

    def delete_token(self, name: str) -> bool:
        return bool(self._delete(schema.tokens, schema.tokens.c.name == name))

    # Blobs

    def blob(self, container: str, path: str) -> Blob | None:
        return self._one(select(schema.blobs).where(_is_blob(container, path)), rows.blob_of)

    def put_blob(self, blob: Blob, *, only_new: bool = False) -> None:
        if only_new and self.blob(blob.container, blob.path) is not None:
            raise VersionConflict(f"a blob {blob.path} exists already in {blob.container}")
        self._put(schema.blobs, _is_blob(blob.container, blob.path), rows.blob_values(blob))

    def delete_blob(self, container: str, path: str) -> bool:
        return bool(self._delete(schema.blobs, _is_blob(container, path)))

    def list_blobs(self, container: str, prefix: str, after: str, limit: int) -> Page[Blob]:
        """In the order of the paths' bytes. `after` and `next` are a path: the last one that was given."""
        chosen = select(schema.blobs).where(_BLOBS.container == container)
        if prefix:
            chosen = chosen.where(_BLOBS.path >= prefix)
            end = _end_of(prefix)
            chosen = chosen.where(_BLOBS.path < end) if end else chosen
        if after:
            chosen = chosen.where(_BLOBS.path > after)
        found = self._all(chosen.order_by(_BLOBS.path).limit(limit + 1), rows.blob_of)
        return Page(items=found[:limit], next=found[limit - 1].path if len(found) > limit else "")

    def blob_bytes(self) -> int:
        """What blobs and blocks take together, each counted by its name: content that is shared counts twice."""
        sizes = (select(func.coalesce(func.sum(table.c.size_bytes), 0)) for table in (schema.blobs, schema.blocks))
        return sum(int(self._connection.execute(size).scalar_one()) for size in sizes)

    def add_block(self, block: Block) -> None:
        """A block of the same id is replaced."""
        same = and_(_is_block(block.container, block.path), _BLOCKS.block_id == block.block_id)
        self._put(schema.blocks, same, rows.block_values(block))

    def blocks(self, container: str, path: str) -> list[Block]:
        chosen = select(schema.blocks).where(_is_block(container, path))
        return self._all(chosen.order_by(_BLOCKS.created_at, _BLOCKS.block_id), rows.block_of)

    def clear_blocks(self, container: str, path: str) -> int:
        return self._delete(schema.blocks, _is_block(container, path))

    def old_blocks(self, before: float) -> list[Block]:
        chosen = select(schema.blocks).where(_BLOCKS.created_at < before)
        return self._all(chosen.order_by(_BLOCKS.created_at, _BLOCKS.path, _BLOCKS.block_id), rows.block_of)

    def delete_old_blocks(self, before: float) -> int:
        return self._delete(schema.blocks, _BLOCKS.created_at < before)

    def block_count(self, container: str, path: str) -> int:
        counted = select(func.count()).select_from(schema.blocks).where(_is_block(container, path))
        return int(self._connection.execute(counted).scalar_one())

    def old_blobs(self, before: float) -> list[Blob]:
        chosen = select(schema.blobs).where(_BLOBS.modified_at < before)
        return self._all(chosen.order_by(_BLOBS.container, _BLOBS.path), rows.blob_of)

    def digests_in_use(self) -> set[str]:
        """Of all content that something names: a blob, a block, or a file of an asset."""
        named = {*self._all(select(_BLOBS.sha256), _first), *self._all(select(_BLOCKS.sha256), _first)}
        for text in self._all(select(_RESOURCES.files).where(_RESOURCES.files != "[]"), _first):
            named.update(file.sha256 for file in rows.files_of(text))
        return named

    # The statements

    def _one(self, statement: Select[Any], make: Callable[[rows.Row], R]) -> R | None:
        row = self._connection.execute(statement).first()
        return None if row is None else make(row)

    def _all(self, statement: Select[Any], make: Callable[[rows.Row], R]) -> list[R]:
        return [make(row) for row in self._connection.execute(statement)]

    def _insert(self, table: Table, values: rows.Values) -> None:
        self._connection.execute(insert(table).values(**values))

    def _update(self, table: Table, condition: Condition, values: rows.Values) -> int:
        return self._connection.execute(update(table).where(condition).values(**values)).rowcount

    def _put(self, table: Table, condition: Condition, values: rows.Values) -> None:
        # A writer who comes between the two makes the insertion fail, and the whole work is run again.
        if not self._update(table, condition, values):
            self._insert(table, values)

    def _delete(self, table: Table, condition: Condition) -> int:
        return self._connection.execute(delete(table).where(condition)).rowcount

    def _version(self, ref: Ref) -> int | None:
        row = self._connection.execute(select(_RESOURCES.id, _RESOURCES.revision).where(_is(ref))).first()
        return None if row is None else rows.version_of(row[0], row[1])

    def _need_absent(self, ref: Ref) -> None:
        if self._version(ref) is not None:
            raise self._conflict(ref)

    def _conflict(self, ref: Ref) -> VersionConflict:
        found = self._version(ref)
        what = f"{ref.kind.value} {ref.parent}/{ref.key}" if ref.parent else f"{ref.kind.value} {ref.key}"
        state = "is not there" if found is None else f"has version {found} now"
        return VersionConflict(f"{what} was changed meanwhile: it {state}", found)


def _is(ref: Ref) -> Condition:
    return and_(_RESOURCES.kind == ref.kind.value, _RESOURCES.parent == ref.parent, _RESOURCES.key == ref.key)


def _of(kind: Kind, parent: str | None) -> Condition:
    of_kind = _RESOURCES.kind == kind.value
    return of_kind if parent is None else and_(of_kind, _RESOURCES.parent == parent)


def _of_deployment(endpoint: str, deployment: str | None) -> Condition:
    of_endpoint = _EVENTS.endpoint == endpoint
    return of_endpoint if deployment is None else and_(of_endpoint, _EVENTS.deployment == deployment)


def _is_blob(container: str, path: str) -> Condition:
    return and_(_BLOBS.container == container, _BLOBS.path == path)


def _is_block(container: str, path: str) -> Condition:
    return and_(_BLOCKS.container == container, _BLOCKS.path == path)


def _first(row: rows.Row) -> Any:
    return row[0]


def _key_of(key: rows.Row | None) -> int:
    assert key is not None  # the table has a counted key
    return int(key[0])


def _number_of(mark: str) -> int:
    if not 0 < len(mark) <= _MARK_CHARACTERS or not all(character in "0123456789abcdef" for character in mark):
        raise ValueError("the mark of a page is none that this list gave; ask for the first page again")
    return int(mark, 16)


def _end_of(prefix: str) -> str:
    """The first text, in the order of bytes, that no longer begins with the prefix; "" where there is none."""
    for place in range(len(prefix) - 1, -1, -1):
        following = ord(prefix[place]) + 1
        if following == 0xD800:  # surrogates are no characters
            following = 0xE000
        if following <= 0x10FFFF:
            return prefix[:place] + chr(following)
    return ""
