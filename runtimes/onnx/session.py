"""OnnxSession: a Session over onnxruntime, and the only file that runs it.

Results: tensors as numpy arrays; strings as object arrays of str; sequences of maps and maps as object arrays of
dicts, one a row; BF16 as uint16 bit patterns.
Errors: LoadFailed from `open_session`, ModelFailed from `run`; both one sentence, without paths or source lines of
onnxruntime.

Why plain `run` and no IO binding on the CPU: on a random forest of 6.8 µs a run, binding inputs and outputs each
time costs 9.9 µs, and buffers bound once save 1.8 µs but only for one batch size with outputs of known shape, and
must be copied out before the next run. From tens of microseconds on there is no difference. BF16 is the exception:
numpy has no such type, so its bits go in and out through bound values. Devices have more to win: device.py.

Why these options (measured on 2 cores): spinning keeps a core busy for 26 ms after each run, and 95 % of the speed
is there without it; the CPU arena never gives memory back and is worth 3 % on a convolutional network; memory
patterns are kept for every shape ever seen. Each session has threads of its own: deployments do not share any.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from runtimes.declared import Views, narrowed
from runtimes.errors import LoadFailed, ModelFailed
from runtimes.onnx import providers as eps
from runtimes.onnx.causes import short_cause
from runtimes.onnx.device import Device, DeviceRuns
from runtimes.onnx.gate import process_gate
from runtimes.onnx.memory import Memory, MemoryFault, cuda_memory
from runtimes.onnx.metadata import signature_of
from runtimes.onnx.slot import run_options
from runtimes.signature import Signature, TensorSpec
from runtimes.spec import RuntimeSpec
from runtimes.tensor import Array, Datatype, Tensors

logger = logging.getLogger(__name__)

# onnxruntime's levels: 4 is fatal. At 3 it writes a line for every failed run, so that a caller could fill the log.
_LOG_FATAL = 4
_BFLOAT16 = 16  # TensorProto.DataType
_GRAPH_LEVELS = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


class OnnxSession:
    """One onnxruntime session. It belongs to one instance; `run` is called from one thread at a time."""

    def __init__(
        self, session: Any, signature: Signature, device: Device | None = None, views: Views | None = None
    ) -> None:
        """`device`: where it runs, if that is not plainly on the CPU. `views`: where callers see other shapes."""
        self._session = session
        self._signature = signature
        self._views = views or None
        self._outputs = {spec.name: spec for spec in signature.outputs}
        self._all_outputs = tuple(self._outputs)
        self._has_bf16 = any(spec.datatype is Datatype.BF16 for spec in signature.inputs + signature.outputs)
        # A session that may capture graphs would take a run without this for one to capture.
        self._options = run_options(-1) if device is not None else None
        self._reopen = device.reopen if device is not None else None
        self._on_device: DeviceRuns | None = None
        if device is not None:
            device = replace(device, reopen=self._without_graphs if self._reopen else None)
            self._on_device = DeviceRuns(session, signature, device, self._run_plain)

    def __repr__(self) -> str:
        return f"<OnnxSession {'closed' if self._session is None else self._session.get_providers()[0]}>"

    @property
    def signature(self) -> Signature:
        return self._signature

    @property
    def provider(self) -> str:
        """Where it really runs, as onnxruntime calls it: after an allowed fallback not what was asked for."""
        return str(self._session.get_providers()[0])

    @property
    def device_notes(self) -> str:
        """How runs go about on the device, in one sentence; "" on the CPU."""
        return self._on_device.describe() if self._on_device is not None else ""

    def run(self, inputs: Tensors, outputs: tuple[str, ...] | None) -> dict[str, Array]:
        names = self._all_outputs if outputs is None else outputs
        try:
            run = self._run_plain if self._on_device is None else self._on_device.run
            if self._views is None:
                return run(inputs, names)
            return self._views.leave(run(self._views.enter(inputs), names))
        except Exception as fault:  # noqa: BLE001 - whatever the bindings raise is the model's failure, not ours
            failure = ModelFailed(f"the model failed: {short_cause(fault)}")
        # Raised out here, so that no chained traceback keeps the batch's arrays alive.
        raise failure

    def close(self) -> None:
        if self._on_device is not None:
            self._on_device.close()
        # onnxruntime frees weights, arenas and threads with the last reference.
        self._session = self._on_device = None

    def _run_plain(self, inputs: Tensors, names: Sequence[str]) -> dict[str, Array]:
        if self._session is None:
            raise RuntimeError("its session is closed")
        if self._has_bf16:
            values = self._run_bound(inputs, names)
        else:
            values = self._session.run(list(names), dict(inputs), self._options)
        return {name: _array(self._outputs[name], value) for name, value in zip(names, values, strict=True)}

    def _without_graphs(self) -> Any:
        """Let the session go, and take one that captures nothing. Errors: LoadFailed."""
        assert self._reopen is not None
        # Before the other comes: the device may have no room for two.
        self._session = None
        self._session = self._reopen()
        return self._session

    def _run_bound(self, inputs: Tensors, names: Sequence[str]) -> list[Any]:
        binding = self._session.io_binding()
        # A bound value borrows the array's memory: `kept` keeps it until the run is over.
        kept = [np.asarray(array, order="C") for array in inputs.values()]
        for name, array in zip(inputs, kept, strict=True):
            binding.bind_ortvalue_input(name, _ort_value(self._signature.input(name), array))
        for name in names:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding, self._options)
        return [
            _bits(value) if value.element_type() == _BFLOAT16 else value.numpy() for value in binding.get_outputs()
        ]


def open_session(
    spec: RuntimeSpec,
    instance: int,
    threads: int,
    *,
    place: Callable[[Device | None], Device | None] | None = None,
) -> OnnxSession:
    """Load the model for one instance, on the spec's provider or, where that is allowed, on the CPU. `place` has the
    last word on how it runs there: it is given the device, None for the CPU. The file has been checked before
    (model_file.py)."""
    try:
        session, found = _on_wanted_provider(spec, instance, threads)
    except LoadFailed as fault:
        # Which of the two is at fault? A model that loads on the CPU is sound, so the device is.
        if spec.provider == "cpu":
            raise
        session, found = _create(spec, eps.cpu_only(), threads), None
        if not spec.allow_cpu_fallback:
            raise fault
    signature = signature_of(session.get_inputs(), session.get_outputs(), spec.batching.axes)
    _check_bf16(signature)
    views = Views()
    if spec.declared is not None:
        signature, views = narrowed(signature, spec.declared, spec.batching.axes)
    return OnnxSession(session, signature, found if place is None else place(found), views)


def _on_wanted_provider(spec: RuntimeSpec, instance: int, threads: int) -> tuple[Any, Device | None]:
    eps.check_available(spec, ort.get_available_providers())
    if spec.provider == "cpu":
        return _create(spec, eps.cpu_only(), threads), None
    _prepare_device(spec)

    def create(*, graphs: bool) -> Any:
        return _create(spec, eps.providers(spec, instance, ort.__version__, graphs=graphs), threads)

    with process_gate().load():
        session, no_graphs = _with_graphs_if_possible(spec, create)
    if eps.provider_name(spec) not in session.get_providers():
        # onnxruntime goes on without a provider whose libraries or device it cannot find.
        raise LoadFailed(eps.unusable(spec, "onnxruntime found no such device, or not its libraries"))
    return session, _device(spec, instance, no_graphs, lambda: create(graphs=False))


def _with_graphs_if_possible(spec: RuntimeSpec, create: Callable[..., Any]) -> tuple[Any, str]:
    """The session, and why it captures no CUDA graphs, if it does not."""
    why = eps.no_graphs(spec)
    if not why:
        try:
            return create(graphs=True), ""
        except LoadFailed as fault:
            # Control flow, or a node that only the CPU can compute. What else is wrong will show again.
            why = short_cause(fault.__cause__ or fault)
    try:
        session = create(graphs=False)
    except LoadFailed as fault:
        raise LoadFailed(eps.unusable(spec, f"onnxruntime cannot use it here ({fault})")) from fault
    logger.info("%s runs without CUDA graphs: %s", spec.origin or spec.path, why)
    return session, why


def _device(spec: RuntimeSpec, instance: int, no_graphs: str, reopen: Callable[[], Any]) -> Device:
    number = eps.device_of(spec, instance)
    memory: Memory | None
    try:
        memory, no_buffers = cuda_memory(number), ""
    except MemoryFault as fault:
        memory, no_buffers = None, str(fault)
        logger.warning("runs on CUDA device %d use no fixed buffers: %s", number, fault)
    return Device(
        memory=memory,
        no_buffers=no_buffers,
        gate=process_gate(),
        buffer_bytes_max=eps.buffer_bytes_max(spec),
        reopen=None if no_graphs else reopen,
        no_graphs=no_graphs,
    )


def _prepare_device(spec: RuntimeSpec) -> None:
    # Finds CUDA and cuDNN where they were installed as Python packages; newer versions of onnxruntime only.
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        preload()
    if spec.provider == "tensorrt" and spec.cache_dir:
        eps.cache_folder(spec, ort.__version__).mkdir(parents=True, exist_ok=True)


def _create(spec: RuntimeSpec, providers: list[eps.Provider], threads: int) -> Any:
    path = Path(spec.path).resolve()
    try:
        # Without enable_fallback=0 it would print, and go on with the CPU in silence.
        return ort.InferenceSession(
            str(path), _options(threads, spec.graph_level), providers=providers, enable_fallback=0
        )
    except Exception as fault:
        name = spec.origin or str(path)
        raise LoadFailed(f"{name} is not an ONNX model that onnxruntime can load: {short_cause(fault)}") from fault


def _options(threads: int, graph_level: str) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = _GRAPH_LEVELS[graph_level]
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
