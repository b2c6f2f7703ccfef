"""Conditions on a change: If-Match and If-None-Match against the version that is stored."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.controlplane.store.records import Resource
from gateway.errors import Code, Problem


def etag_of(version: int) -> str:
    return f'"{version}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What a caller asks of the stored version; None asks nothing. Both are lists of ETags or `*`, as sent."""

    if_match: str | None = None
    if_none_match: str | None = None

    def check(self, existing: Resource | None, what: str) -> None:
        """Errors: Problem(PRECONDITION_FAILED)."""
        found = etag_of(existing.version) if existing is not None else None
        if self.if_match is not None and not _names(self.if_match, found):
            there = f"its ETag is {found}" if found else "it is not there"
            raise Problem(Code.PRECONDITION_FAILED, f"{what} was asked to be {self.if_match}, and {there}")
        if self.if_none_match is not None and _names(self.if_none_match, found):
            raise Problem(
                Code.PRECONDITION_FAILED, f"{what} was asked not to be {self.if_none_match}, and its ETag is {found}"
            )


ANY = Match()


def _names(given: str, etag: str | None) -> bool:
    if etag is None:
        return False
    tags = [one.strip().removeprefix("W/") for one in given.split(",")]
    return "*" in tags or etag in tags
