"""An issuer's public keys: fetched from where it publishes them, within bounds, and read strictly.

Bounds: 1 MiB and 100 keys an answer; https only, or http to an issuer on this machine; no redirect is followed and no
content encoding accepted. The time is the caller's to bound. Each call makes its own client: it is needed once an
hour. Keys are RSA (2048 bits or more) or EC, public, and meant for signatures; others are left out, and symmetric
ones never count, so that no token can be verified with something public.
Errors: FetchFailed, a sentence that says where and why; ValueError from `check_url`; OSError and ValueError where the
environment names a bad proxy or CA file.
Source: OpenID Connect Discovery 1.0, RFC 7517.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

import jwt

from gateway.snapshot import OidcSpec

if TYPE_CHECKING:
    import httpx

# Algorithm → the key it needs: RSA, or one curve.
ALGORITHMS = {
    "RS256": "RSA",
    "RS384": "RSA",
    "RS512": "RSA",
    "PS256": "RSA",
    "PS384": "RSA",
    "PS512": "RSA",
    "ES256": "P-256",
    "ES384": "P-384",
    "ES512": "P-521",
}
FETCH_S = 5.0
RESPONSE_BYTES_MAX = 1 << 20
KEYS_MAX = 100
RSA_BITS_MIN = 2048
KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# (key id, algorithm) → a key made for that algorithm. A key without an id has the id "".
Keys = dict[tuple[str, str], jwt.PyJWK]


class FetchFailed(Exception):
    """The issuer's keys could not be fetched; the message says where and why."""


async def fetch_keys(spec: OidcSpec, transport: httpx.AsyncBaseTransport | None) -> dict[str, Any]:
    """The issuer's JWKS document, found by discovery where no address is given."""
    # The first import of httpx and the reading of CA certificates take tens of milliseconds: not on the loop.
    client = await asyncio.to_thread(_make_client, transport, urlsplit(spec.issuer))
    async with client:
        return await _get_json(client, spec.jwks_uri or await _discover(client, spec.issuer))


async def _discover(client: httpx.AsyncClient, issuer: str) -> str:
    uri = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    found = await _get_json(client, uri)
    if found.get("issuer") != issuer:
        raise FetchFailed(f"{uri} names the issuer {found.get('issuer')!r}, not {issuer!r}")
    jwks_uri = found.get("jwks_uri")
    if not isinstance(jwks_uri, str):
        raise FetchFailed(f"{uri} has no jwks_uri")
    try:
        check_url(jwks_uri, may_be_plain=urlsplit(issuer).scheme == "http")
    except ValueError as error:
        raise FetchFailed(f"{uri} names a jwks_uri that is not accepted: {error}") from error
    return jwks_uri


def check_url(url: str, *, may_be_plain: bool) -> None:
    """https, or http to this machine where that is allowed; no user name or password in it."""
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address with a user name or password is not accepted")
    if parts.scheme == "https" and parts.hostname:
        return
    if not (may_be_plain and parts.scheme == "http" and _is_loopback(parts)):
        raise ValueError(f"{url!r} is not an https address (http is for an issuer on this machine only)")


def read_keys(document: dict[str, Any], algorithms: tuple[str, ...]) -> Keys:
    """The keys of a JWKS document that can verify one of the algorithms; FetchFailed when there is none."""
    entries = document.get("keys")
    if not isinstance(entries, list) or len(entries) > KEYS_MAX:
        raise FetchFailed(f"the key set is not an object with a list 'keys' of at most {KEYS_MAX}")
    keys: Keys = {}
    for entry in entries:
        for algorithm in algorithms:
            key = _key_of(entry, algorithm)
            if key is not None:
                # The first of two keys with one name counts.
                keys.setdefault((entry.get("kid") or "", algorithm), key)
    if not keys:
        raise FetchFailed(f"none of the {len(entries)} keys is an RSA or EC signing key for {', '.join(algorithms)}")
    return keys


def _key_of(entry: Any, algorithm: str) -> jwt.PyJWK | None:
    """The key, made for the algorithm; None where it is for something else, too weak or malformed."""
    if not isinstance(entry, dict) or not _is_for(entry, algorithm):
        return None
    try:
        key = jwt.PyJWK(entry, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        # An issuer may publish kinds of keys that we do not know; the others still count.
        return None
    if ALGORITHMS[algorithm] == "RSA" and key.key.key_size < RSA_BITS_MIN:
        return None
    return key


def _is_for(entry: dict[str, Any], algorithm: str) -> bool:
    needed = ALGORITHMS[algorithm]
    kind = ("RSA", None) if needed == "RSA" else ("EC", needed)
    key_id, operations = entry.get("kid"), entry.get("key_ops", ["verify"])
    return (
        (entry.get("kty"), entry.get("crv")) == kind
        and "d" not in entry
        and entry.get("use", "sig") == "sig"
        and entry.get("alg", algorithm) == algorithm
        and isinstance(operations, list)
        and "verify" in operations
        and (key_id is None or (isinstance(key_id, str) and KEY_ID.fullmatch(key_id) is not None))
    )


def _is_loopback(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _make_client(transport: httpx.AsyncBaseTransport | None, issuer: SplitResult) -> httpx.AsyncClient:
    import httpx

    # A proxy of the environment serves issuers elsewhere, never one on this machine.
    return httpx.AsyncClient(
        transport=transport,
        trust_env=not _is_loopback(issuer),
        follow_redirects=False,
        headers={"accept": "application/json", "accept-encoding": "identity"},
        timeout=FETCH_S,
    )


async def _get_json(client: httpx.AsyncClient, uri: str) -> dict[str, Any]:
    import httpx

    try:
        async with client.stream("GET", uri) as response:
            if response.status_code != 200:
                raise FetchFailed(f"{uri} answered {response.status_code}, not 200 (redirects are not followed)")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise FetchFailed(f"{uri} answered in a content encoding; none was asked for")
            data = await _read(response, uri)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise FetchFailed(f"{uri} could not be read: {type(error).__name__}: {error}") from error
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FetchFailed(f"{uri} did not answer JSON") from error
    if not isinstance(found, dict):
        raise FetchFailed(f"{uri} did not answer a JSON object")
    return found


async def _read(response: httpx.Response, uri: str) -> bytes:
    data = bytearray()
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > RESPONSE_BYTES_MAX:
            raise FetchFailed(f"{uri} answered more than {RESPONSE_BYTES_MAX} bytes")
    return bytes(data)
