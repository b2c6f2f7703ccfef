"""Duplicate names and deep nesting, whichever way the counting goes."""

from __future__ import annotations

import orjson
import pytest

from gateway.dataplane.codecs import Decoded, decode_score, decode_v2, documents
from runtimes import Datatype, InvalidInput
from tests.support.codec_signatures import of_type, signature

TEXT = of_type(Datatype.BYTES, (-1,))


def decode(body: bytes) -> Decoded:
    return decode_score(body, None, signature(), "m", "1")


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"data": [[1,2,3]], "data": [[4,5,6]]}', "data"),
        (b'{"data": {"x": [[1,2,3]], "x": [[4,5,6]]}}', "x"),
        (b'{"data": [{"x": [1,2,3], "x": [4,5,6]}]}', "x"),
        (b'{"data": [[1,2,3]], "d\\u0061ta": [[4,5,6]]}', "data"),
        (b'{"data": {"columns": ["a:b","b","c"], "data": [[1,2,3]], "data": [[1,2,3]]}}', "data"),
    ],
)
def test_a_name_given_twice_is_refused(body: bytes, name: str) -> None:
    with pytest.raises(InvalidInput, match=f"names '{name}' twice"):
        decode(body)


def test_a_name_given_twice_in_a_v2_body_is_refused() -> None:
    entry = b'{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]%s}'
    whole = b'{"inputs":[' + entry + b"]%s}"
    assert decode_v2(whole % (b"", b""), None, signature(), "m", "1").rows == 1
    for inner, outer in ((b',"data":[4,5,6]', b""), (b"", b',"id":"a","id":"b"'), (b"", b',"z":{"a":1,"a":2}')):
        with pytest.raises(InvalidInput, match="twice"):
            decode_v2(whole % (inner, outer), None, signature(), "m", "1")


@pytest.mark.parametrize("text", ["12:30", "::", "https://a:b", '\\":\\"', "\\u003a", "\\u003A and :", "\\n:"])
def test_colons_in_strings_are_no_duplicates(text: str) -> None:
    body = b'{"data": ["%s"]}' % text.encode()
    call = decode_score(body, None, TEXT, "m", "1")
    assert call.inputs["x"].tolist() == [orjson.loads(f'"{text}"')]


def test_an_escaped_colon_hides_no_duplicate() -> None:
    # As many colons as names and colons in the parsed value: only the exact look can tell.
    body = b'{"data": ["\\u003a"], "data": ["\\u003a"]}'
    with pytest.raises(InvalidInput, match="twice"):
        decode_score(body, None, TEXT, "m", "1")


def test_long_numbers_are_no_matter_to_the_close_look() -> None:
    digits = b"1" * 5000
    body = b'{"data": {"columns": ["a:", "\\u003a", "c"], "data": [[0.%s, 1, 2]]}}' % digits
    assert decode(body).rows == 1


@pytest.mark.parametrize("depth", [64, 65, 1000])
def test_nesting_is_bounded_in_what_is_ignored(depth: int) -> None:
    nested = b"[" * (depth - 1) + b"]" * (depth - 1)
    body = b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}],"extra":%s}' % nested
    if depth == 64:
        assert decode_v2(body, None, signature(), "m", "1").rows == 1
        return
    with pytest.raises(InvalidInput, match="64 levels"):
        decode_v2(body, None, signature(), "m", "1")


@pytest.mark.parametrize(
    "body",
    [
        b'{"data":' + b"[" * 65 + b"]" * 65 + b"}",
        b'{"data":' + b'{"a":' * 80 + b"1" + b"}" * 81,
        b'{"data":[' + b'{"x":' * 1000 + b"1" + b"}" * 1000 + b"]}",
        b"[" * 2000 + b"]" * 2000,
        b'{"data":{"columns":["a:","b","c"],"data":[[1,2,3]],"index":' + b"[" * 70 + b"]" * 70 + b"}}",
        b'{"data":' + b'{":":' * 1000 + b"1" + b"}" * 1001,
    ],
)
def test_deep_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode(body)


def test_strings_at_the_deepest_level_count_their_colons() -> None:
    body = b"[" * 64 + b'":"' + b"]" * 64
    documents.refuse_duplicates(body, orjson.loads(body), 0)


def test_nesting_is_counted_in_containers() -> None:
    documents.check_nesting(orjson.loads(b"[" * 63 + b"1" + b"]" * 63), 1)
    with pytest.raises(InvalidInput):
        documents.check_nesting(orjson.loads(b"[" * 64 + b"]" * 64), 1)


def test_long_names_are_cut_in_messages() -> None:
    assert documents.short("a") == "'a'"
    assert len(documents.short("a" * 10**6)) < 80
    assert documents.short(5) == "5"


@pytest.mark.parametrize("place", ["name", "shape", "size", "datatype", "parameters", "binary_data_size", "extra"])
def test_deep_values_in_an_input_are_refused_wherever_they_are(place: str) -> None:
    entry: dict[str, object] = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
    if place == "binary_data_size":
        entry = {**entry, "parameters": {place: "?"}}
        del entry["data"]
    else:
        entry |= {"shape": ["?"]} if place == "size" else {place: "?"}
    body = orjson.dumps({"inputs": [entry]}).replace(b'"?"', b"[" * 1000 + b"]" * 1000)
    with pytest.raises(InvalidInput):
        decode_v2(body, None, signature(), "m", "1")


def test_words_and_strings_are_not_plain() -> None:
    assert documents.is_plain(b'{"a":[1]}', 1, 0)
    assert documents.is_plain(b'{"ruler":[1]}', 1, 0)
    for body in (b'{"a":[true]}', b'{"a":[false]}', b'{"a":[null]}', b'{"a":["b"]}', b'{"a\\"":[1]}'):
        assert not documents.is_plain(body, 1, 0)
