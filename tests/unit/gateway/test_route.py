"""Routing by weight, by name and to a mirror."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.route import cycle, mirrors, named, weighted
from gateway.errors import Code, Problem


@st.composite
def traffic(draw: st.DrawFn) -> dict[str, int]:
    cuts = sorted(draw(st.lists(st.integers(0, 100), min_size=0, max_size=4)))
    bounds = [0, *cuts, 100]
    return {f"d{index}": high - low for index, (low, high) in enumerate(pairwise(bounds))}


@given(traffic(), st.integers(0, 10_000))
def test_any_hundred_consecutive_turns_hold_each_weight_exactly(weights: dict[str, int], start: int) -> None:
    choices = cycle(weights)
    counted = Counter(choices[turn % 100] for turn in range(start, start + 100))
    assert {name: counted[name] for name in weights} == weights


@given(st.integers(0, 50), st.integers(0, 10_000))
def test_any_hundred_consecutive_turns_are_copied_exactly_as_often_as_asked(percent: int, start: int) -> None:
    assert sum(mirrors(percent, turn) for turn in range(start, start + 100)) == percent


def test_a_small_weight_is_spread_and_not_sent_in_one_block() -> None:
    choices = cycle({"blue": 90, "green": 10})
    gaps = [index for index, name in enumerate(choices) if name == "green"]
    assert {later - earlier for earlier, later in pairwise(gaps)} == {10}


def test_no_traffic_is_not_found_and_says_what_to_do() -> None:
    with pytest.raises(Problem) as caught:
        weighted({"blue": 1}, {}, cycle({"blue": 0}), 0, "digits")
    assert caught.value.code is Code.NOT_FOUND
    assert "set its traffic" in caught.value.message


def test_a_named_deployment_is_found_in_any_case_and_an_unknown_one_names_what_there_is() -> None:
    deployments = {"blue": 1, "green": 2}
    assert named(deployments, {}, "Blue", "digits") == 1
    with pytest.raises(Problem) as caught:
        named(deployments, {}, "red", "digits")
    assert caught.value.code is Code.NOT_FOUND
    assert "'red'" in caught.value.message
    assert "blue, green" in caught.value.message


def test_a_deployment_that_failed_to_load_is_unavailable_with_its_reason() -> None:
    choices = cycle({"blue": 100})
    asks: tuple[Callable[[], int], ...] = (
        lambda: named({}, {"blue": "no such file"}, "blue", "digits"),
        lambda: weighted({}, {"blue": "no such file"}, choices, 3, "digits"),
    )
    for ask in asks:
        with pytest.raises(Problem) as caught:
            ask()
        assert caught.value.code is Code.UNAVAILABLE
        assert "no such file" in caught.value.message
        assert caught.value.headers
