"""The commands that ask a running gateway over its management listener: here by its state folder, elsewhere by URL.

Exit codes as everywhere, except that `gateway diff` is 1 where something differs, and 2 where it cannot tell.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from gateway.cli import arguments
from gateway.cli.arguments import CONFIG, ENDPOINT, STATE, Argument, Maker, command, print_json, read_settings
from gateway.cli.doors import DIFFERENT, USAGE, CommandError, Doors, Where, answered

if TYPE_CHECKING:
    from gateway.cli.remote import Remote

# Which gateway; `_remote` takes them.
_WHERE = (
    STATE,
    CONFIG,
    click.Option(
        ["--url"], metavar="URL", help="Management URL of a gateway elsewhere [GATEWAY_URL; the state folder's]."
    ),
    click.Option(
        ["--token-file"], metavar="FILE", help="File with a management token [GATEWAY_TOKEN is a token itself]."
    ),
    click.Option(["--ca"], metavar="FILE", help="PEM file of the authority to trust for it [GATEWAY_CA]."),
)
_FOLDER = click.Option(
    ["folder", "--file", "-f"], type=Path, required=True, metavar="DIR", help="Folder of Azure ML YAML."
)
_PRUNE = click.Option(["--prune"], is_flag=True, help="Delete what others made, too: the folder is the whole truth.")


@command(ENDPOINT, *_WHERE, epilog="Example: KEY=$(gateway keys digits | jq -r .primaryKey)")
def keys(doors: Doors, endpoint: str, **where: Any) -> None:
    """Print an endpoint's keys as JSON.

    The members are primaryKey and secondaryKey; either opens the endpoint.
    """
    from gateway.cli import manage

    with answered(), _remote(doors, **where) as remote:
        print_json(manage.keys(remote, endpoint))


@command(ENDPOINT, *_WHERE, epilog="Example: TOKEN=$(gateway token digits | jq -r .accessToken)")
def token(doors: Doors, endpoint: str, **where: Any) -> None:
    """Make a token and print it as JSON.

    For endpoints with auth_mode aml_token; the token is the member accessToken.
    """
    from gateway.cli import manage

    with answered(), _remote(doors, **where) as remote:
        print_json(manage.token(remote, endpoint))


@command(
    ENDPOINT,
    Argument("deployment", "DEPLOYMENT", "Deployment of the endpoint."),
    click.Option(
        ["--tail"], type=click.IntRange(0, 10_000), default=100, show_default=True, metavar="N", help="Last lines."
    ),
    click.Option(["--follow"], is_flag=True, help="Go on with what comes, until it is deleted."),
    *_WHERE,
    epilog="Example: gateway logs iris blue --follow",
)
def logs(doors: Doors, endpoint: str, deployment: str, tail: int, follow: bool, **where: Any) -> None:
    """Print the log of a deployment.

    What its workers write, how its environment is built, and what happened to it.
    """
    from gateway.cli import manage

    with answered(), _remote(doors, **where) as remote:
        for kind, line in manage.logs(remote, endpoint, deployment, tail, follow=follow):
            click.echo(f"{kind}: {line}" if kind else line, err=bool(kind))


@command(
    _FOLDER,
    _PRUNE,
    click.Option(["--dry-run"], is_flag=True, help="Say what would change; change nothing."),
    arguments.timeout(600.0),
    *_WHERE,
    epilog="Examples: gateway apply -f models    gateway apply -f models --url https://gateway:8444",
)
def apply(doors: Doors, folder: Path, prune: bool, dry_run: bool, **where: Any) -> None:
    """Make true what a folder of YAML says.

    As one change: all of it or nothing. What an earlier apply made and the folder no longer holds is deleted.
    Returns when the new is served.
    """
    from gateway.cli import deploy

    with answered(), _remote(doors, **where) as remote:
        done = deploy.apply(remote, folder, prune=prune, dry_run=dry_run, say=_say)
    _print_changes(done)


@command(
    _FOLDER, _PRUNE, arguments.timeout(60.0), *_WHERE, epilog="Example: gateway diff -f models || echo different"
)
def diff(doors: Doors, folder: Path, prune: bool, **where: Any) -> None:
    """Say what apply would change, and change nothing.

    Exit status: 0 nothing, 1 something, 2 it cannot be told.
    """
    from gateway.cli import deploy

    with answered(USAGE), _remote(doors, **where) as remote:
        found = deploy.apply(remote, folder, prune=prune, dry_run=True, say=_say)
    _print_changes(found)
    if found.changes:
        click.get_current_context().exit(DIFFERENT)


@command(
    click.Option(["--output", "-o"], type=Path, metavar="DIR", help="New folder; else one text on stdout."),
    click.Option(["--content"], is_flag=True, help="With the files of models and other assets; needs --output."),
    arguments.timeout(600.0),
    *_WHERE,
    epilog="Examples: gateway export > all.yml    gateway export -o backup --content",
)
def export(doors: Doors, output: Path | None, content: bool, **where: Any) -> None:
    """Write all that is stored as YAML that apply reads.

    Keys are never among it.
    """
    from gateway.cli import deploy

    if content and output is None:
        raise CommandError("--content needs --output: models are files", code=USAGE)
    with answered(), _remote(doors, **where) as remote:
        done = deploy.export(remote, output, content=content, say=_say)
    if output is None:
        click.echo(done.text, nl=False)
    else:
        click.echo(f"{output}: documents {done.documents}, files of content {done.files}")


@command(*_WHERE, epilog="Example: gateway tokens list | jq .")
def list_tokens(doors: Doors, **where: Any) -> None:
    """Print what tokens there are, as JSON; never the tokens themselves."""
    from gateway.cli import manage

    with answered(), _remote(doors, **where) as remote:
        print_json(manage.tokens(remote))


@command(
    Argument("name", "NAME", "Whom it is for."),
    click.Option(["--role"], default="reader", show_default=True, metavar="ROLE", help="reader, operator or admin."),
    click.Option(["--lifetime"], type=int, metavar="SECONDS", help="How long it works; without: for ever."),
    *_WHERE,
    epilog="Example: gateway tokens create ci --role operator | jq -r .token > ci.token",
)
def create_token(doors: Doors, name: str, role: str, lifetime: int | None, **where: Any) -> None:
    """Make a token and print it as JSON; it is shown this once."""
    from gateway.cli import manage

    with answered(), _remote(doors, **where) as remote:
        print_json(manage.make_token(remote, name, role, lifetime))


@command(Argument("name", "NAME", "Its name."), *_WHERE, epilog="Example: gateway tokens delete ci")
def delete_token(doors: Doors, name: str, **where: Any) -> None:
    """End a token; it stops working within seconds."""
    from gateway.cli import manage

    with answered(), _remote(doors, **where) as remote:
        manage.delete_token(remote, name)


@command(
    ENDPOINT,
    click.Option(["old", "--from"], required=True, metavar="NAME", help="Deployment that has the traffic."),
    click.Option(["new", "--to"], required=True, metavar="NAME", help="Deployment that shall get it."),
    click.Option(["--name"], metavar="NAME", help="What to call it [TO]."),
    click.Option(["--steps"], metavar="PERCENT,...", help="Rising, the last 100 [1,10,50,100]."),
    click.Option(["--hold"], type=int, metavar="SECONDS", help="How long each step lasts [300]."),
    *_WHERE,
    epilog="Example: gateway rollout start digits --from blue --to green --steps 1,10,50,100",
)
def start_rollout(
    doors: Doors,
    endpoint: str,
    old: str,
    new: str,
    name: str | None,
    steps: str | None,
    hold: int | None,
    **where: Any,
) -> None:
    """Begin a rollout and print it as JSON."""
    from gateway.cli import manage

    keys: dict[str, Any] = {"from": old, "to": new}
    if steps is not None:
        keys["steps"] = _percents(steps)
    if hold is not None:
        keys["hold_s"] = hold
    with answered(), _remote(doors, **where) as remote:
        print_json(manage.start_rollout(remote, endpoint, name or new, keys))


@command(ENDPOINT, *_WHERE, epilog="Example: gateway rollout status digits | jq .")
def rollout_status(doors: Doors, endpoint: str, **where: Any) -> None:
    """Print an endpoint's rollouts and how they go, as JSON."""
    from gateway.cli import manage

    with answered(), _remote(doors, **where) as remote:
        print_json(manage.rollouts(remote, endpoint))


