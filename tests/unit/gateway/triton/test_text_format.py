"""Protobuf's text format and its types: what is read, and where each mistake is said to be."""

from __future__ import annotations

import math

import pytest

from gateway.controlplane.triton.model_config import ModelConfig, Parameter
from gateway.controlplane.triton.text_format import DEPTH_MAX, TEXT_BYTES_MAX, TextError, read
from gateway.controlplane.triton.typed import read_as


def config(text: str) -> ModelConfig:
    return read_as(text.encode(), ModelConfig)


def refusal(text: str) -> str:
    with pytest.raises(TextError) as caught:
        config(text)
    return str(caught.value)


def test_every_form_of_a_value_is_read() -> None:
    found = config(
        """# a comment
        name: "a" 'b'   # strings that follow each other are one
        max_batch_size: 0x10;
        input: [ { name: 'x' dims: [ 1, -1 ] dims: 010, data_type: TYPE_FP32 }, < name: "y" data_type: 13 > ]
        input { name: "z" }
        version_policy { specific { versions: [] } }
        parameters { key: "k" value { string_value: "v" } } parameters: [ { value: {} } ]
        response_cache: { enable: True }
        instance_group { rate_limiter { resources { global: t } } }
        """
    )
    assert (found.name, found.max_batch_size) == ("ab", 16)
    assert [(one.name, one.dims, one.data_type) for one in found.input] == [
        ("x", (1, -1, 8), "TYPE_FP32"),
        ("y", (), "TYPE_STRING"),
        ("z", (), "TYPE_INVALID"),
    ]
    assert found.version_policy is not None
    assert found.version_policy.specific is not None
    assert found.version_policy.specific.versions == ()
    assert found.parameters == {"k": Parameter(string_value="v"), "": Parameter()}
    assert found.response_cache is not None
    assert found.response_cache.enable
    assert found.instance_group[0].rate_limiter is not None
    assert found.instance_group[0].rate_limiter.resources[0].is_global


def test_escapes_stand_for_their_bytes() -> None:
    assert config(r'name: "\n\t\\\"\'\?\101\x41\x4\u00e9\U0001F600"').name == "\n\t\\\"'?AA\x04é😀"


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.5", 1.5), ("-2f", -2.0), ("1e3", 1000.0), ("inf", math.inf), ("-inf", -math.inf), ("7", 7.0), ("nan", None)],
)
def test_fractions_are_read(text: str, value: float | None) -> None:
    found = config(f"sequence_batching {{ direct {{ minimum_slot_utilization: {text} }} }}").sequence_batching
    assert found is not None
    assert found.direct is not None
    read_value = found.direct.minimum_slot_utilization
    assert math.isnan(read_value) if value is None else read_value == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name 'x'", "line 1, column 1: name has no ':' before its value; accepted: name: 'x'"),
        ("\n  nmae: 'x'", "line 2, column 3: there is no field 'nmae' here; did you mean name?"),
        ("max_batch_size: 'x'", "column 17: max_batch_size is given 'x'; accepted: an integer from -2147483648 to"),
        ("max_batch_size: 2147483648", "is given 2147483648; accepted: an integer from"),
        ("max_batch_size: 1.5", "is given 1.5; accepted: an integer"),
        ("max_batch_size: 1_0", "is given 1_0; accepted: an integer"),
        ("max_batch_size: 09", "is given 09; accepted: an integer"),
        ("max_batch_size: {}", "max_batch_size is given a message; accepted: an integer"),
        ("max_batch_size: [ 1 ]", "max_batch_size is given a list; accepted: one value"),
        ("max_batch_size: 1 max_batch_size: 1", "column 19: max_batch_size is given twice; accepted: once"),
        (
            "input { data_type: TYPE_FLOAT }",
            "data_type is given TYPE_FLOAT; accepted: one of TYPE_INVALID, ",
        ),
        ("input { data_type: 99 }", "data_type is given 99; accepted: one of"),
        ("input { data_type: 'TYPE_FP32' }", "accepted: one of"),
        ("response_cache { enable: yes }", "enable is given yes; accepted: true or false"),
        ("response_cache { enable: 2 }", "accepted: true or false"),
        ("name: x", "name is given x; accepted: text in quotes"),
        ("input: 5", "input is given 5; accepted: { ... }"),
        ("parameters: 5", "parameters is given 5; accepted: { key: ... value: ... }"),
        ("parameters { name: 'x' }", "there is no field 'name' here; accepted: key, value"),
        ("parameters { key: 'a' key: 'b' }", "key is given more than one value; accepted: one"),
        ("parameters { key: 'a' } parameters { key: 'a' }", "parameters has the key 'a' twice; accepted: once"),
        ("version_policy { all {} latest {} }", "latest is given beside all; accepted: one of latest, all, specific"),
        ("dynamic_batching {} sequence_batching {}", "sequence_batching is given beside dynamic_batching"),
        ("name: 'x", "line 1, column 7: found a string that does not end on its line"),
        ("name: 'x\n'", "found a string that does not end on its line"),
        (r"name: '\q'", r"the string has '\\q', which is no escape"),
        (r"name: '\777'", "which is no escape"),
        (r"name: '\U00110000'", "which is no escape"),
        (r"name: '\ud800'", "which is no escape"),
        (r"name: '\xff'", "the string's bytes are not UTF-8"),
        ("input {", "line 1, column 8: found the end; accepted: a field or '}'"),
        ("input <}", "found '}'; accepted: the name of a field"),
        ("input [ {} {} ]", "found '{' in a list; accepted: ',' or ']'"),
        ("name: ", "found the end; accepted: a value"),
        ("name: 'a',,", "found ','; accepted: the name of a field"),
        ("name: 'a' §", "line 1, column 11: found '§'"),
        ("sequence_batching { direct { minimum_slot_utilization: 'x' } }", "accepted: a number"),
        ("sequence_batching { direct { minimum_slot_utilization: 010 } }", "accepted: a number"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, said: str) -> None:
    assert said in refusal(text)


def test_the_text_is_bounded() -> None:
    deep = "input { " * (DEPTH_MAX + 1)
    with pytest.raises(TextError, match=f"messages nest more than {DEPTH_MAX} deep"):
        read(deep.encode())
    with pytest.raises(TextError, match="accepted: at most 1048576"):
        read(b" " * (TEXT_BYTES_MAX + 1))
    with pytest.raises(TextError, match="line 2, column 2: found bytes that are not UTF-8"):
        read("#\né".encode() + b"\xff")


def test_a_long_number_is_refused_without_being_counted() -> None:
    assert "accepted: an integer" in refusal(f"max_batch_size: 1{'0' * 100_000}")
