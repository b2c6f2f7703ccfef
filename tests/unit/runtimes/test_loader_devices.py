"""What loading does for a device beside all else: every declared size is met, and how runs go about is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtimes import loader
from runtimes.loader import open_model
from runtimes.onnx.device import Device
from runtimes.onnx.gate import CaptureGate
from runtimes.onnx.memory import HostMemory
from runtimes.onnx.metadata import signature_of
from runtimes.onnx.session import OnnxSession
from runtimes.spec import BatchingSpec, BatchLimits, RuntimeSpec
from tests.support import models
from tests.support.cuda import GraphSession


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[GraphSession]:
    """The sessions that the loader opens, on played devices, in its order."""
    opened: list[GraphSession] = []

    def open_session(spec: RuntimeSpec, instance: int, threads: int) -> OnnxSession:
        engine = GraphSession(spec.path)
        opened.append(engine)
        device = Device(
            memory=HostMemory(),
            gate=CaptureGate(),
            buffer_bytes_max=1 << 20,
            reopen=lambda: GraphSession(spec.path),
            pick="furthest",
        )
        return OnnxSession(engine, signature_of(engine.get_inputs(), engine.get_outputs()), device)

    monkeypatch.setattr(loader, "open_session", open_session)
    return opened


def spec(folder: Path, **limits: object) -> RuntimeSpec:
    batching = BatchingSpec(limits=BatchLimits(**limits))  # type: ignore[arg-type]
    path = models.write(folder, models.linear())
    return RuntimeSpec(path=str(path), sha256="", provider="cuda", instance_count=2, batching=batching)


def test_every_instance_captures_every_declared_size(tmp_path: Path, engines: list[GraphSession]) -> None:
    found = open_model(spec(tmp_path, batch_rows_max=16, sizes=(1, 4, 16), rows_learned=False))
    assert found.learned.batched
    assert len(engines) == 2
    assert engines[1].runs["captures"] == 3
    assert "by CUDA graph" in found.learned.reasons["device"]


def test_what_another_process_learned_is_warmed_the_same(tmp_path: Path, engines: list[GraphSession]) -> None:
    wanted = spec(tmp_path, batch_rows_max=16, sizes=(1, 4, 16), rows_learned=False)
    learned = open_model(wanted).learned
    engines.clear()
    again = open_model(wanted, learned)
    assert [engine.runs["captures"] for engine in engines] == [3, 3]
    assert again.learned.reasons["device"] == "shapes run 3 by CUDA graph"


def test_without_declared_sizes_one_row_and_the_largest_batch_are_met(
    tmp_path: Path, engines: list[GraphSession]
) -> None:
    open_model(spec(tmp_path, batch_rows_max=16, rows_learned=False))
    assert engines[1].runs["captures"] == 2
