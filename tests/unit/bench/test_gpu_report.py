"""The GPU bench: its tables, what it says without a GPU, and the whole of it over the CPU provider."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
import pytest

from bench.gpu import __main__ as command
from bench.gpu import measure, report
from bench.gpu.measure import Copying, Timing, WrongAnswer
from tests.support import models

SAMPLE = Timing(
    model="deep",
    way="plain",
    rows=8,
    p50_us=100.0,
    p99_us=150.0,
    rows_per_s=80_000.0,
    first_us=2_000.0,
    settling_us=900.0,
    notes="every shape runs plainly: no",
)


def test_each_way_is_shown_beside_the_plain_runs_of_its_size() -> None:
    graph = Timing(**{**measure.plain([SAMPLE])[0], "way": "graph", "p50_us": 40.0, "notes": "by CUDA graph"})
    text = report.runs_table([SAMPLE, graph])
    assert [line.split()[6] for line in text.splitlines()[1:]] == ["1.00", "2.50"]
    assert report.notes([SAMPLE, graph]).splitlines()[1] == "deep, graph: by CUDA graph"


def test_copies_are_shown_as_megabytes_a_second() -> None:
    text = report.copies_table([Copying(size=1_000_000, staged_us=500.0, pinned_us=100.0, back_us=200.0)])
    assert text.splitlines()[1].split() == ["1,000,000", "500.0", "100.0", "200.0", "2,000", "10,000", "5,000"]


def test_without_a_gpu_it_says_so_and_measures_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    path = models.write(tmp_path, models.linear())
    assert command.main(["--model", str(path)]) == command.NO_DEVICE
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(
        "nothing was measured, as there is no GPU to be had: the model asks for provider 'cuda'"
    )


def test_it_runs_whole_over_the_cpu_provider(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = models.write(tmp_path, models.linear())
    arguments = [
        "--provider",
        "cpu",
        "--model",
        str(path),
        "--rows",
        "1",
        "2",
        "--copy-bytes",
        "64",
        "--seconds",
        "0",
    ]
    assert command.main([*arguments, "--json", "-"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert [(run["way"], run["rows"]) for run in found["runs"]] == [
        ("plain", 1),
        ("buffers", 1),
        ("plain", 2),
        ("buffers", 2),
    ]
    assert found["runs"][1]["notes"] == "shapes run 1 in fixed buffers"
    assert [copying["size"] for copying in found["copies"]] == [64]
    assert "to plain" in told.err


def test_the_result_is_written_where_it_is_wanted(tmp_path: Path) -> None:
    path, out = models.write(tmp_path, models.linear()), tmp_path / "found.json"
    arguments = ["--provider", "cpu", "--model", str(path), "--rows", "1", "--copy-bytes", "1", "--seconds", "0"]
    assert command.main([*arguments, "--json", str(out)]) == 0
    assert json.loads(out.read_text())["provider"] == "cpu"


def test_a_wrong_answer_is_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: object) -> None:
        raise WrongAnswer("output 'y' of 1 rows by graph differs from the plain run")

    monkeypatch.setattr(measure, "runs", wrong)
    assert command.main(["--provider", "cpu", "--model", str(models.write(tmp_path, models.linear()))]) == 1
