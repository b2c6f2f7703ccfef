"""The strict reader of JSON bodies, at its edges; what callers are told: tests/contract/test_management_door.py."""

from __future__ import annotations

import json

import pytest

from gateway.strict_json import NESTING_MAX, NotStrict, read_json, read_object


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def test_what_is_plain_is_read_as_it_is() -> None:
    value = {"a": [1, 2.5, True, None, "é: \\ \n"], "b": {"a": {}}, "": []}
    assert read_object(json.dumps(value).encode()) == value


@pytest.mark.parametrize("text", [b"", b" \n\t"])
def test_nothing_is_an_empty_object(text: bytes) -> None:
    assert read_object(text) == {}


def test_as_many_levels_as_allowed_are_read_and_one_more_is_not() -> None:
    assert read_json(nested(NESTING_MAX)) is not None
    with pytest.raises(NotStrict, match="more than 64 levels"):
        read_json(nested(NESTING_MAX + 1))


def test_equal_names_in_different_objects_are_no_duplicates() -> None:
    assert read_json(b'[{"a": 1}, {"a": {"a": 2}}]') == [{"a": 1}, {"a": {"a": 2}}]


def test_a_long_name_is_shown_short() -> None:
    name = "n" * 5000
    with pytest.raises(NotStrict) as refused:
        read_json(f'{{"{name}": 1, "{name}": 2}}'.encode())
    assert len(str(refused.value)) < 200
