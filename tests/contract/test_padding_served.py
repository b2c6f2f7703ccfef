"""Padding as a caller and an operator see it: masks that may be left out, counted waste, a warning when it is off."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.snapshot import AuthSpec, DeploymentSpec, EndpointSpec, SnapshotSpec
from runtimes import BatchingSpec, PaddingSpec, PadRule, RuntimeSpec
from tests.support import models, sequences
from tests.support.served import KEY, Served

TEXTS = "texts"
PADDING = PaddingSpec(
    inputs={"input_ids": PadRule(axis=1, multiple_of=16), "attention_mask": PadRule(axis=1)}, mask="attention_mask"
)


def snapshot(folder: Path, model: bytes) -> SnapshotSpec:
    path = models.write(folder, model)
    deployment = DeploymentSpec(
        name="blue",
        runtime=RuntimeSpec(path=str(path), sha256="", batching=BatchingSpec(padding=PADDING)),
        request_timeout_ns=30_000_000_000,
        queue_wait_ns=0,
        pending_max=0,
        seat=-1,
        body_bytes_max=1_000_000,
    )
    auth = AuthSpec(mode="key", key_digests=(hashlib.sha256(KEY.encode()).digest(),))
    endpoint = EndpointSpec(name=TEXTS, auth=auth, traffic={"blue": 100}, deployments={"blue": deployment})
    return SnapshotSpec(revision=1, endpoints={TEXTS: endpoint})


def ask_all(served: Served, lengths: list[int]) -> list[httpx.Response]:
    """Requests without a mask, all at one time."""

    async def gathered() -> list[httpx.Response]:
        bodies: list[Any] = [{"input_data": {"input_ids": [[7 + length] * length]}} for length in lengths]
        headers = {"authorization": f"Bearer {KEY}"}
        asked = (served._ask("POST", f"/endpoints/{TEXTS}/score", headers, json=body) for body in bodies)
        return list(await asyncio.gather(*asked))

    return served._runner.run(gathered())


@pytest.mark.parametrize("minds_mask", [True, False])
def test_texts_of_all_lengths_are_answered_alike_together_and_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, minds_mask: bool
) -> None:
    served = Served()
    with caplog.at_level(logging.WARNING, "gateway"):
        served.publish(snapshot(tmp_path, sequences.encoder(minds_mask=minds_mask)))
    warned = [record.getMessage() for record in caplog.records]
    lengths = [1, 16, 5, 17, 9, 30, 2, 11]
    together = ask_all(served, lengths)
    assert [answer.status_code for answer in together] == [200] * len(lengths)
    for length, answer in zip(lengths, together, strict=True):
        (alone,) = ask_all(served, [length])
        pooled, own = alone.json()["pooled"][0], answer.json()["pooled"][0]
        assert own == pytest.approx(pooled, rel=1e-4, abs=1e-5)
        assert len(answer.json()["hidden"][0]) == length
    totals = served.record.snapshot().endpoints[TEXTS].deployments["blue"]
    if minds_mask:
        assert warned == []
        assert 0 < totals.padding_positions < totals.positions
    else:
        assert warned == [
            "texts/blue: lengths are not padded: output 'hidden' of a request changes when it is padded (the values)"
        ]
        assert (totals.positions, totals.padding_positions) == (0, 0)
    served.close()
