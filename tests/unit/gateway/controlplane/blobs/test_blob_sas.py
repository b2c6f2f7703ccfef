"""Signed queries: good for one container or folder, for what they say, until they end; nobody can change them."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest

from gateway.controlplane.blobs.refusals import Fault, Refusal
from gateway.controlplane.blobs.sas import check, is_signed, sign

SECRET = b"s" * 32
NOW = 1_700_000_000.0


def query_of(text: str) -> list[tuple[str, str]]:
    return parse_qsl(text, strict_parsing=True)


def refusal(text: str, container: str = "azureml", path: str = "x", now: float = NOW) -> Fault:
    with pytest.raises(Refusal) as refused:
        check(SECRET, query_of(text), container, path, now)
    return refused.value.fault


def test_a_signature_for_a_container_gives_its_permissions_everywhere_in_it() -> None:
    text = sign(SECRET, "azureml", "", "racwl", NOW + 10)
    assert text.startswith("sv=2021-12-02&sr=c&sp=racwl&se=2023-11-14T22%3A13%3A30Z&sig=")
    for path in ("", "x", "LocalUpload/a/b"):
        assert check(SECRET, query_of(text), "azureml", path, NOW) == "racwl"


def test_it_ends() -> None:
    text = sign(SECRET, "azureml", "", "r", NOW + 10)
    assert check(SECRET, query_of(text), "azureml", "x", NOW + 9.9) == "r"
    assert refusal(text, now=NOW + 10) is Fault.AUTHENTICATION_FAILED


def test_it_is_for_one_container_and_one_secret() -> None:
    text = sign(SECRET, "azureml", "", "r", NOW + 10)
    assert refusal(text, container="other") is Fault.AUTHENTICATION_FAILED
    with pytest.raises(Refusal):
        check(b"another", query_of(text), "azureml", "x", NOW)


@pytest.mark.parametrize("prefix", ["LocalUpload/ab", "LocalUpload/ab/"])
def test_a_signature_for_a_folder_fits_what_is_in_it_only(prefix: str) -> None:
    text = sign(SECRET, "azureml", prefix, "rl", NOW + 10)
    assert "sr=d&sdd=2&" in text
    for path in ("LocalUpload/ab/model.onnx", "LocalUpload/ab/c/d", "LocalUpload/ab/"):
        assert check(SECRET, query_of(text), "azureml", path, NOW) == "rl"
    for path in ("", "LocalUpload", "LocalUpload/ab", "LocalUpload/abc/x", "LocalUpload/cd/x", "other/ab/x"):
        assert refusal(text, path=path) is Fault.AUTHENTICATION_FAILED


@pytest.mark.parametrize("field", ["sv", "sr", "sdd", "sp", "se", "sig"])
def test_no_part_of_it_can_be_changed_left_out_or_doubled(field: str) -> None:
    good = dict(query_of(sign(SECRET, "azureml", "one/two", "r", NOW + 10)))
    changed = {
        "sv": "2099-01-01", "sr": "c", "sdd": "1", "sp": "racwdl", "se": "2099-01-01T00:00:00Z", "sig": "0" * 64
    }  # fmt: skip
    for query in (
        [*{**good, field: changed[field]}.items()],
        [item for item in good.items() if item[0] != field],
        [*good.items(), (field, good[field])],
        [*{**good, field: ""}.items()],
    ):
        with pytest.raises(Refusal) as refused:
            check(SECRET, query, "azureml", "one/two/x", NOW)
        assert refused.value.fault is Fault.AUTHENTICATION_FAILED


def test_fields_cannot_be_folded_into_each_other() -> None:
    good = dict(query_of(sign(SECRET, "azureml", "", "r", NOW + 10)))
    folded = [("sv", f"{good['sv']}\nsr={good['sr']}"), ("sp", "r"), ("se", good["se"]), ("sig", good["sig"])]
    with pytest.raises(Refusal):
        check(SECRET, [*folded, ("sr", "c")], "azureml", "x", NOW)


@pytest.mark.parametrize("depth", ["0", "-1", "9999", "x", "1.0", "", "²"])
def test_a_depth_that_is_none_is_refused(depth: str) -> None:
    good = dict(query_of(sign(SECRET, "azureml", "one", "r", NOW + 10)))
    with pytest.raises(Refusal):
        check(SECRET, [*{**good, "sdd": depth}.items()], "azureml", "one/x", NOW)


def test_other_parts_of_the_query_do_not_matter() -> None:
    query = [*query_of(sign(SECRET, "azureml", "", "r", NOW + 10)), ("comp", "list"), ("comp", "list")]
    assert check(SECRET, query, "azureml", "", NOW) == "r"


def test_only_a_query_with_a_signature_is_signed() -> None:
    assert is_signed(query_of(sign(SECRET, "azureml", "", "r", NOW)))
    assert not is_signed([("sv", "x"), ("comp", "list")])


@pytest.mark.parametrize("permissions", ["", "x", "r ", "rq"])
def test_there_are_no_other_permissions(permissions: str) -> None:
    with pytest.raises(ValueError, match="permissions"):
        sign(SECRET, "azureml", "", permissions, NOW)
