"""The messages of a `config.pbtxt`, field by field: Triton's ModelConfig, as typed.py reads it.

Every field that Triton has stands here, so that a name that does not is a mistake of the file; what of it counts is
meaning.py's matter. Defaults are those of proto3; a message that is not given is None. Enumerations are literals in
the order of their numbers.
Source: model_config.proto of triton-inference-server/common; a test compares this table with the compiled one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

Int32 = Annotated[int, "int32"]
Int64 = Annotated[int, "int64"]
UInt32 = Annotated[int, "uint32"]
UInt64 = Annotated[int, "uint64"]

DataType = Literal[
    "TYPE_INVALID", "TYPE_BOOL", "TYPE_UINT8", "TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64", "TYPE_INT8", "TYPE_INT16",
    "TYPE_INT32", "TYPE_INT64", "TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_STRING", "TYPE_BF16",
]  # fmt: skip
Oneofs = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    name: str = ""
    is_global: bool = field(default=False, metadata={"name": "global"})
    count: UInt32 = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimiter:
    resources: tuple[Resource, ...] = ()
    priority: UInt32 = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondaryDevice:
    kind: Literal["KIND_NVDLA"] = "KIND_NVDLA"
    device_id: Int64 = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceGroup:
    name: str = ""
    kind: Literal["KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"] = "KIND_AUTO"
    count: Int32 = 0
    rate_limiter: RateLimiter | None = None
    gpus: tuple[Int32, ...] = ()
    secondary_devices: tuple[SecondaryDevice, ...] = ()
    profile: tuple[str, ...] = ()
    passive: bool = False
    host_policy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reshape:
    shape: tuple[Int64, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    name: str = ""
    data_type: DataType = "TYPE_INVALID"
    format: Literal["FORMAT_NONE", "FORMAT_NHWC", "FORMAT_NCHW"] = "FORMAT_NONE"
    dims: tuple[Int64, ...] = ()
    reshape: Reshape | None = None
    is_shape_tensor: bool = False
    allow_ragged_batch: bool = False
    optional: bool = False
    is_non_linear_format_io: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    name: str = ""
    data_type: DataType = "TYPE_INVALID"
    dims: tuple[Int64, ...] = ()
    reshape: Reshape | None = None
    label_filename: str = ""
    is_shape_tensor: bool = False
    is_non_linear_format_io: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchInput:
    kind: Literal[
        "BATCH_ELEMENT_COUNT", "BATCH_ACCUMULATED_ELEMENT_COUNT", "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
        "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE", "BATCH_ITEM_SHAPE", "BATCH_ITEM_SHAPE_FLATTEN",
    ] = "BATCH_ELEMENT_COUNT"  # fmt: skip
    target_name: tuple[str, ...] = ()
    data_type: DataType = "TYPE_INVALID"
    source_input: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOutput:
    target_name: tuple[str, ...] = ()
    kind: Literal["BATCH_SCATTER_WITH_INPUT_SHAPE"] = "BATCH_SCATTER_WITH_INPUT_SHAPE"
    source_input: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    num_versions: UInt32 = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class All:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Specific:
    versions: tuple[Int64, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionPolicy:
    ONEOFS: ClassVar[Oneofs] = (("latest", "all", "specific"),)
    latest: Latest | None = None
    all: All | None = None
    specific: Specific | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    level: Int32 = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    dim: tuple[Int64, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LowerBound:
    batch_size: Int32 = 0
    input: dict[str, Shape] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSpec:
    batch_size: Int32 = 0
    input: dict[str, Shape] = field(default_factory=dict)
    graph_lower_bound: LowerBound | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuda:
    graphs: bool = False
    busy_wait_events: bool = False
    graph_spec: tuple[GraphSpec, ...] = ()
    output_copy_stream: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    name: str = ""
    parameters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerators:
    gpu_execution_accelerator: tuple[Accelerator, ...] = ()
    cpu_execution_accelerator: tuple[Accelerator, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedMemory:
    enable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimization:
    graph: Graph | None = None
    priority: Literal["PRIORITY_DEFAULT", "PRIORITY_MAX", "PRIORITY_MIN"] = "PRIORITY_DEFAULT"
    cuda: Cuda | None = None
    execution_accelerators: Accelerators | None = None
    input_pinned_memory: PinnedMemory | None = None
    output_pinned_memory: PinnedMemory | None = None
    gather_kernel_buffer_threshold: UInt32 = 0
    eager_batching: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePolicy:
    timeout_action: Literal["REJECT", "DELAY"] = "REJECT"
    default_timeout_microseconds: UInt64 = 0
    allow_timeout_override: bool = False
    max_queue_size: UInt32 = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicBatching:
    preferred_batch_size: tuple[Int32, ...] = ()
    max_queue_delay_microseconds: UInt64 = 0
    preserve_ordering: bool = False
    priority_levels: UInt64 = 0
    default_priority_level: UInt64 = 0
    default_queue_policy: QueuePolicy | None = None
    priority_queue_policy: dict[UInt64, QueuePolicy] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    kind: Literal[
        "CONTROL_SEQUENCE_START", "CONTROL_SEQUENCE_READY", "CONTROL_SEQUENCE_END", "CONTROL_SEQUENCE_CORRID",
    ] = "CONTROL_SEQUENCE_START"  # fmt: skip
    int32_false_true: tuple[Int32, ...] = ()
    fp32_false_true: tuple[float, ...] = ()
    bool_false_true: tuple[bool, ...] = ()
    data_type: DataType = "TYPE_INVALID"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlInput:
    name: str = ""
    control: tuple[Control, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialState:
    ONEOFS: ClassVar[Oneofs] = (("zero_data", "data_file"),)
    data_type: DataType = "TYPE_INVALID"
    dims: tuple[Int64, ...] = ()
    zero_data: bool = False
    data_file: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    input_name: str = ""
    output_name: str = ""
    data_type: DataType = "TYPE_INVALID"
    dims: tuple[Int64, ...] = ()
    initial_state: tuple[InitialState, ...] = ()
    use_same_buffer_for_input_output: bool = False
    use_growable_memory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyDirect:
    max_queue_delay_microseconds: UInt64 = 0
    minimum_slot_utilization: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyOldest:
    max_candidate_sequences: Int32 = 0
    preferred_batch_size: tuple[Int32, ...] = ()
    max_queue_delay_microseconds: UInt64 = 0
    preserve_ordering: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceBatching:
    ONEOFS: ClassVar[Oneofs] = (("direct", "oldest"),)
    direct: StrategyDirect | None = None
    oldest: StrategyOldest | None = None
    max_sequence_idle_microseconds: UInt64 = 0
    control_input: tuple[ControlInput, ...] = ()
    state: tuple[State, ...] = ()
    iterative_sequence: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    model_name: str = ""
    model_version: Int64 = 0
    input_map: dict[str, str] = field(default_factory=dict)
    output_map: dict[str, str] = field(default_factory=dict)
    model_namespace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensembling:
    step: tuple[Step, ...] = ()
    max_inflight_requests: UInt32 = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    string_value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupInput:
    ONEOFS: ClassVar[Oneofs] = (("zero_data", "random_data", "input_data_file"),)
    data_type: DataType = "TYPE_INVALID"
    dims: tuple[Int64, ...] = ()
    zero_data: bool = False
    random_data: bool = False
    input_data_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmup:
    name: str = ""
    batch_size: UInt32 = 0
    inputs: dict[str, WarmupInput] = field(default_factory=dict)
    count: UInt32 = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    op_library_filename: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionPolicy:
    decoupled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    name: str = ""
    parameters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryAgents:
    agents: tuple[Agent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseCache:
    enable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricIdentifier:
    family: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramOptions:
    buckets: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricControl:
    ONEOFS: ClassVar[Oneofs] = (("histogram_options",),)
    metric_identifier: MetricIdentifier | None = None
    histogram_options: HistogramOptions | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    metric_control: tuple[MetricControl, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A whole `config.pbtxt`."""

    ONEOFS: ClassVar[Oneofs] = (("dynamic_batching", "sequence_batching", "ensemble_scheduling"),)
    name: str = ""
    platform: str = ""
    backend: str = ""
    runtime: str = ""
    version_policy: VersionPolicy | None = None
    max_batch_size: Int32 = 0
    input: tuple[Input, ...] = ()
    output: tuple[Output, ...] = ()
    batch_input: tuple[BatchInput, ...] = ()
    batch_output: tuple[BatchOutput, ...] = ()
    optimization: Optimization | None = None
    dynamic_batching: DynamicBatching | None = None
    sequence_batching: SequenceBatching | None = None
    ensemble_scheduling: Ensembling | None = None
    instance_group: tuple[InstanceGroup, ...] = ()
    default_model_filename: str = ""
    cc_model_filenames: dict[str, str] = field(default_factory=dict)
    metric_tags: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    model_warmup: tuple[Warmup, ...] = ()
    model_operations: Operations | None = None
    model_transaction_policy: TransactionPolicy | None = None
    model_repository_agents: RepositoryAgents | None = None
    response_cache: ResponseCache | None = None
    model_metrics: Metrics | None = None
