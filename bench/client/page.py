"""The report as one self-contained HTML page: no script, nothing loaded from elsewhere, light and dark. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from bench.client.charts import WIDTH, WIDTH_ALONE, Axis, Mark, Series, chart, exact, legend, linear, nines, spread
from bench.client.options import ERROR_RATIO_MAX
from bench.client.results import CURVE, PERCENTS, Report, Step, bottlenecks, shortfalls
from bench.client.table import notes

COLOURS = 6
# More percentile curves than this in one chart tell nothing.
CURVES_MAX = COLOURS
_LOAD_LINES = ((50.0, "p50", 0), (90.0, "p90", 1), (99.0, "p99", 2), (99.9, "p99.9", 3))

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --card: #f7f8fa; --ink: #1b1f24; --soft: #5b6470; --hair:
  #e1e5ea;
  --bad: #b3261e; --warn-paper: #fff4dc; --warn-ink: #7a4d00; --bad-paper: #fdeceb;
  --c0: #2563c9; --c1: #0e8f8a; --c2: #c8651b; --c3: #a23a94; --c4: #5b7f1c; --c5: #6b6f76; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171c; --card: #1c2027; --ink: #e8ebef; --soft: #9aa4b1;
  --hair: #2e343d; --bad: #ff8a80; --warn-paper: #3a2d10; --warn-ink: #ffd58a; --bad-paper:
  #3f1d1b;
  --c0: #6ea8ff; --c1: #45c9c2; --c2: #f2a15f; --c3: #dd87d0; --c4: #a5cc62; --c5: #a7adb6; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 32px 20px 56px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 16px; margin: 0 0 2px; }
p { margin: 0; } .soft, figcaption { color: var(--soft); font-size: 13px; }
code { font: 0.94em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 22px 0; }
.tile { background: var(--card); border: 1px solid var(--hair); border-radius: 10px; padding: 12px 16px; }
.tile b { display: block; font-size: 24px; line-height: 1.2; font-weight: 620; font-variant-numeric: tabular-nums; }
.tile b small { font-size: 14px; font-weight: 500; color: var(--soft); }
.tile span { color: var(--soft); font-size: 13px; }
.bad { color: var(--bad); } .weak { color: var(--warn-ink); }
.banner { border-radius: 10px; padding: 10px 16px; margin: 10px 0; background: var(--warn-paper); color:
  var(--warn-ink); }
.banner.bad { background: var(--bad-paper); color: var(--bad); }
.banner ul { margin: 2px 0 0; padding-left: 20px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 500px), 1fr)); gap: 18px; }
.wide { grid-column: 1 / -1; }
figure, section { margin: 0; background: var(--card); border: 1px solid var(--hair); border-radius: 10px;
  padding: 16px 18px 12px; min-width: 0; }
section { margin-top: 18px; padding-bottom: 16px; overflow-x: auto; }
svg { display: block; width: 100%; height: auto; margin-top: 8px; }
.grid { stroke: var(--hair); } .base, .stub { stroke: var(--soft); }
.tick { fill: var(--soft); font-size: 14.5px; font-variant-numeric: tabular-nums; } .title { fill: var(--soft);
  font-size: 14.5px; }
.mark { stroke: var(--soft); stroke-dasharray: 5 4; } .note { fill: var(--soft); font-size: 14px; }
.line { fill: none; stroke-width: 2.2; stroke-linejoin: round; stroke-linecap: round; } .area { opacity: 0.14; }
.line.c0 { stroke: var(--c0); } .line.c1 { stroke: var(--c1); } .line.c2 { stroke: var(--c2); }
.line.c3 { stroke: var(--c3); } .line.c4 { stroke: var(--c4); } .line.c5 { stroke: var(--c5); }
.area.c0, .dot.c0, i.c0 { fill: var(--c0); background: var(--c0); } .area.c1, .dot.c1, i.c1 { fill: var(--c1);
  background: var(--c1); }
.area.c2, .dot.c2, i.c2 { fill: var(--c2); background: var(--c2); } .area.c3, .dot.c3, i.c3 { fill: var(--c3);
  background: var(--c3); }
.area.c4, .dot.c4, i.c4 { fill: var(--c4); background: var(--c4); } .area.c5, .dot.c5, i.c5 { fill: var(--c5);
  background: var(--c5); }
.dot { stroke: var(--card); stroke-width: 1.5; } .dot.ring { fill: var(--card); stroke-width: 2; }
.ring.c0 { stroke: var(--c0); } .ring.c1 { stroke: var(--c1); } .ring.c2 { stroke: var(--c2); } .ring.c3 {
  stroke: var(--c3); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 6px 0 0; padding: 0; font-
  size: 13px; }
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 6px; vertical-
  align: -1px; }
table { border-collapse: collapse; width: 100%; margin-top: 8px; font-variant-numeric: tabular-nums; font-size:
  14px; }
th, td { text-align: right; padding: 6px 10px; border-bottom: 1px solid var(--hair); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; } tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.words { text-align: left; white-space: normal; min-width: 220px; color: var(--soft); }
.bar { display: flex; height: 10px; border-radius: 5px; overflow: hidden; background: var(--hair); min-width:
  180px; }
.bar i { display: block; height: 100%; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; margin: 8px 0 0; font-size: 14px; }
.two { grid-template-columns: max-content 1fr max-content 1fr; }
@media (max-width: 760px) { .two { grid-template-columns: max-content 1fr; } }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
footer { margin-top: 22px; color: var(--soft); font-size: 13px; }
@media print { body { padding: 0; } figure, section, .tile { break-inside: avoid; } }
"""


