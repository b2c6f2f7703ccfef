"""Buckets and lengths as arithmetic: who may share a run, and how long it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.errors import InvalidInput
from runtimes.padding.lengths import Follows, Length, PaddedInput, Padding, element
from runtimes.tensor import Datatype

lengths = st.builds(
    Length,
    name=st.just("T"),
    multiple_of=st.integers(0, 40),
    shortest=st.integers(1, 20),
    longest=st.integers(0, 500),
) | st.builds(
    Length,
    name=st.just("T"),
    buckets=st.lists(st.integers(1, 300), min_size=1, max_size=6, unique=True).map(
        lambda found: tuple(sorted(found))
    ),
)


@settings(deadline=None)
@given(lengths, st.integers(0, 600))
def test_a_bucket_holds_its_size_and_is_a_bucket_of_its_own(length: Length, size: int) -> None:
    bucket = length.bucket(size)
    assert bucket >= size
    assert length.bucket(bucket) == bucket
    if size < length.shortest or 0 < length.longest < size:
        assert bucket == size
    if bucket != size and length.longest:
        assert bucket <= length.longest


@settings(deadline=None)
@given(lengths, st.integers(0, 600), st.integers(0, 600))
def test_who_has_the_bucket_of_another_is_padded_to_it_and_never_beyond(length: Length, one: int, other: int) -> None:
    if length.bucket(one) == length.bucket(other):
        assert max(one, other) <= length.bucket(one)


@settings(deadline=None)
@given(st.integers(9, 5000))
def test_our_own_steps_waste_at_most_a_third_and_are_few(size: int) -> None:
    bucket = Length(name="T").bucket(size)
    assert (bucket - size) / bucket < 1 / 3
    assert bucket in {2**power for power in range(4, 14)} | {3 * 2**power for power in range(2, 12)}


@pytest.mark.parametrize(
    ("length", "sizes", "buckets"),
    [
        (Length(name="T"), (0, 1, 8, 9, 12, 13, 16, 17, 24, 25), (0, 8, 8, 12, 12, 16, 16, 24, 24, 32)),
        (Length(name="T", multiple_of=16), (0, 1, 16, 17, 100), (0, 16, 16, 32, 112)),
        (Length(name="T", multiple_of=48, longest=512), (480, 481, 513), (480, 481, 513)),
        (Length(name="T", buckets=(32, 64)), (1, 32, 33, 64, 65), (32, 32, 64, 64, 65)),
        (Length(name="T", multiple_of=8, shortest=5), (3, 4, 5), (3, 4, 8)),
    ],
)
def test_sizes_go_to_the_next_bucket_within_the_bounds(
    length: Length, sizes: tuple[int, ...], buckets: tuple[int, ...]
) -> None:
    assert tuple(map(length.bucket, sizes)) == buckets


def test_inputs_that_share_a_length_must_have_it() -> None:
    padding = Padding(
        lengths=(Length(name="T"), Length(name="W")),
        inputs={
            "ids": PaddedInput(axis=1, length=0),
            "mask": PaddedInput(axis=1, length=0),
            "image": PaddedInput(axis=2, length=1),
        },
    )
    good = {"ids": np.zeros((1, 5)), "mask": np.zeros((1, 5)), "image": np.zeros((1, 3, 9)), "rate": np.zeros(())}
    assert padding.sizes(good) == (5, 9)
    assert padding.buckets((5, 9)) == (8, 12)
    assert padding.apart("image", (1, 3, 9)) == (1, 3, 0)
    assert padding.apart("rate", ()) == ()
    with pytest.raises(InvalidInput, match=r"input 'mask' has 6 entries along axis 1, input 'ids' has 5; .*\('T'\)"):
        padding.sizes({**good, "mask": np.zeros((1, 6))})


def test_an_output_follows_in_whole_steps_and_never_below_nothing() -> None:
    follows = Follows(axis=1, length=0, times=2, step=8, offset=-7, plus=1)
    assert [follows.size(size) for size in (0, 7, 14, 15, 23)] == [0, 1, 1, 3, 5]


@pytest.mark.parametrize("datatype", list(Datatype))
def test_a_pad_value_becomes_an_element_of_its_datatype(datatype: Datatype) -> None:
    array = np.full((2,), element(1.0, datatype), datatype.dtype)
    assert array.dtype == datatype.dtype
    assert array[0] == ("" if datatype is Datatype.BYTES else 0x3F80 if datatype is Datatype.BF16 else 1)
