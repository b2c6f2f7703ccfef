"""Signing keys, key sets and forged tokens for tests: tokens are put together by hand, so that they may be wrong."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from gateway.dataplane.authenticate import Authenticator
from gateway.oidc import KeysNeeded, OidcVerifier
from gateway.snapshot import AuthSpec, OidcSpec

NOW_S = 1_800_000_000
ISSUER = "https://login.example"
AUDIENCE = "https://ml.azure.com"


class LateKeys(OidcVerifier):
    """An issuer whose keys are there once they were fetched; any token is good then. `asked`: what it was asked."""

    def __init__(self) -> None:
        self.spec = OidcSpec(
            issuer=ISSUER, audience=AUDIENCE, jwks_uri=f"{ISSUER}/keys", algorithms=("RS256",), required_roles=()
        )
        super().__init__(self.spec)
        self.asked: list[str] = []

    def authenticator(self, endpoint: str) -> Authenticator:
        return Authenticator(AuthSpec(mode="aad_token", oidc=self.spec), endpoint, verifier=self)

    def verify(self, token: bytes, now_s: float) -> float:
        self.asked.append("verify")
        if "refresh" not in self.asked:
            raise KeysNeeded(has_keys=False)
        return now_s + 60.0

    async def refresh(self) -> None:
        self.asked.append("refresh")


def rsa_key(name: str = "first", bits: int = 2048) -> rsa.RSAPrivateKey:
    return _rsa_key(name, bits)


@cache
def _rsa_key(name: str, bits: int) -> rsa.RSAPrivateKey:
    """One key a name: making them is slow."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def ec_key(name: str = "first") -> ec.EllipticCurvePrivateKey:
    return _ec_key(name)


