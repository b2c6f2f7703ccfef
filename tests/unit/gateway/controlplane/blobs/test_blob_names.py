"""Where a request points: what is a container's or a blob's name, and what could leave its folder."""

from __future__ import annotations

import pytest

from gateway.controlplane.blobs.names import Target, check_container, is_writable, parse_target
from gateway.controlplane.blobs.refusals import Fault, Refusal


@pytest.mark.parametrize(
    "account", ["a/", "a.blob.core.windows.net/", "acct.blob.example/", "A9-z.blob.core.windows.net/", ""]
)
def test_all_spellings_of_the_account_point_to_one_place(account: str) -> None:
    found = parse_target(f"/blob/{account}azureml/LocalUpload/ab/model.onnx".encode())
    assert found == Target(container="azureml", path="LocalUpload/ab/model.onnx")


@pytest.mark.parametrize("raw", [b"/blob/azureml", b"/blob/a/azureml", b"/blob/a/azureml/", b"/blob/azureml/"])
def test_a_container_alone_has_no_path(raw: bytes) -> None:
    assert parse_target(raw) == Target(container="azureml", path="")


def test_an_account_name_counts_only_at_the_first_place() -> None:
    assert parse_target(b"/blob/azureml/a/x.blob.y/z") == Target(container="azureml", path="a/x.blob.y/z")


def test_escapes_are_undone_once() -> None:
    assert parse_target(b"/blob/azureml/a%20b/%C3%A9/%252e%252e").path == "a b/é/%2e%2e"


def test_a_folder_is_asked_for_with_a_slash_at_its_end() -> None:
    assert parse_target(b"/blob/azureml/azureml/job/score/").is_folder
    assert not parse_target(b"/blob/azureml/azureml/job/score").is_folder


@pytest.mark.parametrize(
    "name",
    [
        *(b"..", b"../x", b"x/..", b"x/../y", b".", b"./x", b"x/./y", b"/x", b"//x", b"x//y", b"x//"),
        *(b"%2e%2e/x", b"%2E%2E%2Fx", b"x%2f..%2fy", b"%2fetc/passwd", b"..%2f", b"x/%2e"),
        *(b"x%5c..%5cy", b"..\\x", b"x%00", b"%0a", b"%0D%0Ax", b"%7f", b"%C2%85"),
        *(b"%EF%BF%BF", b"%F4%8F%BF%BF", b"n" * 1025, b"a/" * 513, b"s" * 256, b"%C3%A9" * 128),
    ],
)
def test_what_could_leave_its_folder_or_is_no_file_is_no_name(name: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        parse_target(b"/blob/a/azureml/" + name)
    assert refused.value.fault is Fault.INVALID_RESOURCE_NAME
    assert refused.value.message.isascii()
    assert refused.value.message.isprintable()


@pytest.mark.parametrize(
    "name", [b"%", b"x%2", b"%zz", b"%c0%ae%c0%ae/x", b"%FF", b"%ED%A0%80", b"x%u002e", b"\xff", b"%C3"]
)
def test_escapes_that_are_no_text_are_refused(name: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        parse_target(b"/blob/a/azureml/" + name)
    assert refused.value.fault is Fault.INVALID_URI


@pytest.mark.parametrize(
    "name",
    ["...", "..x", "a..b", "x.", "-", "100%.txt", "a b", "~", "c:x", "ü/模型.onnx", "n" * 255, "/".join("n" * 512)],
)
def test_other_names_are_a_matter_of_taste(name: str) -> None:
    escaped = "".join(f"%{byte:02X}" if byte != 0x2F else "/" for byte in name.encode())
    assert parse_target(f"/blob/a/azureml/{escaped}".encode()).path == name


@pytest.mark.parametrize(
    "raw", [b"/blob", b"/blob/", b"/blob/a", b"/blob/a/", b"/blob//", b"/other/a/azureml/x", b""]
)
def test_a_path_without_a_container_is_unclear(raw: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        parse_target(raw)
    assert refused.value.fault is Fault.INVALID_URI


@pytest.mark.parametrize(
    "name", ["ab", "c" * 64, "Upper", "under_score", "-abc", "abc-", "a--b", "a.b", "$root", "ü12"]
)
def test_a_container_is_named_as_azure_has_it(name: str) -> None:
    with pytest.raises(Refusal) as refused:
        check_container(name)
    assert refused.value.fault is Fault.INVALID_RESOURCE_NAME


@pytest.mark.parametrize("name", ["abc", "azureml", "upload-0123", "0-1", "c" * 63])
def test_good_names_of_containers_pass(name: str) -> None:
    assert check_container(name) == name


def test_a_prefix_is_writable_when_a_name_could_hold_it() -> None:
    assert is_writable("LocalUpload/")
    assert not is_writable("a\0")
    assert not is_writable("n" * 1025)
