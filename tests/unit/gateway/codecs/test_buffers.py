"""Numbers straight into a buffer: where a body is cut, what a block of numbers is, and who goes the slow way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

from gateway.dataplane.codecs import Decoded, buffers, decode_score, decode_v2, numbers
from runtimes import Datatype, InvalidInput
from tests.support.codec_signatures import of_type, signature, spec

ROW = [index / 7 for index in range(600)]
LONG = orjson.dumps({"input_data": [ROW]})


def parts(body: bytes) -> tuple[object, bytes]:
    cut = buffers.cut(body)
    assert cut is not None
    return cut.rest, cut.block


@pytest.mark.parametrize(
    ("body", "rest", "block"),
    [
        (b'{"data": [[1, 2]]}', {"data": []}, b"[[1, 2]]"),
        (b'{"input_data"\n:\t[1 ] , "params": {}}', {"input_data": [], "params": {}}, b"[1 ]"),
        (
            b'{"inputs":[{"name":"data","data":[1,2],"x":3}]}',
            {"inputs": [{"name": "data", "data": [], "x": 3}]},
            b"[1,2]",
        ),
        (b'{"metadata": [1]}', {"metadata": []}, b"[1]"),
    ],
)
def test_the_block_is_cut_out_of_the_rest(body: bytes, rest: object, block: bytes) -> None:
    assert parts(body) == (rest, block)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"data": 5}',
        b'{"data": [1, 2',
        b'{"data": [1]',
        b'{"data": [1], "data": [2]}',
        b'{"data": [], "x": {"data": [2]}}',
        b'{"data": [1], "d\\u0061ta": [2]}',
        b'{"data": [1]} 5',
        b'\xef\xbb\xbf{"data": [1]}',
        b'{"data": [1], "x": "' + b"long" * 400 + b'"}',
        b'{"x": "' + b"long" * 400 + b'", "data": [1]}',
        b'{"data": ["a", 1]}',
    ],
)
def test_an_unusual_body_is_not_cut(body: bytes) -> None:
    assert buffers.cut(body) is None


def test_a_huge_body_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    assert buffers.cut(LONG) is not None
    monkeypatch.setattr(buffers, "_BYTES_MAX", len(LONG) - 1)
    assert buffers.cut(LONG) is None


@pytest.mark.parametrize(
    ("block", "shape"),
    [
        (b"[1]", (1,)),
        (b"[1,2,3]", (3,)),
        (b"[[1,2,3]]", (1, 3)),
        (b"[[1,2,3],[4,5,6]]", (2, 3)),
        (b"[[[1],[2]],[[3],[4]],[[5],[6]]]", (3, 2, 1)),
    ],
)
@pytest.mark.parametrize("kept", [0, 1 << 18])
def test_a_block_has_the_shape_of_its_lists(
    block: bytes, shape: tuple[int, ...], kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffers, "_KEPT_MAX", kept)
    doubles, integers = buffers.numbers_in(block, "d"), buffers.numbers_in(block, "i")
    assert doubles is not None
    assert integers is not None
    assert doubles.dtype == np.float64
    assert integers.dtype == np.int64
    assert doubles.shape == integers.shape == shape
    assert doubles.tolist() == integers.tolist() == orjson.loads(block)


@pytest.mark.parametrize(
    "block",
    [
        b"[]",
        b"[[]]",
        b"[[],[]]",
        b"[[1,2],[]]",
        b"[[1,2],[3]]",
        b"[[1],2]",
        b"[1,[2]]",
        b"[[1],[[2]]]",
        b"[[[1],2],[3,4]]",
        b"[[[1]],[[2],[3]]]",
        b"[1],[2]",
        b"[1]]",
        b"[1,]",
        b"[01]",
        b"[NaN]",
        b"[1e400]",
        b"[18446744073709551616]",
        b"[true]",
        b"[null]",
        b"[{}]",
        b"[" * 70 + b"1" + b"]" * 70,
    ],
)
def test_a_block_of_anything_else_is_none(block: bytes) -> None:
    assert buffers.numbers_in(block, "d") is None


@pytest.mark.parametrize("block", [b"[1.0]", b"[1, 2.5]", b"[1e2]", b"[9223372036854775808]"])
def test_a_block_of_integers_has_no_floats(block: bytes) -> None:
    assert buffers.numbers_in(block, "i") is None


def test_a_parser_in_use_is_left_alone() -> None:
    # Given another thread in the middle of a body.
    root: Any = buffers._PARSER.parse(b"[1]")
    # When one more comes by.
    assert buffers.numbers_in(b"[2]", "d") is None
    assert decode_score(LONG, None, of_type(Datatype.FP32, (-1, 600)), "m", "1").rows == 1
    # Then the first one's numbers are untouched, and afterwards the way is free again.
    assert root.as_list() == [1]
    del root
    assert buffers.numbers_in(b"[2]", "d") is not None


@pytest.mark.parametrize("block", [b"[1e39]", b"[1, -3.5e38]"])
def test_a_block_beyond_float32_is_none(block: bytes) -> None:
    assert numbers.from_block(block, spec("x")) is None


@pytest.mark.parametrize("datatype", [Datatype.BF16, Datatype.BOOL, Datatype.BYTES])
def test_a_datatype_that_is_no_plain_number_is_none(datatype: Datatype) -> None:
    assert numbers.from_block(b"[1]", spec("x", datatype)) is None
    assert numbers.packed([1], spec("x", datatype)) is None


@pytest.mark.parametrize("datatype", [Datatype.UINT8, Datatype.INT8, Datatype.INT64, Datatype.UINT64])
def test_a_block_of_integers_fits_its_datatype_or_is_none(datatype: Datatype) -> None:
    array = numbers.from_block(b"[[1, 100]]", spec("x", datatype))
    assert array is not None
    assert array.dtype == datatype.dtype
    assert array.tolist() == [[1, 100]]
    beyond = b"[9223372036854775808]" if datatype.dtype.itemsize == 8 else b"[300]"
    assert numbers.from_block(beyond, spec("x", datatype)) is None


@pytest.mark.parametrize("value", [[], [[]], [[], []], [[1], [1, 2]], [[1], 2], [1, [2]], [{}], [[{}]], [1e39]])
def test_what_is_not_plain_rows_is_not_packed(value: list[object]) -> None:
    assert numbers.packed(value, spec("x")) is None


def test_a_long_body_for_a_model_with_more_inputs_is_read_whole() -> None:
    sig = signature(spec("x", shape=(-1, 600)), spec("z", shape=(-1, 600)))
    with pytest.raises(InvalidInput, match="rows without names"):
        decode_score(LONG, None, sig, "m", "1")


@pytest.mark.parametrize("door", [decode_score, decode_v2])
@pytest.mark.parametrize("shape", [[1, 600], [600], [2, 300]])
def test_a_long_v2_body_has_the_shape_that_it_says(door: Callable[..., Decoded], shape: list[int]) -> None:
    entry = {"name": "x", "shape": shape, "datatype": "FP32", "data": ROW}
    sig = of_type(Datatype.FP32, (-1,) * len(shape))
    call = door(orjson.dumps({"inputs": [entry], "id": "7"}), None, sig, "m", "1")
    assert call.inputs["x"].shape == tuple(shape)
    assert call.inputs["x"].ravel().tolist() == np.array(ROW, np.float32).tolist()


def test_a_long_v2_body_is_refused_in_the_same_words() -> None:
    entry = {"name": "x", "shape": [1, 601], "datatype": "FP32", "data": [ROW]}
    sig = of_type(Datatype.FP32, (-1, 600))
    with pytest.raises(InvalidInput, match=r"has the shape \[1, 601\] and data of shape \[1, 600\]"):
        decode_v2(orjson.dumps({"inputs": [entry]}), None, sig, "m", "1")
    with pytest.raises(InvalidInput, match="the request's id is no string"):
        decode_v2(orjson.dumps({"inputs": [{**entry, "shape": [600]}], "id": 1}), None, sig, "m", "1")
