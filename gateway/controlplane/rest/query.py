"""Query strings: what each route takes, read strictly where it matters and leniently where clients differ.

Names are matched whatever their case. What a route does not know is ignored, as clients of many versions send much;
what it knows must be readable and given once. `api-version` is taken whatever it says.
Errors: Problem, 400. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from gateway.errors import Code, Problem

API_VERSION_CHARS_MAX = 64
PARAMETERS_MAX = 64

_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SHOWN_MAX = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A query parameter. `low` and `high` make it a whole number, `choices` one of these whatever its case; one with
    a `pattern` is a mark in a list."""

    name: str
    what: str
    low: int | None = None
    high: int | None = None
    choices: tuple[str, ...] = ()
    is_flag: bool = False
    pattern: str = ""
    chars_max: int = 1024

    def schema(self) -> dict[str, Any]:
        if self.low is not None:
            return {"type": "integer", "minimum": self.low, "maximum": self.high}
        if self.is_flag:
            return {"type": "boolean"}
        if self.choices:
            return {"type": "string", "enum": list(self.choices)}
        if self.pattern:
            return {"type": "string", "pattern": self.pattern}
        return {"type": "string", "maxLength": self.chars_max}

    def check(self, text: str) -> None:
        """Refuse what is not taken."""
        if self.low is not None:
            assert self.high is not None
            is_whole = re.fullmatch(r"[0-9]{1,9}", text) is not None
            if not is_whole or not self.low <= int(text) <= self.high:
                raise self._refused(text, f"a whole number from {self.low} to {self.high}")
        elif self.is_flag and text.lower() not in ("true", "false"):
            raise self._refused(text, "true or false")
        elif self.choices and text.lower() not in (choice.lower() for choice in self.choices):
            raise self._refused(text, f"one of {', '.join(self.choices)}")
        elif self.pattern and not re.fullmatch(self.pattern.removesuffix("$"), text):
            raise self._refused(text, "what a nextLink had")
        elif len(text) > self.chars_max:
            raise self._refused(text, f"at most {self.chars_max} characters")

    def _refused(self, text: str, accepts: str) -> Problem:
        shown = text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"
        return Problem(Code.INVALID_INPUT, f"query parameter {self.name} is {shown!r}; accepted: {accepts}")


API_VERSION = Parameter(
    name="api-version",
    what="Taken whatever it says, and not needed.",
    chars_max=API_VERSION_CHARS_MAX,
)
COUNT_MAX = 1000

TOP = Parameter(name="$top", what="Most entries of the whole list.", low=1, high=1_000_000)
SKIP = Parameter(
    name="$skip", what="Where to go on, as the nextLink of the page before says.", pattern="^[0-9a-f]{1,15}$"
)
COUNT = Parameter(name="count", what="Most entries of a page.", low=1, high=COUNT_MAX)
NAME = Parameter(name="name", what="Only what is called so, whatever the case.", chars_max=255)
TAGS = Parameter(
    name="tags", what="Only what has these tags: names or name=value, with commas between.", chars_max=4096
)
PROPERTIES = Parameter(
    name="properties",
    what="Only what has these properties: names or name=value, with commas between.",
    chars_max=4096,
)
COMPUTE_TYPE = Parameter(name="computeType", what="Only endpoints of this kind.", choices=("Managed", "Kubernetes"))
VIEW = Parameter(
    name="listViewType",
    what="Archived versions are left out unless asked for.",
    choices=("ActiveOnly", "ArchivedOnly", "All"),
)
ENDPOINT_ORDER = Parameter(
    name="orderBy", what="The order; by creation without it.", choices=("CreatedAtDesc", "CreatedAtAsc")
)
ORDER = Parameter(
    name="$orderBy",
    what="The order; by creation without it.",
    choices=("createdtime desc", "createdtime asc", "createdAt desc", "createdAt asc"),
)
HASH = Parameter(name="hash", what="Only code of this content, under whatever name.", chars_max=128)
HASH_VERSION = Parameter(
    name="hashVersion", what="How `hash` was made; code is compared by `hash` alone.", chars_max=64
)
IS_DEFAULT = Parameter(name="isDefault", what="Only the default datastore, or only others.", is_flag=True)

LIMIT = Parameter(name="limit", what="Most entries.", low=1, high=COUNT_MAX)
BEFORE = Parameter(name="before", what="Only entries before the one with this id.", low=1, high=999_999_999)
WHO = Parameter(name="who", what="Only what this actor did.", chars_max=255)
TARGET = Parameter(name="target", what="Only what was done to this.", chars_max=255)
TAIL = Parameter(name="tail", what="How many of the last lines come first.", low=0, high=10_000)
FOLLOW = Parameter(name="follow", what="Whether the stream goes on with what comes.", choices=("true", "false"))
DEPLOYMENT = Parameter(name="deployment", what="Only events of this deployment.", chars_max=64)


class Query:
    """A request's query: the parameters that its route knows, checked."""

    __slots__ = ("_given",)

    def __init__(self, raw: bytes, known: tuple[Parameter, ...]) -> None:
        wanted = {one.name.lower(): one for one in (*known, API_VERSION)}
        given: dict[str, str] = {}
        for name, text in _pairs(raw):
            parameter = wanted.get(name.lower())
            if parameter is None:
                continue
            if parameter.name in given:
                raise Problem(
                    Code.INVALID_INPUT, f"query parameter {parameter.name} is given more than once; it is taken once"
                )
            parameter.check(text)
            given[parameter.name] = text
        self._given = given

    def text(self, parameter: Parameter) -> str:
        """ "" where it is not given."""
        return self._given.get(parameter.name, "")

    def number(self, parameter: Parameter) -> int | None:
        text = self._given.get(parameter.name)
        return int(text) if text is not None else None

    def flag(self, parameter: Parameter) -> bool | None:
        text = self._given.get(parameter.name)
        return text.lower() == "true" if text is not None else None

    def choice(self, parameter: Parameter) -> str:
        """Spelled as the parameter's choices are; "" where it is not given."""
        text = self._given.get(parameter.name, "").lower()
        return next((choice for choice in parameter.choices if choice.lower() == text), "")

    @property
    def given(self) -> Mapping[str, str]:
        return self._given


def _pairs(raw: bytes) -> list[tuple[str, str]]:
    parts = [part for part in raw.split(b"&") if part]
    if len(parts) > PARAMETERS_MAX:
        raise Problem(
            Code.INVALID_INPUT, f"the query has {len(parts)} parameters; at most {PARAMETERS_MAX} are taken"
        )
    pairs = []
    for part in parts:
        name, _, value = part.partition(b"=")
        pairs.append((_decoded(name), _decoded(value)))
    return pairs


def _decoded(raw: bytes) -> str:
    try:
        text = unquote_to_bytes(raw.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or _ESCAPE.search(raw):
        shown = repr(raw[:_SHOWN_MAX])[1:]
        raise Problem(
            Code.INVALID_INPUT, f"the query has {shown}; percent-encoded UTF-8 without NUL characters is accepted"
        )
    return text


def filters(text: str) -> dict[str, str | None]:
    """`a,b=c` as names and the value each must have; None for any."""
    wanted: dict[str, str | None] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if name.strip():
            wanted[name.strip()] = value.strip() if equals else None
    return wanted


def has_all(found: Mapping[str, Any], wanted: Mapping[str, str | None]) -> bool:
    return all(name in found and (value is None or found[name] == value) for name, value in wanted.items())
