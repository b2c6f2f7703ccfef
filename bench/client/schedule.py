"""When each request of an open loop is meant to be sent, whatever the server does. Pure: chance is a seed.

Why: a generator that waits for answers before it sends leaves out the requests that a stalled server would have
made wait (coordinated omission). Here the times are fixed before, and a latency counts from them.
Units: nanoseconds after the start; rates in requests a second over all processes. Times never go back.
Share: process `index` of `of` takes its part, so that all together send at the rate. Poisson arrivals of a share
are Poisson again; constant ones are dealt out in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

_CHUNK = 4096


def constant(rate: float, index: int = 0, of: int = 1) -> Iterator[int]:
    """Evenly spaced; computed from the number of the request, so that no rounding adds up."""
    number = index
    while True:
        yield int(number * 1e9 / rate)
        number += of


def poisson(rate: float, seed: int, index: int = 0, of: int = 1) -> Iterator[int]:
    """Independent arrivals: exponential gaps."""
    chance = np.random.default_rng([seed, index])
    mean_ns = of * 1e9 / rate
    at_ns = 0.0
    while True:
        times = at_ns + np.cumsum(chance.exponential(mean_ns, _CHUNK))
        at_ns = float(times[-1])
        yield from times.astype(np.int64).tolist()


def recorded(at_s: Sequence[float], speed: float) -> list[int]:
    """The times of recorded traffic, sent `speed` times as fast."""
    return [int(at * 1e9 / speed) for at in at_s]


def arrivals(kind: str, rate: float, seed: int, index: int, of: int) -> Iterator[int]:
    return constant(rate, index, of) if kind == "constant" else poisson(rate, seed, index, of)


def shares(total: int, of: int) -> list[int]:
    """A number dealt out as evenly as whole numbers allow."""
    return [total // of + (index < total % of) for index in range(of)]
