"""Key or token → may this request score here? Decided from one header, before the body is read.

One Authenticator belongs to one endpoint in one snapshot; a change of keys makes a new one, and with it an empty
cache of tokens. A key is found by its SHA-256 digest in a set, so no comparison depends on the secret. A token is
verified once and then found by digest until it expires, or until the issuer's keys change.
Units: *_s seconds since 1970, UTC.
Errors: Problem 401, with one body for every cause; Problem 403 for a caller who is proven and not permitted;
KeysNeeded (oidc.py) when an issuer's keys must be fetched first.
Source: section 5.2 of the endpoint contract.
"""

from __future__ import annotations

from hashlib import sha256

from gateway.credentials import (
    SECRET_BYTES,
    TOKEN_BYTES_MAX,
    TokenForAnother,
    TokenRefused,
    check_token,
    unauthenticated,
)
from gateway.errors import Code, Problem
from gateway.oidc import OidcVerifier, RoleMissing
from gateway.snapshot import AuthSpec

TOKENS_REMEMBERED_MAX = 4096


class Authenticator:
    """Proves the callers of one endpoint. Used by one event loop; `refresh` and `close` matter for OIDC only."""

    def __init__(self, spec: AuthSpec, endpoint: str, *, verifier: OidcVerifier | None = None) -> None:
        self._endpoint = endpoint
        self._mode = spec.mode
        # Whether a caller who was proven once stays so for as long as this authenticator is in use.
        self.is_lasting = spec.mode == "key"
        self._key_digests = frozenset(spec.key_digests)
        self._secret = spec.token_secret
        # Digest of a verified token → the second from which it counts as expired. The oldest entry goes first.
        self._verified: dict[bytes, float] = {}
        self._generation = 0
        self._verifier = verifier
        match spec.mode:
            case "key":
                if not self._key_digests:
                    raise ValueError(f"endpoint {endpoint} uses keys, and has none")
            case "aml_token":
                if len(self._secret) < SECRET_BYTES:
                    raise ValueError(f"the token secret of endpoint {endpoint} is shorter than {SECRET_BYTES} bytes")
            case "aad_token":
                if spec.oidc is None:
                    raise ValueError(f"endpoint {endpoint} uses aad_token, and names no issuer")
                self._verifier = verifier or OidcVerifier(spec.oidc)
            case _:
                raise ValueError(f"auth mode {spec.mode!r} is not key, aml_token or aad_token")

    def __repr__(self) -> str:
        return f"<Authenticator {self._endpoint} {self._mode}>"

    def authenticate(self, authorization: bytes | None, now_s: float) -> None:
        """Returns for a caller who may score; `authorization` is the value of the header, None where it is absent."""
        if authorization is None or authorization[:7].lower() != b"bearer ":
            raise unauthenticated()
        credential = authorization[7:].strip(b" ")
        if len(credential) > TOKEN_BYTES_MAX or not credential.isascii():
            raise unauthenticated()
        found = sha256(credential).digest()
        if self._mode == "key":
            if found not in self._key_digests:
                raise unauthenticated()
            return
        self._authenticate_token(credential, found, now_s)

    async def refresh(self) -> None:
        """After KeysNeeded: fetches the issuer's keys, or waits for the fetch under way. Never raises."""
        if self._verifier is not None:
            await self._verifier.refresh()

    async def close(self) -> None:
        if self._verifier is not None:
            await self._verifier.close()

    def _authenticate_token(self, token: bytes, found: bytes, now_s: float) -> None:
        if self._verifier is not None:
            self._verifier.refresh_if_stale()
            if self._verifier.generation != self._generation:
                self._generation = self._verifier.generation
                self._verified.clear()
        if self._verified.get(found, 0.0) > now_s:
            return
        try:
            good_until_s = self._verify(token, now_s)
        except TokenRefused:
            raise unauthenticated() from None
        except (TokenForAnother, RoleMissing):
            raise _forbidden(self._endpoint) from None
        self._remember(found, good_until_s)

    def _verify(self, token: bytes, now_s: float) -> float:
        if self._verifier is not None:
            return self._verifier.verify(token, now_s)
        return check_token(token, self._endpoint, self._secret, now_s)

    def _remember(self, found: bytes, good_until_s: float) -> None:
        self._verified.pop(found, None)
        if len(self._verified) >= TOKENS_REMEMBERED_MAX:
            del self._verified[next(iter(self._verified))]
        self._verified[found] = good_until_s


def _forbidden(endpoint: str) -> Problem:
    return Problem(
        Code.FORBIDDEN,
        f"the token is genuine, but does not permit scoring on endpoint {endpoint}; "
        "send a token that was issued for this endpoint and has a role that it asks for",
        reason="auth",
    )
