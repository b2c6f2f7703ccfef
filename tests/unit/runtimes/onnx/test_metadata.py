"""From onnxruntime's words to a signature."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from runtimes.errors import LoadFailed
from runtimes.onnx.metadata import signature_of
from runtimes.signature import TensorSpec
from runtimes.tensor import Datatype


@dataclass(frozen=True)
class Arg:
    name: str
    shape: Sequence[int | str | None] = ()
    type: str = "tensor(float)"


def inputs_of(*args: Arg, **axes: int) -> tuple[TensorSpec, ...]:
    return signature_of(args, (), axes).inputs


def axes_of(*args: Arg) -> list[int | None]:
    return [spec.batch_axis for spec in inputs_of(*args)]


@pytest.mark.parametrize("datatype", list(Datatype))
def test_every_datatype_is_known_by_onnxruntimes_name(datatype: Datatype) -> None:
    signature = signature_of(
        [Arg("x", ["N"], f"tensor({datatype.onnx})")], [Arg("y", [2], f"tensor({datatype.onnx})")]
    )
    assert signature.inputs[0].datatype is datatype
    assert signature.outputs[0].datatype is datatype
    assert not signature.batched


def test_free_dimensions_are_minus_one_and_keep_their_names() -> None:
    (spec,) = inputs_of(Arg("x", ["N", None, 3, "?", "", -1]))
    assert spec.shape == (-1, -1, 3, -1, -1, -1)
    assert spec.symbols == ("N", None, None, None, None, None)


def test_outputs_have_no_axis_before_the_proof() -> None:
    assert signature_of([], [Arg("y", ["N", 2])]).outputs[0].batch_axis is None


def test_the_name_of_the_first_leading_dimension_marks_the_rows_everywhere() -> None:
    assert axes_of(Arg("x", ["N", 4]), Arg("state", [2, "N", 128]), Arg("time", ["T", "N"])) == [0, 1, 1]


def test_without_names_the_first_axis_or_the_only_free_one_is_taken() -> None:
    assert axes_of(Arg("x", [None, None]), Arg("state", [2, None, 128]), Arg("sr", [])) == [0, 1, None]


def test_two_free_dimensions_behind_a_fixed_one_tell_nothing() -> None:
    assert axes_of(Arg("x", [3, None, None])) == [None]


def test_other_names_fall_back_to_the_first_axis() -> None:
    assert axes_of(Arg("x", ["N", 4]), Arg("mask", ["M", 4])) == [0, 0]


def test_settings_win_over_guesses() -> None:
    x, state = inputs_of(Arg("x", ["N", "T"]), Arg("state", [2, None, "H"]), x=1, state=1)
    assert (x.batch_axis, state.batch_axis) == (1, 1)


def test_an_axis_for_an_unknown_input_is_refused() -> None:
    with pytest.raises(LoadFailed, match=r"input 'z'; the model's inputs are \['x'\]"):
        inputs_of(Arg("x", ["N"]), z=0)


@pytest.mark.parametrize("axis", [-1, 1, 2])
def test_an_axis_that_is_not_there_or_not_free_is_refused(axis: int) -> None:
    with pytest.raises(LoadFailed, match=rf"batch axis {axis} .* its free axes are \[0\]"):
        inputs_of(Arg("x", ["N", 4]), x=axis)


@pytest.mark.parametrize("kind", ["seq(map(int64,tensor(float)))", "map(string,tensor(float))"])
def test_maps_become_one_bytes_output_of_dicts(kind: str) -> None:
    (spec,) = signature_of([], [Arg("p", [], kind)]).outputs
    assert (spec.maps, spec.datatype, spec.shape) == (True, Datatype.BYTES, (-1,))


@pytest.mark.parametrize("kind", ["seq(tensor(float))", "optional(tensor(float))", "tensor(complex64)"])
def test_other_outputs_are_refused_by_name_and_type(kind: str) -> None:
    with pytest.raises(LoadFailed) as caught:
        signature_of([], [Arg("boxes", [], kind)])
    assert str(caught.value).startswith(f"the model's output 'boxes' has type {kind}, which is not supported; ")


def test_an_input_must_be_a_tensor() -> None:
    with pytest.raises(LoadFailed, match=r"input 'm' has type map\(int64,tensor\(float\)\).*; tensors of bool"):
        inputs_of(Arg("m", [], "map(int64,tensor(float))"))
