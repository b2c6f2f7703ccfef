"""The commands of `gateway`.

Data goes to stdout, words to stderr; an error is one line `error: ...` each. Exit codes: 0 done, 1 failed, 2 wrong
usage, 3 not found, 130 interrupted. Every setting is a flag of `serve`, made from gateway/settings.py.
This module loads neither the engine nor the server; doors.py does when a command needs them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import remote_commands
from gateway.cli.arguments import Config, Seconds, State, print_json, read_settings
from gateway.cli.doors import FAILED, INTERRUPTED, USAGE, CommandError, Doors
from gateway.settings import FLAG, About, Settings, settings_about, shown

if TYPE_CHECKING:
    from bench.client.options import Flag

# The base of every mistake in arguments; its own module is not the same in all versions of the library.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def run(args: Sequence[str], doors: Doors | None = None) -> int:
    """Run one command line; returns the exit code, having said why on stderr where it is not 0."""
    command = typer.main.get_command(make_app(doors or Doors()))
    try:
        code = command.main(args=list(args) or ["--help"], prog_name="gateway", standalone_mode=False)
    except CommandError as error:
        for line in error.lines:
            typer.echo(f"error: {line}", err=True)
        return error.code
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "gateway"
        said = " ".join(str(getattr(error, "format_message", error.__str__)()).split()).rstrip(".")
        typer.echo(f"error: {said}; see {path} --help", err=True)
        return USAGE
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def make_app(doors: Doors) -> typer.Typer:
    """The tree of commands over these doors."""
    app = typer.Typer(
        name="gateway",
        help="Serve ONNX models behind stable HTTPS scoring URIs.",
        epilog="Example: gateway serve --apply examples/digits    then: gateway keys digits",
        add_completion=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    _add_serving(app, doors)
    _add_control(app, doors)
    remote_commands.add(app, doors)
    _add_words(app, doors)
    _add_bench(app, doors)
    return app


def _add_serving(app: typer.Typer, doors: Doors) -> None:
    def serve(config: Path | None, **values: object) -> None:
        """Serve a folder of Azure ML YAML until SIGTERM.

        When it is ready to score, one line "ready scoring=URL management=URL telemetry=URL ca=FILE" is on stdout.
        """
        settings = read_settings(values, doors, config)
        code = doors.serve(settings)
        if code:
            raise typer.Exit(code)

    def settings(config: Path | None, **values: object) -> None:
        """Print all settings and their sources.

        Takes the flags of serve, so that a command line can be tried.
        """
        found = read_settings(values, doors, config)
        rows = [(name, shown(getattr(found, name)), found.sources[name]) for name in settings_about()]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        for name, value, source in rows:
            typer.echo(f"{name:{widths[0]}}  {value:{widths[1]}}  {source}".rstrip())

    example = "Examples: gateway serve --apply examples/digits   "
    more = "gateway serve --apply models --scoring https://0.0.0.0:443 --tls-cert chain.pem --tls-key key.pem"
    app.command(epilog=example + more)(_with_flags(serve))
    app.command(epilog="Example: gateway settings --config gateway.yml")(_with_flags(settings))


def _add_control(app: typer.Typer, doors: Doors) -> None:
    @app.command(epilog="Example: gateway reload --state /var/lib/gateway")
    def reload(state: State = None, config: Config = None, timeout: Seconds = 600.0) -> None:
        """Read the folder of YAML again.

        Waits until the gateway that runs on the state folder serves the new, or has refused it.
        """
        _ask(doors, read_settings({"state": state}, doors, config).state, "reload", timeout)

    @app.command(epilog="Example: gateway status | jq .")
    def status(state: State = None, config: Config = None, timeout: Seconds = 30.0) -> None:
        """Print what is served, as JSON."""
        _ask(doors, read_settings({"state": state}, doors, config).state, "status", timeout)


def _add_words(app: typer.Typer, doors: Doors) -> None:
    @app.command(epilog="Example: gateway check examples/digits")
    def check(
        folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of Azure ML YAML.")],
        config: Config = None,
    ) -> None:
        """Check a folder of YAML.

        Reads it as serve --apply would, without loading the models.
        """
        checked = doors.check(folder, read_settings({}, doors, config))
        for note in checked.notes:
            typer.echo(f"note: {note}", err=True)
        typer.echo(f"{folder}: endpoints {checked.endpoints}, deployments {checked.deployments}, no problems")

    @app.command()
    def version() -> None:
        """Print the version."""
        from importlib import metadata

        typer.echo(metadata.version("inference-gateway"))


def _add_bench(app: typer.Typer, doors: Doors) -> None:
    try:
        from bench.client.options import FLAGS
    except ModuleNotFoundError:
        # An image that only serves may leave the load generator out; it has no such command then.
        return

    def bench(url: str, **flags: object) -> None:
        """Measure a scoring URL under load.

        A closed loop over --connections, or an open one at --rate. Exit status: 0 done, 1 what was asked for is not
        met, 2 nothing was measured. The key comes from --key or the environment's GATEWAY_KEY.
        """
        code = doors.bench(url, flags, doors.environ)
        if code:
            raise typer.Exit(code)

    said = "A scoring URI, https://HOST:PORT/endpoints/NAME/score, or a V2 one."
    url = Annotated[str, typer.Argument(metavar="URL", help=said)]
    parameters = [inspect.Parameter("url", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=url)]
    parameters += [_parameter(flag.name, _bench_flag(flag)) for flag in FLAGS]
    bench.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    bench.__annotations__ = {one.name: one.annotation for one in parameters}
    example = "Example: gateway bench https://127.0.0.1:8443/endpoints/digits/score --ca ca.pem --rate 500,1000,2000"
    app.command(epilog=example)(bench)


def _bench_flag(flag: Flag) -> Any:
    name = "--" + flag.name.replace("_", "-")
    if not flag.symbol:
        return Annotated[bool, typer.Option(name, help=flag.what, show_default=False)]
    kind: Any = list[str] if flag.many else str
    return Annotated[kind | None, typer.Option(name, metavar=flag.symbol, help=flag.what, show_default=False)]


def _ask(doors: Doors, state: Path, command: str, timeout_s: float) -> None:
    reply = doors.ask(state, command, timeout_s)
    if not reply.ok:
        raise CommandError(*(reply.message.splitlines() or [f"{command} failed"]), code=FAILED)
    if reply.message:
        typer.echo(reply.message, err=True)
    if reply.data is not None:
        print_json(reply.data)


def _with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """The command with one flag a setting, and --config."""
    parameters = [_parameter("config", Config)]
    parameters += [_parameter(name, _flag(name, about)) for name, about in settings_about().items()]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _flag(name: str, about: About) -> Any:
    flag = name.replace("_", "-")
    default = shown(getattr(Settings(), name))
    said = f"{about.what} [{default}]" if default else about.what
    if about.parser is FLAG:
        return Annotated[bool | None, typer.Option(f"--{flag}/--no-{flag}", help=said, show_default=False)]
    return Annotated[
        str | None, typer.Option(f"--{flag}", metavar=about.parser.symbol, help=said, show_default=False)
    ]
