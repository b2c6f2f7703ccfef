"""From a RuntimeSpec to sessions that are proven and warm: what a loader thread does, and may take seconds for.

Steps: check the file, open one session an instance, find samples that run, prove batching, warm up and measure,
choose the dispatch. With `learned` given (another process did it), samples and proof are taken from there.
Ownership: the caller owns the sessions of an OpenModel and closes them; after a failure there is nothing to close.
Errors: LoadFailed, one sentence that names the path.
Units: *_ns nanoseconds.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from runtimes import proof, samples
from runtimes.clock import now_ns
from runtimes.errors import LoadFailed, ModelFailed
from runtimes.onnx.session import open_session
from runtimes.proof import Proof
from runtimes.samples import Recipe
from runtimes.session import Session
from runtimes.signature import Signature, TensorSpec
from runtimes.spec import Learned, RuntimeSpec
from runtimes.tensor import Array

# How long the search for samples and the proof may go on, looked at between runs. The first runs on a device
# compile and measure kernels; TensorRT builds an engine for each new range of shapes.
_PROOF_NS = {"cpu": 5_000_000_000, "cuda": 30_000_000_000, "tensorrt": 600_000_000_000}
_SEARCH_NS = {"cpu": 2_000_000_000, "cuda": 15_000_000_000, "tensorrt": 300_000_000_000}

# A model that is faster than this, whatever the request, runs on the event loop: handing it to a thread would cost
# more than it takes.
_INLINE_ROW_NS = 200_000
_INLINE_BATCH_NS = 1_000_000
_WARM_ROWS_MAX = 16
_TIMED_RUNS = 5
_SLOW_RUN_NS = 20_000_000

Clock = Callable[[], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenModel:
    """Sessions, one an instance, and what is known of the model. Outputs have a batch axis where it is proven.

    `provider` is the execution provider that really runs it.
    """

    sessions: tuple[Session, ...]
    signature: Signature
    learned: Learned
    provider: str = ""


def open_model(spec: RuntimeSpec, learned: Learned | None = None, *, now: Clock = now_ns) -> OpenModel:
    """Blocks for as long as loading, proving and warming take. Errors: LoadFailed."""
    check_file(Path(spec.path), spec.sha256)
    threads = spec.threads or (learned.threads if learned else 1)
    sessions: list[Session] = []
    try:
        for instance in range(max(1, spec.instance_count)):
            sessions.append(open_session(spec, instance, threads))
        return replace(_made_ready(spec, tuple(sessions), threads, learned, now), provider=sessions[0].provider)
    except BaseException:
        for session in sessions:
            session.close()
        raise


def check_file(path: Path, sha256: str = "") -> None:
    """A regular, readable file that is not empty and has this hash (any, where none is given)."""
    try:
        found = path.stat()
    except OSError as fault:
        raise LoadFailed(f"the model file {path} cannot be opened: {os.strerror(fault.errno or 0)}") from None
    if not stat.S_ISREG(found.st_mode):
        raise LoadFailed(f"the model file {path} is not a regular file; a path to one .onnx file is needed")
    if found.st_size == 0:
        raise LoadFailed(f"the model file {path} is empty; a path to one .onnx file is needed")
    try:
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest() if sha256 else sha256
    except OSError as fault:
        raise LoadFailed(f"the model file {path} cannot be read: {os.strerror(fault.errno or 0)}") from None
    if actual != sha256.lower():
        raise LoadFailed(f"the model file {path} changed: its SHA-256 is {actual}, {sha256.lower()} was expected")


def _made_ready(
    spec: RuntimeSpec, sessions: tuple[Session, ...], threads: int, learned: Learned | None, now: Clock
) -> OpenModel:
    candidates = sessions[0].signature
    known = learned or replace(_learn(spec, sessions[0], candidates, now), threads=threads)
    signature = apply(candidates, known)
    run_ns, batch_ns = 0, 0
    if known.sample_shapes:
        warm = _WarmUp(signature, Recipe(shapes=known.sample_shapes, level=known.sample_level), now)
        timings = [warm.times(session, rows) for session in sessions for rows in (1, _warm_rows(spec, known))]
        run_ns, batch_ns = timings[0], timings[1]
        signature = _with_ranks(signature, warm.result)
    if learned is None:
        known = replace(known, run_ns=run_ns, dispatch=_dispatch(spec, signature, run_ns, batch_ns))
    return OpenModel(sessions=sessions, signature=signature, learned=known)


def _learn(spec: RuntimeSpec, session: Session, signature: Signature, now: Clock) -> Learned:
    found = samples.find(session, signature, deadline_ns=now() + _SEARCH_NS[spec.provider], now=now)
    if found.recipe is None:
        return Learned(batched=False, reason=_no_sample(found, signature))
    verdict = _verdict(spec, session, signature, found.recipe, now)
    return Learned(
        batched=verdict.batched,
        reason=verdict.reason,
        input_axes=verdict.input_axes,
        output_axes=verdict.output_axes,
        sample_shapes=dict(found.recipe.shapes),
        sample_level=found.recipe.level,
    )


def _verdict(spec: RuntimeSpec, session: Session, signature: Signature, recipe: Recipe, now: Clock) -> Proof:
    if not spec.batching.enabled:
        return Proof(batched=False, reason="batching is turned off in the deployment's settings")
    rows = samples.draw(signature, recipe)
    return proof.prove(session, signature, rows, deadline_ns=now() + _PROOF_NS[spec.provider], now=now)


def _no_sample(found: samples.Found, signature: Signature) -> str:
    hint = "; fixed sizes in the model make samples easier to find" if samples.unknowns(signature) else ""
    return (
        f"batching could not be proven, as none of {found.tried} generated samples runs "
        f"(the last one: {found.fault}){hint}"
    )


def apply(signature: Signature, learned: Learned) -> Signature:
    """The signature with what was proven: axes on inputs and outputs, or none at all where nothing was."""
    return Signature(
        inputs=_with_axes(signature.inputs, learned.input_axes if learned.batched else {}),
        outputs=_with_axes(signature.outputs, learned.output_axes if learned.batched else {}),
        batched=learned.batched,
    )


def _with_axes(specs: tuple[TensorSpec, ...], axes: dict[str, int]) -> tuple[TensorSpec, ...]:
    return tuple(replace(spec, batch_axis=axes.get(spec.name)) for spec in specs)


def _with_ranks(signature: Signature, result: dict[str, Array]) -> Signature:
    """Outputs whose rank the model does not tell get the one that was seen, with free dimensions."""
    outputs = tuple(
        replace(spec, shape=(-1,) * rank, symbols=(None,) * rank)
        if len(spec.shape) != (rank := result[spec.name].ndim)
        else spec
        for spec in signature.outputs
    )
    return replace(signature, outputs=outputs)


def _warm_rows(spec: RuntimeSpec, learned: Learned) -> int:
    if not learned.batched:
        return 1
    largest = max(1, spec.batching.limits.batch_rows_max)
    # A device plans its memory and its kernels by shape: it must have seen the largest.
    return largest if spec.provider != "cpu" else min(largest, _WARM_ROWS_MAX)


class _WarmUp:
    """Runs samples through sessions and takes the time; `result` is the last answer to one row."""

    def __init__(self, signature: Signature, recipe: Recipe, now: Clock) -> None:
        self._signature = signature
        self._row = samples.row(signature, recipe, 0)
        self._now = now
        self.result: dict[str, Array] = {}

    def times(self, session: Session, rows: int) -> int:
        """The shortest of a few runs, in nanoseconds; a slow model is not run more often than needed."""
        inputs = samples.together(self._signature, [self._row] * rows)
        took: list[int] = []
        while len(took) <= _TIMED_RUNS and (len(took) < 2 or took[-1] < _SLOW_RUN_NS):
            took.append(self._run(session, inputs, rows))
        # The first run pays for allocations and, on a device, for planning.
        return min(took[1:])

    def _run(self, session: Session, inputs: dict[str, Array], rows: int) -> int:
        begun = self._now()
        try:
            result = session.run(inputs, None)
        except ModelFailed as fault:
            raise LoadFailed(f"warming the model up with {rows} rows failed: {fault}") from fault
        if rows == 1:
            self.result = result
        return self._now() - begun


def _dispatch(spec: RuntimeSpec, signature: Signature, run_ns: int, batch_ns: int) -> Literal["inline", "thread"]:
    if spec.dispatch != "auto":
        return spec.dispatch
    is_fast = 0 < run_ns < _INLINE_ROW_NS and batch_ns < _INLINE_BATCH_NS
    # The time of a small sample says nothing of a request a thousand times its size.
    is_known = spec.provider == "cpu" and not samples.unknowns(signature)
    return "inline" if is_fast and is_known else "thread"
