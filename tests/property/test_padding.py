"""Padding loses nothing and mixes nothing up, whatever the axes, datatypes, lengths and sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.batching.buckets import PaddingCollator
from runtimes.batching.item import WorkItem
from runtimes.padding.lengths import Follows, Length, PaddedInput, Padding, element
from runtimes.signature import Signature, TensorSpec
from runtimes.spec import BatchLimits
from runtimes.tensor import Array, Datatype

DATATYPES = (
    Datatype.FP32,
    Datatype.INT64,
    Datatype.BOOL,
    Datatype.FP16,
    Datatype.BF16,
    Datatype.BYTES,
    Datatype.UINT8,
)


@dataclass(frozen=True)
class Case:
    """Requests of one bucket for a model whose one output keeps every `step`-th entry of its input."""

    datatype: Datatype
    rank: int
    rows_axis: int
    length_axis: int
    step: int
    value: float
    to_bucket: bool
    sizes: tuple[int, ...]
    requests: list[tuple[int, int]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rank = draw(st.integers(2, 4))
    rows_axis, length_axis = draw(st.permutations(range(rank)))[:2]
    return Case(
        datatype=draw(st.sampled_from(DATATYPES)),
        rank=rank,
        rows_axis=rows_axis,
        length_axis=length_axis,
        step=draw(st.integers(1, 4)),
        value=draw(st.sampled_from((0.0, 1.0))),
        to_bucket=draw(st.booleans()),
        sizes=tuple(sorted(draw(st.sets(st.integers(1, 30), max_size=4)))),
        requests=draw(st.lists(st.tuples(st.integers(1, 4), st.integers(9, 16)), min_size=1, max_size=6)),
    )


def values(case: Case, rows: int, length: int, seed: int) -> Array:
    shape = [3] * case.rank
    shape[case.rows_axis], shape[case.length_axis] = rows, length
    found = np.random.default_rng(seed).integers(0, 99, shape)
    return found.astype(str).astype(object) if case.datatype is Datatype.BYTES else found.astype(case.datatype.dtype)


def model(case: Case, x: Array) -> Array:
    """Every `step`-th entry along the length, of whole steps only."""
    count = x.shape[case.length_axis] // case.step
    return np.take(x, [place * case.step for place in range(count)], case.length_axis)


def signature(case: Case) -> Signature:
    shape = tuple(-1 if axis in (case.rows_axis, case.length_axis) else 3 for axis in range(case.rank))
    x, y = (
        TensorSpec(name=name, datatype=case.datatype, shape=shape, batch_axis=case.rows_axis) for name in ("x", "y")
    )
    padding = Padding(
        lengths=(Length(name="T", buckets=(16,)),),
        inputs={"x": PaddedInput(axis=case.length_axis, length=0, value=case.value)},
        outputs={"y": (Follows(axis=case.length_axis, length=0, step=case.step),)},
        to_bucket=case.to_bucket,
    )
    return Signature(inputs=(x,), outputs=(y,), batched=True, padding=padding)


@settings(deadline=None)
@given(cases())
def test_each_request_gets_back_what_it_would_have_got_alone(case: Case) -> None:
    made = signature(case)
    collator = PaddingCollator(made, BatchLimits(sizes=case.sizes))
    items = []
    for seed, (rows, length) in enumerate(case.requests):
        x = values(case, rows, length, seed)
        key = made.key({"x": x}, None)
        items.append(WorkItem(inputs={"x": x}, rows=rows, key=key, outputs=None, deadline_ns=0, reply=lambda _: None))
    assert len({item.key for item in items}) == 1

    x = collator.join(items)["x"]
    rows, longest = sum(item.rows for item in items), max(length for _, length in case.requests)
    assert x.dtype == case.datatype.dtype
    assert x.shape[case.length_axis] == (16 if case.to_bucket else longest)
    assert x.shape[case.rows_axis] == next((size for size in case.sizes if size >= rows), rows)
    results = collator.part({"y": model(case, x)}, items)
    for item, result in zip(items, results, strict=True):
        np.testing.assert_array_equal(result["y"], model(case, item.inputs["x"]))

    computed, padding = collator.positions(items)
    assert computed - padding == sum(rows * length for rows, length in case.requests)
    assert computed == x.shape[case.length_axis] * x.shape[case.rows_axis]


@settings(deadline=None)
@given(cases())
def test_what_is_added_is_the_pad_value_and_copies_of_the_last_row(case: Case) -> None:
    made = signature(case)
    collator = PaddingCollator(made, BatchLimits(sizes=case.sizes))
    inputs = [{"x": values(case, rows, length, seed)} for seed, (rows, length) in enumerate(case.requests)]
    items = [
        WorkItem(inputs=one, rows=rows, key=None, outputs=None, deadline_ns=0, reply=lambda _: None)
        for one, (rows, _) in zip(inputs, case.requests, strict=True)
    ]
    x = np.moveaxis(collator.join(items)["x"], (case.rows_axis, case.length_axis), (0, 1))
    start = 0
    for rows, length in case.requests:
        assert (x[start : start + rows, length:] == element(case.value, case.datatype)).all()
        start += rows
    assert (x[start:] == x[start - 1]).all()
