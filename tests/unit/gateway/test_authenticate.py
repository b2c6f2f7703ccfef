"""Who may score: keys by digest, tokens once and then from memory, and one answer to everything else."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from gateway.credentials import check_token, digest, sign_token
from gateway.dataplane import authenticate as module
from gateway.dataplane.authenticate import Authenticator
from gateway.errors import Code, Problem
from gateway.oidc import KeysNeeded, OidcVerifier
from gateway.snapshot import AuthSpec, OidcSpec
from tests.support.tokens import (
    AUDIENCE,
    ISSUER,
    NOW_S,
    ec_jwk,
    es256,
    forged_tokens,
    hs256_with,
    oidc_claims,
    public_pem,
    raw_token,
    rs256,
    rs256_with,
    rsa_jwk,
)

# Fixed, for they are part of the tests' names.
PRIMARY, SECONDARY = "Primary-" + "aB3_" * 9, "Secondary-" + "xY7-" * 9
SECRET = bytes(range(32))
OIDC = OidcSpec(
    issuer=ISSUER,
    audience=AUDIENCE,
    jwks_uri="https://login.example/keys",
    algorithms=("RS256", "ES256"),
    required_roles=(),
)


def by_key() -> Authenticator:
    return Authenticator(AuthSpec(mode="key", key_digests=(digest(PRIMARY), digest(SECONDARY))), "digits")


def by_token() -> Authenticator:
    return Authenticator(AuthSpec(mode="aml_token", token_secret=SECRET), "digits")


def verifier_with(*keys: dict[str, Any], spec: OidcSpec = OIDC) -> OidcVerifier:
    """A verifier that has fetched these keys."""
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json={"keys": keys}))
    verifier = OidcVerifier(spec, transport=transport)
    asyncio.run(verifier.refresh())
    return verifier


@pytest.fixture(scope="module")
def fetched() -> OidcVerifier:
    return verifier_with(rsa_jwk(), ec_jwk("curve"))


def by_issuer(verifier: OidcVerifier, spec: OidcSpec = OIDC) -> Authenticator:
    return Authenticator(AuthSpec(mode="aad_token", oidc=spec), "digits", verifier=verifier)


def refusal(authenticator: Authenticator, authorization: bytes | None, now_s: float = NOW_S) -> Problem:
    with pytest.raises(Problem) as caught:
        authenticator.authenticate(authorization, now_s)
    return caught.value


def seen(problem: Problem) -> tuple[object, ...]:
    """Everything that a caller can see of it."""
    return problem.code, problem.message, problem.details, problem.headers


@pytest.mark.parametrize("key", [PRIMARY, SECONDARY])
@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "bEaReR   "])
def test_either_key_opens_the_endpoint(key: str, scheme: str) -> None:
    by_key().authenticate(f"{scheme}{key}".encode(), NOW_S)


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer:" + PRIMARY.encode(),
        PRIMARY.encode(),
        b"Basic " + PRIMARY.encode(),
        b"Bearer\t" + PRIMARY.encode(),
        b"Bearer " + PRIMARY.encode()[:-1],
        b"Bearer " + PRIMARY.swapcase().encode(),
        b"Bearer " + PRIMARY.encode() + b", Bearer " + SECONDARY.encode(),
        b"Bearer " + digest(PRIMARY),
        b"Bearer " + digest(PRIMARY).hex().encode(),
        b"Bearer \xff\xfe",
        b"Bearer " + b"x" * 8193,
        b"Bearer " + b"x" * 100_000,
    ],
)
def test_anything_but_a_key_gets_the_same_401(authorization: bytes | None) -> None:
    assert seen(refusal(by_key(), authorization)) == seen(refusal(by_key(), b"Bearer wrong"))
    problem = refusal(by_key(), authorization)
    assert problem.code is Code.UNAUTHENTICATED
    assert (b"www-authenticate", b"Bearer") in problem.headers
    assert problem.reason == "auth"


def test_a_refusal_holds_nothing_of_the_credential() -> None:
    problem = refusal(by_key(), b"Bearer canary-canary-canary")
    assert "canary" not in f"{problem!r} {problem.message} {problem.details}"
    assert problem.__cause__ is None


def test_a_signed_token_opens_its_endpoint_and_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    real = check_token

    def counting(*arguments: Any) -> float:
        nonlocal calls
        calls += 1
        return real(*arguments)

    monkeypatch.setattr(module, "check_token", counting)
    authenticator = by_token()
    header = b"Bearer " + sign_token("Digits", SECRET, 60, NOW_S).access_token.encode()
    for _ in range(5):
        authenticator.authenticate(header, NOW_S)
    assert calls == 1
    # It is remembered until it has expired, leeway included, and not a moment longer.
    authenticator.authenticate(header, NOW_S + 89)
    assert calls == 1
    assert refusal(authenticator, header, NOW_S + 90).code is Code.UNAUTHENTICATED
    assert calls == 2


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOKENS_REMEMBERED_MAX", 3)
    authenticator = by_token()
    tokens = [sign_token("digits", SECRET, 60 + i, NOW_S).access_token.encode() for i in range(5)]
    for token in tokens:
        authenticator.authenticate(b"Bearer " + token, NOW_S)
    assert list(authenticator._verified) == [digest(token) for token in tokens[2:]]


def test_a_genuine_token_of_another_endpoint_is_403_and_not_remembered() -> None:
    authenticator = by_token()
    header = b"Bearer " + sign_token("letters", SECRET, 60, NOW_S).access_token.encode()
    for _ in range(2):
        problem = refusal(authenticator, header)
        assert problem.code is Code.FORBIDDEN
        assert problem.reason == "auth"
    assert not authenticator._verified


AML_HEADER = {"typ": "JWT", "alg": "HS256"}
AML_CLAIMS = {"iss": "inference-gateway", "sub": "digits", "aud": "endpoint:digits", "iat": NOW_S, "exp": NOW_S + 60}
OIDC_HEADER = {"typ": "JWT", "alg": "RS256", "kid": "first"}


def test_the_tokens_that_the_forgeries_are_made_from_are_good(fetched: OidcVerifier) -> None:
    good = raw_token(AML_HEADER, AML_CLAIMS, hs256_with(SECRET))
    by_token().authenticate(b"Bearer " + good, NOW_S)
    good = raw_token(OIDC_HEADER, oidc_claims(), rs256_with())
    by_issuer(fetched).authenticate(b"Bearer " + good, NOW_S)


def aml_forgeries() -> list[Any]:
    header, claims = AML_HEADER, AML_CLAIMS
    tokens = forged_tokens(header, claims, hs256_with(SECRET), hs256_with(b"x" * 32))
    tokens["signed by an issuer"] = rs256(claims)
    tokens["the secret's own text"] = SECRET.hex().encode()
    tokens["an audience list with ours"] = raw_token(
        header, {**claims, "aud": ["endpoint:digits"]}, hs256_with(SECRET)
    )
    tokens["signed with no secret"] = raw_token(header, claims, hs256_with(b""))
    # The header alone says 384; the signature is the right one for 256.
    tokens["another length of HMAC"] = raw_token({**header, "alg": "HS512"}, claims, hs256_with(SECRET))
    assert len(tokens) >= 25
    return [pytest.param(token, id=name) for name, token in tokens.items()]


@pytest.mark.parametrize("token", aml_forgeries())
def test_every_forged_aml_token_gets_the_same_401(token: bytes) -> None:
    authenticator = by_token()
    good = sign_token("digits", SECRET, 60, NOW_S).access_token.encode()
    authenticator.authenticate(b"Bearer " + good, NOW_S)
    assert seen(refusal(authenticator, b"Bearer " + token)) == seen(refusal(authenticator, None))


def oidc_forgeries() -> list[Any]:
    header = OIDC_HEADER
    tokens = forged_tokens(header, oidc_claims(), rs256_with(), rs256_with("stranger"))

    def with_header(**changes: Any) -> bytes:
        return raw_token({**header, **changes}, oidc_claims(), rs256_with())

    pem = public_pem()
    confused = {**header, "alg": "HS256"}
    for name, secret in {"PEM": pem, "JWK": json.dumps(rsa_jwk()).encode(), "n": rsa_jwk()["n"].encode()}.items():
        tokens[f"HS256 with the public key as {name}"] = raw_token(confused, oidc_claims(), hs256_with(secret))
    tokens["our own aml token"] = sign_token("digits", SECRET, 60, NOW_S).access_token.encode()
    tokens["an aml token with the issuer's claims"] = raw_token({"alg": "HS256"}, oidc_claims(), hs256_with(SECRET))
    tokens["kid that is a path"] = with_header(kid="../../dev/null")
    tokens["kid that is SQL"] = with_header(kid="' UNION SELECT 'secret")
    tokens["kid that is empty"] = with_header(kid="")
    tokens["kid with a newline"] = with_header(kid="first\n")
    tokens["kid of 65 characters"] = with_header(kid="k" * 65)
    tokens["kid of the other kind of key"] = with_header(kid="curve")
    tokens["no kid, by a stranger"] = raw_token({"alg": "RS256"}, oidc_claims(), rs256_with("stranger"))
    tokens["an algorithm that was not asked for"] = with_header(alg="PS256")
    tokens["signed with the wrong key of the set"] = raw_token(header, oidc_claims(), rs256_with("second"))
    tokens["a key in the header"] = raw_token(
        {**header, "jwk": rsa_jwk("stranger")}, oidc_claims(), rs256_with("stranger")
    )
    assert len(tokens) >= 25
    return [pytest.param(token, id=name) for name, token in tokens.items()]


@pytest.mark.parametrize("token", oidc_forgeries())
def test_every_forged_oidc_token_gets_the_same_401(token: bytes, fetched: OidcVerifier) -> None:
    authenticator = by_issuer(fetched)
    authenticator.authenticate(b"Bearer " + rs256(oidc_claims()), NOW_S)
    authenticator.authenticate(b"Bearer " + es256(oidc_claims(), "curve"), NOW_S)
    assert seen(refusal(authenticator, b"Bearer " + token)) == seen(refusal(authenticator, None))


def test_an_oidc_token_of_the_issuer_without_the_role_is_403() -> None:
    spec = OidcSpec(
        issuer=ISSUER,
        audience=AUDIENCE,
        jwks_uri=OIDC.jwks_uri,
        algorithms=("RS256",),
        required_roles=("score", "admin"),
    )
    authenticator = by_issuer(verifier_with(rsa_jwk(), spec=spec), spec)
    for claims in ({}, {"roles": ["read"]}, {"scp": "read write"}, {"roles": {"score": 1}}, {"roles": [1, None]}):
        problem = refusal(authenticator, b"Bearer " + rs256(oidc_claims(**claims)))
        assert problem.code is Code.FORBIDDEN
    for claims in ({"roles": ["read", "score"]}, {"roles": "admin"}, {"scp": "read score"}, {"scp": ["score"]}):
        authenticator.authenticate(b"Bearer " + rs256(oidc_claims(**claims)), NOW_S)


def test_a_token_without_any_key_yet_asks_for_a_refresh_and_is_then_accepted() -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json={"keys": [rsa_jwk()]}))
    authenticator = by_issuer(OidcVerifier(OIDC, transport=transport))
    header = b"Bearer " + rs256(oidc_claims())

    async def story() -> None:
        problem = refusal(authenticator, header)
        assert isinstance(problem, KeysNeeded)
        assert problem.code is Code.UNAVAILABLE
        await authenticator.refresh()
        authenticator.authenticate(header, NOW_S)
        await authenticator.close()

    asyncio.run(story())


def test_what_was_verified_with_keys_that_the_issuer_took_back_is_forgotten() -> None:
    keys = [rsa_jwk("first"), rsa_jwk("second")]
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json={"keys": keys}))
    verifier = OidcVerifier(OIDC, transport=transport, fetch_interval_ns=0)
    authenticator = by_issuer(verifier)
    header = b"Bearer " + rs256(oidc_claims())

    async def story() -> None:
        await authenticator.refresh()
        authenticator.authenticate(header, NOW_S)
        del keys[0]
        await authenticator.refresh()
        assert refusal(authenticator, header).code is Code.UNAUTHENTICATED

    asyncio.run(story())


def test_refresh_and_close_mean_nothing_to_keys() -> None:
    async def story() -> None:
        await by_key().refresh()
        await by_key().close()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (AuthSpec(mode="key"), "has none"),
        (AuthSpec(mode="aml_token", token_secret=b"short"), "shorter than 32 bytes"),
        (AuthSpec(mode="aad_token"), "names no issuer"),
        (AuthSpec(mode="none"), "auth mode 'none' is not"),
    ],
)
def test_an_endpoint_that_nobody_or_anybody_could_open_is_refused(spec: AuthSpec, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Authenticator(spec, "digits")


def test_the_repr_says_who_and_how_and_no_secret() -> None:
    assert repr(by_key()) == "<Authenticator digits key>"
