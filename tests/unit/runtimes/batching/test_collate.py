"""Rows in are rows out, each to its own item, whatever the axis and the datatype."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.batching.collate import Collator
from runtimes.batching.item import WorkItem
from runtimes.errors import ModelFailed
from runtimes.signature import Signature, TensorSpec
from runtimes.tensor import Array, Datatype, Tensors


def spec(name: str, axis: int | None, dims: int = 2, datatype: Datatype = Datatype.FP32) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=(-1,) * dims, batch_axis=axis)


def collator(inputs: list[TensorSpec], outputs: list[TensorSpec]) -> Collator:
    return Collator(Signature(inputs=tuple(inputs), outputs=tuple(outputs), batched=True))


def item(inputs: Tensors, rows: int) -> WorkItem:
    return WorkItem(inputs=inputs, rows=rows, key=None, outputs=None, deadline_ns=0, reply=lambda _: None)


def column(*values: float) -> Array:
    return np.array(values, dtype=np.float32)[:, None]


def test_items_are_joined_in_order() -> None:
    joined = collator([spec("x", 0)], []).join([item({"x": column(1, 2)}, 2), item({"x": column(3)}, 1)])
    assert joined["x"].tolist() == [[1], [2], [3]]


def test_an_item_alone_is_not_copied() -> None:
    x = column(1, 2)
    joined = collator([spec("x", 0)], []).join([item({"x": x}, 2)])
    assert joined["x"] is x


def test_each_input_is_joined_along_its_own_axis() -> None:
    both = collator([spec("x", 0), spec("state", 1)], [])
    joined = both.join(
        [
            item({"x": np.zeros((1, 3)), "state": np.ones((2, 1))}, 1),
            item({"x": np.zeros((2, 3)), "state": np.full((2, 2), 5)}, 2),
        ]
    )
    assert joined["x"].shape == (3, 3)
    assert joined["state"].tolist() == [[1, 5, 5], [1, 5, 5]]


def test_an_input_without_a_batch_axis_is_the_first_items() -> None:
    rate = np.array(16000)
    joined = collator([spec("x", 0), spec("rate", None, dims=0)], []).join(
        [item({"x": column(1), "rate": rate}, 1), item({"x": column(2), "rate": np.array(16000)}, 1)]
    )
    assert joined["rate"] is rate


def test_strings_and_maps_are_shared_out_like_numbers() -> None:
    outputs = collator([], [spec("label", 0, dims=1, datatype=Datatype.BYTES), spec("maps", 0, dims=1)])
    labels = np.array(["a", "b", "c"], dtype=object)
    maps = np.array([{"a": 1.0}, {"b": 1.0}, {"c": 1.0}], dtype=object)
    first, second = outputs.part({"label": labels, "maps": maps}, [item({}, 1), item({}, 2)])
    assert first["label"].tolist() == ["a"]
    assert second["label"].tolist() == ["b", "c"]
    assert second["maps"].tolist() == [{"b": 1.0}, {"c": 1.0}]


def test_results_are_views_of_the_batchs_output() -> None:
    y = column(1, 2, 3)
    parts = collator([], [spec("y", 0)]).part({"y": y}, [item({}, 1), item({}, 2)])
    assert all(np.shares_memory(part["y"], y) for part in parts)


@pytest.mark.parametrize("shape", [(2, 1), (4, 1), (), (1, 3)])
def test_an_output_without_the_batchs_rows_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelFailed, match=r"output 'y' has shape .* for a batch of 3 rows; 3 are expected"):
        collator([], [spec("y", 0)]).part({"y": np.zeros(shape)}, [item({}, 1), item({}, 2)])


def test_an_output_without_a_batch_axis_is_not_shared_out() -> None:
    with pytest.raises(ModelFailed, match="'y' has no batch axis"):
        collator([], [spec("y", None)]).part({"y": np.zeros((3, 1))}, [item({}, 1), item({}, 2)])


def test_an_item_alone_gets_whatever_the_model_returns() -> None:
    y = np.zeros((7, 7))
    assert collator([], [spec("y", 0)]).part({"y": y}, [item({}, 2)])[0]["y"] is y


def test_what_is_no_dict_is_refused() -> None:
    with pytest.raises(ModelFailed, match="returned NoneType; a dict of arrays is expected"):
        collator([], []).part(None, [item({}, 1)])  # type: ignore[arg-type]


def test_a_request_is_cut_along_each_inputs_axis() -> None:
    both = collator([spec("x", 0), spec("state", 1), spec("rate", None, dims=0)], [])
    inputs = {"x": column(1, 2, 3), "state": np.arange(6).reshape(2, 3), "rate": np.array(5)}
    cut = both.cut(inputs, 1, 3)
    assert cut["x"].tolist() == [[2], [3]]
    assert cut["state"].tolist() == [[1, 2], [4, 5]]
    assert cut["rate"].shape == ()


def test_parts_are_assembled_in_order() -> None:
    outputs = collator([], [spec("y", 1)])
    results = outputs.assemble([{"y": np.zeros((2, 3))}, {"y": np.ones((2, 1))}], [3, 1])
    assert results["y"].tolist() == [[0, 0, 0, 1], [0, 0, 0, 1]]


def test_parts_with_the_wrong_rows_are_not_assembled() -> None:
    with pytest.raises(ModelFailed, match="2 rows"):
        collator([], [spec("y", 0)]).assemble([{"y": column(1)}, {"y": column(1)}], [1, 2])


@given(rows=st.lists(st.integers(0, 4), min_size=1, max_size=6), axis=st.integers(0, 2))
def test_what_was_joined_is_parted_again(rows: list[int], axis: int) -> None:
    same = collator([spec("x", axis, dims=3)], [spec("x", axis, dims=3)])
    arrays = []
    for number, size in enumerate(rows):
        shape = [2, 2, 2]
        shape[axis] = size
        arrays.append(np.arange(size * 4).reshape(shape) + 1000 * number)
    items = [item({"x": array}, size) for array, size in zip(arrays, rows, strict=True)]
    parts = same.part(dict(same.join(items)), items)
    assert [part["x"].tolist() for part in parts] == [array.tolist() for array in arrays]
