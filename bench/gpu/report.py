"""Timings as tables. Units: microseconds and rows a second; MB/s are 10^6 bytes a second."""

from __future__ import annotations

from collections.abc import Sequence

from bench.gpu.measure import Copying, Timing

RUN_HEADINGS = ("model", "rows", "way", "p50 us", "p99 us", "rows/s", "to plain", "first us", "settling us")
COPY_HEADINGS = ("bytes", "staged us", "pinned us", "back us", "staged MB/s", "pinned MB/s", "back MB/s")


def runs_table(timings: Sequence[Timing]) -> str:
    plain = {(timing.model, timing.rows): timing for timing in timings if timing.way == "plain"}
    return _table([RUN_HEADINGS, *(_run(timing, plain[timing.model, timing.rows]) for timing in timings)])


def _run(timing: Timing, plain: Timing) -> tuple[str, ...]:
    return (
        timing.model,
        str(timing.rows),
        timing.way,
        f"{timing.p50_us:,.1f}",
        f"{timing.p99_us:,.1f}",
        f"{timing.rows_per_s:,.0f}",
        f"{plain.p50_us / timing.p50_us:.2f}",
        f"{timing.first_us:,.0f}",
        f"{timing.settling_us:,.0f}",
    )


def copies_table(copies: Sequence[Copying]) -> str:
    return _table([COPY_HEADINGS, *(_copy(copying) for copying in copies)])


def _copy(copying: Copying) -> tuple[str, ...]:
    times = (copying.staged_us, copying.pinned_us, copying.back_us)
    rates = [f"{copying.size / took:,.0f}" for took in times]
    return (f"{copying.size:,}", *(f"{took:,.1f}" for took in times), *rates)


def notes(timings: Sequence[Timing]) -> str:
    """What each session says of itself, once: whether a graph was one."""
    last = {(timing.model, timing.way): timing.notes for timing in timings}
    return "\n".join(f"{model}, {way}: {told}" for (model, way), told in last.items())


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
