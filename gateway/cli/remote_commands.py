"""The commands that ask a running gateway over its management listener: here by its state folder, elsewhere by URL.

Exit codes as everywhere, except that `gateway diff` is 1 where something differs, and 2 where it cannot tell.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gateway.cli.arguments import Ca, Config, Endpoint, Seconds, State, TokenFile, Url, print_json, read_settings
from gateway.cli.doors import DIFFERENT, USAGE, CommandError, Doors, Where, answered

if TYPE_CHECKING:
    from gateway.cli.remote import Remote

_Folder = Annotated[Path, typer.Option("--file", "-f", metavar="DIR", help="Folder of Azure ML YAML.")]
_Prune = Annotated[bool, typer.Option("--prune", help="Delete what others made, too: the folder is the whole truth.")]
_RolloutName = Annotated[str, typer.Option("--name", metavar="NAME", help="Its name; not needed where one runs.")]

_SHELL = "Example: KEY=$(gateway keys digits | jq -r .primaryKey)"


def add(app: typer.Typer, doors: Doors) -> None:
    """Add the commands to the tree."""
    _add_credentials(app, doors)
    _add_logs(app, doors)
    _add_apply(app, doors)
    _add_export(app, doors)
    _add_tokens(app, doors)
    _add_rollouts(app, doors)


def _add_credentials(app: typer.Typer, doors: Doors) -> None:
    @app.command(epilog=_SHELL)
    def keys(
        endpoint: Endpoint,
        state: State = None,
        config: Config = None,
        url: Url = None,
        token_file: TokenFile = None,
        ca: Ca = None,
    ) -> None:
        """Print an endpoint's keys as JSON.

        The members are primaryKey and secondaryKey; either opens the endpoint.
        """
        from gateway.cli import manage

        with answered(), _remote(doors, state, config, url, token_file, ca) as remote:
            print_json(manage.keys(remote, endpoint))

    @app.command(epilog="Example: TOKEN=$(gateway token digits | jq -r .accessToken)")
    def token(
        endpoint: Endpoint,
        state: State = None,
        config: Config = None,
        url: Url = None,
        token_file: TokenFile = None,
        ca: Ca = None,
    ) -> None:
        """Make a token and print it as JSON.

        For endpoints with auth_mode aml_token; the token is the member accessToken.
        """
        from gateway.cli import manage

        with answered(), _remote(doors, state, config, url, token_file, ca) as remote:
            print_json(manage.token(remote, endpoint))


def _add_logs(app: typer.Typer, doors: Doors) -> None:
    @app.command(epilog="Example: gateway logs iris blue --follow")
    def logs(
        endpoint: Endpoint,
        deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Deployment of the endpoint.")],
        tail: Annotated[int, typer.Option("--tail", metavar="N", min=0, max=10_000, help="Last lines.")] = 100,
        follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes, until it is deleted.")] = False,
        state: State = None,
        config: Config = None,
        url: Url = None,
        token_file: TokenFile = None,
        ca: Ca = None,
    ) -> None:
        """Print the log of a deployment.

        What its workers write, how its environment is built, and what happened to it.
        """
        from gateway.cli import manage

        with answered(), _remote(doors, state, config, url, token_file, ca) as remote:
            for kind, line in manage.logs(remote, endpoint, deployment, tail, follow=follow):
                typer.echo(f"{kind}: {line}" if kind else line, err=bool(kind))


def _add_apply(app: typer.Typer, doors: Doors) -> None:
    @app.command(epilog="Examples: gateway apply -f models    gateway apply -f models --url https://gateway:8444")
    def apply(
        folder: _Folder,
        prune: _Prune = False,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change; change nothing.")] = False,
        timeout: Seconds = 600.0,
        state: State = None,
        config: Config = None,
        url: Url = None,
        token_file: TokenFile = None,
        ca: Ca = None,
    ) -> None:
        """Make true what a folder of YAML says.

        As one change: all of it or nothing. What an earlier apply made and the folder no longer holds is deleted.
        Returns when the new is served.
        """
        from gateway.cli import deploy

        with answered(), _remote(doors, state, config, url, token_file, ca, timeout) as remote:
            done = deploy.apply(remote, folder, prune=prune, dry_run=dry_run, say=_say)
        _print_changes(done)

    @app.command(epilog="Example: gateway diff -f models || echo different")
    def diff(
        folder: _Folder,
        prune: _Prune = False,
        timeout: Seconds = 60.0,
        state: State = None,
        config: Config = None,
        url: Url = None,
        token_file: TokenFile = None,
        ca: Ca = None,
    ) -> None:
        """Say what apply would change, and change nothing.

        Exit status: 0 nothing, 1 something, 2 it cannot be told.
        """
        from gateway.cli import deploy

        with answered(USAGE), _remote(doors, state, config, url, token_file, ca, timeout) as remote:
            found = deploy.apply(remote, folder, prune=prune, dry_run=True, say=_say)
        _print_changes(found)
        if found.changes:
            raise typer.Exit(DIFFERENT)


def _add_export(app: typer.Typer, doors: Doors) -> None:
    @app.command(epilog="Examples: gateway export > all.yml    gateway export -o backup --content")
    def export(
        output: Annotated[
            Path | None, typer.Option("--output", "-o", metavar="DIR", help="New folder; else one text on stdout.")
        ] = None,
        content: Annotated[
            bool, typer.Option("--content", help="With the files of models and other assets; needs --output.")
        ] = False,
        timeout: Seconds = 600.0,
        state: State = None,
        config: Config = None,
        url: Url = None,
        token_file: TokenFile = None,
        ca: Ca = None,
    ) -> None:
        """Write all that is stored as YAML that apply reads.

        Keys are never among it.
        """
        from gateway.cli import deploy

        if content and output is None:
            raise CommandError("--content needs --output: models are files", code=USAGE)
        with answered(), _remote(doors, state, config, url, token_file, ca, timeout) as remote:
            done = deploy.export(remote, output, content=content, say=_say)
        if output is None:
            typer.echo(done.text, nl=False)
        else:
            typer.echo(f"{output}: documents {done.documents}, files of content {done.files}")


def _add_tokens(app: typer.Typer, doors: Doors) -> None:
    tokens = typer.Typer(help="Management tokens: who may change or read what is served.")
    app.add_typer(tokens, name="tokens")

    @tokens.command("list", epilog="Example: gateway tokens list | jq .")
    def list_(
        state: State = None, config: Config = None, url: Url = None, token_file: TokenFile = None, ca: Ca = None
    ) -> None:
        """Print what tokens there are, as JSON; never the tokens themselves."""
        from gateway.cli import manage

        with answered(), _remote(doors, state, config, url, token_file, ca) as remote:
            print_json(manage.tokens(remote))

    @tokens.command(epilog="Example: gateway tokens create ci --role operator | jq -r .token > ci.token")
    def create(
        name: Annotated[str, typer.Argument(metavar="NAME", help="Whom it is for.")],
        role: Annotated[str, typer.Option("--role", metavar="ROLE", help="reader, operator or admin.")] = "reader",
        lifetime: Annotated[
            int | None, typer.Option("--lifetime", metavar="SECONDS", help="How long it works; without: for ever.")
        ] = None,
        state: State = None,
        config: Config = None,
        url: Url = None,
        token_file: TokenFile = None,
        ca: Ca = None,
    ) -> None:
        """Make a token and print it as JSON; it is shown this once."""
        from gateway.cli import manage

        with answered(), _remote(doors, state, config, url, token_file, ca) as remote:
            print_json(manage.make_token(remote, name, role, lifetime))

    @tokens.command(epilog="Example: gateway tokens delete ci")
    def delete(
        name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")],
        state: State = None,
        config: Config = None,
        url: Url = None,
        token_file: TokenFile = None,
        ca: Ca = None,
    ) -> None:
        """End a token; it stops working within seconds."""
        from gateway.cli import manage

        with answered(), _remote(doors, state, config, url, token_file, ca) as remote:
            manage.delete_token(remote, name)


def _add_rollouts(app: typer.Typer, doors: Doors) -> None:
    rollout = typer.Typer(help="Move traffic from one deployment to another in guarded steps.")
    app.add_typer(rollout, name="rollout")

    @rollout.command(epilog="Example: gateway rollout start digits --from blue --to green --steps 1,10,50,100")
    def start(
        endpoint: Endpoint,
        old: Annotated[str, typer.Option("--from", metavar="NAME", help="Deployment that has the traffic.")],
        new: Annotated[str, typer.Option("--to", metavar="NAME", help="Deployment that shall get it.")],
        name: Annotated[str, typer.Option("--name", metavar="NAME", help="What to call it [TO].")] = "",
        steps: Annotated[
            str | None, typer.Option("--steps", metavar="PERCENT,...", help="Rising, the last 100 [1,10,50,100].")
        ] = None,
        hold: Annotated[
            int | None, typer.Option("--hold", metavar="SECONDS", help="How long each step lasts [300].")
        ] = None,
        state: State = None,
        config: Config = None,
        url: Url = None,
        token_file: TokenFile = None,
        ca: Ca = None,
    ) -> None:
        """Begin a rollout and print it as JSON."""
        from gateway.cli import manage

        keys: dict[str, Any] = {"from": old, "to": new}
        if steps is not None:
            keys["steps"] = _percents(steps)
        if hold is not None:
            keys["hold_s"] = hold
        with answered(), _remote(doors, state, config, url, token_file, ca) as remote:
            print_json(manage.start_rollout(remote, endpoint, name or new, keys))

    @rollout.command(epilog="Example: gateway rollout status digits | jq .")
    def status(
        endpoint: Endpoint,
        state: State = None,
        config: Config = None,
        url: Url = None,
        token_file: TokenFile = None,
        ca: Ca = None,
    ) -> None:
        """Print an endpoint's rollouts and how they go, as JSON."""
        from gateway.cli import manage

        with answered(), _remote(doors, state, config, url, token_file, ca) as remote:
            print_json(manage.rollouts(remote, endpoint))

    _add_rollout_command(rollout, doors, "pause", "Stop where it is; traffic stays as it is.")
    _add_rollout_command(rollout, doors, "resume", "Go on after a pause.")
    _add_rollout_command(rollout, doors, "promote", "Take the next step now.")
    _add_rollout_command(rollout, doors, "cancel", "Give the old deployment its traffic back, and end.")


