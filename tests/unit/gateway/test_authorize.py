"""Who may manage what: three roles, tokens with a name and an end, one answer to everything that proves nothing."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field, replace

import httpx
import pytest

from gateway.controlplane.authorize import (
    FOLDER,
    GATEWAY,
    LIFETIME_S_MAX,
    REMEMBERED_MAX,
    REMEMBERED_NS,
    Actor,
    Doorkeeper,
    Role,
    make_token,
    require,
)
from gateway.controlplane.people import People
from gateway.controlplane.store.records import ManagementToken
from gateway.credentials import make_key, sign_token
from gateway.errors import Code, Problem
from gateway.oidc import OidcVerifier
from gateway.snapshot import OidcSpec
from tests.support.tokens import (
    AUDIENCE,
    ISSUER,
    NOW_S,
    forged_tokens,
    oidc_claims,
    raw_token,
    rs256,
    rs256_with,
    rsa_jwk,
)

FIRST = "m" * 43
URI = "https://localhost:8444/"
OIDC = OidcSpec(
    issuer=ISSUER,
    audience=AUDIENCE,
    jwks_uri="https://login.example/keys",
    algorithms=("RS256",),
    required_roles=(),
)
ROLES = {role.text: role for role in Role}


@dataclass
class Tokens:
    """A store of management tokens that counts what it is asked, and the time."""

    kept: dict[bytes, ManagementToken] = field(default_factory=dict)
    asked: int = 0
    now_s: float = NOW_S
    now_ns: int = 0

    def add(self, name: str, role: Role = Role.READER, lifetime_s: int | None = None) -> str:
        text, record = make_token(name, role, lifetime_s, "test", self.now_s)
        self.kept[record.digest] = record
        return text

    async def find(self, digest: bytes) -> ManagementToken | None:
        self.asked += 1
        return self.kept.get(digest)

    def doorkeeper(self, people: People | None = None) -> Doorkeeper:
        return Doorkeeper(
            FIRST,
            self.find,
            people=people,
            authorization_uri=URI,
            now_s=lambda: self.now_s,
            clock=lambda: self.now_ns,
        )


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


def people_with(*keys: str) -> People:
    """People whose issuer's keys are here already."""
    page = {"keys": [rsa_jwk(key) for key in keys]}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=page))
    return People(OIDC, verifier=OidcVerifier(OIDC, transport=transport))


def who(doorkeeper: Doorkeeper, credential: str | None) -> Actor:
    header = None if credential is None else f"Bearer {credential}"
    return asyncio.run(doorkeeper.identify(header, "10.0.0.7", "r-1"))


def refusal(doorkeeper: Doorkeeper, header: str | None) -> Problem:
    with pytest.raises(Problem) as caught:
        asyncio.run(doorkeeper.identify(header, "10.0.0.7", "r-1"))
    return caught.value


# Roles


@pytest.mark.parametrize("needed", list(Role))
@pytest.mark.parametrize("had", list(Role))
def test_a_role_may_do_what_a_lower_one_may(had: Role, needed: Role) -> None:
    actor = Actor(name="token:ci", role=had)
    if had >= needed:
        require(actor, needed)
        return
    with pytest.raises(Problem) as caught:
        require(actor, needed)
    assert caught.value.code is Code.FORBIDDEN
    assert caught.value.message == f"this needs the role {needed.text}, and token:ci has the role {had.text}"


def test_roles_are_ordered_and_spelled_in_one_way() -> None:
    assert Role.READER < Role.OPERATOR < Role.ADMIN
    assert {Role.of(role.text) for role in Role} == set(Role)
    assert [Role.of(text) for text in ("", "Admin", "root", "ADMIN")] == [None] * 4


def test_the_gateway_and_who_holds_its_folder_may_do_everything() -> None:
    for actor in (GATEWAY, FOLDER):
        require(actor, Role.ADMIN)


# Making tokens


def test_a_token_is_long_known_by_its_prefix_and_kept_as_a_digest() -> None:
    text, record = make_token("ci", Role.OPERATOR, 60, "token:root", 100.0)
    assert re.fullmatch(r"igm_[A-Za-z0-9_-]{43}", text)
    assert text not in repr(record)
    assert replace(record, digest=b"") == ManagementToken(
        name="ci", digest=b"", role="operator", created_at=100.0, created_by="token:root", expires_at=160.0
    )
    assert make_token("ci", Role.OPERATOR, None, "x", 100.0)[1].expires_at is None
    assert len({make_token("ci", Role.READER, None, "x", 0)[0] for _ in range(50)}) == 50


@pytest.mark.parametrize("name", ["a", "ci", "7", "team-a.ci_2", "x" * 63])
def test_a_token_may_have_a_plain_name(name: str) -> None:
    assert make_token(name, Role.READER, None, "x", 0)[1].name == name


@pytest.mark.parametrize("name", ["", "x" * 64, "-a", "a-", "a b", "a/b", "..", "a\n", "é", "token:ci"])
def test_a_token_may_not_have_any_name(name: str) -> None:
    with pytest.raises(Problem, match="a management token cannot be named") as caught:
        make_token(name, Role.READER, None, "x", 0)
    assert caught.value.code is Code.INVALID_INPUT


