"""An issuer's keys: fetched once for many, within bounds, kept when a fetch fails, never of the wrong kind."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway import oidc
from gateway.credentials import TokenRefused
from gateway.errors import Code
from gateway.jwks import FetchFailed, read_keys
from gateway.oidc import KeysNeeded, OidcVerifier, check_spec
from gateway.snapshot import OidcSpec
from tests.support.tokens import (
    AUDIENCE,
    ISSUER,
    NOW_S,
    ec_jwk,
    es256,
    oidc_claims,
    raw_token,
    rs256,
    rs256_with,
    rsa_jwk,
    rsa_key,
)

KEYS_URI = "https://login.example/keys"
SPEC = OidcSpec(issuer=ISSUER, audience=AUDIENCE, jwks_uri=KEYS_URI, algorithms=("RS256", "ES256"), required_roles=())
DISCOVERING = replace(SPEC, jwks_uri="")
DISCOVERY_URI = "https://login.example/.well-known/openid-configuration"
SECOND_NS = 10**9


@dataclass
class Issuer:
    """An issuer that answers from memory and counts what it was asked."""

    answers: dict[str, Any]
    asked: list[str] = field(default_factory=list)
    before: Callable[[], Awaitable[None]] | None = None
    now_ns: int = 0

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        if self.before is not None:
            await self.before()
        found = self.answers[str(request.url)]
        if isinstance(found, Exception):
            raise found
        return found if isinstance(found, httpx.Response) else httpx.Response(200, json=found)

    def verifier(self, spec: OidcSpec = SPEC, fetch_interval_ns: int = 10 * SECOND_NS) -> OidcVerifier:
        transport = httpx.MockTransport(self.answer)
        return OidcVerifier(spec, transport=transport, clock=lambda: self.now_ns, fetch_interval_ns=fetch_interval_ns)


def with_keys(*keys: dict[str, Any]) -> Issuer:
    return Issuer({KEYS_URI: {"keys": list(keys)}})


def test_keys_come_from_the_discovered_address_and_verify_both_kinds_of_token() -> None:
    issuer = with_keys(rsa_jwk(), ec_jwk("curve"))
    issuer.answers[DISCOVERY_URI] = {"issuer": ISSUER, "jwks_uri": KEYS_URI}
    verifier = issuer.verifier(DISCOVERING)
    asyncio.run(verifier.refresh())
    assert issuer.asked == [DISCOVERY_URI, KEYS_URI]
    assert verifier.verify(rs256(oidc_claims()), NOW_S) == NOW_S + 3630
    assert verifier.verify(es256(oidc_claims(), "curve"), NOW_S) == NOW_S + 3630
    assert verifier.verify(rs256(oidc_claims(aud=["x", AUDIENCE])), NOW_S) == NOW_S + 3630
    assert repr(verifier) == "<OidcVerifier https://login.example, 2 keys>"


def test_an_issuer_with_a_path_is_discovered_below_it() -> None:
    spec = replace(DISCOVERING, issuer="https://login.example/tenant/v2.0/")
    uri = "https://login.example/tenant/v2.0/.well-known/openid-configuration"
    issuer = with_keys(rsa_jwk())
    issuer.answers[uri] = {"issuer": spec.issuer, "jwks_uri": KEYS_URI}
    asyncio.run(issuer.verifier(spec).refresh())
    assert issuer.asked == [uri, KEYS_URI]


def test_a_crowd_waits_for_one_fetch() -> None:
    issuer = with_keys(rsa_jwk())
    verifier = issuer.verifier()

    async def story() -> None:
        gate = asyncio.Event()

        async def wait() -> None:
            await gate.wait()

        issuer.before = wait
        crowd = [asyncio.create_task(verifier.refresh()) for _ in range(20)]
        quitter = crowd.pop()
        await asyncio.sleep(0)
        # One who hangs up does not end the fetch that the others wait for.
        quitter.cancel()
        await asyncio.wait([quitter])
        gate.set()
        await asyncio.gather(*crowd)

    asyncio.run(story())
    assert issuer.asked == [KEYS_URI]
    assert verifier.verify(rs256(oidc_claims()), NOW_S)


def test_an_unknown_key_is_fetched_for_at_most_once_an_interval() -> None:
    issuer = with_keys(rsa_jwk("first"))
    verifier = issuer.verifier()
    token = rs256(oidc_claims(), "second")

    async def story() -> None:
        with pytest.raises(KeysNeeded) as caught:
            verifier.verify(token, NOW_S)
        assert caught.value.code is Code.UNAVAILABLE
        assert (b"retry-after", b"10") in caught.value.headers
        await verifier.refresh()
        # Now it is known that the issuer has no such key, and for a while nobody asks again.
        with pytest.raises(TokenRefused, match="no such key"):
            verifier.verify(token, NOW_S)
        await verifier.refresh()
        assert len(issuer.asked) == 1
        issuer.answers[KEYS_URI] = {"keys": [rsa_jwk("second")]}
        issuer.now_ns += 10 * SECOND_NS
        with pytest.raises(KeysNeeded) as caught:
            verifier.verify(token, NOW_S)
        assert caught.value.code is Code.UNAUTHENTICATED
        await verifier.refresh()
        assert verifier.verify(token, NOW_S)
        assert len(issuer.asked) == 2
        # The key that the issuer took back is not known any more.
        with pytest.raises(TokenRefused):
            verifier.verify(rs256(oidc_claims(), "first"), NOW_S)

    asyncio.run(story())


@pytest.mark.parametrize(
    "token",
    [
        b"garbage",
        rs256(oidc_claims(iss="https://evil.example"), "unknown"),
        rs256(oidc_claims(aud="elsewhere"), "unknown"),
        rs256(oidc_claims(exp=NOW_S - 31), "unknown"),
        raw_token({"alg": "none", "kid": "unknown"}, oidc_claims(), rs256_with()),
        raw_token({"alg": "RS256", "kid": "../../dev/null"}, oidc_claims(), rs256_with()),
    ],
)
def test_a_token_that_is_wrong_in_itself_never_causes_a_fetch(token: bytes) -> None:
    with pytest.raises(TokenRefused):
        with_keys(rsa_jwk()).verifier().verify(token, NOW_S)


def test_a_token_without_kid_is_verified_where_there_is_no_choice() -> None:
    token = raw_token({"alg": "RS256"}, oidc_claims(), rs256_with())
    one = with_keys(rsa_jwk(), ec_jwk("curve")).verifier()
    with pytest.raises(KeysNeeded):
        one.verify(token, NOW_S)
    asyncio.run(one.refresh())
    assert one.verify(token, NOW_S)
    two = with_keys(rsa_jwk(), rsa_jwk("second")).verifier()
    asyncio.run(two.refresh())
    with pytest.raises(TokenRefused, match="exactly one"):
        two.verify(token, NOW_S)


def test_old_keys_are_fetched_in_the_background_and_serve_meanwhile() -> None:
    issuer = with_keys(rsa_jwk())
    verifier = issuer.verifier()

    async def story() -> None:
        verifier.refresh_if_stale()
        await verifier.refresh()
        issuer.now_ns = 3600 * SECOND_NS
        verifier.refresh_if_stale()
        assert len(issuer.asked) == 1
        issuer.now_ns += 1
        for _ in range(3):
            verifier.refresh_if_stale()
            assert verifier.verify(rs256(oidc_claims()), NOW_S)
        await verifier.refresh()
        assert len(issuer.asked) == 2
        # The same document again is no change: what was verified stays verified.
        assert verifier.generation == 1
        verifier.refresh_if_stale()
        await verifier.refresh()
        assert len(issuer.asked) == 2

    asyncio.run(story())


def test_a_fetch_that_was_ended_before_it_began_does_not_block_the_next() -> None:
    issuer = with_keys(rsa_jwk())
    verifier = issuer.verifier(fetch_interval_ns=0)

    async def story() -> None:
        waiting = asyncio.create_task(verifier.refresh())
        await asyncio.sleep(0)
        await asyncio.gather(verifier.close(), waiting)
        assert issuer.asked == []
        await verifier.refresh()
        assert issuer.asked == [KEYS_URI]

    asyncio.run(story())


def test_keys_without_an_id_are_kept_beside_those_with_one() -> None:
    nameless = {name: value for name, value in rsa_jwk("second").items() if name != "kid"}
    verifier = with_keys(rsa_jwk(), {**nameless, "kid": None}, {**nameless, "use": "enc"}, nameless).verifier()
    asyncio.run(verifier.refresh())
    assert verifier.verify(rs256(oidc_claims()), NOW_S)


def test_closing_ends_a_fetch_and_lets_go_of_those_who_wait() -> None:
    issuer = with_keys(rsa_jwk())
    verifier = issuer.verifier()

    async def story() -> None:
        started = asyncio.Event()

        async def hang() -> None:
            started.set()
            await asyncio.Event().wait()

        issuer.before = hang
        waiting = asyncio.create_task(verifier.refresh())
        await started.wait()
        await verifier.close()
        await waiting
        await verifier.close()

    asyncio.run(story())
    with pytest.raises(KeysNeeded):
        verifier.verify(rs256(oidc_claims()), NOW_S)


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b" " * 65536


def answers(status: int = 200, **more: Any) -> Callable[[], httpx.Response]:
    """A fresh response each time: one is used up by reading."""
    return lambda: httpx.Response(status, **more)


BAD_KEYS: dict[str, tuple[Callable[[], Any], str]] = {
    "refused": (lambda: httpx.ConnectError("no route"), "no route"),
    "too slow": (lambda: httpx.ReadTimeout("slow"), "slow"),
    "not found": (answers(404), "answered 404"),
    "redirect": (answers(302, headers={"location": "http://169.254.169.254/"}), "redirects are not followed"),
    "compressed": (answers(headers={"content-encoding": "gzip"}, content=endless()), "content encoding"),
    "endless": (answers(content=endless()), "more than 1048576 bytes"),
    "not JSON": (answers(text="<html>"), "did not answer JSON"),
    "nested": (answers(text="[" * 100_000), "did not answer JSON"),
    "a list": (list, "JSON object"),
    "without keys": (dict, "list 'keys'"),
    "keys no list": (lambda: {"keys": {}}, "list 'keys'"),
    "no key": (lambda: {"keys": []}, "none of the 0 keys"),
    "too many": (lambda: {"keys": [rsa_jwk()] * 101}, "at most 100"),
    "a broken proxy": (lambda: ValueError("Unknown scheme for proxy URL"), "Unknown scheme"),
    "a lost file": (lambda: FileNotFoundError(2, "No such file"), "No such file"),
}


@pytest.mark.parametrize(("make", "said"), BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_failed_fetch_is_logged_and_keeps_the_old_keys(
    make: Callable[[], Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    issuer = with_keys(rsa_jwk())
    verifier = issuer.verifier(fetch_interval_ns=0)

    async def story() -> None:
        await verifier.refresh()
        issuer.answers[KEYS_URI] = make()
        await verifier.refresh()
        assert verifier.verify(rs256(oidc_claims()), NOW_S)

    asyncio.run(story())
    assert verifier.generation == 1
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert said in record.getMessage()


def test_a_fetch_that_takes_too_long_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(oidc, "FETCH_S", 0.01)
    issuer = with_keys(rsa_jwk())

    async def hang() -> None:
        await asyncio.Event().wait()

    issuer.before = hang
    asyncio.run(issuer.verifier().refresh())
    assert "no answer within 0.01 s" in caplog.text


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"issuer": "https://evil.example", "jwks_uri": KEYS_URI}, "names the issuer 'https://evil.example'"),
        ({"issuer": ISSUER + "/", "jwks_uri": KEYS_URI}, "names the issuer"),
        ({"jwks_uri": KEYS_URI}, "names the issuer None"),
        ({"issuer": ISSUER}, "has no jwks_uri"),
        ({"issuer": ISSUER, "jwks_uri": 7}, "has no jwks_uri"),
        ({"issuer": ISSUER, "jwks_uri": "http://login.example/keys"}, "not an https address"),
        ({"issuer": ISSUER, "jwks_uri": "http://127.0.0.1/keys"}, "not an https address"),
        ({"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"}, "not an https address"),
    ],
)
def test_a_discovery_document_that_points_elsewhere_is_refused(
    document: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    issuer = with_keys(rsa_jwk())
    issuer.answers[DISCOVERY_URI] = document
    asyncio.run(issuer.verifier(DISCOVERING).refresh())
    assert issuer.asked == [DISCOVERY_URI]
    assert said in caplog.text


def curve_jwk(curve: ec.EllipticCurve) -> dict[str, Any]:
    found: dict[str, Any] = ECAlgorithm.to_jwk(ec.generate_private_key(curve).public_key(), as_dict=True)
    return {**found, "kid": "odd"}


def unusable_keys() -> dict[str, Any]:
    private = json.loads(RSAAlgorithm.to_jwk(rsa_key()))
    edwards = json.loads(OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate().public_key()))
    return {
        "symmetric": {"kty": "oct", "k": "c2VjcmV0", "kid": "odd", "alg": "HS256"},
        "symmetric, for RS256": {"kty": "oct", "k": "c2VjcmV0", "kid": "odd", "alg": "RS256"},
        "Edwards": {**edwards, "kid": "odd"},
        "private": {**private, "kid": "odd"},
        "for encryption": rsa_jwk("odd", use="enc"),
        "for another algorithm": rsa_jwk("odd", alg="RS512"),
        "for signing only": rsa_jwk("odd", key_ops=["sign"]),
        "with operations that are no list": rsa_jwk("odd", key_ops="verify"),
        "too short": rsa_jwk("weak", bits=1024),
        "of another curve": curve_jwk(ec.SECP384R1()),
        "with an odd kid": rsa_jwk("odd", kid="../../dev/null"),
        "with a kid that is a number": rsa_jwk("odd", kid=7),
        "without a modulus": {"kty": "RSA", "kid": "odd", "e": "AQAB"},
        "with a modulus of junk": {"kty": "RSA", "kid": "odd", "n": "?", "e": "AQAB"},
        "with a modulus that is a number": {"kty": "RSA", "kid": "odd", "n": 5, "e": "AQAB"},
        "a point off the curve": {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "B" * 43, "kid": "odd"},
        "text": "key",
        "null": None,
    }


UNUSABLE = unusable_keys()


@pytest.mark.parametrize("entry", UNUSABLE.values(), ids=UNUSABLE)
def test_a_key_that_cannot_be_used_is_left_out_and_the_others_count(entry: Any) -> None:
    algorithms = ("RS256", "ES256")
    assert list(read_keys({"keys": [entry, rsa_jwk()]}, algorithms)) == [("first", "RS256")]
    with pytest.raises(FetchFailed, match="none of the 1 keys"):
        read_keys({"keys": [entry]}, algorithms)


def test_a_key_is_made_for_each_algorithm_that_it_fits_and_the_first_of_a_name_counts() -> None:
    keys = read_keys({"keys": [rsa_jwk(), rsa_jwk("second", kid="first")]}, ("RS256", "PS512", "ES256"))
    assert set(keys) == {("first", "RS256"), ("first", "PS512")}
    assert {key.algorithm_name for key in keys.values()} == {"RS256", "PS512"}
    first = rsa_key("first").public_key().public_numbers()
    assert all(key.key.public_numbers() == first for key in keys.values())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"issuer": "http://login.example"}, "not an https address"),
        ({"issuer": "http://127.0.0.1.evil.example"}, "not an https address"),
        ({"issuer": "http://2130706433"}, "not an https address"),
        ({"issuer": "ftp://localhost"}, "not an https address"),
        ({"issuer": "login.example"}, "not an https address"),
        ({"issuer": "https://"}, "not an https address"),
        ({"issuer": "https://user:secret@login.example"}, "user name or password"),
        ({"jwks_uri": "http://127.0.0.1/keys"}, "not an https address"),
        ({"audience": ""}, "audience is empty"),
        ({"algorithms": ()}, "are not some of"),
        ({"algorithms": ("RS256", "HS256")}, "are not some of"),
        ({"algorithms": ("none",)}, "are not some of"),
    ],
)
def test_settings_that_can_never_be_safe_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        check_spec(replace(SPEC, **changes))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "127.8.8.8:8080"])
def test_an_issuer_on_this_machine_may_speak_plain_http(host: str) -> None:
    check_spec(replace(SPEC, issuer=f"http://{host}", jwks_uri=f"http://{host}/keys"))
