"""Protobuf's text format as a tree of named values, strictly; what the names mean is for typed.py to say.

What: scalars, words, strings with escapes and concatenation, `[...]` lists, `{}` and `<>` messages, `:` optional
before messages, `#` comments, one `,` or `;` after a field.
Bounds: `TEXT_BYTES_MAX` bytes, messages nested `DEPTH_MAX` deep.
Errors: TextError with line and column (from 1), what was found and what would be accepted. Pure.
Source: the text format specification of Protocol Buffers. Extensions, `Any` and numbers of fields are not read: no
model configuration has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NoReturn

TEXT_BYTES_MAX = 1 << 20
DEPTH_MAX = 32

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n\f\v]+|\#[^\n]*)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>[0-9-][0-9A-Za-z_.+-]*)
    |(?P<text>"(?:[^"\\\n]|\\[^\n])*"|'(?:[^'\\\n]|\\[^\n])*')
    |(?P<sign>[\[\]{}<>:,;])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(
    rb"\\(?:(?P<simple>[abfnrtv\\'\"?])|(?P<octal>[0-7]{1,3})|x(?P<hex>[0-9A-Fa-f]{1,2})"
    rb"|u(?P<short>[0-9A-Fa-f]{4})|U(?P<long>[0-9A-Fa-f]{8})|(?P<other>.))",
    re.DOTALL,
)
_SIMPLE = dict(zip(b"abfnrtv\\'\"?", b"\a\b\f\n\r\t\v\\'\"?", strict=True))
_CLOSING = {"{": "}", "<": ">"}


class TextError(Exception):
    """What is wrong with the text, and where."""

    def __init__(self, line: int, column: int, text: str) -> None:
        super().__init__(f"line {line}, column {column}: {text}")
        self.line = line
        self.column = column
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """A place in the text."""

    line: int
    column: int

    def refuse(self, text: str) -> NoReturn:
        raise TextError(self.line, self.column, text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """`text` as it is written; of a string what it stands for, in bytes."""

    spot: Spot
    kind: Literal["word", "number", "text"]
    text: str
    data: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    spot: Spot
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """`is_list`: whether the values stand in brackets. `has_colon`: scalars need one."""

    spot: Spot
    name: str
    values: tuple[Scalar | Message, ...]
    is_list: bool
    has_colon: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    spot: Spot
    kind: str
    text: str

    def __str__(self) -> str:
        if self.kind == "end":
            return "the end"
        return repr(self.text if len(self.text) <= 40 else f"{self.text[:40]}...")


def read(data: bytes) -> Message:
    """The message that a whole file is. Errors: TextError."""
    start = Spot(line=1, column=1)
    if len(data) > TEXT_BYTES_MAX:
        start.refuse(f"found {len(data)} bytes; accepted: at most {TEXT_BYTES_MAX}")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        Spot(line=line, column=column).refuse("found bytes that are not UTF-8; accepted: UTF-8 text")
    return Message(spot=start, fields=_Reader(text).fields("end"))


def _tokens(text: str) -> Iterator[_Token]:
    place, line, begin = 0, 1, 0
    while place < len(text):
        spot = Spot(line=line, column=place - begin + 1)
        found = _TOKEN.match(text, place)
        if found is None:
            unended = text[place] in "\"'"
            spot.refuse("found a string that does not end on its line" if unended else f"found {text[place]!r}")
        assert found.lastgroup is not None
        if found.lastgroup == "space":
            breaks = found[0].count("\n")
            if breaks:
                line, begin = line + breaks, place + found[0].rindex("\n") + 1
        else:
            yield _Token(spot=spot, kind=found.lastgroup, text=found[0])
        place = found.end()
    yield _Token(spot=Spot(line=line, column=place - begin + 1), kind="end", text="")


class _Reader:
    """Reads on from the token `at`."""

    def __init__(self, text: str) -> None:
        self._rest = _tokens(text)
        self._at = next(self._rest)
        self._depth = 0

    def fields(self, end: str) -> tuple[Field, ...]:
        """The fields up to a closing sign, or to the end of the text."""
        fields: list[Field] = []
        while not self._is(end):
            fields.append(self._field())
            if not self._skip(","):
                self._skip(";")
        return tuple(fields)

    def _field(self) -> Field:
        name = self._at
        if name.kind != "word":
            name.spot.refuse(f"found {name}; accepted: the name of a field")
        self._step()
        has_colon = self._skip(":")
        is_list = self._skip("[")
        values = self._listed() if is_list else (self._value(),)
        return Field(spot=name.spot, name=name.text, values=values, is_list=is_list, has_colon=has_colon)

    def _listed(self) -> tuple[Scalar | Message, ...]:
        if self._skip("]"):
            return ()
        values = [self._value()]
        while self._skip(","):
            values.append(self._value())
        if not self._skip("]"):
            self._at.spot.refuse(f"found {self._at} in a list; accepted: ',' or ']'")
        return tuple(values)

    def _value(self) -> Scalar | Message:
        token = self._at
        if token.text in _CLOSING and token.kind == "sign":
            return self._message(_CLOSING[token.text])
        if token.kind not in ("word", "number", "text"):
            token.spot.refuse(f"found {token}; accepted: a value")
        if token.kind == "text":
            return self._string()
        self._step()
        return Scalar(spot=token.spot, kind="word" if token.kind == "word" else "number", text=token.text)

    def _message(self, end: str) -> Message:
        spot = self._at.spot
        if self._depth == DEPTH_MAX:
            spot.refuse(f"messages nest more than {DEPTH_MAX} deep; accepted: at most that")
        self._depth += 1
        self._step()
        fields = self.fields(end)
        self._step()
        self._depth -= 1
        return Message(spot=spot, fields=fields)

    def _string(self) -> Scalar:
        """Strings that follow each other are one."""
        first, data = self._at, b""
        while self._at.kind == "text":
            data += _unescaped(self._at)
            self._step()
        return Scalar(spot=first.spot, kind="text", text=first.text, data=data)

    def _is(self, end: str) -> bool:
        if self._at.kind == "end":
            if end != "end":
                self._at.spot.refuse(f"found the end; accepted: a field or {end!r}")
            return True
        return self._at.kind == "sign" and self._at.text == end

    def _skip(self, sign: str) -> bool:
        found = self._at.kind == "sign" and self._at.text == sign
        if found:
            self._step()
        return found

    def _step(self) -> None:
        self._at = next(self._rest)


def _unescaped(token: _Token) -> bytes:
    def plain(found: re.Match[bytes]) -> bytes:
        if found["simple"]:
            return bytes([_SIMPLE[found["simple"][0]]])
        if found["octal"] or found["hex"]:
            value = int(found["octal"], 8) if found["octal"] else int(found["hex"], 16)
            return bytes([value]) if value < 256 else _bad(found)
        if found["other"]:
            return _bad(found)
        try:
            return chr(int(found["short"] or found["long"], 16)).encode()
        except (ValueError, OverflowError):
            return _bad(found)

    def _bad(found: re.Match[bytes]) -> NoReturn:
        token.spot.refuse(f"the string has {found[0].decode(errors='replace')!r}, which is no escape")

    return _ESCAPE.sub(plain, token.text[1:-1].encode())
