"""OnnxSession: a Session over onnxruntime, and the only file that runs it.

Results: tensors as numpy arrays; strings as object arrays of str; sequences of maps and maps as object arrays of
dicts, one a row; BF16 as uint16 bit patterns.
Errors: LoadFailed from `open_session`, ModelFailed from `run`; both one sentence, without paths or source lines of
onnxruntime.

Why plain `run` and no IO binding: on a random forest of 6.8 µs a run, binding inputs and outputs each time costs
9.9 µs, and buffers bound once save 1.8 µs but only for one batch size with outputs of known shape, and must be
copied out before the next run. From tens of microseconds on there is no difference. On CUDA and TensorRT `run`
makes the same two copies as binding host memory would; what would save time there is pinned memory and CUDA
graphs, and the Python interface of onnxruntime offers no pinned buffers. BF16 is the exception: numpy has no such
type, so its bits go in and out through bound values.

Why these options (measured on 2 cores): spinning keeps a core busy for 26 ms after each run, and 95 % of the speed
is there without it; the CPU arena never gives memory back and is worth 3 % on a convolutional network; memory
patterns are kept for every shape ever seen. Each session has threads of its own: deployments do not share any.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from runtimes.errors import LoadFailed, ModelFailed
from runtimes.onnx import external
from runtimes.onnx import providers as eps
from runtimes.onnx.metadata import signature_of
from runtimes.signature import Signature, TensorSpec
from runtimes.spec import RuntimeSpec
from runtimes.tensor import Array, Datatype, Tensors

# onnxruntime's levels: 4 is fatal. At 3 it writes a line for every failed run, so that a caller could fill the log.
_LOG_FATAL = 4
_BFLOAT16 = 16  # TensorProto.DataType
_CAUSE_CHARS_MAX = 200


class OnnxSession:
    """One onnxruntime session. It belongs to one instance; `run` is called from one thread at a time."""

    def __init__(self, session: Any, signature: Signature) -> None:
        self._session = session
        self._signature = signature
        self._outputs = {spec.name: spec for spec in signature.outputs}
        self._all_outputs = tuple(self._outputs)
        self._has_bf16 = any(spec.datatype is Datatype.BF16 for spec in signature.inputs + signature.outputs)

    def __repr__(self) -> str:
        return f"<OnnxSession {'closed' if self._session is None else self._session.get_providers()[0]}>"

    @property
    def signature(self) -> Signature:
        return self._signature

    @property
    def provider(self) -> str:
        """Where it really runs, as onnxruntime calls it: after an allowed fallback not what was asked for."""
        return str(self._session.get_providers()[0])

    def run(self, inputs: Tensors, outputs: tuple[str, ...] | None) -> dict[str, Array]:
        names = self._all_outputs if outputs is None else outputs
        try:
            if self._has_bf16:
                values = self._run_bound(inputs, names)
            else:
                values = self._session.run(list(names), dict(inputs))
            return {name: _array(self._outputs[name], value) for name, value in zip(names, values, strict=True)}
        except Exception as fault:  # noqa: BLE001 - whatever the bindings raise is the model's failure, not ours
            failure = ModelFailed(f"the model failed: {short_cause(fault)}")
        # Raised out here, so that no chained traceback keeps the batch's arrays alive.
        raise failure

    def close(self) -> None:
        # onnxruntime frees weights, arenas and threads with the last reference.
        self._session = None

    def _run_bound(self, inputs: Tensors, names: Sequence[str]) -> list[Any]:
        binding = self._session.io_binding()
        # A bound value borrows the array's memory: `kept` keeps it until the run is over.
        kept = [np.asarray(array, order="C") for array in inputs.values()]
        for name, array in zip(inputs, kept, strict=True):
            binding.bind_ortvalue_input(name, _ort_value(self._signature.input(name), array))
        for name in names:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        return [
            _bits(value) if value.element_type() == _BFLOAT16 else value.numpy() for value in binding.get_outputs()
        ]


def open_session(spec: RuntimeSpec, instance: int, threads: int) -> OnnxSession:
    """Load the model for one instance, on the spec's provider or, where that is allowed, on the CPU."""
    path = Path(spec.path).resolve()
    external.check(path)
    try:
        session = _on_wanted_provider(spec, path, instance, threads)
    except LoadFailed as fault:
        # Which of the two is at fault? A model that loads on the CPU is sound, so the device is.
        if spec.provider == "cpu":
            raise
        session = _create(path, eps.cpu_only(), threads)
        if not spec.allow_cpu_fallback:
            raise fault
    signature = signature_of(session.get_inputs(), session.get_outputs(), spec.batching.axes)
    _check_bf16(signature)
    return OnnxSession(session, signature)


