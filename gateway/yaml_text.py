"""YAML text as a tree of marked values: the one file that names the YAML parser.

What: scalars keep their text as written and whether it was quoted, so that the reader's types decide what they
mean: `version: 1.10` stays "1.10", `name: no` stays "no", `enabled: 'True'` is a truth value where one is wanted.
Why not a plain load: it forgets line numbers, lets a repeated key win silently and expands aliases without a
bound.
`write_yaml` is the way back: what it writes reads as the same text, here and for other readers of YAML.
Units: lines count from 1. Bounds: bytes of a text, depth, and values once aliases are expanded.
Errors: `Mistake`s are collected; a text that is no YAML at all has exactly one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

TEXT_BYTES_MAX = 1_000_000
DEPTH_MAX = 32
VALUES_MAX = 100_000

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TAG = "tag:yaml.org,2002:"
_TAGS = frozenset(_TAG + name for name in ("str", "int", "float", "bool", "null", "map", "seq"))


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong in a text: where (line, path of keys) and a sentence without them."""

    line: int
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.line}: {self.path}: {self.text}" if self.path else f"{self.line}: {self.text}"


@dataclass(frozen=True, slots=True)
class Scalar:
    text: str
    line: int
    plain: bool = True

    @property
    def is_null(self) -> bool:
        return self.plain and self.text in _NULLS


@dataclass(frozen=True, slots=True)
class Items:
    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Entries:
    """A mapping. `lines` holds the line of each key; entries that came by a merge have their value's."""

    entries: dict[str, Node]
    line: int
    lines: dict[str, int] = field(default_factory=dict)


Node = Scalar | Items | Entries


def write_yaml(tree: Any) -> str:
    """One document of mappings, lists, texts, numbers, truth values and None, in the order given."""
    return str(yaml.dump(tree, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=118))


def read_documents(data: bytes) -> tuple[list[Node], list[Mistake]]:
    """The documents of one text; empty ones are left out. A text with mistakes may still give documents."""
    if len(data) > TEXT_BYTES_MAX:
        return [], [Mistake(1, "", f"the file has {len(data)} bytes; at most {TEXT_BYTES_MAX} are read")]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return [], [Mistake(line, "", f"byte 0x{data[error.start]:02x} is not UTF-8; accepted: UTF-8 text")]
    builder = _Builder()
    try:
        documents = builder.documents(yaml.parse(text, Loader=_LOADER))
    except _StopError as stop:
        return [], [stop.mistake]
    except yaml.YAMLError as error:
        return [], [_syntax(error)]
    return documents, builder.mistakes


class _StopError(Exception):
    def __init__(self, mistake: Mistake) -> None:
        super().__init__(str(mistake))
        self.mistake = mistake


class _Builder:
    """Turns the parser's events into nodes. An alias costs what its value costs: bombs are counted."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self._values = 0
        self._anchors: dict[str, tuple[Node, int]] = {}

    def documents(self, events: Iterator[Any]) -> list[Node]:
        found: list[Node] = []
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors.clear()
                node = self._value(events, next(events), "", 0)
                if not (isinstance(node, Scalar) and node.is_null):
                    found.append(node)
        return found

    def _value(self, events: Iterator[Any], event: Any, path: str, depth: int) -> Node:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), line, path)
        before = self._values
        self._count(1, line)
        if depth > DEPTH_MAX:
            raise _StopError(Mistake(line, path, f"values nest deeper than {DEPTH_MAX} levels"))
        if event.tag not in (None, "!") and event.tag not in _TAGS:
            self.mistakes.append(Mistake(line, path, f"tag {event.tag} is not known here; remove it"))
        node: Node
        if isinstance(event, yaml.MappingStartEvent):
            node = self._mapping(events, line, path, depth)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(events, line, path, depth)
        else:
            node = Scalar(event.value, line, plain=not event.style and event.tag != f"{_TAG}str")
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, self._values - before)
        return node

    def _alias(self, anchor: str, line: int, path: str) -> Node:
        if anchor not in self._anchors:
            raise _StopError(Mistake(line, path, f"*{anchor} refers to no complete value before it"))
        node, values = self._anchors[anchor]
        self._count(values, line)
        return node

    def _count(self, values: int, line: int) -> None:
        self._values += values
        if self._values > VALUES_MAX:
            raise _StopError(Mistake(line, "", f"the file expands to more than {VALUES_MAX} values"))

    def _sequence(self, events: Iterator[Any], line: int, path: str, depth: int) -> Items:
        items: list[Node] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self._value(events, event, f"{path}[{len(items)}]", depth + 1))
        return Items(tuple(items), line)

    def _mapping(self, events: Iterator[Any], line: int, path: str, depth: int) -> Entries:
        entries: dict[str, Node] = {}
        lines: dict[str, int] = {}
        merged: dict[str, Node] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self._value(events, event, path, depth + 1)
            key_line = event.start_mark.line + 1
            name = key.text if isinstance(key, Scalar) else ""
            inside = f"{path}.{name}" if path else name
            value = self._value(events, next(events), inside, depth + 1)
            if not isinstance(key, Scalar):
                self.mistakes.append(Mistake(key_line, path, "a key is a list or a mapping; keys are text"))
            elif key.plain and name == "<<":
                merged |= self._merge(value, inside)
            elif name in entries:
                said = f"the key is repeated; line {lines[name]} has it too"
                self.mistakes.append(Mistake(key_line, inside, said))
            else:
                entries[name], lines[name] = value, key_line
        return Entries(merged | entries, line, {name: node.line for name, node in merged.items()} | lines)

    def _merge(self, value: Node, path: str) -> dict[str, Node]:
        """What `<<` brings in; of several mappings the first wins, as the YAML merge type says."""
        parts = value.items if isinstance(value, Items) else (value,)
        merged: dict[str, Node] = {}
        for part in parts:
            if isinstance(part, Entries):
                merged = part.entries | merged
            else:
                said = "a merge takes a mapping or a list of mappings"
                self.mistakes.append(Mistake(part.line, path, said))
        return merged


def _syntax(error: yaml.YAMLError) -> Mistake:
    mark = getattr(error, "problem_mark", None)
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    return Mistake(mark.line + 1 if mark is not None else 1, "", f"not YAML: {said}")


class _Writer(yaml.SafeDumper):
    """Texts of several lines as blocks, and no aliases: people read and compare what is written."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = "|" if "\n" in text.strip("\n") else None
        # Parsers take these for line breaks, unless they are escaped.
        style = '"' if any(sign in text for sign in "\x85\u2028\u2029") else style
        return self.represent_scalar(f"{_TAG}str", text, style=style)


_Writer.add_representer(str, _Writer.represent_text)


# The C parser is ten times faster and reads the same; the pure one serves where the package came without it.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
