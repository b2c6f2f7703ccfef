"""Ranges and conditions of a request, as data."""

from __future__ import annotations

import pytest

from gateway.controlplane.blobs.conditions import (
    ALWAYS,
    Conditions,
    NotModified,
    check_read,
    check_write,
    parse_conditions,
)
from gateway.controlplane.blobs.ranges import Span, parse_range
from gateway.controlplane.blobs.refusals import Fault, Refusal
from gateway.controlplane.store.records import Blob

BLOB = Blob(container="azureml", path="x", sha256="0" * 64, size_bytes=1, md5=b"", etag="0x1", modified_at=1000.7)
AT = "Thu, 01 Jan 1970 00:16:40 GMT"
BEFORE = "Thu, 01 Jan 1970 00:16:39 GMT"


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        ("bytes=0-3", 0, 3), ("bytes=0-", 0, 9), ("bytes=5-99", 5, 9), ("bytes=9-9", 9, 9), ("bytes=-3", 7, 9),
        ("bytes=-99", 0, 9), ("BYTES = 1-2 ", 1, 2), ("bytes=0-9999999999999999999", 0, 9),
    ],
)  # fmt: skip
def test_a_range_names_its_first_and_last_byte(header: str, first: int, last: int) -> None:
    assert parse_range(header, 10) == Span(first=first, last=last)


@pytest.mark.parametrize("header", ["items=0-1", "bytes=0-1,3-4", "", "0-1"])
def test_other_units_and_several_ranges_mean_the_whole(header: str) -> None:
    assert parse_range(header, 10) is None


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=10-12", 10), ("bytes=-0", 10), ("bytes=0-", 0)]
)
def test_a_range_without_a_byte_cannot_be_given(header: str, size: int) -> None:
    with pytest.raises(Refusal) as refused:
        parse_range(header, size)
    assert refused.value.fault is Fault.INVALID_RANGE
    assert refused.value.headers == (("content-range", f"bytes */{size}"),)


@pytest.mark.parametrize(
    "header", ["bytes=", "bytes=-", "bytes=3-2", "bytes=a-b", "bytes=1 - 2", "bytes=" + "1" * 20 + "-"]
)
def test_what_is_no_range_is_refused(header: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_range(header, 10)
    assert refused.value.fault is Fault.INVALID_HEADER


def fault_of(conditions: Conditions, found: Blob | None) -> Fault | None:
    try:
        check_write(conditions, found)
    except Refusal as refusal:
        return refusal.fault
    return None


@pytest.mark.parametrize(
    ("headers", "there", "absent"),
    [
        ({}, None, None),
        ({"if-none-match": "*"}, Fault.BLOB_EXISTS, None),
        ({"if-none-match": '"0x1"'}, Fault.CONDITION_NOT_MET, None),
        ({"if-none-match": '"0x2", W/"0x1"'}, Fault.CONDITION_NOT_MET, None),
        ({"if-none-match": '"0x2"'}, None, None),
        ({"if-match": '"0x1"'}, None, Fault.CONDITION_NOT_MET),
        ({"if-match": "*"}, None, Fault.CONDITION_NOT_MET),
        ({"if-match": '"0x2"'}, Fault.CONDITION_NOT_MET, Fault.CONDITION_NOT_MET),
        ({"if-modified-since": AT}, Fault.CONDITION_NOT_MET, None),
        ({"if-modified-since": BEFORE}, None, None),
        ({"if-unmodified-since": AT}, None, None),
        ({"if-unmodified-since": BEFORE}, Fault.CONDITION_NOT_MET, None),
    ],
)
def test_a_write_goes_through_where_its_conditions_hold(
    headers: dict[str, str], there: Fault | None, absent: Fault | None
) -> None:
    conditions = parse_conditions(headers)
    assert fault_of(conditions, BLOB) is there
    assert fault_of(conditions, None) is absent


def test_a_reader_is_told_that_nothing_changed() -> None:
    check_read(ALWAYS, BLOB)
    check_read(parse_conditions({"if-match": '"0x1"'}), BLOB)
    for headers in ({"if-none-match": '"0x1"'}, {"if-none-match": "*"}, {"if-modified-since": AT}):
        with pytest.raises(NotModified):
            check_read(parse_conditions(headers), BLOB)
    with pytest.raises(Refusal) as refused:
        check_read(parse_conditions({"if-match": '"0x2"'}), BLOB)
    assert refused.value.fault is Fault.CONDITION_NOT_MET


@pytest.mark.parametrize("text", ["yesterday", "", "Thu, 01 Jan 99999 00:00:00 GMT"])
def test_a_date_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_conditions({"if-modified-since": text})
    assert refused.value.fault is Fault.INVALID_HEADER
