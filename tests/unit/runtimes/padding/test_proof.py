"""Padding is used where no sample can tell, and nowhere else; the reason says what was found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from runtimes.errors import LoadFailed, ModelFailed
from runtimes.padding.lengths import Follows
from runtimes.padding.proof import PaddingProof, prove_padding
from runtimes.samples import Recipe
from runtimes.signature import Signature, TensorSpec
from runtimes.spec import PaddingSpec, PadRule
from runtimes.tensor import Array, Datatype, Tensors

Model = Callable[[Array], Array]

X = TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, -1), symbols=("N", "T"), batch_axis=0)
Y = TensorSpec(name="y", datatype=Datatype.FP32, shape=(-1, -1), symbols=("N", None), batch_axis=0)
SIGNATURE = Signature(inputs=(X,), outputs=(Y,), batched=True)
RECIPE = Recipe(shapes={"x": (1, 32)})


class FunctionSession:
    """A numpy function from x to y; it refuses what is longer than it takes."""

    provider = "function"

    def __init__(self, function: Model, signature: Signature = SIGNATURE, longest: int = 10_000) -> None:
        self.signature = signature
        self.runs = 0
        self._function = function
        self._longest = longest

    def run(self, inputs: Tensors, outputs: tuple[str, ...] | None) -> dict[str, Array]:
        self.runs += 1
        if inputs["x"].shape[1] > self._longest:
            raise ModelFailed("the position lies outside the table")
        return {"y": self._function(inputs["x"])}

    def close(self) -> None:
        """Holds nothing."""


def prove(
    function: Model,
    spec: PaddingSpec | None = None,
    *,
    longest: int = 10_000,
    to_bucket: bool = False,
    signature: Signature = SIGNATURE,
    now: Callable[[], int] = lambda: 0,
) -> PaddingProof:
    session = FunctionSession(function, signature, longest)
    return prove_padding(
        session, signature, RECIPE, spec or PaddingSpec(), to_bucket=to_bucket, deadline_ns=10, now=now
    )


def buckets(*sizes: int) -> PaddingSpec:
    return PaddingSpec(inputs={"x": PadRule(axis=1, buckets=sizes)})


@pytest.mark.parametrize("to_bucket", [True, False])
def test_a_model_that_treats_each_entry_alone_is_padded(to_bucket: bool) -> None:
    found = prove(np.tanh, to_bucket=to_bucket)
    assert found.padding is not None
    assert found.padding.outputs == {"y": (Follows(axis=1, length=0),)}
    assert found.padding.to_bucket is to_bucket
    assert "'T' from 1 to 512 is padded to" in found.reason
    assert "samples got the same answer alone and padded beside longer ones" in found.reason


def test_sums_are_safe_with_zeros_and_not_with_ones() -> None:
    def total(x: Array) -> Array:
        return np.asarray(x.sum(axis=1, keepdims=True))

    assert prove(total).padding is not None
    found = prove(total, PaddingSpec(inputs={"x": PadRule(axis=1, value=1)}))
    assert (found.padding, "output 'y' of a request changes when it is padded" in found.reason) == (None, True)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x.mean(axis=1, keepdims=True),
        lambda x: x - x.mean(axis=1, keepdims=True),
        lambda x: x[:, ::-1],
        lambda x: np.cumsum(x[:, ::-1], axis=1),
        lambda x: np.maximum(x.max(axis=1, keepdims=True), x),
        lambda x: x + 1e-2 * x[:, -1:],
    ],
    ids=["mean", "centred", "reversed", "backwards", "largest", "last"],
)
@pytest.mark.parametrize("spec", [PaddingSpec(), buckets(16, 64)], ids=["auto", "buckets"])
def test_a_model_that_looks_at_the_padding_is_not_padded(wrong: Model, spec: PaddingSpec) -> None:
    found = prove(wrong, spec)
    assert found.padding is None
    assert found.reason.startswith("lengths are not padded: ")
    assert "\n" not in found.reason


def test_only_the_largest_entry_counts_where_that_is_declared() -> None:
    def nudged(x: Array) -> Array:
        return np.stack([x, x + 1.0 + 0.01 * x.mean()], axis=-1).astype(np.float32)

    wide = replace(SIGNATURE, outputs=(replace(Y, shape=(-1, -1, 2), symbols=()),))
    assert prove(nudged, signature=wide).padding is None
    spec = PaddingSpec(compare="argmax")
    found = prove(nudged, spec, signature=wide)
    assert found.padding is not None
    assert "(1 different entry in all, so others are not proven)" in found.reason
    swapped = prove(lambda x: np.stack([x, x + x[:, -1:]], axis=-1), spec, signature=wide)
    assert "changes when it is padded (the largest entry)" in swapped.reason


def test_the_longest_that_a_model_takes_is_found() -> None:
    found = prove(np.tanh, longest=200)
    assert found.padding is not None
    assert found.padding.lengths[0].longest == 128


def test_a_declared_bucket_that_the_model_does_not_take_is_named() -> None:
    found = prove(np.tanh, buckets(16, 256), longest=200)
    assert (found.padding, found.reason) == (
        None,
        "lengths are not padded: the model does not run with bucket 256 of 'T'",
    )


def test_a_model_that_fails_only_in_padded_company_is_not_padded() -> None:
    def picky(x: Array) -> Array:
        if len(x) > 1 and x.shape[1] > 20:
            raise ModelFailed("too much at once")
        return np.tanh(x)

    assert "fail together and padded, not alone: too much at once" in prove(picky).reason


def test_a_model_too_slow_for_a_proof_is_not_padded() -> None:
    clock = iter(range(1000))
    assert "too slow for a proof" in prove(np.tanh, now=lambda: next(clock)).reason


def test_a_rule_with_nothing_to_pad_proves_nothing() -> None:
    assert (
        "no sample that could be padded"
        in prove(np.tanh, PaddingSpec(inputs={"x": PadRule(axis=1, multiple_of=1)})).reason
    )


def test_a_rule_that_does_not_fit_fails_the_load() -> None:
    with pytest.raises(LoadFailed, match="padding is set for input 'z'"):
        prove(np.tanh, PaddingSpec(inputs={"z": PadRule(axis=1)}))


def test_integers_and_texts_are_compared_exactly() -> None:
    whole = replace(SIGNATURE, outputs=(replace(Y, datatype=Datatype.INT64),))
    assert (
        prove(lambda x: (x > 0).astype(np.int64), PaddingSpec(compare="argmax"), signature=whole).padding is not None
    )
    assert prove(lambda x: np.cumsum(x[:, ::-1] > 0, axis=1), signature=whole).padding is None


class TwoLengths:
    """y follows both lengths of its inputs, each along an axis of its own, or both along one."""

    provider = "function"

    def __init__(self, outer: bool) -> None:
        self.outer = outer
        self.signature = Signature(
            inputs=(X, replace(X, name="z", symbols=("N", "S"))),
            outputs=(replace(Y, shape=(-1, -1, -1) if outer else (-1, -1), symbols=()),),
            batched=True,
        )

    def run(self, inputs: Tensors, outputs: tuple[str, ...] | None) -> dict[str, Array]:
        x, z = inputs["x"], inputs["z"]
        return {"y": x[:, :, None] * z[:, None, :] if self.outer else np.concatenate([x, z], axis=1)}

    def close(self) -> None:
        """Holds nothing."""


def test_each_of_two_lengths_has_an_axis_of_its_own() -> None:
    recipe = Recipe(shapes={"x": (1, 32), "z": (1, 16)})
    session = TwoLengths(outer=True)
    found = prove_padding(
        session, session.signature, recipe, PaddingSpec(), to_bucket=False, deadline_ns=10, now=lambda: 0
    )
    assert found.padding is not None
    assert found.padding.outputs == {"y": (Follows(axis=1, length=0), Follows(axis=2, length=1))}
    session = TwoLengths(outer=False)
    found = prove_padding(
        session, session.signature, recipe, PaddingSpec(), to_bucket=False, deadline_ns=10, now=lambda: 0
    )
    assert found.reason == "lengths are not padded: axis 1 of output 'y' follows more than one length"
