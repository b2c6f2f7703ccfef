"""The first schema. Written out, and not made from schema.py: what a released step does must never change."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_COUNTED = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _make_resources()
    _make_operations()
    _make_audit()
    _make_events()
    _make_credentials()
    _make_blobs()


def _text(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, _TEXT, nullable=False) for name in names]


def _time(name: str, *, nullable: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Double(), nullable=nullable)


def _counted(name: str) -> sa.Column[int]:
    return sa.Column(name, _COUNTED, primary_key=True, autoincrement=True)


def _make_resources() -> None:
    op.create_table(
        "resources",
        _counted("id"),
        *_text("kind", "parent", "key"),
        sa.Column("revision", sa.Integer(), nullable=False),
        *_text("name", "parent_name", "document"),
        sa.Column("served", _TEXT, nullable=True),
        *_text("state", "reason", "owner", "files"),
        _time("created_at"),
        *_text("created_by"),
        _time("modified_at"),
        *_text("modified_by"),
        sa.UniqueConstraint("kind", "parent", "key", name="uq_resources_ref"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_resources_kind", "resources", ["kind", "id"])
    op.create_index("ix_resources_parent", "resources", ["kind", "parent", "id"])


def _make_operations() -> None:
    op.create_table(
        "operations",
        _counted("seq"),
        *_text("id", "action", "endpoint", "targets", "status", "error_code", "error_message", "actor"),
        _time("started_at"),
        _time("ended_at", nullable=True),
        *_text("detail"),
        sa.UniqueConstraint("id", name="uq_operations_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_operations_status", "operations", ["status", "endpoint"])
    op.create_index("ix_operations_ended_at", "operations", ["ended_at"])


def _make_audit() -> None:
    op.create_table(
        "audit",
        _counted("id"),
        _time("at"),
        *_text("who", "role", "source", "request_id", "action", "target", "outcome", "detail"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_who", "audit", ["who", "id"])
    op.create_index("ix_audit_target", "audit", ["target", "id"])


def _make_events() -> None:
    op.create_table(
        "events",
        _counted("id"),
        _time("at"),
        *_text("endpoint", "deployment", "name", "message"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_deployment", "events", ["endpoint", "deployment", "id"])
    op.create_index("ix_events_endpoint", "events", ["endpoint", "id"])


def _make_credentials() -> None:
    op.create_table(
        "secrets",
        sa.Column("name", _TEXT, primary_key=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "tokens",
        sa.Column("name", _TEXT, primary_key=True),
        *_text("digest", "role"),
        _time("created_at"),
        *_text("created_by"),
        _time("expires_at", nullable=True),
        sa.UniqueConstraint("digest", name="uq_tokens_digest"),
    )


def _make_blobs() -> None:
    op.create_table(
        "blobs",
        *_text("container", "path", "sha256"),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        *_text("md5", "content_type", "metadata", "etag"),
        _time("modified_at"),
        sa.PrimaryKeyConstraint("container", "path"),
    )
    op.create_table(
        "blocks",
        *_text("container", "path", "block_id", "sha256"),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        _time("created_at"),
        sa.PrimaryKeyConstraint("container", "path", "block_id"),
    )
    op.create_index("ix_blocks_created_at", "blocks", ["created_at"])
