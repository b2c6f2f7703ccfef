"""A YAML tree becomes a typed value, with every mistake of the document told at once.

Why: the strict decoder stops at its first mistake, but a person wants all of them. So the walk here follows
the struct's types, turns each scalar's text into what the type wants, and collects sentences; a tree without
mistakes is then converted by msgspec, which has the last word.
Rules: null means "not given"; a number or truth value may be quoted; text takes any scalar as written; a choice
is matched whatever its case, camelCase or snake_case.
Errors: `Mistake`s with line and path; each says what was found and what would be accepted.
"""

from __future__ import annotations

import functools
import math
import re
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from gateway.suggest import did_you_mean, squash
from gateway.yaml_text import Entries, Items, Mistake, Node, Scalar

T = TypeVar("T", bound=msgspec.Struct)

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")
_BAD = object()
_TRUTHS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def decode(node: Node, cls: type[T]) -> tuple[T | None, list[Mistake]]:
    """The typed document and its mistakes. With mistakes, the document lacks what they are about, so that it can be
    looked at further; it is None where a required key is among them."""
    walk = _Walk()
    tree = walk.value(node, struct_type(cls), "")
    return (None if tree is _BAD else msgspec.convert(tree, cls)), walk.mistakes


@functools.cache
def struct_type(cls: type[msgspec.Struct]) -> inspect.StructType:
    """The fields of a struct as data."""
    kind = inspect.type_info(cls)
    assert isinstance(kind, inspect.StructType)
    return kind


def description_of(field: inspect.Field) -> str:
    """What the field's author says of it."""
    kind, said = field.type, ""
    while isinstance(kind, inspect.Metadata):
        said = (kind.extra_json_schema or {}).get("description", said)
        kind = kind.type
    return said


def default_of(field: inspect.Field) -> Any:
    """What the field is where a file does not give it."""
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def bare(kind: inspect.Type) -> inspect.Type:
    """A type without its description and without 'or nothing'."""
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.UnionType):
        some = tuple(one for one in kind.types if not isinstance(one, inspect.NoneType))
        return bare(some[0]) if len(some) == 1 else inspect.UnionType(some)
    return kind


def accepted(kind: inspect.Type) -> str:
    """What a type takes, in words."""
    kind = bare(kind)
    match kind:
        case inspect.UnionType():
            return " or ".join(accepted(one) for one in kind.types)
        case inspect.IntType():
            return f"an integer{_range(kind.ge, kind.le)}"
        case inspect.FloatType():
            return f"a number{_range(kind.ge, kind.le)}"
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType():
            return f"one of {', '.join(str(value) for value in kind.values)}"
        case inspect.VarTupleType():
            return f"a list{_length(kind)} ({accepted(kind.item_type)})"
        case inspect.DictType():
            return f"a mapping of names ({accepted(kind.value_type)})"
        case inspect.StructType():
            return f"a mapping ({', '.join(field.encode_name for field in kind.fields)})"
        case inspect.StrType():
            return "text"
        case _:
            return "anything"


def _range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return "" if low is None else f" of at least {low}"


def _length(kind: inspect.VarTupleType) -> str:
    return "" if kind.max_length is None else f" of at most {kind.max_length}"


def found(node: Node) -> str:
    """What stands there, in words."""
    match node:
        case Entries():
            return "a mapping"
        case Items():
            return "a list"
        case Scalar():
            if node.is_null:
                return "nothing"
            return repr(node.text) if len(node.text) <= 80 else repr(node.text[:77] + "...")


class _Walk:
    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []

    def value(self, node: Node, kind: inspect.Type, path: str) -> Any:
        """The node as the plain value that the type wants; _BAD beside a mistake."""
        wanted = kind = bare(kind)
        if isinstance(kind, inspect.UnionType):
            # Our only unions: a reference as text, or the thing itself as a mapping.
            wants_struct = isinstance(node, Entries)
            kind = next(one for one in kind.types if isinstance(one, inspect.StructType) == wants_struct)
        match (kind, node):
            case (inspect.StructType(), Entries()):
                return self._struct(node, kind, path)
            case (inspect.DictType(), Entries()):
                entries = node.entries.items()
                return _good({name: self.value(one, kind.value_type, _join(path, name)) for name, one in entries})
            case (inspect.VarTupleType(), Items()):
                return self._list(node, kind, path)
            case (inspect.AnyType(), _):
                return _plain(node)
            case (_, Scalar()):
                value = _scalar(node, kind)
                if value is not None:
                    return value
        return self._refuse(node, wanted, path)

    def _struct(self, node: Entries, kind: inspect.StructType, path: str) -> Any:
        fields = {field.encode_name: field for field in kind.fields}
        tree: dict[str, Any] = {}
        missing = False
        for name, value in node.entries.items():
            if name not in fields:
                text = f"unknown key{did_you_mean(name, fields)}"
                self.mistakes.append(Mistake(node.lines[name], _join(path, name), text))
            elif not (isinstance(value, Scalar) and value.is_null):
                tree[name] = self.value(value, fields[name].type, _join(path, name))
        for name, field in fields.items():
            if field.required and name not in tree:
                text = f"missing; accepted: {accepted(field.type)}"
                self.mistakes.append(Mistake(node.line, _join(path, name), text))
            missing = missing or (field.required and tree.get(name, _BAD) is _BAD)
        return _BAD if missing else _good(tree)

    def _list(self, node: Items, kind: inspect.VarTupleType, path: str) -> Any:
        if kind.max_length is not None and len(node.items) > kind.max_length:
            text = f"found {len(node.items)} items; accepted: {accepted(kind)}"
            self.mistakes.append(Mistake(node.line, path, text))
            return _BAD
        values = [self.value(one, kind.item_type, f"{path}[{index}]") for index, one in enumerate(node.items)]
        return [value for value in values if value is not _BAD]

    def _refuse(self, node: Node, kind: inspect.Type, path: str) -> Any:
        text = f"found {found(node)}; accepted: {accepted(kind)}"
        self.mistakes.append(Mistake(node.line, path, text))
        return _BAD


def _plain(node: Node) -> Any:
    """The node as it stands: mappings, lists and texts."""
    match node:
        case Entries():
            return {name: _plain(one) for name, one in node.entries.items()}
        case Items():
            return [_plain(one) for one in node.items]
        case Scalar():
            return None if node.is_null else node.text


def _good(tree: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if value is not _BAD}


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _scalar(node: Scalar, kind: inspect.Type) -> Any:
    """The scalar's text as the type wants it; None where it does not fit."""
    text = node.text
    match kind:
        case inspect.StrType():
            return "" if node.is_null else text
        case inspect.BoolType():
            return _TRUTHS.get(text.lower())
        case inspect.LiteralType():
            return next((value for value in kind.values if squash(str(value)) == squash(text)), None)
        case inspect.IntType():
            return _bounded(int(text), kind) if _INTEGER.fullmatch(text) else None
        case inspect.FloatType():
            return _bounded(float(text), kind) if _NUMBER.fullmatch(text) else None
        case _:
            return None


def _bounded(value: Any, kind: inspect.IntType | inspect.FloatType) -> Any:
    if not math.isfinite(value):
        return None
    if (kind.ge is not None and value < kind.ge) or (kind.le is not None and value > kind.le):
        return None
    return value
