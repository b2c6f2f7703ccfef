"""What a run costs: learned for each key and size of batch, from every run, and kept current.

Why: the same numbers decide how large a batch may grow, what is refused on arrival and what is not worth running.
How: sizes fall into classes by powers of two (1, 2, 3-4, 5-8 ...). Each class keeps decayed means of its run times,
of their deviation and of its rows; between classes a time is interpolated, beyond the largest it goes on as it did.
A run counts for an eighth, and for no more than twice what was expected: one that was held up moves the mean by an
eighth at most, and a model that changed for good is known again within a few dozen runs. A class with few runs, and
one that became much faster, learns by halves and quarters.
Bounds: two generations of keys are kept; one that nobody asked for during a whole generation is forgotten.
Units: *_ns nanoseconds (floats, for they are averages); rows along the batch axis, at least 1.
Errors: none; what was never measured costs 0.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

# The last class holds 2^23 rows and all above.
_CLASSES = 25
_LAST = _CLASSES - 1
_KEYS_MAX = 64

_RATE = 1 / 8
_RATE_DOWN = 1 / 4
_RATE_YOUNG = 1 / 2
_YOUNG_RUNS = 8
# How many times the expected a run may add to it; once settled, it is once.
_SURPRISE_YOUNG = 3.0

# Deviations above the mean that nearly no run exceeds.
_DEVIATIONS = 3.0
_FIRST_DEVIATION = 1 / 8

# When a class's mean has changed so much, at about the same size, the other sizes' times follow.
_NOTABLE = 1.25
_SAME_SIZE = 0.1

# With a goal: how often the cap is reckoned anew, and how the times of sizes above it, which are not run any more,
# are doubted, so that one of them is tried again now and then.
_RECAP_RUNS = 8
_RECAPS_TO_DOUBT = 16
_DOUBT = 15 / 16


def size_class(rows: int) -> int:
    """1 is class 0, 2 is 1, 3 and 4 are 2, 5 to 8 are 3 ..."""
    return min((rows - 1).bit_length(), _LAST)


class _Class:
    """Sizes of one class: decayed means of `ns`, of their `deviation`, of `rows`; `young` counts down to settled."""

    __slots__ = ("deviation", "high_mark", "low_mark", "marked_ns", "marked_rows", "ns", "rows", "young")

    def __init__(self, rows: float, ns: float) -> None:
        self.rows = rows
        self.ns = ns
        self.deviation = ns * _FIRST_DEVIATION
        self.young = _YOUNG_RUNS
        self.mark()

    def mark(self) -> None:
        """From here on it is noted when the times become notably longer or shorter."""
        self.marked_ns = self.ns
        self.marked_rows = self.rows
        self.low_mark = self.ns / _NOTABLE
        self.high_mark = self.ns * _NOTABLE

    def scale(self, share: float) -> None:
        self.ns *= share
        self.deviation *= share
        self.mark()

    def point(self, scale: float) -> tuple[float, float]:
        ns = self.ns * scale
        return ns, ns + _DEVIATIONS * self.deviation * scale


class Cost:
    """One key's run times.

    `row_ns`: what a row costs in a full batch: how fast a long queue becomes shorter.
    `rows_cap`: how many rows a batch of this key may have now. A goal of `slo_ns` holds for the run before a
    request's own and its own: a request that arrives just too late for one batch still meets it.
    """

    __slots__ = ("_classes", "_full", "_recaps", "_rows_max", "_slo_ns", "_until_recap", "row_ns", "rows_cap")

    def __init__(self, seed: Mapping[int, float], rows_max: int, slo_ns: int = 0) -> None:
        self.row_ns = 0.0
        self.rows_cap = rows_max
        self._rows_max = rows_max
        self._slo_ns = slo_ns
        self._full: _Class | None = None
        self._recaps = 0
        self._until_recap = _RECAP_RUNS
        self._classes: list[_Class | None] = [None] * _CLASSES
        for rows, ns in sorted(seed.items()):
            self._begin(size_class(rows), rows, ns)
        self._recap() if slo_ns else self._set_pace()

    def learn(self, rows: int, ns: int) -> float:
        """Take in a run; returns what nearly no run of this size exceeds. This is done for every batch."""
        index = (rows - 1).bit_length()
        found = self._classes[index if index < _LAST else _LAST]
        if found is None or found.young:
            found = self._learn_young(min(index, _LAST), rows, ns)
            mean, deviation = found.ns, found.deviation
        else:
            mean, deviation = found.ns, found.deviation
            error = ns - mean
            if error > 0:
                if error > mean:
                    error = mean
                deviation += (error - deviation) * _RATE
                mean += error * _RATE
            elif error + error > -mean:
                deviation -= (error + deviation) * _RATE
                mean += error * _RATE
            else:
                deviation -= (error + deviation) * _RATE_DOWN
                mean += error * _RATE_DOWN
            found.deviation = deviation
            found.ns = mean
            if found.rows != rows:
                found.rows += (rows - found.rows) * _RATE
            if not found.low_mark < mean < found.high_mark:
                self._follow(found)
        if found is self._full:
            self.row_ns = mean / found.rows
        if self._slo_ns:
            self._count_down()
        return mean + _DEVIATIONS * deviation

    def run_ns(self, rows: int) -> float:
        """What a run is expected to take; cheap for the size that is usual in its class."""
        index = (rows - 1).bit_length()
        found = self._classes[index if index < _LAST else _LAST]
        return found.ns if found is not None and found.rows == rows else self.predict(rows)[0]

    def predict(self, rows: int) -> tuple[float, float]:
        """What a run of so many rows is expected to take, and what nearly none exceeds; (0, 0): nothing is known."""
        known = [one for one in self._classes if one is not None]
        if not known:
            return 0.0, 0.0
        below = [one for one in known if one.rows <= rows]
        if not below:
            return known[0].point(1.0)
        last = below[-1]
        if last.rows == rows:
            return last.point(1.0)
        if len(below) < len(known):
            return _between(last, known[len(below)], rows)
        if len(below) == 1:
            # One size tells nothing of how a run grows.
            return last.point(1.0)
        before = below[-2]
        slope = max(0.0, (last.ns - before.ns) / (last.rows - before.rows))
        return last.point(1.0 + slope * (rows - last.rows) / last.ns)

    def _learn_young(self, index: int, rows: int, ns: int) -> _Class:
        """With few runs behind it, or only a seed that may be of other inputs, half of what a run says is taken."""
        found = self._classes[index] or self._begin(index, rows, ns)
        error = min(ns - found.ns, found.ns * _SURPRISE_YOUNG)
        is_surprise = not -found.ns < error + error < 2 * found.ns
        found.ns += error * _RATE_YOUNG
        found.deviation += (abs(error) - found.deviation) * _RATE_YOUNG
        found.rows += (rows - found.rows) * _RATE_YOUNG
        found.young -= 1
        if is_surprise:
            self._follow(found)
        elif not found.young:
            found.mark()
        self._set_pace()
        return found

    def _begin(self, index: int, rows: int, ns: float) -> _Class:
        # A run of no time at all could never become longer.
        found = self._classes[index] = _Class(rows, max(1.0, ns))
        return found

    def _set_pace(self) -> None:
        full = self._full = self._classes[size_class(self.rows_cap)]
        self.row_ns = full.ns / full.rows if full is not None else self.predict(self.rows_cap)[0] / self.rows_cap

    def _count_down(self) -> None:
        self._until_recap -= 1
        if self._until_recap:
            return
        self._until_recap = _RECAP_RUNS
        self._recaps += 1
        if self._recaps % _RECAPS_TO_DOUBT == 0:
            for one in self._classes[size_class(self.rows_cap) + 1 :]:
                if one is not None:
                    one.scale(_DOUBT)
        self._recap()

    def _follow(self, found: _Class) -> None:
        """The model became slower or faster, or what it was measured with was not like what comes: the times of sizes
        that are not run now go with those of one that is. Else they might keep those sizes from being run at all, and
        nobody would find out. Less rows never take longer, nor more of them longer by more than their number."""
        share = found.ns / found.marked_ns
        is_same_size = abs(found.rows - found.marked_rows) <= _SAME_SIZE * found.rows
        found.mark()
        if not is_same_size:
            return
        for one in self._classes:
            if one is not None and one is not found:
                part = one.rows / found.rows
                least, most = found.ns * min(1.0, part), found.ns * max(1.0, part)
                one.scale(max(min(one.ns * share, most), one.ns if share > 1 else least) / one.ns)
        self._set_pace()

    def _recap(self) -> None:
        """The most rows for which two runs meet the goal, at most twice as many as were ever run."""
        largest = max((place for place, one in enumerate(self._classes) if one is not None), default=0)
        most = min(self._rows_max, 2 << largest)
        self.rows_cap = max(1, _most(most, lambda rows: 2 * self.predict(rows)[1] <= self._slo_ns))
        self._set_pace()

    def rows_within(self, ns: float) -> int:
        """The most rows of a batch whose run is expected to take no longer; 0 if none is."""
        return _most(self.rows_cap, lambda rows: self.predict(rows)[0] <= ns)


def _most(most: int, fits: Callable[[int], bool]) -> int:
    """The most rows that fit, by halving: larger batches take longer."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _between(left: _Class, right: _Class, rows: int) -> tuple[float, float]:
    share = (rows - left.rows) / (right.rows - left.rows)
    low, high = left.point(1.0 - share), right.point(share)
    return low[0] + high[0], low[1] + high[1]


