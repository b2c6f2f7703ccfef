"""ISO 8601 durations, as ARM bodies have them, to milliseconds and back.

Read: days, hours, minutes and seconds with a fraction (`PT5S`, `PT1M30S`, `PT0.5S`, `P1DT2H`), weeks (`P1W`); years
and months have no length and are refused. Written: hours, minutes and seconds.
Errors: DurationError, one sentence. Pure.
"""

from __future__ import annotations

import re

_NUMBER = r"(\d{1,12}(?:[.,]\d{1,9})?)"
_DURATION = re.compile(
    rf"P(?:{_NUMBER}W|(?:{_NUMBER}D)?(?:T(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?)", re.ASCII | re.IGNORECASE
)
_UNITS_MS = (604_800_000, 86_400_000, 3_600_000, 60_000, 1000)


class DurationError(ValueError):
    """A text is no duration."""


def to_ms(text: str) -> int:
    """Milliseconds, rounded. Errors: DurationError."""
    found = _DURATION.fullmatch(text.strip())
    given = found.groups() if found else ()
    if not any(given) or text.strip()[-1] in "Tt":
        shown = repr(text if len(text) <= 80 else text[:77] + "...")
        raise DurationError(f"found {shown}; accepted: an ISO 8601 duration such as PT5S, PT1M30S or PT0.5S")
    return round(sum(_exact(one, unit) for one, unit in zip(given, _UNITS_MS, strict=True) if one))


def from_ms(milliseconds: int) -> str:
    """The shortest form in hours, minutes and seconds: 90500 is PT1M30.5S, 0 is PT0S."""
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{rest:03d}".rstrip("0") if rest else ""
    parts = (f"{hours}H" if hours else "") + (f"{minutes}M" if minutes else "")
    return f"PT{parts}{seconds}{fraction}S" if seconds or rest or not parts else f"PT{parts}"


def _exact(number: str, unit_ms: int) -> float:
    whole, _, fraction = number.replace(",", ".").partition(".")
    return int(whole) * unit_ms + (int(fraction) * unit_ms / 10 ** len(fraction) if fraction else 0)
