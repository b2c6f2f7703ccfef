"""Environments on the disk: one virtual environment for each content, built once, kept while it is used.

    STATE/environments/DIGEST/    python in bin/, `build.log` beside it

Built beside, under another name, and renamed when it is whole, so what has its name can be used. With `uv` where that
is installed, else with venv and pip, by the interpreter that was asked for. A build has a bound on time and disk, no
variable of the gateway's own, and a process group that ends with it.
Units: *_s seconds, *_bytes bytes.
Ownership: whoever uses an environment names it to `collect`; what is being built is kept by itself.
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
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TextIO

from gateway.environments.recipe import EnvironmentRefused, Recipe, recipe_of
from gateway.resources import ScriptEnvironment

log = logging.getLogger(__name__)

LOG_NAME = "build.log"
_LOG_BYTES_MAX = 4 * 1024 * 1024
_SAID_LINES = 3
_LAST_BYTES = 64 * 1024
_CHUNK = 64 * 1024
_LOOK_EVERY_S = 2.0
_LAST_WORDS_S = 1.0
_PROBE_S = 10.0

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
        if not recipe.requirements and not recipe.python:
            return Environment(python=Path(sys.executable), notes=recipe.notes)
        python, notes = await _interpreter(recipe.python)
        digest = _digest(recipe, python)
        # Again: it may be collected between the end of a build and the turn of whoever waited for it.
        while not (self._folder / digest / "bin" / "python").exists():
            await self._built(digest, recipe, python, say)
        return Environment(
            python=self._folder / digest / "bin" / "python", digest=digest, notes=(*recipe.notes, *notes)
        )

    async def collect(self, in_use: Collection[str]) -> int:
        """Remove what is neither used nor being built; how many went. Decided before anything is awaited."""
        if not self._folder.is_dir():
            return 0
        kept = {*in_use, *self._building, *map(_unfinished, self._building)}
        doomed = [one for one in self._folder.iterdir() if one.name not in kept]
        # Out of the way at once, so that nobody finds half of one.
        removed = Path(tempfile.mkdtemp(prefix="removed-", dir=self._folder)) if doomed else self._folder
        for one in doomed:
            one.rename(removed / one.name)
        if doomed:
            await asyncio.to_thread(shutil.rmtree, removed, ignore_errors=True)
        return len(doomed)

    async def close(self) -> None:
        tasks = list(self._building.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _built(self, digest: str, recipe: Recipe, python: Path, say: Say) -> None:
        """Whoever asks for what is being built waits for that."""
        task = self._building.get(digest)
        if task is None:
            task = self._building[digest] = asyncio.create_task(self._build(digest, recipe, python, say))
            task.add_done_callback(partial(self._ended, digest))
        await asyncio.shield(task)

    def _ended(self, digest: str, task: asyncio.Task[None]) -> None:
        del self._building[digest]
        if not task.cancelled() and task.exception() is not None:
            log.warning("environment %s: %s", digest, task.exception())

    async def _build(self, digest: str, recipe: Recipe, python: Path, say: Say) -> None:
        place = self._folder / _unfinished(digest)
        try:
            await asyncio.to_thread(_clear, place)
            (place / "requirements.txt").write_text("".join(f"{line}\n" for line in recipe.requirements))
            async with asyncio.timeout(self._limits.build_timeout_s):
                for command in _commands(place, python):
                    await self._run(command, place, say)
            # What has the name already is no environment: nobody would build it again.
            await asyncio.to_thread(shutil.rmtree, self._folder / digest, ignore_errors=True)
            # The scripts beside the interpreter name the folder that is renamed now; nobody calls them.
            place.rename(self._folder / digest)
        except TimeoutError as error:
            raise EnvironmentRefused(
                "ImageBuildFailure",
                f"the environment was not built within {self._limits.build_timeout_s:g} s "
                f"(setting environment_build_timeout_s){_last(place)}",
            ) from error
        except OSError as error:
            raise EnvironmentRefused(
                "ImageBuildFailure", f"the environment cannot be built: {error.strerror or error}"
            ) from error
        finally:
            await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)

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
        copying = asyncio.create_task(_copy(process, place / LOG_NAME, say))
        watching = asyncio.create_task(self._watch(place, process))
        ended = asyncio.create_task(process.wait())
        try:
            await asyncio.wait({copying, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not watching.done():
                # It may run on without its output.
                await asyncio.wait({ended, watching}, return_when=asyncio.FIRST_COMPLETED)
            # What outlives the installer and keeps its output open is ended, or not waited for.
            _end(process)
            await asyncio.wait({copying, ended}, timeout=_LAST_WORDS_S)
        finally:
            for task in (copying, watching, ended):
                task.cancel()
            await _gone(process)
        if await asyncio.to_thread(_size, place) > self._limits.bytes_max:
            raise EnvironmentRefused(
                "ImageBuildFailure",
                f"the environment takes more than {self._limits.bytes_max} bytes (setting environment_max_bytes)",
            )
        if process.returncode != 0:
            raise EnvironmentRefused("ImageBuildFailure", f"the environment cannot be built{_last(place)}")

    async def _watch(self, place: Path, process: asyncio.subprocess.Process) -> None:
        """Returns once it has ended, or takes too much of the disk."""
        while process.returncode is None:
            await asyncio.sleep(_LOOK_EVERY_S)
            if await asyncio.to_thread(_size, place) > self._limits.bytes_max:
                return


def _unfinished(digest: str) -> str:
    return f"unfinished-{digest}"


def _clear(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700, parents=True)


def _digest(recipe: Recipe, python: Path) -> str:
    """Of what is installed, and of the interpreter that it is for."""
    said = "\n".join([str(python.resolve()), *recipe.requirements])
    return hashlib.sha256(said.encode()).hexdigest()[:32]


async def _interpreter(version: str) -> tuple[Path, tuple[str, ...]]:
    """The interpreter of this version, or the gateway's own and a note."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if version in ("", own, str(sys.version_info.major)):
        return Path(sys.executable), ()
    found = shutil.which(f"python{version}")
    if found is not None and await _says(found, version):
        return Path(found), ()
    return Path(sys.executable), (f"python={version} is not on this machine; the gateway's own {own} is used",)


