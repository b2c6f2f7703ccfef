"""What is kept of a script's output: the newest, bounded, and its last lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import worker_log
from gateway.worker_log import WorkerLog


def test_the_last_lines_are_told_oldest_first(tmp_path: Path) -> None:
    log = WorkerLog(tmp_path / "worker-0.log")
    assert log.tail(3) == []
    log.write(b"one\ntwo\nthr")
    log.write(b"ee\n\xff\n")
    assert log.tail(3) == ["two", "three", "�"]
    assert log.tail(0) == []


def test_files_are_turned_over_and_the_oldest_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_log, "FILE_BYTES_MAX", 10)
    log = WorkerLog(tmp_path / "w.log")
    for number in range(20):
        log.write(b"line %02d\n" % number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w.log", "w.log.1", "w.log.2", "w.log.3", "w.log.4"]
    assert log.tail(2) == ["line 18", "line 19"]
    log.write(b"x" * 35)
    assert all(path.stat().st_size <= 10 for path in tmp_path.iterdir())


def test_a_log_goes_on_after_a_restart(tmp_path: Path) -> None:
    WorkerLog(tmp_path / "w.log").write(b"before\n")
    again = WorkerLog(tmp_path / "w.log")
    again.write(b"after\n")
    assert again.tail(9) == ["before", "after"]


def test_output_that_cannot_be_written_is_lost_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = WorkerLog(tmp_path / "missing" / "w.log")
    log.write(b"a")
    log.write(b"b")
    assert [record.message.split(":")[0] for record in caplog.records] == ["the output of a script is not kept"]
    (tmp_path / "missing").mkdir()
    log.write(b"c")
    assert log.tail(1) == ["c"]
