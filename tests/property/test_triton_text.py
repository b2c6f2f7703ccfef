"""The reader of config.pbtxt against protobuf's own, on Triton's real ModelConfig."""

from __future__ import annotations

import dataclasses
import math
import struct
from typing import Annotated, Any, get_args, get_origin

import pytest
from google.protobuf import text_format as protobuf
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.controlplane.triton.model_config import ModelConfig
from gateway.controlplane.triton.text_format import TextError
from gateway.controlplane.triton.typed import bounds, fields_of, read_as
from tests.support.triton_proto import PB2

CONFIG = PB2.ModelConfig
_INTEGERS = {
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
}


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def scalars(field: Any) -> st.SearchStrategy[Any]:
    if field.type in _INTEGERS:
        low, high = bounds(Annotated[int, _INTEGERS[field.type]])
        return st.one_of(st.integers(0, 9), st.integers(low, high))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_STRING:
        return st.text(max_size=12)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return st.sampled_from([one.number for one in field.enum_type.values])
    return st.floats(width=32 if field.type == FieldDescriptor.TYPE_FLOAT else 64)


@st.composite
def messages(draw: Any, kind: Any, depth: int = 0) -> Any:
    """Any message of this type, two of its fields or so filled at each level."""
    message = kind()
    fields = list(kind.DESCRIPTOR.fields)
    if not fields:
        return message
    for field in draw(st.lists(st.sampled_from(fields), max_size=4 if depth < 3 else 1, unique_by=lambda f: f.name)):
        if depth > 5 and field.message_type is not None:
            continue
        _fill(draw, message, field, depth)
    return message


def _fill(draw: Any, message: Any, field: Any, depth: int) -> None:
    if _is_map(field):
        value_field = field.message_type.fields_by_name["value"]
        for key in draw(st.lists(scalars(field.message_type.fields_by_name["key"]), max_size=2, unique=True)):
            target = getattr(message, field.name)
            if value_field.message_type is not None:
                target[key].CopyFrom(draw(messages(value_field.message_type._concrete_class, depth + 1)))
            else:
                target[key] = draw(scalars(value_field))
    elif field.message_type is not None:
        one = messages(field.message_type._concrete_class, depth + 1)
        if field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(one, max_size=2)))
        else:
            getattr(message, field.name).CopyFrom(draw(one))
    elif field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(scalars(field), max_size=3)))
    else:
        setattr(message, field.name, draw(scalars(field)))


def assert_same(ours: Any, theirs: Any) -> None:
    """Field by field; a message that is not there is None here."""
    for name, (attribute, _) in fields_of(type(ours)).items():
        field = theirs.DESCRIPTOR.fields_by_name[name]
        mine, other = getattr(ours, attribute), getattr(theirs, name)
        if _is_map(field):
            assert mine.keys() == set(other)
            for key in mine:
                _assert_one(mine[key], other[key], field.message_type.fields_by_name["value"])
        elif field.is_repeated:
            assert len(mine) == len(other)
            for one, two in zip(mine, other, strict=True):
                _assert_one(one, two, field)
        elif field.message_type is not None:
            assert (mine is not None) == theirs.HasField(name)
            if mine is not None:
                assert_same(mine, other)
        else:
            _assert_one(mine, other, field)


def _assert_one(mine: Any, other: Any, field: Any) -> None:
    if field.message_type is not None:
        assert_same(mine, other)
    elif field.type == FieldDescriptor.TYPE_ENUM:
        assert mine == field.enum_type.values_by_number[other].name
    elif field.type == FieldDescriptor.TYPE_FLOAT:
        assert _as_float32(mine) == other or (math.isnan(mine) and math.isnan(other))
    else:
        assert mine == other or (mine != mine and other != other)


def _as_float32(value: float) -> float:
    try:
        rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        rounded = math.copysign(math.inf, value)
    return rounded


