"""Why nothing could be measured, as sentences for a person."""

from __future__ import annotations


class CannotMeasure(Exception):
    """What was asked cannot be done; each line is one sentence: what was tried, what was found, what to do."""

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


class GeneratorFailed(CannotMeasure):
    """A generator process ended or fell silent."""
