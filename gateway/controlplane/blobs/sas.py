"""Signed query strings: who has one may do what it says in one container, or below one folder of it, until it ends.

    sv=<version>&sr=c&sp=<permissions>&se=<end>&sig=<HMAC-SHA256 in hex>
    sv=<version>&sr=d&sdd=<depth>&sp=<permissions>&se=<end>&sig=<...>      below a folder, <depth> parts deep

The names are Azure's, because clients hand on those of a query and drop all others; the signature is our own. It
covers every field, the container and the folder. The folder is not in the query: it is what the request's own path
begins with, so a signature for one folder fits no other.
Permissions: r read, w write, a add, c create, d delete, l list.
Units: `expires` and `now` in seconds since 1970; ends are whole seconds.
Errors: Refusal AuthenticationFailed; ValueError for permissions that there are not.
"""

from __future__ import annotations

import datetime as dt
import hmac
from collections.abc import Sequence
from hashlib import sha256

from gateway.controlplane.blobs.refusals import Fault, Refusal

VERSION = "2021-12-02"
PERMISSIONS = "racwdl"
_NEEDED = frozenset(("sv", "sr", "sp", "se", "sig"))
_FIELDS = _NEEDED | {"sdd"}
_DEPTH_MAX = 512

Query = Sequence[tuple[str, str]]


def sign(secret: bytes, container: str, prefix: str, permissions: str, expires: float) -> str:
    """A query string, without a question mark. `prefix` is a folder, or "" for the whole container."""
    folder = prefix.strip("/")
    fields = {"sv": VERSION, "sr": "d" if folder else "c"}
    if folder:
        fields["sdd"] = str(folder.count("/") + 1)
    fields["sp"] = _checked(permissions)
    fields["se"] = dt.datetime.fromtimestamp(int(expires), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    fields["sig"] = _signature(secret, fields, container, folder)
    return "&".join(f"{name}={value.replace(':', '%3A')}" for name, value in fields.items())


def is_signed(query: Query) -> bool:
    return any(name == "sig" for name, _ in query)


def check(secret: bytes, query: Query, container: str, path: str, now: float) -> str:
    """The permissions, where the query is signed for this place and time.

    `path` is the blob's name, or the prefix that a list is asked for.
    """
    given = [(name, value) for name, value in query if name in _FIELDS]
    fields = dict(given)
    if len(fields) != len(given) or not fields.keys() >= _NEEDED or any("\n" in value for value in fields.values()):
        raise _failed(f"the query must have each of {', '.join(sorted(_NEEDED))} once")
    folder = _folder_of(fields, path)
    expected = _signature(secret, fields, container, folder)
    if not hmac.compare_digest(fields["sig"].encode(), expected.encode()):
        raise _failed("the signature does not fit this container or folder, or was changed; ask for a new one")
    if now >= _end_of(fields):
        raise _failed(f"the signature ended at {fields['se']}; ask for a new one")
    return fields["sp"]


def _checked(permissions: str) -> str:
    if not permissions or not set(permissions) <= set(PERMISSIONS):
        raise ValueError(f"permissions are letters of {PERMISSIONS!r}, not {permissions!r}")
    return permissions


def _folder_of(fields: dict[str, str], path: str) -> str:
    """What the path begins with, as deep as the signature says; it is whole parts of a path that is longer."""
    if "sdd" not in fields:
        return ""
    depth = int(fields["sdd"]) if fields["sdd"].isdecimal() and len(fields["sdd"]) < 4 else 0
    parts = path.split("/")
    if not 0 < depth <= _DEPTH_MAX or len(parts) <= depth:
        raise _failed("the signature is for a folder, and the request is for something outside of it")
    return "/".join(parts[:depth])


def _signature(secret: bytes, fields: dict[str, str], container: str, folder: str) -> str:
    """Over every field and the place, in a form in which no two are alike: none of the parts can hold a newline."""
    signed = [f"{name}={fields[name]}" for name in ("sv", "sr", "sdd", "sp", "se") if name in fields]
    text = "\n".join(["blob", *signed, container, folder])
    return hmac.new(secret, text.encode(), sha256).hexdigest()


def _end_of(fields: dict[str, str]) -> float:
    """The signature fits, so the end is one that `sign` wrote."""
    return dt.datetime.strptime(fields["se"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC).timestamp()


def _failed(reason: str) -> Refusal:
    return Refusal(Fault.AUTHENTICATION_FAILED, reason)