def _rollout_maker(verb: Literal["pause", "resume", "promote", "cancel"], said: str) -> Maker:
    def tell(doors: Doors, endpoint: str, name: str | None, **where: Any) -> None:
        from gateway.cli import manage

        with answered(), _remote(doors, **where) as remote:
            print_json(manage.tell_rollout(remote, endpoint, verb, name or ""))

    tell.__doc__ = said
    name = click.Option(["--name"], metavar="NAME", help="Its name; not needed where one runs.")
    return command(ENDPOINT, name, *_WHERE, epilog=f"Example: gateway rollout {verb} digits")(tell)


_TOKENS = {"list": list_tokens, "create": create_token, "delete": delete_token}
_ROLLOUT = {
    "start": start_rollout,
    "status": rollout_status,
    "pause": _rollout_maker("pause", "Stop where it is; traffic stays as it is."),
    "resume": _rollout_maker("resume", "Go on after a pause."),
    "promote": _rollout_maker("promote", "Take the next step now."),
    "cancel": _rollout_maker("cancel", "Give the old deployment its traffic back, and end."),
}
_TOKENS_HELP = "Management tokens: who may change or read what is served."
_ROLLOUT_HELP = "Move traffic from one deployment to another in guarded steps."
MAKERS: dict[str, Maker] = {
    "keys": keys,
    "token": token,
    "logs": logs,
    "apply": apply,
    "diff": diff,
    "export": export,
    "tokens": partial(arguments.Commands, "tokens", _TOKENS, help=_TOKENS_HELP),
    "rollout": partial(arguments.Commands, "rollout", _ROLLOUT, help=_ROLLOUT_HELP),
}


def _remote(
    doors: Doors,
    *,
    state: str | None,
    config: Path | None,
    url: str | None,
    token_file: str | None,
    ca: str | None,
    timeout: float = 60.0,
) -> Remote:
    folder = read_settings({"state": state}, doors, config).state
    where = Where(state=folder, url=url or "", token_file=token_file or "", ca=ca or "", timeout_s=timeout)
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
        click.echo(line)
    for note in found.notes:
        _say(f"note: {note}")
    _say(found.summary)


def _say(text: str) -> None:
    click.echo(text, err=True)
