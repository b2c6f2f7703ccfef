"""What the figures are measured on: servers and generators, started when first asked for, and ended together by pid.

Placement: servers on one core have the first, the generator has the last; a server on two cores has the first two,
and where the machine has no more, the generator takes its share of them. This process stands on the generator's core.
Errors: StartFailed, NotReady, GeneratorFailed, CannotMeasure, WrongAnswer.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import numpy as np

from bench.client.fleet import Generators
from bench.load import gateway_process
from bench.peers import wires
from bench.peers.catalogue import SERVERS
from bench.peers.measure import TOLERANCE, Child, exchange
from bench.peers.models import Model, make
from bench.peers.processes import await_ready, free_ports, start
from bench.peers.wires import Address, Wire, WrongAnswer

FOREST, MLP = "tabular", "mlp"
READY_WITHIN_S = 20.0
REQUEST_TIMEOUT_S = 10.0
PATHS = {"JSON": "/endpoints/{}/score", "V2 binary": "/v2/models/{}/infer"}
ENDPOINTS, DEPLOYMENTS = 200, ("one", "two", "three")
# The one that gets the traffic stands in the middle.
CHOSEN = f"endpoint-{ENDPOINTS // 2}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Cores; `shared` is where the generator runs beside a server on two cores."""

    one: tuple[int, ...]
    two: tuple[int, ...]
    apart: tuple[int, ...]
    shared: tuple[int, ...]


def place(cores: Sequence[int]) -> Placement:
    """Errors: ValueError with fewer than two cores."""
    if len(cores) < 2:
        raise ValueError(f"the figures are measured on two cores or more; this process may use {len(cores)}")
    rest = tuple(cores[2:])
    return Placement(one=(cores[0],), two=tuple(cores[:2]), apart=(cores[-1],), shared=rest or tuple(cores))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    rounds: int
    seconds: float
    warm_up_s: float
    # Once for each target, before it is measured: batchers that learn have learned then.
    first_s: float
    models: Path
    placement: Placement
    every_core: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """`ca` is empty where there is no TLS."""

    name: str
    pid: int
    port: int
    cores: tuple[int, ...]
    host: str = "127.0.0.1"
    ca: str = ""
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server's door with requests made ready; `label` names it among all."""

    label: str
    server: Server
    requests: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """A gateway to start: endpoint to model; `environment` is settings."""

    models: Mapping[str, str]
    two_cores: bool = False
    tls: bool = False
    deployments: tuple[str, ...] = ("main",)
    environment: Mapping[str, str] = field(default_factory=dict)


KINDS = {
    "plain": _Kind(models={FOREST: FOREST, MLP: MLP}),
    "tls": _Kind(models={FOREST: FOREST}, tls=True),
    "two": _Kind(models={FOREST: FOREST, MLP: MLP}, two_cores=True),
    "single": _Kind(models={CHOSEN: FOREST}),
    "many": _Kind(
        models={f"endpoint-{number}": FOREST for number in range(ENDPOINTS)},
        deployments=DEPLOYMENTS,
        environment={
            "GATEWAY_ENDPOINTS_MAX": str(ENDPOINTS),
            "GATEWAY_DEPLOYMENTS_MAX": str(ENDPOINTS * len(DEPLOYMENTS)),
        },
    ),
}
# Whose keys are asked for: one question takes most of a second.
ASKED = {"many": (CHOSEN,)}


