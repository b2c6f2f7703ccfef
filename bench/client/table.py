"""The report on a terminal. Pure: text out of values."""

from __future__ import annotations

from collections.abc import Sequence

from bench.client.ends import CONNECT, NO_HTTP
from bench.client.latency import Latencies
from bench.client.results import PERCENTS, Report, Step

NOT_MEASURED = "nothing was measured"


def terminal(report: Report) -> str:
    """All steps in a table; then for each what a table hides: refusals, errors, whether it settled."""
    lines = ["", f"{report.target['url']}  {report.target['format']}  {report.settings['loop']}", ""]
    measured = [step for step in report.steps if step.seconds and (step.sums.asked or step.timeline)]
    lines += [*_table(measured), ""] if measured else [NOT_MEASURED, ""]
    for step in measured:
        lines += [f"{step.label}: {said}" for said in notes(step)]
    if report.search:
        lines += ["", f"highest rate with p99 within {report.settings['slo_p99_ms']:g} ms: {report.search}"]
    lines += ["", *(f"! {said}" for said in report.warnings)] if report.warnings else []
    lines += ["", *(f"NOT MET: {said}" for said in report.failures)] if report.failures else []
    lines += ["", facts_line(report)]
    return "\n".join(lines)


def _table(steps: Sequence[Step]) -> list[str]:
    head = ("load (ms)", "accepted/s", *(f"p{percent:g}" for percent in PERCENTS), "max", "mean", "failed")
    rows = [head, *(_row(step) for step in steps)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _row(step: Step) -> tuple[str, ...]:
    sums = step.sums
    rate = f"{step.accepted_rate:,.0f}" if step.accepted_rate >= 100 else f"{step.accepted_rate:.1f}"
    failed = f"{sums.error_ratio:.2%}" if sums.error_ratio else "0"
    return (step.label, rate, *_times(sums.accepted), failed)


def _times(latencies: Latencies) -> list[str]:
    if not latencies.count:
        return ["-"] * (len(PERCENTS) + 2)
    values = [latencies.percentile_ns(percent) for percent in PERCENTS]
    return [f"{value / 1e6:.2f}" for value in (*values, latencies.max_ns, latencies.mean_ns)]


def notes(step: Step) -> list[str]:
    """What is to be known of one step beside its row."""
    sums = step.sums
    statuses = ", ".join(f"{status}: {count:,}" for status, count in sorted(sums.statuses.items()))
    found = [f"{step.seconds:.1f} s, {sums.asked:,} requests; {statuses or 'no answers'}; {step.settled.why}"]
    if step.note:
        found.append(f"cut short: {step.note}")
    if sums.refused.count:
        p50, p99 = (sums.refused.percentile_ns(percent) / 1e6 for percent in (50, 99))
        found.append(
            f"refused {sums.refused.count:,} ({step.refused_rate:,.0f}/s): p50 {p50:.2f} ms, p99 {p99:.2f} ms, "
            f"max {sums.refused.max_ns / 1e6:.2f} ms"
        )
    errors = [f"{count:,} {_word(why)}" for why, count in sorted(sums.errors.items())]
    if errors:
        found.append("errors, which are in no percentile: " + ", ".join(errors))
    if step.mismatches:
        found.append(f"{step.mismatches:,} answers differ from the first answer to the same request")
    return found


def _word(why: str) -> str:
    return {CONNECT: "connections not opened", NO_HTTP: "answers that are no HTTP"}.get(why, why)


def facts_line(report: Report) -> str:
    facts = report.machine
    count = report.settings["processes"]
    return (
        f"client: {facts['processor']}, {facts['cores']} cores, {facts['system']}, Python {facts['python']}; "
        f"{count} generator process{'es' if count != 1 else ''}; {report.measured_at}"
    )
