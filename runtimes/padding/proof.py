"""The proof that padding does not change a model's answers: each request alone equals itself, padded, in company.

Why: a model may average over the padding, attend to it, or look over its edge; such a model is served without.
How: first it is found out how the outputs' sizes follow the length (follow.py). Then, for one bucket after another,
requests as short, middling and long as the bucket takes are run alone and together, through the very collator that
will serve them, and compared: in value within the datatype's tolerance, or, where the deployment says so, in which
entry of the last axis is the largest.
What it cannot show: lengths and values that no sample has. With `compare: argmax` it also cannot show much where all
samples have the same largest entry; the reason tells how many they had.
Errors: LoadFailed for a rule that does not fit the model; all else is the reason for not padding.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from runtimes import samples
from runtimes.batching.buckets import PaddingCollator
from runtimes.batching.item import WorkItem
from runtimes.clock import now_ns
from runtimes.errors import ModelFailed
from runtimes.padding.follow import Follower, Shapes, Unclear
from runtimes.padding.lengths import Follows, Length, Padding, element
from runtimes.padding.rules import Unpaddable, masks, resolve
from runtimes.proof import same
from runtimes.samples import Recipe
from runtimes.session import Session
from runtimes.signature import Signature, TensorSpec
from runtimes.spec import BatchLimits, PaddingSpec
from runtimes.tensor import Array, Tensors

_BUCKETS_TRIED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddingProof:
    """The proven padding, or None; and the reason, one sentence."""

    padding: Padding | None
    reason: str


class _Disproved(Exception):
    """Padding is not shown to be safe; `str` is the reason."""


def prove_padding(
    session: Session,
    signature: Signature,
    recipe: Recipe,
    spec: PaddingSpec,
    *,
    to_bucket: bool,
    deadline_ns: int,
    now: Callable[[], int] = now_ns,
) -> PaddingProof:
    """Try to disprove that padding is safe for a model whose batching is proven. Errors: LoadFailed."""
    try:
        padding = resolve(signature, spec, to_bucket)
        return _Trial(session, signature, recipe, spec, padding, deadline_ns, now).run()
    except (_Disproved, Unclear, Unpaddable) as why:
        return PaddingProof(padding=None, reason=f"lengths are not padded: {why}")


class _Trial:
    """One proof under way. `_padding` grows from rules to rules with proven bounds and outputs."""

    def __init__(
        self,
        session: Session,
        signature: Signature,
        recipe: Recipe,
        spec: PaddingSpec,
        padding: Padding,
        deadline_ns: int,
        now: Callable[[], int],
    ) -> None:
        self._session = session
        self._signature = signature
        self._recipe = recipe
        self._compare = spec.compare
        self._masks = masks(spec, padding)
        self._padding = padding
        self._deadline_ns = deadline_ns
        self._now = now
        self._usual = self._usual_lengths()
        self._seed = 1000
        self._largest_entries: set[int] = set()

    def run(self) -> PaddingProof:
        for place in range(len(self._padding.lengths)):
            self._learn(place)
        compared = sum(self._check(sizes) for sizes in self._trials())
        if not compared:
            raise _Disproved("the model runs with no sample that could be padded")
        lengths = ", ".join(self._described(length) for length in self._padding.lengths)
        return PaddingProof(padding=self._padding, reason=f"{lengths}; {self._verdict(compared)}")

    def _verdict(self, compared: int) -> str:
        if self._compare == "values":
            return f"each of {compared} samples got the same answer alone and padded beside longer ones"
        count = len(self._largest_entries)
        return (
            f"in each of {compared} samples the same entries were the largest alone and padded beside longer ones "
            f"({count} different {'entry' if count == 1 else 'entries'} in all, so others are not proven)"
        )

    def _described(self, length: Length) -> str:
        how = f"multiples of {length.multiple_of}" if length.multiple_of else "powers of two and halfway between"
        if length.buckets:
            how = f"buckets {list(length.buckets)}"
        return f"{length.name!r} from {length.shortest} to {length.longest} is padded to {how}"

    def _usual_lengths(self) -> tuple[int, ...]:
        """The lengths of the samples that are known to run."""
        sizes = [0] * len(self._padding.lengths)
        for name, padded in self._padding.inputs.items():
            sizes[padded.length] = self._recipe.shapes[name][padded.axis]
        return tuple(sizes)

    # How the outputs follow.

    def _learn(self, place: int) -> None:
        length = self._padding.lengths[place]
        follower = Follower(lambda size: self._shapes(place, size), self._largest(place, length))
        axes = {spec.name: spec.batch_axis for spec in self._signature.outputs if spec.batch_axis is not None}
        follows = follower.learn(place, self._usual[place], axes)
        learned = replace(length, shortest=follower.shortest, longest=follower.largest)
        self._padding = replace(
            self._padding,
            lengths=(*self._padding.lengths[:place], learned, *self._padding.lengths[place + 1 :]),
            outputs=self._with(follows),
        )

    def _largest(self, place: int, length: Length) -> int:
        """The longest that is padded to: the last bucket, or, where none is declared, what the model takes."""
        if length.buckets:
            if self._shapes(place, length.longest) is None:
                raise _Disproved(f"the model does not run with bucket {length.longest} of {length.name!r}")
            return length.longest
        largest = length.longest
        while largest > self._usual[place] and self._shapes(place, largest) is None:
            largest //= 2
        return max(largest, self._usual[place])

    def _shapes(self, place: int, size: int) -> Shapes | None:
        sizes = (*self._usual[:place], size, *self._usual[place + 1 :])
        try:
            outputs = self._run(self._request(sizes))
        except ModelFailed:
            return None
        return {name: array.shape for name, array in outputs.items()}

    def _with(self, follows: dict[str, tuple[Follows, ...]]) -> dict[str, tuple[Follows, ...]]:
        outputs = dict(self._padding.outputs)
        for name, axes in follows.items():
            known = outputs.get(name, ())
            both = {one.axis for one in known} & {one.axis for one in axes}
            if both:
                raise _Disproved(f"axis {min(both)} of output {name!r} follows more than one length")
            outputs[name] = (*known, *axes)
        return outputs

    # Whether answers stay.

    def _trials(self) -> Iterator[list[tuple[int, ...]]]:
        """The lengths of requests that share a run, for some buckets of each length, small and large."""
        for place, length in enumerate(self._padding.lengths):
            for least, most in _spread(_ranges(length)):
                middle = (least + most) // 2
                # The shortest has most to lose, and does so in each of the signs.
                ordered = (least, least, least, most, middle)
                yield [(*self._usual[:place], size, *self._usual[place + 1 :]) for size in ordered]

    def _check(self, sizes: Sequence[tuple[int, ...]]) -> int:
        """Run requests of these lengths alone and together; how many were compared."""
        alone = []
        for one, sign in zip(sizes, itertools.cycle((0, -1, 1))):
            request = self._request(one, sign)
            try:
                alone.append((request, self._run(request)))
            except ModelFailed:
                continue
        if len({self._padding.sizes(request) for request, _ in alone}) < 2 and not self._padding.to_bucket:
            return 0
        items = [_item(request) for request, _ in alone]
        collator = PaddingCollator(self._signature_with(self._padding), BatchLimits())
        for order in (items, items[::-1]):
            try:
                together = collator.part(self._run(collator.join(order)), order)
            except ModelFailed as fault:
                raise _Disproved(
                    f"samples of {sorted(sizes)} fail together and padded, not alone: {fault}"
                ) from fault
            wanted = [answer for _, answer in alone]
            for own, padded in zip(wanted if order is items else wanted[::-1], together, strict=True):
                self._compare_answers(own, padded)
        return len(items)

    def _compare_answers(self, alone: dict[str, Array], padded: dict[str, Array]) -> None:
        for spec in self._signature.outputs:
            left, right = alone[spec.name], padded[spec.name]
            if not self._is_same(spec, left, right):
                what = "the largest entry" if self._compare == "argmax" else "the values"
                raise _Disproved(f"output {spec.name!r} of a request changes when it is padded ({what})")

    def _is_same(self, spec: TensorSpec, left: Array, right: Array) -> bool:
        if self._compare == "values" or not spec.datatype.is_float or left.ndim == 0:
            return same(left, right, spec.datatype)
        if left.shape != right.shape:
            return False
        places = [np.argmax(samples.to_float(array, spec.datatype), axis=-1) for array in (left, right)]
        self._largest_entries.update(np.unique(places[0]).tolist())
        return bool(np.array_equal(*places))

    # Samples.

    def _request(self, sizes: tuple[int, ...], sign: int = 0) -> dict[str, Array]:
        """A request of one row with these lengths, another one each time; with a sign, all its floats have it.

        Zeros at the end do not change the largest of many numbers unless all of them are negative.
        """
        shapes = dict(self._recipe.shapes)
        for name, padded in self._padding.inputs.items():
            shape = list(shapes[name])
            shape[padded.axis] = sizes[padded.length]
            shapes[name] = tuple(shape)
        self._seed += 1
        request = samples.row(self._signature, replace(self._recipe, shapes=shapes), self._seed)
        for spec in self._signature.inputs:
            if sign and spec.batch_axis is not None and spec.datatype.is_float:
                request[spec.name] = samples.signed(request[spec.name], spec.datatype, sign)
        for name in self._masks & request.keys():
            request[name] = np.full_like(request[name], element(1.0, self._signature.input(name).datatype))
        return request

    def _run(self, inputs: Tensors) -> dict[str, Array]:
        if self._now() > self._deadline_ns:
            raise _Disproved("the model is too slow for a proof within the time that loading allows")
        return self._session.run(inputs, None)

    def _signature_with(self, padding: Padding) -> Signature:
        return replace(self._signature, batched=True, padding=padding)


def _ranges(length: Length) -> list[tuple[int, int]]:
    """The shortest and the longest request of each bucket."""
    ranges: list[tuple[int, int]] = []
    size = length.shortest
    while size <= length.longest:
        bucket = length.bucket(size)
        if bucket > size:
            ranges.append((size, bucket))
        size = bucket + 1
    return ranges


def _spread(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Some of them, from the first to the last."""
    if len(ranges) <= _BUCKETS_TRIED:
        return ranges
    last = len(ranges) - 1
    return [ranges[last * place // (_BUCKETS_TRIED - 1)] for place in range(_BUCKETS_TRIED)]


def _item(request: dict[str, Array]) -> WorkItem:
    return WorkItem(inputs=request, rows=1, key=None, outputs=None, deadline_ns=0, reply=lambda _: None)
