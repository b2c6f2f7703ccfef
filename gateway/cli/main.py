"""The commands of `gateway`.

Data goes to stdout, words to stderr; an error is one line `error: ...` each. Exit codes: 0 done, 1 failed, 2 wrong
usage, 3 not found, 130 interrupted. Every setting is a flag of `serve`, made from gateway/settings.py.
This module loads neither the engine nor the server; doors.py does when a command needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli import arguments
from gateway.cli.arguments import CONFIG, STATE, Argument, Commands, Maker, command, print_json, read_settings
from gateway.cli.doors import FAILED, INTERRUPTED, USAGE, CommandError, Doors
from gateway.settings import FLAG, Settings, settings_about, shown

if TYPE_CHECKING:
    from bench.client.options import Flag

_SERVE = (
    "Examples: gateway serve --apply examples/digits   "
    "gateway serve --apply models --scoring https://0.0.0.0:443 --tls-cert chain.pem --tls-key key.pem"
)


def run(args: Sequence[str], doors: Doors | None = None) -> int:
    """Run one command line; returns the exit code, having said why on stderr where it is not 0."""
    app = make_app(doors or Doors())
    try:
        code = app.main(args=list(args) or ["--help"], prog_name="gateway", standalone_mode=False)
    except CommandError as error:
        for line in error.lines:
            click.echo(f"error: {line}", err=True)
        return error.code
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx is not None else "gateway"
        said = " ".join(error.format_message().split()).rstrip(".")
        click.echo(f"error: {said}; see {path} --help", err=True)
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def make_app(doors: Doors) -> click.Group:
    """The tree of commands over these doors."""
    makers: dict[str, Maker] = {
        "serve": partial(_with_flags, serve, _SERVE),
        "settings": partial(_with_flags, settings, "Example: gateway settings --config gateway.yml"),
        "reload": reload,
        "status": status,
        **{name: partial(_remote, name) for name in ("keys", "token", "logs", "apply", "diff", "export")},
        "check": check,
        "version": version,
        "bench": _bench,
        **{name: partial(_remote, name) for name in ("tokens", "rollout")},
    }
    return Commands(
        "gateway",
        makers,
        help="Serve ONNX models behind stable HTTPS scoring URIs.",
        epilog="Example: gateway serve --apply examples/digits    then: gateway keys digits",
        context_settings={"obj": doors, "help_option_names": ["-h", "--help"]},
    )


def serve(doors: Doors, config: Path | None, **values: object) -> None:
    """Serve a folder of Azure ML YAML until SIGTERM.

    When it is ready to score, one line "ready scoring=URL management=URL telemetry=URL ca=FILE" is on stdout.
    """
    _leave(doors.serve(read_settings(values, doors, config)))


def settings(doors: Doors, config: Path | None, **values: object) -> None:
    """Print all settings and their sources.

    Takes the flags of serve, so that a command line can be tried.
    """
    found = read_settings(values, doors, config)
    rows = [(name, shown(getattr(found, name)), found.sources[name]) for name in settings_about()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, source in rows:
        click.echo(f"{name:{widths[0]}}  {value:{widths[1]}}  {source}".rstrip())


@command(STATE, CONFIG, arguments.timeout(600.0), epilog="Example: gateway reload --state /var/lib/gateway")
def reload(doors: Doors, state: str | None, config: Path | None, timeout: float) -> None:
    """Read the folder of YAML again.

    Waits until the gateway that runs on the state folder serves the new, or has refused it.
    """
    _ask(doors, read_settings({"state": state}, doors, config).state, "reload", timeout)


@command(STATE, CONFIG, arguments.timeout(30.0), epilog="Example: gateway status | jq .")
def status(doors: Doors, state: str | None, config: Path | None, timeout: float) -> None:
    """Print what is served, as JSON."""
    _ask(doors, read_settings({"state": state}, doors, config).state, "status", timeout)


@command(
    Argument("folder", "DIR", "Folder of Azure ML YAML.", Path),
    CONFIG,
    epilog="Example: gateway check examples/digits",
)
def check(doors: Doors, folder: Path, config: Path | None) -> None:
    """Check a folder of YAML.

    Reads it as serve --apply would, without loading the models.
    """
    checked = doors.check(folder, read_settings({}, doors, config))
    for note in checked.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"{folder}: endpoints {checked.endpoints}, deployments {checked.deployments}, no problems")


@command()
def version(doors: Doors) -> None:
    """Print the version."""
    from importlib import metadata

    click.echo(metadata.version("inference-gateway"))


def _remote(name: str) -> click.Command | None:
    from gateway.cli.remote_commands import MAKERS

    return MAKERS[name]()


def _bench() -> click.Command | None:
    try:
        from bench.client.options import FLAGS
    except ModuleNotFoundError:
        # An image that only serves may leave the load generator out; it has no such command then.
        return None

    def bench(doors: Doors, url: str, **values: object) -> None:
        """Measure a scoring URL under load.

        A closed loop over --connections, or an open one at --rate. Exit status: 0 done, 1 what was asked for is not
        met, 2 nothing was measured. The key comes from --key or the environment's GATEWAY_KEY.
        """
        flags = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        _leave(doors.bench(url, flags, doors.environ))

    url = Argument("url", "URL", "A scoring URI, https://HOST:PORT/endpoints/NAME/score, or a V2 one.")
    example = "Example: gateway bench https://127.0.0.1:8443/endpoints/digits/score --ca ca.pem --rate 500,1000,2000"
    return command(url, *map(_bench_flag, FLAGS), epilog=example)(bench)()


def _bench_flag(flag: Flag) -> click.Option:
    name = "--" + flag.name.replace("_", "-")
    if not flag.symbol:
        return click.Option([name], is_flag=True, help=flag.what)
    return click.Option([name], multiple=flag.many, metavar=flag.symbol, help=flag.what)


def _ask(doors: Doors, state: Path, command: str, timeout_s: float) -> None:
    reply = doors.ask(state, command, timeout_s)
    if not reply.ok:
        raise CommandError(*(reply.message.splitlines() or [f"{command} failed"]), code=FAILED)
    if reply.message:
        click.echo(reply.message, err=True)
    if reply.data is not None:
        print_json(reply.data)


def _leave(code: int) -> None:
    click.get_current_context().exit(code)


def _with_flags(function: Callable[..., None], epilog: str) -> click.Command | None:
    """A command with --config and one flag a setting."""
    return command(CONFIG, *_flags(), epilog=epilog)(function)()


def _flags() -> Iterator[click.Option]:
    defaults = Settings()
    for name, about in settings_about().items():
        flag = name.replace("_", "-")
        default = shown(getattr(defaults, name))
        said = f"{about.what} [{default}]" if default else about.what
        if about.parser is FLAG:
            yield click.Option([f"--{flag}/--no-{flag}"], default=None, help=said)
        else:
            yield click.Option([f"--{flag}"], metavar=about.parser.symbol, help=said)
