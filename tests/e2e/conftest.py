"""What the end-to-end tests share: one gateway that serves the demo, and what onnxruntime says of its models.

The shared gateway is never reloaded or stopped by a test; tests that change something start their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from examples.digits.data import Digits, held_out
from tests.support.process import GatewayProcess

DEMO = Path(__file__).resolve().parents[2] / "examples" / "digits"


class Truth(NamedTuple):
    """What a model answers to the held-out rows when onnxruntime runs it directly."""

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]


@pytest.fixture(scope="session")
def demo() -> Path:
    return DEMO


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """The demo, served by two scorers over TLS with the gateway's own CA."""
    with GatewayProcess(DEMO, tmp_path_factory.mktemp("demo") / "state") as process:
        yield process


@pytest.fixture(scope="session")
def digits() -> Digits:
    return held_out()


@pytest.fixture(scope="session")
def truth(digits: Digits) -> dict[str, Truth]:
    return {name: _run(DEMO / name / "model.onnx", digits.pixels) for name in ("blue", "green")}


def _run(model: Path, pixels: NDArray[np.float32]) -> Truth:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    labels, probabilities = session.run(["label", "probabilities"], {"pixels": pixels})
    return Truth(labels, probabilities)
