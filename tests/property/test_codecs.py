"""Codecs by property: what a client means is what a model gets, and nothing but InvalidInput comes of nonsense.

A model that answers its input stands for every model: a round trip is then client, decode, encode, client.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from gateway.dataplane.codecs import Decoded, Encoded, buffers, decode_score, decode_v2, numbers
from runtimes import Array, Datatype, InvalidInput, Signature
from tests.support.codec_signatures import of_type, signature, spec

few = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
many = settings(few, max_examples=80)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**64), 2**64), st.integers(-3, 3)
)


def elements(datatype: Datatype, *, finite: bool) -> st.SearchStrategy[Any]:
    if datatype is Datatype.BYTES:
        return TEXT
    if datatype is Datatype.BF16:
        # Bit patterns; an exponent of all ones is NaN or infinity.
        return st.integers(0, 2**16 - 1).filter(lambda bits: not finite or bits & 0x7F80 != 0x7F80)
    return npst.from_dtype(datatype.dtype, allow_nan=not finite, allow_infinity=not finite)


def shapes(rank_max: int = 3) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(0, 4), max_size=rank_max).map(tuple)


@st.composite
def tensors(draw: st.DrawFn, datatype: Datatype, *, finite: bool, min_size: int = 0) -> Array:
    shape = draw(shapes().filter(lambda sizes: min(sizes, default=1) >= min_size))
    count = int(np.prod(shape))
    values = draw(st.lists(elements(datatype, finite=finite), min_size=count, max_size=count))
    array = np.empty(count, datatype.dtype)
    array[:] = values
    return array.reshape(shape)


def model_of(array: Array, datatype: Datatype) -> Signature:
    return of_type(datatype, (-1,) * array.ndim)


def same(left: Array, right: Array) -> bool:
    """Equal to the bit, so NaN equals itself and -0.0 is not 0.0."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return left.tolist() == right.tolist() if left.dtype == object else left.tobytes() == right.tobytes()


def echo(call: Decoded) -> Encoded:
    return call.encode({"y": call.inputs["x"]})


def as_json(array: Array, datatype: Datatype) -> Any:
    """What a client writes: BF16 as the numbers its bit patterns stand for."""
    if datatype is Datatype.BF16:
        return (array.astype(np.uint32) << 16).view(np.float32).tolist()
    return array.tolist()


def blob_of(array: Array) -> bytes:
    if array.dtype != object:
        return array.tobytes()
    return b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in array.ravel())


def v2_request(array: Array, datatype: Datatype, *, binary: bool) -> tuple[bytes, int | None]:
    entry: dict[str, Any] = {"name": "x", "shape": list(array.shape), "datatype": datatype.v2}
    document: dict[str, Any] = {"id": "7", "inputs": [entry], "parameters": {"binary_data_output": binary}}
    if not binary:
        entry["data"] = as_json(array, datatype)
        return orjson.dumps(document), None
    blob = blob_of(array)
    entry["parameters"] = {"binary_data_size": len(blob)}
    text = orjson.dumps(document)
    return text + blob, len(text)


def answered(encoded: Encoded) -> tuple[dict[str, Any], bytes]:
    length = dict(encoded.headers).get(b"inference-header-content-length")
    end = len(encoded.body) if length is None else int(length)
    document: dict[str, Any] = orjson.loads(encoded.body[:end])
    return document["outputs"][0], encoded.body[end:]


@pytest.mark.parametrize("datatype", list(Datatype))
@few
@given(data=st.data())
def test_v2_binary_round_trips_to_the_bit(datatype: Datatype, data: st.DataObject) -> None:
    array = data.draw(tensors(datatype, finite=False))
    body, length = v2_request(array, datatype, binary=True)
    call = decode_v2(body, length, model_of(array, datatype), "m", "1")
    assert same(call.inputs["x"], array)
    entry, blob = answered(echo(call))
    assert entry["shape"] == list(array.shape)
    assert entry["datatype"] == datatype.v2
    assert blob == blob_of(array)


