"""Environments on the disk: one virtual environment for each content, built once, kept while it is used.

    STATE/environments/DIGEST/    python in bin/, `build.log` beside it

Built beside, under another name, and renamed when it is whole, so what has its name can be used. With `uv` where that
is installed, else with venv and pip, by the interpreter that was asked for. A build has a bound on time and disk, no
variable of the gateway's own, and a process group that ends with it.
Units: *_s seconds, *_bytes bytes.
Errors: EnvironmentRefused, whose message ends with what the build said last.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.environments.recipe import EnvironmentRefused, Recipe, recipe_of
from gateway.resources import ScriptEnvironment

log = logging.getLogger(__name__)

LOG_NAME = "build.log"
_LOG_BYTES_MAX = 4 * 1024 * 1024
_SAID_LINES = 3
_LOOK_EVERY_S = 2.0

Say = Callable[[str], None]


class Contents(Protocol):
    def path_of(self, sha256: str) -> Path: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """An interpreter to start workers with. `digest` "": the gateway's own."""

    python: Path
    digest: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentLimits:
    build_timeout_s: float = 1800.0
    bytes_max: int = 20 * 1024**3


class Environments:
    """One folder of them. Used from one loop."""

    def __init__(self, folder: Path, contents: Contents, limits: EnvironmentLimits) -> None:
        self._folder = folder
        self._contents = contents
        self._limits = limits
        self._building: dict[str, asyncio.Task[None]] = {}

    async def get(self, environment: ScriptEnvironment, say: Say) -> Environment:
        """The environment, built if it is not there. `say` gets the build's lines. Errors: EnvironmentRefused."""
        recipe = recipe_of(environment, lambda digest: self._contents.path_of(digest).read_bytes())
        python, notes = _interpreter(recipe.python)
        if not recipe.requirements and not recipe.python:
            return Environment(python=Path(sys.executable), notes=recipe.notes)
        digest = _digest(recipe, python)
        if not (self._folder / digest / "bin" / "python").exists():
            await self._built(digest, recipe, python, say)
        return Environment(
            python=self._folder / digest / "bin" / "python", digest=digest, notes=(*recipe.notes, *notes)
        )

    def collect(self, in_use: Collection[str]) -> int:
        """Remove what is neither used nor being built; how many went. Blocks."""
        if not self._folder.is_dir():
            return 0
        kept = {*in_use, *self._building}
        doomed = [one for one in self._folder.iterdir() if one.name not in kept]
        for one in doomed:
            shutil.rmtree(one, ignore_errors=True)
        return len(doomed)

    async def close(self) -> None:
        for task in self._building.values():
            task.cancel()
        await asyncio.gather(*self._building.values(), return_exceptions=True)

    async def _built(self, digest: str, recipe: Recipe, python: Path, say: Say) -> None:
        """Whoever asks for what is being built waits for that."""
        task = self._building.get(digest)
        if task is None:
            task = self._building[digest] = asyncio.create_task(self._build(digest, recipe, python, say))
            task.add_done_callback(lambda _: self._building.pop(digest, None))
        await asyncio.shield(task)

    async def _build(self, digest: str, recipe: Recipe, python: Path, say: Say) -> None:
        place = self._folder / f"unfinished-{digest}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700, parents=True)
        try:
            (place / "requirements.txt").write_text("".join(f"{line}\n" for line in recipe.requirements))
            async with asyncio.timeout(self._limits.build_timeout_s):
                for command in _commands(place, python):
                    await self._run(command, place, say)
            # The scripts beside the interpreter name the folder that is renamed now; nobody calls them.
            place.rename(self._folder / digest)
        except TimeoutError as error:
            raise EnvironmentRefused(
                "ImageBuildFailure",
                f"the environment was not built within {self._limits.build_timeout_s:g} s "
                f"(setting environment_build_timeout_s){_last(place)}",
            ) from error
        finally:
            shutil.rmtree(place, ignore_errors=True)

    async def _run(self, command: Sequence[str], place: Path, say: Say) -> None:
        say(" ".join(command))
        process = await asyncio.create_subprocess_exec(
            *command,
            env=_variables(place),
            cwd=place,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        watching = asyncio.create_task(self._watch(place, process))
        try:
            await _copy(process, place / LOG_NAME, say)
            status = await process.wait()
        finally:
            watching.cancel()
            _end(process)
        if status:
            raise EnvironmentRefused("ImageBuildFailure", f"the environment cannot be built{_last(place)}")

    async def _watch(self, place: Path, process: asyncio.subprocess.Process) -> None:
        """Ends a build that takes too much of the disk."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            size = await asyncio.to_thread(_size, place)
            if size > self._limits.bytes_max:
                with (place / LOG_NAME).open("a") as file:
                    file.write(f"it takes more than {self._limits.bytes_max} bytes (setting environment_max_bytes)\n")
                _end(process)
                return


def _digest(recipe: Recipe, python: Path) -> str:
    """Of what is installed, and of the interpreter that it is for."""
    said = "\n".join([str(python.resolve()), *recipe.requirements])
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def _interpreter(version: str) -> tuple[Path, tuple[str, ...]]:
    """The interpreter of this version, or the gateway's own and a note."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if version in ("", own, str(sys.version_info.major)):
        return Path(sys.executable), ()
    found = shutil.which(f"python{version}")
    if found is not None:
        return Path(found), ()
    return Path(sys.executable), (f"python={version} is not on this machine; the gateway's own {own} is used",)


def _commands(place: Path, python: Path) -> list[list[str]]:
    uv = shutil.which("uv")
    inside = str(place / "bin" / "python")
    requirements = str(place / "requirements.txt")
    if uv is not None:
        return [
            [uv, "venv", "--quiet", "--allow-existing", "--python", str(python), str(place)],
            [uv, "pip", "install", "--quiet", "--python", inside, "--requirement", requirements],
        ]
    return [
        [str(python), "-m", "venv", str(place)],
        [inside, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--requirement", requirements],
    ]


def _variables(place: Path) -> dict[str, str]:
    """What a build finds set: the way out, and where packages come from; nothing of the gateway's own."""
    kept = ("PATH", "LANG", "LC_ALL", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
    given = {name: value for name, value in os.environ.items() if name in kept or name.startswith(("PIP_", "UV_"))}
    return {**given, "HOME": os.environ.get("HOME", str(place)), "TMPDIR": str(place), "PYTHONNOUSERSITE": "1"}


async def _copy(process: asyncio.subprocess.Process, path: Path, say: Say) -> None:
    """The build's lines into its log, as far as that may grow."""
    assert process.stdout is not None
    size = 0
    with path.open("a", encoding="utf-8") as file:
        while line := await process.stdout.readline():
            text = line.decode("utf-8", "replace").rstrip()
            if size < _LOG_BYTES_MAX:
                size += len(text) + 1
                file.write(f"{text}\n")
                say(text)


def _end(process: asyncio.subprocess.Process) -> None:
    """The whole group: an installer's own children, too."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _last(place: Path) -> str:
    try:
        lines = [line for line in (place / LOG_NAME).read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError:
        return ""
    errors = [line for line in lines if line.startswith("ERROR")] or lines[-_SAID_LINES:]
    said = "; ".join(errors[-_SAID_LINES:])
    return f": {said[:600]}" if said else ""


def _size(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 - a hundred thousand of them
    return total
