"""Items of different lengths become one batch of one shape, and each gets back exactly what is its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from runtimes.batching.buckets import PaddingCollator, collator_for, within
from runtimes.batching.collate import Collator
from runtimes.batching.item import WorkItem
from runtimes.errors import ModelFailed
from runtimes.padding.lengths import Follows, Length, PaddedInput, Padding
from runtimes.signature import Signature, TensorSpec
from runtimes.spec import BatchLimits
from runtimes.tensor import Array, Datatype

SEQUENCE = Signature(
    inputs=(
        TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, -1), batch_axis=0),
        TensorSpec(name="rate", datatype=Datatype.INT64, shape=(), batch_axis=None),
    ),
    outputs=(TensorSpec(name="y", datatype=Datatype.FP32, shape=(-1, -1), batch_axis=0),),
    batched=True,
    padding=Padding(
        lengths=(Length(name="T", multiple_of=4, longest=12),),
        inputs={"x": PaddedInput(axis=1, length=0, value=-1)},
        outputs={"y": (Follows(axis=1, length=0),)},
    ),
)
UNPADDED = replace(SEQUENCE, padding=None)
RATE = np.array(8)


def item(*rows: list[float], signature: Signature = SEQUENCE) -> WorkItem:
    x = np.array(rows, np.float32) if rows else np.zeros((0, 0), np.float32)
    inputs = {"x": x, "rate": RATE}
    key = signature.key(inputs, None)
    return WorkItem(inputs=inputs, rows=len(rows), key=key, outputs=None, deadline_ns=0, reply=lambda _: None)


def collator(limits: BatchLimits | None = None, *, to_bucket: bool = False) -> PaddingCollator:
    assert SEQUENCE.padding is not None
    padding = replace(SEQUENCE.padding, to_bucket=to_bucket)
    return PaddingCollator(replace(SEQUENCE, padding=padding), limits or BatchLimits())


def x_of(collator: PaddingCollator, *items: WorkItem) -> list[list[float]]:
    joined = collator.join(items)
    assert joined["rate"] is RATE
    rows: list[list[float]] = joined["x"].tolist()
    return rows


def test_only_a_model_with_padding_or_sizes_gets_the_padding_collator() -> None:
    assert type(collator_for(UNPADDED, BatchLimits())) is Collator
    assert type(collator_for(SEQUENCE, BatchLimits())) is PaddingCollator
    assert type(collator_for(UNPADDED, BatchLimits(sizes=(4,)))) is PaddingCollator
    assert type(collator_for(UNPADDED.unbatched(), BatchLimits(sizes=(4,)))) is Collator
    assert SEQUENCE.unbatched().padding is None


def test_requests_of_one_bucket_have_one_key() -> None:
    assert item([1]).key == item([1, 2, 3, 4]).key
    assert item([1] * 4).key != item([1] * 5).key
    assert item([1] * 13).key != item([1] * 14).key
    assert SEQUENCE.buckets_in(item([1] * 5).key) == (8,)
    assert SEQUENCE.buckets_in(None) == UNPADDED.buckets_in(item([1]).key) == ()


def test_a_batch_is_as_long_as_its_longest_request() -> None:
    assert x_of(collator(), item([1]), item([2, 2, 2], [3, 3, 3])) == [[1, -1, -1], [2, 2, 2], [3, 3, 3]]


def test_a_batch_is_as_long_as_its_bucket_where_shapes_are_to_be_few() -> None:
    assert x_of(collator(to_bucket=True), item([1]), item([2, 2])) == [[1, -1, -1, -1], [2, 2, -1, -1]]
    assert x_of(collator(to_bucket=True), item([1])) == [[1, -1, -1, -1]]
    long = item([1] * 13)
    assert collator(to_bucket=True).join([long]) is long.inputs


def test_rows_are_filled_up_to_an_allowed_size_with_the_last_one() -> None:
    sizes = BatchLimits(sizes=(2, 4))
    assert x_of(collator(sizes), item([1, 1], [2, 2]), item([3])) == [[1, 1], [2, 2], [3, -1], [3, -1]]
    two = item([1], [2])
    assert collator(sizes).join([two]) is two.inputs
    assert collator(sizes).join([item()])["x"].shape == (0, 0)


def test_outputs_are_cut_to_rows_and_lengths() -> None:
    items = [item([1]), item([2, 2, 2])]
    outputs: dict[str, Array] = {"y": np.arange(12, dtype=np.float32).reshape(4, 3)}
    first, second = collator(BatchLimits(sizes=(4,))).part(outputs, items)
    assert first["y"].tolist() == [[0]]
    assert second["y"].tolist() == [[3, 4, 5]]


def test_outputs_of_equal_lengths_are_only_parted() -> None:
    outputs: dict[str, Array] = {"y": np.arange(6, dtype=np.float32).reshape(2, 3)}
    first, _ = collator().part(outputs, [item([1, 2, 3]), item([4, 5, 6])])
    assert first["y"].tolist() == [[0, 1, 2]]
    alone = collator().part(outputs, [item([1, 2, 3], [4, 5, 6])])
    assert alone[0]["y"] is outputs["y"]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"y": np.zeros((2, 4), np.float32)}, "shape .2, 4. in a padded run; 3 entries are expected along axis 1"),
        ({"y": np.zeros(2, np.float32)}, "3 entries are expected along axis 1"),
        ({"y": np.zeros((3, 3), np.float32)}, "for a batch of 2 rows"),
        ([np.zeros((2, 3))], "the model returned list"),
    ],
)
def test_an_output_that_is_not_as_long_as_was_proven_is_nobodys(outputs: dict[str, Array], message: str) -> None:
    with pytest.raises(ModelFailed, match=message):
        collator().part(outputs, [item([1]), item([2, 2, 2])])


def test_what_was_computed_for_nothing_is_counted() -> None:
    items = [item([1]), item([2, 2, 2], [3, 3, 3])]
    assert collator().positions(items) == (9, 2)
    assert collator(to_bucket=True).positions(items) == (12, 5)
    assert collator(BatchLimits(sizes=(4,))).positions(items) == (12, 5)
    rows_only = PaddingCollator(UNPADDED, BatchLimits(sizes=(4,)))
    assert rows_only.positions([item([1, 2, 3, 4, 5])]) == (4, 3)


def test_a_token_budget_bounds_the_rows_of_each_bucket() -> None:
    bounded = collator(BatchLimits(tokens_max=20, batch_rows_max=6))
    assert [bounded.rows_max(item([1] * length).key) for length in (1, 4, 5, 9, 30)] == [5, 5, 2, 1, 1]
    assert bounded.rows_max(item().key) == 6
    sized = collator(BatchLimits(tokens_max=20, batch_rows_max=6, sizes=(1, 4)))
    assert [sized.rows_max(item([1] * length).key) for length in (1, 5, 30)] == [4, 1, 1]
    eights = collator(BatchLimits(tokens_max=20, sizes=(8,)))
    assert eights.rows_max(item([1] * 8).key) == 8
    assert collator(BatchLimits(batch_rows_max=6)).rows_max(item([1]).key) == 6


def test_batches_are_never_larger_than_the_largest_allowed_size() -> None:
    assert within(BatchLimits(batch_rows_max=20, sizes=(32, 16, 8))).batch_rows_max == 16
    assert within(BatchLimits(batch_rows_max=4, sizes=(32, 16))).batch_rows_max == 16
    assert within(BatchLimits(batch_rows_max=20)).batch_rows_max == 20
