"""What a mirrored copy costs the loop beside its run: its answer is kept, and compared in a turn of its own."""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from gateway.dataplane.compare import compare, excerpts
from runtimes import Array, Datatype, Signature, TensorSpec

SHAPES = {"1x10": (1, 10), "1x1000": (1, 1000), "64x1000": (64, 1000), "2620x1000": (2620, 1000)}


def _answer(shape: tuple[int, ...], datatype: Datatype) -> tuple[dict[str, Array], Signature]:
    spec = TensorSpec(name="y", datatype=datatype, shape=(-1, -1), batch_axis=0)
    array = (np.random.default_rng(1).random(shape) * 100).astype(datatype.dtype)
    return {"y": array}, Signature(inputs=(), outputs=(spec,))


def _maps(rows: int) -> tuple[dict[str, Array], Signature]:
    spec = TensorSpec(name="y", datatype=Datatype.BYTES, shape=(-1,), batch_axis=0, maps=True)
    array = np.empty(rows, np.object_)
    array[:] = [{"cat": 0.5, "dog": 0.25, "eel": 0.25} for _ in range(rows)]
    return {"y": array}, Signature(inputs=(), outputs=(spec,))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_keep_an_answer(benchmark: BenchmarkFixture, shape: tuple[int, ...]) -> None:
    assert benchmark(excerpts, *_answer(shape, Datatype.FP32))


@pytest.mark.parametrize("datatype", [Datatype.FP32, Datatype.FP16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_compare_numbers(benchmark: BenchmarkFixture, shape: tuple[int, ...], datatype: Datatype) -> None:
    kept = excerpts(*_answer(shape, datatype))
    assert benchmark(compare, kept, kept).difference == 0.0


def test_compare_maps(benchmark: BenchmarkFixture) -> None:
    kept = excerpts(*_maps(1000))
    assert benchmark(compare, kept, kept).difference == 0.0
