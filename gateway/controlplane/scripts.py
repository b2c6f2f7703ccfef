"""Scripts: the worker processes of script deployments, from what a deployment says to a crew that is ready.

What: code and model become folders of content, the environment is built or found, a crew is started in it and its
`init()` has run; only then can the deployment be published. A crew serves for as long as what is published names its
pool, and a little longer: until every request that it may have taken has its deadline behind it.
Identity: a crew is kept while everything that its processes see is the same; a number of workers is not.
An environment is kept for as long as a crew runs in it or is made for it, or a deployment that is wanted had it last.
Errors: ScriptRefused, with the code that Azure gives such a failure.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Collection, Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from gateway.collection.sink import config as collector_config
from gateway.collection.spec import CollectorSpec
from gateway.controlplane.last_words import last_words
from gateway.controlplane.model_store import ModelStore
from gateway.controlplane.script_batching import with_batching
from gateway.crew import CrewFailed, CrewSpec, Ready
from gateway.environments import Environment, EnvironmentRefused
from gateway.log_stream import LogStreams
from gateway.resources import AssetModel, AssetTree, Deployment, LocalTree, Script, ScriptEnvironment
from runtimes import ScriptSpec

log = logging.getLogger(__name__)

COLLECTOR_FILE = "collector.json"
# What Azure calls what a crew says of itself.
_CODES = {"WorkerEnded": "UserScriptInitFailed", "InitTimedOut": "ResourceNotReady", "SandboxFailed": "BadArgument"}


class ScriptRefused(Exception):
    """The script cannot be served; `code` is the operation's error code, `log` what its worker wrote last."""

    def __init__(self, code: str, message: str, log: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.log = log


class Crews(Protocol):
    """Whoever runs worker processes."""

    async def start(self, spec: CrewSpec) -> Ready:
        """All workers are ready, and every scorer can reach them. Errors: CrewFailed."""
        ...

    async def resize(self, pool: str, workers: int) -> None: ...

    async def stop(self, pool: str, after_s: float) -> None:
        """End them, once that much time is over."""
        ...

    def tail(self, pool: str, lines: int) -> str: ...


class Sink(Protocol):
    """Whoever takes what scripts collect."""

    async def admit(self, name: str, spec: CollectorSpec) -> tuple[str, dict[str, str]]:
        """A secret, and the variables that a worker with it is given."""
        ...

    def forget(self, secret: str) -> None: ...


class Environments(Protocol):
    async def get(self, environment: ScriptEnvironment, say: Any) -> Environment:
        """Errors: EnvironmentRefused."""
        ...

    async def collect(self, in_use: Collection[str]) -> int:
        """Remove all but these, by digest; how many went."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one worker process; 0 for none."""

    memory_bytes: int = 0
    cpu_seconds: int = 0
    files_max: int = 1024
    processes_max: int = 0
    sandbox: str = "none"
    # What a sandboxed worker must not read, and what all of them may, beside their own.
    hidden: tuple[Path, ...] = ()
    hidden_files: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()


@dataclass(slots=True, kw_only=True)
class _Running:
    """`batches`: its script has run_batch()."""

    identity: str
    batches: bool
    spec: ScriptSpec
    timeout_s: float
    trees: tuple[AssetModel, ...]
    environment: str
    # What lets its workers send what they collect; "" where they collect nothing.
    secret: str = ""


class Scripts:
    """One gateway's. Names are "endpoint/deployment"."""

    def __init__(
        self,
        *,
        trees: ModelStore,
        environments: Environments,
        folder: Path,
        limits: Limits,
        version: str = "",
        sink: Sink | None = None,
    ) -> None:
        """`sink`: without, scripts collect nothing."""
        self._sink = sink
        self._trees = trees
        self._environments = environments
        self._folder = folder
        self._limits = limits
        self._version = version
        self.streams = LogStreams()
        self._numbers = itertools.count(1)
        self._served: dict[str, _Running] = {}
        self._ahead: dict[str, _Running] = {}
        self._making: Counter[str] = Counter()
        self._ending: set[asyncio.Task[None]] = set()
        # Digests of environments: what crews run in, or are made for; and what each deployment had last.
        self._held: Counter[str] = Counter()
        self._had: dict[str, str] = {}
        # Of deployments whose last crew could not be made ready: what it wrote, or why there is none.
        self._last_words: dict[str, str] = {}

    def attach(self, crews: Crews) -> None:
        """Whoever runs the processes, which is made once the scorers are."""
        self._crews = crews

    async def ensure(self, name: str, deployment: Deployment) -> ScriptSpec:
        """A crew that is ready for this deployment: the one that serves, or a new one. Errors: ScriptRefused."""
        script = deployment.script
        assert script is not None
        identity = _identity(script)
        for found in (self._ahead.get(name), self._served.get(name)):
            if found is not None and found.identity == identity:
                # Longer waits are for the requests of before and of now alike.
                found.timeout_s = max(found.timeout_s, deployment.request_timeout_ms / 1000)
                return await self._changed(found, deployment)
        self._making[name] += 1
        try:
            running = await self._made(name, deployment, script, identity)
        finally:
            self._making[name] -= 1
        return running.spec

    async def _made(self, name: str, deployment: Deployment, script: Script, identity: str) -> _Running:
        """A new one, ahead of what is served. Errors: ScriptRefused."""
        await self.forget(name)
        try:
            running = await self._start(name, deployment, script, identity)
        except ScriptRefused as error:
            self._last_words[name] = error.log or str(error)
            raise
        self._last_words.pop(name, None)
        # Another one may have been made meanwhile.
        await self.forget(name)
        self._ahead[name] = running
        return running

    async def forget(self, name: str) -> None:
        """End what was made ready and is not served."""
        running = self._ahead.pop(name, None)
        if running is not None:
            # Nobody knows it any more, so it ends even where nobody waits for that.
            await asyncio.shield(self._background(self._end(running, 0.0)))

    def forget_words(self, name: str) -> None:
        """This deployment, or all of this endpoint, is gone or is no script any more: nobody asks why it could not
        start."""
        gone = [one for one in self._last_words if one == name or one.startswith(f"{name}/")]
        for one in gone:
            del self._last_words[one]

    def settle(self, served: Mapping[str, str]) -> None:
        """The pools of all script deployments that are published now; those that were, and are not, end. What is made
        ready for the next change meanwhile stays as it is."""
        for name, pool in served.items():
            ahead = self._ahead.get(name)
            if ahead is not None and ahead.spec.pool == pool:
                before = self._served.get(name)
                self._served[name] = self._ahead.pop(name)
                if before is not None:
                    self._background(self._end(before, before.timeout_s))
        for name in [name for name in self._served if name not in served]:
            running = self._served.pop(name)
            self._last_words.pop(name, None)
            self._background(self._end(running, running.timeout_s))

    def tail(self, name: str, lines: int) -> str | None:
        """The last lines that the workers of a deployment wrote, those that could not start last; None where it has
        none."""
        running = self._ahead.get(name) or self._served.get(name)
        written = self._crews.tail(running.spec.pool, lines) if running is not None else ""
        last = self._last_words.get(name)
        if last is None:
            return written if running is not None else None
        return "\n".join(f"{written}\n{last}".strip("\n").splitlines()[-lines:]) if lines else ""

    async def collect(self, wanted: Collection[str]) -> int:
        """Remove the environments that nothing runs in, and that no wanted deployment had; how many went."""
        self._last_words = {
            name: said for name, said in self._last_words.items() if name in wanted or self.is_running(name)
        }
        self._had = {name: digest for name, digest in self._had.items() if name in wanted or self._runs(name)}
        self.streams.keep_only({*wanted, *(+self._making), *self._ahead, *self._served})
        return await self._environments.collect({*(+self._held), *self._had.values()})

    def is_running(self, name: str) -> bool:
        """Whether workers of it run or are made ready: also of what an apply has not written yet."""
        return self._making[name] > 0 or self._runs(name)

    def _runs(self, name: str) -> bool:
        return name in self._ahead or name in self._served

    async def close(self) -> None:
        for task in self._ending:
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _changed(self, running: _Running, deployment: Deployment) -> ScriptSpec:
        """The same processes, as many as are wanted now and with what their scorers are to know of them."""
        workers = deployment.workers
        if running.spec.workers != workers:
            try:
                await self._crews.resize(running.spec.pool, workers)
            except CrewFailed as error:
                raise _refused(error) from error
        running.spec = with_batching(replace(running.spec, workers=workers), deployment.batching, running.batches)
        return running.spec

    async def _start(self, name: str, deployment: Deployment, script: Script, identity: str) -> _Running:
        trees = tuple(_tree(one) for one in (script.code, script.model) if one is not None)
        environment = await self._environment(name, script)
        self._held[environment.digest] += 1
        secret = ""
        for tree in trees:
            self._trees.hold(tree)
        try:
            roots = [await asyncio.to_thread(self._laid_out, tree) for tree in trees]
            spec = self._crew_spec(name, deployment, script, environment, roots)
            secret, spec = await self._with_collector(name, script, spec)
            ready = await self._crews.start(spec)
        except CrewFailed as error:
            await self._let_go(trees, environment.digest, secret)
            raise _refused(error) from error
        except BaseException:
            await self._let_go(trees, environment.digest, secret)
            raise
        origins = script.variables.get("AML_CORS_ORIGINS", "")
        served = ScriptSpec(
            pool=spec.pool,
            workers=spec.workers,
            swagger=ready.swagger,
            cors_origins=tuple(one.strip() for one in origins.split(",") if one.strip()),
        )
        return _Running(
            identity=identity,
            batches=ready.batches,
            spec=with_batching(served, deployment.batching, ready.batches),
            timeout_s=deployment.request_timeout_ms / 1000,
            trees=trees,
            environment=environment.digest,
            secret=secret,
        )

    async def _with_collector(self, name: str, script: Script, spec: CrewSpec) -> tuple[str, CrewSpec]:
        """The crew with what `Collector(...)` reads in its workers, and the secret by which it is known."""
        if script.collector is None or self._sink is None:
            return "", spec
        if spec.sandbox != "none":
            log.warning("%s: its collections stay empty: the sandbox has no network to send them by", name)
        file = spec.folder / COLLECTOR_FILE
        await asyncio.to_thread(_write_file, file, collector_config(script.collector))
        secret, variables = await self._sink.admit(name, script.collector)
        environment = spec.environment | variables | {"AZUREML_MDC_CONFIG_PATH": str(file)}
        return secret, replace(spec, environment=environment, readable=(*spec.readable, file))

    def _laid_out(self, tree: AssetModel) -> Path:
        """The folder that holds all files of a tree. Blocks. Errors: ScriptRefused."""
        entry = self._trees.take(tree).path
        if not entry.exists():
            raise ScriptRefused("BadArgument", f"the content of {tree.reference} cannot be read; register it again")
        return entry.parents[len(PurePosixPath(tree.entry).parts) - 1]

    async def _environment(self, name: str, script: Script) -> Environment:
        stream = self.streams.of(name)

        def say(line: str) -> None:
            log.info("environment of %s: %s", name, line)
            stream.add("environment", f"{line}\n".encode())

        try:
            found = await self._environments.get(script.environment, say)
        except EnvironmentRefused as error:
            raise ScriptRefused(error.code, str(error)) from error
        self._had[name] = found.digest
        for note in found.notes:
            log.warning("environment of %s: %s", name, note)
            stream.add("environment", f"note: {note}\n".encode())
        return found

    def _crew_spec(
        self,
        name: str,
        deployment: Deployment,
        script: Script,
        environment: Environment,
        roots: list[Path],
    ) -> CrewSpec:
        """`roots`: the folders of the code and of the model, those that there are."""
        code = script.code or script.model
        assert isinstance(code, AssetTree)
        pool = f"{name}#{next(self._numbers)}"
        stream = self.streams.of(name)
        code_dir = roots[0] / code.folder
        variables = {**script.variables, "AML_APP_ROOT": str(code_dir), "AZUREML_SOURCE_DIRECTORY": str(code_dir)}
        if script.code is not None:
            variables["AZUREML_ENTRY_SCRIPT"] = script.scoring_script
        if script.model is not None:
            variables["AZUREML_MODEL_DIR"] = str(roots[-1])
        return CrewSpec(
            pool=pool,
            python=environment.python,
            code_dir=code_dir,
            scoring_script=script.scoring_script,
            environment=variables,
            workers=deployment.workers,
            memory_bytes=self._limits.memory_bytes,
            cpu_seconds=self._limits.cpu_seconds,
            files_max=self._limits.files_max,
            processes_max=self._limits.processes_max,
            sandbox=self._limits.sandbox,
            folder=self._folder / pool.replace("/", "_"),
            init_timeout_s=script.init_timeout_s,
            server_version=self._version,
            readable=(*roots, *self._limits.readable),
            hidden=self._limits.hidden,
            hidden_files=self._limits.hidden_files,
            liveness=script.liveness,
            on_output=lambda slot, data: stream.add(f"worker {slot}", data),
        )

    async def _end(self, running: _Running, after_s: float) -> None:
        try:
            await self._crews.stop(running.spec.pool, after_s)
        finally:
            await self._let_go(running.trees, running.environment, running.secret)

    async def _let_go(self, trees: tuple[AssetModel, ...], environment: str, secret: str) -> None:
        if secret and self._sink is not None:
            self._sink.forget(secret)
        self._held[environment] -= 1
        for tree in trees:
            self._trees.let_go(tree)
        await asyncio.to_thread(self._trees.keep_only, [])

    def _background(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task


def _refused(error: CrewFailed) -> ScriptRefused:
    told = last_words(error.message, error.log, is_told_by_host=error.code not in _CODES)
    return ScriptRefused(_CODES.get(error.code, error.code), told, error.log)


def _write_file(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(text)


def _identity(script: Script) -> str:
    """Of everything that a worker sees."""
    return hashlib.sha256(repr(script).encode()).hexdigest()


def _tree(given: AssetTree | LocalTree) -> AssetModel:
    """The files as one folder of content; a script never sees the content itself, for it may write."""
    assert isinstance(given, AssetTree), "what is served has been registered"
    if not given.files:
        raise ScriptRefused("BadArgument", f"{given.reference} holds no file here; accepted: what has been uploaded")
    prefix = f"{given.folder}/" if given.folder else ""
    files = tuple((f"{prefix}{path}", digest, size) for path, digest, size in given.files)
    return AssetModel(reference=given.reference, files=files, entry=files[0][0])
