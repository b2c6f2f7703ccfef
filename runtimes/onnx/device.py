"""Runs on a device: plainly, in buffers that stay, or as a CUDA graph; the fastest that gives the plain answer.

Why: a plain run hands its inputs over in memory that the driver copies once more, and starts each kernel by itself.
A shape that comes again has a `Slot`: pinned memory on the host and buffers at fixed addresses on the device, which a
CUDA graph needs, for it writes and reads where it did when it was captured.
How: a shape is run plainly the first time. The second time every way is tried on the request at hand, compared with
the plain answer and timed, and from then on the fastest is taken. Whatever fails is left for the plain run, and the
reason is logged and told by `describe`.
A graph is captured with other inputs than it is checked with, so that one that reads stale values shows. It belongs
to the thread that captured it (onnxruntime keeps graphs by thread): another thread captures and checks anew. A
capture that fails may leave its session unusable, so the session is opened again without graphs.
Ownership: results are arrays of the caller's own. A slot's buffers are freed when its shape is forgotten, or by
`close`; its graph, if it has one, stays in onnxruntime until the session ends and is never run again.
Bounds: shapes, graphs, and bytes of buffers, the least recently used going first.
Threads: `run` is called from one thread at a time.
Errors: whatever the plain run raises.
Units: *_ns nanoseconds, *_bytes bytes.
Source: onnxruntime's CUDA provider (enable_cuda_graph, gpu_graph_id) and its Python IOBinding.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from threading import local
from typing import Any, Literal

import numpy as np

from runtimes.clock import now_ns
from runtimes.onnx.causes import short_cause
from runtimes.onnx.gate import CaptureGate
from runtimes.onnx.memory import Memory
from runtimes.onnx.slot import Slot, run_options
from runtimes.proof import same
from runtimes.signature import Signature
from runtimes.tensor import Array, Datatype, Tensors

logger = logging.getLogger(__name__)

# What bounds the buffers is their bytes; this bounds what is remembered of shapes that never come again.
SHAPES_MAX = 128
# onnxruntime lets no graph go before the session ends.
GRAPHS_MAX = 64
# How long others may be kept waiting for a capture, and how often it is asked for the device.
_CAPTURE_WAIT_S = 0.2
_CAPTURE_TRIES = 3

PlainRun = Callable[[Tensors, Sequence[str]], dict[str, Array]]


class Way(Enum):
    PLAIN = "plainly"
    BOUND = "in fixed buffers"
    GRAPH = "by CUDA graph"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Where a session runs, and how it may.

    `memory`: None where it cannot be reached, with the reason in `no_buffers`: all runs are plain.
    `reopen`: gives the same session without graphs; None where it has none already, with the reason in `no_graphs`.
    `pick`: "measured" takes the fastest way, "furthest" the last that works, for tests and comparisons.
    """

    memory: Memory | None
    gate: CaptureGate
    buffer_bytes_max: int
    reopen: Callable[[], Any] | None = None
    no_graphs: str = ""
    no_buffers: str = ""
    pick: Literal["measured", "furthest"] = "measured"
    now: Callable[[], int] = now_ns


@dataclass(slots=True)
class _Shape:
    """What is known of one shape: how it is run, once that `is_settled`, and how long each way took."""

    way: Way = Way.PLAIN
    is_settled: bool = False
    slot: Slot | None = None
    slot_bytes: int = 0
    took_ns: dict[Way, int] = field(default_factory=dict)
    graph: Any = None
    thread: object = None
    tries_left: int = _CAPTURE_TRIES


