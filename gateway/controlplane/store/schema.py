"""The tables of the store: one schema for SQLite and PostgreSQL, the same that the migrations build.

JSON is TEXT and is never asked about in SQL; digests are hex text; what is sealed is bytes. `id` and `seq` count
insertions and are never used twice, so that order does not depend on the clock.
Units: *_at and `at` seconds since 1970 as double precision, which keeps a Python float exactly; *_bytes bytes.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.types import TypeEngine

# The newest migration, and where a database notes how far it has been migrated.
HEAD = "0001"
VERSION_TABLE = "gateway_schema"

METADATA = MetaData()


class PlainText(TypeDecorator[str]):
    """Text in the order of its bytes on both databases. What one of them cannot hold (NUL, half a surrogate pair)
    becomes a replacement character: it comes from a hostile request, and has no business in a name."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        return Text(collation="C") if dialect.name == "postgresql" else Text()

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or (value.isascii() and "\0" not in value):
            return value
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _text(name: str) -> Column[str]:
    return Column(name, PlainText, nullable=False)


def _time(name: str, *, nullable: bool = False) -> Column[float]:
    return Column(name, Double, nullable=nullable)


def _size(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _counted(name: str) -> Column[int]:
    # SQLite counts only a column that is INTEGER to the letter.
    return Column(name, BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


resources = Table(
    "resources",
    METADATA,
    _counted("id"),
    _text("kind"),
    _text("parent"),
    _text("key"),
    Column("revision", Integer, nullable=False),
    _text("name"),
    _text("parent_name"),
    _text("document"),
    Column("served", PlainText),
    _text("state"),
    _text("reason"),
    _text("owner"),
    _text("files"),
    _time("created_at"),
    _text("created_by"),
    _time("modified_at"),
    _text("modified_by"),
    UniqueConstraint("kind", "parent", "key", name="uq_resources_ref"),
    Index("ix_resources_kind", "kind", "id"),
    Index("ix_resources_parent", "kind", "parent", "id"),
    sqlite_autoincrement=True,
)

operations = Table(
    "operations",
    METADATA,
    _counted("seq"),
    _text("id"),
    _text("action"),
    _text("endpoint"),
    _text("targets"),
    _text("status"),
    _text("error_code"),
    _text("error_message"),
    _text("actor"),
    _time("started_at"),
    _time("ended_at", nullable=True),
    _text("detail"),
    UniqueConstraint("id", name="uq_operations_id"),
    Index("ix_operations_status", "status", "endpoint"),
    Index("ix_operations_ended_at", "ended_at"),
    sqlite_autoincrement=True,
)

audit = Table(
    "audit",
    METADATA,
    _counted("id"),
    _time("at"),
    _text("who"),
    _text("role"),
    _text("source"),
    _text("request_id"),
    _text("action"),
    _text("target"),
    _text("outcome"),
    _text("detail"),
    Index("ix_audit_who", "who", "id"),
    Index("ix_audit_target", "target", "id"),
    sqlite_autoincrement=True,
)

events = Table(
    "events",
    METADATA,
    _counted("id"),
    _time("at"),
    _text("endpoint"),
    _text("deployment"),
    _text("name"),
    _text("message"),
    Index("ix_events_deployment", "endpoint", "deployment", "id"),
    Index("ix_events_endpoint", "endpoint", "id"),
    sqlite_autoincrement=True,
)

secrets = Table(
    "secrets",
    METADATA,
    Column("name", PlainText, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)

tokens = Table(
    "tokens",
    METADATA,
    Column("name", PlainText, primary_key=True),
    _text("digest"),
    _text("role"),
    _time("created_at"),
    _text("created_by"),
    _time("expires_at", nullable=True),
    UniqueConstraint("digest", name="uq_tokens_digest"),
)

blobs = Table(
    "blobs",
    METADATA,
    _text("container"),
    _text("path"),
    _text("sha256"),
    _size("size_bytes"),
    _text("md5"),
    _text("content_type"),
    _text("metadata"),
    _text("etag"),
    _time("modified_at"),
    PrimaryKeyConstraint("container", "path"),
)

blocks = Table(
    "blocks",
    METADATA,
    _text("container"),
    _text("path"),
    _text("block_id"),
    _text("sha256"),
    _size("size_bytes"),
    _time("created_at"),
    PrimaryKeyConstraint("container", "path", "block_id"),
    Index("ix_blocks_created_at", "created_at"),
)
