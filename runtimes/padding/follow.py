"""How the sizes of a model's outputs follow the length of its inputs, found out by looking.

Why: an OCR recogniser answers an eighth as many steps as its image is wide, rounded in its own way, and a padded
request must get back exactly the steps that it would have got alone.
How: each axis is `times * ((size + offset) // step) + plus`, which any chain of convolutions, poolings and
enlargements comes to. All such formulas that fit what was seen are kept; where two of them disagree about a size, the
model is asked for that size, until all that are left agree on every size that matters; then on a few sizes more, for
what is left may still be wrong.
Units: sizes in entries along an axis.
Errors: Unclear, with the reason, when no formula fits or the model was asked often enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import gcd

import numpy as np

from runtimes.padding.lengths import Follows
from runtimes.tensor import Array

# What an output's axes were for one size of the input, or None where the model does not run with it.
Shapes = Mapping[str, tuple[int, ...]]
Ask = Callable[[int], Shapes | None]

_STEP_MAX = 64
_TIMES = (2, 3, 4, 8, 16, 32)
_PLUS = (0, 1, -1, 2, -2)
_KEPT_MAX = 4096
_ASKED_MAX = 60
_FEWEST = 3


class Unclear(Exception):
    """The outputs' sizes do not follow the length in a way that is known; `str` is the reason."""


