"""A scoring URI's OpenAPI document, made from the model's signature: versions 2 (Swagger), 3 (3.0) and 3.1.

What it describes is the Azure-style body of codecs/azureml.py: named tensors for every model, rows as well for a
model with one input. OpenAPI 2 has no alternatives, so there it is rows where they can be, else named tensors.
A tensor is nested arrays; a dimension of known size has that many items. Floats of an answer may be null, which
stands for NaN and infinities.
Errors: none; an unknown version is the caller's to refuse (VERSIONS has the known ones).
"""

from __future__ import annotations

from math import prod
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from runtimes import Datatype, Signature, TensorSpec

Document = dict[str, Any]

VERSIONS = ("2", "3", "3.1")
_EXAMPLE_ELEMENTS_MAX = 1024
_RESPONSES = {
    "400": "The body does not fit the model.",
    "401": "No valid key or token.",
    "404": "No such endpoint, or no deployment with traffic.",
    "408": "The request took longer than the deployment allows.",
    "413": "The body is larger than the deployment allows.",
    "424": "The model failed.",
    "429": "Too many requests are waiting; Retry-After says when to come back.",
    "503": "The deployment is not ready.",
}


def swagger(signature: Signature, *, endpoint: str, base_uri: str, version: str) -> Document:
    """The document for `POST {base_uri}/score`. `base_uri` is the scoring URI without its last segment; it may be a
    path only. `version` is one of VERSIONS."""
    if version == "2":
        return _version_2(signature, endpoint, base_uri)
    return _version_3(signature, endpoint, base_uri, "3.1.0" if version == "3.1" else "3.0.3")


def _info(endpoint: str) -> Document:
    return {
        "title": endpoint,
        "version": "1.0",
        "description": f"Scores with the model that endpoint '{endpoint}' serves.",
    }


def _operation(description: str) -> Document:
    security: list[dict[str, list[str]]] = [{"bearerAuth": []}]
    return {"operationId": "score", "summary": "Score", "description": description, "security": security}


def _version_2(signature: Signature, endpoint: str, base_uri: str) -> Document:
    parts = urlsplit(base_uri)
    schema = _body(_rows_schema(signature, "2") or _named_schema(signature, "2"))
    example = _example(signature)
    if example is not None:
        schema["example"] = example
    operation = _operation("Send rows, or a tensor for each input.") | {
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "parameters": [
            {"name": "body", "in": "body", "required": True, "schema": {"$ref": "#/definitions/ServiceInput"}}
        ],
        "responses": {"200": {"description": "The scores.", "schema": {"$ref": "#/definitions/ServiceOutput"}}}
        | {status: _failure_2(text) for status, text in _RESPONSES.items()},
    }
    document: Document = {
        "swagger": "2.0",
        "info": _info(endpoint),
        "basePath": parts.path or "/",
        "securityDefinitions": {
            "bearerAuth": {
                "type": "apiKey",
                "name": "Authorization",
                "in": "header",
                "description": "Bearer and a key or token, as in `Bearer abc`.",
            }
        },
        "paths": {"/score": {"post": operation}},
        "definitions": {
            "ServiceInput": schema,
            "ServiceOutput": _answer_schema(signature, "2"),
            "ErrorResponse": _error_schema(),
        },
    }
    if parts.netloc:
        document |= {"host": parts.netloc, "schemes": [parts.scheme]}
    return document


def _failure_2(text: str) -> Document:
    return {"description": text, "schema": {"$ref": "#/definitions/ErrorResponse"}}


def _version_3(signature: Signature, endpoint: str, base_uri: str, version: str) -> Document:
    media: Document = {"schema": {"$ref": "#/components/schemas/ServiceInput"}}
    example = _example(signature)
    if example is not None:
        media["example"] = example
    rows = _rows_schema(signature, version)
    named = _body(_named_schema(signature, version))
    operation = _operation("Send rows, a tensor for each input, records or a pandas split.") | {
        "requestBody": {"required": True, "content": {"application/json": media}},
        "responses": {"200": _answer_3("The scores.", "ServiceOutput")}
        | {status: _answer_3(text, "ErrorResponse") for status, text in _RESPONSES.items()},
    }
    return {
        "openapi": version,
        "info": _info(endpoint),
        "servers": [{"url": base_uri or "/"}],
        "paths": {"/score": {"post": operation}},
        "components": {
            "securitySchemes": {"bearerAuth": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "ServiceInput": {"oneOf": [_body(rows), named]} if rows else named,
                "ServiceOutput": _answer_schema(signature, version),
                "ErrorResponse": _error_schema(),
            },
        },
    }


