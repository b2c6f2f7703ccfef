"""What a scorer must know of a pool of script workers: plain data that travels with the snapshot.

Units: `workers` processes, shared by all scorers; `queue_items_max` requests that wait in one scorer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from runtimes.spec import BatchLimits

ALONE_REASON = "a scoring script without run_batch() is given one request at a time in each of its workers"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptSpec:
    """One pool of workers. Two equal pool names are the same processes: they are not started again.

    `swagger`: the document that describes the script, as JSON text, by version ("2", "3", "3.1"). `cors_origins`:
    whose pages may score from a browser, "*" for any; none: browsers are not answered. `batching`: how far batches
    may grow of a script that has run_batch(); None: each request runs alone. `batching_reason`: why it is so.
    """

    pool: str
    workers: int
    queue_items_max: int = 4096
    swagger: dict[str, str] = field(default_factory=dict)
    cors_origins: tuple[str, ...] = ()
    batching: BatchLimits | None = None
    batching_reason: str = ALONE_REASON
