"""WorkItem: one request inside the batcher, from submit to its one reply.

Ownership: the caller makes it; after `Runtime.submit` returns the batcher owns it until `reply(item)` is called,
exactly once, on the loop's thread. If submit raises, the item is the caller's still. A cancelled item is never
replied to. `inputs` must not be changed after submit, not even after the reply: an instance may be reading them.
Units: *_ns monotonic nanoseconds, 0 for "not yet" or "none"; rows along the batch axis; `weight` in rows of room.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from runtimes.errors import RuntimeFault
from runtimes.tensor import Array, Tensors

if TYPE_CHECKING:
    from runtimes.batching.batch import Batch
    from runtimes.batching.split import Split


class WorkItem:
    """Mutable on purpose: it is touched several times per request on the hot path."""

    __slots__ = (
        "batch",
        "batched_ns",
        "deadline_ns",
        "done",
        "enqueued_ns",
        "fault",
        "finished_ns",
        "inputs",
        "key",
        "outputs",
        "part_of",
        "reply",
        "results",
        "rows",
        "split",
        "start_by_ns",
        "started_ns",
        "taken",
        "weight",
    )

    def __init__(
        self,
        *,
        inputs: Tensors,
        rows: int,
        key: Hashable,
        outputs: tuple[str, ...] | None,
        deadline_ns: int,
        reply: Callable[[WorkItem], None],
        start_by_ns: int = 0,
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.key = key
        self.outputs = outputs
        self.deadline_ns = deadline_ns
        self.start_by_ns = start_by_ns
        self.reply = reply
        self.enqueued_ns = 0
        self.batched_ns = 0
        self.started_ns = 0
        self.finished_ns = 0
        # Set by the batcher, on the loop: `taken` once it left the queue for a batch, `done` once it was answered
        # or cancelled.
        self.taken = False
        self.done = False
        self.results: dict[str, Array] | None = None
        self.fault: RuntimeFault | None = None
        # The batcher's own: the room it takes in a batch, the batch that holds it, how it is split into parts
        # (`split`), and the request it is a part of (`part_of`).
        self.weight = rows
        self.batch: Batch | None = None
        self.split: Split | None = None
        self.part_of: Split | None = None
