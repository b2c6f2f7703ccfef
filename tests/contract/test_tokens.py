"""Tokens end to end, as far as the machine's own loopback: vault to scorer, and a real issuer that rotates."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gateway.controlplane.state import open_state
from gateway.controlplane.yaml_types import EndpointGatewayYaml
from gateway.dataplane.authenticate import Authenticator
from gateway.errors import Code, Problem
from gateway.oidc import KeysNeeded, OidcVerifier
from gateway.snapshot import AuthSpec, OidcSpec
from tests.support.plane import ANN, Plane
from tests.support.tokens import AUDIENCE, NOW_S, ec_jwk, es256, oidc_claims, rs256, rsa_jwk


@dataclass
class Issuer:
    """What a real HTTP server on loopback answers."""

    url: str = ""
    keys: list[dict[str, Any]] = field(default_factory=list)
    redirect: bool = False
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> dict[str, Any] | None:
        self.asked.append(path)
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        return {"keys": self.keys} if path in ("/keys", "/moved") else None

    def spec(self) -> OidcSpec:
        return OidcSpec(
            issuer=self.url, audience=AUDIENCE, jwks_uri="", algorithms=("RS256", "ES256"), required_roles=()
        )


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    found = Issuer(keys=[rsa_jwk("first")])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if found.redirect and self.path == "/keys":
                self.send_response(302)
                self.send_header("location", "/moved")
                self.end_headers()
                return
            answer = found.answer(self.path)
            self.send_response(404 if answer is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            """Says nothing: what was asked is in `asked`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = Plane(tmp_path)
    yield made
    made.close()


async def knock(authenticator: Authenticator, authorization: bytes, now_s: float = NOW_S) -> int:
    """What the ASGI door does: the status that the caller gets, 200 where he may score."""
    try:
        try:
            authenticator.authenticate(authorization, now_s)
        except KeysNeeded:
            await authenticator.refresh()
            authenticator.authenticate(authorization, now_s)
    except Problem as problem:
        return problem.code.status
    return 200


def test_a_real_issuer_may_rotate_its_keys_while_callers_come(issuer: Issuer) -> None:
    verifier = OidcVerifier(issuer.spec(), fetch_interval_ns=0)
    authenticator = Authenticator(AuthSpec(mode="aad_token", oidc=issuer.spec()), "digits", verifier=verifier)
    claims = oidc_claims(iss=issuer.url)
    first, second, third = (b"Bearer " + token for token in _tokens(claims))

    async def story() -> None:
        # A crowd before any key is known: all get in, with one fetch.
        assert await asyncio.gather(*(knock(authenticator, first) for _ in range(20))) == [200] * 20
        assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]
        # The issuer announces a new key, then takes the old one back.
        issuer.keys = [rsa_jwk("first"), rsa_jwk("second")]
        assert [await knock(authenticator, token) for token in (first, second)] == [200, 200]
        issuer.keys = [rsa_jwk("second"), ec_jwk("third")]
        assert [await knock(authenticator, token) for token in (second, third)] == [200, 200]
        assert await knock(authenticator, first) == 401
        await authenticator.close()

    asyncio.run(story())


def _tokens(claims: dict[str, Any]) -> tuple[bytes, bytes, bytes]:
    return rs256(claims, "first"), rs256(claims, "second"), es256(claims, "third")


def test_redirects_are_not_followed_and_an_issuer_without_keys_gives_503(issuer: Issuer) -> None:
    issuer.redirect = True
    authenticator = Authenticator(AuthSpec(mode="aad_token", oidc=issuer.spec()), "digits")
    token = b"Bearer " + rs256(oidc_claims(iss=issuer.url))
    assert asyncio.run(knock(authenticator, token)) == 503
    assert "/moved" not in issuer.asked


def test_an_issuer_that_is_away_gives_503_to_its_tokens_and_401_to_all_else(issuer: Issuer) -> None:
    spec = OidcSpec(
        issuer="http://127.0.0.1:1", audience=AUDIENCE, jwks_uri="", algorithms=("RS256",), required_roles=()
    )
    authenticator = Authenticator(AuthSpec(mode="aad_token", oidc=spec), "digits")
    genuine = b"Bearer " + rs256(oidc_claims(iss=spec.issuer))
    assert asyncio.run(knock(authenticator, genuine)) == 503
    assert asyncio.run(knock(authenticator, b"Bearer nonsense")) == 401


def test_a_token_of_the_vault_opens_its_endpoint_and_no_other(plane: Plane) -> None:
    for name in ("digits", "letters"):
        plane.put_endpoint(name, auth_mode="aml_token", gateway=EndpointGatewayYaml(token_lifetime_s=60))
    plane.now_s = NOW_S
    answer = plane.run(plane.control.token("digits"))
    header = f"Bearer {answer['accessToken']}".encode()
    endpoints = plane.scorers.serves.endpoints
    digits, letters = (Authenticator(endpoints[name].auth, name) for name in ("digits", "letters"))
    assert asyncio.run(knock(digits, header)) == 200
    assert asyncio.run(knock(letters, header)) == 403
    assert asyncio.run(knock(digits, header, NOW_S + 90)) == 401
    # Another gateway's secret.
    stranger = Authenticator(AuthSpec(mode="aml_token", token_secret=bytes(32)), "digits")
    assert asyncio.run(knock(stranger, header)) == 401


def test_keys_of_the_vault_open_their_endpoint_and_no_other(plane: Plane, tmp_path: Path) -> None:
    for name in ("digits", "letters"):
        plane.put_endpoint(name)
    digits, letters = (plane.run(plane.control.keys(name)) for name in ("digits", "letters"))
    authenticator = Authenticator(plane.scorers.serves.endpoints["digits"].auth, "digits")
    state = open_state(tmp_path / "state")
    for key, status in (
        (digits.primary, 200),
        (digits.secondary, 200),
        (letters.primary, 401),
        (state.management_token(), 401),
    ):
        assert asyncio.run(knock(authenticator, f"Bearer {key}".encode())) == status
    state.close()
    plane.run(plane.control.regenerate("digits", "primary", None, ANN))
    renewed = Authenticator(plane.scorers.serves.endpoints["digits"].auth, "digits")
    assert asyncio.run(knock(renewed, f"Bearer {digits.primary}".encode())) == 401
    assert asyncio.run(knock(renewed, f"Bearer {digits.secondary}".encode())) == 200
    with pytest.raises(Problem) as caught:
        authenticator.authenticate(None, NOW_S)
    assert caught.value.code is Code.UNAUTHENTICATED
