"""Live progress on stderr: one line, about once a second; on a terminal the line is written over."""

from __future__ import annotations

import sys
from typing import TextIO

from bench.client.fleet import Plan, Progress
from bench.client.results import Point

EVERY_S = 1.0


class Line:
    """`show` takes every slice; slices are put together until a second is full."""

    def __init__(self, stream: TextIO | None = None, quiet: bool = False) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._quiet = quiet
        self._over = self._stream.isatty()
        self._points: list[Point] = []
        self._width = 0

    def show(self, progress: Progress) -> None:
        if progress.point is None:
            self._points = []
            self._write(f"{label(progress.plan)}: warming up" if progress.plan.warm_up_s else label(progress.plan))
            return
        self._points.append(progress.point)
        if sum(point.seconds for point in self._points) >= EVERY_S - 1e-6:
            self._write(said(progress.plan, self._points))
            self._points = []

    def say(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        if not self._quiet:
            print(text, file=self._stream, flush=True)

    def clear(self) -> None:
        if self._over and self._width and not self._quiet:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
        self._width = 0

    def _write(self, text: str) -> None:
        if self._quiet:
            return
        if self._over:
            self._stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()


def label(plan: Plan) -> str:
    if plan.rate is None:
        return f"{plan.connections} connections"
    return f"{plan.rate:,.6g}/s over {plan.connections} connections"


def said(plan: Plan, points: list[Point]) -> str:
    """One second, or what was gathered, in a line."""
    seconds = sum(point.seconds for point in points)
    accepted, refused = (sum(getattr(point, name) for point in points) for name in ("accepted", "refused"))
    failed, waiting = sum(point.failed for point in points), points[-1].waiting
    parts = [
        f"{label(plan)}: {points[-1].at_s + points[-1].seconds:5.1f} s",
        f"{accepted / seconds:,.0f}/s",
        f"p50 {max(point.p50_ms for point in points):.2f} ms",
        f"p99 {max(point.p99_ms for point in points):.2f} ms",
    ]
    parts += [f"refused {refused / seconds:,.0f}/s"] if refused else []
    parts += [f"failed {failed}"] if failed else []
    parts += [f"waiting {waiting}"] if waiting else []
    return "  ".join(parts)
