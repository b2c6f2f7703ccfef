"""A program that writes to a store without end, to be killed: `python -m tests.support.store_writer URL`.

For each line on stdin it forks a child, which says `pid N`, then `ack K` for each transaction that was committed. A
transaction is a resource, an operation and an audit entry of one number. The parent says `dead` when the child is.
Forked rather than started, so that twenty rounds load SQLAlchemy once.
"""

from __future__ import annotations

import asyncio
import os
import sys
from itertools import count

from gateway.controlplane.store.database import Store
from gateway.controlplane.store.records import AuditEntry, Kind, Operation, Ref, Resource
from gateway.controlplane.store.transaction import Transaction


def write_one(transaction: Transaction, number: int) -> None:
    ref = Ref(kind=Kind.ONLINE_ENDPOINT, key=f"e{number}")
    transaction.put(
        Resource(
            ref=ref,
            name=ref.key,
            document={"name": ref.key, "description": "x" * 2000},
            created_at=float(number),
            created_by="writer",
            modified_at=float(number),
            modified_by="writer",
        ),
        expected=None,
    )
    transaction.add_operation(
        Operation(id=f"o{number}", action="create", targets=(ref,), actor="writer", started_at=float(number))
    )
    transaction.add_audit(
        AuditEntry(
            at=float(number),
            who="writer",
            role="admin",
            source="",
            request_id="",
            action="create",
            target=ref.key,
            outcome="accepted",
        )
    )


async def write_for_ever(store: Store) -> None:
    begun = len(await store.read(lambda transaction: transaction.find(Kind.ONLINE_ENDPOINT)))
    for number in count(begun):
        await store.write(lambda transaction, number=number: write_one(transaction, number))  # type: ignore[misc]
        print(f"ack {number}", flush=True)


def main() -> None:
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            print(f"pid {os.getpid()}", flush=True)
            asyncio.run(write_for_ever(Store.open(sys.argv[1])))
        os.waitpid(child, 0)
        print("dead", flush=True)


if __name__ == "__main__":
    main()
