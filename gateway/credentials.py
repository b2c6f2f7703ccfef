"""Keys and tokens: made, hashed, signed and checked; shared by both planes.

A key is 32 random bytes as 43 base64url characters. It is kept where it was made and travels as its SHA-256 digest:
with that much entropy a slow hash would only be a denial of service of our own. A key is looked up by digest, so no
comparison depends on the secret.
A token is a JWT. `read_token` reads it more strictly than the library: one spelling of base64url, no duplicate
names, no NaN, no `crit`. The library (PyJWT) checks the signature, with one algorithm that the caller names. Times
are checked here, against a time that is passed in.
Units: *_s are seconds since 1970, UTC.
Errors: TokenRefused for a token that proves nothing; TokenForAnother for one that we signed for another endpoint.
Their messages say why, for tests and debug logs; a caller is only ever told `unauthenticated()`.
Source: RFC 7519, RFC 8725 (JWT best practice), the JWT row of the security table this project follows.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import jwt

from gateway.errors import Code, Problem

TOKEN_BYTES_MAX = 8192
LEEWAY_S = 30
REQUIRED_CLAIMS = ("exp", "iat", "sub", "aud", "iss")
ISSUER = "inference-gateway"
SECRET_BYTES = 32
KEY_LENGTH_MIN = 16
KEY_LENGTH_MAX = 4096
# A token nests a few levels; the count bounds the depth, so that no parser meets its recursion limit.
_BRACKETS_MAX = 256
# The year 9999: later times are nonsense, and overflow what other libraries call a date.
_LATEST_S = 253_402_300_799
_BASE64URL = re.compile(rb"[A-Za-z0-9_-]+")
# Everything that is checked against the time is checked by `check_times`, with the time that was passed in.
_TIMES_CHECKED_HERE = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}


class TokenRefused(Exception):
    """The token proves nothing."""


class TokenForAnother(Exception):
    """We signed the token, but for another endpoint."""


def unauthenticated() -> Problem:
    """The one answer to every missing, malformed, unknown, forged or expired credential."""
    return Problem(
        Code.UNAUTHENTICATED,
        "the request carries no valid credential for this endpoint; send 'Authorization: Bearer <key or token>'",
        headers=((b"www-authenticate", b"Bearer"),),
        reason="auth",
    )


def make_key() -> str:
    return secrets.token_urlsafe(32)


def make_secret() -> bytes:
    """What signs tokens."""
    return secrets.token_bytes(SECRET_BYTES)


def key_fault(key: str) -> str:
    """What is wrong with a key that somebody chose, such as "is empty", without showing it; "" where nothing is."""
    if not key:
        return "is empty"
    if not KEY_LENGTH_MIN <= len(key) <= KEY_LENGTH_MAX:
        return f"has {len(key)} characters; {KEY_LENGTH_MIN} to {KEY_LENGTH_MAX} are accepted"
    if not all("!" <= character <= "~" for character in key):
        return "has characters other than printable ASCII without spaces"
    return ""


def digest(key: str | bytes) -> bytes:
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A signed token, the second it expires, and the second from which its holder should ask for a new one."""

    access_token: str = field(repr=False)
    expires_s: int
    refresh_after_s: int


def audience_of(endpoint: str) -> str:
    return f"endpoint:{endpoint.lower()}"


def sign_token(endpoint: str, secret: bytes, lifetime_s: int, now_s: float) -> Token:
    """A token for one endpoint, good for `lifetime_s` (at least one) from `now_s`."""
    if lifetime_s < 1:
        raise ValueError(f"a token must live at least 1 second, not {lifetime_s}")
    issued = int(now_s)
    claims = {
        "iss": ISSUER,
        "sub": endpoint.lower(),
        "aud": audience_of(endpoint),
        "iat": issued,
        "nbf": issued,
        "exp": issued + lifetime_s,
        "jti": secrets.token_urlsafe(12),
    }
    return Token(
        access_token=jwt.encode(claims, secret, algorithm="HS256"),
        expires_s=issued + lifetime_s,
        refresh_after_s=issued + lifetime_s // 2,
    )


