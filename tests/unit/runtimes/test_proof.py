"""The batching proof, against models that are Python functions."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from runtimes.errors import ModelFailed
from runtimes.proof import Proof, no_batch_axis, prove, same
from runtimes.samples import Recipe, Samples, draw
from runtimes.signature import Signature, TensorSpec
from runtimes.tensor import Array, Datatype, Tensors

Function = Callable[[Array], Array]


class Model:
    """One input "x" [N, 4], one output "y": whatever the function makes of it."""

    provider = "fake"

    def __init__(self, function: Function, datatype: Datatype = Datatype.FP32, maps: bool = False) -> None:
        self.function = function
        x = TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 4), symbols=("N", None), batch_axis=0)
        y = TensorSpec(name="y", datatype=datatype, shape=(-1,), maps=maps)
        self.signature = Signature(inputs=(x,), outputs=(y,))
        self.runs = 0

    def run(self, inputs: Tensors, outputs: tuple[str, ...] | None) -> dict[str, Array]:
        self.runs += 1
        return {"y": self.function(inputs["x"])}

    def close(self) -> None: ...


def proof_of(model: Model, samples: Samples | None = None, now: Callable[[], int] = lambda: 0) -> Proof:
    rows = samples or draw(model.signature, Recipe(shapes={"x": (1, 4)}))
    return prove(model, model.signature, rows, deadline_ns=1000, now=now)


def reason_against(function: Function, datatype: Datatype = Datatype.FP32) -> str:
    proof = proof_of(Model(function, datatype))
    assert not proof.batched
    assert (proof.input_axes, proof.output_axes) == ({}, {})
    return proof.reason


def test_rows_that_do_not_touch_each_other_may_share_a_run() -> None:
    proof = proof_of(Model(lambda x: x.sum(axis=1)))
    assert proof == Proof(
        batched=True,
        reason="each of 8 sample rows got the same answer alone and beside other rows",
        input_axes={"x": 0},
        output_axes={"y": 0},
    )


def test_the_axis_of_an_output_is_found_wherever_it_is() -> None:
    assert proof_of(Model(lambda x: np.stack([x.T, x.T]))).output_axes == {"y": 2}


@pytest.mark.parametrize("function", [lambda x: x - x.mean(axis=0), lambda x: x / np.abs(x).max()])
def test_an_answer_that_depends_on_batch_mates_is_found_out(function: Function) -> None:
    assert reason_against(function) == "output 'y' of a row changes with the other rows of its batch"


def test_a_row_that_only_an_extreme_mate_disturbs_is_found_out() -> None:
    assert "changes with the other rows" in reason_against(lambda x: x if np.abs(x).max() < 500 else x * 2)


def test_a_row_that_only_a_nan_disturbs_is_found_out() -> None:
    assert "changes with the other rows" in reason_against(lambda x: np.nan_to_num(x) if np.isnan(x).any() else x + 1)


def test_an_answer_that_depends_on_the_place_is_found_out() -> None:
    assert "changes with the other rows" in reason_against(lambda x: x + np.arange(len(x))[:, None])


def test_only_a_larger_batch_may_show_it() -> None:
    assert "changes with the other rows" in reason_against(lambda x: x if len(x) < 8 else x + 1)


def test_outputs_with_fewer_or_more_rows_are_named_with_their_shape() -> None:
    assert reason_against(lambda x: x.sum(axis=0)) == (
        "output 'y' has shape [4] for 2 rows of input, not one entry a row"
    )
    assert "shape [4, 4] for 2 rows" in reason_against(lambda x: np.concatenate([x, x]))
    assert "shape [] for 2 rows" in reason_against(lambda x: np.asarray(x.sum()))


def test_rows_that_are_dropped_now_and_then_are_noticed() -> None:
    assert "not one entry a row" in reason_against(lambda x: x[~np.isnan(x[:, 0])])
    assert "not one entry a row" in reason_against(lambda x: x if len(x) < 5 else x.sum())


def test_noise_is_told_from_batching() -> None:
    noise: Iterator[int] = itertools.count()
    assert reason_against(lambda x: x + next(noise)) == "output 'y' of the same row differs from run to run"


def test_a_model_that_takes_one_row_only_is_not_batched() -> None:
    def one_row(x: Array) -> Array:
        if len(x) > 1:
            raise ModelFailed("one row, please")
        return x

    assert reason_against(one_row) == ("a run of 2 rows fails where each row alone is answered: one row, please")


def test_a_mate_that_breaks_the_run_is_no_argument_against_batching() -> None:
    def no_extremes(x: Array) -> Array:
        if not np.all(np.abs(x) < 100):
            raise ModelFailed("too much")
        return x

    assert proof_of(Model(no_extremes)).batched


def test_a_sample_that_fails_is_the_reason() -> None:
    def fails(x: Array) -> Array:
        raise ModelFailed("never")

    assert reason_against(fails) == "a sample of one row failed: never"


def test_rounding_is_forgiven_and_no_more() -> None:
    assert proof_of(Model(lambda x: x * np.float32(1 + 1e-6 * len(x)))).batched
    assert not proof_of(Model(lambda x: x * np.float32(1 + 1e-2 * len(x)))).batched


def test_classes_must_be_the_same_exactly() -> None:
    assert proof_of(Model(lambda x: (x[:, 0] > 0).astype(np.int64), Datatype.INT64)).batched
    assert "changes" in reason_against(lambda x: np.full(len(x), len(x)), Datatype.INT64)


def test_maps_are_compared_by_key_and_value() -> None:
    def maps(x: Array) -> Array:
        return np.array([{"a": float(row[0]), "b": float(row[1])} for row in x], dtype=np.object_)

    def mixed(x: Array) -> Array:
        return np.array([{"a": float(row[0] - x.mean())} for row in x], dtype=np.object_)

    assert proof_of(Model(maps, Datatype.BYTES, maps=True)).batched
    assert not proof_of(Model(mixed, Datatype.BYTES, maps=True)).batched


def test_one_given_sample_is_enough_for_a_proof() -> None:
    given = Samples(rows=({"x": np.ones((1, 4), np.float32)},))
    assert proof_of(Model(lambda x: x), given).batched
    assert not proof_of(Model(lambda x: x / len(x)), given).batched


def test_a_model_too_slow_for_any_proof_is_not_batched() -> None:
    clock = itertools.count(0, 300)
    proof = proof_of(Model(lambda x: x), now=lambda: next(clock))
    assert proof.reason == "the model is too slow for a proof within the time that loading allows"


def test_a_slow_model_is_proven_with_fewer_rows() -> None:
    clock = itertools.count(0, 50)
    model = Model(lambda x: x)
    proof = proof_of(model, now=lambda: next(clock))
    assert proof.batched
    assert "each of 3 sample rows" in proof.reason


def test_without_a_free_dimension_nothing_is_run() -> None:
    model = Model(lambda x: x)
    fixed = TensorSpec(name="x", datatype=Datatype.FP32, shape=(1, 4))
    model.signature = Signature(inputs=(fixed,), outputs=())
    proof = proof_of(model, Samples(rows=({},)))
    assert proof.reason.endswith("the inputs are 'x' (FP32 [1, 4])")
    assert model.runs == 0
    assert str(no_batch_axis(Signature(inputs=(), outputs=()))).endswith("the inputs are none")


def test_a_second_axis_that_grows_with_the_rows_rules_batching_out() -> None:
    square = TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, -1), symbols=("N", "N"), batch_axis=0)
    reason = no_batch_axis(Signature(inputs=(square,), outputs=()))
    assert reason == "axis 1 of input 'x' must be as long as there are rows ('N')"


def test_nan_and_infinity_equal_themselves_only() -> None:
    odd = np.array([np.nan, np.inf, -np.inf, 1.0], np.float32)
    assert same(odd, odd.copy(), Datatype.FP32)
    assert not same(odd, odd[::-1].copy(), Datatype.FP32)
    assert not same(odd[3:], odd[:1], Datatype.FP32)
    assert not same(odd, odd[:3], Datatype.FP32)


@pytest.mark.parametrize(
    ("datatype", "near", "far"),
    [(Datatype.FP64, 1e-10, 1e-6), (Datatype.FP32, 1e-5, 1e-3), (Datatype.FP16, 2e-3, 0.1)],
)
def test_each_float_has_its_own_tolerance(datatype: Datatype, near: float, far: float) -> None:
    values = np.array([1.0, -100.0, 1e-3], datatype.dtype)
    assert same(values, (values * (1 + near)).astype(datatype.dtype), datatype)
    assert not same(values, (values * (1 + far)).astype(datatype.dtype), datatype)


def test_bf16_is_compared_by_value_not_by_bits() -> None:
    one, near, two = np.array([[0x3F80], [0x3F81], [0x4000]], np.uint16)
    assert same(one, near, Datatype.BF16)
    assert not same(one, two, Datatype.BF16)


def test_strings_and_maps_are_compared_by_element() -> None:
    def objects(*values: object) -> Array:
        array = np.empty(len(values), np.object_)
        array[:] = values
        return array

    assert same(objects("a", "é"), objects("a", "é"), Datatype.BYTES)
    assert not same(objects("a"), objects("b"), Datatype.BYTES)
    assert not same(objects({"a": 1.0}), objects({"b": 1.0}), Datatype.BYTES)
    assert not same(objects({"a": 1.0}), objects("a"), Datatype.BYTES)
    assert same(objects({1: "x"}), objects({1: "x"}), Datatype.BYTES)
    assert not same(objects({1: 2}), objects({1: 3}), Datatype.BYTES)
