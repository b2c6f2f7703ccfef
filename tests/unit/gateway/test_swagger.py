"""The per-endpoint OpenAPI document, in three versions."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.dataplane.codecs import decode_score
from gateway.dataplane.swagger import VERSIONS, swagger
from runtimes import Datatype, Signature
from tests.support.codec_signatures import of_type, signature, spec

BASE = "https://host:8443/endpoints/digits"
MANY = signature(
    spec("image", Datatype.UINT8, (-1, 2, 2)),
    spec("text", Datatype.BYTES, (-1,)),
    spec("flag", Datatype.BOOL, (), batch_axis=None),
    outputs=(spec("label", Datatype.INT64, (-1,)), spec("maps", Datatype.FP32, (-1,), maps=True), spec("p")),
)


def make(sig: Signature, version: str, base_uri: str = BASE) -> dict[str, Any]:
    document = swagger(sig, endpoint="digits", base_uri=base_uri, version=version)
    copy: dict[str, Any] = orjson.loads(orjson.dumps(document))
    return copy


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for item in node for found in references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if "$ref" in node else []
    return own + [found for item in node.values() for found in references(item)]


def schemas(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document.get("definitions") or document["components"]["schemas"]
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("sig", [signature(), MANY])
def test_every_reference_leads_somewhere(version: str, sig: Signature) -> None:
    document = make(sig, version)
    for reference in references(document):
        node: Any = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


@pytest.mark.parametrize(
    ("version", "key", "text"), [("2", "swagger", "2.0"), ("3", "openapi", "3.0.3"), ("3.1", "openapi", "3.1.0")]
)
def test_each_version_says_which_it_is(version: str, key: str, text: str) -> None:
    assert make(signature(), version)[key] == text


def test_the_address_is_where_each_version_looks_for_it() -> None:
    document = make(signature(), "2")
    assert (document["host"], document["basePath"], document["schemes"]) == (
        "host:8443",
        "/endpoints/digits",
        ["https"],
    )
    assert "host" not in make(signature(), "2", "/endpoints/digits")
    assert make(signature(), "2", "")["basePath"] == "/"
    assert make(signature(), "3")["servers"] == [{"url": BASE}]
    assert make(signature(), "3.1", "")["servers"] == [{"url": "/"}]


@pytest.mark.parametrize("version", VERSIONS)
def test_scoring_needs_a_bearer(version: str) -> None:
    document = make(signature(), version)
    assert document["paths"]["/score"]["post"]["security"] == [{"bearerAuth": []}]
    assert "bearerAuth" in (document.get("securityDefinitions") or document["components"]["securitySchemes"])


def test_one_input_may_be_rows_or_named() -> None:
    rows, named = schemas(make(signature(), "3"))["ServiceInput"]["oneOf"]
    tensor = rows["properties"]["input_data"]
    assert tensor["items"]["minItems"] == tensor["items"]["maxItems"] == 3
    assert "minItems" not in tensor
    assert named["properties"]["input_data"]["properties"]["x"] == tensor
    assert schemas(make(signature(), "2"))["ServiceInput"]["properties"]["input_data"] == tensor


@pytest.mark.parametrize("version", VERSIONS)
def test_several_inputs_are_named(version: str) -> None:
    data = schemas(make(MANY, version))["ServiceInput"]["properties"]["input_data"]
    assert data["required"] == ["image", "text", "flag"]
    assert data["properties"]["flag"]["type"] == "boolean"
    assert data["properties"]["text"]["items"] == {"type": "string"}
    element = data["properties"]["image"]["items"]["items"]["items"]
    assert (element["minimum"], element["maximum"], element["format"]) == (0, 255, "int32")


@pytest.mark.parametrize(
    ("version", "element"),
    [
        ("2", {"type": "number", "format": "float", "x-nullable": True}),
        ("3", {"type": "number", "format": "float", "nullable": True}),
        ("3.1", {"type": ["number", "null"], "format": "float"}),
    ],
)
def test_floats_of_an_answer_may_be_null(version: str, element: dict[str, Any]) -> None:
    answer = schemas(make(MANY, version))["ServiceOutput"]
    assert list(answer["properties"]) == ["label", "maps", "p"]
    assert answer["properties"]["p"]["items"]["items"] == element
    assert answer["properties"]["maps"]["items"] == {"type": "object"}
    assert schemas(make(signature(), version))["ServiceOutput"]["items"]["items"] == element


@pytest.mark.parametrize("datatype", list(Datatype))
@pytest.mark.parametrize("shape", [(-1, 3), (), (2, 2)])
def test_the_example_is_a_request_that_fits(datatype: Datatype, shape: tuple[int, ...]) -> None:
    sig = of_type(datatype, shape)
    media = make(sig, "3")["paths"]["/score"]["post"]["requestBody"]["content"]["application/json"]
    assert decode_score(orjson.dumps(media["example"]), None, sig, "m", "1").rows == 1
    assert schemas(make(sig, "2"))["ServiceInput"]["example"] == media["example"]


def test_the_example_of_many_inputs_is_named() -> None:
    example = schemas(make(MANY, "2"))["ServiceInput"]["example"]
    assert example == {"input_data": {"image": [[[0, 0], [0, 0]]], "text": ["text"], "flag": False}}
    assert decode_score(orjson.dumps(example), None, MANY, "m", "1").rows == 1


def test_a_large_tensor_has_no_example() -> None:
    sig = signature(spec("image", shape=(-1, 3, 224, 224)))
    assert "example" not in schemas(make(sig, "2"))["ServiceInput"]
    assert "example" not in orjson.dumps(make(sig, "3.1")).decode()
