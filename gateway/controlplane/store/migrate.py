"""Brings a database's schema to what this program knows: Alembic, run from the program, in one transaction.

Loaded only when a database is not there yet: Alembic takes longer to import than a store to open.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def config_for(connection: Connection | None = None) -> Config:
    """Alembic's configuration, with no file: the scripts lie beside this module."""
    config = Config()
    # The value is read by configparser, to which a percent sign is special.
    folder = str(Path(__file__).parent / "migrations").replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.attributes["connection"] = connection
    return config


def known_revisions() -> frozenset[str]:
    script = ScriptDirectory.from_config(config_for())
    return frozenset(revision.revision for revision in script.walk_revisions())


def upgrade(connection: Connection) -> None:
    """In the transaction that the connection is in."""
    command.upgrade(config_for(connection), "head")