@pytest.mark.parametrize("datatype", list(Datatype))
@few
@given(data=st.data())
def test_v2_json_round_trips_to_the_bit(datatype: Datatype, data: st.DataObject) -> None:
    array = data.draw(tensors(datatype, finite=True))
    body, length = v2_request(array, datatype, binary=False)
    sig = model_of(array, datatype)
    call = decode_v2(body, length, sig, "m", "1")
    assert same(call.inputs["x"], array)
    entry, blob = answered(echo(call))
    assert blob == b""
    assert entry["shape"] == list(array.shape)
    again = {"inputs": [{"name": "x", **{key: entry[key] for key in ("shape", "datatype", "data")}}]}
    assert same(decode_v2(orjson.dumps(again), None, sig, "m", "1").inputs["x"], array)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("datatype", list(Datatype))
@few
@given(data=st.data())
def test_azure_json_round_trips_to_the_bit(datatype: Datatype, named: bool, data: st.DataObject) -> None:
    array = data.draw(tensors(datatype, finite=True, min_size=1))
    sig = model_of(array, datatype)
    values = as_json(array, datatype)
    body = orjson.dumps({"input_data": {"x": values} if named else values})
    call = decode_score(body, None, sig, "m", "1")
    assert same(call.inputs["x"], array)
    encoded = echo(call)
    assert encoded.headers == ()
    again = b'{"data": ' + encoded.body + b"}"
    assert same(decode_score(again, None, sig, "m", "1").inputs["x"], array)


@pytest.mark.parametrize("datatype", [Datatype.FP32, Datatype.FP64, Datatype.FP16, Datatype.INT64, Datatype.UINT8])
@many
@given(
    rows=st.integers(0, 3).flatmap(
        lambda n: st.lists(st.lists(NUMBERS, min_size=n, max_size=n), min_size=1, max_size=4)
    )
)
def test_rows_become_what_numpy_makes_of_them_or_are_refused(datatype: Datatype, rows: list[list[Any]]) -> None:
    body = orjson.dumps({"data": rows}) if all(-(2**63) <= v < 2**64 for r in rows for v in r) else None
    body = body or b'{"data": ' + repr(rows).replace("'", "").encode() + b"}"
    sent = [value for row in orjson.loads(body)["data"] for value in row]
    sig = of_type(datatype, (-1, -1))
    try:
        array = decode_score(body, None, sig, "m", "1").inputs["x"]
    except InvalidInput:
        assert not all(_fits(value, datatype) for value in sent)
        return
    assert all(_fits(value, datatype) for value in sent)
    if datatype.is_integer:
        assert array.ravel().tolist() == sent
    else:
        reference = np.array(rows, np.float64).astype(datatype.dtype)
        assert same(array, reference.reshape(array.shape))


def _fits(value: float, datatype: Datatype) -> bool:
    if datatype.is_integer:
        limits = np.iinfo(datatype.dtype)
        if isinstance(value, float) and not (value.is_integer() and abs(value) <= 2**53):
            return False
        return int(limits.min) <= value <= int(limits.max)
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.float64(value).astype(datatype.dtype)))


@pytest.mark.parametrize("form", ["rows", "records", "split", "split by name"])
@few
@given(
    table=st.lists(
        st.tuples(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(-5, 5)),
        min_size=1,
        max_size=5,
    )
)
def test_every_azure_form_says_the_same(form: str, table: list[tuple[float, int]]) -> None:
    # Given a model with one input of two columns, or with an input for each.
    single = signature(spec("x", Datatype.FP64, (-1, 2)))
    double = signature(spec("a", Datatype.FP64, (-1, 1)), spec("b", Datatype.INT8, (-1,)))
    rows = [list(row) for row in table]
    if form in ("rows", "split"):
        payload: Any = (
            rows if form == "rows" else {"columns": ["p", "q"], "index": list(range(len(rows))), "data": rows}
        )
        call = decode_score(orjson.dumps({"input_data": payload}), None, single, "m", "1")
        assert call.inputs["x"].tolist() == [[float(a), float(b)] for a, b in table]
    else:
        by_name = {"columns": ["b", "a"], "data": [[b, a] for a, b in table]}
        payload = [{"b": b, "a": a} for a, b in table] if form == "records" else by_name
        call = decode_score(orjson.dumps({"input_data": payload}), None, double, "m", "1")
        assert call.inputs["a"].tolist() == [[a] for a, _ in table]
        assert call.inputs["b"].tolist() == [b for _, b in table]
    assert call.rows == len(table)


