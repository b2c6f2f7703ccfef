"""Both planes' OpenAPI documents: that they say what is served, all of it and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route as StarletteRoute

from gateway.controlplane.rest.openapi import management_openapi
from gateway.controlplane.rest.table import ROUTES
from gateway.dataplane.documents import documents
from gateway.dataplane.live import SnapshotCell
from gateway.dataplane.openapi import scoring_openapi
from gateway.dataplane.paths import BASES
from tests.support.house import House
from tests.support.reference import ROOT
from tests.support.served import Served

METHODS = {"get", "put", "post", "delete", "patch", "head", "options", "trace"}
MADE = {"management-openapi.json": management_openapi(), "scoring-openapi.json": scoring_openapi()}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    found = House(tmp_path)
    yield found
    found.close()


@pytest.fixture
def served() -> Iterator[Served]:
    found = Served()
    yield found
    found.close()


def operations_of(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }


def references_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, one in value.items():
            if name == "$ref":
                yield one
            else:
                yield from references_in(one)
    elif isinstance(value, list):
        for one in value:
            yield from references_in(one)


def test_the_management_document_has_every_route_of_the_table_and_no_other() -> None:
    operations = operations_of(MADE["management-openapi.json"])
    assert set(operations) == {(route.method, route.template) for route in ROUTES}
    for route in ROUTES:
        operation = operations[route.method, route.template]
        assert {str(status) for status in route.answers} <= set(operation["responses"])
        assert ("requestBody" in operation) == bool(route.body)
        assert (operation.get("security") == []) == (route.role is None)


def _named(path: str) -> str:
    """At the root a model is an endpoint; below an endpoint's address it has a name of its own."""
    if "{endpoint}" in path:
        return path
    return path.replace("{model}", "{endpoint}").replace("{version}", "{deployment}")


def test_the_scoring_document_has_every_route_that_is_served_and_no_other() -> None:
    nothing: Any = None
    app = documents(SnapshotCell(), nothing, nothing, nothing, "")
    served = {
        (method, _named(route.path))
        for route in app.routes
        if isinstance(route, StarletteRoute)
        for method in (route.methods or set()) - {"HEAD"}
    }
    scoring = {
        ("POST", "/endpoints/{endpoint}/score"),
        ("POST", "/v2/models/{endpoint}/infer"),
        ("POST", "/v2/models/{endpoint}/versions/{deployment}/infer"),
        *(
            ("POST", f"/endpoints/{{endpoint}}{base}/v2/models/{{model}}{version}/infer")
            for base in BASES
            for version in ("", "/versions/{version}")
        ),
    }
    assert set(operations_of(MADE["scoring-openapi.json"])) == served | scoring


@pytest.mark.parametrize("name", MADE)
def test_a_document_is_whole(name: str) -> None:
    """Every reference leads somewhere, every component is used, every operation has a name of its own."""
    document = MADE[name]
    assert document["openapi"] == "3.1.0"
    found = {f"#/components/{kind}/{key}" for kind, made in document["components"].items() for key in made}
    used = set(references_in(document))
    assert used <= found
    assert {one for one in found - used if "/securitySchemes/" not in one} == set()
    ids = [operation["operationId"] for operation in operations_of(document).values()]
    assert len(ids) == len(set(ids))
    for (_, path), operation in operations_of(document).items():
        named = [*document["paths"][path].get("parameters", []), *operation.get("parameters", [])]
        given = [
            document["components"]["parameters"][one["$ref"].rpartition("/")[2]] if "$ref" in one else one
            for one in named
        ]
        assert {one["name"] for one in given if one["in"] == "path"} == set(re.findall(r"{(\w+)}", path))
        assert operation["summary"]
        assert any(status.startswith(("2", "4")) for status in operation["responses"])


def test_the_management_document_is_served_as_it_is_committed(house: House) -> None:
    response = house.get("/openapi.json", token=None)
    committed = (ROOT / "docs/reference/management-openapi.json").read_text(encoding="utf-8")
    assert response.json() == json.loads(committed)


def test_the_scoring_document_is_served_as_it_is_committed(served: Served) -> None:
    response = served.get("/openapi.json")
    committed = (ROOT / "docs/reference/scoring-openapi.json").read_text(encoding="utf-8")
    assert response.status_code == 200
    assert response.json() == json.loads(committed)
