"""A scoring script in its worker against the same call in place, at bodies of 4 kB: what the way takes.

Both sides do what a scorer and a worker do: frames of a request, of `taken` and of the answer, over real sockets.
"""

from __future__ import annotations

import json
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from runtimes.script.worker_lib.igw_worker import wire
from tests.support.script_worker import Worker, write_script
from tests.support.waiting import PATIENCE_S

SCRIPT = """
import json

def init():
    pass

def run(raw):
    return json.loads(raw)["data"]
"""
BODY = json.dumps({"data": [0.123456789] * 315}).encode()
HEADERS = {"content-type": "application/json", "accept": "*/*", "user-agent": "bench", "x-request-id": "0" * 36}


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    write_script(tmp_path, SCRIPT)
    with Worker(tmp_path) as worker:
        yield worker.ready()


def test_in_place(benchmark: BenchmarkFixture) -> None:
    module: dict[str, Any] = {}
    exec(compile(SCRIPT, "score.py", "exec"), module)
    answer = benchmark(lambda: json.dumps(module["run"](BODY.decode())).encode())
    assert len(answer) > 4000


def test_through_a_worker(benchmark: BenchmarkFixture, worker: Worker) -> None:
    poll = select.poll()
    poll.register(worker.replies, select.POLLIN)

    def call() -> wire.Frame:
        worker.ask(BODY, headers=HEADERS)
        while True:
            assert poll.poll(PATIENCE_S * 1000)
            frame = wire.receive(worker.replies)
            assert frame is not None
            if frame.kind == wire.ANSWER:
                return frame

    assert len(benchmark(call).body) > 4000
