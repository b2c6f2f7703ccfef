"""What the commands call: the rest of the gateway, loaded when it is needed and given as plain functions.

Why: `gateway --help` must not load an engine or a web framework, and tests put their own functions here.
Errors: CommandError, with one sentence a line and the exit code.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.cli.control import Reply
    from gateway.settings import Settings

FAILED, USAGE, NOT_FOUND, INTERRUPTED = 1, 2, 3, 130


class CommandError(Exception):
    """A command that did not do what it was asked; each line is one sentence for a person."""

    def __init__(self, *lines: str, code: int = FAILED) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines
        self.code = code


@dataclass(frozen=True, slots=True)
class Checked:
    """A folder that may be served."""

    endpoints: int
    deployments: int
    notes: tuple[str, ...]


def serve(settings: Settings) -> int:
    """Serve until told to stop; the exit code."""
    from gateway.supervisor import serve as supervise

    return supervise(settings)


def read_keys(state: Path, endpoint: str) -> dict[str, str]:
    """The keys of an endpoint, as Azure's `listKeys` answers."""
    from gateway.controlplane import state as state_folder

    try:
        keys = state_folder.read_keys(state, endpoint, os.environ)
    except state_folder.StateError as error:
        raise _of_state(error) from error
    return {"primaryKey": keys.primary, "secondaryKey": keys.secondary}


def issue_token(state: Path, endpoint: str) -> Mapping[str, object]:
    """A fresh token for an endpoint, as Azure's `token` answers."""
    from gateway.controlplane import state as state_folder

    try:
        return state_folder.issue_token(state, endpoint)
    except state_folder.StateError as error:
        raise _of_state(error) from error


def ask(state: Path, command: str, timeout_s: float) -> Reply:
    """One command to the gateway that runs on the state folder."""
    from gateway.cli import control

    try:
        return control.ask(state, command, timeout_s)
    except control.ControlError as error:
        raise CommandError(str(error)) from error


def check(folder: Path, settings: Settings) -> Checked:
    """Read a folder as `serve --apply` would."""
    from gateway.controlplane.folder import FolderError, FolderOptions, read_folder

    try:
        desired = read_folder(folder, FolderOptions.of(settings))
    except FolderError as error:
        raise CommandError(*error.problems) from error
    return Checked(len(desired.endpoints), len(desired.deployments), desired.notes)


def bench(url: str, flags: Mapping[str, object], environ: Mapping[str, str]) -> int:
    """Measure a URL under load and report; the exit code. 2 where nothing could be measured."""
    from bench.client.errors import CannotMeasure
    from bench.client.options import Misused, read

    try:
        options = read(url, flags, environ)
        from bench.client.session import run
    except Misused as error:
        raise CommandError(*error.problems, code=USAGE) from error
    except ModuleNotFoundError as error:
        raise CommandError(
            f"gateway bench needs {error.name}, which is not installed: pip install 'inference-gateway[bench]'",
            code=USAGE,
        ) from error
    try:
        return run(options)
    except CannotMeasure as error:
        raise CommandError(*error.lines, code=USAGE) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Everything that a command touches besides its arguments and the terminal."""

    serve: Callable[[Settings], int] = serve
    read_keys: Callable[[Path, str], Mapping[str, object]] = read_keys
    issue_token: Callable[[Path, str], Mapping[str, object]] = issue_token
    ask: Callable[[Path, str, float], Reply] = ask
    check: Callable[[Path, Settings], Checked] = check
    bench: Callable[[str, Mapping[str, object], Mapping[str, str]], int] = bench
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


def _of_state(error: Exception) -> CommandError:
    # A state error that is a LookupError too says that there is no such endpoint.
    return CommandError(str(error), code=NOT_FOUND if isinstance(error, LookupError) else FAILED)
