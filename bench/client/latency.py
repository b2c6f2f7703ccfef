"""Latencies in an HdrHistogram: recorded on the hot path, merged over processes, read as percentiles.

Why not hdrh's own record_value: it costs 1.2 us, the same index computed in line 0.26 us. The layout is hdrh's,
and a test holds every index against it; hdrh encodes, decodes and adds.
Units: nanoseconds, from about 0.1 us to 10 minutes (longer ones count as 10 minutes), three significant digits.
Errors: none. The one file that names hdrh.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram

LOWEST_NS = 100
HIGHEST_NS = 600_000_000_000
DIGITS = 3


class Latencies:
    """Counts by latency. `record` is a bound function made once, for it is called for every answer."""

    def __init__(self) -> None:
        self._histogram: Any = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
        self._counts = np.frombuffer(self._histogram.counts, dtype=np.int64)
        self.record = _recorder(self._histogram)

    @property
    def count(self) -> int:
        return int(self._counts.sum())

    @property
    def max_ns(self) -> int:
        filled = self._filled()
        return self._top(int(filled[-1])) if len(filled) else 0

    @property
    def mean_ns(self) -> float:
        filled = self._filled()
        if not len(filled):
            return 0.0
        middles = [(self._bottom(int(index)) + self._top(int(index))) / 2 for index in filled]
        return float(np.average(middles, weights=self._counts[filled]))

    def percentile_ns(self, percent: float) -> int:
        """The latency that so many in a hundred did not exceed; 0 where there are none."""
        total = self.count
        if not total:
            return 0
        # Rounded up, and less a hair for 99.9 that is no binary fraction.
        rank = max(1, int(np.ceil(total * percent / 100 - 1e-9)))
        return self._top(int(np.searchsorted(np.cumsum(self._counts), rank)))

    def add(self, other: Latencies) -> None:
        self._counts += other._counts

    def clear(self) -> None:
        self._counts[:] = 0

    def encode(self) -> str:
        """HdrHistogram's V2 compressed log format, in base64; "" for none."""
        filled = self._filled()
        if not len(filled):
            return ""
        self._histogram.set_internal_tacking_values(int(filled[0]), int(filled[-1]), self.count)
        text: bytes = self._histogram.encode()
        return text.decode()

    def add_encoded(self, text: str) -> None:
        """What another process encoded."""
        if text:
            decoded: Any = HdrHistogram.decode(text)
            self._histogram.add(decoded)

    def _filled(self) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        return np.flatnonzero(self._counts)

    def _bottom(self, index: int) -> int:
        return int(self._histogram.get_value_from_index(index))

    def _top(self, index: int) -> int:
        return int(self._histogram.get_highest_equivalent_value(self._bottom(index)))


def merged(*parts: Latencies) -> Latencies:
    whole = Latencies()
    for part in parts:
        whole.add(part)
    return whole


def _recorder(histogram: Any) -> Any:
    counts = histogram.counts
    mask, half = histogram.sub_bucket_mask, histogram.sub_bucket_half_count
    magnitude, half_bits = histogram.unit_magnitude, histogram.sub_bucket_half_count_magnitude
    lost_bits, first = half_bits + 1, 1 - magnitude

    def record(latency_ns: int) -> None:
        if latency_ns > HIGHEST_NS:
            latency_ns = HIGHEST_NS
        shift = (latency_ns | mask).bit_length() - lost_bits
        counts[((shift + first) << half_bits) + (latency_ns >> shift) - half] += 1

    return record
