"""External data: twelve ways to ask for a file that is none of the model's business, and the one that is fine."""

import os
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from runtimes.errors import LoadFailed
from runtimes.onnx import external
from runtimes.onnx.external import check, read
from runtimes.tensor import Datatype
from tests.support import models


def refused(path: Path) -> str:
    with pytest.raises(LoadFailed) as caught:
        check(path)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "model"
    inside.mkdir()
    (inside / "data.bin").write_bytes(bytes(16))
    (tmp_path / "secret").write_bytes(bytes(16))
    return inside


def test_a_model_without_external_data_is_fine(folder: Path) -> None:
    path = models.write(folder, models.linear())
    check(path)
    assert read(path) == []


def test_a_plain_file_beside_the_model_is_fine(folder: Path) -> None:
    check(models.write(folder, models.external_data("data.bin")))
    check(models.write(folder, models.external_data("data.bin", offset="0", length="16", checksum="x")))


@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd",
        "../secret",
        "sub/data.bin",
        "..\\secret",
        ".",
        "..",
        "",
        "/proc/self/environ",
        "*/_ORT_MEM_ADDR_/*",
    ],
)
def test_a_location_that_is_no_plain_name_is_refused(folder: Path, location: str) -> None:
    message = refused(models.write(folder, models.external_data(location)))
    assert message.endswith("it must be a plain file name in the model's own folder")
    assert repr(location) in message


def test_a_file_that_is_not_there_is_refused(folder: Path) -> None:
    assert refused(models.write(folder, models.external_data("gone.bin"))) == (
        "the model's external data 'gone.bin' is refused: there is no such file beside the model"
    )


def test_links_folders_and_pipes_are_refused(folder: Path) -> None:
    (folder / "symbolic").symlink_to(folder.parent / "secret")
    os.link(folder.parent / "secret", folder / "hard")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    for location in ("symbolic", "hard", "folder", "pipe"):
        message = refused(models.write(folder, models.external_data(location)))
        assert message.endswith("it must be a regular file, no link, with one name only")


@pytest.mark.parametrize(
    "reach", [{"length": "17"}, {"offset": "8", "length": "9"}, {"length": str(1 << 50)}, {"offset": "-8"}]
)
def test_data_past_the_end_of_the_file_is_refused(folder: Path, reach: dict[str, str]) -> None:
    message = refused(models.write(folder, models.external_data("data.bin", **reach)))
    assert message.endswith("its offset and length reach past the file's 16 bytes")


def test_a_second_location_in_the_same_tensor_is_looked_at_too(folder: Path) -> None:
    model = models.external_data("data.bin")
    place = model.index(b"data.bin")
    assert b"location" in model[:place]
    tensor = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    for location in ("data.bin", "../secret"):
        tensor.external_data.add(key="location", value=location)
    inputs, outputs = [models.value("x", Datatype.FP32, [4])], [models.value("y", Datatype.FP32, [4])]
    twice = models.build([helper.make_node("Add", ["x", "w"], ["y"])], inputs, outputs, [tensor])
    assert "'../secret'" in refused(models.write(folder, twice))


def test_data_hidden_in_the_attribute_of_a_branch_is_found(folder: Path) -> None:
    tensor = TensorProto(name="c", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    branch = helper.make_graph([constant], "branch", [], [models.value("c", Datatype.FP32, [4])])
    node = helper.make_node("If", ["b"], ["y"], then_branch=branch, else_branch=branch)
    model = models.build([node], [models.value("b", Datatype.BOOL, [])], [models.value("y", Datatype.FP32, [4])])
    assert "'/etc/passwd'" in refused(models.write(folder, model))


# A field that is passed over, with the word in it without which nothing is looked at.
LOCATED = b"\x12\x08location"


@pytest.mark.parametrize(
    "junk",
    [
        b"hello",
        b"\x3a\xff\x01",
        b"\x3a" + b"\xff" * 20,
        b"\x0b",
        b"\x3a",
        b"\x09\x00",
        b"\x15\x00",
        b"\xba\x80\x80\x80\x10\x00",
    ],
)
def test_what_is_no_protobuf_is_no_model(folder: Path, junk: bytes) -> None:
    model = models.write(folder, LOCATED + junk)
    assert refused(model).endswith("is not an ONNX model: its protobuf cannot be read")
    # Where nothing can lead out of the file, it is left to onnxruntime to say what is wrong with it.
    assert read(models.write(folder, junk)) == []


def test_fixed_width_fields_are_passed_over(folder: Path) -> None:
    check(models.write(folder, LOCATED + b"\x09" + bytes(8) + b"\x15" + bytes(4) + b"\x08\x08"))


def test_graphs_nested_without_end_are_refused(folder: Path) -> None:
    data = b""
    for _ in range(60):
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            size, length = b"", len(data)
            while length > 0x7F:
                size, length = size + bytes([length & 0x7F | 0x80]), length >> 7
            data = tag + size + bytes([length]) + data
    length, size = len(data), b""
    while length > 0x7F:
        size, length = size + bytes([length & 0x7F | 0x80]), length >> 7
    assert "protobuf cannot be read" in refused(
        models.write(folder, LOCATED + b"\x3a" + size + bytes([length]) + data)
    )


def test_a_location_is_found_wherever_a_search_in_pieces_may_cut_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models.write(folder, models.external_data("data.bin"))
    for size in range(1, path.stat().st_size + 1):
        monkeypatch.setattr(external, "_PIECE_BYTES", size)
        assert read(path) == [[("location", "data.bin")]]
