"""Azure-style JSON: its four forms, what is refused, and the answer."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest

from gateway.dataplane.codecs import Decoded, decode_score
from runtimes import Array, Datatype, InvalidInput, Signature
from tests.support.codec_signatures import of_type, signature, spec

VAD = signature(
    spec("input", shape=(-1, -1)),
    spec("state", shape=(2, -1, 4), batch_axis=1),
    spec("sr", Datatype.INT64, (), batch_axis=None),
)
COLUMNS = signature(spec("age", shape=(-1, 1)), spec("town", Datatype.BYTES, (-1,)))


def decode(body: object, sig: Signature | None = None) -> Decoded:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return decode_score(data, None, sig or signature(), "digits", "blue")


def refused(body: object, sig: Signature | None = None) -> str:
    with pytest.raises(InvalidInput) as caught:
        decode(body, sig)
    return str(caught.value)


def answer(results: dict[str, Array], sig: Signature) -> Any:
    rows: Any = [[0.0] * 3]
    body = {"data": rows if len(sig.inputs) == 1 else {s.name: rows for s in sig.inputs}}
    return decode(body, sig).encode(results)


@pytest.mark.parametrize("key", ["input_data", "data"])
def test_rows_of_the_single_input(key: str) -> None:
    call = decode({key: [[1, 2, 3], [4, 5, 6.5]]})
    assert call.rows == 2
    assert call.outputs is None
    assert call.timeout_ns == 0
    assert call.inputs["x"].dtype == np.float32
    assert call.inputs["x"].tolist() == [[1, 2, 3], [4, 5, 6.5]]


@pytest.mark.parametrize("params", [{}, None])
def test_empty_params_are_no_matter(params: object) -> None:
    assert decode({"input_data": [[1, 2, 3]], "params": params}).rows == 1


def test_params_that_say_something_are_refused() -> None:
    assert "'params'" in refused({"input_data": [[1, 2, 3]], "params": {"k": 1}})


def test_no_rows_are_zero_rows() -> None:
    call = decode({"data": []})
    assert call.rows == 0
    assert call.inputs["x"].shape == (0, 3)


def test_pandas_split_in_order_for_one_input() -> None:
    call = decode({"input_data": {"columns": ["a", "b", "c"], "index": [7], "data": [[1, 2, 3]]}})
    assert call.inputs["x"].tolist() == [[1, 2, 3]]
    assert decode({"data": {"columns": [0, 1, 2], "data": [[1, 2, 3]]}}).rows == 1
    assert decode({"data": {"columns": [0, 1, 2], "data": []}}).inputs["x"].shape == (0, 3)


def test_pandas_split_by_name_in_any_order() -> None:
    body = {"input_data": {"columns": ["town", "age"], "index": [0, 1], "data": [["Ulm", 3], ["Bonn", 4]]}}
    call = decode(body, COLUMNS)
    assert call.inputs["age"].tolist() == [[3], [4]]
    assert call.inputs["town"].tolist() == ["Ulm", "Bonn"]
    assert call.rows == 2


def test_named_tensors_with_a_scalar_beside() -> None:
    body = {"input_data": {"input": [[0.5, 0.25]], "state": [[[0] * 4], [[1] * 4]], "sr": 16000}}
    call = decode(body, VAD)
    assert call.inputs["sr"].shape == ()
    assert call.inputs["sr"] == 16000
    assert call.inputs["state"].shape == (2, 1, 4)
    assert call.rows == 1


def test_named_single_values_fit_a_column() -> None:
    call = decode({"data": {"age": [1, 2], "town": ["a", "b"]}}, COLUMNS)
    assert call.inputs["age"].shape == (2, 1)


def test_records_stack_along_the_batch_axis() -> None:
    records = [
        {"input": [0.5, 0.25], "state": [[0] * 4, [1] * 4], "sr": 8000},
        {"input": [1.5, 1.25], "state": [[2] * 4, [3] * 4], "sr": 8000},
    ]
    call = decode({"input_data": records}, VAD)
    assert call.rows == 2
    assert call.inputs["state"].shape == (2, 2, 4)
    assert call.inputs["state"][:, 1].tolist() == [[2] * 4, [3] * 4]
    assert call.inputs["state"].flags.c_contiguous
    assert call.inputs["sr"] == 8000


def test_records_of_single_values() -> None:
    call = decode({"data": [{"age": 1, "town": "a"}, {"town": "b", "age": 2}]}, COLUMNS)
    assert call.inputs["age"].tolist() == [[1], [2]]


def test_a_record_for_a_model_with_a_fixed_batch_of_one() -> None:
    sig = signature(spec("x", shape=(1, 3), batch_axis=None))
    assert decode({"data": [{"x": [1, 2, 3]}]}, sig).inputs["x"].shape == (1, 3)


def test_records_that_differ_in_a_shared_value_are_refused() -> None:
    state = [[0] * 4, [0] * 4]
    records = [{"input": [1], "state": state, "sr": 8000}, {"input": [1], "state": state, "sr": 16000}]
    assert "'sr' differs between records" in refused({"data": records}, VAD)


def test_a_shared_value_needs_a_row() -> None:
    body = {"data": {"columns": ["input", "state", "sr"], "data": []}}
    assert "no rows" in refused(body, VAD)


def test_a_model_may_call_its_inputs_columns_and_data() -> None:
    sig = signature(spec("columns"), spec("data"))
    rows = [[1, 2, 3]]
    assert decode({"data": {"columns": rows, "data": rows}}, sig).rows == 1


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"data": [[NaN, 1, 2]]}', "not JSON"),
        (b'{"data": [[Infinity, 1, 2]]}', "not JSON"),
        ([[1, 2, 3]], "no object"),
        ({}, "no keys"),
        ({"rows": 1}, "'rows'"),
        ({"x" * 500: 1}, "xxx…"),
        ({"data": [[1, 2, 3]], "input_data": [[1, 2, 3]]}, "both"),
        ({"data": [[1, 2, 3]], "method": "predict"}, "'method' beside 'data'"),
        ({"data": [[1, 2]]}, "shape [1, 2]"),
        ({"data": [1, 2, 3]}, "shape [3]"),
        ({"data": 5}, "shape []"),
        ({"data": None}, "null"),
        ({"data": [[1, 2, 3], [1, 2]]}, "2 elements at [1] where the first list there has 3"),
        ({"data": [[1, 2, 3], 4]}, "it has 4 at [1]"),
        ({"data": [[1, [2], 3]]}, "a list at [0][1]"),
        ({"data": [[1, "2", 3]]}, '"2" at [0][1]; FP32 takes numbers'),
        ({"data": [[1, True, 3]]}, "true at [0][1]"),
        ({"data": [[1, None, 3]]}, "null at [0][1]"),
        ({"data": [[1, {}, 3]]}, "an object at [0][1]"),
        ({"data": [[1, 1e39, 3]]}, "1e+39 at [0][1]"),
        ({"data": {"y": [[1, 2, 3]]}}, "no input 'y'"),
        ({"data": {}}, "input 'x' is missing"),
        ({"data": [{"y": 1}]}, "record 0 names 'y'"),
        ({"data": [{"x": [1, 2, 3]}, {}]}, "record 1 lacks 'x'"),
        ({"data": [{"x": [1, 2, 3]}, 5]}, "record 1 is no object"),
        ({"data": {"columns": ["a"], "data": [[1, 2, 3]]}}, "row 0 of the split has 3 values"),
        ({"data": {"columns": ["a", "b", "c"], "data": [[1, 2, 3], 4]}}, "no list of rows"),
        ({"data": {"columns": "abc", "data": [[1, 2, 3]]}}, "no list of names"),
        ({"data": {"columns": [[0]], "data": [[1]]}}, "no list of names"),
        ({"data": {"columns": ["a"], "data": [[1]], "index": [1, 2]}}, "'index' does not fit"),
        ({"data": {"columns": ["a"], "data": [[1]], "index": 1}}, "'index' does not fit"),
        ({"data": {"columns": ["a"], "data": [[1]], "name": "n"}}, "unknown key 'name'"),
        ({"data": {"columns": ["a", "b"], "data": [[1, 2]]}}, "shape [1, 2]"),
    ],
)
def test_what_does_not_fit_is_refused_by_what_was_found(body: object, found: str) -> None:
    assert found in refused(body)


def test_rows_without_names_need_a_single_input() -> None:
    assert "the model has 2 inputs, 'age' (FP32 [-1, 1])" in refused({"data": [[1, "a"]]}, COLUMNS)
    body = {"data": {"columns": ["age", "city"], "data": [[1, "a"]]}}
    assert "the columns 'age', 'city'" in refused(body, COLUMNS)


def test_rows_must_agree_between_inputs() -> None:
    assert "2 rows where another input has 1" in refused({"data": {"age": [1], "town": ["a", "b"]}}, COLUMNS)


def test_one_output_is_an_array() -> None:
    sig = signature()
    encoded = answer({"y": np.array([[0.1, 0.9]], np.float32)}, sig)
    assert encoded.content_type == b"application/json"
    assert encoded.body == b"[[0.1,0.9]]"
    assert encoded.headers == ()


def test_several_outputs_are_an_object() -> None:
    outputs = (spec("label", Datatype.INT64, (-1,)), spec("score", Datatype.FP64, (-1,)))
    results = {"score": np.array([0.5]), "label": np.array([3])}
    assert answer(results, signature(outputs=outputs)).body == b'{"label":[3],"score":[0.5]}'


@pytest.mark.parametrize(
    ("datatype", "array", "text"),
    [
        (Datatype.BOOL, np.array([True, False]), b"[true,false]"),
        (Datatype.UINT64, np.array([2**64 - 1], np.uint64), b"[18446744073709551615]"),
        (Datatype.INT8, np.array([-128], np.int8), b"[-128]"),
        (Datatype.FP16, np.array([0.1], np.float16), b"[0.099975586]"),
        (Datatype.BF16, np.array([0x3F80, 0x3DCD], np.uint16), b"[1.0,0.100097656]"),
        (Datatype.FP64, np.array([0.1]), b"[0.1]"),
        (Datatype.FP32, np.array(0.1, np.float32), b"0.1"),
        (Datatype.FP32, np.zeros((0, 2), np.float32), b"[]"),
        (Datatype.FP32, np.zeros((2, 0), np.float32), b"[[],[]]"),
        (Datatype.FP32, np.arange(4, dtype=np.float32).reshape(2, 2).T, b"[[0.0,2.0],[1.0,3.0]]"),
        (Datatype.BYTES, np.array(["a", "null"], object), b'["a","null"]'),
        (Datatype.BYTES, np.array([["a"], ["b"]], object), b'[["a"],["b"]]'),
        (Datatype.BYTES, np.array("a", object), b'"a"'),
        (Datatype.BYTES, np.array([b"a\xff"], object), '["a\N{REPLACEMENT CHARACTER}"]'.encode()),
        (Datatype.BYTES, np.array(["a\ud800"], object), b'["a?"]'),
    ],
)
def test_every_kind_of_array_has_its_text(datatype: Datatype, array: Array, text: bytes) -> None:
    outputs = (spec("y", datatype, (-1,)),)
    encoded = answer({"y": array}, signature(outputs=outputs))
    assert encoded.body == text
    assert encoded.headers == ()


def test_maps_are_objects_with_float32_values() -> None:
    rows = np.empty(2, object)
    rows[:] = [{0: float(np.float32(0.9)), 1: 0.1}, {"a": 1}]
    outputs = (spec("y", Datatype.FP32, (-1,), maps=True),)
    encoded = answer({"y": rows}, signature(outputs=outputs))
    assert encoded.body == b'[{"0":0.9,"1":0.1},{"a":1}]'


def test_bad_unicode_is_replaced_wherever_it_is() -> None:
    rows = _objects({"k\ud800": "v\ud800", "n": 1})
    outputs = (spec("y", Datatype.BYTES, (-1,), maps=True), spec("z", Datatype.BYTES, (-1,)))
    encoded = answer({"y": rows, "z": np.array(["\ud800"], object)}, signature(outputs=outputs))
    assert orjson.loads(encoded.body) == {"y": [{"k?": "v?", "n": 1}], "z": ["?"]}


def test_sequences_of_arrays_are_arrays() -> None:
    rows = np.empty(2, object)
    rows[:] = [np.array([1.5, 2.5]), np.arange(4.0).reshape(2, 2).T]
    outputs = (spec("y", Datatype.FP64, (-1,), maps=True),)
    encoded = answer({"y": rows}, signature(outputs=outputs))
    assert orjson.loads(encoded.body) == [[1.5, 2.5], [[0, 2], [1, 3]]]


def _objects(*elements: object) -> Array:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


@pytest.mark.parametrize(
    ("datatype", "array"),
    [
        (Datatype.FP32, np.array([[np.nan, 1]], np.float32)),
        (Datatype.FP16, np.array([np.inf], np.float16)),
        (Datatype.FP64, np.array(-np.inf)),
        (Datatype.BF16, np.array([0x7F80], np.uint16)),
        (Datatype.BYTES, _objects({0: float("nan")})),
        (Datatype.BYTES, _objects(np.array([np.inf]), np.array([1]))),
    ],
)
def test_nonfinite_values_are_null_and_a_header_says_so(datatype: Datatype, array: Array) -> None:
    outputs = (spec("y", datatype, (-1,)),)
    encoded = answer({"y": array}, signature(outputs=outputs))
    assert b"null" in encoded.body
    assert encoded.headers == ((b"x-gateway-nonfinite", b"true"),)


def test_the_word_null_in_a_text_is_no_nonfinite_value() -> None:
    outputs = (spec("null", Datatype.FP32, (-1,)), spec("text", Datatype.BYTES, (-1,)))
    results = {"null": np.zeros(1, np.float32), "text": np.array(["null"], object)}
    assert answer(results, signature(outputs=outputs)).headers == ()


def test_several_outputs_are_named_whatever_they_are_made_of() -> None:
    bits = np.array([0x3F80, 0xC000], np.uint16)
    outputs = (spec("y", Datatype.FP32, (-1, 2)), spec("z", Datatype.BF16, (-1,)))
    fortran = np.array([[1, 2], [3, 4]], np.float32, order="F")
    results: dict[str, Array] = {"y": fortran, "z": bits}
    assert answer(results, signature(outputs=outputs)).body == b'{"y":[[1.0,2.0],[3.0,4.0]],"z":[1.0,-2.0]}'
    outputs = (spec("y", Datatype.FP32, (-1, 2)), spec("\ud800", Datatype.INT64, ()))
    results = {"y": fortran, "\ud800": np.array(7)}
    assert answer(results, signature(outputs=outputs)).body == b'{"y":[[1.0,2.0],[3.0,4.0]],"?":7}'


def test_values_and_names_that_say_bool_words_go_the_exact_way() -> None:
    sig = signature(spec("true", shape=(-1,)))
    assert decode({"data": {"true": [1, 2.5]}}, sig).inputs["true"].tolist() == [1, 2.5]
    sig = signature(spec("ruler", shape=(-1,)))
    assert decode({"data": {"ruler": [1, 2.5]}}, sig).inputs["ruler"].tolist() == [1, 2.5]


def test_a_v2_body_on_score_gets_a_v2_answer() -> None:
    body = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
    encoded = decode(body).encode({"y": np.zeros((1, 2), np.float32)})
    assert orjson.loads(encoded.body)["model_name"] == "digits"


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [[1, 2, 3]]},
        {"inputs": {"x": [[1, 2, 3]]}},
        {"inputs": [{"x": [1, 2, 3]}]},
        {"instances": [[1, 2, 3]]},
        {"instances": [{"x": [1, 2, 3]}], "params": {}},
        {"dataframe_records": [{"x": [1, 2, 3]}]},
        {"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, 2, 3]]}},
        {"dataframe_split": {"index": [0], "data": [[1, 2, 3]]}},
    ],
)
def test_the_names_that_mlflow_gives_to_the_forms_are_known(body: dict[str, Any]) -> None:
    found = decode(body)
    assert found.inputs["x"].tolist() == [[1, 2, 3]]
    assert orjson.loads(found.encode({"y": np.zeros((1, 2), np.float32)}).body) == [[0, 0]]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"dataframe_split": [[1, 2, 3]]}, "'dataframe_split' is no object with 'data'"),
        ({"dataframe_split": {"columns": ["x"]}}, "'dataframe_split' is no object with 'data'"),
        ({"dataframe_split": {"data": [[1, 2, 3]], "name": "n"}}, "there is no input 'data'"),
        ({"dataframe_records": [[1, 2, 3]]}, "'dataframe_records' is no list of records"),
        ({"dataframe_records": {"x": [[1, 2, 3]]}}, "'dataframe_records' is no list of records"),
        ({"instances": [[1, 2, 3]], "inputs": [[1, 2, 3]]}, "both 'instances' and 'inputs'"),
        ({"instances": [[1, 2, 3]], "signature_name": "s"}, "the unknown key 'signature_name' beside 'instances'"),
    ],
)
def test_what_is_not_what_mlflow_calls_it_is_refused(body: object, found: str) -> None:
    assert found in refused(body)


def test_a_scalar_model_takes_a_scalar() -> None:
    assert decode({"data": 2.5}, of_type(Datatype.FP32, ())).inputs["x"] == np.float32(2.5)
