"""Texts of mixed lengths through a small encoder, with and without padding: what shared runs gain and cost.

The two are measured alternately, because their ratio (of the shortest times) is the figure; `extra_info` holds it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.micro.support import Turns
from runtimes import BatchingSpec, BatchLimits, NullObserver, PaddingSpec, PadRule, RuntimeSpec, WorkItem
from runtimes.loader import OpenModel, open_model
from runtimes.runtime import Runtime
from runtimes.tensor import Array
from tests.support import models, sequences

REQUESTS = 64
LONGEST = 128
ROUNDS = 5
RULES = {
    "steps": PaddingSpec(),
    "multiples of 16": PaddingSpec(
        inputs={name: PadRule(axis=1, multiple_of=16) for name in ("input_ids", "attention_mask")}
    ),
    "one bucket": PaddingSpec(
        inputs={name: PadRule(axis=1, buckets=(LONGEST,)) for name in ("input_ids", "attention_mask")}
    ),
}


def requests() -> list[dict[str, Array]]:
    """One text each, short ones more often than long ones, as texts are."""
    chance = np.random.default_rng(0)
    lengths = np.clip(chance.lognormal(3.3, 0.7, REQUESTS), 1, LONGEST).astype(int)
    return [
        {
            "input_ids": chance.integers(0, sequences.VOCABULARY, (1, length)),
            "attention_mask": np.ones((1, length), np.int64),
        }
        for length in lengths
    ]


class Served:
    """A model behind a runtime whose turns the benchmark takes."""

    def __init__(self, model: OpenModel) -> None:
        self._signature = model.signature
        self._turns = Turns()
        self.runtime = Runtime(
            name="texts",
            sessions=model.sessions,
            signature=model.signature,
            limits=BatchLimits(),
            dispatch="inline",
            scheduler=self._turns,
            observer=NullObserver(),
        )

    def ask(self, requests: list[dict[str, Array]]) -> int:
        """All of them in one turn; how many runs it took."""
        signature = self._signature
        answered: list[WorkItem] = []
        before = self.runtime.status().batches
        for inputs in requests:
            key = signature.key(inputs, None)
            self.runtime.submit(
                WorkItem(inputs=inputs, rows=1, key=key, outputs=None, deadline_ns=0, reply=answered.append)
            )
        self._turns.run()
        assert all(item.results is not None for item in answered)
        assert len(answered) == len(requests)
        return self.runtime.status().batches - before

    def time_ns(self, requests: list[dict[str, Array]]) -> int:
        began_ns = time.perf_counter_ns()
        self.ask(requests)
        return time.perf_counter_ns() - began_ns


@pytest.mark.parametrize("width", [16, 64])
@pytest.mark.parametrize("rules", RULES)
def test_mixed_lengths(benchmark: BenchmarkFixture, tmp_path: Path, rules: str, width: int) -> None:
    path = models.write(tmp_path, sequences.encoder(width=width))
    spec = RuntimeSpec(path=str(path), sha256="", batching=BatchingSpec(padding=RULES[rules]))
    padded = open_model(spec)
    assert padded.learned.padding is not None, padded.learned.padding_reason
    bare = open_model(replace(spec, batching=BatchingSpec()))
    with_padding, without = Served(padded), Served(bare)
    mixed = requests()
    benchmark.extra_info["runs"] = (with_padding.ask(mixed), without.ask(mixed))
    pairs = [(with_padding.time_ns(mixed), without.time_ns(mixed)) for _ in range(ROUNDS)]
    ours, theirs = (min(times) for times in zip(*pairs, strict=True))
    benchmark.extra_info["times as fast as without padding"] = round(theirs / ours, 2)
    benchmark(with_padding.ask, mixed)
    with_padding.runtime.close()
    without.runtime.close()
