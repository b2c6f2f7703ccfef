"""The forms in which MLflow models are asked: which one a body is in, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtimes.script.worker_lib.igw_worker.forms import Refused
from runtimes.script.worker_lib.igw_worker.pyfunc import forms

COLUMNS = ["a", "b"]
ROWS = [[1, 2], [3, 4]]
SPLIT = {"columns": COLUMNS, "index": [0, 1], "data": ROWS}
RECORDS = [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


def asked(body: Any, content_type: str | None = "application/json") -> forms.Asked:
    return forms.read(json.dumps(body).encode(), content_type)


def refused(body: Any, content_type: str | None = "application/json") -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        forms.read(body if isinstance(body, bytes) else json.dumps(body).encode(), content_type)
    return caught.value.status, caught.value.message


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("input_data", forms.INPUT_DATA),
        ("dataframe_split", forms.SPLIT),
        ("dataframe_records", forms.RECORDS),
        ("instances", forms.INSTANCES),
        ("inputs", forms.INPUTS),
    ],
)
def test_each_member_is_a_form(name: str, form: str) -> None:
    assert asked({name: ROWS}) == (form, ROWS, None)
    assert asked({name: None, "params": {}}) == (form, None, None)
    assert asked({"params": {"n": 1}, name: 5}) == (form, 5, {"n": 1})


@pytest.mark.parametrize("content_type", [None, "application/json; charset=UTF-8", "application/vnd.x+json"])
def test_json_may_be_called_differently(content_type: str | None) -> None:
    assert asked({"inputs": 1}, content_type).data == 1


def test_a_csv_is_its_text() -> None:
    assert forms.read(memoryview("a,b\né,2".encode()), "text/csv; charset=utf-8") == (forms.CSV, "a,b\né,2", None)


@pytest.mark.parametrize(
    ("body", "content_type", "status", "said"),
    [
        (b"\xff", None, 400, "the body is not UTF-8: invalid start byte at byte 0"),
        (b"\xff", "text/csv", 400, "the body is not UTF-8"),
        (b"{", None, 400, "the body is not JSON"),
        (b"[" * 100_000, None, 400, "the body is not JSON"),
        ([1], None, 400, "the body is JSON but no object; accepted: a JSON object with exactly one of input_data"),
        ({}, None, 400, "the body has no member; accepted"),
        ({"data": ROWS}, None, 400, "the body has 'data'; accepted"),
        ({"inputs": 1, "instances": 1}, None, 400, "the body has 'inputs', 'instances'; accepted"),
        ({"inputs": 1, "extra": 1}, None, 400, "the body has 'inputs', 'extra'; accepted"),
        ({str(n): 1 for n in range(9)}, None, 400, "'7', ...; accepted"),
        ({"inputs": 1, "params": [1]}, None, 400, "params is a list; accepted: an object of the model's parameters"),
        ({"inputs": 1, "params": True}, None, 400, "params is a truth value"),
        ({"inputs": 1}, "text/plain", 415, "found Content-Type text/plain; accepted: application/json, text/csv"),
        ({"inputs": 1}, "application/json; charset=latin-1", 415, "found the charset latin-1; accepted: utf-8"),
    ],
)
def test_what_is_no_form_is_refused(body: Any, content_type: str | None, status: int, said: str) -> None:
    found, message = refused(body, content_type)
    assert (found, said in message) == (status, True), message


@pytest.mark.parametrize(
    ("payload", "form", "data"),
    [
        (SPLIT, forms.SPLIT, SPLIT),
        ({"columns": ["a"], "data": []}, forms.SPLIT, {"columns": ["a"], "data": []}),
        ({"a": [1], "b": [2]}, forms.INPUTS, {"a": [1], "b": [2]}),
        ({"data": [1], "other": [2], "columns": [3]}, forms.INPUTS, {"data": [1], "other": [2], "columns": [3]}),
        (RECORDS, forms.RECORDS, RECORDS),
        (ROWS, forms.SPLIT, {"columns": COLUMNS, "data": ROWS}),
        ([1, 2], forms.INPUTS, [1, 2]),
        ([], forms.INPUTS, []),
        (5, forms.INPUTS, 5),
    ],
)
def test_what_stands_under_input_data_tells_its_form(payload: Any, form: str, data: Any) -> None:
    assert forms.meant(payload, COLUMNS) == (form, data)


def test_rows_of_a_model_without_columns_are_a_tensor() -> None:
    assert forms.meant(ROWS, []) == (forms.INPUTS, ROWS)


def test_a_model_may_call_its_inputs_columns_and_data() -> None:
    payload = {"columns": [1], "data": [2]}
    assert forms.meant(payload, ["data", "columns"]) == (forms.INPUTS, payload)


def test_rows_must_have_a_value_for_each_column() -> None:
    with pytest.raises(Refused, match="row 1 has 1 values; the model takes 2: 'a', 'b'"):
        forms.meant([[1, 2], [3]], COLUMNS)