class LatencyTable:
    """The costs of all keys. A new key begins with the seed: the times measured before anything was served.

    `rows_max_of`: the most rows of a key whose batches are bounded by more than `rows_max`.
    """

    __slots__ = ("_earlier", "_recent", "_rows_max", "_rows_max_of", "_seed", "_slo_ns")

    def __init__(
        self,
        rows_max: int,
        seed: Mapping[int, float] | None = None,
        slo_ns: int = 0,
        rows_max_of: Callable[[Hashable], int] | None = None,
    ) -> None:
        self._rows_max = rows_max
        self._rows_max_of = rows_max_of
        self._slo_ns = slo_ns
        self._seed = dict(seed or {})
        self._recent: dict[Hashable, Cost] = {}
        self._earlier: dict[Hashable, Cost] = {}

    def cost(self, key: Hashable) -> Cost:
        """The key's own cost, which goes on learning."""
        cost = self._recent.get(key)
        return cost if cost is not None else self._recall(key)

    def learn(self, key: Hashable, rows: int, ns: int) -> None:
        self.cost(key).learn(rows, ns)

    def predict(self, key: Hashable, rows: int) -> tuple[float, float]:
        """What a run is expected to take, and what nearly none exceeds."""
        return self.cost(key).predict(rows)

    @property
    def rows_cap(self) -> int:
        """The most rows that a batch of any key may have now."""
        return max((cost.rows_cap for cost in self._recent.values()), default=self._rows_max)

    def __len__(self) -> int:
        return len(self._recent | self._earlier)

    def _recall(self, key: Hashable) -> Cost:
        cost = self._earlier.get(key)
        if cost is None:
            rows_max = self._rows_max_of(key) if self._rows_max_of is not None else self._rows_max
            cost = Cost(self._seed, rows_max, self._slo_ns)
        if len(self._recent) >= _KEYS_MAX:
            self._earlier, self._recent = self._recent, {}
        self._recent[key] = cost
        return cost
