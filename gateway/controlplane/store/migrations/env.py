"""Alembic's way in: runs the steps on the connection, and in the transaction, that migrate.py gives."""

from __future__ import annotations

from alembic import context

from gateway.controlplane.store.schema import METADATA, VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
