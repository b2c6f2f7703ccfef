"""Signatures as JSON schemas: columns, tensors, nested types, params and examples."""

from __future__ import annotations

from typing import Any

import pytest

from runtimes.script.worker_lib.igw_worker.pyfunc.schemas import data_schema, example_of, input_schema

ANY = {"description": "any value"}
DOUBLE = {"type": "number", "format": "double"}
STRINGS = {"type": "array", "items": {"type": "string"}}


def tensor(dtype: str, *shape: int, **more: Any) -> dict[str, Any]:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}, **more}


@pytest.mark.parametrize(
    ("columns", "schema"),
    [
        (None, ANY),
        ([], ANY),
        (
            [{"type": "double", "name": "a", "required": True}, {"type": "long", "name": "b", "required": False}],
            {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"a": DOUBLE, "b": {"type": "integer", "format": "int64"}},
                    "required": ["a"],
                },
            },
        ),
        ([{"type": "string"}], STRINGS),
        ([{"type": "string"}, {"type": "long"}], {"type": "array", "items": ANY}),
        ([tensor("float32", -1, 2)], {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}),
        ([tensor("complex64", -1)], {"type": "array", "items": ANY}),
        (
            [tensor("uint8", -1, name="x"), tensor("bool", name="y"), tensor("str", -1, name="z")],
            {
                "type": "object",
                "properties": {
                    "x": {"type": "array", "items": {"type": "integer"}},
                    "y": {"type": "boolean"},
                    "z": STRINGS,
                },
                "required": ["x", "y", "z"],
            },
        ),
        (
            [
                {"type": "array", "items": {"type": "string"}, "name": "a"},
                {"type": "map", "values": {"type": "boolean"}, "name": "m"},
                {"type": "object", "properties": {"x": {"type": "double", "required": False}}, "name": "o"},
                {"type": "any", "name": "z"},
            ],
            {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "a": STRINGS,
                        "m": {"type": "object", "additionalProperties": {"type": "boolean"}},
                        "o": {"type": "object", "properties": {"x": DOUBLE}},
                        "z": ANY,
                    },
                    "required": ["a", "m", "o", "z"],
                },
            },
        ),
    ],
)
def test_a_signature_is_described(columns: Any, schema: Any) -> None:
    assert data_schema(columns) == schema


def test_the_body_has_the_data_the_params_and_an_example() -> None:
    params: list[dict[str, Any]] = [
        {"name": "times", "type": "long", "default": 2, "shape": None},
        {"name": "words", "type": "string", "default": None, "shape": [-1]},
    ]
    assert input_schema([{"type": "string"}], params, ["a"]) == {
        "type": "object",
        "required": ["input_data"],
        "properties": {
            "input_data": STRINGS,
            "params": {
                "type": "object",
                "properties": {"times": {"type": "integer", "format": "int64", "default": 2}, "words": STRINGS},
            },
        },
        "example": {"input_data": ["a"]},
    }
    assert input_schema(None, None, None)["properties"] == {"input_data": ANY}


@pytest.mark.parametrize(
    ("saved", "example"),
    [
        ({"inputs": {"a": 1}}, {"a": 1}),
        ({"instances": [1]}, [1]),
        ({"dataframe_records": [{"a": 1}]}, [{"a": 1}]),
        ({"dataframe_split": {"columns": ["a", 2], "data": [[1, 2]]}}, [{"a": 1, "2": 2}]),
        ({"columns": ["a"], "data": [[1]]}, [{"a": 1}]),
        ({"data": [[1]]}, [[1]]),
        ({"messages": []}, None),
        ({"dataframe_split": 1}, None),
        ([1], None),
    ],
)
def test_a_saved_example_becomes_input_data(saved: Any, example: Any) -> None:
    assert example_of(saved) == example
