"""ARM bodies to documents and back, by one table of members for both directions.

A `Member` says where a value is in a body and where in a document, and how its spelling differs. What a value may be
is the document's own type: a body is rearranged into the tree that a YAML file would give and read by the same
decoder, so that text, bounds and choices are treated alike everywhere.
Lenient: unknown members are ignored, null is absent, numbers may be text, choices are in any case.
Errors: `Problem(INVALID_INPUT)` with every mistake of the body at once; each detail is the path of the member, what
was found and what would be accepted. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from gateway.controlplane.arm import durations
from gateway.controlplane.arm.ids import IdError, Workspace
from gateway.controlplane.decode import bare, decode, struct_type
from gateway.controlplane.documents import normal_form
from gateway.errors import Code, Problem
from gateway.suggest import squash
from gateway.yaml_text import Entries, Items, Mistake, Node, Scalar

S = TypeVar("S", bound=msgspec.Struct)

_FOUND_CHARS = 80
_ANYWHERE = Workspace("s", "g", "w")


class Wrong(ValueError):
    """A member's value is not what belongs there; the text says what was found and what would be accepted."""


@dataclass(frozen=True, slots=True)
class ArmMistake:
    """One thing that is wrong with a body. `path`: "properties.requestSettings.requestTimeout"."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


def as_it_is(value: Any) -> Any:
    return value


def plain(value: Any, _: Workspace) -> Any:
    """Text that nobody gave is null; all else as it is."""
    return None if value == "" else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One value: where it is in a body and in a document.

    `inward` gives what a YAML file would have there (None: nothing given), or raises Wrong. `unit_ms`: the member is
    a duration, the document has this unit. `is_optional`: left out of answers where the document has nothing.
    `words`: how a body spells what is inside the value, for the paths of mistakes.
    """

    arm: str
    document: str
    inward: Callable[[Any], Any] = as_it_is
    outward: Callable[[Any, Workspace], Any] = plain
    unit_ms: int = 0
    is_optional: bool = False
    words: Mapping[str, str] = field(default_factory=dict)


# ---- a body becomes a document ---------------------------------------------------------------------------------