@cache
def _ec_key(_name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def rsa_jwk(name: str = "first", bits: int = 2048, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = RSAAlgorithm.to_jwk(rsa_key(name, bits).public_key(), as_dict=True)
    # Marks of the library that an issuer leaves out.
    found.pop("key_ops", None)
    return {**found, "kid": name, "use": "sig", **more}


def ec_jwk(name: str = "first", **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = ECAlgorithm.to_jwk(ec_key(name).public_key(), as_dict=True)
    found.pop("key_ops", None)
    return {**found, "kid": name, "use": "sig", **more}


def oidc_claims(**changes: Any) -> dict[str, Any]:
    """Good claims with changes; a change to None leaves the claim out."""
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "somebody",
        "iat": NOW_S,
        "exp": NOW_S + 3600,
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


def rs256(claims: dict[str, Any], key: str = "first", **header: Any) -> bytes:
    headers = {"kid": key, **header}
    return jwt.encode(claims, rsa_key(key), algorithm="RS256", headers=headers).encode()


def es256(claims: dict[str, Any], key: str = "first") -> bytes:
    return jwt.encode(claims, ec_key(key), algorithm="ES256", headers={"kid": key}).encode()


def public_pem(key: str = "first") -> bytes:
    return (
        rsa_key(key)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def raw_token(header: str | dict[str, Any], claims: str | dict[str, Any], sign: Callable[[bytes], bytes]) -> bytes:
    """A token of exactly this JSON text, signed by `sign`."""
    texts = (part if isinstance(part, str) else json.dumps(part) for part in (header, claims))
    signed = b".".join(b64(text.encode()) for text in texts)
    return signed + b"." + b64(sign(signed))


def hs256_with(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda signed: hmac.new(secret, signed, hashlib.sha256).digest()


def rs256_with(key: str = "first") -> Callable[[bytes], bytes]:
    algorithm = RSAAlgorithm(RSAAlgorithm.SHA256)
    return lambda signed: algorithm.sign(signed, rsa_key(key))


def forged_tokens(
    header: dict[str, Any], claims: dict[str, Any], sign: Callable[[bytes], bytes], foreign: Callable[[bytes], bytes]
) -> dict[str, bytes]:
    """Tokens that are wrong in one thing each, from a good header, good claims, and a right and a wrong signature."""

    def made(_header: dict[str, Any] | str | None = None, **changes: Any) -> bytes:
        changed = {name: value for name, value in {**claims, **changes}.items() if value is not None}
        return raw_token(header if _header is None else _header, changed, sign)

    def as_text(old: str, new: str) -> str:
        text = json.dumps(claims)
        assert old in text
        return text.replace(old, new)

    def unsigned(_: bytes) -> bytes:
        return b""

    good = raw_token(header, claims, sign)
    start, middle, end = good.split(b".")
    exp = f'"exp": {claims["exp"]}'
    found = {
        f"algorithm {name}": raw_token({**header, "alg": name}, claims, unsigned)
        for name in ("none", "nOnE", "NONE", "", "HS384", "RS999")
    }
    found |= {f"no {name}": made(**{name: None}) for name in ("exp", "iat", "sub", "aud", "iss")}
    found |= {
        f"exp {text}": raw_token(header, as_text(exp, f'"exp": {text}'), sign)
        for text in (
            "NaN",
            "Infinity",
            "-Infinity",
            "9e99",
            "9e999",
            '"soon"',
            "true",
            "[]",
            "null",
            "-1",
            "1" * 5000,
        )
    }
    found |= {
        "algorithm is not text": made({**header, "alg": 5}),
        "algorithm is missing": made({"typ": "JWT"}),
        "kid is not text": made({**header, "kid": 5}),
        "crit": made({**header, "crit": ["exp"], "exp": 1}),
        "crit with b64": made({**header, "crit": ["b64"], "b64": False}),
        "b64 true": made({**header, "b64": True}),
        "none with a good signature": raw_token({**header, "alg": "none"}, claims, sign),
        "expired": made(exp=NOW_S - 30),
        "issued in the future": made(iat=NOW_S + 31),
        "not before 31 s from now": made(nbf=NOW_S + 31),
        "not before is text": made(nbf="now"),
        "another audience": made(aud="elsewhere"),
        "an audience of several others": made(aud=["elsewhere", "there"]),
        "an audience that is an object": made(aud={"any": 1}),
        "another issuer": made(iss="https://evil.example"),
        "an issuer that is a list": made(iss=[claims["iss"]]),
        "the issuer with a slash": made(iss=f"{claims['iss']}/"),
        "a subject that is a number": made(sub=7),
        "a claim twice": raw_token(header, as_text(exp, f'{exp}, "exp": {NOW_S + 9}'), sign),
        "a header field twice": raw_token(json.dumps(header)[:-1] + ', "alg": "none"}', claims, sign),
        "claims that are a list": raw_token(header, "[]", sign),
        "claims that are text": raw_token(header, '"exp"', sign),
        "claims that are not JSON": raw_token(header, "{", sign),
        "claims that nest deeply": raw_token(header, "[" * 5000, sign),
        "a signature by a stranger": raw_token(header, claims, foreign),
        "no signature": start + b"." + middle + b".",
        "two parts": start + b"." + middle,
        "four parts": good + b"." + end,
        "five parts": good + b"." + end + b"." + end,
        "trailing bytes": good + b"AAAA",
        "a trailing newline": good + b"\n",
        "padding": good + b"=",
        "padding in the middle": start + b"." + middle + b"==." + end,
        "characters of plain base64": start + b"." + middle + b"." + b"+/" + end[2:],
        "junk inside the signature": start + b"." + middle + b"." + end[:5] + b"!" + end[5:],
        "a signature cut short": good[:-4],
        "spare bits in the signature": good[:-1] + _other_spelling(good[-1:]),
        "claims exchanged": start + b"." + b64(json.dumps({**claims, "jti": "x"}).encode()) + b"." + end,
        "more than 8 KiB": made(more="x" * 9000),
        "bytes that are not ASCII": good + "é".encode(),
        "empty": b"",
        "dots": b"..",
        "only spaces": b"   ",
    }
    return found


def _other_spelling(last: bytes) -> bytes:
    """The last character of a signature with its spare low bits changed, which lenient decoders do not see."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    place = alphabet.index(last)
    return alphabet[place ^ 1 : (place ^ 1) + 1]