# Numbers as a client may write them, and what one may write in their place.
WRITTEN = (
    "0 -0 -0.0 1 3.0 -1 1E5 2.5e-3 0.1 1.0000000000000000000001 16777217 16777219.0000000001 9007199254740993 "
    "9223372036854775807 18446744073709551615 1.00000017881393432617187499 1.00000017881393432617187500001 5e-324 "
    "1e-400 7e-46 65504 -129"
)
SPELLINGS = st.sampled_from(WRITTEN.split()) | st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr)
MISPLACED = '1e400 3.5e38 65520 18446744073709551616 -9223372036854775809 NaN true null "1" "é" "" {} [] [1] 01 1. +1'
ODD = st.sampled_from(MISPLACED.split())
SPACE = st.sampled_from(["", "", " ", "\n\t"])
AROUND = {
    decode_score: ['{"input_data":%s}', ' { "data" : %s } ', '{"data":%s,"params":{}}', '{"data":{"x":%s}}'],
    decode_v2: [
        '{"inputs":[{"name":"x","shape":%%s,"datatype":"%%s","data":%s}]}',
        '{"id":"a:b","inputs":[{"data":%s,"name":"x","shape":%%s,"datatype":"%%s"}],"outputs":[{"name":"y"}]}',
        '{"inputs":[{"name":"x","shape":%%s,"datatype":"%%s","data":%s}],"parameters":{"timeout":5}}',
        '{"inputs":[{"name":"x","shape":%%s,"datatype":"%%s","data":%s,"data":[1]}]}',
        '{"x":{"data":[1]},"inputs":[{"name":"x","shape":%%s,"datatype":"%%s","data":%s}]}',
    ],
}


@st.composite
def bodies(draw: st.DrawFn, door: Any, datatype: Datatype) -> bytes:
    """Rows of numbers in one of the usual bodies; some are odd, ragged or broken somewhere."""
    count, size = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    leaves = draw(st.sampled_from([SPELLINGS, SPELLINGS, st.integers(-300, 2**64).map(str), SPELLINGS | ODD]))
    sizes = [size] * count if draw(st.booleans()) else draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    rows = [draw(st.lists(leaves, min_size=n, max_size=n)) for n in sizes]
    gap = draw(SPACE)
    lists = ["[" + f",{gap}".join(row) + gap + "]" for row in rows]
    block = draw(st.sampled_from([f"[{gap}" + f"{gap},".join(lists) + "]", lists[0], f"[[{lists[0]}]]"]))
    body = draw(st.sampled_from(AROUND[door])) % block
    if door is decode_v2:
        body = body % (draw(st.sampled_from([[len(rows), sizes[0]], [sizes[0]], [1, 1, sizes[0]]])), datatype.v2)
    text = body.encode()
    if draw(st.integers(0, 3)):
        return text
    start = draw(st.integers(0, len(text)))
    poked = draw(st.one_of(SNIPPETS, st.sampled_from([b"\\", b"\xef\xbb\xbf", b'data":[', b"\0"])))
    return text[:start] + poked + text[start + draw(st.integers(0, 1)) :]


def outcome(door: Any, body: bytes, sig: Signature) -> Any:
    try:
        call = door(body, None, sig, "m", "1")
    except InvalidInput as refusal:
        return str(refusal)
    array = call.inputs["x"]
    values = array.tolist() if array.dtype == object else array.tobytes()
    return array.dtype, array.shape, values, call.rows, call.outputs, call.timeout_ns


@pytest.mark.parametrize("datatype", list(Datatype))
@pytest.mark.parametrize("door", [decode_score, decode_v2])
@settings(few, max_examples=60)
@given(data=st.data())
def test_every_way_to_read_a_body_ends_the_same(door: Any, datatype: Datatype, data: st.DataObject) -> None:
    # Given a body, and a model that takes its rank or another.
    body = data.draw(bodies(door, datatype))
    sig = of_type(datatype, (-1,) * data.draw(st.sampled_from([2, 2, 1, 3])))
    sig = signature(*sig.inputs, outputs=(spec("y", shape=(-1, 2)),))
    with pytest.MonkeyPatch.context() as patch:
        # When it is read element by element, by packing, and straight into a buffer.
        patch.setattr(buffers, "BYTES_MIN", len(body) + 1)
        packed = outcome(door, body, sig)
        patch.setattr(numbers, "packed", lambda *_: None)
        patch.setattr(numbers, "_plain_tensor", lambda *_: None)
        exact = outcome(door, body, sig)
        patch.setattr(buffers, "BYTES_MIN", 0)
        buffered = outcome(door, body, sig)
    # Then the tensors are the same to the bit, and the refusals word by word.
    assert packed == exact
    assert buffered == exact


