"""People of an OpenID Connect issuer manage a gateway: as their role says, and not at all without a good token."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bench.control.management import ENDPOINTS, endpoint_body, endpoint_path
from tests.support.issuer import Issuer
from tests.support.managed import Elsewhere, Manager, error_of
from tests.support.process import GatewayProcess
from tests.support.tokens import AUDIENCE

ROLES = ("reader", "operator", "admin")
# The least role that each needs.
ASKED = {
    "reader": [("GET", ENDPOINTS), ("GET", "/status"), ("GET", "/export")],
    "operator": [("POST", f"{endpoint_path('digits')}/listKeys"), ("POST", "/reload")],
    "admin": [("GET", "/audit"), ("GET", "/tokens")],
}
# One key that an issuer never offered.
STRANGER = "stranger"


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer("first") as started:
        yield started


@pytest.fixture(scope="module")
def gateway(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    state = tmp_path_factory.mktemp("people") / "state"
    people = ("--people-issuer", issuer.url, "--people-audience", AUDIENCE)
    with GatewayProcess(None, state, *people, scorers=1) as process:
        with Manager(process) as manager:
            manager.endpoint("digits")
        yield process


def _as(gateway: GatewayProcess, token: str) -> Manager:
    return Manager(gateway, token)


@pytest.mark.parametrize("role", ROLES)
def test_a_person_may_do_what_the_role_says(gateway: GatewayProcess, issuer: Issuer, role: str) -> None:
    rank = ROLES.index(role)
    with _as(gateway, issuer.token(sub=f"{role}-1", roles=[role])) as person:
        for needed, requests in ASKED.items():
            for method, path in requests:
                answer = person.ask(method, path)
                if ROLES.index(needed) <= rank:
                    assert answer.status_code == 200, (path, answer.text)
                else:
                    refusal = error_of(answer, 403)
                    assert (
                        refusal["message"] == f"this needs the role {needed}, and person:{role}-1 has the role {role}"
                    )


def test_of_several_roles_the_highest_counts(gateway: GatewayProcess, issuer: Issuer) -> None:
    with _as(gateway, issuer.token(roles=["cook", "reader", "admin"])) as person:
        assert person.ask("GET", "/audit").status_code == 200


def test_what_a_person_changes_is_in_the_audit_log_under_their_name(gateway: GatewayProcess, issuer: Issuer) -> None:
    token = issuer.token(sub="4711", preferred_username="ann", roles="operator")
    with _as(gateway, token) as ann:
        ann.do("PUT", endpoint_path("anns"), endpoint_body({}, {}))
        ann.do("DELETE", endpoint_path("anns"))
    with _as(gateway, issuer.token(roles=["admin"])) as admin:
        found = admin.need("GET", "/audit?target=online%20endpoint%20anns")["value"]
    told = {(one["who"], one["role"], one["source"], one["action"]) for one in found}
    assert told == {("person:4711 (ann)", "operator", "127.0.0.1", action) for action in ("create", "delete")}


def test_a_person_uses_the_commands_from_elsewhere(gateway: GatewayProcess, issuer: Issuer, tmp_path: Path) -> None:
    done = Elsewhere(gateway, issuer.token(sub="ann", roles=["reader"]), tmp_path).run("export")
    assert (done.returncode, "name: digits" in done.stdout) == (0, True)
    refused = Elsewhere(gateway, issuer.token(sub="ann", roles=["reader"]), tmp_path).run("keys", "digits")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "this needs the role operator, and person:ann has the role reader" in refused.stderr


def _refusals(issuer: Issuer) -> dict[str, tuple[str, int]]:
    now_s = int(time.time())
    admin: dict[str, Any] = {"roles": ["admin"]}
    return {
        "expired": (issuer.token(**admin, iat=now_s - 7200, exp=now_s - 3600), 401),
        "of another audience": (issuer.token(**admin, aud="elsewhere"), 401),
        "of another issuer": (issuer.token(**admin, iss="https://login.example"), 401),
        "signed by a stranger": (issuer.token(STRANGER, **admin), 401),
        "without a subject": (issuer.token(**admin, sub=None), 401),
        "without a role": (issuer.token(sub="ann"), 403),
        "with a role of something else": (issuer.token(sub="ann", roles=["administrator", "Readers"]), 403),
        "with the role elsewhere": (issuer.token(sub="ann", groups=["admin"]), 403),
    }


def test_tokens_that_prove_nothing_or_name_no_role_open_nothing(gateway: GatewayProcess, issuer: Issuer) -> None:
    said = set()
    for what, (token, status) in _refusals(issuer).items():
        with _as(gateway, token) as nobody:
            for method, path in (("GET", ENDPOINTS), ("PUT", endpoint_path("digits")), ("POST", "/tokens")):
                error = error_of(nobody.ask(method, path), status)
                if status == 401:
                    said.add(error["message"])
                else:
                    assert "has no role here" in error["message"], what
    # Nobody learns what was wrong with a token.
    assert len(said) == 1


def test_a_persons_token_does_not_score_and_an_endpoints_key_does_not_manage(
    gateway: GatewayProcess, issuer: Issuer
) -> None:
    with Manager(gateway) as manager:
        key = manager.key("digits")
    with gateway.client(headers={"authorization": f"Bearer {issuer.token(roles=['admin'])}"}) as client:
        assert client.post("/endpoints/digits/score", json={"input_data": [[1]]}).status_code == 401
    with _as(gateway, key) as nobody:
        error_of(nobody.ask("GET", ENDPOINTS), 401)


def test_people_whose_key_is_known_go_on_while_their_issuer_is_away(tmp_path: Path) -> None:
    with ExitStack() as stack:
        issuer = stack.enter_context(Issuer("first"))
        people = ("--people-issuer", issuer.url, "--people-audience", AUDIENCE)
        with GatewayProcess(None, tmp_path / "state", *people, scorers=1) as gateway:
            token = issuer.token(roles=["reader"])
            with _as(gateway, token) as person:
                assert person.ask("GET", ENDPOINTS).status_code == 200
                stack.close()
                assert person.ask("GET", ENDPOINTS).status_code == 200
            with _as(gateway, issuer.token("second", roles=["reader"])) as nobody:
                error_of(nobody.ask("GET", ENDPOINTS), 401)
            with Manager(gateway) as manager:
                assert manager.endpoints() == set()


def test_no_token_is_in_the_log_or_the_audit_log(gateway: GatewayProcess, issuer: Issuer) -> None:
    token = issuer.token(sub="ann", roles=["admin"])
    with _as(gateway, token) as ann:
        ann.do("PUT", endpoint_path("digits"), endpoint_body({}, {"by": "ann"}))
        told = ann.ask("GET", "/audit").text + gateway.log()
    assert "person:ann" in told
    assert [part for part in token.split(".") if part in told] == []