def check_token(token: bytes, endpoint: str, secret: bytes, now_s: float) -> float:
    """The second from which the token counts as expired; or TokenRefused, or TokenForAnother."""
    unverified = read_token(token)
    if unverified.algorithm != "HS256":
        raise TokenRefused("the token's algorithm is not HS256")
    verify_signature(token, secret, "HS256")
    check_issuer(unverified.claims, ISSUER)
    good_until_s = check_times(unverified.claims, now_s)
    audience = unverified.claims["aud"]
    if audience == audience_of(endpoint):
        return good_until_s
    if isinstance(audience, str) and audience.startswith("endpoint:"):
        raise TokenForAnother
    raise TokenRefused("the token's audience is not an endpoint")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unverified:
    """What a token says of itself: well formed, and not yet believed."""

    algorithm: str
    key_id: str | None
    claims: dict[str, Any] = field(repr=False)


def read_token(token: bytes) -> Unverified:
    """The header's two useful fields and the claims, strictly. `jku`, `x5u`, `jwk` are not looked at."""
    if len(token) > TOKEN_BYTES_MAX:
        raise TokenRefused(f"the token has {len(token)} bytes; at most {TOKEN_BYTES_MAX} are read")
    parts = token.split(b".")
    if len(parts) != 3:
        raise TokenRefused("the token does not have three parts")
    header, claims, _ = (_bytes_of(part) for part in parts)
    fields = _object_of(header)
    for name in ("crit", "b64"):
        if name in fields:
            raise TokenRefused(f"the token's header has {name}: no extension is understood")
    algorithm, key_id = fields.get("alg"), fields.get("kid")
    if not isinstance(algorithm, str) or not isinstance(key_id, str | None):
        raise TokenRefused("the token's alg or kid is not text")
    found = _object_of(claims)
    missing = [name for name in REQUIRED_CLAIMS if found.get(name) is None]
    if missing:
        raise TokenRefused(f"the token lacks {', '.join(missing)}")
    if not isinstance(found["sub"], str):
        raise TokenRefused("the token's sub is not text")
    return Unverified(algorithm=algorithm, key_id=key_id, claims=found)


def verify_signature(token: bytes, key: Any, algorithm: str) -> None:
    """`key` is what PyJWT takes: secret bytes, or a PyJWK made for exactly this algorithm."""
    options: Any = {"require": list(REQUIRED_CLAIMS), "verify_aud": False, **_TIMES_CHECKED_HERE}
    try:
        jwt.decode(token, key, algorithms=[algorithm], options=options)
    except jwt.PyJWTError as error:
        raise TokenRefused(f"the signature check failed: {type(error).__name__}") from error


def check_issuer(claims: dict[str, Any], issuer: str) -> None:
    if claims["iss"] != issuer:
        raise TokenRefused("the token has another issuer")


def check_audience(claims: dict[str, Any], audience: str) -> None:
    found = claims["aud"]
    if found != audience and not (isinstance(found, list) and audience in found):
        raise TokenRefused("the token has another audience")


def check_times(claims: dict[str, Any], now_s: float) -> float:
    """The second from which the token counts as expired, the leeway for clocks that differ included."""
    good_until_s = _time(claims, "exp") + LEEWAY_S
    if good_until_s <= now_s:
        raise TokenRefused("the token has expired")
    for name in ("iat", "nbf"):
        if name in claims and _time(claims, name) > now_s + LEEWAY_S:
            raise TokenRefused(f"the token's {name} lies in the future")
    return good_until_s


def _time(claims: dict[str, Any], name: str) -> float:
    found = claims[name]
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise TokenRefused(f"the token's {name} is not a number")
    if not (math.isfinite(found) and 0 <= found <= _LATEST_S):
        raise TokenRefused(f"the token's {name} is not a time")
    return float(found)


def _bytes_of(part: bytes) -> bytes:
    """Base64url in its one spelling: no padding, no foreign character, no spare bits."""
    if not _BASE64URL.fullmatch(part) or len(part) % 4 == 1:
        raise TokenRefused("a part of the token is not base64url")
    found = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(found).rstrip(b"=") != part:
        raise TokenRefused("a part of the token is not base64url in its one spelling")
    return found


def _object_of(data: bytes) -> dict[str, Any]:
    if data.count(b"[") + data.count(b"{") > _BRACKETS_MAX:
        raise TokenRefused("a part of the token nests too deeply")
    try:
        found = json.loads(data.decode(), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except ValueError as error:
        raise TokenRefused("a part of the token is not strict JSON") from error
    if not isinstance(found, dict):
        raise TokenRefused("a part of the token is not a JSON object")
    return found


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