def page(report: Report) -> str:
    """The whole document."""
    steps = [step for step in report.steps if step.seconds and (step.sums.asked or step.timeline)]
    charts = [_curve_of_load(report, steps)] if len(steps) > 1 else []
    charts += [_curve_of_percentiles(steps), _rate_over_time(steps), _latency_over_time(steps)] if steps else []
    body = [
        f"<h1>Load on <code>{escape(str(report.target['url']))}</code></h1>",
        f'<p class="soft">{escape(_subtitle(report))}</p>',
        *_banners(report),
        _tiles(report, steps),
        f'<div class="charts">{"".join(charts)}</div>' if charts else "<p>Nothing was measured.</p>",
        *([_table(report, steps), _counts(steps)] if steps else []),
        _facts(report),
        "<footer>Made by gateway bench. Latencies of accepted requests (status 200 to 299); refused are timed apart. "
        f"{escape(_how(report))}</footer>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Load report: {escape(str(report.target['url']))}</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _subtitle(report: Report) -> str:
    parts = [str(report.target["format"]), str(report.settings["loop"])]
    if report.target.get("deployment"):
        parts.append(f"deployment {report.target['deployment']}")
    return " · ".join([*parts, report.measured_at, *(["interrupted"] if report.interrupted else [])])


def _how(report: Report) -> str:
    if report.settings["loop"] == "closed loop":
        return (
            "Closed loop: a connection sends again when it has its answer; a stall is seen once by each connection."
        )
    return "Timed from when each request was meant to be sent, so what a stall held up is counted."


def _banners(report: Report) -> list[str]:
    found = []
    for kind, title, lines in (
        ("banner bad", "Not met", report.failures),
        ("banner", "The client was the bottleneck: these figures are not the server's limit", report.warnings),
    ):
        if lines:
            items = "".join(f"<li>{escape(line)}</li>" for line in lines)
            found.append(f'<div class="{kind}"><b>{title}</b><ul>{items}</ul></div>')
    return found


def _tiles(report: Report, steps: Sequence[Step]) -> str:
    if not steps:
        return ""
    best = _chief(report, steps)
    tiles = []
    if report.search:
        found = f"{report.best_rate:,.0f}" if report.best_rate is not None else "none"
        tiles.append((found, "/s", f"highest rate, p99 within {report.settings['slo_p99_ms']:g} ms"))
    tiles.append((f"{best.accepted_rate:,.0f}", "/s", f"accepted at {best.label}"))
    if best.sums.accepted.count:
        tiles += [(_ms(best.p_ms(percent)), " ms", f"p{percent:g}") for percent in (50.0, 99.0, 99.9)]
    tiles.append((f"{best.sums.error_ratio:.2%}" if best.sums.error_ratio else "0", "", "not accepted"))
    cells = "".join(
        f'<div class="tile"><b>{escape(value)}<small>{unit}</small></b><span>{escape(says)}</span></div>'
        for value, unit, says in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _chief(report: Report, steps: Sequence[Step]) -> Step:
    """The step of the tiles: the one that was searched for, or the most answers where nearly all were accepted."""
    if report.best_rate is not None:
        for step in steps:
            if step.rate == report.best_rate:
                return step
    slo_p99_ms = report.settings.get("slo_p99_ms")
    good = [step for step in steps if not shortfalls(step, slo_p99_ms, ERROR_RATIO_MAX)]
    return max(good or steps, key=lambda step: step.accepted_rate)


def _curve_of_load(report: Report, steps: Sequence[Step]) -> str:
    ordered = _by_load(steps)
    slo_p99_ms = report.settings.get("slo_p99_ms")
    lines = [
        Series(
            name=name,
            colour=colour,
            points=[(step.accepted_rate, step.p_ms(percent)) for step in ordered],
            says=[
                f"{step.label}: {step.accepted_rate:,.0f}/s, {name} {step.p_ms(percent):.2f} ms" for step in ordered
            ],
            hollow=[bool(shortfalls(step, slo_p99_ms, None)) for step in ordered],
        )
        for percent, name, colour in _LOAD_LINES
    ]
    values = [value for line in lines for _, value in line.points] + ([slo_p99_ms] if slo_p99_ms else [])
    across = linear("accepted a second", max((step.accepted_rate for step in ordered), default=1.0))
    marks = [Mark(at=slo_p99_ms, says=f"p99 asked: {slo_p99_ms:g} ms")] if slo_p99_ms else []
    caption = "One point a step, by rising load." + (" Rings are over the limit." if slo_p99_ms else "")
    return _figure("Latency and throughput", caption, across, spread("latency, ms", values), lines, marks)


def _curve_of_percentiles(steps: Sequence[Step]) -> str:
    shown = _some(_by_load(steps))
    lines = [
        Series(
            name=step.label,
            colour=number % COLOURS,
            points=[(percent, step.p_ms(percent)) for percent in CURVE],
            says=[f"{step.label}: p{percent:g} {step.p_ms(percent):.2f} ms" for percent in CURVE],
            dots=False,
        )
        for number, step in enumerate(shown)
    ]
    values = [value for line in lines for _, value in line.points]
    up = spread("latency, ms", values)
    # Alone in its row where there is no curve of steps beside it.
    return _figure(
        "Percentiles", "Of accepted requests.", nines("percentile"), up, lines, (), is_wide=len(steps) == 1
    )


def _by_load(steps: Sequence[Step]) -> list[Step]:
    answered = [step for step in steps if step.sums.accepted.count]
    return sorted(answered, key=lambda step: (step.rate or 0, step.connections))


def _some(steps: Sequence[Step]) -> Sequence[Step]:
    """At most so many steps, evenly picked, first and last among them."""
    if len(steps) <= CURVES_MAX:
        return steps
    return [steps[round(number * (len(steps) - 1) / (CURVES_MAX - 1))] for number in range(CURVES_MAX)]


def _rate_over_time(steps: Sequence[Step]) -> str:
    lines = []
    for name, field, colour, fill in (
        ("accepted", "accepted", 0, True),
        ("refused", "refused", 2, False),
        ("failed", "failed", 3, False),
    ):
        points = [(at_s, getattr(point, field) / point.seconds) for at_s, point in _times(steps)]
        if any(value for _, value in points) or name == "accepted":
            lines.append(Series(name=name, colour=colour, points=points, fill=fill, dots=False))
    high = max((value for line in lines for _, value in line.points), default=1.0)
    up = linear("a second", max(high, 1.0))
    return _figure("Rate over time", _time_caption(steps), _time_axis(steps), up, lines, _boundaries(steps))


def _latency_over_time(steps: Sequence[Step]) -> str:
    lines = [
        Series(
            name=name,
            colour=colour,
            points=[(at_s, getattr(point, field)) for at_s, point in _times(steps) if point.p50_ms],
            dots=False,
        )
        for name, field, colour in (("p50", "p50_ms", 0), ("p99", "p99_ms", 2))
    ]
    values = [value for line in lines for _, value in line.points]
    up = spread("latency, ms", values)
    return _figure("Latency over time", _time_caption(steps), _time_axis(steps), up, lines, _boundaries(steps))


def _times(steps: Sequence[Step]) -> Iterable[tuple[float, Any]]:
    """Every slice by its middle, the steps one after the other."""
    began_s = 0.0
    for step in steps:
        for point in step.timeline:
            yield began_s + point.at_s + point.seconds / 2, point
        began_s += step.seconds


def _time_caption(steps: Sequence[Step]) -> str:
    return "Warm-up left out; the steps one after the other." if len(steps) > 1 else "Warm-up left out."


def _time_axis(steps: Sequence[Step]) -> Axis:
    return exact("seconds", sum(step.seconds for step in steps))


def _boundaries(steps: Sequence[Step]) -> list[Mark]:
    """Where each step begins, named where there is room."""
    if len(steps) < 2:
        return []
    marks, began_s = [], 0.0
    for step in steps:
        says = step.label.replace(" connections", "").replace(" connection", "") if len(steps) <= 8 else ""
        marks.append(Mark(at=began_s, says=says, across=False))
        began_s += step.seconds
    return marks


def _figure(
    title: str,
    caption: str,
    across: Axis,
    up: Axis,
    lines: Sequence[Series],
    marks: Sequence[Mark],
    *,
    is_wide: bool = False,
) -> str:
    drawn = chart(across, up, lines, marks, label=title, width=WIDTH_ALONE if is_wide else WIDTH)
    return (
        f'<figure class="{"wide" if is_wide else "half"}"><h2>{escape(title)}</h2>'
        f"<figcaption>{escape(caption)}</figcaption>{legend(lines)}{drawn}</figure>"
    )


def _table(report: Report, steps: Sequence[Step]) -> str:
    head = ["load", "accepted/s", *(f"p{percent:g}" for percent in PERCENTS), "max", "mean", "not accepted", ""]
    rows = "".join(_row(report, step) for step in steps)
    return (
        "<section><h2>Steps</h2><p class='soft'>Latencies in ms.</p><table><tr>"
        + "".join(f"<th>{title}</th>" for title in head)
        + f"</tr>{rows}</table></section>"
    )


def _row(report: Report, step: Step) -> str:
    accepted = step.sums.accepted
    values = [accepted.percentile_ns(percent) / 1e6 for percent in PERCENTS]
    values += [accepted.max_ns / 1e6, accepted.mean_ns / 1e6]
    cells = [f"{step.accepted_rate:,.0f}", *(_ms(value) if accepted.count else "–" for value in values)]
    cells.append(f"{step.sums.error_ratio:.2%}" if step.sums.error_ratio else "0")
    missed = shortfalls(step, report.settings.get("slo_p99_ms"), report.settings.get("max_error_ratio"))
    words = "; ".join([*missed, *([step.note] if step.note else []), step.settled.why])
    kind = ' class="bad"' if missed else ' class="weak"' if bottlenecks(step) else ""
    return (
        f"<tr><td{kind}>{escape(step.label)}</td>"
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + f'<td class="words">{escape(words)}</td></tr>'
    )


def _counts(steps: Sequence[Step]) -> str:
    """What became of the requests: a bar and the counts for each step."""
    kinds = [
        (str(status), status // 100 != 2) for status in sorted({s for step in steps for s in step.sums.statuses})
    ]
    kinds += [(why, True) for why in sorted({why for step in steps for why in step.sums.errors})]
    rows = "".join(_counts_row(step, kinds) for step in steps)
    head = "".join(f"<th>{escape(kind)}</th>" for kind, _ in kinds)
    return (
        "<section><h2>Statuses and errors</h2><p class='soft'>Requests by what became of them.</p>"
        f"<table><tr><th>load</th>{head}<th></th></tr>{rows}</table></section>"
    )


def _counts_row(step: Step, kinds: Sequence[tuple[str, bool]]) -> str:
    counts = {str(status): count for status, count in step.sums.statuses.items()} | dict(step.sums.errors)
    total = sum(counts.values()) or 1
    parts, cells, failing = [], [], 0
    for kind, is_bad in kinds:
        count = counts.get(kind, 0)
        colour = 2 + failing % 4 if is_bad else 0
        failing += is_bad
        cells.append(f"<td>{count:,}</td>" if count else '<td class="soft">0</td>')
        if count:
            share = f"{count / total:.3%}"
            parts.append(f'<i class="c{colour}" style="width:{share}" title="{escape(kind)}: {count:,}"></i>')
    return f'<tr><td>{escape(step.label)}</td>{"".join(cells)}<td><div class="bar">{"".join(parts)}</div></td></tr>'


def _facts(report: Report) -> str:
    facts = report.machine
    packages = facts.get("packages")
    versions = ", ".join(f"{name} {found}" for name, found in packages.items()) if isinstance(packages, dict) else ""
    rows = [
        ("processor", f"{facts['processor']}, {facts['cores']} cores for the client"),
        ("system", f"{facts['system']}, Python {facts['python']}"),
        ("packages", versions),
        *((name.replace("_", " "), _said(value)) for name, value in report.settings.items()),
    ]
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows if value)
    words = "".join(
        f"<dt>{escape(step.label)}</dt><dd>{'<br>'.join(escape(line) for line in notes(step))}</dd>"
        for step in report.steps
        if step.seconds
    )
    return (
        f"<section><h2>Notes</h2><dl>{words}</dl></section>"
        f'<section><h2>Client</h2><dl class="two">{items}</dl></section>'
    )


def _said(value: object) -> str:
    if value is None or value == []:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(str(one) for one in value) if isinstance(value, list) else str(value)


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
