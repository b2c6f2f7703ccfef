"""If-Match and its like: whether a request still applies to what is there.

Pure. `check_write` is asked inside of the transaction that writes, so what it saw is what is replaced.
Errors: Refusal BlobAlreadyExists, ConditionNotMet, InvalidHeaderValue; NotModified for readers.
Source: RFC 9110, section 13; Azure answers `If-None-Match: *` with 409 where RFC 9110 has 412.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from gateway.controlplane.blobs.refusals import Fault, Refusal
from gateway.controlplane.store.records import Blob


class NotModified(Exception):
    """What the reader has is still what there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Entity tags without quotes; None: not asked. Times in whole seconds since 1970."""

    matches: frozenset[str] | None = None
    matches_none: frozenset[str] | None = None
    modified_since: int | None = None
    unmodified_since: int | None = None

    @property
    def wants_new(self) -> bool:
        """Whether the request is for a name that has no blob yet."""
        return self.matches_none is not None and "*" in self.matches_none


ALWAYS = Conditions()


def parse_conditions(headers: Mapping[str, str]) -> Conditions:
    return Conditions(
        matches=_tags(headers.get("if-match")),
        matches_none=_tags(headers.get("if-none-match")),
        modified_since=_time("if-modified-since", headers),
        unmodified_since=_time("if-unmodified-since", headers),
    )


def check_write(conditions: Conditions, found: Blob | None) -> None:
    if conditions.wants_new and found is not None:
        raise Refusal(Fault.BLOB_EXISTS, f"there is a blob {found.path!r} already, and only a new one was to be made")
    if not _holds_for_all(conditions, found):
        raise _not_met(found)
    if found is not None and _is_unchanged(conditions, found):
        raise _not_met(found)


def check_read(conditions: Conditions, found: Blob) -> None:
    if not _holds_for_all(conditions, found):
        raise _not_met(found)
    if _is_unchanged(conditions, found):
        raise NotModified


def _holds_for_all(conditions: Conditions, found: Blob | None) -> bool:
    """If-Match, and If-Unmodified-Since where there is none."""
    if conditions.matches is not None:
        return found is not None and _is_among(found.etag, conditions.matches)
    since = conditions.unmodified_since
    return since is None or found is None or int(found.modified_at) <= since


def _is_unchanged(conditions: Conditions, found: Blob) -> bool:
    """If-None-Match, and If-Modified-Since where there is none."""
    if conditions.matches_none is not None:
        return _is_among(found.etag, conditions.matches_none)
    since = conditions.modified_since
    return since is not None and int(found.modified_at) <= since


def _is_among(etag: str, tags: frozenset[str]) -> bool:
    return "*" in tags or etag in tags


def _tags(header: str | None) -> frozenset[str] | None:
    """Weak tags count as strong ones do: a blob changes whole."""
    if header is None:
        return None
    return frozenset(tag.strip().removeprefix("W/").strip('"') for tag in header.split(","))


def _time(name: str, headers: Mapping[str, str]) -> int | None:
    text = headers.get(name)
    if text is None:
        return None
    try:
        return int(parsedate_to_datetime(text).timestamp())
    except (ValueError, OverflowError) as error:
        raise Refusal(Fault.INVALID_HEADER, f"{name} is no date, such as Sun, 06 Nov 1994 08:49:37 GMT") from error


def _not_met(found: Blob | None) -> Refusal:
    what = "there is no such blob" if found is None else f'its ETag is "{found.etag}"'
    return Refusal(Fault.CONDITION_NOT_MET, f"the blob is not what the request's conditions ask for: {what}")
