"""Open-loop load on a virtual clock: requests come when they come, however long the answers take.

Units: *_ns virtual nanoseconds, rates in requests a second, times of a Phase in seconds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from runtimes.batching.item import WorkItem
from runtimes.errors import RuntimeFault
from runtimes.simulated import Behaviour
from tests.support.virtual import World

S = 1_000_000_000


@dataclass
class Sent:
    """A request and the time at which it was meant to be sent; `refusal` where it was not accepted."""

    meant_ns: int
    item: WorkItem
    refusal: RuntimeFault | None = None

    @property
    def latency_ns(self) -> int:
        return self.item.finished_ns - self.meant_ns


@dataclass
class Window:
    """What was sent in one phase."""

    begin_ns: int
    end_ns: int
    sent: list[Sent] = field(default_factory=list)

    @property
    def accepted(self) -> list[Sent]:
        return [one for one in self.sent if one.refusal is None]

    @property
    def refused(self) -> list[Sent]:
        return [one for one in self.sent if one.refusal is not None]

    @property
    def good(self) -> list[Sent]:
        return [one for one in self.accepted if one.item.results is not None]

    def latency_ns(self, share: float) -> int:
        """The latency that this share of the good answers does not exceed."""
        ordered = sorted(one.latency_ns for one in self.good)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class OpenLoop:
    """Poisson arrivals of one-row requests with one deadline, from a seed; every reply is checked."""

    def __init__(self, world: World, *, deadline_ns: int, seed: int = 1) -> None:
        self.world = world
        self.sent: list[Sent] = []
        self._deadline_ns = deadline_ns
        self._chance = random.Random(seed)
        self._next_ns = world.scheduler.now_ns()

    def run(self, rate: float, seconds: float) -> Window:
        scheduler = self.world.scheduler
        window = Window(self._next_ns, self._next_ns + round(seconds * S))
        while True:
            meant_ns = self._next_ns + round(self._chance.expovariate(rate) * S)
            if meant_ns >= window.end_ns:
                break
            self._next_ns = meant_ns
            # Turn by turn: what came while an inline run held the loop is read before the next.
            while meant_ns > scheduler.now_ns() and scheduler.tick():
                pass
            if meant_ns > scheduler.now_ns():
                scheduler.advance(meant_ns - scheduler.now_ns())
            window.sent.append(self._send(meant_ns))
        self._next_ns = window.end_ns
        self.sent += window.sent
        return window

    def _send(self, meant_ns: int) -> Sent:
        item = self.world.item(float(len(self.sent) % 1000))
        item.deadline_ns = meant_ns + self._deadline_ns
        sent = Sent(meant_ns, item)
        try:
            self.world.submit(item)
        except RuntimeFault as fault:
            sent.refusal = fault
        return sent

    def finished_between(self, window: Window) -> int:
        """How many good answers were finished while the window lasted, whenever they were sent."""
        ends = [one.item.finished_ns for one in self.sent if one.item.results is not None]
        return sum(1 for end_ns in ends if window.begin_ns <= end_ns < window.end_ns)

    def check_nothing_is_lost(self) -> None:
        """After the last answer: each accepted request has its one end, and each answer its own row."""
        self.world.scheduler.run_out()
        replies: dict[int, int] = {}
        for _, item in self.world.replies:
            replies[id(item)] = replies.get(id(item), 0) + 1
        for one in self.sent:
            assert replies.get(id(one.item), 0) == (one.refusal is None)
            assert one.refusal is not None or one.item.fault is not None or self.world.is_right(one.item)
        status = self.world.runtime.status()
        ends = status.succeeded + status.failed + status.expired + status.cancelled + status.closed
        assert status.accepted == ends
        assert status.accepted + status.refused == len(self.sent)


def capacity(behaviour: Behaviour, rows_max: int, instances: int = 1) -> float:
    """Rows a second in full batches."""
    return instances * rows_max * S / (behaviour.run_ns + behaviour.row_ns * rows_max)
