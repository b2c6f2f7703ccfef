"""Which route a path means, and what the table may not say."""

from __future__ import annotations

import pytest

from gateway.controlplane.authorize import Role
from gateway.controlplane.rest.context import Call, Reply
from gateway.controlplane.rest.router import Route, Router, check_names, segments_of
from gateway.controlplane.rest.table import ROUTES
from gateway.errors import Code, Problem


async def handler(_: Call) -> Reply:
    return Reply()


def route(method: str, template: str) -> Route:
    return Route(method, template, handler, Role.READER, "Something", "Tag", {200: ""})


def test_every_route_of_the_table_is_found_by_its_own_path_in_any_case() -> None:
    router = Router(ROUTES)
    for one in ROUTES:
        path = one.template.format(**{name: f"{name.capitalize()}1" for name in one.parameters})
        found = router.find(one.method, path.encode())
        assert found.route is one
        assert found.params == {name: f"{name.capitalize()}1" for name in one.parameters}
        literals = "/".join(part if part.startswith("{") else part.upper() for part in one.template.split("/"))
        shouted = literals.format(**found.params)
        assert router.find(one.method, shouted.encode()).route is one


def test_a_literal_goes_before_a_parameter() -> None:
    router = Router([route("GET", "/things/{asset}"), route("GET", "/things/all")])
    assert router.find("GET", b"/things/ALL").params == {}
    assert router.find("GET", b"/things/every").params == {"asset": "every"}


def test_a_parameter_is_never_empty() -> None:
    router = Router([route("GET", "/things/{asset}")])
    with pytest.raises(Problem) as refused:
        router.find("GET", b"/things/")
    assert refused.value.code is Code.NOT_FOUND


def test_a_table_that_names_a_route_twice_or_an_unknown_parameter_is_no_table() -> None:
    with pytest.raises(AssertionError, match="twice"):
        Router([route("GET", "/things"), route("GET", "/THINGS")])
    with pytest.raises(AssertionError, match="NAMES"):
        Router([route("GET", "/things/{nobody}")])


def test_segments_are_decoded_once() -> None:
    assert segments_of(b"/a%20b/%C3%A9/%2541") == ["a b", "é", "%41"]


def test_a_name_is_refused_by_what_it_would_mean() -> None:
    router = Router([route(method, "/things/{endpoint}") for method in ("GET", "PUT")])
    for method, code in (("GET", Code.NOT_FOUND), ("PUT", Code.INVALID_INPUT)):
        with pytest.raises(Problem) as refused:
            check_names(router.find(method, b"/things/no_endpoint"))
        assert refused.value.code is code
        check_names(router.find(method, b"/things/an-endpoint"))
