"""Models on the disk for scorers: links to kept content, whole or not at all, for as long as they are needed."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.controlplane.blobs.files import Files
from gateway.controlplane.model_store import ModelChanged, ModelStore
from gateway.resources import AssetModel, LocalModel
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


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    made = Files(tmp_path / "assets", bytes_max=1 << 20)
    yield made
    made.close()


@pytest.fixture
def store(files: Files, folder: Path) -> ModelStore:
    return ModelStore(files, folder)


def register(store: ModelStore, path: Path) -> AssetModel:
    return store.register(LocalModel(path=path))


def uploaded(files: Files, path: Path, name: str = "model.onnx") -> AssetModel:
    """As a client uploads it: without an origin on this machine."""
    sha256, size = files.add_file(path)
    return AssetModel(reference="azureml:m:1", files=((name, sha256, size),), entry=name)


def test_a_registered_file_is_kept_as_it_is_now_and_outlives_its_change(
    store: ModelStore, model: Path, folder: Path
) -> None:
    asset = register(store, model)
    sha256 = hashlib.sha256(double()).hexdigest()
    assert asset.files == (("model.onnx", sha256, len(double())),)
    assert (asset.entry, asset.origin) == ("model.onnx", str(model))
    model.write_bytes(b"something else")
    stored = store.take(asset)
    assert (stored.sha256, stored.origin) == (sha256, str(model))
    assert stored.path.parent.parent == folder
    assert stored.path.read_bytes() == double()


def test_a_model_lies_on_the_disk_once(store: ModelStore, files: Files, model: Path) -> None:
    stored = store.take(uploaded(files, model))
    assert stored.path.stat().st_nlink == 2
    assert stored.path.samefile(files.path_of(stored.sha256))
    assert "azureml:m:1" in stored.origin


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_where_there_are_no_links_it_is_copied(
    store: ModelStore, files: Files, model: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def no_link(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", no_link)
    stored = store.take(uploaded(files, model))
    assert stored.path.stat().st_nlink == 1
    assert stored.path.read_bytes() == double()


def test_one_content_has_one_folder_and_another_its_own(store: ModelStore, model: Path) -> None:
    first = store.take(register(store, model))
    before = first.path.stat()
    assert store.take(register(store, model)) == first
    assert first.path.stat() == before
    model.write_bytes(double(("N", 5)))
    assert store.take(register(store, model)).path != first.path


def test_a_folder_that_a_crash_left_damaged_is_made_again(files: Files, folder: Path, model: Path) -> None:
    asset = uploaded(files, model)
    stored = ModelStore(files, folder).take(asset)
    stored.path.unlink()
    stored.path.write_bytes(double()[:10])
    # The one that made it found it whole; the next process looks again.
    again = ModelStore(files, folder)
    assert again.take(asset) == stored
    assert stored.path.read_bytes() == double()
    shutil.rmtree(stored.path.parent)
    assert ModelStore(files, folder).take(asset).path.read_bytes() == double()


def test_external_data_is_copied_beside_its_model(store: ModelStore, model: Path) -> None:
    model.write_bytes(external_data("data.bin"))
    weights = model.parent / "data.bin"
    weights.write_bytes(bytes(16))
    asset = register(store, model)
    assert [path for path, _, _ in asset.files] == ["model.onnx", "data.bin"]
    stored = store.take(asset)
    copy = stored.path.parent / "data.bin"
    assert copy.read_bytes() == weights.read_bytes()
    # A second name would be refused by the loader.
    assert copy.stat().st_nlink == 1
    # Other weights are another model, though its own file is the same.
    weights.write_bytes(b"\1" * 16)
    assert store.take(register(store, model)).path != stored.path


def test_a_model_in_a_deeper_folder_keeps_its_place(
    store: ModelStore, files: Files, model: Path, folder: Path
) -> None:
    stored = store.take(uploaded(files, model, "deep/er/model.onnx"))
    assert stored.path.relative_to(folder).parts[1:] == ("deep", "er", "model.onnx")
    store.keep_only([stored.path])
    assert stored.path.exists()


def test_content_that_is_damaged_or_gone_is_served_from_where_it_lies_or_not_at_all(
    store: ModelStore, files: Files, model: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asset = register(store, model)
    files.path_of(asset.files[0][1]).write_bytes(b"damaged")
    assert store.take(asset).path == model
    assert "is damaged" in caplog.text
    assert "must stay as it is" in caplog.text
    stored = store.take(replace(asset, origin="", reference="azureml:m:1"))
    assert not stored.path.exists()
    assert "azureml:m:1 cannot be read" in caplog.text
    files.path_of(asset.files[0][1]).unlink()
    assert store.take(asset).path == model
    assert list(folder.iterdir()) == []


def test_what_the_loader_would_refuse_is_left_to_it(store: ModelStore, model: Path, folder: Path) -> None:
    # Its external data is not there.
    model.write_bytes(external_data("gone.bin"))
    assert [path for path, _, _ in register(store, model).files] == ["model.onnx"]
    missing = register(store, model.parent / "missing.onnx")
    assert missing.files == ()
    assert store.take(missing).sha256 == ""


def test_copies_may_be_off(files: Files, folder: Path, model: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = ModelStore(files, folder, copies=False)
    asset = register(store, model)
    stored = store.take(asset)
    assert (stored.path, stored.sha256) == (model, hashlib.sha256(double()).hexdigest())
    assert caplog.text == ""
    assert list(files.kept()) == []


def test_a_disk_without_room_is_a_warning(
    tmp_path: Path, folder: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = Files(tmp_path / "small", bytes_max=10)
    store = ModelStore(files, folder)
    stored = store.take(register(store, model))
    assert stored.path == model
    assert "is not copied" in caplog.text
    assert "is served from where it lies, and must stay as it is" in caplog.text
    files.close()


def test_a_model_that_changes_while_it_is_kept_is_refused(
    store: ModelStore, files: Files, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = files.add_file

    def meanwhile(source: Path) -> tuple[str, int]:
        source.write_bytes(double(("N", 5)))
        return add(source)

    monkeypatch.setattr(files, "add_file", meanwhile)
    with pytest.raises(ModelChanged, match="changed while it was read; try it again"):
        register(store, model)


def test_content_is_known_by_hash_and_size(store: ModelStore, files: Files, model: Path) -> None:
    sha256, size = files.add_file(model)
    assert store.has_content(sha256, size)
    assert not store.has_content(sha256, size + 1)
    assert not store.has_content("0" * 64, size)


def test_kept_content_can_be_read_and_what_is_not_kept_is_none(store: ModelStore, files: Files, model: Path) -> None:
    sha256 = uploaded(files, model).files[0][1]
    assert store.read(sha256) == double()
    assert store.read("0" * 64) is None


def test_only_what_is_served_or_held_is_kept(store: ModelStore, files: Files, model: Path, folder: Path) -> None:
    assets = []
    for width in (4, 5, 6):
        model.write_bytes(double(("N", width)))
        assets.append(uploaded(files, model))
    first, second, third = (store.take(asset) for asset in assets)
    (folder / "unfinished-abc").mkdir()
    store.hold(assets[0])
    store.keep_only([second.path, Path("/somewhere/else.onnx")])
    assert set(folder.iterdir()) == {first.path.parent, second.path.parent}
    assert not third.path.exists()
    store.hold(assets[0])
    store.let_go(assets[0])
    store.keep_only([])
    assert set(folder.iterdir()) == {first.path.parent}
    store.let_go(assets[0])
    store.keep_only([])
    assert list(folder.iterdir()) == []
    # What was removed is made again when it is wanted again.
    assert store.take(assets[2]).path.exists()


def test_nothing_is_kept_where_nothing_was_made(store: ModelStore, folder: Path) -> None:
    store.keep_only([])
    assert not folder.exists()
