"""Who may manage what: an actor has one of three roles, and every route asks for one.

A reader reads everything but credentials. An operator also changes what is served and reads endpoints' credentials.
An admin also manages the management tokens and reads the audit log.

Who proves what, cheapest first: the token that the first start made (an admin); a management token, which has a name,
a role and perhaps an end, and is stored and found by its SHA-256 digest, so that no comparison depends on it; the
token of a person's OIDC issuer (people.py). Nothing that opens an endpoint opens anything here.
A token that was found is remembered for `REMEMBERED_NS`: one that is deleted stops working within that time, and at
once in the process that deletes it and calls `forget`.
An actor's name says what it was proven with: `management.token`, `token:NAME` or `person:SUBJECT`.
Units: *_s seconds, since 1970 where they are times; *_ns monotonic nanoseconds.
Errors: Problem 401 with one body for every cause; Problem 403 for who is proven and not permitted.
Source: RFC 6750 for the header and its challenge, contract section 3 for `authorization_uri`.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from gateway.controlplane.store.records import ManagementToken
from gateway.credentials import TOKEN_BYTES_MAX, TokenRefused, digest
from gateway.errors import Code, Problem
from runtimes import now_ns

if TYPE_CHECKING:
    from gateway.controlplane.people import People

REMEMBERED_NS = 5 * 10**9
REMEMBERED_MAX = 256
# Ten years: whoever wants longer wants a token without an end, and should say so.
LIFETIME_S_MAX = 3652 * 86_400
FIRST = "management.token"
# With a prefix, so that what is no token of ours asks no question of the database, and a leaked one is recognised.
_TOKEN = re.compile(r"igm_[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?")


class Role(IntEnum):
    """What an actor may do; a higher role may do all that a lower one may."""

    READER = 1
    OPERATOR = 2
    ADMIN = 3

    @property
    def text(self) -> str:
        return self.name.lower()

    @classmethod
    def of(cls, text: str) -> Role | None:
        """The role that is spelled so; None where there is none."""
        return next((role for role in cls if role.text == text), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who does something, with which role, from which address, in which request."""

    name: str
    role: Role
    source: str = ""
    request_id: str = ""


# What the gateway does by itself, and what whoever holds the state folder does.
GATEWAY = Actor(name="gateway", role=Role.ADMIN, source="local")
FOLDER = Actor(name="folder", role=Role.ADMIN, source="local")


def require(actor: Actor, role: Role) -> None:
    """Returns for an actor who has at least this role. Errors: Problem 403."""
    if actor.role < role:
        raise Problem(
            Code.FORBIDDEN,
            f"this needs the role {role.text}, and {actor.name} has the role {actor.role.text}",
            reason="auth",
        )


def make_token(name: str, role: Role, lifetime_s: int | None, by: str, now_s: float) -> tuple[str, ManagementToken]:
    """A new management token: its text, which is shown once and kept nowhere, and the record to store.

    `lifetime_s` None: it has no end. Errors: Problem 400.
    """
    if not _NAME.fullmatch(name):
        raise Problem(
            Code.INVALID_INPUT,
            f"a management token cannot be named {name[:80]!r}; accepted: 1 to 63 letters, digits, '-', '.' and '_', "
            "with a letter or digit at both ends",
        )
    if lifetime_s is not None and not 1 <= lifetime_s <= LIFETIME_S_MAX:
        raise Problem(
            Code.INVALID_INPUT,
            f"a management token cannot live for {lifetime_s} seconds; accepted: 1 to {LIFETIME_S_MAX}, or none "
            "given for a token without an end",
        )
    text = f"igm_{secrets.token_urlsafe(32)}"
    return text, ManagementToken(
        name=name,
        digest=digest(text),
        role=role.text,
        created_at=now_s,
        created_by=by,
        expires_at=None if lifetime_s is None else now_s + lifetime_s,
    )


FindToken = Callable[[bytes], Awaitable[ManagementToken | None]]