def read(body: object, members: Sequence[Member], cls: type[S], given: Mapping[str, Any], what: str) -> S:
    """The document in normal form. `given`: what is known beside the body, by the document's keys."""
    mistakes: list[ArmMistake] = []
    if not isinstance(body, dict):
        raise refusal(what, [ArmMistake("", f"found {shown(body)}; accepted: an object")])
    tree: dict[str, Any] = dict(given)
    for member in members:
        value = _find(body, member.arm, mistakes)
        if value is None:
            continue
        try:
            value = durations.to_ms(text_of(value)) if member.unit_ms else member.inward(value)
        except (Wrong, IdError, durations.DurationError) as error:
            mistakes.append(ArmMistake(member.arm, str(error)))
            continue
        if value is not None:
            _put(tree, member.document, -(-value // member.unit_ms) if member.unit_ms else value)
    document, found = decode(node_of(tree), cls)
    known = {mistake.path for mistake in mistakes}
    mistakes += [one for one in (_at_edge(mistake, members, cls) for mistake in found) if one.path not in known]
    if mistakes or document is None:
        raise refusal(what, mistakes)
    document, blames = normal_form(document)
    if blames:
        raise refusal(what, [_at_edge(Mistake(0, one.path, one.text), members, cls) for one in blames])
    return document


def refusal(what: str, mistakes: Sequence[ArmMistake]) -> Problem:
    """The one refusal of a body. `what`: "deployment digits/blue"."""
    said = "; ".join(str(one) for one in mistakes)
    return Problem(Code.INVALID_INPUT, f"{what}: {said}", details=tuple(str(one) for one in mistakes))


def merge(target: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396): objects are merged, null removes, all else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def object_of(value: Any) -> dict[str, Any]:
    """Errors: Wrong for what is no object."""
    if not isinstance(value, dict):
        raise Wrong(f"found {shown(value)}; accepted: an object")
    return value


def text_of(value: Any) -> str:
    """Errors: Wrong for what is no text."""
    if not isinstance(value, str):
        raise Wrong(f"found {shown(value)}; accepted: text")
    return value


def shown(value: Any) -> str:
    """A JSON value in words, for a mistake."""
    match value:
        case None:
            return "nothing"
        case dict():
            return "an object"
        case list():
            return "a list"
        case bool():
            return "true" if value else "false"
        case str():
            return repr(value if len(value) <= _FOUND_CHARS else value[: _FOUND_CHARS - 3] + "...")
        case _:
            return str(value)[:_FOUND_CHARS]


def node_of(value: Any) -> Node:
    """A JSON value as the decoder reads it; truth values and numbers as their text."""
    match value:
        case dict():
            return Entries({str(name): node_of(one) for name, one in value.items()}, 0, dict.fromkeys(value, 0))
        case list() | tuple():
            return Items(tuple(node_of(one) for one in value), 0)
        case None:
            return Scalar("null", 0)
        case bool():
            return Scalar("true" if value else "false", 0)
        case float() if value.is_integer():
            return Scalar(str(int(value)), 0)
        case _:
            return Scalar(str(value), 0, plain=not isinstance(value, str))


def _find(body: dict[str, Any], path: str, mistakes: list[ArmMistake]) -> Any:
    """The value at a path; None where it, or an object above it, is absent or null."""
    value: Any = body
    names = path.split(".")
    for depth, name in enumerate(names):
        if value is None:
            return None
        if not isinstance(value, dict):
            mistake = ArmMistake(".".join(names[:depth]), f"found {shown(value)}; accepted: an object")
            if mistake not in mistakes:
                mistakes.append(mistake)
            return None
        value = value.get(name)
    return value


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    *above, name = path.split(".")
    for one in above:
        tree = tree.setdefault(one, {})
    tree[name] = value


def _at_edge(mistake: Mistake, members: Sequence[Member], cls: type[msgspec.Struct]) -> ArmMistake:
    """A mistake of the document at the path of the member that it came from."""
    above = [one for one in members if (mistake.path + ".").replace("[", ".").startswith(one.document + ".")]
    if not above:
        return ArmMistake(mistake.path, mistake.text)
    member = max(above, key=lambda one: len(one.document))
    inside = [member.words.get(one, one) for one in mistake.path[len(member.document) :].split(".")]
    text = _duration_text(member, cls) if member.unit_ms else mistake.text
    return ArmMistake(member.arm + ".".join(inside), text)


def _duration_text(member: Member, cls: type[msgspec.Struct]) -> str:
    kind = bare(_type_at(cls, member.document))
    assert isinstance(kind, inspect.IntType) and kind.ge is not None and kind.le is not None
    low, high = (durations.from_ms(bound * member.unit_ms) for bound in (kind.ge, kind.le))
    return f"found a duration out of bounds; accepted: {low} to {high}"


def _type_at(cls: type[msgspec.Struct], path: str) -> inspect.Type:
    kind: inspect.Type = struct_type(cls)
    for name in path.split("."):
        kind = bare(kind)
        assert isinstance(kind, inspect.StructType)
        kind = next(one.type for one in kind.fields if one.encode_name == name)
    return kind


# ---- a document becomes a body ---------------------------------------------------------------------------------


def write(document: msgspec.Struct, members: Sequence[Member], workspace: Workspace = _ANYWHERE) -> dict[str, Any]:
    """The members of a body that the document says."""
    body: dict[str, Any] = {}
    for member in members:
        value = value_at(document, member.document)
        if member.unit_ms:
            given = None if value is None else durations.from_ms(value * member.unit_ms)
        else:
            given = member.outward(value, workspace)
        if given is not None or not member.is_optional:
            _put(body, member.arm, given)
    return body


def value_at(document: msgspec.Struct, path: str) -> Any:
    """The value at a path of fields. Below what is not given, it is what the struct there has by default."""
    value: Any = document
    for name in path.split("."):
        above, value = value, getattr(value, name)
        if value is None:
            value = _default_below(type(above), name)
    return value


def _default_below(cls: type[msgspec.Struct], name: str) -> msgspec.Struct | None:
    """What the struct in a field has by default; None where the field is no struct."""
    below = _struct_in(cls, name)
    return below() if below is not None else None


@cache
def _struct_in(cls: type[msgspec.Struct], name: str) -> type[msgspec.Struct] | None:
    kind = bare(next(one.type for one in struct_type(cls).fields if one.name == name))
    return kind.cls if isinstance(kind, inspect.StructType) else None


# ---- spellings -------------------------------------------------------------------------------------------------


def choice(value: Any) -> Any:
    """A choice as a body has it; empty text is nothing given."""
    return value or None if isinstance(value, str) else value


def pascal(value: Any, _: Workspace) -> Any:
    """append_row is AppendRow."""
    return "".join(part.capitalize() for part in value.split("_")) if value else None


def spelled(words: Mapping[str, str]) -> Callable[[Any, Workspace], Any]:
    """Choices that are not spelled by a rule."""
    return lambda value, _: words.get(value, value)


def texts(value: Any) -> dict[str, Any]:
    """Names and texts: null is left out, objects and lists are their JSON text."""
    return {
        name: msgspec.json.encode(one).decode() if isinstance(one, dict | list) else one
        for name, one in object_of(value).items()
        if one is not None
    }


def names(value: Any, _: Workspace) -> Any:
    """A mapping as an object of its own."""
    return dict(value)


def is_word(value: Any, word: str) -> bool:
    """Whether a text is a word, whatever its case."""
    return isinstance(value, str) and squash(value) == squash(word)
