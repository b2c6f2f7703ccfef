"""People who manage the gateway: a token of their OpenID Connect issuer → a name and a role.

The issuer says in one claim (`roles` where nothing else is configured) what a person may do; the words are `reader`,
`operator` and `admin`, and of several the highest counts. The claim is found by its name, or, as some issuers nest
it, by a path with dots (`realm_access.roles`). A person's name is `person:` and the issuer's `sub`, which the person
cannot choose; what the issuer tells to be read by people follows in parentheses.
Units: *_s seconds since 1970.
Errors: TokenRefused for a token that proves nothing; Problem 403 for a person without a role; Problem 503 while the
issuer's keys cannot be fetched; ValueError for settings that can never work.
Source: OpenID Connect Core 1.0 section 5.1; gateway/oidc.py has the rules for tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.controlplane.authorize import Role
from gateway.credentials import TokenRefused
from gateway.errors import Code, Problem, retry_after
from gateway.oidc import FETCH_INTERVAL_NS, KeysNeeded, OidcVerifier, words_of
from gateway.snapshot import OidcSpec

ROLES_CLAIM = "roles"
_READABLE_CLAIMS = ("preferred_username", "email", "name")
_NAME_LENGTH_MAX = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who a genuine token names, and what they may do."""

    name: str
    role: Role


class People:
    """Proves people by their issuer's tokens. Used by one event loop; `close` ends a fetch of keys under way."""

    def __init__(
        self, spec: OidcSpec, *, roles_claim: str = ROLES_CLAIM, verifier: OidcVerifier | None = None
    ) -> None:
        if not roles_claim:
            raise ValueError("the name of the claim with the roles is empty; the usual one is 'roles'")
        self.issuer = spec.issuer
        self._roles_claim = roles_claim
        self._verifier = verifier or OidcVerifier(spec)

    def __repr__(self) -> str:
        return f"<People of {self.issuer}>"

    async def identify(self, token: bytes, now_s: float) -> Person:
        """The person whom a genuine token names. Waits for the issuer's keys where they are needed, once."""
        self._verifier.refresh_if_stale()
        try:
            claims, _ = self._verifier.prove(token, now_s)
        except KeysNeeded:
            await self._verifier.refresh()
            claims = self._claims_after_refresh(token, now_s)
        return self._person(claims)

    async def close(self) -> None:
        await self._verifier.close()

    def _claims_after_refresh(self, token: bytes, now_s: float) -> dict[str, Any]:
        try:
            claims, _ = self._verifier.prove(token, now_s)
        except KeysNeeded as error:
            if error.code is Code.UNAUTHENTICATED:
                raise TokenRefused("the issuer has no such key") from error
            raise Problem(
                Code.UNAVAILABLE,
                f"the keys of the issuer {self.issuer} could not be fetched yet; try again later, or use a "
                "management token",
                headers=(retry_after(FETCH_INTERVAL_NS / 1e9),),
            ) from error
        return claims

    def _person(self, claims: dict[str, Any]) -> Person:
        name = _name_of(claims)
        words = words_of(_claim(claims, self._roles_claim))
        roles = [role for role in Role if role.text in words]
        if not roles:
            raise Problem(
                Code.FORBIDDEN,
                f"{name} is known, but has no role here: the claim {self._roles_claim!r} of the token holds none of "
                f"{', '.join(role.text for role in Role)}",
                reason="auth",
            )
        return Person(name=name, role=max(roles))


def _claim(claims: dict[str, Any], name: str) -> Any:
    """The claim of exactly that name, dots and all; else what the path leads to."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _name_of(claims: dict[str, Any]) -> str:
    readable = next((text for text in map(claims.get, _READABLE_CLAIMS) if text and isinstance(text, str)), "")
    subject = _printable(claims["sub"])
    return f"person:{subject} ({_printable(readable)})" if readable else f"person:{subject}"


def _printable(text: str) -> str:
    """Fit for one line of a log."""
    return "".join(one if one.isprintable() else "?" for one in text[:_NAME_LENGTH_MAX])
