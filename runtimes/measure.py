"""Run a model on samples: to warm it up, and to learn how long it takes with how many rows.

How: each size is run a few times and the shortest is kept, for the first pays for allocations and, on a device, for
planning. What is fast is done in a fraction of a second; what is slow is run as few times as tell anything: two runs
of one row, and one of two, which shows whether batches are worth anything at all.
Units: *_ns nanoseconds; rows along the batch axis.
Errors: LoadFailed where a run fails that others depend on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runtimes import samples
from runtimes.errors import LoadFailed, ModelFailed
from runtimes.samples import Recipe
from runtimes.session import Session
from runtimes.signature import Signature
from runtimes.tensor import Array

_RUNS = 5
_SLOW_RUN_NS = 20_000_000
_BUDGET_NS = {"cpu": 300_000_000, "cuda": 3_000_000_000, "tensorrt": 0}


class Bench:
    """Runs samples of one signature through sessions; `result` is the last answer to one row."""

    def __init__(self, signature: Signature, recipe: Recipe, now: Callable[[], int]) -> None:
        self._signature = signature
        self._row = samples.row(signature, recipe, 0)
        self._now = now
        self.result: dict[str, Array] = {}
        self.failed_rows = 0

    def warm(self, session: Session, sizes: Sequence[int]) -> None:
        """Run each size twice. Errors: LoadFailed."""
        for rows in sizes:
            inputs = samples.together(self._signature, [self._row] * rows)
            for _ in range(2):
                self._run(session, inputs, rows)

    def times(self, session: Session, sizes: Sequence[int], provider: str, *, may_fail: bool) -> dict[int, int]:
        """The time of a run by rows, for as many of the sizes (ascending) as the budget allows.

        A device sees the largest in any case, by which it plans. A size that fails ends it where that `may_fail`, and
        is kept in `failed_rows`. Errors: LoadFailed.
        """
        ends_ns = self._now() + _BUDGET_NS[provider]
        needed = sizes[:2] if provider == "cpu" else (sizes[0], sizes[-1])
        times: dict[int, int] = {}
        for rows in sizes:
            if rows not in needed and self._now() + 2 * max(times.values()) > ends_ns:
                continue
            try:
                times[rows] = self._time(session, rows, ends_ns, is_first=not times)
            except LoadFailed:
                if not (may_fail and times):
                    raise
                self.failed_rows = rows
                break
        return times

    def _time(self, session: Session, rows: int, ends_ns: int, *, is_first: bool) -> int:
        inputs = samples.together(self._signature, [self._row] * rows)
        took = [self._run(session, inputs, rows)]
        if not is_first and took[0] >= _SLOW_RUN_NS:
            return took[0]
        took = [self._run(session, inputs, rows)]
        while len(took) < _RUNS and took[-1] < _SLOW_RUN_NS and self._now() < ends_ns:
            took.append(self._run(session, inputs, rows))
        return min(took)

    def _run(self, session: Session, inputs: dict[str, Array], rows: int) -> int:
        begun = self._now()
        try:
            result = session.run(inputs, None)
        except ModelFailed as fault:
            raise LoadFailed(f"warming the model up with {rows} rows failed: {fault}") from fault
        if rows == 1:
            self.result = result
        return self._now() - begun
