"""A declared signature against the model's own: what agrees, what is narrowed, and what callers see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtimes.declared import Views, narrowed
from runtimes.errors import InvalidInput, LoadFailed, ModelFailed
from runtimes.signature import Signature, TensorSpec
from runtimes.spec import Declared, DeclaredTensor
from runtimes.tensor import Datatype

SOURCE = "config.pbtxt of model 'net'"
X = TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, -1, 3), symbols=("N", "L", None), batch_axis=0)
Y = TensorSpec(name="y", datatype=Datatype.INT64, shape=(-1,), symbols=("N",))
UNTOLD = TensorSpec(name="z", datatype=Datatype.FP32, shape=())
MODEL = Signature(inputs=(X,), outputs=(Y, UNTOLD))


def tensor(name: str, datatype: str, *shape: int, inner: tuple[int, ...] | None = None) -> DeclaredTensor:
    return DeclaredTensor(name=name, datatype=datatype, shape=shape, inner=inner)


def declared(*inputs: DeclaredTensor, outputs: Any = (), rows_max: int = 0) -> Declared:
    return Declared(source=SOURCE, inputs=inputs, outputs=tuple(outputs), rows_max=rows_max)


def served(given: Declared, model: Signature = MODEL) -> Signature:
    return narrowed(model, given, {})[0]


def refusal(given: Declared, model: Signature = MODEL) -> str:
    with pytest.raises(LoadFailed) as caught:
        narrowed(model, given, {})
    return str(caught.value)


def test_nothing_declared_is_the_model_itself() -> None:
    found, views = narrowed(MODEL, declared(), {})
    assert found == MODEL
    assert not views


def test_sizes_that_the_model_leaves_free_are_the_declared_ones() -> None:
    (found,) = served(declared(tensor("x", "FP32", -1, 5, 3))).inputs
    assert (found.shape, found.symbols) == ((-1, 5, 3), ("N", None, None))
    with pytest.raises(InvalidInput, match=r"has shape \[1, 4, 3\]; the model takes FP32 \[-1, 5, 3\]"):
        Signature(inputs=(found,), outputs=()).check({"x": np.zeros((1, 4, 3), np.float32)})


def test_outputs_are_those_that_are_declared_in_that_order() -> None:
    both = served(declared(outputs=[tensor("z", "FP32", 1, 2), tensor("y", "INT64", -1)]))
    assert [one.name for one in both.outputs] == ["z", "y"]
    assert both.outputs[0] == UNTOLD
    assert served(declared(outputs=[tensor("y", "INT64", 7)])).outputs[0].shape == (7,)


def test_rows_are_counted_along_the_first_axis_and_bounded() -> None:
    second = TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, -1), symbols=("L", "N"), batch_axis=1)
    model = Signature(inputs=(second,), outputs=(Y,))
    assert served(declared(rows_max=4), model).inputs[0].batch_axis == 0
    assert narrowed(model, declared(rows_max=4), {"x": 1})[0].inputs[0].batch_axis == 1
    bounded = served(declared(rows_max=4))
    assert bounded.check({"x": np.zeros((4, 1, 3), np.float32)}) == 4
    with pytest.raises(InvalidInput, match="input 'x' has 5 rows; a request of this model has at most 4"):
        bounded.check({"x": np.zeros((5, 1, 3), np.float32)})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            declared(tensor("x", "INT32", -1, -1, 3)),
            f"{SOURCE} declares input 'x' as INT32 [-1, -1, 3]; the model's is FP32 [-1, -1, 3]",
        ),
        (
            declared(tensor("x", "FP32", -1, 4), rows_max=8),
            "as FP32 [-1, 4] (its first size is the batch's); the model's is FP32 [-1, -1, 3]",
        ),
        (declared(tensor("x", "FP32", -1, -1, 4)), "declares input 'x' as FP32 [-1, -1, 4]; the model's is"),
        (declared(tensor("x", "FP32", -1, 3, inner=(-1, 7))), "as FP32 [-1, 7], reshaped from [-1, 3]; the model's"),
        (declared(tensor("w", "FP32", 1)), f"{SOURCE} declares input 'w'; the model's inputs are 'x'"),
        (declared(outputs=[tensor("w", "FP32", 1)]), "declares output 'w'; the model's outputs are 'y', 'z'"),
        (declared(outputs=[tensor("y", "FP32", -1)]), "declares output 'y' as FP32 [-1]; the model's is INT64 [-1]"),
        (declared(outputs=[tensor("z", "FP64", -1)]), "declares output 'z' as FP64 [-1]; the model's is FP32 []"),
    ],
)
def test_a_mismatch_names_both_sides(given: Declared, said: str) -> None:
    assert said in refusal(given)


def test_an_input_that_is_left_out_is_named() -> None:
    two = Signature(inputs=(X, TensorSpec(name="w", datatype=Datatype.FP32, shape=(1,))), outputs=(Y,))
    assert refusal(declared(tensor("x", "FP32", -1, -1, 3)), two) == (
        f"{SOURCE} does not declare input 'w', which the model needs"
    )


def test_a_batch_needs_a_free_first_size_everywhere() -> None:
    fixed = Signature(inputs=(TensorSpec(name="x", datatype=Datatype.FP32, shape=(1, 3)),), outputs=(Y,))
    assert refusal(declared(rows_max=2), fixed) == (
        f"{SOURCE} has max_batch_size 2, for which the first size of input 'x' must be free; the model's is FP32 "
        "[1, 3]; a model that does not batch has max_batch_size 0"
    )
    told = Signature(inputs=(X,), outputs=(TensorSpec(name="y", datatype=Datatype.FP32, shape=(1,)),))
    assert "the first size of output 'y' must be free" in refusal(declared(rows_max=2), told)
    assert served(declared(rows_max=2)).rows_max == 2


def test_callers_see_other_shapes_than_the_model_has() -> None:
    row = TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1,), symbols=("N",), batch_axis=0)
    out = TensorSpec(name="y", datatype=Datatype.FP32, shape=(-1, -1, 4), symbols=("N", "L", None))
    given = declared(
        tensor("x", "FP32", -1, 1, inner=(-1,)),
        outputs=[tensor("y", "FP32", -1, 2, -1, 2, inner=(-1, -1, 4))],
        rows_max=8,
    )
    signature, views = narrowed(Signature(inputs=(row,), outputs=(out,)), given, {})
    assert (signature.inputs[0].shape, signature.outputs[0].shape) == ((-1, 1), (-1, 2, -1, 2))
    assert views.enter({"x": np.zeros((3, 1), np.float32)})["x"].shape == (3,)
    seen = views.leave({"y": np.zeros((3, 5, 4), np.float32), "other": np.zeros(2)})
    assert (seen["y"].shape, seen["other"].shape) == ((3, 2, 5, 2), (2,))


def test_an_answer_of_another_shape_is_the_models_failure() -> None:
    views = Views(outputs={"y": ((-1, 1), (-1,))})
    assert views.leave({"y": np.zeros(3)})["y"].shape == (3, 1)
    with pytest.raises(ModelFailed, match=r"output 'y' has shape \[3, 2\]; \[-1\] is declared"):
        views.leave({"y": np.zeros((3, 2))})


def test_a_scalar_is_declared_as_sizes_of_one() -> None:
    scalar = TensorSpec(name="sr", datatype=Datatype.INT64, shape=())
    model = Signature(inputs=(scalar,), outputs=(Y,))
    signature, views = narrowed(model, declared(tensor("sr", "INT64", 1)), {})
    assert signature.inputs[0].shape == (1,)
    assert views.enter({"sr": np.array([5])})["sr"].shape == ()
    assert "declares input 'sr' as INT64 [2]; the model's is INT64 []" in refusal(
        declared(tensor("sr", "INT64", 2)), model
    )
