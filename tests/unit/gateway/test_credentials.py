"""Keys are long and random; a signed token opens one endpoint, for its time, and nothing else does."""

from __future__ import annotations

import re
from typing import Any

import jwt
import pytest

from gateway import credentials
from gateway.credentials import TokenForAnother, TokenRefused, check_token, digest, key_fault, make_key, sign_token
from tests.support.tokens import NOW_S, hs256_with, raw_token

SECRET = bytes(range(32))


def claims_of(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def test_a_key_is_43_characters_of_base64url_and_never_the_same() -> None:
    keys = {make_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", key) for key in keys)


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("k" * 16, ""),
        ("!~" * 2048, ""),
        ("", "is empty"),
        ("k" * 15, "has 15 characters; 16 to 4096 are accepted"),
        ("k" * 4097, "has 4097 characters; 16 to 4096 are accepted"),
        ("a space in the key", "has characters other than printable ASCII without spaces"),
        ("é" * 20, "has characters other than printable ASCII without spaces"),
        ("k" * 20 + "\n", "has characters other than printable ASCII without spaces"),
    ],
)
def test_what_is_wrong_with_a_chosen_key_is_said_without_showing_it(key: str, fault: str) -> None:
    assert key_fault(key) == fault


def test_every_made_key_may_be_chosen() -> None:
    assert not any(key_fault(make_key()) for _ in range(100))


def test_a_digest_is_the_same_for_text_and_bytes() -> None:
    assert digest("abc") == digest(b"abc")
    assert len(digest("abc")) == 32


def test_a_token_names_its_endpoint_in_lower_case_and_says_when_it_ends() -> None:
    token = sign_token("Digits", SECRET, 3600, NOW_S + 0.7)
    claims = claims_of(token.access_token)
    assert claims.pop("jti")
    assert claims == {
        "iss": "inference-gateway",
        "sub": "digits",
        "aud": "endpoint:digits",
        "iat": NOW_S,
        "nbf": NOW_S,
        "exp": NOW_S + 3600,
    }
    assert (token.expires_s, token.refresh_after_s) == (NOW_S + 3600, NOW_S + 1800)


def test_two_tokens_of_one_second_differ() -> None:
    assert sign_token("a", SECRET, 9, NOW_S).access_token != sign_token("a", SECRET, 9, NOW_S).access_token


@pytest.mark.parametrize("lifetime_s", [0, -5])
def test_a_token_must_live(lifetime_s: int) -> None:
    with pytest.raises(ValueError, match="at least 1 second"):
        sign_token("digits", SECRET, lifetime_s, NOW_S)


def test_refresh_comes_before_expiry_for_the_shortest_life() -> None:
    token = sign_token("digits", SECRET, 1, NOW_S)
    assert token.refresh_after_s < token.expires_s


def test_the_repr_of_a_token_hides_it() -> None:
    token = sign_token("digits", SECRET, 60, NOW_S)
    assert token.access_token not in repr(token)


def test_a_token_is_good_until_its_end_and_the_leeway() -> None:
    token = sign_token("Digits", SECRET, 60, NOW_S).access_token.encode()
    assert check_token(token, "dIGITS", SECRET, NOW_S) == NOW_S + 60 + 30
    assert check_token(token, "digits", SECRET, NOW_S + 89.9) == NOW_S + 90
    with pytest.raises(TokenRefused, match="expired"):
        check_token(token, "digits", SECRET, NOW_S + 90)
    assert check_token(token, "digits", SECRET, NOW_S - 30) == NOW_S + 90
    with pytest.raises(TokenRefused, match="future"):
        check_token(token, "digits", SECRET, NOW_S - 31)


def test_a_token_of_another_endpoint_is_told_apart_from_a_forged_one() -> None:
    token = sign_token("letters", SECRET, 60, NOW_S).access_token.encode()
    with pytest.raises(TokenForAnother):
        check_token(token, "digits", SECRET, NOW_S)
    with pytest.raises(TokenRefused):
        check_token(token, "digits", bytes(32), NOW_S)
    with pytest.raises(TokenRefused, match="expired"):
        check_token(token, "digits", SECRET, NOW_S + 1000)


@pytest.mark.parametrize("name", ["digit", "digits2", "digits/", "endpoint:digits"])
def test_a_name_that_begins_alike_is_another_endpoint(name: str) -> None:
    token = sign_token(name, SECRET, 60, NOW_S).access_token.encode()
    with pytest.raises(TokenForAnother):
        check_token(token, "digits", SECRET, NOW_S)


def test_claims_may_hold_lists_and_unicode() -> None:
    claims = claims_of(sign_token("digits", SECRET, 60, NOW_S).access_token)
    token = raw_token({"alg": "HS256"}, {**claims, "name": "Zoë", "groups": [["a"], {"b": 1}]}, hs256_with(SECRET))
    assert check_token(token, "digits", SECRET, NOW_S) == NOW_S + 90


def test_addresses_of_keys_in_the_header_are_not_looked_at() -> None:
    claims = claims_of(sign_token("digits", SECRET, 60, NOW_S).access_token)
    header = {"alg": "HS256", "jku": "http://evil.example/keys", "x5u": "http://evil.example", "jwk": {"kty": "oct"}}
    assert check_token(raw_token(header, claims, hs256_with(SECRET)), "digits", SECRET, NOW_S)
    with pytest.raises(TokenRefused):
        check_token(raw_token(header, claims, hs256_with(b"x" * 32)), "digits", SECRET, NOW_S)


def test_the_one_answer_is_401_with_a_challenge() -> None:
    problem = credentials.unauthenticated()
    assert problem.code.status == 401
    assert problem.headers == ((b"www-authenticate", b"Bearer"),)
    assert problem.reason == "auth"


def test_a_token_of_more_than_8_kib_is_not_even_read() -> None:
    with pytest.raises(TokenRefused, match="9000 bytes; at most 8192"):
        check_token(b"x" * 9000, "digits", SECRET, NOW_S)
