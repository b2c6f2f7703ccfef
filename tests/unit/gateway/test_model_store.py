"""Copies of models: by content, whole or not at all, kept for as long as they are served."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from gateway.controlplane.model_store import ModelChanged, ModelStore
from tests.support.models import double, external_data


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "given" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(double())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


def test_the_copy_has_the_content_of_now_and_outlives_a_change_of_the_file(model: Path, folder: Path) -> None:
    stored = ModelStore(folder).take(model)
    assert stored.origin == model
    assert stored.path.parent.parent == folder
    assert stored.sha256 == hashlib.sha256(double()).hexdigest()
    model.write_bytes(b"something else")
    assert stored.path.read_bytes() == double()


def test_one_content_is_copied_once_and_another_gets_a_place_of_its_own(model: Path, folder: Path) -> None:
    store = ModelStore(folder)
    first = store.take(model)
    before = first.path.stat()
    assert store.take(model) == first
    assert first.path.stat() == before
    model.write_bytes(double(("N", 5)))
    assert store.take(model).path != first.path


def test_a_copy_that_is_not_whole_is_made_again(model: Path, folder: Path) -> None:
    store = ModelStore(folder)
    stored = store.take(model)
    stored.path.write_bytes(double()[:10])
    assert store.take(model) == stored
    assert stored.path.read_bytes() == double()


def test_external_data_is_copied_beside_its_model(model: Path, folder: Path) -> None:
    model.write_bytes(external_data("data.bin"))
    weights = model.parent / "data.bin"
    weights.write_bytes(bytes(16))
    stored = ModelStore(folder).take(model)
    assert (stored.path.parent / "data.bin").read_bytes() == weights.read_bytes()
    # Other weights are another model, though its own file is the same.
    weights.write_bytes(b"\1" * weights.stat().st_size)
    assert ModelStore(folder).take(model).path != stored.path


def test_what_the_loader_would_refuse_is_left_where_it_lies(model: Path, folder: Path) -> None:
    store = ModelStore(folder)
    # Its external data is not there.
    model.write_bytes(external_data("gone.bin"))
    assert store.take(model).path == model
    missing = store.take(model.parent / "missing.onnx")
    assert (missing.path, missing.sha256) == (model.parent / "missing.onnx", "")
    assert not folder.exists()


def test_without_a_folder_nothing_is_copied(model: Path) -> None:
    store = ModelStore(None)
    stored = store.take(model)
    assert (stored.path, stored.sha256) == (model, hashlib.sha256(double()).hexdigest())
    store.keep_only([])
    assert model.exists()


def test_a_disk_without_room_is_a_warning(
    model: Path, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    assert ModelStore(folder).take(model).path == model
    assert "No space left on device" in caplog.text
    assert list(folder.iterdir()) == []


def test_a_model_that_changes_while_it_is_copied_is_refused(
    model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copyfile

    def meanwhile(source: Path, target: Path) -> None:
        source.write_bytes(double(("N", 5)))
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", meanwhile)
    with pytest.raises(ModelChanged, match="changed while it was read"):
        ModelStore(folder).take(model)
    assert list(folder.iterdir()) == []


def test_only_what_is_served_is_kept(model: Path, folder: Path) -> None:
    store = ModelStore(folder)
    first = store.take(model)
    model.write_bytes(double(("N", 5)))
    second = store.take(model)
    (folder / "unfinished-abc").mkdir()
    store.keep_only([second.path, Path("/somewhere/else.onnx")])
    assert list(folder.iterdir()) == [second.path.parent]
    assert not first.path.exists()
