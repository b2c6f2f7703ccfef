"""When to send a batch and how many rows it may take: pure decisions over numbers.

Why: this moment sets both latency and throughput, so it stands alone and is tested by property.
Units: *_ns monotonic nanoseconds; rows along the batch axis; a weight is the room, in rows, that an item takes.
Errors: none.
Source: an idle instance never waits unless a queue delay is set (text-embeddings-inference); the delay counts from
the oldest item, and a batch that is full or of a preferred size goes at once (Triton); rows are counted, never
requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum


class Choice(Enum):
    """What an instance with room gets next."""

    OLDEST = "the items with the key of the oldest"
    FULL = "the items of a key that fills a batch, or one of a preferred size"
    WAIT = "nothing yet: the oldest item may be held so that its batch grows"


def choose(oldest_ns: int, has_full: bool, delay_ns: int, now_ns: int) -> Choice:
    """The oldest item goes first once it is due; before that only a full batch may go."""
    if now_ns >= oldest_ns + delay_ns:
        return Choice.OLDEST
    return Choice.FULL if has_full else Choice.WAIT


def weigh(rows: int, rows_max: int, merges: bool) -> int:
    """The room an item takes in a batch of `rows_max`; what weighs a whole batch runs alone.

    That is every item of an unbatched model; an item of no rows, which has nothing to share (and an empty tensor
    beside full ones is what models get wrong); and the next part of an item larger than a batch.
    """
    if not merges or rows == 0 or rows > rows_max:
        return rows_max
    return rows


def preferred_rows(load: int, preferred: Sequence[int]) -> int:
    """The largest preferred size (ascending) that so much waiting work fills; 0 where it fills none."""
    return max((size for size in preferred if size <= load), default=0)


def may_hand_over(out: int, untaken: int, workers: int, is_full: bool) -> bool:
    """Whether a batch goes to workers that take what is handed over by themselves, whichever is idle.

    `out` batches are with them, `untaken` of these are not known to be taken. One that nobody has taken shows that no
    worker is idle, and so do as many as there are workers: then the next one had better grow, and only a full one is
    sent ahead, a single one, so that no worker waits for this process.
    """
    if is_full:
        return out <= workers
    return out < workers and not untaken
