"""Which content and which uploads go: pure choices."""

from __future__ import annotations

import pytest

from gateway.controlplane.blobs.collect import Place, expired, plan, upload_folder
from gateway.controlplane.store.records import Blob


def blob(container: str, path: str) -> Blob:
    return Blob(container=container, path=path, sha256="0" * 64, size_bytes=0, md5=b"", etag="0x1", modified_at=0)


def test_content_goes_that_is_old_and_not_in_use() -> None:
    present = [("used", 0.0), ("old", 0.0), ("older", -9.0), ("young", 91.0), ("edge", 90.0), ("future", 1e12)]
    assert plan({"used", "gone"}, present, 100.0, 10.0) == ["old", "older"]


@pytest.mark.parametrize(
    ("container", "path", "folder"),
    [
        ("azureml", "LocalUpload/ab/model.onnx", ("azureml", "LocalUpload/ab")),
        ("azureml", "LocalUpload/ab/m/x", ("azureml", "LocalUpload/ab")),
        ("upload-1", "code/score.py", ("upload-1", "")),
        ("azureml", "LocalUpload/ab", None),
        ("azureml", "azureml/job/score/x", None),
        ("other", "LocalUpload/ab/x", None),
    ],
)
def test_an_upload_is_where_clients_upload_to(container: str, path: str, folder: Place | None) -> None:
    assert upload_folder(container, path) == folder


@pytest.mark.parametrize(
    "place",
    [("azureml", "LocalUpload/ab"), ("azureml", "LocalUpload/ab/"), ("azureml", "LocalUpload/ab/m/x"),
     ("azureml", "LocalUpload"), ("azureml", ""), ("azureml", "/")],
)  # fmt: skip
def test_an_upload_stays_when_something_refers_to_it_a_part_of_it_or_more(place: Place) -> None:
    assert expired([blob("azureml", "LocalUpload/ab/m")], [place]) == []


@pytest.mark.parametrize(
    "place",
    [("other", "LocalUpload/ab"), ("azureml", "LocalUpload/abc"), ("azureml", "LocalUpload/a"), ("azureml", "x")],
)
def test_references_to_other_places_do_not_count(place: Place) -> None:
    assert expired([blob("azureml", "LocalUpload/ab/m")], [place]) == [("azureml", "LocalUpload/ab")]


def test_each_folder_is_named_once() -> None:
    old = [blob("upload-1", "b"), blob("upload-1", "a"), blob("azureml", "x"), blob("azureml", "LocalUpload/h/a")]
    assert expired(old, [("upload-2", "")]) == [("azureml", "LocalUpload/h"), ("upload-1", "")]
    assert expired(old, [("upload-1", "code")]) == [("azureml", "LocalUpload/h")]
