"""One measurement: a peer's door under load, who used the processors meanwhile, and whether its answers are right.

Units: *_us microseconds, *_s seconds; `others` and `generator` in cores. A request carries one row.
Errors: WrongAnswer; GeneratorFailed where a child that measures ends or is silent.
"""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import busy_s
from bench.peers.models import Model
from bench.peers.peer import Door, Peer
from bench.peers.processes import Running
from bench.peers.wires import Address, Reply, WrongAnswer, read

ROOT = Path(__file__).resolve().parents[2]
ANSWER_WITHIN_S = 20.0
# A measurement may take this much longer than it was told to: connections open, the last answers come.
GRACE_S = 60.0
# So many rows are checked at once, so that a batch that mixes its rows up is found.
CHECKED_AT_ONCE = 16
TOLERANCE = 1e-4


class GeneratorFailed(Exception):
    """A child that measures gave no result."""


class Child:
    """A process that takes a JSON job a line and answers with a line."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._name = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )

    def ask(self, job: Mapping[str, Any], within_s: float) -> dict[str, Any]:
        """Errors: GeneratorFailed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise GeneratorFailed(f"{self._name} has ended") from error
        ready, _, _ = select.select([self._process.stdout], [], [], within_s)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise GeneratorFailed(f"{self._name} gave no answer within {within_s:.0f} s")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise GeneratorFailed(answer["failed"])
        return answer

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One row of a table: a running peer's door, with the requests made ready."""

    label: str
    peer: Peer
    door: Door
    model: Model
    port: int
    running: Running
    requests: tuple[bytes, ...]


def make_target(
    peer: Peer, door: Door, model: Model, port: int, running: Running, headers: Mapping[str, str]
) -> Target:
    address = Address(
        path=door.path.format(model=model.name), input=model.input, output=model.output, headers=headers
    )
    return Target(
        label=f"{peer.name} {door.wire.name}",
        peer=peer,
        door=door,
        model=model,
        port=port,
        running=running,
        requests=tuple(door.wire.request(address, row) for row in model.rows),
    )


def exchange(port: int, request: bytes, within_s: float = ANSWER_WITHIN_S) -> Reply:
    """One request over a connection of its own. Errors: OSError, HTTPException."""
    with socket.create_connection(("127.0.0.1", port), timeout=within_s) as connection:
        connection.sendall(request)
        answer = HTTPResponse(connection, method="POST")
        answer.begin()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(status=answer.status, headers=headers, body=answer.read())


def amiss(target: Target) -> str:
    """What is wrong with the first row's answer; empty where nothing is."""
    try:
        _check_row(target, 0)
    except (OSError, HTTPException, WrongAnswer) as error:
        return str(error) or repr(error)
    return ""


def check(target: Target) -> None:
    """Every row of the check set, many at once. Errors: WrongAnswer."""
    with ThreadPoolExecutor(CHECKED_AT_ONCE) as pool:
        for error in pool.map(lambda row: _row_error(target, row), range(len(target.requests))):
            if error:
                raise WrongAnswer(error)


def _row_error(target: Target, row: int) -> str:
    try:
        _check_row(target, row)
    except (OSError, HTTPException, WrongAnswer) as error:
        return f"row {row}: {error or repr(error)}"
    return ""


def _check_row(target: Target, row: int) -> None:
    found = read(target.door.wire, exchange(target.port, target.requests[row]), target.model.output)
    wanted = target.model.answers[row]
    if not target.peer.checked:
        return
    if found.shape != wanted.shape or not np.allclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE):
        raise WrongAnswer(f"the answer is {found[:4]}; onnxruntime gives {wanted[:4]}")


def measure(target: Target, generator: Child, connections: int, seconds: float, warm_up_s: float) -> dict[str, Any]:
    """One round of one row. Errors: GeneratorFailed."""
    job = {
        "port": target.port,
        "requests": [base64.b64encode(request).decode() for request in target.requests],
        "connections": connections,
        "warm_up_s": warm_up_s,
        "seconds": seconds,
    }
    served_s, ours_s, all_s, began_s = target.running.cpu_s(), _own_s(), busy_s(), time.monotonic()
    result = generator.ask(job, warm_up_s + seconds + GRACE_S)
    wall_s = time.monotonic() - began_s
    served_s, ours_s = target.running.cpu_s() - served_s, _own_s() - ours_s
    others_s = (busy_s() or 0.0) - (all_s or 0.0) - served_s - ours_s - result["cpu_s"]
    return {
        "rate": result["rate"],
        "p50_us": result["p50_us"],
        "p99_us": result["p99_us"],
        "starvation": result["starvation"],
        "cpu_us": served_s / max(1, result["answers"]) * 1e6,
        "cores": served_s / wall_s,
        "generator": result["cpu_s"] / result["wall_s"],
        "others": max(0.0, others_s) / wall_s,
        "refused": result["lost"] + sum(result["refused"].values()),
        "reopened": result["reopened"],
    }


def measure_raw(raw: Child, seconds: float) -> dict[str, Any]:
    """One round of bare onnxruntime. Errors: GeneratorFailed."""
    raw_s, ours_s, all_s, began_s = raw.cpu_s(), _own_s(), busy_s(), time.monotonic()
    result = raw.ask({"seconds": seconds}, seconds + GRACE_S)
    wall_s = time.monotonic() - began_s
    others_s = (busy_s() or 0.0) - (all_s or 0.0) - (raw.cpu_s() - raw_s) - (_own_s() - ours_s)
    return {**result, "others": max(0.0, others_s) / wall_s}


def idle_cores(targets: Sequence[Running], seconds: float) -> list[float]:
    """What each uses while nobody asks anything of it."""
    before = [one.cpu_s() for one in targets]
    time.sleep(seconds)
    return [(one.cpu_s() - used) / seconds for one, used in zip(targets, before, strict=True)]


def _own_s() -> float:
    return time.process_time()
