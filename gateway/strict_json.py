"""JSON bytes into Python values, refusing what a change of what is served has no honest use for.

Why: orjson keeps the last of two equal names without a word, accepts 1,024 levels and takes NUL characters, which not
every database keeps. Here each is refused. Scoring requests have a reader of their own, made for their speed.
Errors: NotStrict, one sentence.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

NESTING_MAX = 64
_SHOWN_MAX = 60


class NotStrict(Exception):
    """Why the text is not taken; begins with "the body"."""


def read_json(text: bytes) -> Any:
    """The JSON value."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        found = f"{error.msg} at character {error.pos}"
        raise NotStrict(f"the body is not JSON ({found}); a JSON object in UTF-8 is accepted") from None
    _walk(value)
    # After the walk: the standard reader calls itself for each level.
    json.loads(text, object_pairs_hook=_each_name_once, parse_int=_ignore, parse_float=_ignore)
    return value


def read_object(text: bytes) -> dict[str, Any]:
    """The JSON object; an empty text is an empty one."""
    value = read_json(text) if text.strip() else {}
    if not isinstance(value, dict):
        raise NotStrict(f"the body is {_kind(value)}; a JSON object is accepted")
    return value


def _walk(value: object) -> None:
    """Level by level: refuses a level too many, and NUL characters."""
    level, depth = [value], 0
    while level:
        below: list[object] = []
        for item in level:
            if isinstance(item, str) and "\0" in item:
                raise NotStrict("the body has a text with a NUL character; texts without one are accepted")
            if isinstance(item, dict | list) and depth == NESTING_MAX:
                raise NotStrict(
                    f"the body nests more than {NESTING_MAX} levels of lists and objects; fewer are accepted"
                )
            if isinstance(item, dict):
                below.extend(item)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        level, depth = below, depth + 1


def _each_name_once(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            shown = repr(name[:_SHOWN_MAX])
            raise NotStrict(f"the body names {shown} twice in one JSON object; each name is accepted once")
        seen.add(name)


def _ignore(_: str) -> None:
    """Numbers do not matter here, and very long ones would be refused by int()."""


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case _:
            return "a list"