class Stage:
    """`with Stage(...) as stage:`; what it has started ends with it."""

    def __init__(self, settings: Settings, work: Path, runner: asyncio.Runner) -> None:
        self.settings = settings
        self.work = work
        self.runner = runner
        self.best: dict[str, float] = {}
        self._stack = ExitStack()
        self._servers: dict[str, Server] = {}
        self._targets: dict[str, Target] = {}
        self._children: dict[tuple[str, ...], Child] = {}
        self._fleets: dict[str, Generators] = {}

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def model(self, name: str) -> Model:
        return make(self.settings.models, name)

    def gateway(self, name: str) -> Server:
        if name not in self._servers:
            self._servers[name] = self._start_gateway(name, KINDS[name])
        return self._servers[name]

    def bare(self) -> Server:
        """The protocol that answers a constant."""
        if "bare" not in self._servers:
            self._servers["bare"] = self._start_bare()
        return self._servers["bare"]

    def target(
        self,
        kind: str,
        model_name: str,
        wire: Wire,
        *,
        endpoint: str = "",
        headers: Mapping[str, str] | None = None,
        label: str = "",
    ) -> Target:
        """A gateway's door; its first answer is checked against onnxruntime. `headers` replace the key's."""
        name = label or f"{kind} {model_name} {wire.name}"
        if name not in self._targets:
            server, model, endpoint = self.gateway(kind), self.model(model_name), endpoint or model_name
            sent = {"authorization": f"Bearer {server.keys[endpoint]}", **(headers or {})}
            address = Address(
                path=PATHS[wire.name].format(endpoint), input=model.input, output=model.output, headers=sent
            )
            requests = tuple(wire.request(address, row) for row in model.rows)
            self._targets[name] = Target(label=name, server=server, requests=requests)
            if not server.ca and headers is None:
                check(self._targets[name], model, wire)
        return self._targets[name]

    def bare_target(self) -> Target:
        """The same requests as the forest's, answered with a constant."""
        model, server = self.model(FOREST), self.bare()
        address = Address(path="/score", input=model.input, output=model.output)
        requests = tuple(wires.JSON.request(address, row) for row in model.rows)
        return Target(label="bare", server=server, requests=requests)

    def generator_cores(self, server: Server) -> tuple[int, ...]:
        placement = self.settings.placement
        return placement.apart if len(server.cores) == 1 else placement.shared

    def generator(self, server: Server) -> Child:
        return self._child("bench.peers.generator", _listed(self.generator_cores(server)))

    def raw(self, model: str) -> Child:
        """onnxruntime alone, one thread, on the first core."""
        self.model(model)
        return self._child("bench.peers.raw", _listed(self.settings.placement.one), str(self.settings.models), model)

    def fleet(self, target: Target) -> Generators:
        """The generator of `gateway bench`, one process, loaded with a target's requests."""
        if target.label not in self._fleets:
            server = target.server
            load = {
                "address": {
                    "host": server.host,
                    "port": server.port,
                    "tls": bool(server.ca),
                    "ca": server.ca,
                    "insecure": False,
                },
                "requests": [base64.b64encode(request).decode() for request in target.requests],
                "timeout_s": REQUEST_TIMEOUT_S,
                "check": False,
            }
            generators = Generators([load])
            with on_cores(self.generator_cores(server)):
                self.runner.run(generators.__aenter__())
            self._stack.callback(lambda: self.runner.run(generators.__aexit__()))
            self._fleets[target.label] = generators
        return self._fleets[target.label]

    def _child(self, *words: str) -> Child:
        if words not in self._children:
            child = self._children[words] = Child(*words)
            self._stack.callback(child.close)
        return self._children[words]

    def _start_gateway(self, name: str, kind: _Kind) -> Server:
        work = self.work / name
        paths = {model: self.model(model).path for model in set(kind.models.values())}
        write_folder(work / "apply", kind.models, kind.deployments, paths)
        cores = self.settings.placement.two if kind.two_cores else self.settings.placement.one
        print(f"  starting the gateway {name!r} on cores {_listed(cores)}", flush=True)
        with _environment(kind.environment):
            # 0 scorers: the default, one for each core it is given.
            running = self._stack.enter_context(
                gateway_process.serving(work / "apply", work, tls=kind.tls, scorers=0, cores=list(cores))
            )
        return Server(
            name=name,
            pid=running.pid,
            port=running.port,
            cores=cores,
            host=running.host,
            ca=running.ca,
            keys={endpoint: running.key(endpoint) for endpoint in ASKED.get(name, tuple(kind.models))},
        )

    def _start_bare(self) -> Server:
        (port,) = free_ports(1)
        cores = self.settings.placement.one
        command = [sys.executable, str(SERVERS / "bare_server.py")]
        running = start(command, {"PEER_PORT": str(port)}, cores=cores, cwd=self.work, log=self.work / "bare-log.txt")
        self._stack.callback(running.stop)
        await_ready(running, READY_WITHIN_S, lambda: _silent(port))
        return Server(name="bare", pid=running.process.pid, port=port, cores=cores)


def write_folder(
    folder: Path, models: Mapping[str, str], deployments: Sequence[str], paths: Mapping[str, Path]
) -> None:
    """YAML for `gateway serve --apply`: each endpoint has all deployments, traffic on the first; one file a model."""
    folder.mkdir(parents=True)
    for model, path in paths.items():
        shutil.copyfile(path, folder / f"{model}.onnx")
    for endpoint, model in models.items():
        traffic = "".join(f"  {name}: {100 * (name == deployments[0])}\n" for name in deployments)
        (folder / f"{endpoint}.yml").write_text(f"name: {endpoint}\nauth_mode: key\ntraffic:\n{traffic}")
        for name in deployments:
            (folder / f"{endpoint}-{name}.yml").write_text(
                f"name: {name}\nendpoint_name: {endpoint}\nmodel:\n  path: ./{model}.onnx\n  type: custom_model\n"
                "instance_type: Standard_DS3_v2\n"
            )


def check(target: Target, model: Model, wire: Wire) -> None:
    """The first row's answer is onnxruntime's. Errors: WrongAnswer."""
    try:
        found = wires.read(wire, exchange(target.server.port, target.requests[0]), model.output)
    except (OSError, HTTPException) as error:
        raise WrongAnswer(f"{target.label}: {error!r}") from error
    if not np.allclose(found, model.answers[0], rtol=TOLERANCE, atol=TOLERANCE):
        raise WrongAnswer(f"{target.label}: the answer is {found[:4]}; onnxruntime gives {model.answers[0][:4]}")


@contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """What is started inside runs on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def ballast(core: int, count: int) -> Iterator[list[int]]:
    """Processes that only compute, on one core: whatever else runs there gets its share of what is left."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with on_cores([core]):
            for _ in range(count):
                processes.append(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        for name in more:
            os.environ.pop(name)
        os.environ.update({name: before[name] for name in more if name in before})


def _silent(port: int) -> str:
    try:
        exchange(port, b"POST /score HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}", 1.0)
    except (OSError, HTTPException) as error:
        return repr(error)
    return ""


def _listed(cores: Sequence[int]) -> str:
    return ",".join(str(core) for core in cores)
