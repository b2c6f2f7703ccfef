"""What may answer at a moment: the states that an endpoint was or may have been in, over time. Pure.

A change may count from the moment that it is asked for, and the state before it until the change has ended. A request
is answered well by whatever had weight, with that model's answer, at some moment between sending and answer.
Units: seconds of one clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Weights and factors by deployment."""

    traffic: Mapping[str, int]
    factors: Mapping[str, int]

    def answers(self, deployment: str, factor: int) -> bool:
        return bool(self.traffic.get(deployment)) and self.factors.get(deployment) == factor


class Possible:
    """The states in their order, each with the time for which it may have held."""

    def __init__(self, state: State) -> None:
        self._held: list[tuple[float, float, State]] = [(-math.inf, math.inf, state)]

    @property
    def now(self) -> State:
        return self._held[-1][2]

    def asked(self, at_s: float, state: State) -> None:
        """A change to this state has been asked for."""
        self._held.append((at_s, math.inf, state))

    def ended(self, at_s: float) -> None:
        """It has been carried out: nothing before it holds any more."""
        self._held = [(since, min(until, at_s), state) for since, until, state in self._held[:-1]] + self._held[-1:]

    def allows(self, sent_s: float, answered_s: float, deployment: str, factor: int) -> bool:
        return any(
            since <= answered_s and sent_s <= until and state.answers(deployment, factor)
            for since, until, state in self._held
        )

    def forget(self, before_s: float) -> None:
        """States that ended before this; no request that is still to be judged was sent then."""
        self._held = [one for one in self._held if one[1] >= before_s]
