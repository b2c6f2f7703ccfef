"""From tensors to answers: the check, submit to reply around a trivial session, and what a session itself costs."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.micro.support import DIGITS, Turns, dense_signature, open_digits, rows
from runtimes import BatchLimits, NullObserver, WorkItem, now_ns
from runtimes.runtime import Runtime
from runtimes.signature import Signature
from runtimes.tensor import Array, Tensors

DEADLINE_NS = 5_000_000_000


class TrivialSession:
    """Gives its input back: what is measured is everything around it."""

    provider = "trivial"

    def __init__(self, signature: Signature) -> None:
        self._signature = signature

    @property
    def signature(self) -> Signature:
        return self._signature

    def run(self, inputs: Tensors, outputs: tuple[str, ...] | None) -> dict[str, Array]:
        return {"y": inputs["x"]}

    def close(self) -> None:
        """Holds nothing."""


def test_check_a_request_against_the_signature(benchmark: BenchmarkFixture) -> None:
    assert benchmark(dense_signature(64, 10).check, {"x": rows(1, 64)}) == 1


def test_the_key_of_a_request(benchmark: BenchmarkFixture) -> None:
    benchmark(dense_signature(64, 10).key, {"x": rows(1, 64)}, None)


@pytest.mark.parametrize("items", [1, 64])
def test_submit_to_reply_inline(benchmark: BenchmarkFixture, items: int) -> None:
    signature, turns = dense_signature(64, 64), Turns()
    runtime = Runtime(
        name="trivial",
        sessions=(TrivialSession(signature),),
        signature=signature,
        limits=BatchLimits(),
        dispatch="inline",
        scheduler=turns,
        observer=NullObserver(),
    )
    inputs = {"x": rows(1, 64)}
    answered: list[WorkItem] = []

    def submit_and_wait() -> int:
        answered.clear()
        for _ in range(items):
            key = signature.key(inputs, None)
            deadline_ns = now_ns() + DEADLINE_NS
            runtime.submit(
                WorkItem(inputs=inputs, rows=1, key=key, outputs=None, deadline_ns=deadline_ns, reply=answered.append)
            )
        turns.run()
        return len(answered)

    assert benchmark(submit_and_wait) == items
    assert all(item.fault is None and item.results is not None for item in answered)
    runtime.close()


@pytest.mark.parametrize("count", [1, 64])
@pytest.mark.parametrize("deployment", ["blue", "green"])
def test_session_run(benchmark: BenchmarkFixture, deployment: str, count: int) -> None:
    model = open_digits(deployment)
    (session,) = model.sessions
    results = benchmark(session.run, {"pixels": rows(count, 64)}, None)
    assert len(results["label"]) == count
    session.close()


@pytest.mark.parametrize("count", [1, 64])
@pytest.mark.parametrize("deployment", ["blue", "green"])
def test_bare_onnxruntime(benchmark: BenchmarkFixture, deployment: str, count: int) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(DIGITS / deployment / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    labels, _ = benchmark(session.run, None, {"pixels": rows(count, 64)})
    assert np.shape(labels) == (count,)
