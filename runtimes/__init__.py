"""The front door: the only names that `gateway` may use of what turns tensors into tensors."""

from runtimes.batching.item import WorkItem
from runtimes.cgroup import available_cores, available_memory
from runtimes.clock import LoopScheduler, Scheduler, Timer, now_ns, thread_ns
from runtimes.errors import (
    DeadlineExceeded,
    InvalidInput,
    LoadFailed,
    ModelFailed,
    Overloaded,
    QueueWaitExceeded,
    RuntimeFault,
    TooLate,
    Unavailable,
)
from runtimes.observer import NullObserver, Observer
from runtimes.onnx.external import files as model_files
from runtimes.script import WORKER_LIB
from runtimes.script.client import ScriptClient
from runtimes.script.request import ScriptAnswer, ScriptRequest
from runtimes.script.spec import ALONE_REASON, ScriptSpec
from runtimes.script.worker_lib.igw_worker import state as worker_state
from runtimes.script.worker_lib.igw_worker import swagger as worker_swagger
from runtimes.session import Session
from runtimes.signature import Signature, TensorSpec
from runtimes.spec import (
    BatchingSpec,
    BatchLimits,
    Declared,
    DeclaredTensor,
    Learned,
    PaddingSpec,
    PadRule,
    RuntimeSpec,
    same_but_capacity,
)
from runtimes.tensor import BY_V2_NAME, Array, Datatype, Tensors

__all__ = [
    "ALONE_REASON",
    "BY_V2_NAME",
    "WORKER_LIB",
    "Array",
    "BatchLimits",
    "BatchingSpec",
    "Datatype",
    "DeadlineExceeded",
    "Declared",
    "DeclaredTensor",
    "InvalidInput",
    "Learned",
    "LoadFailed",
    "LoopScheduler",
    "ModelFailed",
    "NullObserver",
    "Observer",
    "Overloaded",
    "PadRule",
    "PaddingSpec",
    "QueueWaitExceeded",
    "RuntimeFault",
    "RuntimeSpec",
    "Scheduler",
    "ScriptAnswer",
    "ScriptClient",
    "ScriptRequest",
    "ScriptSpec",
    "Session",
    "Signature",
    "TensorSpec",
    "Tensors",
    "Timer",
    "TooLate",
    "Unavailable",
    "WorkItem",
    "available_cores",
    "available_memory",
    "model_files",
    "now_ns",
    "same_but_capacity",
    "thread_ns",
    "worker_state",
    "worker_swagger",
]
