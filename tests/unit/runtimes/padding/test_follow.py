"""How outputs follow a length is found out by asking, whatever layers made it so, or is said to be unclear."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.padding.follow import Follower, Unclear
from runtimes.padding.lengths import Follows

Size = Callable[[int], int]


def learn(
    size: Size, largest: int = 300, usual: int = 32, least: int = 1
) -> tuple[Follower, tuple[Follows, ...], int]:
    """What is learned of an output [1, size(length), 7] of a model that runs from `least` on; how often it ran."""
    asked = []

    def ask(length: int) -> dict[str, tuple[int, ...]] | None:
        asked.append(length)
        return {"y": (1, size(length), 7)} if length >= least else None

    follower = Follower(ask, largest)
    follows = follower.learn(0, usual, {"y": 0}).get("y", ())
    assert len(asked) == len(set(asked))
    return follower, follows, len(asked)


def check(size: Size, follower: Follower, follows: tuple[Follows, ...]) -> None:
    (one,) = follows
    assert one.axis == 1
    for length in range(follower.shortest, follower.largest + 1):
        assert one.size(length) == size(length)


@pytest.mark.parametrize(
    ("size", "shortest_at_most"),
    [
        (lambda n: n, 1),
        (lambda n: n + 1, 1),
        (lambda n: -(-n // 2), 1),
        (lambda n: 3 * n, 1),
        (lambda n: 2 * n + 1, 1),
        (lambda n: 8 * (n // 32), 1),
        (lambda n: max(1, (n + 1) // 8), 8),
        (lambda n: max(0, (n - 6) // 2 - 3), 16),
        (lambda n: 32 * -(-n // 32), 1),
    ],
    ids=["same", "one more", "half", "three times", "enlarged", "coarse", "at least one", "shrunk", "rounded up"],
)
def test_the_usual_layers_are_known_after_few_runs(size: Size, shortest_at_most: int) -> None:
    follower, follows, asked = learn(size)
    check(size, follower, follows)
    assert follower.shortest <= shortest_at_most
    assert asked <= 40


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 3), st.integers(0, 3)), min_size=1, max_size=4))
def test_any_chain_of_convolutions_is_followed_exactly(layers: list[tuple[int, int, int]]) -> None:
    def size(length: int) -> int:
        for kernel, stride, pad in layers:
            length = (length + 2 * pad - kernel) // stride + 1
        return max(0, length)

    try:
        follower, follows, _ = learn(size, largest=200, usual=96)
    except Unclear:
        return
    if follows:
        check(size, follower, follows)
    else:
        assert len({size(length) for length in range(follower.shortest, follower.largest + 1)}) == 1


def test_an_output_that_stays_as_it_is_follows_nothing() -> None:
    assert learn(lambda _: 4)[1] == ()


def test_a_model_that_takes_long_inputs_only_is_followed_from_there() -> None:
    follower, follows, _ = learn(lambda n: n // 4, least=20)
    check(lambda n: n // 4, follower, follows)
    assert follower.shortest >= 20


def test_a_model_that_takes_multiples_only_is_not_asked_for_all_between() -> None:
    asked: list[int] = []

    def ask(length: int) -> dict[str, tuple[int, ...]] | None:
        asked.append(length)
        return {"y": (1, length // 4)} if length % 32 == 0 else None

    (one,) = Follower(ask, 256).learn(0, 32, {"y": 0})["y"]
    assert all(one.size(length) == length // 4 for length in range(64, 257, 32))
    assert len(asked) <= 30


@pytest.mark.parametrize("size", [lambda n: n * n, lambda n: n % 7], ids=["square", "remainder"])
def test_what_no_chain_of_layers_does_is_unclear(size: Size) -> None:
    with pytest.raises(Unclear, match="not clear: no formula fits more than 2 of"):
        learn(size)


def test_a_rank_that_changes_is_unclear() -> None:
    with pytest.raises(Unclear):
        Follower(lambda n: {"y": (1,) * (1 + n % 3)}, 64).learn(0, 32, {"y": 0})


def test_a_model_that_runs_with_one_length_only_is_unclear() -> None:
    with pytest.raises(Unclear, match="not clear: the model runs with 1 of"):
        Follower(lambda n: {"y": (1, n)} if n == 32 else None, 64).learn(0, 32, {"y": 0})
