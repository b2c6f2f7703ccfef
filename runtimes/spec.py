"""What to load, how, and how much: plain data that travels between processes and compares by value.

Units: *_ns nanoseconds, *_rows along the batch axis, *_items requests, *_bytes bytes.
A field's default is what a model gets that nobody tuned.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from runtimes.padding.lengths import Padding


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """How far a batch may grow and how many items may wait.

    `tokens_max`: most rows times padded length of a run, 0 for no such bound. `sizes`: the only numbers of rows that
    the model is run with, ascending; a batch is filled up to the next with copies of its last row. Empty: any.
    `slo_ns`: a goal for the time from submit to answer, for which batches stay as small as they must; 0: none.
    `rows_learned`: loading chooses the batch limit, up to `batch_rows_max`; else `rows_from` is who set it.
    `preferred`: numbers of rows, ascending, at which a batch goes though its first item could still be held.
    """

    batch_rows_max: int = 64
    slo_ns: int = 0
    rows_learned: bool = True
    queue_delay_ns: int = 0
    queue_items_max: int = 4096
    tokens_max: int = 0
    sizes: tuple[int, ...] = ()
    preferred: tuple[int, ...] = ()
    rows_from: str = "gateway.batching.max_rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class PadRule:
    """How one input is made longer: along `axis`, with `value`, up to a multiple or the next of `buckets`.

    Inputs with the same `length` have the same number of entries; "" takes the model's own name of the dimension.
    """

    axis: int
    value: float = 0.0
    multiple_of: int = 0
    buckets: tuple[int, ...] = ()
    length: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddingSpec:
    """How requests of different lengths may share a run, once proven not to change answers.

    No `inputs`: the rules are inferred from the model. `mask` names the input that the gateway fills with 1 where
    the caller leaves it out. `compare`: what of an answer must not change by padding: its values, or only which entry
    of its last axis is the largest. `pad_to`: a run is as long as its bucket or as its longest request; "auto" is the
    bucket on devices, which want few shapes.
    """

    inputs: dict[str, PadRule] = field(default_factory=dict)
    mask: str = ""
    compare: Literal["values", "argmax"] = "values"
    pad_to: Literal["auto", "bucket", "longest"] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingSpec:
    """Whether and how requests share a run. `axes` names the batch axis of inputs that do not tell it; `padding`
    None: only requests of one length share a run. `why_not`: why it is not enabled, for the status."""

    enabled: bool = True
    why_not: str = "batching is turned off in the deployment's settings"
    limits: BatchLimits = field(default_factory=BatchLimits)
    axes: dict[str, int] = field(default_factory=dict)
    padding: PaddingSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredTensor:
    """An input or output as a configuration beside the model says it is: `datatype` is V2's name, `shape` what
    requests and answers have, -1 for a free size. `inner`: the model's own shape, where that is another one."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    inner: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A model's signature as a configuration beside it says; `source` names that, for messages.

    Without `inputs` or without `outputs` these are the model's own. `rows_max`: the first axis of every tensor counts
    rows, and a request has at most so many; 0: it does not.
    """

    source: str
    inputs: tuple[DeclaredTensor, ...] = ()
    outputs: tuple[DeclaredTensor, ...] = ()
    rows_max: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSpec:
    """One deployment's runtime. Two equal specs are the same runtime: it is not loaded again; nor is one that differs
    in its capacity alone (`same_but_capacity`).

    `origin`: the file that the one at `path` is a copy of, for messages; "" where it is none.
    `instance_count` sessions over all scorers, `instances` in each of them; 0: what `instance_count` gives, and two
    where a core would have nothing to do. `graph_level`: which optimizations of the graph are made. `declared`: what
    the model must be, and what of it is served.
    """

    path: str
    sha256: str
    origin: str = ""
    provider: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    allow_cpu_fallback: bool = False
    device_ids: tuple[int, ...] = ()
    gpu_memory_bytes: int = 0
    cache_dir: str = ""
    instance_count: int = 1
    instances: int = 0
    threads: int = 0
    dispatch: Literal["auto", "inline", "thread"] = "auto"
    batching: BatchingSpec = field(default_factory=BatchingSpec)
    graph_level: Literal["all", "extended", "basic", "none"] = "all"
    declared: Declared | None = None


def same_but_capacity(one: RuntimeSpec, other: RuntimeSpec) -> bool:
    """Whether they differ in nothing but how many instances run: a runtime of the one becomes one of the other while
    it serves, and what was learned of it holds."""
    return replace(one, instance_count=other.instance_count, instances=other.instances) == other


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What loading found out; the first scorer measures it and the others take it as given.

    `batched` with `reason`: whether requests may share a run, and why (or why not), in one sentence.
    `input_axes`, `output_axes`: the proven batch axes by name. `run_ns`: measured time of one run at one row, 0 where
    no generated sample runs. `sample_shapes`, `sample_level`: the samples that do (runtimes/samples.py), for warm-up.
    `padding` with `padding_reason`: the proven padding, or None and why not; "" where none was asked for.
    `run_times`: by rows, the nanoseconds of a run of the sample. `rows_max`: the batch limit; 0: as it is given.
    `reasons`: one sentence for each of dispatch, rows_max, threads and instances, and on a GPU for device.
    `stamp`: the state of the file that was checked (runtimes/model_file.py).
    """

    batched: bool
    reason: str
    input_axes: dict[str, int] = field(default_factory=dict)
    output_axes: dict[str, int] = field(default_factory=dict)
    run_ns: int = 0
    dispatch: Literal["inline", "thread"] = "thread"
    threads: int = 1
    instances: int = 1
    rows_max: int = 0
    run_times: dict[int, int] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    sample_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    sample_level: int = 0
    padding: Padding | None = None
    padding_reason: str = ""
    stamp: tuple[int, ...] = ()
