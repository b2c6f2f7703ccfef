"""Two answers, compared: which rows agree, how far apart the numbers are, and what cannot be compared."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gateway.dataplane.compare import BYTES_MAX, OBJECT_BYTES, ROWS_MAX, Comparison, compare, excerpts
from runtimes import Array, Datatype, Signature, TensorSpec

FP32, INT64, BYTES = Datatype.FP32, Datatype.INT64, Datatype.BYTES
NAN, INF = math.nan, math.inf


def signature(**outputs: Datatype | TensorSpec) -> Signature:
    specs = tuple(
        one if isinstance(one, TensorSpec) else TensorSpec(name=name, datatype=one, shape=(-1, -1), batch_axis=0)
        for name, one in outputs.items()
    )
    return Signature(inputs=(), outputs=specs)


def compared(datatype: Datatype, live: Any, mirror: Any) -> Comparison:
    """One output, `y`, of this type on both sides."""
    own = signature(y=datatype)
    left, right = ({"y": np.array(each, datatype.dtype)} for each in (live, mirror))
    return compare(excerpts(left, own), excerpts(right, own))


def objects(*elements: object) -> Array:
    array = np.empty(len(elements), np.object_)
    array[:] = elements
    return array


def test_rows_agree_where_their_largest_entries_stand_at_the_same_place() -> None:
    found = compared(FP32, [[1, 2], [4, 3], [0, 9]], [[1, 3], [3, 4], [0, 9]])
    assert found == Comparison(rows=3, agreeing=2, difference=1.0)


def test_of_equal_entries_the_first_is_the_largest() -> None:
    assert compared(FP32, [[1, 1]], [[1, 0]]).agreeing == 1
    assert compared(FP32, [[1, 1]], [[0, 1]]).agreeing == 0


def test_the_last_axis_is_that_of_the_classes_however_many_there_are() -> None:
    live = np.zeros((2, 3, 4), np.float32)
    live[..., 1] = 1
    mirror = live.copy()
    mirror[1, 2] = (0, 0, 0, 5)
    assert compared(FP32, live, mirror) == Comparison(rows=6, agreeing=5, difference=5.0)


@pytest.mark.parametrize("live", [3.5, [3.5], [[3.5]]])
def test_a_float_alone_in_its_row_differs_and_has_no_place(live: Any) -> None:
    assert compared(FP32, live, np.array(live) - 1) == Comparison(difference=1.0)


def test_a_rank_1_output_without_a_batch_axis_is_one_row() -> None:
    own = signature(y=TensorSpec(name="y", datatype=FP32, shape=(3,)))
    left, right = (excerpts({"y": np.array(each, np.float32)}, own) for each in ([1, 2, 3], [1, 2, 5]))
    assert compare(left, right) == Comparison(rows=1, agreeing=1, difference=2.0)


@pytest.mark.parametrize(
    ("datatype", "live", "mirror"),
    [
        (INT64, [3, 4, 900], [3, 4, 5]),
        (INT64, [[3], [4], [900]], [[3], [4], [5]]),
        (BYTES, ["cat", "dog", "eel"], ["cat", "dog", "ape"]),
        (Datatype.BOOL, [True, False, True], [True, False, False]),
        (BYTES, [["a", "b"], ["c", "d"], ["e", "f"]], [["a", "b"], ["c", "d"], ["e", "g"]]),
        (Datatype.BOOL, [[True, True], [False, False], [True, True]], [[True, True], [False, False], [True, False]]),
    ],
)
def test_labels_agree_where_they_are_equal_and_have_no_difference(datatype: Datatype, live: Any, mirror: Any) -> None:
    assert compared(datatype, live, mirror) == Comparison(rows=3, agreeing=2)


@pytest.mark.parametrize(
    ("datatype", "low", "high"),
    [
        (INT64, -(2**63), 2**63 - 1),
        (Datatype.UINT64, 0, 2**64 - 1),
        (Datatype.INT8, -128, 127),
        (Datatype.UINT8, 0, 255),
    ],
)
def test_the_difference_of_whole_numbers_does_not_wrap(datatype: Datatype, low: int, high: int) -> None:
    found = compared(datatype, [[low, high]], [[high, low]])
    assert found == Comparison(rows=1, agreeing=0, difference=float(high - low))


def test_bfloat16_is_read_as_the_numbers_it_stands_for() -> None:
    # 1.0, 2.0 and 3.0 as the upper halves of a float32.
    assert compared(Datatype.BF16, [[0x3F80, 0x4000]], [[0x3F80, 0x4040]]) == Comparison(
        rows=1, agreeing=1, difference=1.0
    )


def test_nan_and_infinities_in_the_same_places_are_no_difference() -> None:
    rows = [[NAN, 1, INF, -INF], [1, 2, 3, 4]]
    assert compared(FP32, rows, rows) == Comparison(rows=2, agreeing=2, difference=0.0)


@pytest.mark.parametrize("odd", [NAN, INF, -INF])
def test_a_number_against_none_is_told_apart_from_the_largest_difference(odd: float) -> None:
    for live, mirror in (([[odd, 1, 2]], [[5, 1, 2.5]]), ([[5, 1, 2.5]], [[odd, 1, 2]])):
        found = compared(FP32, live, mirror)
        assert (found.difference, found.nonfinite) == (0.5, True)
    assert compared(FP32, [[INF, 0]], [[-INF, 0]]).nonfinite
    assert compared(FP32, [[NAN]], [[1]]) == Comparison(difference=0.0, nonfinite=True)


def test_nan_counts_as_the_largest_entry() -> None:
    assert compared(FP32, [[1, NAN, 9]], [[1, NAN, 3]]).agreeing == 1
    assert compared(FP32, [[1, NAN, 9]], [[1, 0, 9]]).agreeing == 0


MAPS = signature(y=TensorSpec(name="y", datatype=BYTES, shape=(-1,), batch_axis=0, maps=True))


def maps(live: list[object], mirror: list[object]) -> Comparison:
    return compare(excerpts({"y": objects(*live)}, MAPS), excerpts({"y": objects(*mirror)}, MAPS))


def test_maps_of_numbers_are_rows_of_numbers_in_whatever_order_their_names_stand() -> None:
    found = maps([{"a": 0.25, "b": 0.75}, {"a": 1.0, "b": 0.0}], [{"b": 0.5, "a": 0.5}, {"a": 1.0, "b": 0.0}])
    assert found == Comparison(rows=2, agreeing=1, difference=0.25)


@pytest.mark.parametrize("mirror", [{"a": 0.5, "c": "x"}, {"a": "x", "b": "y"}, {}])
def test_maps_of_other_names_or_without_numbers_agree_where_they_are_equal(mirror: dict[str, object]) -> None:
    assert maps([{"a": 0.5, "b": 0.5}], [mirror]) == Comparison(rows=1, agreeing=0)
    assert maps([mirror], [mirror]).agreeing == 1


def test_maps_with_one_name_differ_and_have_no_place() -> None:
    assert maps([{"a": 1.0}], [{"a": 0.5}]) == Comparison(difference=0.5)
    assert maps([{"a": 1.0}], [{"b": 1.0}]) == Comparison(rows=1, agreeing=0)


OTHER = signature(z=FP32)
UNLIKE: dict[str, tuple[Signature, dict[str, Array], str]] = {
    "another name": (OTHER, {"z": np.ones((2, 3), np.float32)}, "names"),
    "another type": (signature(y=INT64), {"y": np.ones((2, 3), np.int64)}, "datatype"),
    "maps": (MAPS, {"y": objects({"a": 1.0}, {"a": 1.0})}, "datatype"),
    "another width": (signature(y=FP32), {"y": np.ones((2, 4), np.float32)}, "shape"),
    "another rank": (signature(y=FP32), {"y": np.ones((2,), np.float32)}, "shape"),
}


@pytest.mark.parametrize(("own", "results", "reason"), UNLIKE.values(), ids=UNLIKE.keys())
def test_outputs_that_are_not_alike_are_not_compared(own: Signature, results: dict[str, Array], reason: str) -> None:
    live = excerpts({"y": np.ones((2, 3), np.float32)}, signature(y=FP32))
    assert compare(live, excerpts(results, own)) == Comparison(reason=reason)
    assert compare(excerpts(results, own), live) == Comparison(reason=reason)


def test_what_can_be_compared_is_beside_what_cannot() -> None:
    own = signature(a=FP32, b=FP32, c=FP32)
    ones = np.ones((1, 2), np.float32)
    live = excerpts({"a": ones, "b": ones}, own)
    mirror = excerpts({"a": ones * 3, "b": np.ones((1, 3), np.float32), "c": ones}, own)
    assert compare(live, mirror) == Comparison(rows=1, agreeing=1, difference=2.0, reason="names")


def test_what_the_signature_does_not_name_is_left_out() -> None:
    assert excerpts({"z": np.ones((1, 2), np.float32)}, signature(y=FP32)) == {}


@pytest.mark.parametrize("shape", [(0,), (0, 4), (3, 0)])
def test_nothing_is_like_nothing(shape: tuple[int, ...]) -> None:
    empty = np.zeros(shape)
    assert compared(FP32, empty, empty) == compared(INT64, empty, empty) == Comparison()


def test_large_outputs_are_compared_on_their_first_whole_rows() -> None:
    rows = BYTES_MAX // 4 // 1000
    live = np.zeros((2 * rows, 1000), np.float32)
    mirror = live.copy()
    live[:, 0] = mirror[:, 0] = 1
    mirror[rows - 1, 1] = 3
    mirror[rows, 1] = 9
    assert compared(FP32, live, mirror) == Comparison(rows=rows, agreeing=rows - 1, difference=3.0)


def test_rows_are_bounded_too() -> None:
    live = np.zeros((ROWS_MAX + 1, 2), np.float32)
    assert compared(FP32, live, live).rows == ROWS_MAX


def test_an_output_of_which_no_row_is_within_bounds_is_left_out_beside_one_that_is() -> None:
    own = signature(large=FP32, label=INT64)
    results: dict[str, Array] = {
        "large": np.zeros((1, BYTES_MAX // 4 + 1), np.float32),
        "label": np.ones(1, np.int64),
    }
    both = excerpts(results, own)
    assert compare(both, both) == Comparison(rows=1, agreeing=1, reason="too_large")


def test_what_small_outputs_leave_is_shared_by_large_ones() -> None:
    own = signature(a=FP32, b=FP32, c=INT64)
    large = np.zeros((4000, 1000), np.float32)
    found = excerpts({"a": large, "b": large, "c": np.ones(4, np.int64)}, own)
    assert len(found["c"].rows) == 4
    assert len(found["a"].rows) == len(found["b"].rows) == (BYTES_MAX - 32) // 2 // 4000
    assert sum(one.rows.nbytes for one in found.values()) <= BYTES_MAX


def test_strings_and_maps_count_as_more_than_their_references() -> None:
    wide = {str(number): 0.5 for number in range(1000)}
    assert len(excerpts({"y": objects(*[wide] * 50)}, MAPS)["y"].rows) == BYTES_MAX // OBJECT_BYTES // 1000
    texts = np.full((5000, 8), "text", np.object_)
    assert len(excerpts({"y": texts}, signature(y=BYTES))["y"].rows) == BYTES_MAX // OBJECT_BYTES // 8


def test_an_excerpt_holds_no_batch() -> None:
    batch = np.arange(60, dtype=np.float32).reshape(20, 3)
    for view in (batch[3:7], batch.T[:, 3:7], batch[::2]):
        kept = excerpts({"y": view}, signature(y=FP32))["y"].rows
        assert not np.shares_memory(kept, batch)
        assert np.array_equal(kept, view)


def brute(live: Array, mirror: Array) -> tuple[int, int, float]:
    """Rows, agreeing rows and largest difference, one entry at a time."""
    width = live.shape[-1]
    agreeing, largest = 0, 0.0
    rows = list(zip(live.reshape(-1, width).tolist(), mirror.reshape(-1, width).tolist(), strict=True))
    for left, right in rows:
        agreeing += left.index(max(left)) == right.index(max(right))
        largest = max(largest, *(abs(a - b) for a, b in zip(left, right, strict=True)))
    return len(rows), agreeing, largest


SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(2, 4))
KINDS = st.sampled_from([Datatype.FP16, FP32, Datatype.FP64, INT64, Datatype.UINT8, Datatype.INT32])


@settings(max_examples=80, deadline=None)
@given(st.data(), SHAPES, KINDS)
def test_it_is_what_looking_at_each_entry_gives(data: Any, shape: tuple[int, ...], datatype: Datatype) -> None:
    numbers = st.integers(0, 7)
    live, mirror = (data.draw(arrays(datatype.dtype, shape, elements=numbers)) for _ in range(2))
    found = compared(datatype, live, mirror)
    assert (found.rows, found.agreeing, found.difference) == brute(live, mirror)
    assert (found.nonfinite, found.reason) == (False, "")
    turned = compared(datatype, mirror, live)
    assert turned == found