def _add_rollout_command(
    rollout: typer.Typer, doors: Doors, command: Literal["pause", "resume", "promote", "cancel"], said: str
) -> None:
    @rollout.command(command, help=said, epilog=f"Example: gateway rollout {command} digits")
    def tell(
        endpoint: Endpoint,
        name: _RolloutName = "",
        state: State = None,
        config: Config = None,
        url: Url = None,
        token_file: TokenFile = None,
        ca: Ca = None,
    ) -> None:
        from gateway.cli import manage

        with answered(), _remote(doors, state, config, url, token_file, ca) as remote:
            print_json(manage.tell_rollout(remote, endpoint, command, name))


def _remote(
    doors: Doors,
    state: str | None,
    config: Path | None,
    url: str | None,
    token_file: str | None,
    ca: str | None,
    timeout_s: float = 60.0,
) -> Remote:
    folder = read_settings({"state": state}, doors, config).state
    where = Where(state=folder, url=url or "", token_file=token_file or "", ca=ca or "", timeout_s=timeout_s)
    return doors.connect(where, doors.environ)


def _percents(text: str) -> list[int]:
    try:
        return [int(one) for one in text.split(",")]
    except ValueError:
        raise CommandError(
            f"--steps: found {text!r}; accepted: percentages such as 1,10,50,100", code=USAGE
        ) from None


def _print_changes(found: Any) -> None:
    for line in found.changes:
        typer.echo(line)
    for note in found.notes:
        _say(f"note: {note}")
    _say(found.summary)


def _say(text: str) -> None:
    typer.echo(text, err=True)
