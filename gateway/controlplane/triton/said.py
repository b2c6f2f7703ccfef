"""A model configuration in this gateway's words: plain values, and sentences about what is refused or in vain.

Units: *_ns nanoseconds, *_bytes bytes.
Errors: none raised; `mistakes` and `notes` begin with the field's path.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from runtimes import Declared


@dataclass(slots=True, kw_only=True)
class Said:
    """A configuration in this gateway's words; what it does not say is None, 0 or empty.

    `batches`: whether requests share a run, None for as it is proven; with `why_not`. `rows_max`: max_batch_size.
    `sessions`: for each instance of the deployment. `provider` "gpu" leaves open which, `tensorrt` says it.
    """

    batches: bool | None = None
    why_not: str = ""
    rows_max: int = 0
    queue_delay_ns: int | None = None
    preferred: tuple[int, ...] = ()
    queue_items_max: int | None = None
    queue_wait_ns: int = 0
    sessions: int = 0
    provider: Literal["", "cpu", "gpu"] = ""
    tensorrt: bool = False
    device_ids: tuple[int, ...] = ()
    gpu_memory_bytes: int = 0
    threads: int = 0
    graph_level: Literal["all", "extended", "basic", "none"] = "all"
    declared: Declared | None = None
    mistakes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def refuse(self, path: str, text: str) -> None:
        self.mistakes.append(f"{path}: {text}")

    def note(self, path: str, text: str = "has no effect here") -> None:
        self.notes.append(f"{path}: {text}")
