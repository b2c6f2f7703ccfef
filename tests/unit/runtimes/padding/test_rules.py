"""Declared and inferred rules: what they come to, and what does not fit the model."""

from __future__ import annotations

import pytest

from runtimes.errors import LoadFailed
from runtimes.padding.lengths import Length, PaddedInput
from runtimes.padding.rules import LONGEST, Unpaddable, mask_of, masks, resolve
from runtimes.signature import Mask, Signature, TensorSpec
from runtimes.spec import PaddingSpec, PadRule
from runtimes.tensor import Datatype

AUTO = PaddingSpec()


def text(name: str, *symbols: str | None, axis: int | None = 0, datatype: Datatype = Datatype.INT64) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=(-1,) * len(symbols), symbols=symbols, batch_axis=axis)


def signature(*inputs: TensorSpec) -> Signature:
    return Signature(inputs=inputs, outputs=(), batched=True)


BERT = signature(text("input_ids", "N", "T"), text("attention_mask", "N", "T"))
UNNAMED = signature(text("a", None, None), text("b", None, None))


def declared(**rules: PadRule) -> PaddingSpec:
    return PaddingSpec(inputs=rules)


def test_inputs_with_one_name_of_a_dimension_share_a_length() -> None:
    padding = resolve(BERT, AUTO, to_bucket=False)
    assert padding.lengths == (Length(name="T", longest=LONGEST),)
    assert padding.inputs == {name: PaddedInput(axis=1, length=0) for name in ("input_ids", "attention_mask")}
    assert masks(AUTO, padding) == {"attention_mask"}
    assert mask_of(BERT, AUTO) is None


def test_two_names_are_two_lengths() -> None:
    both = signature(text("source", "N", "S"), text("target", "N", "T"))
    padding = resolve(both, AUTO, to_bucket=False)
    assert [length.name for length in padding.lengths] == ["S", "T"]
    assert [one.length for one in padding.inputs.values()] == [0, 1]


def test_the_only_free_dimension_of_a_model_needs_no_name() -> None:
    padding = resolve(signature(text("x", None, None)), AUTO, to_bucket=True)
    assert padding.lengths[0].name == "length"
    assert padding.to_bucket


@pytest.mark.parametrize(("pad_to", "expected"), [("bucket", True), ("longest", False), ("auto", True)])
def test_how_long_a_run_is_may_be_pinned(pad_to: str, expected: bool) -> None:
    spec = PaddingSpec(pad_to=pad_to)  # type: ignore[arg-type]
    assert resolve(BERT, spec, to_bucket=True).to_bucket is expected


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (UNNAMED, "no input has a free dimension beside its rows that the model names"),
        (signature(text("x", "N", "H", "W")), "input 'x' has several free dimensions"),
        (signature(text("x", "N")), "no input has a free dimension"),
        (
            signature(text("x", "N", "T"), text("places", "T", axis=None)),
            "axis 0 of input 'places' must be as long as 'T'",
        ),
    ],
)
def test_what_cannot_be_inferred_says_why(model: Signature, reason: str) -> None:
    with pytest.raises(Unpaddable, match=reason):
        resolve(model, AUTO, to_bucket=False)


def test_declared_rules_are_taken_as_they_are() -> None:
    spec = declared(a=PadRule(axis=1, value=7, buckets=(16, 32)), b=PadRule(axis=1))
    padding = resolve(UNNAMED, spec, to_bucket=False)
    assert padding.lengths == (Length(name="length", buckets=(16, 32), longest=32),)
    assert padding.inputs["a"] == PaddedInput(axis=1, length=0, value=7)
    spec = declared(a=PadRule(axis=1, multiple_of=16, length="left"), b=PadRule(axis=1, length="right"))
    left, right = resolve(UNNAMED, spec, to_bucket=False).lengths
    assert (left.name, left.multiple_of, right.name, right.multiple_of) == ("left", 16, "right", 0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (declared(c=PadRule(axis=1)), r"padding is set for input 'c'; the model's inputs are \['a', 'b'\]"),
        (declared(a=PadRule(axis=0)), r"padding is set along axis 0 of input 'a', .* free axes beside the rows are"),
        (declared(a=PadRule(axis=5)), "padding is set along axis 5"),
        (
            declared(a=PadRule(axis=1, multiple_of=16), b=PadRule(axis=1, buckets=(8,))),
            "inputs that share the length 'length' are padded in different ways",
        ),
    ],
)
def test_declared_rules_that_do_not_fit_the_model_fail_the_load(spec: PaddingSpec, message: str) -> None:
    with pytest.raises(LoadFailed, match=message):
        resolve(UNNAMED, spec, to_bucket=False)


def test_an_input_without_rows_cannot_be_padded() -> None:
    with pytest.raises(Unpaddable, match="input 'x' has no batch axis"):
        resolve(signature(text("x", "T", axis=None)), declared(x=PadRule(axis=0)), to_bucket=False)


def test_a_declared_mask_is_made_like_the_input_beside_it() -> None:
    wide = TensorSpec(name="mask", datatype=Datatype.FP32, shape=(-1, 1, -1), symbols=("N", None, "T"), batch_axis=0)
    model = signature(text("ids", "T", "N", axis=1), wide)
    spec = PaddingSpec(inputs={"ids": PadRule(axis=0), "mask": PadRule(axis=2)}, mask="mask")
    assert mask_of(model, spec) == Mask(name="mask", like="ids", axes=(1, None, 0))
    assert masks(spec, resolve(model, spec, to_bucket=False)) == {"mask"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (PaddingSpec(inputs={"a": PadRule(axis=1)}, mask="b"), "mask 'b' is no padded input"),
        (PaddingSpec(inputs={"a": PadRule(axis=1)}, mask="a"), "mask 'a' is no padded input; a mask and the input"),
        (PaddingSpec(inputs={"c": PadRule(axis=1), "a": PadRule(axis=1)}, mask="a"), "padding is set for input 'c'"),
    ],
)
def test_a_mask_that_fits_nothing_fails_the_load(spec: PaddingSpec, message: str) -> None:
    with pytest.raises(LoadFailed, match=message):
        mask_of(UNNAMED, spec)
