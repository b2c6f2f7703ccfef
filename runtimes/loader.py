"""From a RuntimeSpec to sessions that are proven and warm: what a loader thread does, and may take seconds for.

Steps: check the file, open a session, find samples that run, prove batching and padding, measure, choose dispatch,
batch limit, threads and instances, open the other instances' sessions and warm them. With `learned` given (another
process did it), samples, proof, times and choices are taken from there; how many instances there are, never.
A model that is served already gets further sessions with `open_more`, by what was learned of it.
Ownership: the caller owns the sessions that it is given and closes them; after a failure there is nothing to close.
Errors: LoadFailed, one sentence that names the path.
Units: *_ns nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from runtimes import model_file, proof, samples
from runtimes.choices import Measured, choose, instances, sizes
from runtimes.clock import now_ns
from runtimes.measure import Bench
from runtimes.onnx.session import OnnxSession, open_session
from runtimes.padding.proof import prove_padding
from runtimes.padding.rules import mask_of
from runtimes.proof import Proof
from runtimes.samples import Recipe
from runtimes.session import Session
from runtimes.signature import Signature, TensorSpec
from runtimes.spec import Learned, RuntimeSpec
from runtimes.tensor import Array

# How long the search for samples and the proof may go on, looked at between runs. The first runs on a device
# compile and measure kernels; TensorRT builds an engine for each new range of shapes.
_PROOF_NS = {"cpu": 5_000_000_000, "cuda": 30_000_000_000, "tensorrt": 600_000_000_000}
_PADDING_NS = {"cpu": 10_000_000_000, "cuda": 60_000_000_000, "tensorrt": 600_000_000_000}
_SEARCH_NS = {"cpu": 2_000_000_000, "cuda": 15_000_000_000, "tensorrt": 300_000_000_000}

_WARM_ROWS_MAX = 16

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


def open_model(
    spec: RuntimeSpec, learned: Learned | None = None, *, cores: int = 1, now: Clock = now_ns
) -> OpenModel:
    """Blocks for as long as loading, proving and warming take; `cores` are those that this process may use.
    Errors: LoadFailed."""
    stamp = model_file.check(Path(spec.path), spec.sha256, learned.stamp if learned else ())
    threads = spec.threads or (learned.threads if learned else 1)
    sessions: list[Session] = [open_session(spec, 0, threads)]
    try:
        model = _made_ready(spec, sessions, threads, learned, cores, now)
        return replace(model, learned=replace(model.learned, stamp=stamp), provider=sessions[0].provider)
    except BaseException:
        _close(sessions)
        raise


def with_capacity(spec: RuntimeSpec, learned: Learned, cores: int) -> Learned:
    """What was learned, with as many instances as the spec gives a process with so many cores."""
    count, why = instances(spec, learned.dispatch, cores)
    return replace(learned, instances=count, reasons={**learned.reasons, "instances": why})


def open_more(
    spec: RuntimeSpec, learned: Learned, signature: Signature, have: int, *, now: Clock = now_ns
) -> tuple[Session, ...]:
    """Warm sessions for a model with this signature of which `have` are open, up to the instances in `learned`.
    Blocks as `open_model` does, but proves and measures nothing. Errors: LoadFailed."""
    model_file.check(Path(spec.path), spec.sha256, learned.stamp)
    sessions: list[Session] = []
    try:
        _open_others(spec, sessions, have, learned, _bench(signature, learned, now))
    except BaseException:
        _close(sessions)
        raise
    return tuple(sessions)


def _made_ready(
    spec: RuntimeSpec, sessions: list[Session], threads: int, learned: Learned | None, cores: int, now: Clock
) -> OpenModel:
    """One session to learn from; the others are opened once it is known how many there shall be."""
    first = sessions[0]
    mask = mask_of(first.signature, spec.batching.padding)
    known = learned or _learn(spec, first, first.signature, now)
    signature = replace(apply(first.signature, known), mask=mask)
    bench = _bench(signature, known, now)
    if learned is None:
        limits = spec.batching.limits
        times = {}
        if bench is not None:
            measured = sizes(limits) if known.batched else (1,)
            times = bench.times(first, measured, spec.provider, may_fail=limits.rows_learned)
        known = _with_choices(spec, signature, known, times, bench.failed_rows if bench else 0, cores)
    else:
        known = with_capacity(spec, known, cores)
    if bench is not None and (learned is not None or _has_shapes(spec, known)):
        bench.warm(first, _warm_sizes(spec, known))
    _open_others(spec, sessions, 1, known, bench)
    if bench is not None:
        signature = _with_ranks(signature, bench.result)
    return OpenModel(sessions=tuple(sessions), signature=signature, learned=_with_device(known, first))


def _bench(signature: Signature, known: Learned, now: Clock) -> Bench | None:
    """What runs samples, where some are known to run."""
    if not known.sample_shapes:
        return None
    return Bench(signature, Recipe(shapes=known.sample_shapes, level=known.sample_level), now)


def _open_others(spec: RuntimeSpec, sessions: list[Session], have: int, known: Learned, bench: Bench | None) -> None:
    """Append a warm session for each instance from number `have` on."""
    threads = spec.threads or known.threads
    for instance in range(have, known.instances):
        sessions.append(open_session(spec, instance, threads))
        if bench is not None:
            bench.warm(sessions[-1], _warm_sizes(spec, known))


def _close(sessions: list[Session]) -> None:
    for session in sessions:
        session.close()


def _learn(spec: RuntimeSpec, session: Session, signature: Signature, now: Clock) -> Learned:
    found = samples.find(session, signature, deadline_ns=now() + _SEARCH_NS[spec.provider], now=now)
    if found.recipe is None:
        return Learned(batched=False, reason=_no_sample(found, signature))
    verdict = _verdict(spec, session, signature, found.recipe, now)
    learned = Learned(
        batched=verdict.batched,
        reason=verdict.reason,
        input_axes=verdict.input_axes,
        output_axes=verdict.output_axes,
        sample_shapes=dict(found.recipe.shapes),
        sample_level=found.recipe.level,
    )
    return _with_padding(spec, session, signature, learned, now)


def _with_padding(spec: RuntimeSpec, session: Session, signature: Signature, learned: Learned, now: Clock) -> Learned:
    """Whether requests of different lengths may share a run, where that is asked for."""
    wanted = spec.batching.padding
    if wanted is None:
        return learned
    if not learned.batched:
        return replace(learned, padding_reason="lengths are not padded, as requests share no run")
    found = prove_padding(
        session,
        apply(signature, learned),
        Recipe(shapes=learned.sample_shapes, level=learned.sample_level),
        wanted,
        to_bucket=spec.provider != "cpu",
        deadline_ns=now() + _PADDING_NS[spec.provider],
        now=now,
    )
    return replace(learned, padding=found.padding, padding_reason=found.reason)


def _verdict(spec: RuntimeSpec, session: Session, signature: Signature, recipe: Recipe, now: Clock) -> Proof:
    if not spec.batching.enabled:
        return Proof(batched=False, reason=spec.batching.why_not)
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
        padding=learned.padding,
        rows_max=signature.rows_max,
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


def _warm_sizes(spec: RuntimeSpec, known: Learned) -> tuple[int, ...]:
    """The sizes that every session has seen before it serves."""
    largest = (known.rows_max or spec.batching.limits.batch_rows_max) if known.batched else 1
    if _has_shapes(spec, known):
        return sizes(replace(spec.batching.limits, batch_rows_max=largest))
    # A device plans its memory and its kernels by shape: it must have seen the largest.
    return (1, largest if spec.provider != "cpu" else min(largest, _WARM_ROWS_MAX))


def _has_shapes(spec: RuntimeSpec, known: Learned) -> bool:
    """Whether a device will meet few shapes only, for each of which it has something to prepare."""
    return spec.provider != "cpu" and known.batched and bool(spec.batching.limits.sizes)


def _with_device(known: Learned, session: Session) -> Learned:
    """With how the first session's runs go about on its device, if it has one."""
    notes = session.device_notes if isinstance(session, OnnxSession) else ""
    return replace(known, reasons={**known.reasons, "device": notes}) if notes else known


def _with_choices(
    spec: RuntimeSpec, signature: Signature, known: Learned, times: dict[int, int], failed_rows: int, cores: int
) -> Learned:
    # The time of a small sample says nothing of a request a thousand times its size.
    is_free = bool(samples.unknowns(signature))
    measured = Measured(batched=known.batched, times=times, is_free=is_free, failed_rows=failed_rows)
    chosen = choose(spec, measured, cores)
    return replace(
        known,
        run_ns=times.get(1, 0),
        run_times=times,
        dispatch=chosen.dispatch,
        rows_max=chosen.rows_max,
        threads=chosen.threads,
        instances=chosen.instances,
        reasons=chosen.reasons,
    )