class DeviceRuns:
    """All runs of one session on its device."""

    def __init__(self, session: Any, signature: Signature, device: Device, plain: PlainRun) -> None:
        """`plain`: one run by onnxruntime's own means, which captures nothing."""
        self._session = session
        self._device = device
        self._plain = plain
        self._inputs = signature.inputs
        self._outputs = {spec.name: spec for spec in signature.outputs}
        self._shapes: OrderedDict[Hashable, _Shape] = OrderedDict()
        self._buffer_bytes = 0
        self._graphs = 0
        self._without_graph = run_options(-1)
        self._marks = local()
        self._has_graphs = device.reopen is not None
        self._no_graphs = device.no_graphs
        self._only_plain = device.no_buffers if device.memory is None else _only_plain(signature)
        self._plain_because = ""

    def run(self, inputs: Tensors, names: tuple[str, ...]) -> dict[str, Array]:
        key = self._key(inputs, names)
        shape = self._shapes.get(key)
        if key is None or shape is None:
            results = self._run_plain(inputs, names)
            if key is not None:
                self._remember(key)
            return results
        self._shapes.move_to_end(key)
        if not shape.is_settled:
            return self._settle(shape, inputs, names)
        if self._wants_graph(shape):
            return self._with_graph(shape, inputs, names)
        if shape.slot is None or shape.way is Way.PLAIN:
            return self._run_plain(inputs, names)
        return self._run_slot(shape, shape.slot, inputs, names)

    def describe(self) -> str:
        """How the shapes met so far are run, and why not otherwise; one sentence for the deployment's status."""
        if self._only_plain:
            return f"every shape runs {Way.PLAIN.value}: {self._only_plain}"
        ways = Counter(shape.way for shape in self._shapes.values() if shape.is_settled)
        counts = [f"{ways[way]} {way.value}" for way in reversed(Way) if ways[way]]
        told = f"shapes run {', '.join(counts)}" if counts else "no shape has come twice yet"
        reasons = {"without a CUDA graph": self._no_graphs, "without fixed buffers": self._plain_because}
        return "; ".join([told, *(f"{what}, as {why}" for what, why in reasons.items() if why)])

    def close(self) -> None:
        with self._device.gate.run():
            self._forget_all()
        self._session = None

    # -- Shapes.

    def _key(self, inputs: Tensors, names: tuple[str, ...]) -> Hashable:
        """None for what is left to the plain run, which knows best what is wrong with it."""
        if self._only_plain or len(inputs) != len(self._inputs):
            return None
        shapes = []
        for spec in self._inputs:
            array = inputs.get(spec.name)
            if array is None or array.dtype != spec.datatype.dtype or not array.size:
                return None
            shapes.append(array.shape)
        return names, tuple(shapes)

    def _remember(self, key: Hashable) -> None:
        if len(self._shapes) >= SHAPES_MAX:
            with self._device.gate.run():
                self._free(self._shapes.popitem(last=False)[1])
        self._shapes[key] = _Shape()

    def _free(self, shape: _Shape) -> None:
        if shape.slot is not None:
            shape.slot.close()
            self._buffer_bytes -= shape.slot_bytes
        shape.slot, shape.slot_bytes = None, 0

    def _forget_all(self) -> None:
        for shape in self._shapes.values():
            self._free(shape)
        self._shapes.clear()

    def _make_room(self, size: int) -> None:
        """Take the buffers of other shapes, the least recently used first; they may earn them again."""
        for key, shape in list(self._shapes.items()):
            if self._buffer_bytes + size <= self._device.buffer_bytes_max:
                return
            if shape.slot is not None:
                self._free(shape)
                self._shapes[key] = _Shape()

    # -- Runs.

    def _run_plain(self, inputs: Tensors, names: tuple[str, ...]) -> dict[str, Array]:
        with self._device.gate.run():
            return self._plain(inputs, names)

    def _run_slot(self, shape: _Shape, slot: Slot, inputs: Tensors, names: tuple[str, ...]) -> dict[str, Array]:
        try:
            with self._device.gate.run():
                return slot.run(inputs, self._options(shape, shape.way))
        except Exception as fault:  # noqa: BLE001 - whatever it is, the plain run decides whose fault it is
            why = short_cause(fault)
        if shape.way is Way.GRAPH:
            self._give_up_graphs(f"a replay failed: {why}")
            return self._run_plain(inputs, names)
        results = self._run_plain(inputs, names)
        with self._device.gate.run():
            self._leave_plain(shape, f"a run in fixed buffers failed where a plain one did not: {why}")
        return results

    def _options(self, shape: _Shape, way: Way) -> Any:
        return shape.graph if way is Way.GRAPH else self._without_graph

    # -- Settling how a shape is run.

    def _settle(self, shape: _Shape, inputs: Tensors, names: tuple[str, ...]) -> dict[str, Array]:
        with self._device.gate.run():
            expected = self._plain(inputs, names)
            shape.took_ns[Way.PLAIN] = self._timed(lambda: self._plain(inputs, names))
            shape.is_settled = True
            why = self._bind(shape, inputs, expected)
            if why:
                self._leave_plain(shape, why)
        if self._wants_graph(shape):
            self._capture(shape, inputs, names, expected)
        self._choose(shape)
        return expected

    def _bind(self, shape: _Shape, inputs: Tensors, expected: dict[str, Array]) -> str:
        """Give the shape its slot, and try that; returns why not."""
        if not all(array.size for array in expected.values()):
            return "an output is empty"
        size = sum(inputs[spec.name].nbytes for spec in self._inputs)
        size += sum(array.nbytes for array in expected.values())
        if size > self._device.buffer_bytes_max:
            return f"its buffers take {size} bytes; {self._device.buffer_bytes_max} are allowed in all"
        self._make_room(size)
        assert self._device.memory is not None
        given = [(spec, inputs[spec.name].shape) for spec in self._inputs]
        taken = [(self._outputs[name], array.shape) for name, array in expected.items()]
        try:
            shape.slot = Slot(self._session, self._device.memory, given, taken)
            shape.slot_bytes = size
            self._buffer_bytes += size
            return self._check(shape, Way.BOUND, inputs, expected)
        except Exception as fault:  # noqa: BLE001 - MemoryFault, or whatever the bindings raise
            return f"they failed: {short_cause(fault)}"

    def _check(self, shape: _Shape, way: Way, inputs: Tensors, expected: dict[str, Array]) -> str:
        """Run the slot this way, compare and time it; returns what is wrong with the answer."""
        slot, options = shape.slot, self._options(shape, way)
        assert slot is not None
        results = slot.run(inputs, options)
        for name, array in expected.items():
            if not same(array, results[name], self._outputs[name].datatype):
                return f"output {name!r} differs {way.value} from the plain run"
        shape.took_ns[way] = self._timed(lambda: slot.run(inputs, options))
        return ""

    def _timed(self, work: Callable[[], object]) -> int:
        """The shorter of two: what decides for long must not be an accident."""
        took = []
        for _ in range(2):
            begun = self._device.now()
            work()
            took.append(self._device.now() - begun)
        return min(took)

    def _choose(self, shape: _Shape) -> None:
        ways = [way for way in Way if way in shape.took_ns]
        shape.way = ways[-1] if self._device.pick == "furthest" else min(ways, key=shape.took_ns.__getitem__)

    def _leave_plain(self, shape: _Shape, why: str) -> None:
        self._free(shape)
        shape.way, shape.graph = Way.PLAIN, None
        shape.took_ns = {Way.PLAIN: shape.took_ns[Way.PLAIN]}
        self._plain_because = why
        logger.info("a shape is run plainly: %s", why)

    # -- Graphs.

    def _wants_graph(self, shape: _Shape) -> bool:
        """Whether a capture is worth trying: the first in this thread of one that is not known to be slower."""
        if not self._has_graphs or shape.slot is None or not shape.tries_left or shape.thread is self._here():
            return False
        return shape.way is Way.GRAPH or Way.GRAPH not in shape.took_ns

    def _here(self) -> object:
        """This thread's mark. Its number would not do: the next thread may get the same."""
        mark = getattr(self._marks, "mark", None)
        if mark is None:
            mark = self._marks.mark = object()
        return mark

    def _with_graph(self, shape: _Shape, inputs: Tensors, names: tuple[str, ...]) -> dict[str, Array]:
        expected = self._run_plain(inputs, names)
        self._capture(shape, inputs, names, expected)
        self._choose(shape)
        return expected

    def _capture(self, shape: _Shape, inputs: Tensors, names: tuple[str, ...], expected: dict[str, Array]) -> None:
        """Capture in this thread with other inputs, and check with these. What it comes to is in the shape."""
        others = {name: np.roll(array, 1) for name, array in inputs.items()}
        if all(np.array_equal(array, inputs[name]) for name, array in others.items()):
            # Nothing to tell a fresh answer from a stale one by; the next request may have it.
            return
        shape.took_ns.pop(Way.GRAPH, None)
        shape.tries_left -= 1
        if not self._is_fit(shape, others, names, expected) or not self._has_number(shape):
            return
        try:
            why = self._captured(shape, others) or self._checked(shape, inputs, expected)
            failure = ""
        except Exception as fault:  # noqa: BLE001 - a model that cannot be captured is run without
            failure = f"the capture failed: {short_cause(fault)}"
        if failure:
            # Out here, where no traceback holds on to the session any more.
            self._give_up_graphs(failure)
        elif why:
            self._note(shape, why)
        else:
            # From now on the tries count for the next thread.
            shape.thread, shape.tries_left = self._here(), _CAPTURE_TRIES

    def _note(self, shape: _Shape, why: str) -> None:
        """Tell what keeps a shape from its graph, once it is not tried any more."""
        if not shape.tries_left:
            self._no_graphs = why
            logger.info("a shape runs without a CUDA graph: %s", why)

    def _captured(self, shape: _Shape, inputs: Tensors) -> str:
        assert shape.slot is not None
        with self._device.gate.capture(_CAPTURE_WAIT_S) as is_alone:
            if not is_alone:
                return "the device was not free for a capture"
            shape.slot.write(inputs)
            shape.slot.execute(shape.graph)
        return ""

    def _checked(self, shape: _Shape, inputs: Tensors, expected: dict[str, Array]) -> str:
        with self._device.gate.run():
            return self._check(shape, Way.GRAPH, inputs, expected)

    def _is_fit(self, shape: _Shape, others: Tensors, names: tuple[str, ...], expected: dict[str, Array]) -> bool:
        """Whether the model runs with the other inputs, to outputs of the same shapes."""
        try:
            results = self._run_plain(others, names)
        except Exception as fault:  # noqa: BLE001 - these inputs are made up: the model may refuse them
            self._note(shape, f"the model cannot be checked with exchanged inputs: {short_cause(fault)}")
            return False
        if all(results[name].shape == array.shape for name, array in expected.items()):
            return True
        with self._device.gate.run():
            self._leave_plain(shape, "the shapes of its outputs depend on the inputs' values")
        return False

    def _has_number(self, shape: _Shape) -> bool:
        """Numbers of graphs begin at 1 and are never used again: 0 is what a run without one stands for."""
        if shape.graph is None:
            if self._graphs >= GRAPHS_MAX:
                shape.tries_left = 0
                self._note(shape, f"there are {GRAPHS_MAX} already; shapes after those do without")
                return False
            self._graphs += 1
            shape.graph = run_options(self._graphs)
        return True

    def _give_up_graphs(self, why: str) -> None:
        """Go on with a session that knows no graphs; what is bound to the old one is let go with it."""
        logger.warning("CUDA graphs are given up: %s", why)
        self._has_graphs = False
        self._no_graphs = why
        assert self._device.reopen is not None
        with self._device.gate.load():
            self._forget_all()
            self._session = None
            try:
                self._session = self._device.reopen()
            except Exception as fault:  # noqa: BLE001 - the old one is all there is; its runs will tell
                logger.error("the session could not be opened again without graphs: %s", short_cause(fault))


def _only_plain(signature: Signature) -> str:
    """Why this model's tensors cannot lie in buffers, if they cannot."""
    for spec in signature.inputs + signature.outputs:
        if spec.maps or spec.datatype is Datatype.BYTES:
            return f"{spec.name!r} is {'a map' if spec.maps else 'text'}, which has no fixed size"
    return ""
