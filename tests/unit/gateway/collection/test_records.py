"""A record as a line: what stands on it, what goes beside it, and that it is always one line of JSON."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from gateway.collection.records import INLINE_BYTES_MAX, Record, line_of, rolled, timestamp
from gateway.collection.spec import Rolling

SOURCE = "/subscriptions/s/onlineEndpoints/e/deployments/d"
FOLDER = "modelDataCollector/e/d/request/2026/01/31/23"
IDENTITY = "0f8fad5b-d9cb-469f-a165-70867728950e"


def record(body: bytes, content_type: str = "application/json", **more: Any) -> Record:
    return Record(id=IDENTITY, type="request", time_s=1_769_900_000.25, content_type=content_type, body=body, **more)


def line(body: bytes, content_type: str = "application/json", **more: Any) -> dict[str, Any]:
    text, name, _ = line_of(record(body, content_type, **more), SOURCE, FOLDER)
    assert not name
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_line_has_the_fields_of_the_contract() -> None:
    members = {
        "path": "/score",
        "method": "POST",
        "correlationid": "c",
        "xrequestid": "x",
        "modelversion": "",
        "a": None,
    }
    assert line(b'{"data": [1]}', members=members) == {
        "specversion": "1.0",
        "id": IDENTITY,
        "source": SOURCE,
        "type": "azureml.inference.request",
        "datacontenttype": "application/json",
        "time": "2026-01-31T22:53:20.250Z",
        "data": {"data": [1]},
        "path": "/score",
        "method": "POST",
        "correlationid": "c",
        "xrequestid": "x",
        "contentrange": "bytes 0-12/13",
    }


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b'{"a":\n[1,\r\n2]}', {"a": [1, 2]}),
        (b"12345678901234567890123456789", 12345678901234567890123456789),
        ('"Grüße"'.encode(), "Grüße"),
        (b"", ""),
        (b"plain text\nin two lines", "plain text\nin two lines"),
        (b"[NaN]", "[NaN]"),
        (b'{"cut": ', '{"cut": '),
        (b"[" * 100_000, "[" * 100_000),
    ],
)
def test_json_stands_as_it_came_and_other_text_as_a_string(body: bytes, data: Any) -> None:
    assert line(body, "text/plain; charset=utf-8")["data"] == data


def test_numbers_keep_their_digits() -> None:
    text, _, _ = line_of(record(b"[1.10, 1e2, 0.1000000000000000055]"), SOURCE, FOLDER)
    assert b'"data":[1.10, 1e2, 0.1000000000000000055]' in text


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"\xff\xd8 no text", "image/jpeg"),
        (b"text that is told to be none", "application/octet-stream"),
        (b"[" + b"1," * (INLINE_BYTES_MAX // 2) + b"1]", "application/json"),
    ],
)
def test_what_is_binary_or_large_lies_beside_and_the_line_says_where(body: bytes, content_type: str) -> None:
    text, name, beside = line_of(record(body, content_type), SOURCE, FOLDER)
    found = json.loads(text)
    assert (found["datainblob"], beside) == ("true", body)
    assert name == f"{IDENTITY}.raw"
    assert found["data"] == f"azureml://datastores/workspaceblobstore/paths/{FOLDER}/{name}"
    assert found["contentrange"] == f"bytes 0-{len(body) - 1}/{len(body)}"


def test_what_lies_beside_has_a_name_of_its_own_where_its_id_may_be_repeated() -> None:
    text, name, _ = line_of(record(b"\xff", file_id="own"), SOURCE, FOLDER)
    found = json.loads(text)
    assert (found["id"], name) == (IDENTITY, "own.raw")
    assert found["data"].endswith(f"{FOLDER}/own.raw")


def test_a_compressed_answer_is_kept_as_it_was_before() -> None:
    assert line(gzip.compress(b"[1, 2]"), is_gzip=True)["data"] == [1, 2]


@pytest.mark.parametrize("body", [b"\x1f\x8bno gzip\xff", gzip.compress(b"[1, 2]", mtime=0)[:-4]])
def test_what_only_says_that_it_is_compressed_lies_beside_as_it_is(body: bytes) -> None:
    _, name, beside = line_of(record(body, is_gzip=True), SOURCE, FOLDER)
    assert name
    assert beside == body


@pytest.mark.parametrize(
    ("rate", "folder"), [("minute", "a/2026/01/31/22/53"), ("hour", "a/2026/01/31/22"), ("day", "a/2026/01/31")]
)
def test_folders_are_cut_by_the_rolling_rate_in_utc(rate: Rolling, folder: str) -> None:
    assert rolled("a", rate, 1_769_900_000.9) == folder


def test_times_are_in_utc_with_milliseconds() -> None:
    assert timestamp(0.0625) == "1970-01-01T00:00:00.062Z"
