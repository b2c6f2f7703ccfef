"""From what a deployment declares, or from the names in the model, to a Padding that is still to be proven.

`auto`: each input with one free dimension beside its rows that the model names, or that is the model's only such
one, may be padded with zeros; dimensions of one name are one length.
Errors: LoadFailed when a declared rule does not fit the model; Unpaddable, with the reason, when the model cannot be
padded by such rules at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NoReturn

from runtimes.errors import LoadFailed
from runtimes.padding.lengths import Length, PaddedInput, Padding
from runtimes.signature import Mask, Signature, TensorSpec
from runtimes.spec import PaddingSpec, PadRule

# How far lengths are padded, and proven to be, where no buckets say it.
LONGEST = 512


class Unpaddable(Exception):
    """The model's inputs cannot be padded; `str` is the reason."""


def resolve(signature: Signature, spec: PaddingSpec, to_bucket: bool) -> Padding:
    """The rules as a Padding without outputs. Errors: LoadFailed, Unpaddable."""
    rules = dict(spec.inputs) or _inferred(signature)
    for name, rule in rules.items():
        _check(signature, name, rule)
    names = {
        name: rule.length or _symbol(signature.input(name), rule.axis) or "length" for name, rule in rules.items()
    }
    lengths = tuple(_length(name, [rules[one] for one in rules if names[one] == name]) for name in _distinct(names))
    places = {length.name: place for place, length in enumerate(lengths)}
    inputs = {
        name: PaddedInput(axis=rule.axis, length=places[names[name]], value=rule.value)
        for name, rule in rules.items()
    }
    _check_all_covered(signature, inputs)
    chosen = to_bucket if spec.pad_to == "auto" else spec.pad_to == "bucket"
    return Padding(lengths=lengths, inputs=inputs, to_bucket=chosen)


def masks(spec: PaddingSpec, padding: Padding) -> frozenset[str]:
    """The padded inputs that tell what is real: the declared one, or those with "mask" in their name."""
    if spec.mask:
        return frozenset((spec.mask,))
    return frozenset(name for name in padding.inputs if "mask" in name.lower())


def mask_of(signature: Signature, spec: PaddingSpec | None) -> Mask | None:
    """How to make the declared mask where the caller leaves it out. Errors: LoadFailed."""
    if spec is None or not spec.mask:
        return None
    own = next((one for one in signature.inputs if one.name == spec.mask), None)
    others = [name for name in spec.inputs if name != spec.mask]
    if own is None or spec.mask not in spec.inputs or not others:
        raise LoadFailed(
            f"mask {spec.mask!r} is no padded input; a mask and the input that it belongs to are both to be padded"
        )
    like = next((one for one in signature.inputs if one.name == others[0]), None)
    if like is None:
        _refuse_name(signature, others[0])
    grows = {spec.inputs[spec.mask].axis: spec.inputs[like.name].axis}
    axes = [grows.get(axis, like.batch_axis) if size == -1 else None for axis, size in enumerate(own.shape)]
    return Mask(name=spec.mask, like=like.name, axes=tuple(axes))


def _inferred(signature: Signature) -> dict[str, PadRule]:
    free = {spec.name: [axis for axis in _free(spec) if axis != spec.batch_axis] for spec in signature.inputs}
    unnamed = sum(len(axes) for axes in free.values())
    rules = {}
    for spec in signature.inputs:
        axes = free[spec.name]
        if len(axes) > 1:
            raise Unpaddable(
                f"input {spec.name!r} has several free dimensions ({spec.describe()}); declare which to pad"
            )
        if axes and spec.batch_axis is not None and (_symbol(spec, axes[0]) or unnamed == 1):
            rules[spec.name] = PadRule(axis=axes[0])
    if not rules:
        raise Unpaddable("no input has a free dimension beside its rows that the model names; declare which to pad")
    return rules


def _check(signature: Signature, name: str, rule: PadRule) -> None:
    spec = next((spec for spec in signature.inputs if spec.name == name), None)
    if spec is None:
        _refuse_name(signature, name)
    if spec.batch_axis is None:
        raise Unpaddable(f"input {name!r} has no batch axis, so its requests share no run whatever their length")
    free = [axis for axis in _free(spec) if axis != spec.batch_axis]
    if rule.axis not in free:
        raise LoadFailed(
            f"padding is set along axis {rule.axis} of input {name!r}, which is {spec.describe()}; "
            f"its free axes beside the rows are {free}"
        )


def _refuse_name(signature: Signature, name: str) -> NoReturn:
    names = [spec.name for spec in signature.inputs]
    raise LoadFailed(f"padding is set for input {name!r}; the model's inputs are {names}")


def _length(name: str, rules: list[PadRule]) -> Length:
    multiples = {rule.multiple_of for rule in rules if rule.multiple_of}
    buckets = {tuple(sorted(rule.buckets)) for rule in rules if rule.buckets}
    if len(multiples) + len(buckets) > 1:
        raise LoadFailed(
            f"inputs that share the length {name!r} are padded in different ways ({sorted(multiples)}, "
            f"{sorted(buckets)}); one multiple_of or one list of buckets is accepted"
        )
    length = Length(name=name, multiple_of=max(multiples, default=0), buckets=max(buckets, default=()))
    return replace(length, longest=length.buckets[-1] if length.buckets else LONGEST)


def _check_all_covered(signature: Signature, inputs: Mapping[str, PaddedInput]) -> None:
    """A named dimension must be padded wherever it stands, or the model would be given two sizes of it."""
    padded = {_symbol(signature.input(name), one.axis) for name, one in inputs.items()} - {None}
    for spec in signature.inputs:
        for axis, symbol in enumerate(spec.symbols):
            at_home = spec.name in inputs and inputs[spec.name].axis == axis
            if symbol in padded and not at_home:
                raise Unpaddable(
                    f"axis {axis} of input {spec.name!r} must be as long as {symbol!r} and is not padded"
                )


def _free(spec: TensorSpec) -> list[int]:
    return [axis for axis, size in enumerate(spec.shape) if size == -1]


def _symbol(spec: TensorSpec, axis: int) -> str | None:
    return spec.symbols[axis] if spec.symbols else None


def _distinct(names: Mapping[str, str]) -> list[str]:
    return list(dict.fromkeys(names.values()))
