"""Arguments that several commands take, and how settings are read for them.

Errors: CommandError with the code of wrong usage.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.doors import USAGE, CommandError, Doors
from gateway.settings import Settings, SettingsError, load_settings

Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="YAML file of settings [GATEWAY_CONFIG].")
]
State = Annotated[
    str | None, typer.Option("--state", metavar="DIR", help="State folder of the gateway [GATEWAY_STATE; .gateway].")
]
Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint.")]
Seconds = Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="Longest wait for the answer.")]
Url = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", help="Management URL of a gateway elsewhere [GATEWAY_URL; the state folder's]."
    ),
]
TokenFile = Annotated[
    str | None,
    typer.Option(
        "--token-file", metavar="FILE", help="File with a management token [GATEWAY_TOKEN is a token itself]."
    ),
]
Ca = Annotated[
    str | None, typer.Option("--ca", metavar="FILE", help="PEM file of the authority to trust for it [GATEWAY_CA].")
]


def read_settings(values: dict[str, Any], doors: Doors, config: Path | None) -> Settings:
    try:
        return load_settings(values, doors.environ, config)
    except SettingsError as error:
        raise CommandError(*error.problems, code=USAGE) from error


def print_json(data: object) -> None:
    typer.echo(json.dumps(data, indent=2 if sys.stdout.isatty() else None))
