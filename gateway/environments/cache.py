"""Environments on the disk: one virtual environment for each content, built once, kept while it is used.

    STATE/environments/DIGEST/    python in bin/, `build.log` beside it; one that conda made: in env/bin/

Built beside, under another name, and renamed when it is whole, so what has its name can be used; what conda makes
cannot be moved, and has a file `unfinished` beside it until it is whole. With `uv` where that is installed, else with
venv and pip, by the interpreter that was asked for; with micromamba or conda where only those have what is asked for.
Where scripts are shut in, so is what they ask for: then of wheels alone (`wheels_only`), which run nothing.
A build has a bound on time and disk, no variable of the gateway's own, and a process group that ends with it.
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

from gateway.environments import conda, wheels
from gateway.environments.recipe import EnvironmentRefused, Recipe, recipe_of, wheels_only
from gateway.resources import ScriptEnvironment

log = logging.getLogger(__name__)

LOG_NAME, UNFINISHED = "build.log", "unfinished"
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
    """`wheels_only`: building runs no code of whoever asks for it, for nothing is built but what is laid out."""

    wheels_only: bool = False
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
        program = conda.tool() if recipe.conda else None
        if self._limits.wheels_only:
            recipe = wheels_only(recipe, has_tool=program is not None)
        if program is not None:
            plan, notes = _conda_plan(recipe, program), recipe.notes
        elif not recipe.requirements and not recipe.python:
            return Environment(python=Path(sys.executable), notes=(*recipe.notes, *recipe.left_out))
        else:
            python, said = await _interpreter(recipe.python)
            plan = _venv_plan(recipe, python, self._limits.wheels_only)
            notes = (*recipe.notes, *recipe.left_out, *said)
        # Again: it may be collected between the end of a build and the turn of whoever waited for it.
        while not self._is_whole(plan):
            await self._built(plan, say)
        return Environment(python=self._folder / plan.digest / plan.python, digest=plan.digest, notes=notes)

    def _is_whole(self, plan: _Plan) -> bool:
        place = self._folder / plan.digest
        return (place / plan.python).exists() and not (place / UNFINISHED).exists()

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

    async def _built(self, plan: _Plan, say: Say) -> None:
        """Whoever asks for what is being built waits for that."""
        task = self._building.get(plan.digest)
        if task is None:
            task = self._building[plan.digest] = asyncio.create_task(self._build(plan, say))
            task.add_done_callback(partial(self._ended, plan.digest))
        await asyncio.shield(task)

    def _ended(self, digest: str, task: asyncio.Task[None]) -> None:
        del self._building[digest]
        if not task.cancelled() and task.exception() is not None:
            log.warning("environment %s: %s", digest, task.exception())

    async def _build(self, plan: _Plan, say: Say) -> None:
        final = self._folder / plan.digest
        place = final if plan.stays else self._folder / _unfinished(plan.digest)
        is_whole = False
        try:
            await asyncio.to_thread(_clear, place)
            (place / UNFINISHED).touch()
            for name, text in plan.files.items():
                (place / name).write_text(text)
            async with asyncio.timeout(self._limits.build_timeout_s):
                for command in plan.commands(place):
                    await self._run(command, place, say)
            if not (place / plan.python).exists():
                raise EnvironmentRefused("ImageBuildFailure", f"the environment has no python{_last(place)}")
            await asyncio.to_thread(_finish, place, final)
            is_whole = True
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
            if not is_whole:
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
            if copying.done():
                # What is not read any more would wait for its reader.
                copying.result()
            if not watching.done():
                # It may run on without its output.
                await asyncio.wait({ended, watching}, return_when=asyncio.FIRST_COMPLETED)
            # What outlives the installer and keeps its output open is ended, or not waited for.
            _end(process)
            await asyncio.wait({copying, ended}, timeout=_LAST_WORDS_S)
            if copying.done():
                copying.result()
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """How one is built: by which commands in a folder with which files, and where its interpreter is then. `stays`:
    it cannot be moved."""

    digest: str
    files: dict[str, str]
    commands: Callable[[Path], list[list[str]]]
    python: Path = Path("bin/python")
    stays: bool = False


def _venv_plan(recipe: Recipe, python: Path, is_of_wheels: bool) -> _Plan:
    return _Plan(
        # What was built while anything might run is not taken for what is made of wheels alone.
        digest=_digest(*(("wheels",) if is_of_wheels else ()), str(python.resolve()), *recipe.requirements),
        files={"requirements.txt": "".join(f"{line}\n" for line in recipe.requirements)},
        commands=lambda place: [list(one) for one in _commands(place, python, is_of_wheels)],
    )


def _conda_plan(recipe: Recipe, program: str) -> _Plan:
    return _Plan(
        digest=_digest(conda.FILE_NAME, recipe.conda),
        files={conda.FILE_NAME: recipe.conda},
        commands=lambda place: [conda.command(program, place)],
        python=Path(conda.PREFIX) / "bin" / "python",
        stays=True,
    )


def _finish(place: Path, final: Path) -> None:
    """From now on it can be used. Blocks."""
    shutil.rmtree(place / conda.ROOT, ignore_errors=True)
    if place != final:
        # What has the name already is no environment: nobody would build it again.
        shutil.rmtree(final, ignore_errors=True)
    (place / UNFINISHED).unlink()
    # The scripts beside the interpreter name the folder that is renamed now; nobody calls them.
    place.rename(final)


def _unfinished(digest: str) -> str:
    return f"unfinished-{digest}"


def _clear(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700, parents=True)


def _digest(*said: str) -> str:
    """Of what is installed, what it is for, and how."""
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:32]


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


def _commands(place: Path, python: Path, is_of_wheels: bool = False) -> list[list[str]]:
    uv = shutil.which("uv")
    inside = str(place / "bin" / "python")
    wanted = ["--requirement", str(place / "requirements.txt"), *(wheels.OPTIONS if is_of_wheels else ())]
    if uv is not None:
        return [
            [uv, "venv", "--quiet", "--allow-existing", "--python", str(python), str(place)],
            [uv, "pip", "install", "--quiet", "--python", inside, *wanted],
        ]
    pip = ["-I", str(Path(wheels.__file__))] if is_of_wheels else ["-m", "pip"]
    return [
        [str(python), "-m", "venv", str(place)],
        [inside, *pip, "install", "--disable-pip-version-check", "--no-input", *wanted],
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
    own = {"HOME": os.environ.get("HOME", str(place)), "TMPDIR": str(place), "PYTHONNOUSERSITE": "1"}
    return {**given, **conda.variables(place), **own}


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
    """A file counts once, under however many names."""
    total = 0
    shared: set[int] = set()
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                found = os.lstat(os.path.join(place, name))  # noqa: PTH118 - a hundred thousand of them
                if found.st_nlink > 1 and found.st_ino in shared:
                    continue
                shared.add(found.st_ino)
                total += found.st_size
    return total
