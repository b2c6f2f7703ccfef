"""The V2 protocol: JSON, binary tensors, raw requests, and what each refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from gateway.dataplane.codecs import Decoded, Encoded, decode_score, decode_v2
from runtimes import Array, Datatype, InvalidInput, Signature
from tests.support.codec_signatures import of_type, signature, spec

X = {"name": "x", "shape": [1, 3], "datatype": "FP32"}
TWO = signature(
    spec("a", Datatype.INT32, (-1, 2)),
    spec("b", Datatype.BYTES, (-1,)),
    outputs=(spec("p", Datatype.FP32, (-1, 2)), spec("q", Datatype.INT64, (-1,))),
)
TWO_RESULTS = {"p": np.array([[0.5, 1.5]], np.float32), "q": np.array([7])}


def decode(document: object, blobs: bytes | None = None, sig: Signature | None = None) -> Decoded:
    text = orjson.dumps(document)
    length = None if blobs is None else len(text)
    return decode_v2(text + (blobs or b""), length, sig or signature(), "digits", "blue")


def refused(document: object, blobs: bytes | None = None, sig: Signature | None = None) -> str:
    with pytest.raises(InvalidInput) as caught:
        decode(document, blobs, sig)
    return str(caught.value)


def request(*inputs: dict[str, Any], **members: object) -> dict[str, Any]:
    return {"inputs": list(inputs or ({**X, "data": [1, 2, 3]},)), **members}


def parts(encoded: Encoded) -> tuple[dict[str, Any], bytes]:
    length = dict(encoded.headers).get(b"inference-header-content-length")
    end = len(encoded.body) if length is None else int(length)
    document: dict[str, Any] = orjson.loads(encoded.body[:end])
    return document, encoded.body[end:]


@pytest.mark.parametrize("data", [[1, 2, 3], [[1, 2, 3]]])
def test_data_may_be_flat_or_nested(data: object) -> None:
    call = decode(request({**X, "data": data}))
    assert call.inputs["x"].tolist() == [[1, 2, 3]]
    assert call.rows == 1
    assert call.outputs is None


def test_the_answer_is_flat_and_echoes_the_id() -> None:
    call = decode(request(id="r1"))
    encoded = call.encode({"y": np.array([[0.1, 0.9]], np.float32)})
    assert encoded.content_type == b"application/json"
    assert orjson.loads(encoded.body) == {
        "model_name": "digits",
        "model_version": "blue",
        "id": "r1",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [0.1, 0.9]}],
    }


def test_binary_tensors_in_and_out() -> None:
    values = np.array([[1, 2]], np.int32)
    document = request(
        {"name": "b", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 7}},
        {"name": "a", "shape": [1, 2], "datatype": "INT32", "parameters": {"binary_data_size": 8}},
        outputs=[{"name": "q", "parameters": {"binary_data": True}}, {"name": "p"}],
    )
    call = decode(document, b"\x03\0\0\0\xc3\xbc!" + values.tobytes(), TWO)
    assert call.inputs["b"].tolist() == ["ü!"]
    assert call.inputs["a"].tolist() == [[1, 2]]
    assert call.inputs["a"].flags.aligned
    answer, blob = parts(call.encode(TWO_RESULTS))
    assert [entry["name"] for entry in answer["outputs"]] == ["q", "p"]
    assert answer["outputs"][0]["parameters"] == {"binary_data_size": 8}
    assert answer["outputs"][1]["data"] == [0.5, 1.5]
    assert blob == TWO_RESULTS["q"].tobytes()


def test_binary_output_is_the_default_a_request_may_set() -> None:
    document = request(parameters={"binary_data_output": True})
    encoded = decode(document).encode({"y": np.array([[0.1, np.nan]], np.float32)})
    assert encoded.content_type == b"application/octet-stream"
    assert len(encoded.headers) == 1
    assert len(parts(encoded)[1]) == 8
    document = request(
        parameters={"binary_data_output": True}, outputs=[{"name": "y", "parameters": {"binary_data": False}}]
    )
    assert decode(document).encode({"y": np.zeros((1, 2), np.float32)}).headers == ()


def test_requested_outputs_come_in_the_models_order_for_the_batcher() -> None:
    sig = signature(outputs=tuple(spec(name) for name in ("p", "q", "r")))
    assert decode(request(outputs=[{"name": "r"}, {"name": "p"}]), sig=sig).outputs == ("p", "r")
    every = [{"name": "r"}, {"name": "p"}, {"name": "q"}]
    assert decode(request(outputs=every), sig=sig).outputs is None
    assert decode(request(outputs=[]), sig=sig).outputs is None


def test_timeout_is_in_microseconds_and_other_parameters_pass() -> None:
    call = decode(request(parameters={"timeout": 1500, "priority": 1, "sequence_id": "s", "mine": 2.5}))
    assert call.timeout_ns == 1_500_000
    assert decode(request()).timeout_ns == 0


def test_unknown_members_are_ignored() -> None:
    assert decode(request(trace={"a": [1, {"b": 2}]})).rows == 1


def test_nonfinite_outputs_are_null_in_json_with_a_header() -> None:
    outputs = (spec("p"), spec("null", Datatype.FP32, (-1,)))
    call = decode(request(), sig=signature(outputs=outputs))
    results = {"p": np.zeros((1, 3), np.float32), "null": np.array([np.inf], np.float32)}
    assert call.encode(results).headers == ((b"x-gateway-nonfinite", b"true"),)
    results["null"] = np.zeros(1, np.float32)
    assert call.encode(results).headers == ()


def test_an_output_whose_name_is_no_unicode_has_its_bad_part_replaced() -> None:
    call = decode(request(), sig=signature(outputs=(spec("\ud800", shape=(-1, 2)),)))
    answer, _ = parts(call.encode({"\ud800": np.zeros((1, 2), np.float32)}))
    assert answer["outputs"][0]["name"] == "?"


def test_maps_are_texts() -> None:
    rows = np.empty(1, object)
    rows[0] = {0: float(np.float32(0.9))}
    sig = signature(outputs=(spec("y", Datatype.FP32, (-1,), maps=True),))
    answer, _ = parts(decode(request(), sig=sig).encode({"y": rows}))
    assert answer["outputs"] == [{"name": "y", "datatype": "BYTES", "shape": [1], "data": ['{"0":0.9}']}]
    document = request(parameters={"binary_data_output": True})
    _, blob = parts(decode(document, sig=sig).encode({"y": rows}))
    assert blob == b'\x09\0\0\0{"0":0.9}'


@pytest.mark.parametrize("axis", [0, None])
def test_classification_gives_the_highest_values(axis: int | None) -> None:
    sig = signature(outputs=(spec("y", shape=(-1, 4), batch_axis=axis),))
    document = request(outputs=[{"name": "y", "parameters": {"classification": 2}}])
    answer, _ = parts(decode(document, sig=sig).encode({"y": np.array([[1, 5, 10, 4]], np.float32)}))
    assert answer["outputs"][0]["datatype"] == "BYTES"
    assert answer["outputs"][0]["data"] == ["10.000000:2", "5.000000:1"]
    assert answer["outputs"][0]["shape"] == ([1, 2] if axis == 0 else [2])


def test_classification_of_bfloat16_and_of_nothing() -> None:
    outputs = (spec("y", Datatype.BF16, (-1, 2)),)
    document = request(outputs=[{"name": "y", "parameters": {"classification": 1, "binary_data": True}}])
    call = decode(document, sig=signature(outputs=outputs))
    _, blob = parts(call.encode({"y": np.array([[0x3F80, 0xC000]], np.uint16)}))
    assert blob == b"\x0a\0\0\x001.000000:0"
    answer, _ = parts(call.encode({"y": np.empty((0, 2), np.uint16)}))
    assert answer["outputs"][0]["shape"] == [0, 1]


def test_sixteen_bit_floats_have_json_numbers() -> None:
    for datatype in (Datatype.FP16, Datatype.BF16):
        sig = of_type(datatype, (-1,))
        call = decode(request({"name": "x", "shape": [2], "datatype": datatype.v2, "data": [1, 0.5]}), sig=sig)
        answer, _ = parts(call.encode({"y": call.inputs["x"]}))
        assert answer["outputs"][0]["data"] == [1.0, 0.5]


def test_bits_are_booleans_in_v2() -> None:
    sig = of_type(Datatype.BOOL, (-1,))
    call = decode(request({"name": "x", "shape": [3], "datatype": "BOOL", "data": [1, False, 0]}), sig=sig)
    assert call.inputs["x"].tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("shape", "data", "fits"),
    [
        ([0, 3], [], True),
        ([2, 0], [[], []], True),
        ([2, 0], [], True),
        ([0, 0], [], True),
        ([2, 0], [[]], False),
        ([0, 2**62], [], False),
        ([0, 65537], [], False),
        ([0, 65536], [], True),
        ([2, 3], [[1, 2], [3, 4], [5, 6]], False),
        ([1, 3], [1, 2], False),
        ([1, 3], [], False),
    ],
)
def test_data_must_be_of_the_shape(shape: list[int], data: object, fits: bool) -> None:
    sig = of_type(Datatype.FP32, (-1, -1))
    document = request({"name": "x", "shape": shape, "datatype": "FP32", "data": data})
    if fits:
        assert decode(document, sig=sig).inputs["x"].shape == tuple(shape)
    else:
        assert "'x'" in refused(document, sig=sig)


def test_scalars_in_every_form() -> None:
    sig = of_type(Datatype.FP64, ())
    entry = {"name": "x", "shape": [], "datatype": "FP64"}
    assert decode(request({**entry, "data": 2.5}), sig=sig).inputs["x"] == 2.5
    assert decode(request({**entry, "data": [2.5]}), sig=sig).inputs["x"].shape == ()
    raw = np.float64(2.5).tobytes()
    document = request({**entry, "parameters": {"binary_data_size": 8}})
    call = decode(document, raw, sig)
    assert call.inputs["x"] == 2.5
    assert parts(call.encode({"y": np.array(2.5)}))[0]["outputs"][0]["shape"] == []


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ([], 'no list "inputs"'),
        ({}, 'no list "inputs"'),
        ({"inputs": {}}, 'no list "inputs"'),
        ({"inputs": []}, "input 'x' is missing"),
        ({"inputs": [5]}, "no name"),
        (request({"name": 5}), "no name"),
        (request({"name": "z"}), "no input 'z'"),
        (request({**X, "datatype": "FP64", "data": []}), "datatype 'FP64'; the model takes FP32"),
        (request({"name": "x", "shape": [1, 3], "data": []}), "datatype None"),
        (request({**X, "shape": 3, "data": []}), "no shape"),
        (request({**X, "shape": [1] * 65, "data": []}), "no shape"),
        (request({**X, "shape": [-1, 3], "data": []}), "-1 in its shape"),
        (request({**X, "shape": [1.0, 3], "data": []}), "1.0 in its shape"),
        (request({**X, "shape": [True, 3], "data": []}), "True in its shape"),
        (request({**X, "shape": [[[9]], 3], "data": []}), "in its shape"),
        (request({**X}), "neither of"),
        (request({**X, "data": [1, 2, 3], "parameters": {"binary_data_size": 12}}), "both of"),
        (request({**X, "parameters": {"shared_memory_region": "r"}}), "shared memory"),
        (request({**X, "parameters": 5}), "no object"),
        (request({**X, "parameters": {"a": []}}), "a list or an object"),
        (request({**X, "data": [1, 2, 3]}, {**X, "data": [1, 2, 3]}), "twice"),
        (request({**X, "data": [1, 2, "3"]}), '"3" at [2]'),
        (request({**X, "data": [1, 2, True]}), "true at [2]"),
        (request({**X, "data": [1, 2, None]}), "null at [2]"),
        (request({**X, "data": {"a": 1}}), "an object"),
        (request(id=5), "id is no string"),
        (request(parameters=[]), "no object"),
        (request(parameters={"timeout": -1}), "'timeout' is -1"),
        (request(parameters={"timeout": "1"}), "'timeout'"),
        (request(parameters={"timeout": True}), "'timeout'"),
        (request(parameters={"timeout": 2**62}), "'timeout'"),
        (request(parameters={"binary_data_output": 1}), "'binary_data_output'"),
        (request(outputs={}), '"outputs" is no list'),
        (request(outputs=0), '"outputs" is no list'),
        (request(outputs=[{"name": "z"}]), "no output 'z'"),
        (request(outputs=["y"]), "an output of the request has no name"),
        (request(outputs=[{"name": "y"}, {"name": "y"}]), "names an output twice"),
        (request(outputs=[{"name": "y", "parameters": {"binary_data": "yes"}}]), "'binary_data' of output 'y'"),
        (request(outputs=[{"name": "y", "parameters": {"shared_memory_region": "r"}}]), "shared memory"),
        (request(outputs=[{"name": "y", "parameters": {"classification": -1}}]), "'classification'"),
        (request(outputs=[{"name": "y", "parameters": {"classification": 1.5}}]), "'classification'"),
    ],
)
def test_what_does_not_fit_is_refused_by_what_was_found(document: object, found: str) -> None:
    assert found in refused(document)


def test_strings_cannot_be_classified() -> None:
    sig = signature(outputs=(spec("y", Datatype.BYTES, (-1,)),))
    document = request(outputs=[{"name": "y", "parameters": {"classification": 1}}])
    assert "no numbers" in refused(document, sig=sig)


@pytest.mark.parametrize(
    ("shape", "size", "blobs", "found"),
    [
        ([1, 3], 12, b"\0" * 11, "11 bytes are left"),
        ([1, 3], 12, b"\0" * 13, "1 bytes after its last tensor"),
        ([1, 3], 8, b"\0" * 8, "takes 12"),
        ([2, 3], 12, b"\0" * 12, "takes 24"),
        ([1, 3], -1, b"", "binary_data_size -1"),
        ([1, 3], 12.0, b"\0" * 12, "binary_data_size 12.0"),
        ([1, 3], True, b"\0", "binary_data_size True"),
        ([2**62, 2**62], 12, b"\0" * 12, "takes"),
        ([0, 2**63], 0, b"", "its other free sizes are [9223372036854775808]"),
        ([0, 4], 0, b"", "shape [0, 4]"),
    ],
)
def test_binary_sizes_are_exact(shape: list[int], size: object, blobs: bytes, found: str) -> None:
    document = request({**X, "shape": shape, "parameters": {"binary_data_size": size}})
    assert found in refused(document, blobs)


def test_an_empty_binary_tensor_is_fine() -> None:
    document = request({**X, "shape": [0, 3], "parameters": {"binary_data_size": 0}})
    assert decode(document, b"").inputs["x"].shape == (0, 3)


def test_binary_data_need_the_header() -> None:
    assert "0 bytes are left" in refused(request({**X, "parameters": {"binary_data_size": 12}}))


@pytest.mark.parametrize("length", [-1, 10**9])
def test_a_header_length_outside_the_body_is_refused(length: int) -> None:
    with pytest.raises(InvalidInput, match=f"is {length} and the body has 2 bytes"):
        decode_v2(b"{}", length, signature(), "m", "1")


def test_a_header_length_of_a_part_is_not_json() -> None:
    with pytest.raises(InvalidInput, match="not JSON"):
        decode_score(b'{"inputs": []}', 5, signature(), "m", "1")


@pytest.mark.parametrize(
    ("blob", "found"),
    [
        (b"\x01\0\0\0a", None),
        (b"\x02\0\0\0a", "ends inside string 0 of 1"),
        (b"\xff\xff\xff\xffa", "ends inside string 0"),
        (b"\x01\0\0\0ab", "1 bytes after its 1 strings"),
        (b"\x01\0\0\0\xff", "not UTF-8 (string 0, byte 0)"),
        (b"\x01\0\0", "too few"),
    ],
)
def test_binary_strings_are_read_to_the_byte(blob: bytes, found: str | None) -> None:
    document = request(
        {"name": "x", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(blob)}}
    )
    sig = of_type(Datatype.BYTES, (-1,))
    if found is None:
        assert decode(document, blob, sig).inputs["x"].tolist() == ["a"]
    else:
        assert found in refused(document, blob, sig)


def test_a_string_that_ends_before_the_next_length_is_refused() -> None:
    blob = b"\x04\0\0\0abcd"
    document = request({"name": "x", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 8}})
    assert "ends inside string 1 of 2" in refused(document, blob, of_type(Datatype.BYTES, (-1,)))


def test_a_binary_bool_is_zero_or_one() -> None:
    document = request({"name": "x", "shape": [2], "datatype": "BOOL", "parameters": {"binary_data_size": 2}})
    sig = of_type(Datatype.BOOL, (-1,))
    assert decode(document, b"\0\x01", sig).inputs["x"].tolist() == [False, True]
    assert "other than 0 and 1" in refused(document, b"\0\x02", sig)


def raw(body: bytes, sig: Signature) -> Decoded:
    return decode_v2(body, 0, sig, "m", "1")


@pytest.mark.parametrize(
    ("shape", "body", "found"),
    [
        ((-1, 3), np.arange(3, dtype=np.float32).tobytes(), (1, 3)),
        ((-1, -1), np.arange(5, dtype=np.float32).tobytes(), (1, 5)),
        ((-1, 2, -1), np.arange(4, dtype=np.float32).tobytes(), (1, 2, 2)),
        ((4,), np.arange(4, dtype=np.float32).tobytes(), (4,)),
        ((-1, 0, -1), b"", (1, 0, 0)),
    ],
)
def test_a_raw_request_is_one_row(shape: tuple[int, ...], body: bytes, found: tuple[int, ...]) -> None:
    call = raw(body, of_type(Datatype.FP32, shape))
    assert call.inputs["x"].shape == found
    document, blob = parts(call.encode({"y": call.inputs["x"]}))
    assert blob == body
    assert document["outputs"][0]["parameters"]["binary_data_size"] == len(body)


def test_a_raw_string_has_no_length_before_it() -> None:
    assert raw(b"abc", of_type(Datatype.BYTES, (-1,))).inputs["x"].tolist() == ["abc"]
    assert raw(b"abc", of_type(Datatype.BYTES, (-1, -1))).inputs["x"].tolist() == [["abc"]]


@pytest.mark.parametrize(
    ("sig", "body", "found"),
    [
        (TWO, b"", "2 inputs"),
        (of_type(Datatype.FP32, (-1, -1, -1)), b"", "2 dimensions of input 'x' unknown"),
        (of_type(Datatype.FP32), b"\0" * 11, "takes 12"),
        (of_type(Datatype.FP32, (-1, -1)), b"\0" * 11, "takes 8"),
        (of_type(Datatype.BYTES, (-1, 2)), b"ab", "is one string"),
        (of_type(Datatype.BYTES, (-1,)), b"\xff", "not UTF-8"),
    ],
)
def test_a_raw_request_that_does_not_fit_is_refused(sig: Signature, body: bytes, found: str) -> None:
    with pytest.raises(InvalidInput, match=found):
        raw(body, sig)


def test_json_and_binary_inputs_may_stand_side_by_side() -> None:
    document = request(
        {"name": "a", "shape": [1, 2], "datatype": "INT32", "data": [1, 2]},
        {"name": "b", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}},
    )
    call = decode(document, b"\x01\0\0\0z", TWO)
    assert call.inputs["a"].tolist() == [[1, 2]]
    assert call.inputs["b"].tolist() == ["z"]


def test_answers_may_be_views_of_a_batch() -> None:
    batch: Array = np.arange(8, dtype=np.float32).reshape(2, 4).T
    sig = signature(outputs=(spec("y", shape=(-1, 2)),))
    assert parts(decode(request(), sig=sig).encode({"y": batch[1:2]}))[0]["outputs"][0]["data"] == [1.0, 5.0]
    binary = decode(request(parameters={"binary_data_output": True}), sig=sig)
    assert parts(binary.encode({"y": batch[1:2]}))[1] == np.array([1, 5], np.float32).tobytes()
