"""The OpenAPI documents of a script: versions 2 (Swagger), 3 (3.0) and 3.1, as JSON text.

Why: clients are generated from them. A file of the user's beside the script wins; else they are made from the schema
decorators; a script without decorators takes and gives any object.
Units: a document has at most DOCUMENT_BYTES_MAX bytes, for all of them travel with each change of what is served.
Errors: none; a file that is not JSON is logged and passed over, a document that is too large is logged and left out,
a version that has no words for a schema is left out.
"""

import json
import logging
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

Document = Dict[str, Any]

DOCUMENT_BYTES_MAX = 1024 * 1024
_FILES: Dict[str, Tuple[str, ...]] = {
    "2": ("swagger.json", "swagger2.json"),
    "3": ("swagger3.json",),
    "3.1": ("swagger3.1.json",),
}
VERSIONS = tuple(_FILES)
_SPELLINGS = {"2": ("2", "2.0"), "3": ("3", "3.0"), "3.1": ("3.1",)}
_ANY_OBJECT: Document = {"type": "object", "example": {}}
_ERROR: Document = {"type": "object", "properties": {"message": {"type": "string"}}}

_LOGGER = logging.getLogger("azmlinfsrv.swagger")


def documents(
    folder: str, run: Callable[..., Any], schemas: Optional[Any], environment: Mapping[str, str]
) -> Dict[str, str]:
    """By version. `schemas` is inference_schema's module where run() is decorated, else None."""
    found = {}
    for version, files in _FILES.items():
        document, source = _of_user(folder, files)
        if document is None:
            document, source = _made(version, run, schemas, environment), f"of version {version}"
        if document is None:
            continue
        # In ASCII: as many bytes as characters.
        text = json.dumps(document)
        if len(text) <= DOCUMENT_BYTES_MAX:
            found[version] = text
        else:
            said = "The OpenAPI document %s has %d bytes and is left out; it may have %d"
            _LOGGER.error(said, source, len(text), DOCUMENT_BYTES_MAX)
    return found


def _of_user(folder: str, files: Tuple[str, ...]) -> Tuple[Any, str]:
    """With the name of its file."""
    for name in files:
        try:
            return json.loads((Path(folder) / name).read_text("utf-8-sig")), name
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as exc:
            _LOGGER.error("%s beside the scoring script cannot be used: %s", name, exc)
    return None, ""


def _made(
    version: str, run: Callable[..., Any], schemas: Optional[Any], environment: Mapping[str, str]
) -> Optional[Document]:
    takes = gives = _ANY_OBJECT
    if schemas is not None:
        if not set(_SPELLINGS[version]) & set(schemas.get_supported_versions(run)):
            return None
        takes, gives = schemas.get_input_schema(run), schemas.get_output_schema(run)
    name = environment.get("SERVICE_NAME", "ML service")
    info = {
        "title": name,
        "description": f"API specification for the Azure Machine Learning service {name}",
        "version": environment.get("SERVICE_VERSION", "1.0"),
    }
    prefix = environment.get("SERVICE_PATH_PREFIX", "").strip("/")
    path = f"/{prefix}/score" if prefix else "/score"
    if version == "2":
        return _version_2(info, path, takes, gives)
    return _version_3(info, path, takes, gives, "3.1.0" if version == "3.1" else "3.0.3")


_OPERATION: Document = {
    "operationId": "RunMLService",
    "description": "Run web service's model and get the prediction output",
    "security": [{"Bearer": []}],
}
_WHEN_RUN = "The service processed the input correctly and provided a result prediction, if applicable."
_WHEN_FAILED = "The service failed to execute due to an error."


def _version_2(info: Document, path: str, takes: Document, gives: Document) -> Document:
    def answer(text: str, schema: str) -> Document:
        return {"description": text, "schema": {"$ref": f"#/definitions/{schema}"}}

    payload = {"name": "serviceInputPayload", "in": "body", "schema": {"$ref": "#/definitions/ServiceInput"}}
    responses = {"200": answer(_WHEN_RUN, "ServiceOutput"), "default": answer(_WHEN_FAILED, "ErrorResponse")}
    key = {"type": "apiKey", "name": "Authorization", "in": "header", "description": "For example: Bearer abc123"}
    return {
        "swagger": "2.0",
        "info": info,
        "schemes": ["https"],
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "securityDefinitions": {"Bearer": key},
        "paths": {path: {"post": dict(_OPERATION, parameters=[payload], responses=responses)}},
        "definitions": {"ServiceInput": takes, "ServiceOutput": gives, "ErrorResponse": _ERROR},
    }


def _version_3(info: Document, path: str, takes: Document, gives: Document, version: str) -> Document:
    def content(schema: str) -> Document:
        return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}

    responses = {
        "200": dict(content("ServiceOutput"), description=_WHEN_RUN),
        "default": dict(content("ErrorResponse"), description=_WHEN_FAILED),
    }
    return {
        "openapi": version,
        "info": info,
        "paths": {path: {"post": dict(_OPERATION, requestBody=content("ServiceInput"), responses=responses)}},
        "components": {
            "securitySchemes": {"Bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {"ServiceInput": takes, "ServiceOutput": gives, "ErrorResponse": _ERROR},
        },
    }