async def _says(python: str, version: str) -> bool:
    """Whether it is that version: version managers leave commands that only tell what is not installed."""
    process = await asyncio.create_subprocess_exec(
        *(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"),
        env={"PATH": os.environ.get("PATH", os.defpath)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_PROBE_S):
            said, _ = await process.communicate()
    except TimeoutError:
        return False
    finally:
        await _gone(process)
    return said.decode("utf-8", "replace").strip() == version


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
    given = {
        name: value
        for name, value in os.environ.items()
        # Proxies are written in either case.
        if name in kept or name.upper() in kept[-3:] or name.startswith(("PIP_", "UV_"))
    }
    return {**given, "HOME": os.environ.get("HOME", str(place)), "TMPDIR": str(place), "PYTHONNOUSERSITE": "1"}


async def _copy(process: asyncio.subprocess.Process, path: Path, say: Say) -> None:
    """The build's lines into its log, as far as that may grow."""
    assert process.stdout is not None
    size = 0
    begun = b""
    with path.open("a", encoding="utf-8") as file:
        while chunk := await process.stdout.read(_CHUNK):
            # A line may have any length; what is longer than a chunk is cut.
            *lines, begun = (begun + chunk).split(b"\n")
            if len(begun) > _CHUNK:
                lines, begun = [*lines, begun], b""
            for line in lines:
                size += _note(line, file, say) if size < _LOG_BYTES_MAX else 0
            file.flush()
        if begun:
            _note(begun, file, say)


def _note(line: bytes, file: TextIO, say: Say) -> int:
    text = line.decode("utf-8", "replace").rstrip()
    file.write(f"{text}\n")
    say(text)
    return len(line) + 1


async def _gone(process: asyncio.subprocess.Process) -> None:
    """Ended, waited for, and its pipes closed: whoever inherited them may hold them for ever."""
    _end(process)
    await process.wait()
    transport: asyncio.SubprocessTransport = process._transport  # type: ignore[attr-defined]
    transport.close()


def _end(process: asyncio.subprocess.Process) -> None:
    """The whole group: an installer's own children, too."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _last(place: Path) -> str:
    try:
        with (place / LOG_NAME).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line for line in text.splitlines() if line.strip()]
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
