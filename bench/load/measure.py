"""One case in one round: the bare model, then the gateway in front of it, at one connection and at many.

Units: *_us microseconds, *_s seconds, rates in rows a second (a request carries one row).
Errors: GeneratorFailed where the generator's process ends badly.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bench import machine
from bench.load.bare import Bare
from bench.load.gateway_process import Running
from bench.load.models import Served
from bench.load.requests import Target, requests

ROOT = Path(__file__).resolve().parents[2]
GENERATOR_GRACE_S = 30.0
TOLERANCE = 1e-3


class GeneratorFailed(Exception):
    """The load generator gave no result."""


class WrongAnswer(Exception):
    """The gateway's answer is not what onnxruntime says: nothing measured on it would mean anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How long each measurement takes, and on which cores; an empty list means all of them."""

    seconds: float
    warm_up_s: float
    bare_s: float
    connections: int
    generator_cores: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A deployment and a wire format, with the requests made ready."""

    served: Served
    wire: str
    bare: Bare
    requests: tuple[bytes, ...]

    @property
    def label(self) -> str:
        return f"{self.served.label} {self.wire}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one round saw of one case. `refused` counts answers other than 200, and lost connections."""

    bare_p50_us: float
    bare_p99_us: float
    bare_rate: float
    one_p50_us: float
    one_p99_us: float
    rate: float
    many_p50_us: float
    many_p99_us: float
    gateway_cpu_us: float
    others_cores: float
    refused: int

    @property
    def added_p50_us(self) -> float:
        return self.one_p50_us - self.bare_p50_us

    @property
    def added_p99_us(self) -> float:
        return self.one_p99_us - self.bare_p99_us

    @property
    def ratio(self) -> float:
        return self.rate / self.bare_rate


def make_case(served: Served, wire: str, bare: Bare, key: str) -> Case:
    target = Target(
        endpoint=served.endpoint,
        deployment=served.deployment,
        key=key,
        input=served.input,
        outputs=served.outputs,
    )
    return Case(served=served, wire=wire, bare=bare, requests=tuple(requests(target, served.rows, wire)))


def check_answer(case: Case, gateway: Running) -> None:
    """The first row through the gateway equals the first row of the bare session. Errors: WrongAnswer."""
    head, _, body = case.requests[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    scheme = "https" if gateway.ca else "http"
    url = f"{scheme}://{gateway.host}:{gateway.port}{first.split()[1]}"
    with httpx.Client(verify=gateway.ca or True, trust_env=False) as client:
        answer = client.post(url, content=body, headers={**headers, "host": gateway.host})
    if answer.status_code != 200:
        raise WrongAnswer(f"{case.label}: status {answer.status_code}: {answer.text[:500]}")
    for name, found, wanted in zip(
        case.served.outputs, _outputs(case, answer), case.bare.first_outputs(), strict=True
    ):
        if not np.allclose(found, wanted.ravel(), atol=TOLERANCE):
            raise WrongAnswer(f"{case.label}: output {name!r} is {found}; onnxruntime gives {wanted.ravel()}")


def _outputs(case: Case, answer: httpx.Response) -> list[np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    if case.wire == "json":
        decoded = answer.json()
        names = case.served.outputs
        return [np.ravel(decoded[name] if len(names) > 1 else decoded) for name in names]
    length = int(answer.headers["inference-header-content-length"])
    header, rest = json.loads(answer.content[:length]), answer.content[length:]
    found = []
    for output in header["outputs"]:
        size = output["parameters"]["binary_data_size"]
        found.append(np.frombuffer(rest[:size], {"FP32": "<f4", "INT64": "<i8"}[output["datatype"]]))
        rest = rest[size:]
    return found


def measure(case: Case, gateway: Running, settings: Settings) -> Sample:
    bare = case.bare.one_by_one(settings.bare_s)
    one, _, _ = _generate(case, gateway, settings, connections=1)
    bare_rate = case.bare.rate(settings.bare_s)
    many, cpu_us, others = _generate(case, gateway, settings, connections=settings.connections)
    refused = sum(
        result["lost"] + sum(n for status, n in result["statuses"].items() if status != "200")
        for result in (one, many)
    )
    return Sample(
        bare_p50_us=bare.p50_us,
        bare_p99_us=bare.p99_us,
        bare_rate=bare_rate,
        one_p50_us=one["p50_us"],
        one_p99_us=one["p99_us"],
        rate=many["rate"],
        many_p50_us=many["p50_us"],
        many_p99_us=many["p99_us"],
        gateway_cpu_us=cpu_us,
        others_cores=others,
        refused=refused,
    )


def _generate(
    case: Case, gateway: Running, settings: Settings, *, connections: int
) -> tuple[dict[str, Any], float, float]:
    """The generator's result, the gateway's processor time an answer (us), and the cores that others used."""
    job = {
        "host": gateway.host,
        "port": gateway.port,
        "ca": gateway.ca,
        "requests": [base64.b64encode(request).decode() for request in case.requests],
        "connections": connections,
        "warm_up_s": settings.warm_up_s,
        "seconds": settings.seconds,
        "cores": settings.generator_cores,
    }
    gateway_before, busy_before = machine.tree_s(gateway.pid), machine.busy_s()
    result = run_generator(job)
    gateway_after, busy_after = machine.tree_s(gateway.pid), machine.busy_s()
    if None in (gateway_before, gateway_after, busy_before, busy_after):
        return result, float("nan"), float("nan")
    assert gateway_before is not None and gateway_after is not None
    assert busy_before is not None and busy_after is not None
    gateway_s = gateway_after - gateway_before
    # The warm-up's answers are not counted, but paid: the share that was counted is taken.
    counted = settings.seconds / (settings.seconds + settings.warm_up_s)
    others_s = busy_after - busy_before - gateway_s - result["cpu_s"] - result["start_cpu_s"]
    return (
        result,
        gateway_s * counted / max(1, result["answers"]) * 1e6,
        max(0.0, others_s) / (settings.seconds + settings.warm_up_s),
    )


def run_generator(job: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.load.generator"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=job["warm_up_s"] + job["seconds"] + GENERATOR_GRACE_S,
        check=False,
    )
    if done.returncode != 0:
        raise GeneratorFailed(
            f"the load generator ended with {done.returncode}; its last words:\n{done.stderr[-2000:]}"
        )
    result: dict[str, Any] = json.loads(done.stdout)
    return result
