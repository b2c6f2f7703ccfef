"""Split: a request with more rows than a batch holds, run in parts and put together again, in order.

Why: a batch never exceeds its maximum, and a client need not know it. Parts are cut only when a batch has room for
one, so a huge request costs nothing at submit, holds one seat in the queue, and its last part shares its batch.
Ownership: the parent is the caller's request and is replied to once; a part is the batcher's own and never is.
Errors: ModelFailed from `results` when the parts' outputs do not have the parts' rows.
"""

from __future__ import annotations

from runtimes.batching.collate import Collator
from runtimes.batching.item import WorkItem
from runtimes.tensor import Array


class Split:
    """The parts of one request: `left` rows are not cut yet, `running` parts are cut and not finished."""

    __slots__ = ("_collator", "_parts", "_rows_max", "left", "parent", "running")

    def __init__(self, parent: WorkItem, rows_max: int, collator: Collator) -> None:
        self.parent = parent
        self.left = parent.rows
        self.running: list[WorkItem] = []
        self._parts: list[WorkItem] = []
        self._rows_max = rows_max
        self._collator = collator

    @property
    def is_complete(self) -> bool:
        return self.left == 0 and not self.running

    @property
    def is_started(self) -> bool:
        """Whether an instance has taken a part, finished or not."""
        return any(part.batch is not None and part.batch.has_started(part) for part in self._parts)

    def cut(self) -> WorkItem:
        """The next part, in the order of rows; the parent then weighs what its next part will."""
        parent = self.parent
        start = parent.rows - self.left
        rows = min(self.left, self._rows_max)
        part = WorkItem(
            inputs=self._collator.cut(parent.inputs, start, start + rows),
            rows=rows,
            key=parent.key,
            outputs=parent.outputs,
            deadline_ns=parent.deadline_ns,
            reply=parent.reply,
            # The wait for an instance is over when the first part has one.
            start_by_ns=0 if start else parent.start_by_ns,
        )
        part.part_of = self
        part.taken = True
        self.left -= rows
        parent.weight = min(self.left, self._rows_max)
        self._parts.append(part)
        self.running.append(part)
        return part

    def finish(self, part: WorkItem, results: dict[str, Array]) -> None:
        part.done = True
        part.results = results
        self.running.remove(part)

    def results(self) -> dict[str, Array]:
        """The request's own results, once it is complete. Errors: ModelFailed."""
        parts = self._parts
        return self._collator.assemble([part.results or {} for part in parts], [part.rows for part in parts])
