"""Durations are ISO 8601 at the edge and milliseconds inside."""

from __future__ import annotations

import pytest

from gateway.controlplane.arm.durations import DurationError, from_ms, to_ms


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("PT5S", 5000),
        ("PT1M30S", 90_000),
        ("PT0.5S", 500),
        ("PT0,25S", 250),
        ("pt1h", 3_600_000),
        ("P1D", 86_400_000),
        ("P1DT2H3M4.005S", 93_784_005),
        ("P2W", 1_209_600_000),
        ("PT0.0004S", 0),
        (" PT90M ", 5_400_000),
        ("PT1.5H", 5_400_000),
    ],
)
def test_a_duration_has_milliseconds(text: str, milliseconds: int) -> None:
    assert to_ms(text) == milliseconds


@pytest.mark.parametrize("text", ["", "P", "PT", "P1DT", "5", "5s", "PT5", "P1Y", "P1M", "-PT5S", "PT5S1M", "PT٥S"])
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(DurationError) as refused:
        to_ms(text)
    assert str(refused.value) == (f"found {text!r}; accepted: an ISO 8601 duration such as PT5S, PT1M30S or PT0.5S")


def test_a_long_text_is_shown_in_part() -> None:
    with pytest.raises(DurationError, match=r"found 'x+\.\.\.'; accepted"):
        to_ms("x" * 1000)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "PT0S"),
        (500, "PT0.5S"),
        (5000, "PT5S"),
        (90_500, "PT1M30.5S"),
        (60_000, "PT1M"),
        (86_400_001, "PT24H0.001S"),
    ],
)
def test_milliseconds_are_written_briefly(milliseconds: int, text: str) -> None:
    assert from_ms(milliseconds) == text
    assert to_ms(text) == milliseconds