class Follower:
    """What was seen of one length. The formulas hold from `shortest` to `largest`."""

    def __init__(self, ask: Ask, largest: int) -> None:
        self._ask = ask
        self.largest = largest
        self._seen: dict[int, Shapes | None] = {}
        self.shortest = 1

    def learn(self, length: int, usual: int, skip: Mapping[str, int]) -> dict[str, tuple[Follows, ...]]:
        """The axes that follow the length of this place, by output. `usual` is a size that runs; `skip` names each
        output's batch axis. Errors: Unclear."""
        self._look(size for size in _first_sizes(usual) if size <= max(self.largest, usual + 1))
        while True:
            known = self._known()
            if len(known) < _FEWEST:
                why = "the model runs with" if self.shortest == 1 else "no formula fits more than"
                raise Unclear(
                    f"how the outputs follow the length is not clear: {why} {len(known)} of {sorted(self._seen)}"
                )
            fits = self._fits(known, skip)
            if fits is None:
                # Models treat their very shortest inputs in ways of their own.
                self.shortest = known[1]
                continue
            size = self._disputed(fits) or self._unverified(fits)
            if size is None:
                self.shortest = known[0]
                return _chosen(fits, length)
            if len(self._seen) >= _ASKED_MAX:
                raise Unclear(f"how the outputs follow the length is not clear after {_ASKED_MAX} runs")
            self._look([size])

    def _look(self, sizes: Iterable[int]) -> None:
        for size in sizes:
            if size not in self._seen:
                self._seen[size] = self._ask(size)

    def _known(self) -> list[int]:
        return sorted(size for size, shapes in self._seen.items() if shapes is not None and size >= self.shortest)

    def _fits(self, known: list[int], skip: Mapping[str, int]) -> dict[tuple[str, int], Array] | None:
        """The formulas that fit for each axis that changes, one a row; None if an axis has none."""
        fits = {}
        first = self._shapes(known[0])
        for name, shape in first.items():
            ranks = {len(self._shapes(size)[name]) for size in known}
            if ranks != {len(shape)}:
                return None
            for axis in range(len(shape)):
                sizes = [self._shapes(size)[name][axis] for size in known]
                if axis == skip.get(name) or len(set(sizes)) == 1:
                    continue
                found = _formulas(np.array(known), np.array(sizes))
                if not len(found):
                    return None
                fits[name, axis] = found
        return fits

    def _shapes(self, size: int) -> Shapes:
        shapes = self._seen[size]
        assert shapes is not None, "only sizes that run are looked at"
        return shapes

    def _disputed(self, fits: Mapping[tuple[str, int], Array]) -> int | None:
        """A size about which the formulas disagree most, a small one where several are equal."""
        sizes = np.array(self._askable())
        if not len(sizes):
            return None
        worst = np.ones(len(sizes), np.int64)
        for formulas in fits.values():
            told = _sizes(formulas, sizes)
            worst = np.maximum(worst, 1 + np.count_nonzero(told != told[:1], axis=0))
        return None if int(worst.max()) == 1 else int(sizes[int(worst.argmax())])

    def _unverified(self, fits: Mapping[tuple[str, int], Array]) -> int | None:
        """A size to hold the formulas against: few may agree only because the right one was never among them.

        Those where an output is said to become longer, and the ones before them, tell every formula from any other.
        """
        askable = set(self._askable())
        wanted = [self.largest, self.largest * 2 // 3 + 1, self.largest // 3]
        sizes = np.arange(self.shortest, self.largest + 1)
        for formulas in fits.values():
            told = _sizes(formulas[:1], sizes)[0]
            jumps = sizes[1:][told[1:] != told[:-1]].tolist()
            some = {jumps[len(jumps) * part // 3] for part in range(3)} | {jumps[-1]} if jumps else set()
            wanted += [size for jump in sorted(some) for size in (jump, jump - 1)]
        return next((size for size in wanted if size in askable), None)

    def _askable(self) -> list[int]:
        known = self._known()
        # A model that takes multiples of 32 only is not asked for all the sizes between.
        refused = [size for size, shapes in self._seen.items() if shapes is None and size > known[0]]
        step = gcd(*known) if refused else 1
        return [
            size for size in range(self.shortest, self.largest + 1) if size % step == 0 and size not in self._seen
        ]


def _first_sizes(usual: int) -> list[int]:
    near = [usual, usual + 1, usual - 1, 2 * usual, 3 * usual, usual + usual // 2, usual // 2, 1, 2, 3, 5, 8]
    return [size for size in dict.fromkeys(near) if size > 0]


def _formulas(known: Array, sizes: Array) -> Array:
    """All (times, step, offset, plus) that fit, simple ones first."""
    plain = _fitting(_candidates((1,), 8, 64, (0,)), known, sizes)
    if len(plain):
        return plain[:_KEPT_MAX]
    rise, run = int(sizes[-1] - sizes[0]), int(known[-1] - known[0])
    whole = (rise // run,) if rise % run == 0 and rise > run else ()
    return _fitting(_candidates((*whole, *_TIMES), 2, 0, _PLUS), known, sizes)[:_KEPT_MAX]


def _candidates(times: Sequence[int], reach: int, further: int, plus: Sequence[int]) -> Array:
    """Every formula with offsets up to `reach` steps and `further`."""
    parts = []
    for step in range(1, _STEP_MAX + 1):
        far = reach * step + further
        offsets = np.array(sorted(range(-far, far + 1), key=abs))
        grid = np.meshgrid(times, [step], offsets, plus, indexing="ij")
        parts.append(np.stack([axis.ravel() for axis in grid], axis=1))
    return np.concatenate(parts)


def _fitting(formulas: Array, known: Array, sizes: Array) -> Array:
    for size, wanted in zip(known, sizes, strict=True):
        formulas = formulas[_sizes(formulas, size[None])[:, 0] == wanted]
    return formulas


def _sizes(formulas: Array, sizes: Array) -> Array:
    times, step, offset, plus = (formulas[:, place, None] for place in range(4))
    return np.asarray(np.maximum(times * ((sizes[None, :] + offset) // step) + plus, 0))


def _chosen(fits: Mapping[tuple[str, int], Array], length: int) -> dict[str, tuple[Follows, ...]]:
    chosen: dict[str, tuple[Follows, ...]] = {}
    for (name, axis), formulas in fits.items():
        times, step, offset, plus = (int(number) for number in formulas[0])
        follows = Follows(axis=axis, length=length, times=times, step=step, offset=offset, plus=plus)
        chosen[name] = (*chosen.get(name, ()), follows)
    return chosen