V2_JSON = {
    "id": "1",
    "parameters": {"timeout": 5, "binary_data_output": True},
    "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [[1, 2, 3]]}],
    "outputs": [{"name": "y", "parameters": {"classification": 1}}],
}
VALID: list[tuple[bytes, int | None]] = [
    (b'{"input_data": [[1.5, 2, 3e2], [4, 5, 6]]}', None),
    (b'{"input_data": {"columns": ["a", "b", "c"], "index": [0], "data": [[1, 2, 3]]}, "params": {}}', None),
    (b'{"data": {"x": [[1, 2, 3]]}}', None),
    (b'{"data": [{"x": [1, 2, 3]}, {"x": [1, 2, -0.5]}]}', None),
    (orjson.dumps(V2_JSON), None),
    v2_request(np.ones((2, 3), np.float32), Datatype.FP32, binary=True),
    (np.ones(3, np.float32).tobytes(), 0),
]
WORDS = b'null true NaN 1e999 18446744073709551616 "x" [ ] {} { } , : "a": -1 0 1.5 \xff "data": [[]] "\\u003a" e5 \0'
SNIPPETS = st.sampled_from(WORDS.split())


def poke(body: bytes, length: int | None, sig: Signature) -> None:
    """Either door decodes or says InvalidInput; what it decodes fits the model and can be answered."""
    for door in (decode_score, decode_v2):
        try:
            call = door(body, length, sig, "m", "1")
        except InvalidInput as refusal:
            assert len(str(refusal)) < 2000
            continue
        assert sig.check(call.inputs) == call.rows
        call.encode({"y": np.zeros((max(call.rows, 1), 2), np.float32)})


@many
@given(data=st.data())
def test_a_mutated_body_is_decoded_or_refused(data: st.DataObject) -> None:
    body, length = data.draw(st.sampled_from(VALID))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(start, min(len(body), start + 12)))
        body = body[:start] + data.draw(st.one_of(SNIPPETS, st.binary(max_size=3), st.just(b""))) + body[end:]
    if length is not None and data.draw(st.booleans()):
        length = data.draw(st.integers(-1, len(body) + 1))
    poke(body, length, signature())


@many
@given(body=st.binary(max_size=64), length=st.none() | st.integers(-2, 70), datatype=st.sampled_from(list(Datatype)))
def test_random_bytes_are_decoded_or_refused(body: bytes, length: int | None, datatype: Datatype) -> None:
    sig = of_type(datatype, (-1, -1))
    sig = signature(*sig.inputs, outputs=(spec("y", shape=(-1, 2)),))
    poke(body, length, sig)


JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS.filter(lambda v: -(2**63) <= v < 2**64) | TEXT,
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["x", "data", "inputs", "name", "shape", "datatype", "parameters", "columns", "index", "outputs"]
            )
            | TEXT,
            children,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@many
@given(value=JSON, key=st.sampled_from(["input_data", "data", "inputs", "outputs", "parameters", "id"]))
def test_any_json_is_decoded_or_refused(value: object, key: str) -> None:
    entry = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
    poke(orjson.dumps({key: value}), None, signature())
    poke(orjson.dumps({"inputs": [entry], key: value}), None, signature())
    poke(orjson.dumps({"inputs": [{**entry, "parameters": value}]}), None, signature())
    poke(orjson.dumps({"inputs": [{**entry, "data": value}]}), None, signature())


@many
@given(value=JSON, data=st.data())
def test_a_duplicate_name_is_refused_wherever_it_is(value: object, data: st.DataObject) -> None:
    text = orjson.dumps(value)
    name = data.draw(TEXT)
    twice = b"{%b:%b,%b:1}" % (orjson.dumps(name), text, orjson.dumps(name))
    sig = signature(spec(name or "x", Datatype.BYTES, (-1,)))
    for body in (b'{"data":' + twice + b"}", b'{"inputs":[{"name":"x"}],"z":' + twice + b"}"):
        with pytest.raises(InvalidInput):
            decode_score(body, None, sig, "m", "1")
    once = b'{"data":{%b:[%b]}}' % (orjson.dumps(name or "x"), orjson.dumps(data.draw(TEXT)))
    assert decode_score(once, None, sig, "m", "1").rows == 1
