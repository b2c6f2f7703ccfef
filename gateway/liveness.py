"""Whether a worker that runs no request still answers: when to ask it, and when it has been silent too often. Pure.

Why only between requests: a worker runs one request at a time and cannot answer beside it; what runs has a deadline,
and that is watched. A worker that runs something has just taken it, so it counts as one that has answered.
Units: *_s seconds, of any steady clock.
Source: Azure's liveness probe, whose success threshold is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """`failure_threshold` silences one after the other, each of `timeout_s`, end a worker."""

    initial_delay_s: float = 10.0
    period_s: float = 10.0
    timeout_s: float = 2.0
    failure_threshold: int = 30


class Move(Enum):
    WAIT = "wait"
    ASK = "ask"
    END = "end"


class Liveness:
    """Of one process, from its start."""

    def __init__(self, probe: Probe, now_s: float) -> None:
        self._probe = probe
        self._next_s = now_s + probe.initial_delay_s
        self._asked_s: float | None = None
        self.failures = 0

    def answered(self) -> None:
        self._asked_s = None
        self.failures = 0

    def look(self, now_s: float, is_running: bool) -> Move:
        if is_running:
            self.answered()
            return Move.WAIT
        if self._asked_s is not None:
            if now_s - self._asked_s < self._probe.timeout_s:
                return Move.WAIT
            self._asked_s = None
            self.failures += 1
            if self.failures >= self._probe.failure_threshold:
                return Move.END
        if now_s < self._next_s:
            return Move.WAIT
        self._asked_s = now_s
        self._next_s = now_s + self._probe.period_s
        return Move.ASK
