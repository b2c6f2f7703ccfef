"""One model's runs by every way a device has, and the copies that go with them.

How: each way has a session of its own, and the rounds visit all of them in turn, so that a clock that changes does so
for all. Answers of every way are compared with the plain ones before anything is timed.
Units: *_us microseconds, *_s seconds, rates in rows or bytes a second.
Errors: WrongAnswer; NoDevice, with the reason; what loading raises.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from runtimes import proof, samples
from runtimes.errors import LoadFailed
from runtimes.onnx.device import Device
from runtimes.onnx.gate import CaptureGate
from runtimes.onnx.memory import Block, HostMemory, Memory
from runtimes.onnx.session import OnnxSession, open_session
from runtimes.spec import BatchingSpec, BatchLimits, RuntimeSpec
from runtimes.tensor import Array

Provider = Literal["cpu", "cuda"]
WAYS = ("plain", "buffers", "graph")

# A shape is met, tried, and has then run each way.
_WARM_RUNS = 4
_SETTLED_RUNS = 20


class WrongAnswer(Exception):
    """A way gave another answer than the plain run."""


class NoDevice(Exception):
    """The provider cannot be had here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Runs of one model, way and number of rows. `first_us`: the run that allocates and plans; `settling_us`: the one
    that tries every way. `notes`: how the session says it ran."""

    model: str
    way: str
    rows: int
    p50_us: float
    p99_us: float
    rows_per_s: float
    first_us: float
    settling_us: float
    notes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Copying:
    """Bytes to the device. `staged`: copied into pinned memory before; `pinned`: there already."""

    size: int
    staged_us: float
    pinned_us: float
    back_us: float


def runs(name: str, path: Path, provider: Provider, rows: Sequence[int], seconds: float) -> list[Timing]:
    """Every way that this provider has, for each number of rows."""
    with ExitStack() as stack:
        sessions = {way: stack.enter_context(_opened(path, provider, way, rows)) for way in _ways(provider)}
        return [timing for count in rows for timing in _one_size(name, sessions, count, seconds)]


def copies(memory: Memory, sizes: Sequence[int], seconds: float) -> list[Copying]:
    return [_copying(memory, size, seconds) for size in sizes]


def found_memory(path: Path, provider: Provider) -> Memory:
    """The memory that sessions of this provider use. Errors: NoDevice."""
    kept: list[Device | None] = []

    def keep(found: Device | None) -> Device | None:
        kept.append(found)
        return found

    try:
        with closing(open_session(_spec(path, provider, ()), 0, 1, place=keep)):
            found = kept[0]
    except LoadFailed as fault:
        raise NoDevice(str(fault)) from fault
    if found is None:
        return HostMemory()
    if found.memory is None:
        raise NoDevice(found.no_buffers)
    return found.memory


def _ways(provider: Provider) -> tuple[str, ...]:
    return WAYS if provider == "cuda" else WAYS[:2]


def _spec(path: Path, provider: Provider, sizes: Sequence[int]) -> RuntimeSpec:
    limits = BatchLimits(batch_rows_max=max(sizes, default=1), sizes=tuple(sizes))
    return RuntimeSpec(path=str(path), sha256="", provider=provider, batching=BatchingSpec(limits=limits))


@contextmanager
def _opened(path: Path, provider: Provider, way: str, rows: Sequence[int]) -> Iterator[OnnxSession]:
    spec = _spec(path, provider, rows if way == "graph" else ())
    with closing(open_session(spec, 0, 1, place=lambda found: _placed(found, way))) as session:
        yield session


def _placed(found: Device | None, way: str) -> Device:
    """What was found, kept from taking another way than this."""
    if found is None:
        found = Device(memory=HostMemory(), gate=CaptureGate(), buffer_bytes_max=1 << 30)
    if way == "plain":
        return replace(found, memory=None, no_buffers="they are not what is measured")
    return replace(found, pick="furthest", buffer_bytes_max=1 << 30)


def _one_size(name: str, sessions: dict[str, OnnxSession], count: int, seconds: float) -> list[Timing]:
    inputs = _inputs(next(iter(sessions.values())), count)
    early = {way: [_timed(session, inputs) for _ in range(_WARM_RUNS)] for way, session in sessions.items()}
    _compare(sessions, inputs, count)
    took: dict[str, list[float]] = {way: [] for way in sessions}
    ends_s = time.perf_counter() + seconds * len(sessions)
    while not all(took.values()) or time.perf_counter() < ends_s:
        for way, session in sessions.items():
            took[way] += [_timed(session, inputs) for _ in range(_SETTLED_RUNS)]
    return [
        Timing(
            model=name,
            way=way,
            rows=count,
            p50_us=float(np.percentile(values, 50)),
            p99_us=float(np.percentile(values, 99)),
            rows_per_s=count / float(np.mean(values)) * 1e6,
            first_us=early[way][0],
            settling_us=early[way][1],
            notes=sessions[way].device_notes,
        )
        for way, values in took.items()
    ]


def _inputs(session: OnnxSession, count: int) -> dict[str, Array]:
    recipe = next(samples.recipes(session.signature))
    return samples.together(session.signature, samples.draw(session.signature, recipe, count).rows)


def _compare(sessions: dict[str, OnnxSession], inputs: dict[str, Array], count: int) -> None:
    answers = {way: session.run(inputs, None) for way, session in sessions.items()}
    for way, answer in answers.items():
        for name, array in answers["plain"].items():
            if not proof.same(array, answer[name], sessions[way].signature.output(name).datatype):
                raise WrongAnswer(f"output {name!r} of {count} rows by {way} differs from the plain run")


def _timed(session: OnnxSession, inputs: dict[str, Array]) -> float:
    begun = time.perf_counter_ns()
    session.run(inputs, None)
    return (time.perf_counter_ns() - begun) / 1e3


def _copying(memory: Memory, size: int, seconds: float) -> Copying:
    staging, block = memory.pinned(size), memory.allocate(size)
    try:
        return _timed_copies(memory, size, staging, block, seconds)
    finally:
        staging.free()
        block.free()


def _timed_copies(memory: Memory, size: int, staging: Block, block: Block, seconds: float) -> Copying:
    source, back = np.ones(size, np.uint8), np.empty(size, np.uint8)

    def staged() -> None:
        assert staging.bytes is not None
        np.copyto(staging.bytes, source)
        memory.copy(block.address, staging.address, size)

    return Copying(
        size=size,
        staged_us=_median_us(staged, seconds),
        pinned_us=_median_us(lambda: memory.copy(block.address, staging.address, size), seconds),
        back_us=_median_us(lambda: memory.copy(back.ctypes.data, block.address, size), seconds),
    )


def _median_us(work: Callable[[], None], seconds: float) -> float:
    took: list[float] = []
    ends_s = time.perf_counter() + seconds
    while not took or time.perf_counter() < ends_s:
        begun = time.perf_counter_ns()
        work()
        took.append((time.perf_counter_ns() - begun) / 1e3)
    return float(np.median(took))


def plain(values: Sequence[Timing | Copying]) -> list[dict[str, Any]]:
    return [asdict(value) for value in values]