class Doorkeeper:
    """Names the actor of each request on the management listener. Used by one event loop.

    `first_token` is the text of the state folder's management.token; `find` asks the store for a token by its digest,
    and its errors pass through. `authorization_uri` is where a client is told to get a token; `people` has its own.
    """

    def __init__(
        self,
        first_token: str,
        find: FindToken,
        *,
        people: People | None = None,
        authorization_uri: str = "",
        now_s: Callable[[], float] = time.time,
        clock: Callable[[], int] = now_ns,
    ) -> None:
        if not first_token:
            raise ValueError("the management token is empty; everybody would be an admin")
        self._first_digest = digest(first_token)
        self._find = find
        self._people = people
        self._authorization_uri = people.issuer if people is not None else authorization_uri
        self._now_s = now_s
        self._clock = clock
        # Digest of a token that was found → it, and the moment to look it up again. The oldest goes first.
        self._found: dict[bytes, tuple[ManagementToken, int]] = {}
        # Counts calls of `forget`: what was asked before one is not remembered after it.
        self._forgotten = 0

    def __repr__(self) -> str:
        return f"<Doorkeeper {len(self._found)} tokens remembered, people {self._people}>"

    async def identify(self, authorization: str | None, source: str, request_id: str) -> Actor:
        """The actor; `authorization` is the value of the header, None where it is absent."""
        credential = _credential(authorization)
        if credential is None:
            raise self.unauthenticated()
        found = digest(credential)
        if hmac.compare_digest(found, self._first_digest):
            name, role = FIRST, Role.ADMIN
        elif _TOKEN.fullmatch(credential):
            name, role = await self._by_token(found)
        elif self._people is not None:
            name, role = await self._by_issuer(self._people, credential)
        else:
            raise self.unauthenticated()
        return Actor(name=name, role=role, source=source, request_id=request_id)

    def forget(self) -> None:
        """Looks every token up again at its next use: one was deleted."""
        self._found.clear()
        self._forgotten += 1

    async def close(self) -> None:
        if self._people is not None:
            await self._people.close()

    def unauthenticated(self) -> Problem:
        """The one answer to every missing, malformed, unknown, forged or expired credential."""
        # A quoted string: what would end it, or the line, is left out.
        uri = "".join(one for one in self._authorization_uri if "!" <= one <= "~" and one not in '"\\')
        return Problem(
            Code.UNAUTHENTICATED,
            "the request carries no valid credential for management; send 'Authorization: Bearer <management token>' "
            "(keys and tokens of endpoints are good for scoring only)",
            headers=((b"www-authenticate", f'Bearer authorization_uri="{uri}"'.encode()),),
            reason="auth",
        )

    async def _by_token(self, found: bytes) -> tuple[str, Role]:
        token = await self._token(found)
        if token is None or (token.expires_at is not None and token.expires_at <= self._now_s()):
            raise self.unauthenticated()
        role = Role.of(token.role)
        if role is None:
            raise Problem(
                Code.FORBIDDEN,
                f"the management token {token.name} has the role {token.role!r}, which this version does not know; "
                "make another token",
                reason="auth",
            )
        return f"token:{token.name}", role

    async def _token(self, found: bytes) -> ManagementToken | None:
        asked_ns, forgotten = self._clock(), self._forgotten
        known = self._found.get(found)
        if known is not None and asked_ns < known[1]:
            return known[0]
        self._found.pop(found, None)
        token = await self._find(found)
        if token is not None and forgotten == self._forgotten:
            self._remember(found, token, asked_ns + REMEMBERED_NS)
        return token

    def _remember(self, found: bytes, token: ManagementToken, until_ns: int) -> None:
        if found not in self._found and len(self._found) >= REMEMBERED_MAX:
            del self._found[next(iter(self._found))]
        self._found[found] = (token, until_ns)

    async def _by_issuer(self, people: People, credential: str) -> tuple[str, Role]:
        try:
            person = await people.identify(credential.encode(), self._now_s())
        except TokenRefused:
            raise self.unauthenticated() from None
        return person.name, person.role


def _credential(authorization: str | None) -> str | None:
    """What follows `Bearer`, where it may be a credential at all."""
    if authorization is None or authorization[:7].lower() != "bearer ":
        return None
    credential = authorization[7:].strip(" ")
    return credential if credential.isascii() and 0 < len(credential) <= TOKEN_BYTES_MAX else None
