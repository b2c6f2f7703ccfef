"""Who may do what: every route of the table, asked by everybody there is.

The expectation comes from the table: a route without a role is open; else nobody without a management credential gets
in (401), nobody with too small a role (403), and everybody else is answered with what the document says.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.controlplane.authorize import Role
from gateway.controlplane.rest.openapi import management_openapi
from gateway.controlplane.rest.router import Route
from gateway.controlplane.rest.table import ROUTES
from tests.support.house import FIRST_TOKEN, House

# A name that nothing has, so that no identity finds what another one has made or left.
NAMES = {"version": "1", "operation": "none", "location": "local"}
IDENTITIES = (
    "none",
    "endpoint key",
    "other endpoint's key",
    "endpoint token",
    "expired",
    "reader",
    "operator",
    "admin",
)
ROLES = {"reader": Role.READER, "operator": Role.OPERATOR, "admin": Role.ADMIN}


class Everybody:
    """The house, and a credential for each identity."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.document = management_openapi()
        house.add_endpoint("mine")
        house.add_endpoint("other")
        house.add_endpoint("tokens", authMode="AMLToken")
        path = house.ws("/onlineEndpoints/")
        expired = house.add_token("expired", Role.ADMIN, 60)
        house.now_s += 61
        self.credentials: dict[str, str | None] = {
            "none": None,
            "endpoint key": house.post(f"{path}mine/listKeys").json()["primaryKey"],
            "other endpoint's key": house.post(f"{path}other/listKeys").json()["secondaryKey"],
            "endpoint token": house.post(f"{path}tokens/token").json()["accessToken"],
            "expired": expired,
            "reader": house.add_token("reader", Role.READER),
            "operator": house.add_token("operator", Role.OPERATOR),
            "admin": FIRST_TOKEN,
        }


@pytest.fixture(scope="module")
def everybody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Everybody]:
    house = House(tmp_path_factory.mktemp("house"))
    yield Everybody(house)
    house.close()


def expected(route: Route, identity: str, document: dict) -> set[int]:  # type: ignore[type-arg]
    if route.role is not None and identity not in ROLES:
        return {401}
    if route.role is not None and ROLES[identity] < route.role:
        return {403}
    documented = document["paths"][route.template][route.method.lower()]["responses"]
    return {int(status) for status in documented} - {401, 403, 500, 503}


@pytest.mark.parametrize("identity", IDENTITIES)
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.template}")
def test_every_identity_gets_what_the_table_says(everybody: Everybody, route: Route, identity: str) -> None:
    path = route.template.format(**{name: NAMES.get(name, "nothing") for name in route.parameters})
    response = everybody.house.ask(
        route.method, path, {} if route.body else None, token=everybody.credentials[identity]
    )
    assert response.status_code in expected(route, identity, everybody.document), response.text
    assert ("www-authenticate" in response.headers) == (response.status_code == 401)


def test_no_route_that_changes_something_is_open_or_a_readers() -> None:
    reads = {"getLogs"}
    for route in ROUTES:
        if route.method != "GET" and route.segments[-1] not in reads:
            assert route.role is not None, route.template
            assert route.role >= Role.OPERATOR, route.template


def test_credentials_are_told_to_operators_only() -> None:
    telling = {"listKeys", "listkeys", "token", "listSecrets", "startPendingUpload", "regenerateKeys"}
    found = {route.segments[-1]: route.role for route in ROUTES if route.segments[-1] in telling}
    assert set(found) == telling
    assert set(found.values()) == {Role.OPERATOR}
