"""JSON bytes into Python values, with what orjson does not refuse: duplicate names and deep nesting.

Why: orjson keeps the last of two equal names without a word, and accepts 1,024 levels. Both are cheap to hide
something in and have no honest use in a scoring request.

How it stays cheap: every name in a JSON text is followed by one colon, so as many colons as names in the parsed
value mean that no name was lost. A codec knows how many names its format has from a few lengths; only a difference
(a colon inside a string, an ignored member, or a duplicate) is looked at closely. `plain` tells number conversion
that the lists hold nothing but numbers and lists: no string but those that the codec counted, and no true, false or
null anywhere. It is found the same way, from the quotes. Both are counted up to the last one only, for that is found
30 times faster than the numbers behind it are counted through.

Errors: InvalidInput.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import orjson

from runtimes import InvalidInput

NESTING_MAX = 64
_SHOWN_MAX = 60
_L = ord("l")
_R = ord("r")


def parse(text: bytes) -> Any:
    """The JSON value; its names are still to be verified."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        at = f"{error.msg} at character {error.pos}"
        raise InvalidInput(f"the body is not JSON ({at}); a JSON object in UTF-8 is accepted") from None


def refuse_duplicates(text: bytes, value: object, names: int) -> None:
    """`names`: how many the codec sees in the objects that it knows; too few costs time, nothing else."""
    colons = text.count(b":", 0, text.rfind(b":") + 1)
    if colons != names:
        _look_for_duplicates(text, value, colons)


def is_plain(text: bytes, names: int, strings: int) -> bool:
    """Whether all but `names` names and `strings` strings are numbers and lists; after refuse_duplicates."""
    if text.count(b'"', 0, text.rfind(b'"') + 1) != 2 * (names + strings):
        return False
    # Two letters settle most bodies: null and false have an l, true has an r.
    return (_L not in text and _R not in text) or _has_no_words(text)


def check_nesting(value: object, above: int) -> None:
    """Refuse more than NESTING_MAX containers within one another, of which `above` are around the value."""
    _survey(value, NESTING_MAX - above)


def short(value: object) -> str:
    """A caller's value for a message, a string in quotes; cut where it is long, and by its kind where it may nest."""
    if type(value) is list or type(value) is dict:
        return "a list" if type(value) is list else "an object"
    text = repr(value[: _SHOWN_MAX + 1]) if type(value) is str else repr(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"


def _has_no_words(text: bytes) -> bool:
    """No true, false or null."""
    return b"null" not in text and b"true" not in text and b"false" not in text


def _look_for_duplicates(text: bytes, value: object, colons: int) -> None:
    """Exact: an escaped colon is the one way in which a parsed string has a colon that the text has not."""
    found = _survey(value, NESTING_MAX)
    if found != colons or b"\\u003" in text:
        json.loads(text, object_pairs_hook=_refuse_pairs, parse_int=_ignore, parse_float=_ignore)


def _ignore(_: str) -> None:
    """Numbers do not matter here, and very long ones would be refused by int()."""


def _refuse_pairs(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise InvalidInput(f"the body names {short(name)} twice in one JSON object; each name is accepted once")
        seen.add(name)


def _survey(value: object, levels: int) -> int:
    """Names, and colons inside names and strings, level by level; refuses a level too many."""
    colons = 0
    level: list[object] = [value]
    for _ in range(levels):
        below: list[object] = []
        for item in level:
            if type(item) is list:
                below.extend(item)
            elif type(item) is dict:
                colons += len(item) + sum(name.count(":") for name in item)
                below.extend(item.values())
            elif type(item) is str:
                colons += item.count(":")
        if not below:
            return colons
        level = below
    if any(type(item) in (list, dict) for item in level):
        _refuse_nesting()
    return colons + sum(item.count(":") for item in level if type(item) is str)


def _refuse_nesting() -> NoReturn:
    raise InvalidInput(f"the body nests more than {NESTING_MAX} levels of lists and objects; fewer are accepted")
