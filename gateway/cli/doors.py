"""What the commands call: the rest of the gateway, loaded when it is needed and given as plain functions.

Why: `gateway --help` must not load an engine or a web framework, and tests put their own functions here.
Errors: CommandError, with one sentence a line and the exit code.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.cli.control import Reply
    from gateway.cli.remote import Remote
    from gateway.settings import Settings

FAILED, USAGE, NOT_FOUND, INTERRUPTED = 1, 2, 3, 130
# What `gateway diff` ends with where something differs.
DIFFERENT = 1


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
    from gateway.child import Child
    from runtimes import available_cores

    # They import for about as long as the supervisor does: meanwhile, on other cores.
    begun = [Child.begin("gateway.scorer") for _ in range(settings.scorers or available_cores())]
    # Nothing that is imported is garbage, and looking for some takes a tenth of the time.
    gc.disable()
    from gateway.supervisor import serve as supervise

    gc.enable()

    return supervise(settings, begun)


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Which gateway: by its state folder, or by what a command line says of one elsewhere."""

    state: Path
    url: str = ""
    token_file: str = ""
    ca: str = ""
    timeout_s: float = 60.0


def connect(where: Where, environ: Mapping[str, str]) -> Remote:
    """A running gateway's management listener. Errors: RemoteError."""
    from gateway.cli.remote import Remote, target_of

    target = target_of(where.state, environ, url=where.url, token_file=where.token_file, ca=where.ca)
    return Remote(target, timeout_s=where.timeout_s)


@contextlib.contextmanager
def answered(code: int = FAILED) -> Iterator[None]:
    """What a gateway refuses, and what is wrong with a folder, become a command's error; not found has its code."""
    from gateway.cli.remote import RemoteError
    from gateway.controlplane.folder import FolderError

    try:
        yield
    except FolderError as error:
        raise CommandError(*error.problems, code=code) from error
    except RemoteError as error:
        is_missing = error.status == HTTPStatus.NOT_FOUND and code == FAILED
        raise CommandError(*error.lines, code=NOT_FOUND if is_missing else code) from error


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
    ask: Callable[[Path, str, float], Reply] = ask
    connect: Callable[[Where, Mapping[str, str]], Remote] = connect
    check: Callable[[Path, Settings], Checked] = check
    bench: Callable[[str, Mapping[str, object], Mapping[str, str]], int] = bench
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