@settings(max_examples=150, deadline=None)
@given(messages(CONFIG), st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_what_protobuf_writes_is_read_as_it_was(
    config: Any, one_line: bool, short: bool, pointed: bool, utf8: bool
) -> None:
    text = protobuf.MessageToString(
        config,
        as_one_line=one_line,
        use_short_repeated_primitives=short,
        pointy_brackets=pointed,
        as_utf8=utf8,
    )
    assert_same(read_as(text.encode(), ModelConfig), config)


_BASE = """name: "densenet" # the model
platform: 'onnxruntime_onnx' max_batch_size: 8;
input [ { name: "in" "put" data_type: TYPE_FP32 dims: [ 3, -1 ] reshape { shape: [ ] } } ]
output < name: "out\\x41\\n", data_type: 11 dims: 010 dims: 0x10 >
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 priority_queue_policy {
  key: 1 value: { timeout_action: DELAY } } }
parameters { key: "a" value: { string_value: "\\u00e9" } }
version_policy: { latest { num_versions: 2 } } instance_group: [ { kind: KIND_CPU }, { count: 1 } ]
model_transaction_policy { decoupled: false } response_cache { enable: t }
"""


@st.composite
def edits(draw: Any) -> str:
    """The text with a few characters taken away, doubled or put in."""
    text = _BASE
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(text) - 1))
        piece = draw(
            st.sampled_from(
                ["", "", ",", ";", ":", "{", "}", "[", "]", "<", ">", '"', "\\", "-", "1", "f", "name", " ", "\n"]
            )
        )
        text = text[:place] + piece + text[place + draw(st.integers(0, 2)) :]
    return text


@settings(max_examples=400, deadline=None)
@given(edits())
@example(_BASE)
def test_what_is_read_of_a_damaged_file_is_what_protobuf_reads(text: str) -> None:
    """Ours is the stricter one: whatever it takes, protobuf takes, and means the same."""
    try:
        ours = read_as(text.encode(), ModelConfig)
    except TextError:
        return
    assert_same(ours, protobuf.Parse(text, CONFIG()))


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_any_bytes_are_read_or_refused_with_their_place(data: bytes) -> None:
    try:
        read_as(data, ModelConfig)
    except TextError as error:
        assert error.line >= 1 and error.column >= 1


def test_the_messages_are_those_of_triton_field_by_field() -> None:
    seen: set[type[Any]] = set()
    _assert_table(ModelConfig, CONFIG.DESCRIPTOR, seen)
    assert len(seen) > 35


def _assert_table(kind: type[Any], descriptor: Any, seen: set[type[Any]]) -> None:
    if kind in seen:
        return
    seen.add(kind)
    known = fields_of(kind)
    # What a newer Triton has beyond the compiled one is no mistake.
    assert {one.name for one in descriptor.fields} <= known.keys()
    groups = {frozenset(one.name for one in group.fields) for group in descriptor.oneofs}
    assert groups <= {frozenset(group) for group in getattr(kind, "ONEOFS", ())}
    for field in descriptor.fields:
        hint = known[field.name][1]
        if _is_map(field):
            assert get_origin(hint) is dict
            _assert_type(get_args(hint)[0], field.message_type.fields_by_name["key"], seen)
            _assert_type(get_args(hint)[1], field.message_type.fields_by_name["value"], seen)
        elif field.is_repeated:
            assert get_origin(hint) is tuple, (kind, field.name)
            _assert_type(get_args(hint)[0], field, seen)
        else:
            assert get_origin(hint) not in (tuple, dict), (kind, field.name)
            _assert_type(hint, field, seen)


def _assert_type(hint: Any, field: Any, seen: set[type[Any]]) -> None:
    if field.message_type is not None:
        assert dataclasses.is_dataclass(hint)
        assert isinstance(hint, type)
        _assert_table(hint, field.message_type, seen)
    elif field.type == FieldDescriptor.TYPE_ENUM:
        names = [one.name for one in sorted(field.enum_type.values, key=lambda one: one.number)]
        assert list(get_args(hint)) == names
    elif field.type in _INTEGERS:
        assert get_args(hint)[1] == _INTEGERS[field.type]
    else:
        wanted = {FieldDescriptor.TYPE_BOOL: bool, FieldDescriptor.TYPE_STRING: str}.get(field.type, float)
        assert hint is wanted


@pytest.mark.parametrize(
    "text",
    [
        "max_batch_size: 1,,", "name 'a'", "input: [ {}, ]", "max_batch_size: [1]", "nme: 'x'", "{}", "name: 'a",
        "max_batch_size: 4000000000", "input { dims: 1.5 }", "name: 'a' \"", "version_policy { latest {} all {} }",
    ],
)  # fmt: skip
def test_both_refuse(text: str) -> None:
    with pytest.raises(TextError):
        read_as(text.encode(), ModelConfig)
    with pytest.raises(protobuf.ParseError):
        protobuf.Parse(text, CONFIG())
