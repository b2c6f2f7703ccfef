"""Observer: what happened inside a runtime, told without naming a metrics library.

Called on the loop's thread, once per batch or per event; implementations must be cheap and must not raise.
Units: rows along the batch axis, *_ns nanoseconds.
"""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    def ran(self, rows: int, items: int, run_ns: int, failed: bool) -> None:
        """A session ran once (a bisected batch tells one call per run)."""
        ...

    def padded(self, positions: int, padding: int) -> None:
        """A run of a model with padding or batch sizes computed so many positions (rows times padded lengths, or rows
        where no length is padded), of which so many were padding. Told beside `ran`, of runs that did not fail."""
        ...

    def expired(self, items: int) -> None:
        """Items passed their deadline or queue wait before they ran."""
        ...

    def cancelled(self, items: int) -> None:
        """Callers hung up before their items ran."""
        ...


class NullObserver:
    def ran(self, rows: int, items: int, run_ns: int, failed: bool) -> None:
        """Tells nobody."""

    def padded(self, positions: int, padding: int) -> None:
        """Tells nobody."""

    def expired(self, items: int) -> None:
        """Tells nobody."""

    def cancelled(self, items: int) -> None:
        """Tells nobody."""
