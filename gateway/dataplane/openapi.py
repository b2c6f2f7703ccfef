"""The scoring listener's OpenAPI 3.1 document: every route of every endpoint, whatever model it serves.

One document for the listener; what a single model takes and gives is its own document (swagger.py), at
`/endpoints/{endpoint}/swagger.json`. Names of endpoints are not in it, so it needs no credentials.
The table below is compared by test with the routes that are served. Pure. Errors: none.
"""

from __future__ import annotations

import re
from typing import Any

from gateway.errors import Code

Document = dict[str, Any]

PATH = "/openapi.json"

_ENDPOINT = "/endpoints/{endpoint}"
_MODEL = "/v2/models/{endpoint}"
_VERSION = f"{_MODEL}/versions/{{deployment}}"
# What clients of Triton take for the server: the address of an endpoint, or its scoring URI.
_SERVERS = {"Own": f"{_ENDPOINT}/v2", "Scoring": f"{_ENDPOINT}/score/v2"}

# What refuses a question, and what refuses a score besides.
_ASKED = (401, 403, 404, 503)
_SCORED = (400, 401, 403, 404, 408, 413, 415, 424, 429, 431, 503)


def scoring_openapi() -> Document:
    """The document. The same for every gateway of this version."""
    operations = [*_azure(), *_v2()]
    paths: Document = {}
    for method, path, operation in operations:
        paths.setdefault(path, _parameters(path))[method] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Inference Gateway: scoring",
            "version": "1",
            "description": "Scores with the models that are served: in Azure ML's form below /endpoints, in the Open "
            "Inference Protocol V2 below /v2, where a model is an endpoint and a version is a deployment.",
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A key or token of the endpoint."}
            },
            "schemas": _schemas(),
            "headers": _headers(),
        },
    }


def _azure() -> list[tuple[str, str, Document]]:
    text = {"text/plain": {"schema": {"type": "string"}}}
    anything: Document = {"application/json": {"schema": {}}}
    score = _operation("score", "Score with a deployment chosen by traffic, or by header", _SCORED, "Error")
    score |= {"parameters": [_DEPLOYMENT, *_TRACES], "requestBody": _body("ScoreRequest", "InferRequest")}
    score["responses"]["200"] = _score_answer("The scores, a row of them for each row sent.", anything)
    healthy = _asked("healthy", "Whether the chosen deployment is ready", {"content": text})
    swagger = _asked("swagger", "The OpenAPI document of the chosen deployment's model", {"content": anything})
    version = {"name": "version", "in": "query", "schema": {"type": "string", "enum": ["2", "3", "3.1"]}}
    swagger["parameters"] = [_DEPLOYMENT, version | {"description": "The version of OpenAPI; 2 without it."}]
    healthy["parameters"] = [_DEPLOYMENT]
    document = _open("openapi", "This document")
    return [
        ("get", PATH, document | {"responses": {"200": {"description": "The document.", "content": anything}}}),
        ("post", f"{_ENDPOINT}/score", score),
        ("get", f"{_ENDPOINT}/swagger.json", swagger),
        ("get", _ENDPOINT, healthy),
        ("get", f"{_ENDPOINT}/", healthy | {"operationId": "healthySlash"}),
    ]


def _v2() -> list[tuple[str, str, Document]]:
    found = [
        ("get", "/v2", _open("server", "What this server is", "Server")),
        ("get", "/v2/", _open("serverSlash", "What this server is", "Server")),
        ("get", "/v2/health/live", _open("live", "Whether the process runs", "Live")),
        ("get", "/v2/health/ready", _open("ready", "Whether requests may be sent", "Ready", (503,))),
        ("get", "/v2/models", _listed("models", "The models that the credentials open", "Index")),
        ("get", "/v2/models/stats", _listed("allStatistics", "Statistics of these models", "Statistics", (503,))),
        ("post", "/v2/repository/index", _repository("repositoryIndex")),
        ("post", "/v2/repository/{repository}/index", _repository("namedRepositoryIndex")),
    ]
    bases = [(_MODEL, ""), (_VERSION, "Version")]
    for own, server in _SERVERS.items():
        found += _own_server(own, server)
        model = f"{server}/models/{{model}}"
        bases += [(model, own), (f"{model}/versions/{{version}}", f"{own}Version")]
    for base, suffix in bases:
        infer = _operation(f"infer{suffix}", "Infer", _SCORED, "V2Error")
        header = [] if suffix.endswith("Version") else [_DEPLOYMENT]
        infer |= {"parameters": [_LENGTH, *header, *_TRACES], "requestBody": _infer_body()}
        infer["responses"]["200"] = _score_answer("The outputs.", _infer_answer())
        found += [
            ("get", base, _of_model(f"metadata{suffix}", "A model's inputs and outputs", "Metadata")),
            ("get", f"{base}/config", _of_model(f"config{suffix}", "A model's configuration", "Config")),
            ("get", f"{base}/ready", _of_model(f"modelReady{suffix}", "Whether a model is ready", "ModelReady")),
            ("get", f"{base}/stats", _of_model(f"statistics{suffix}", "A model's statistics", "Statistics")),
            ("post", f"{base}/infer", infer),
        ]
    return found