@pytest.mark.parametrize("lifetime_s", [0, -1, LIFETIME_S_MAX + 1])
def test_a_token_lives_for_a_second_or_for_ten_years(lifetime_s: int) -> None:
    with pytest.raises(Problem, match=f"cannot live for {lifetime_s} seconds; accepted: 1 to"):
        make_token("ci", Role.READER, lifetime_s, "x", 0)


# Who is at the door


def test_the_first_token_is_an_admins_and_asks_no_store(tokens: Tokens) -> None:
    actor = who(tokens.doorkeeper(), FIRST)
    assert actor == Actor(name="management.token", role=Role.ADMIN, source="10.0.0.7", request_id="r-1")
    assert tokens.asked == 0


@pytest.mark.parametrize("role", list(Role))
def test_a_token_gives_its_name_and_role(role: Role, tokens: Tokens) -> None:
    text = tokens.add("ci", role)
    doorkeeper = tokens.doorkeeper()
    expected = Actor(name="token:ci", role=role, source="10.0.0.7", request_id="r-1")
    for header in (f"Bearer {text}", f"bearer   {text} ", f"BEARER {text}"):
        assert asyncio.run(doorkeeper.identify(header, "10.0.0.7", "r-1")) == expected


@pytest.mark.parametrize("with_people", [False, True])
def test_every_credential_that_proves_nothing_gets_the_same_401(tokens: Tokens, with_people: bool) -> None:
    good = tokens.add("ci")
    expired = tokens.add("old", Role.ADMIN, 1)
    tokens.now_s += 1
    doorkeeper = tokens.doorkeeper(people_with("first") if with_people else None)
    aml = sign_token("digits", bytes(32), 3600, NOW_S).access_token
    wrong = [
        make_key(),
        aml,
        expired,
        good[:-1],
        good + "A",
        good.upper(),
        "igm_" + "A" * 43,
        FIRST[:-1],
        FIRST + "m",
    ]
    headers = [f"Bearer {credential}" for credential in wrong]
    headers += [
        "",
        "Bearer",
        "Bearer ",
        "Bearer   ",
        good,
        FIRST,
        f"Basic {good}",
        f"Bearer{good}",
        f"Bearer {good}é",
    ]
    headers += [f"Bearer {'x' * 8193}", f"Bearer {good}, Bearer {good}"]
    problems = [refusal(doorkeeper, header) for header in (None, *headers)]
    uri = ISSUER if with_people else URI
    for problem in problems:
        assert problem.code is Code.UNAUTHENTICATED
        assert problem.message == problems[0].message
        assert problem.headers == ((b"www-authenticate", f'Bearer authorization_uri="{uri}"'.encode()),)
    assert who(doorkeeper, good).name == "token:ci"


def test_only_what_looks_like_a_token_asks_the_store(tokens: Tokens) -> None:
    doorkeeper = tokens.doorkeeper()
    for credential in (make_key(), "igm_short", "a.b.c"):
        refusal(doorkeeper, f"Bearer {credential}")
    assert tokens.asked == 0


def test_a_challenge_cannot_be_broken_out_of() -> None:
    doorkeeper = Doorkeeper(FIRST, Tokens().find, authorization_uri='https://a/"\\\r\nx: y')
    (_, value), *_ = doorkeeper.unauthenticated().headers
    assert value == b'Bearer authorization_uri="https://a/x:y"'


def test_a_token_of_a_role_that_is_not_known_is_forbidden_everything(tokens: Tokens) -> None:
    text = tokens.add("ci")
    (digest,) = tokens.kept
    tokens.kept[digest] = replace(tokens.kept[digest], role="emperor")
    problem = refusal(tokens.doorkeeper(), f"Bearer {text}")
    assert problem.code is Code.FORBIDDEN
    assert "the management token ci has the role 'emperor', which this version does not know" in problem.message


def test_a_doorkeeper_without_a_first_token_is_refused() -> None:
    with pytest.raises(ValueError, match="everybody would be an admin"):
        Doorkeeper("", Tokens().find)


def test_a_doorkeeper_shows_no_credential(tokens: Tokens) -> None:
    text = tokens.add("ci")
    doorkeeper = tokens.doorkeeper()
    who(doorkeeper, text)
    assert repr(doorkeeper) == "<Doorkeeper 1 tokens remembered, people None>"


# What is remembered


def test_a_token_is_looked_up_once_in_five_seconds(tokens: Tokens) -> None:
    text = tokens.add("ci")
    doorkeeper = tokens.doorkeeper()
    for now_ns, asked in ((0, 1), (REMEMBERED_NS - 1, 1), (REMEMBERED_NS, 2), (2 * REMEMBERED_NS - 1, 2)):
        tokens.now_ns = now_ns
        who(doorkeeper, text)
        assert tokens.asked == asked
    assert REMEMBERED_NS <= 5 * 10**9


