"""What to load, how, and how much: plain data that travels between processes and compares by value.

Units: *_ns nanoseconds, *_rows along the batch axis, *_items requests, *_bytes bytes.
A field's default is what a model gets that nobody tuned.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """How far a batch may grow and how many items may wait."""

    batch_rows_max: int = 64
    queue_delay_ns: int = 0
    queue_items_max: int = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingSpec:
    """Whether and how requests share a run. `axes` names the batch axis of inputs that do not tell it."""

    enabled: bool = True
    limits: BatchLimits = field(default_factory=BatchLimits)
    axes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSpec:
    """One deployment's runtime. Two equal specs are the same runtime: it is not loaded again."""

    path: str
    sha256: str
    provider: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    allow_cpu_fallback: bool = False
    device_ids: tuple[int, ...] = ()
    gpu_memory_bytes: int = 0
    cache_dir: str = ""
    instance_count: int = 1
    threads: int = 0
    dispatch: Literal["auto", "inline", "thread"] = "auto"
    batching: BatchingSpec = field(default_factory=BatchingSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What loading found out; the first scorer measures it and the others take it as given.

    `batched` with `reason`: whether requests may share a run, and why (or why not), in one sentence.
    `input_axes`, `output_axes`: the proven batch axes by name. `run_ns`: measured time of one run at one row, 0 where
    no generated sample runs. `sample_shapes`, `sample_level`: the samples that do (runtimes/samples.py), for warm-up.
    """

    batched: bool
    reason: str
    input_axes: dict[str, int] = field(default_factory=dict)
    output_axes: dict[str, int] = field(default_factory=dict)
    run_ns: int = 0
    dispatch: Literal["inline", "thread"] = "thread"
    threads: int = 1
    sample_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    sample_level: int = 0