def _on_wanted_provider(spec: RuntimeSpec, path: Path, instance: int, threads: int) -> Any:
    eps.check_available(spec, ort.get_available_providers())
    if spec.provider == "cpu":
        return _create(path, eps.cpu_only(), threads)
    _prepare_device(spec)
    try:
        session = _create(path, eps.providers(spec, instance, ort.__version__), threads)
    except LoadFailed as fault:
        raise LoadFailed(eps.unusable(spec, f"onnxruntime cannot use it here ({fault})")) from fault
    if eps.provider_name(spec) not in session.get_providers():
        # onnxruntime goes on without a provider whose libraries or device it cannot find.
        raise LoadFailed(eps.unusable(spec, "onnxruntime found no such device, or not its libraries"))
    return session


def _prepare_device(spec: RuntimeSpec) -> None:
    # Finds CUDA and cuDNN where they were installed as Python packages; newer versions of onnxruntime only.
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        preload()
    if spec.provider == "tensorrt" and spec.cache_dir:
        eps.cache_folder(spec, ort.__version__).mkdir(parents=True, exist_ok=True)


def _create(path: Path, providers: list[eps.Provider], threads: int) -> Any:
    try:
        # Without enable_fallback=0 it would print, and go on with the CPU in silence.
        return ort.InferenceSession(str(path), _options(threads), providers=providers, enable_fallback=0)
    except Exception as fault:
        raise LoadFailed(f"{path} is not an ONNX model that onnxruntime can load: {short_cause(fault)}") from fault


def _options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_FATAL
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Whatever the file is called, it is read as the format that was checked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def _check_bf16(signature: Signature) -> None:
    has_bf16 = any(spec.datatype is Datatype.BF16 for spec in signature.inputs + signature.outputs)
    maps = next((spec.name for spec in signature.outputs if spec.maps), None)
    if has_bf16 and maps is not None:
        raise LoadFailed(
            f"the model has BF16 tensors beside output {maps!r}, a map; only one of the two is supported"
        )


def _array(spec: TensorSpec, value: Any) -> Array:
    if spec.maps:
        rows = value if isinstance(value, list) else [value]
        array = np.empty(len(rows), dtype=np.object_)
        array[:] = rows
        return array
    # A scalar may come back as a numpy scalar.
    return np.asarray(value, dtype=spec.datatype.dtype)


def _ort_value(spec: TensorSpec, array: Array) -> Any:
    if spec.datatype is Datatype.BF16:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array)


def _bits(value: Any) -> Array:
    """A copy of the bit patterns; the memory goes with the value."""
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(bytearray(raw), dtype=np.uint16).reshape(value.shape())


_STATUS = re.compile(r"^(?:\[ONNXRuntimeError\] : \d+ : \w+ : )?(?:Load model from \S+ failed: ?)?")
_NODE = re.compile(r"Non-zero status code returned while running (\S+) node\. Name:'[^']*' Status Message: ")
# A place in onnxruntime's source: file, line, and the signature of the function.
_PLACE = re.compile(r"\S*/\S+\.(?:cc|h|cu|cuh|hpp):\d+ .*?\)(?: const)?(?: \[with [^\]]*\])?(?:::<lambda\S*>)? ?")
_PATH = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[/\\][^\s'\",;:]+")


def short_cause(fault: BaseException) -> str:
    """What onnxruntime said, as part of one sentence: first line, no status prefix, paths or source places."""
    text = _STATUS.sub("", str(fault).strip())
    nodes = _NODE.findall(text)
    text = _PLACE.sub("", _NODE.sub("", text)).strip()
    text = _PATH.sub("…", text.splitlines()[0] if text else type(fault).__name__).strip().rstrip(".")
    if nodes:
        text = f"{nodes[-1]}: {text}"
    return text if len(text) <= _CAUSE_CHARS_MAX else text[: _CAUSE_CHARS_MAX - 1] + "…"
