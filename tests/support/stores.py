"""Stores for tests: a store without `await`, and records with everything filled in that a test does not care for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from gateway.controlplane.store.database import Store
from gateway.controlplane.store.records import AuditEntry, Blob, Block, Event, Kind, Operation, Ref, Resource
from gateway.controlplane.store.schema import METADATA
from gateway.controlplane.store.transaction import Transaction

T = TypeVar("T")


def write(store: Store, work: Callable[[Transaction], T]) -> T:
    return asyncio.run(store.write(work))


def read(store: Store, work: Callable[[Transaction], T]) -> T:
    return asyncio.run(store.read(work))


def sql(transaction: Transaction, statement: str) -> Any:
    """A statement that the store has no method for; its first value, where it has one."""
    result = transaction._connection.exec_driver_sql(statement)
    return result.scalar() if result.returns_rows else None


def wipe(store: Store) -> None:
    def work(transaction: Transaction) -> None:
        for table in METADATA.tables.values():
            transaction._connection.execute(table.delete())

    write(store, work)


def ref_of(key: str, parent: str = "", kind: Kind = Kind.ONLINE_ENDPOINT) -> Ref:
    return Ref(kind=kind, parent=parent.lower(), key=key.lower())


def resource(key: str, parent: str = "", kind: Kind = Kind.ONLINE_ENDPOINT, **members: Any) -> Resource:
    filled = {
        "name": key,
        "parent_name": parent,
        "document": {"name": key},
        "created_at": 1.5,
        "created_by": "ann",
        "modified_at": 2.25,
        "modified_by": "bob",
    }
    return Resource(ref=ref_of(key, parent, kind), **{**filled, **members})


def operation(id_: str, **members: Any) -> Operation:
    return Operation(id=id_, **{"action": "create", "actor": "ann", "started_at": 1.0, **members})


def audit_entry(**members: Any) -> AuditEntry:
    filled = {
        "at": 1.0,
        "who": "ann",
        "role": "admin",
        "source": "127.0.0.1",
        "request_id": "r-1",
        "action": "create",
        "target": "online_endpoint/e",
        "outcome": "accepted",
    }
    return AuditEntry(**{**filled, **members})


def event(deployment: str = "blue", **members: Any) -> Event:
    return Event(**{"at": 1.0, "endpoint": "e", "deployment": deployment, "name": "Loaded", "message": "", **members})


def blob(path: str, **members: Any) -> Blob:
    filled = {
        "container": "c",
        "sha256": "a" * 64,
        "size_bytes": 3,
        "md5": bytes(range(16)),
        "etag": "0x1",
        "modified_at": 1.0,
    }
    return Blob(path=path, **{**filled, **members})


def block(block_id: str, **members: Any) -> Block:
    filled = {"container": "c", "path": "p", "sha256": "b" * 64, "size_bytes": 5, "created_at": 1.0}
    return Block(block_id=block_id, **{**filled, **members})
