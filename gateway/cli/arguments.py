"""What commands are made of: arguments that several take, a group, and how settings are read for them.

Why: of the whole tree only the command that is asked for is made, so that `gateway serve` starts at once.
Errors: CommandError with the code of wrong usage.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from gateway.cli.doors import USAGE, CommandError, Doors
from gateway.settings import Settings, SettingsError, load_settings
from gateway.suggest import nearest

Maker = Callable[[], click.Command | None]


class Argument(click.Argument):
    """A required argument that the help describes; the library's own are described from its version 8.5 on."""

    def __init__(self, name: str, metavar: str, said: str, kind: type = str) -> None:
        super().__init__([name], metavar=metavar, type=kind)
        self.described = (metavar, f"{said}  [required]")


CONFIG = click.Option(["--config"], type=Path, metavar="FILE", help="YAML file of settings [GATEWAY_CONFIG].")
STATE = click.Option(["--state"], metavar="DIR", help="State folder of the gateway [GATEWAY_STATE; .gateway].")
ENDPOINT = Argument("endpoint", "ENDPOINT", "Name of the endpoint.")


def timeout(default_s: float) -> click.Option:
    said = "Longest wait for the answer."
    return click.Option(["--timeout"], type=float, default=default_s, show_default=True, metavar="SECONDS", help=said)


class Commands(click.Group):
    """Commands in the order of their table, each made when it is asked for."""

    def __init__(self, name: str, makers: Mapping[str, Maker], **more: Any) -> None:
        super().__init__(name, no_args_is_help=False, **more)
        self._makers = makers

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._makers)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._makers[cmd_name]() if cmd_name in self._makers else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self._makers and not ctx.resilient_parsing:
            near = nearest(args[0], self._makers)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {near!r}?" if near else ""))
        return super().resolve_command(ctx, args)


class _Command(click.Command):
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        arguments = [one.described for one in self.params if isinstance(one, Argument)]
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        super().format_options(ctx, formatter)


def command(*params: click.Parameter, epilog: str = "") -> Callable[[Callable[..., None]], Maker]:
    """Makes a command of a function, which is given the doors first; what it says of itself is the help."""

    def maker(function: Callable[..., None]) -> Maker:
        callback = click.pass_obj(function)
        return partial(_Command, None, callback=callback, params=list(params), help=function.__doc__, epilog=epilog)

    return maker


def read_settings(values: dict[str, Any], doors: Doors, config: Path | None) -> Settings:
    try:
        return load_settings(values, doors.environ, config)
    except SettingsError as error:
        raise CommandError(*error.problems, code=USAGE) from error


def print_json(data: object) -> None:
    click.echo(json.dumps(data, indent=2 if sys.stdout.isatty() else None))