def _answer_3(text: str, schema: str) -> Document:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": text, "content": content}


def _body(data: Document) -> Document:
    return {"type": "object", "required": ["input_data"], "properties": {"input_data": data}}


def _rows_schema(signature: Signature, version: str) -> Document | None:
    """The bare tensor: only a model that needs one input takes it."""
    needed = signature.required(())
    return _tensor_schema(needed[0], version) if len(needed) == 1 else None


def _named_schema(signature: Signature, version: str) -> Document:
    return {
        "type": "object",
        "required": [spec.name for spec in signature.required(())],
        "properties": {spec.name: _tensor_schema(spec, version) for spec in signature.inputs},
        "additionalProperties": False,
    }


def _answer_schema(signature: Signature, version: str) -> Document:
    schemas = {spec.name: _output_schema(spec, version) for spec in signature.outputs}
    if len(schemas) == 1:
        return next(iter(schemas.values()))
    return {"type": "object", "required": list(schemas), "properties": schemas}


def _output_schema(spec: TensorSpec, version: str) -> Document:
    element = {"type": "object"} if spec.maps else _element(spec.datatype)
    if spec.datatype.is_float and not spec.maps:
        element = _nullable(element, version)
    return _nested(element, spec) | {"description": f"{spec.name}: {spec.describe()}"}


def _tensor_schema(spec: TensorSpec, version: str) -> Document:
    return _nested(_element(spec.datatype), spec) | {"description": f"{spec.name}: {spec.describe()}"}


def _nested(element: Document, spec: TensorSpec) -> Document:
    schema = element
    for size in reversed(spec.shape):
        schema = {"type": "array", "items": schema}
        if size >= 0:
            schema |= {"minItems": size, "maxItems": size}
    return schema


def _nullable(element: Document, version: str) -> Document:
    match version:
        case "2":
            return element | {"x-nullable": True}
        case "3.1.0":
            return element | {"type": [element["type"], "null"]}
        case _:
            return element | {"nullable": True}


def _element(datatype: Datatype) -> Document:
    if datatype is Datatype.BYTES:
        return {"type": "string"}
    if datatype is Datatype.BOOL:
        return {"type": "boolean"}
    if datatype.is_integer:
        limits = np.iinfo(datatype.dtype)
        width = "int64" if datatype.itemsize == 8 else "int32"
        return {"type": "integer", "format": width, "minimum": int(limits.min), "maximum": int(limits.max)}
    return {"type": "number", "format": "double" if datatype is Datatype.FP64 else "float"}


def _error_schema() -> Document:
    text = {"type": "string"}
    properties = {
        "code": text,
        "message": text,
        "details": {"type": "array", "items": text},
        "request_id": text,
    }
    error = {"type": "object", "required": ["code", "message"], "properties": properties}
    return {"type": "object", "required": ["error"], "properties": {"error": error}}


def _example(signature: Signature) -> Document | None:
    """One row of zeros in the shape the model takes; none where it would be longer than a page or two."""
    if sum(prod(abs(size) for size in spec.shape) for spec in signature.inputs) > _EXAMPLE_ELEMENTS_MAX:
        return None
    values = {spec.name: _example_tensor(spec) for spec in signature.inputs}
    return {"input_data": next(iter(values.values())) if len(values) == 1 else values}


def _example_tensor(spec: TensorSpec) -> Any:
    zero: Any = 0
    if spec.datatype is Datatype.BYTES:
        zero = "text"
    elif spec.datatype is Datatype.BOOL:
        zero = False
    elif spec.datatype.is_float:
        zero = 0.0
    return np.full([abs(size) for size in spec.shape], zero, np.object_).tolist()
