"""The ledger of the kills: what must be found, and what is said of anything else."""

from __future__ import annotations

from typing import Any

import pytest

from bench.control import management as at
from bench.control.ledger import (
    AnyBut,
    Change,
    DeleteDeployment,
    DeleteEndpoint,
    DeleteModel,
    DeploymentDoc,
    Facts,
    ModelDoc,
    PutDeployment,
    PutEndpoint,
    PutModel,
    Regenerate,
    TagEndpoint,
    World,
    differences,
    expected,
)

GOOD = DeploymentDoc(n=3, model=("m", "1"), factor=7)
BROKEN = DeploymentDoc(n=4, model=("m", "2"), factor=0)


def world_of(*changes: Change) -> World:
    world = World()
    for change in changes:
        change.apply(world)
    return world


def an_endpoint(**traffic: int) -> PutEndpoint:
    return PutEndpoint(endpoint="e", n=1, traffic=traffic)


def a_deployment(doc: DeploymentDoc = GOOD) -> PutDeployment:
    return PutDeployment(endpoint="e", name="d", doc=doc)


def test_what_was_acknowledged_is_expected() -> None:
    world = world_of(
        PutModel(name="m", version="1", doc=ModelDoc(n=2, factor=7)),
        an_endpoint(),
        a_deployment(),
        an_endpoint(d=100),
        TagEndpoint(endpoint="e", n=5),
    )
    facts = expected(world)
    assert facts["endpoint", "e"] == (5, {"d": 100})
    assert facts["model", "m", "1"] == 2
    assert facts["deployment", "e", "d"] == (3, ("m", "1"), 1, 5, "Succeeded")
    assert facts["answers", "e", "d"] == 7
    assert world.used() == {("m", "1")}


def test_an_update_that_fails_leaves_what_was_served() -> None:
    facts = expected(world_of(an_endpoint(), a_deployment(), a_deployment(BROKEN)))
    assert facts["deployment", "e", "d"][-1] == "Failed"
    assert facts["answers", "e", "d"] == 7
    assert expected(world_of(an_endpoint(), a_deployment(BROKEN)))["answers", "e", "d"] == 0


def test_what_is_deleted_is_not_expected() -> None:
    world = world_of(an_endpoint(), a_deployment(), an_endpoint(d=0), DeleteDeployment(endpoint="e", name="d"))
    assert expected(world)["endpoint", "e"] == (1, {})
    DeleteEndpoint(endpoint="e").apply(world)
    assert expected(world) == {}
    models = world_of(
        PutModel(name="m", version="1", doc=ModelDoc(n=2, factor=7)), DeleteModel(name="m", version="1")
    )
    assert expected(models) == {}


@pytest.mark.parametrize("which", ["Primary", "Secondary"])
def test_a_key_that_was_replaced_is_dead_and_the_new_one_is_another(which: str) -> None:
    world = world_of(an_endpoint())
    world.endpoints["e"].primary, world.endpoints["e"].secondary = "one", "two"
    old = {"Primary": "one", "Secondary": "two"}[which]
    Regenerate(endpoint="e", which=which).apply(world)
    assert world.dead["e"] == [old]
    fact = expected(world)[which.lower(), "e"]
    assert fact == AnyBut(keys=frozenset({old}))
    Regenerate(endpoint="e", which=which, value="mine").apply(world)
    assert expected(world)[which.lower(), "e"] == "mine"


def test_differences_are_said_in_sentences() -> None:
    wanted: Facts = {
        ("a",): 1,
        ("b",): 2,
        ("key",): AnyBut(keys=frozenset({"old"})),
        ("new",): AnyBut(keys=frozenset()),
    }
    found: Facts = {("a",): 3, ("c",): 4, ("key",): "old", ("new",): "fresh"}
    assert differences(wanted, found) == [
        "a is 3; it was acknowledged as 1",
        "b is lost; it was acknowledged as 2",
        "c is there as 4, and should not be",
        "key is still the key that was replaced",
    ]


@pytest.mark.parametrize(
    ("change", "method", "path"),
    [
        (an_endpoint(d=100), "PUT", at.endpoint_path("e")),
        (TagEndpoint(endpoint="e", n=1), "PATCH", at.endpoint_path("e")),
        (DeleteEndpoint(endpoint="e"), "DELETE", at.endpoint_path("e")),
        (a_deployment(), "PUT", at.deployment_path("e", "d")),
        (DeleteDeployment(endpoint="e", name="d"), "DELETE", at.deployment_path("e", "d")),
        (Regenerate(endpoint="e", which="Primary"), "POST", f"{at.endpoint_path('e')}/regenerateKeys"),
        (PutModel(name="m", version="1", doc=ModelDoc(n=2, factor=7)), "PUT", at.model_path("m", "1")),
        (DeleteModel(name="m", version="1"), "DELETE", at.model_path("m", "1")),
    ],
)
def test_a_change_is_one_request(change: Any, method: str, path: str) -> None:
    assert change.request()[:2] == (method, path)
    assert change.endpoint == ("" if "models" in path else "e")


def test_an_operation_is_asked_about_below_the_same_host() -> None:
    assert at.below_host("https://h:1/a/b?api-version=1&$skip=x") == "/a/b?$skip=x"
    assert at.below_host("https://h:1/a?api-version=1") == "/a"
    assert at.below_host("") == ""