def test_a_deleted_token_stops_working_within_that_time(tokens: Tokens) -> None:
    text = tokens.add("ci")
    doorkeeper = tokens.doorkeeper()
    who(doorkeeper, text)
    tokens.kept.clear()
    who(doorkeeper, text)
    tokens.now_ns = REMEMBERED_NS
    refusal(doorkeeper, f"Bearer {text}")
    tokens.now_ns = 0
    refusal(doorkeeper, f"Bearer {text}")


def test_a_deleted_token_stops_at_once_where_it_is_forgotten(tokens: Tokens) -> None:
    text = tokens.add("ci")
    doorkeeper = tokens.doorkeeper()
    who(doorkeeper, text)
    tokens.kept.clear()
    doorkeeper.forget()
    refusal(doorkeeper, f"Bearer {text}")


def test_what_was_asked_before_a_deletion_is_not_remembered_after_it(tokens: Tokens) -> None:
    text = tokens.add("ci")

    async def find(digest: bytes) -> ManagementToken | None:
        found = await tokens.find(digest)
        # The deletion happens while the answer is under way.
        tokens.kept.clear()
        doorkeeper.forget()
        return found

    doorkeeper = Doorkeeper(FIRST, find, now_s=lambda: NOW_S, clock=lambda: 0)
    assert who(doorkeeper, text).name == "token:ci"
    refusal(doorkeeper, f"Bearer {text}")


def test_a_remembered_token_ends_on_time(tokens: Tokens) -> None:
    text = tokens.add("ci", Role.READER, 2)
    doorkeeper = tokens.doorkeeper()
    tokens.now_s += 1.9
    who(doorkeeper, text)
    tokens.now_s += 0.1
    refusal(doorkeeper, f"Bearer {text}")
    assert tokens.asked == 1


def test_only_so_many_are_remembered_and_the_oldest_goes_first(tokens: Tokens) -> None:
    texts = [tokens.add(f"t{number}") for number in range(REMEMBERED_MAX + 1)]
    doorkeeper = tokens.doorkeeper()
    for text in texts:
        who(doorkeeper, text)
    assert f"{REMEMBERED_MAX} tokens remembered" in repr(doorkeeper)
    who(doorkeeper, texts[-1])
    assert tokens.asked == REMEMBERED_MAX + 1
    who(doorkeeper, texts[0])
    assert tokens.asked == REMEMBERED_MAX + 2


def test_two_requests_at_once_remember_one_token(tokens: Tokens) -> None:
    text = tokens.add("ci")
    doorkeeper = tokens.doorkeeper()

    async def story() -> None:
        await asyncio.gather(*(doorkeeper.identify(f"Bearer {text}", "", "") for _ in range(3)))

    asyncio.run(story())
    assert "1 tokens remembered" in repr(doorkeeper)


def test_what_goes_wrong_in_the_store_is_not_taken_for_a_bad_credential(tokens: Tokens) -> None:
    async def broken(_: bytes) -> ManagementToken | None:
        raise OSError("locked")

    with pytest.raises(OSError, match="locked"):
        who(Doorkeeper(FIRST, broken), tokens.add("ci"))


# People


@pytest.mark.parametrize("role", list(Role))
def test_a_person_is_named_by_the_issuer(role: Role, tokens: Tokens) -> None:
    doorkeeper = tokens.doorkeeper(people_with("first"))
    token = rs256(oidc_claims(roles=[role.text])).decode()
    actor = who(doorkeeper, token)
    assert actor == Actor(name="person:somebody", role=role, source="10.0.0.7", request_id="r-1")
    assert tokens.asked == 0


def test_a_person_without_a_role_is_forbidden(tokens: Tokens) -> None:
    problem = refusal(tokens.doorkeeper(people_with("first")), f"Bearer {rs256(oidc_claims()).decode()}")
    assert problem.code is Code.FORBIDDEN


def test_without_an_issuer_a_persons_token_proves_nothing(tokens: Tokens) -> None:
    token = rs256(oidc_claims(roles=["admin"])).decode()
    assert refusal(tokens.doorkeeper(), f"Bearer {token}").code is Code.UNAUTHENTICATED


def test_every_forged_token_gets_the_same_401(tokens: Tokens) -> None:
    header = {"typ": "JWT", "alg": "RS256", "kid": "first"}
    claims = oidc_claims(roles=["admin"])
    sign, foreign = rs256_with("first"), rs256_with("stranger")
    doorkeeper = tokens.doorkeeper(people_with("first"))
    assert who(doorkeeper, raw_token(header, claims, sign).decode()).role is Role.ADMIN
    refused = refusal(doorkeeper, None)
    accepted = []
    for what, token in forged_tokens(header, claims, sign, foreign).items():
        try:
            asyncio.run(doorkeeper.identify(f"Bearer {token.decode('latin-1')}", "", ""))
        except Problem as problem:
            assert (problem.code, problem.message, problem.headers) == (
                refused.code,
                refused.message,
                refused.headers,
            ), what
        else:
            accepted.append(what)
    assert accepted == []


def test_the_door_closes_its_issuer(tokens: Tokens) -> None:
    asyncio.run(tokens.doorkeeper(people_with("first")).close())
    asyncio.run(tokens.doorkeeper().close())
