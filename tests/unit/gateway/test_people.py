"""A person's role comes from the issuer's claim, and the name from what the person cannot choose."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from gateway.controlplane.authorize import Role
from gateway.controlplane.people import People, Person
from gateway.credentials import TokenRefused
from gateway.errors import Code, Problem
from gateway.oidc import OidcVerifier
from gateway.snapshot import OidcSpec
from tests.support.tokens import AUDIENCE, ISSUER, NOW_S, oidc_claims, rs256, rsa_jwk

SPEC = OidcSpec(
    issuer=ISSUER,
    audience=AUDIENCE,
    jwks_uri="https://login.example/keys",
    algorithms=("RS256",),
    required_roles=(),
)


class Issuer:
    """Answers with its keys, or not at all; counts what it is asked. The clock stands still where nobody moves it."""

    def __init__(self, *keys: str) -> None:
        self.keys = list(keys)
        self.asked = 0
        self.is_up = True
        self.now_ns = 0

    def answer(self, _: httpx.Request) -> httpx.Response:
        self.asked += 1
        return httpx.Response(200 if self.is_up else 503, json={"keys": [rsa_jwk(key) for key in self.keys]})

    def people(self, roles_claim: str = "roles") -> People:
        verifier = OidcVerifier(SPEC, transport=httpx.MockTransport(self.answer), clock=lambda: self.now_ns)
        return People(SPEC, roles_claim=roles_claim, verifier=verifier)


def person(roles_claim: str = "roles", **claims: Any) -> Person:
    people = Issuer("first").people(roles_claim)
    return asyncio.run(people.identify(rs256(oidc_claims(**claims)), NOW_S))


@pytest.mark.parametrize(
    ("roles", "role"),
    [
        (["reader"], Role.READER),
        (["operator"], Role.OPERATOR),
        (["admin"], Role.ADMIN),
        (["reader", "admin", "operator"], Role.ADMIN),
        (["something", "reader", 7, None], Role.READER),
        ("operator reader", Role.OPERATOR),
    ],
)
def test_the_highest_role_of_the_claim_counts(roles: object, role: Role) -> None:
    assert person(roles=roles).role is role


@pytest.mark.parametrize("roles", [None, [], "", ["Admin"], ["administrator"], {"admin": True}, 7, [["admin"]]])
def test_a_person_without_a_role_is_told_what_is_missing(roles: object) -> None:
    with pytest.raises(Problem) as caught:
        person(roles=roles, scp="admin")
    assert caught.value.code is Code.FORBIDDEN
    assert caught.value.message == (
        "person:somebody is known, but has no role here: the claim 'roles' of the token holds none of "
        "reader, operator, admin"
    )


@pytest.mark.parametrize(
    ("claim", "claims"),
    [
        ("groups", {"groups": ["operator"], "roles": ["admin"]}),
        ("https://example.org/roles", {"https://example.org/roles": "operator"}),
        ("realm_access.roles", {"realm_access": {"roles": ["operator"]}}),
        ("a.b", {"a.b": ["operator"], "a": {"b": ["admin"]}}),
    ],
)
def test_the_claim_may_have_another_name_or_lie_deeper(claim: str, claims: dict[str, Any]) -> None:
    assert person(claim, **claims).role is Role.OPERATOR


@pytest.mark.parametrize("claims", [{}, {"a": "text"}, {"a": {"b": 5}}, {"a": {"c": ["admin"]}}, {"a": ["b"]}])
def test_a_path_that_leads_nowhere_is_no_role(claims: dict[str, Any]) -> None:
    with pytest.raises(Problem, match=r"the claim 'a\.b\.c'"):
        person("a.b.c", **claims)


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({}, "person:somebody"),
        ({"preferred_username": "ann", "email": "ann@example.org"}, "person:somebody (ann)"),
        ({"email": "ann@example.org"}, "person:somebody (ann@example.org)"),
        ({"name": "Ann Onym"}, "person:somebody (Ann Onym)"),
        ({"preferred_username": 7, "email": ["x"], "name": ""}, "person:somebody"),
        ({"preferred_username": "a\r\nb\u2028c"}, "person:somebody (a??b?c)"),
        ({"sub": "x\n" + "y" * 200}, "person:x?" + "y" * 126),
    ],
)
def test_a_name_is_the_subject_and_fits_one_line(claims: dict[str, Any], name: str) -> None:
    assert person(roles=["reader"], **claims).name == name


def test_keys_are_fetched_at_the_first_use_and_when_they_change() -> None:
    issuer = Issuer("first")
    people = issuer.people()

    async def story() -> None:
        token = rs256(oidc_claims(roles=["reader"]))
        await people.identify(token, NOW_S)
        await people.identify(token, NOW_S)
        assert issuer.asked == 1
        issuer.keys = ["second"]
        issuer.now_ns = 20 * 10**9
        await people.identify(rs256(oidc_claims(roles=["reader"]), "second"), NOW_S)
        assert issuer.asked == 2
        with pytest.raises(TokenRefused):
            await people.identify(token, NOW_S)

    asyncio.run(story())


def test_a_key_that_the_issuer_does_not_have_is_refused_after_one_look() -> None:
    issuer = Issuer("first")
    people = issuer.people()
    stranger = rs256(oidc_claims(roles=["admin"]), "stranger")

    async def story() -> None:
        for _ in range(3):
            with pytest.raises(TokenRefused):
                await people.identify(stranger, NOW_S)

    asyncio.run(story())
    assert issuer.asked == 1


def test_with_keys_and_no_luck_in_finding_another_the_token_is_refused() -> None:
    issuer = Issuer("first")
    verifier = OidcVerifier(SPEC, transport=httpx.MockTransport(issuer.answer), fetch_interval_ns=0)
    people = People(SPEC, verifier=verifier)

    async def story() -> None:
        for _ in range(2):
            with pytest.raises(TokenRefused, match="no such key"):
                await people.identify(rs256(oidc_claims(), "stranger"), NOW_S)

    asyncio.run(story())


def test_while_the_issuer_is_down_and_unknown_it_is_503() -> None:
    issuer = Issuer("first")
    issuer.is_up = False
    with pytest.raises(Problem) as caught:
        asyncio.run(issuer.people().identify(rs256(oidc_claims(roles=["admin"])), NOW_S))
    assert caught.value.code is Code.UNAVAILABLE
    assert f"the keys of the issuer {ISSUER} could not be fetched yet" in caught.value.message
    assert caught.value.headers == ((b"retry-after", b"10"),)


def test_garbage_asks_the_issuer_nothing() -> None:
    issuer = Issuer("first")
    for token in (b"", b"a.b.c", rs256(oidc_claims(aud="elsewhere")), rs256(oidc_claims(exp=NOW_S - 31))):
        with pytest.raises(TokenRefused):
            asyncio.run(issuer.people().identify(token, NOW_S))
    assert issuer.asked == 0


def test_people_are_shown_by_their_issuer_and_closed_with_it() -> None:
    people = Issuer("first").people()
    assert repr(people) == "<People of https://login.example>"
    assert People(SPEC).issuer == ISSUER
    asyncio.run(people.close())


def test_a_claim_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="the usual one is 'roles'"):
        People(SPEC, roles_claim="")
