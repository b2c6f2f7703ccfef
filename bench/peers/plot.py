"""The result as one self-contained picture: each peer's rate as a share of this gateway's, and its p50.

Units: shares without a unit, the gateway's own rate is 1; p50 microseconds at one connection, on a logarithmic axis.
The style sheet inside answers the reader's light or dark scheme; nothing is loaded from elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench.peers.catalogue import CEILING, GATEWAY, PEERS
from bench.peers.table import RAW
from bench.peers.view import Document, Line, lines

PANELS = (("tabular-1", "random forest, 30 floats"), ("mlp-1", "512-2048-2048-10 network"))
CONNECTIONS = 64
LEFT, PANEL, GAP, TOP, ROW, BAR = 200, 230, 40, 74, 34, 11
AXIS, LATENCY = 110, 190
# The axis of shares reaches at least this far.
SHARE_MAX = 1.2
STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
.title { font-size: 15px; font-weight: 600; } .head { font-weight: 600; } .dim { fill: #59636e; }
.value { font-size: 10.5px; } .ours { font-weight: 700; }
.text { fill: #0969da; } .binary { fill: #bf5700; } .inside { fill: #ffffff; }
.rule { stroke: #59636e; stroke-dasharray: 3 3; } .grid { stroke: #d1d9e0; } .page { fill: #ffffff; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .dim { fill: #9198a1; } .text { fill: #58a6ff; } .binary { fill: #f0883e; }
  .inside { fill: #0d1117; } .rule { stroke: #9198a1; } .grid { stroke: #3d444d; } .page { fill: #0d1117; }
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """One peer: its text and its binary line in a table, each if it has one."""

    peer: str
    title: str
    text: Line | None
    binary: Line | None

    def present(self) -> list[Line]:
        return [line for line in (self.text, self.binary) if line is not None]


def plot(document: Document) -> str:
    panels = [(title, _bars(document, name)) for name, title in PANELS if name in document["tables"]]
    names = _order(panels)
    height = TOP + ROW * len(names) + 46
    width = LEFT + len(panels) * (PANEL + GAP + LATENCY)
    parts = [_heading(document), *_labels(names, panels)]
    x = LEFT
    for title, bars in panels:
        parts += _share_panel(title, bars, names, x)
        x += PANEL + GAP
    parts.append(f'<text class="head" x="{x}" y="{TOP - 28}">p50 at one connection</text>')
    for title, bars in panels:
        parts += _latency_panel(title, bars, names, x)
        x += LATENCY
    parts.append(_legend(height))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="Rates of model servers as shares of this gateway\'s">\n<style>{STYLE}</style>\n'
        f'<rect class="page" width="{width}" height="{height}" rx="6"/>\n{body}\n</svg>\n'
    )


def _bars(document: Document, table: str) -> dict[str, Bars]:
    found = [line for line in lines(document, table) if line.peer not in (RAW, CEILING)]
    made = {}
    for name in dict.fromkeys(line.peer for line in found):
        of_peer = {line.binary: line for line in found if line.peer == name}
        title = next(iter(of_peer.values())).title
        made[name] = Bars(peer=name, title=title, text=of_peer.get(False), binary=of_peer.get(True))
    return made


def _order(panels: Sequence[tuple[str, dict[str, Bars]]]) -> list[str]:
    """This gateway, then by the best share in the first panel that has the peer."""
    best: dict[str, float] = {}
    for _, bars in panels:
        for name, bar in bars.items():
            shares = [line.cells[CONNECTIONS].share or 0.0 for line in bar.present() if CONNECTIONS in line.cells]
            best.setdefault(name, max(shares, default=0.0))
    return sorted(best, key=lambda name: (name != GATEWAY, -best[name]))


def _heading(document: Document) -> str:
    facts = f"{document['machine']['processor']}, servers on one core, measured {document['measured']}"
    return (
        f'<text class="title" x="20" y="26">Requests a second, as a share of this gateway\'s</text>\n'
        f'<text class="dim" x="20" y="44">{CONNECTIONS} connections, one row a request; {escape(facts)}</text>'
    )


def _labels(names: Sequence[str], panels: Sequence[tuple[str, dict[str, Bars]]]) -> list[str]:
    titles = {peer.name: peer.title for peer in PEERS}
    titles |= {name: bar.title for _, bars in panels for name, bar in bars.items()}
    return [
        f'<text class="{"ours" if name == GATEWAY else ""}" x="{LEFT - 10}" y="{_middle(row) + 4}" '
        f'text-anchor="end">{escape(titles[name])}</text>'
        for row, name in enumerate(names)
    ]


def _share_panel(title: str, bars: dict[str, Bars], names: Sequence[str], x: int) -> list[str]:
    shares = [line.cells[CONNECTIONS].share or 0.0 for bar in bars.values() for line in bar.present()]
    scale = PANEL / max([SHARE_MAX, *shares])
    bottom = TOP + ROW * len(names)
    parts = [f'<text class="head" x="{x}" y="{TOP - 10}">{escape(title)}</text>']
    parts.append(f'<line class="rule" x1="{x + scale:.1f}" x2="{x + scale:.1f}" y1="{TOP}" y2="{bottom}"/>')
    for row, name in enumerate(names):
        shown = bars[name].present() if name in bars else []
        if not shown:
            parts.append(f'<text class="dim value" x="{x + 4}" y="{_middle(row) + 4}">not measured</text>')
        for at, line in enumerate(shown):
            y = _middle(row) - BAR * len(shown) / 2 + at * BAR
            parts.append(_share_bar(line, x, y, scale))
    return parts


def _share_bar(line: Line, x: int, y: float, scale: float) -> str:
    cell = line.cells[CONNECTIONS]
    share = cell.share or 0.0
    width = max(1.0, share * scale)
    marks = "~" * cell.weak
    words = f"{share:.2f}{marks} ({cell.rate:,.0f}/s)" if line.peer != GATEWAY else f"{cell.rate:,.0f}/s{marks}"
    inside = width > PANEL * 0.55
    at = x + width - 4 if inside else x + width + 4
    place = f'x="{at:.1f}" y="{y + BAR - 2.5:.1f}" text-anchor="{"end" if inside else "start"}"'
    return (
        f'<rect class="{_kind(line)}" x="{x}" y="{y:.1f}" width="{width:.1f}" height="{BAR - 1}" rx="2">'
        f"<title>{escape(line.title)}, {escape(line.wire)}: {cell.rate:,.0f} a second</title></rect>\n"
        f'<text class="value{" inside" if inside else ""}" {place}>{words}</text>'
    )


def _latency_panel(title: str, bars: dict[str, Bars], names: Sequence[str], x: int) -> list[str]:
    """A dot for each wire format; the figure stands beside the slower one."""
    every = [cell for bar in bars.values() for cell in (_alone(line) for line in bar.present()) if cell]
    parts = [f'<text class="dim" x="{x}" y="{TOP - 10}">{escape(title)}</text>']
    if not every:
        return parts
    low, high = math.log10(min(every)), math.log10(max(every))
    for row, name in enumerate(names):
        y = _middle(row)
        parts.append(f'<line class="grid" x1="{x}" x2="{x + AXIS}" y1="{y}" y2="{y}"/>')
        found = [(line, us) for line in (bars[name].present() if name in bars else []) if (us := _alone(line))]
        for line, us in found:
            at = x + (math.log10(us) - low) / max(1e-9, high - low) * AXIS
            parts.append(f'<circle class="{_kind(line)}" cx="{at:.1f}" cy="{y}" r="4"/>')
        if found:
            slowest = max(us for _, us in found)
            parts.append(f'<text class="value" x="{x + AXIS + 10}" y="{y + 4}">{_duration(slowest)}</text>')
    return parts


def _alone(line: Line) -> float | None:
    return line.cells[1].p50_us if 1 in line.cells else None


def _duration(us: float) -> str:
    return f"{us / 1e3:.3g} ms" if us >= 1000 else f"{us:.0f} us"


def _kind(line: Line) -> str:
    return "binary" if line.binary else "text"


def _middle(row: int) -> int:
    return TOP + ROW * row + ROW // 2


def _legend(height: int) -> str:
    y = height - 18
    return (
        f'<rect class="text" x="20" y="{y - 9}" width="10" height="10" rx="2"/>'
        f'<text x="36" y="{y}">JSON bodies</text>\n'
        f'<rect class="binary" x="126" y="{y - 9}" width="10" height="10" rx="2"/>'
        f'<text x="142" y="{y}">binary bodies</text>\n'
        f'<text class="dim" x="250" y="{y}">each against this gateway with the same kind of bodies; '
        f"p50 on a logarithmic axis, in figures the slower one's</text>"
    )
