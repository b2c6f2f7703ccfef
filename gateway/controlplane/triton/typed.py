"""A tree of named values becomes typed messages: every name known, every value of its field's type and range.

Stricter than protobuf's own reader in three things, each a mistake in a file: a field or a key of a map that is given
twice, a number that no name of an enumeration has, and integers in Python's other spellings.
Errors: TextError with line and column. Pure.
"""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from gateway.controlplane.triton.text_format import Field, Message, Scalar, read
from gateway.suggest import did_you_mean

T = TypeVar("T")

_INTEGER = re.compile(r"(?P<minus>-?)(?:0[xX](?P<hex>[0-9A-Fa-f]+)|(?P<octal>0[0-7]*)|(?P<decimal>[1-9][0-9]*))")
_FLOAT = re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?")
_OCTAL = re.compile(r"-?0[0-9]+[fF]?")
_NAMED_FLOAT = re.compile(r"-?(?:inf(?:inity)?|nan)f?", re.IGNORECASE)
_BOOLS = {"true": True, "True": True, "t": True, "false": False, "False": False, "f": False}
_DIGITS_MAX = 32


def read_as(data: bytes, kind: type[T]) -> T:
    """A whole file as this message. Errors: TextError."""
    return _message(read(data), kind)


def fields_of(kind: type[Any]) -> dict[str, tuple[str, Any]]:
    """For each field's name in the file: its attribute and its type, None left out."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for one in dataclasses.fields(kind):
        hint = hints[one.name]
        if isinstance(hint, types.UnionType):
            hint = get_args(hint)[0]
        found[one.metadata.get("name", one.name)] = (one.name, hint)
    return found


def _message(source: Message, kind: type[T]) -> T:
    known, given = fields_of(kind), dict[str, Any]()
    for field in source.fields:
        if field.name not in known:
            field.spot.refuse(f"there is no field {field.name!r} here{did_you_mean(field.name, known)}")
        attribute, hint = known[field.name]
        _refuse_second(field, kind, given, known)
        origin = get_origin(hint)
        if origin is tuple:
            more = tuple(_value(field, one, get_args(hint)[0]) for one in field.values)
            given[attribute] = (*given.get(attribute, ()), *more)
        elif origin is dict:
            given[attribute] = _entries(field, given.get(attribute, {}), *get_args(hint))
        else:
            if field.is_list:
                field.spot.refuse(f"{field.name} is given a list; accepted: one value")
            given[attribute] = _value(field, field.values[0], hint)
    return kind(**given)


def _refuse_second(field: Field, kind: type[Any], given: dict[str, Any], known: dict[str, tuple[str, Any]]) -> None:
    attribute, hint = known[field.name]
    if attribute in given and get_origin(hint) not in (tuple, dict):
        field.spot.refuse(f"{field.name} is given twice; accepted: once")
    for group in getattr(kind, "ONEOFS", ()):
        if field.name in group:
            others = [one for one in group if one in given and one != field.name]
            if others:
                field.spot.refuse(f"{field.name} is given beside {others[0]}; accepted: one of {', '.join(group)}")


def _entries(field: Field, before: dict[Any, Any], key_hint: Any, value_hint: Any) -> dict[Any, Any]:
    """A map's entries are messages with a key and a value."""
    entries = dict(before)
    for source in field.values:
        if isinstance(source, Scalar):
            source.spot.refuse(f"{field.name} is given {source.text}; accepted: {{ key: ... value: ... }}")
        key, value = _default(key_hint), _default(value_hint)
        seen: set[str] = set()
        for part in source.fields:
            if part.name not in ("key", "value"):
                part.spot.refuse(f"there is no field {part.name!r} here; accepted: key, value")
            if part.name in seen or part.is_list:
                part.spot.refuse(f"{part.name} is given more than one value; accepted: one")
            seen.add(part.name)
            if part.name == "key":
                key = _value(part, part.values[0], key_hint)
            else:
                value = _value(part, part.values[0], value_hint)
        if key in entries:
            source.spot.refuse(f"{field.name} has the key {key!r} twice; accepted: once")
        entries[key] = value
    return entries


def _default(hint: Any) -> Any:
    return get_args(hint)[0]() if get_origin(hint) is Annotated else hint()


def _value(field: Field, source: Scalar | Message, hint: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        if isinstance(source, Scalar):
            source.spot.refuse(f"{field.name} is given {source.text}; accepted: {{ ... }}")
        assert isinstance(hint, type)
        return _message(source, hint)
    if isinstance(source, Message):
        source.spot.refuse(f"{field.name} is given a message; accepted: {_accepted(hint)}")
    if not field.has_colon:
        field.spot.refuse(f"{field.name} has no ':' before its value; accepted: {field.name}: {source.text}")
    value = _scalar(source, hint)
    if value is None:
        source.spot.refuse(f"{field.name} is given {source.text}; accepted: {_accepted(hint)}")
    return value


def _scalar(source: Scalar, hint: Any) -> Any:
    """The value; None for one of another type, or out of range."""
    if hint is str:
        return _text(source)
    if hint is bool:
        return _BOOLS.get(source.text) if source.kind == "word" else {"1": True, "0": False}.get(source.text)
    if hint is float:
        return _float(source)
    if get_origin(hint) is Literal:
        return _choice(source, get_args(hint))
    low, high = bounds(hint)
    value = _integer(source)
    return value if value is not None and low <= value <= high else None


def _text(source: Scalar) -> str | None:
    if source.kind != "text":
        return None
    try:
        return source.data.decode()
    except UnicodeDecodeError:
        source.spot.refuse("the string's bytes are not UTF-8; accepted: UTF-8 text")


def _choice(source: Scalar, names: Sequence[str]) -> str | None:
    if source.kind == "word":
        return source.text if source.text in names else None
    number = _integer(source)
    return names[number] if number is not None and 0 <= number < len(names) else None


def _integer(source: Scalar) -> int | None:
    found = _INTEGER.fullmatch(source.text) if source.kind == "number" else None
    if found is None or len(source.text) > _DIGITS_MAX:
        return None
    digits, base = next(
        (found[name], base) for name, base in (("hex", 16), ("octal", 8), ("decimal", 10)) if found[name]
    )
    value = int(digits, base)
    return -value if found["minus"] else value


def _float(source: Scalar) -> float | None:
    text = source.text
    if source.kind == "text":
        return None
    if _NAMED_FLOAT.fullmatch(text):
        return float(text.lower().removesuffix("f") if not text.lower().endswith("inf") else text)
    if source.kind == "word" or _FLOAT.fullmatch(text) is None or _OCTAL.fullmatch(text):
        return None
    return float(text.rstrip("fF"))


def bounds(hint: Any) -> tuple[int, int]:
    """The smallest and the largest integer of such a field."""
    name = get_args(hint)[1]
    bits = int(name[-2:])
    return (0, 2**bits - 1) if name.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _accepted(hint: Any) -> str:
    if hint is str:
        return 'text in quotes, such as "text"'
    if hint is bool:
        return "true or false"
    if hint is float:
        return "a number"
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    low, high = bounds(hint)
    return f"an integer from {low} to {high}"