def _own_server(own: str, server: str) -> list[tuple[str, str, Document]]:
    """An endpoint as a V2 server of its own, where models have the names of their Triton repository."""
    questions = (
        ("", f"server{own}", "What this server is", "Server"),
        ("/health/live", f"live{own}", "Whether the chosen deployment is ready", "Live"),
        ("/health/ready", f"ready{own}", "Whether the chosen deployment is ready", "Ready"),
        ("/models/stats", f"allStatistics{own}", "Statistics of the endpoint's models", "Statistics"),
    )
    index = _repository(f"repositoryIndex{own}")
    index["responses"]["404"] = {"description": _MEANINGS[404], "content": _json("V2Error")}
    return [
        *(("get", f"{server}{path}", _of_model(name, summary, schema)) for path, name, summary, schema in questions),
        ("post", f"{server}/repository/index", index),
    ]


# Operations.


def _operation(name: str, summary: str, refusals: tuple[int, ...], error: str) -> Document:
    responses = {
        str(status): {
            "description": _MEANINGS[status],
            "content": _json(error),
            **({"headers": {"Retry-After": _ref("headers", "RetryAfter")}} if status in (429, 503) else {}),
        }
        for status in refusals
    }
    return {"operationId": name, "summary": summary, "responses": responses}


def _asked(name: str, summary: str, answer: Document) -> Document:
    operation = _operation(name, summary, _ASKED, "Error")
    operation["responses"]["200"] = {
        "description": "The answer.",
        "headers": {"azureml-model-deployment": _ref("headers", "Deployment")},
        **answer,
    }
    return operation


def _open(name: str, summary: str, schema: str = "", refusals: tuple[int, ...] = ()) -> Document:
    operation = _operation(name, summary, refusals, "V2Error") | {"security": []}
    if schema:
        operation["responses"]["200"] = {"description": "The answer.", "content": _json(schema)}
    return operation


def _listed(name: str, summary: str, schema: str, refusals: tuple[int, ...] = ()) -> Document:
    operation = _operation(name, summary, (401, 403, *refusals), "V2Error")
    operation["responses"]["200"] = {"description": "The answer.", "content": _json(schema)}
    return operation


def _of_model(name: str, summary: str, schema: str) -> Document:
    operation = _operation(name, summary, _ASKED, "V2Error")
    operation["responses"]["200"] = {"description": "The answer.", "content": _json(schema)}
    return operation


def _repository(name: str) -> Document:
    operation = _listed(name, "The models that the credentials open; with a body, only those that are ready", "Index")
    operation["responses"]["400"] = {"description": _MEANINGS[400], "content": _json("V2Error")}
    operation["responses"]["413"] = {"description": _MEANINGS[413], "content": _json("V2Error")}
    operation["requestBody"] = {"required": False, "content": _json("IndexRequest")}
    return operation


def _parameters(path: str) -> Document:
    names = re.findall(r"{(\w+)}", path)
    return {"parameters": [_path_parameter(name) for name in names]} if names else {}


def _path_parameter(name: str) -> Document:
    what = {
        "endpoint": "An endpoint's name, whatever its case.",
        "deployment": "A deployment's name.",
        "model": "The model's name in its Triton repository, or the endpoint's.",
        "version": "The version's number in the repository, or a deployment's name.",
    }
    described = what.get(name, "Any name; there is one repository.")
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": described,
        "schema": {"type": "string", "minLength": 1},
    }


def _body(*schemas: str) -> Document:
    schema = {"anyOf": [_ref("schemas", name) for name in schemas]}
    content = {"application/json": {"schema": schema}, "application/octet-stream": {"schema": _BINARY}}
    return {"required": True, "content": content}


def _infer_body() -> Document:
    return {
        "required": True,
        "content": {
            "application/json": {"schema": _ref("schemas", "InferRequest")},
            "application/octet-stream": {"schema": _BINARY},
        },
    }


def _infer_answer() -> Document:
    return {
        "application/json": {"schema": _ref("schemas", "InferResponse")},
        "application/octet-stream": {"schema": _BINARY},
    }


def _score_answer(description: str, content: Document) -> Document:
    headers = {"azureml-model-deployment": "Deployment", "x-request-id": "RequestId"}
    return {
        "description": description,
        "headers": {name: _ref("headers", header) for name, header in headers.items()},
        "content": content,
    }


def _json(schema: str) -> Document:
    return {"application/json": {"schema": _ref("schemas", schema)}}


def _ref(kind: str, name: str) -> Document:
    return {"$ref": f"#/components/{kind}/{name}"}


def _header(name: str, description: str) -> Document:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}


_MEANINGS = {
    400: "The request does not fit the protocol or the model.",
    401: "No valid key or token.",
    403: "The token may not score here.",
    404: "No such endpoint or deployment, or none with traffic.",
    408: "The request took longer than allowed (504 where the setting timeout_status says so).",
    413: "The body is larger than allowed.",
    415: "The body is of a type or coding that is not taken.",
    424: "The model failed.",
    429: "Too much is waiting; Retry-After says when to come back.",
    431: "An id in the headers is too long.",
    503: "Nothing is ready to answer.",
}
assert set(_MEANINGS) <= {code.status for code in Code}

_BINARY = {"description": "Raw tensors, or JSON and then raw tensors: the V2 binary tensor extension."}
_DEPLOYMENT = _header("azureml-model-deployment", "The deployment to ask, whatever the traffic.")
_LENGTH = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "description": "How many bytes of the body are JSON; raw tensors follow. 0: the body is the one input.",
    "schema": {"type": "integer", "minimum": 0},
}
_TRACES = (
    {
        "name": "x-request-timeout-ms",
        "in": "header",
        "description": "A deadline sooner than the deployment's, in milliseconds from the request's arrival.",
        "schema": {"type": "integer", "minimum": 0},
    },
    _header("x-request-id", "Kept where it is a GUID; else a new one is made."),
    _header("x-ms-client-request-id", "Given back, cleaned and cut to 40 characters."),
)


# Schemas.


def _text(description: str = "") -> Document:
    return {"type": "string"} | ({"description": description} if description else {})


def _whole(description: str = "") -> Document:
    return {"type": "integer"} | ({"description": description} if description else {})


def _list(items: Document) -> Document:
    return {"type": "array", "items": items}


def _object(properties: Document, *optional: str) -> Document:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": properties}


def _schemas() -> Document:
    duration = _object({"count": _whole(), "ns": _whole()})
    tensor = _object({"name": _text(), "datatype": _text(), "shape": _list(_whole())})
    return {
        "Error": _object(
            {
                "error": _object(
                    {"code": _text(), "message": _text(), "details": _list(_text()), "request_id": _text()}
                )
            }
        ),
        "V2Error": _object({"error": _text(), "code": _text(), "request_id": _text()}),
        "ScoreRequest": {
            "type": "object",
            "description": "Rows, a pandas split, named tensors or records, under input_data, data or one of "
            "MLflow's names.",
            "anyOf": [
                {"required": [name]}
                for name in ("input_data", "data", "dataframe_split", "dataframe_records", "instances", "inputs")
            ],
        },
        "InferRequest": _infer_request(),
        "InferResponse": _object(
            {
                "model_name": _text(),
                "model_version": _text(),
                "id": _text(),
                "outputs": _list(
                    tensor | {"description": "With `data`, or with its size where raw bytes follow the JSON."}
                ),
            },
            "id",
        ),
        "Server": _object({"name": _text(), "version": _text(), "extensions": _list(_text())}),
        "Live": _object({"live": {"type": "boolean"}}),
        "Ready": _object({"ready": {"type": "boolean"}}),
        "ModelReady": _object({"name": _text(), "ready": {"type": "boolean"}}),
        "Index": _list(
            _object(
                {
                    "name": _text(),
                    "version": _text(),
                    "state": {"type": "string", "enum": ["READY", "UNAVAILABLE", "LOADING", "UNLOADING"]},
                    "reason": _text(),
                }
            )
        ),
        "IndexRequest": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
        "Metadata": _object(
            {
                "name": _text(),
                "versions": _list(_text()),
                "platform": _text(),
                "inputs": _list(tensor),
                "outputs": _list(tensor),
            }
        ),
        "Config": {"type": "object", "description": "As Triton's model_config.proto says it in JSON."},
        "Statistics": _object({"model_stats": _list(_statistics(duration))}),
    }


def _infer_request() -> Document:
    tensor = _object(
        {
            "name": _text(),
            "shape": _list(_whole()),
            "datatype": _text("FP32, INT64, BYTES ..."),
            "parameters": {"type": "object"},
            "data": {"type": "array", "description": "Flat or nested as the shape says."},
        },
        "parameters",
        "data",
    )
    return _object(
        {
            "id": _text("Given back."),
            "inputs": _list(tensor),
            "outputs": _list(_object({"name": _text(), "parameters": {"type": "object"}}, "parameters")),
            "parameters": {"type": "object"},
            "timeout": _whole("A deadline in microseconds."),
        },
        "id",
        "outputs",
        "parameters",
        "timeout",
    )


def _statistics(duration: Document) -> Document:
    steps = (
        "success",
        "fail",
        "queue",
        "compute_input",
        "compute_infer",
        "compute_output",
        "cache_hit",
        "cache_miss",
    )
    return _object(
        {
            "name": _text(),
            "version": _text(),
            "last_inference": _whole("Milliseconds since 1970."),
            "inference_count": _whole("Rows."),
            "execution_count": _whole("Runs of the model."),
            "inference_stats": _object(dict.fromkeys(steps, duration)),
            "batch_stats": {"type": "array"},
            "memory_usage": {"type": "array"},
            "response_stats": {"type": "object"},
        }
    )


def _headers() -> Document:
    return {
        "Deployment": {"description": "The deployment that answered.", "schema": _text()},
        "RequestId": {"description": "The request's GUID, as in the log.", "schema": _text()},
        "RetryAfter": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}},
    }
