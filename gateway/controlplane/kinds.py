"""What a YAML document is: an endpoint, a deployment, an asset, or something of Azure ML's that is not kept here.

Why: a folder from a real repository holds other files too; the right answer names them instead of their keys.
Order: `$schema` where its file name tells, else the keys. Pure; nothing here is an error.
"""

from __future__ import annotations

from gateway.controlplane.store.records import Kind
from gateway.suggest import squash
from gateway.yaml_text import Entries, Scalar

ENDPOINT = "online endpoint"
DEPLOYMENT = "online deployment"
BATCH_ENDPOINT = "batch endpoint"
BATCH_DEPLOYMENT = "batch deployment"
MODEL = "model"
ENVIRONMENT = "environment"
CODE = "code asset"
DATA = "data asset"
CONDA = "conda file"

# What is kept, by its name in words.
KEPT = {
    ENDPOINT: Kind.ONLINE_ENDPOINT,
    DEPLOYMENT: Kind.ONLINE_DEPLOYMENT,
    BATCH_ENDPOINT: Kind.BATCH_ENDPOINT,
    BATCH_DEPLOYMENT: Kind.BATCH_DEPLOYMENT,
    MODEL: Kind.MODEL,
    ENVIRONMENT: Kind.ENVIRONMENT,
    CODE: Kind.CODE,
    DATA: Kind.DATA,
}

# The first text that is part of the schema's file name tells.
_SCHEMAS = (
    ("onlineendpoint", ENDPOINT),
    ("onlinedeployment", DEPLOYMENT),
    ("batchendpoint", BATCH_ENDPOINT),
    ("batchdeployment", BATCH_DEPLOYMENT),
    ("component", "component"),
    ("job", "job"),
    ("environment", ENVIRONMENT),
    ("model", MODEL),
    ("datastore", "datastore"),
    ("data", DATA),
    ("codeasset", CODE),
    ("compute", "compute"),
    ("workspace", "workspace"),
    ("registry", "registry"),
    ("schedule", "schedule"),
)
_BATCH_KEYS = {"mini_batch_size", "output_action", "error_threshold", "retry_settings", "settings"}
_DATA_TYPES = ("urifile", "urifolder", "mltable")
# The first row with one of its keys in the document tells.
_KEYS = (
    ({"endpoint_name", "instance_type", "code_configuration", "request_settings"}, DEPLOYMENT),
    ({"defaults"}, BATCH_ENDPOINT),
    ({"auth_mode", "traffic", "mirror_traffic"}, ENDPOINT),
    ({"channels", "dependencies"}, CONDA),
    ({"jobs", "command", "component", "experiment_name", "trial"}, "job"),
    ({"image", "conda_file", "build"}, ENVIRONMENT),
    ({"path", "flavors"}, MODEL),
    ({"name"}, ENDPOINT),
)


def kind_of(document: Entries) -> str:
    """The kind in words; empty where nothing tells."""
    schema = _text(document, "$schema").rstrip("/").rpartition("/")[2].lower()
    for part, kind in _SCHEMAS:
        if part in schema:
            return kind
    keys = document.entries.keys()
    if "endpoint_name" in keys and _is_batch(document):
        return BATCH_DEPLOYMENT
    if "path" in keys and squash(_text(document, "type")) in _DATA_TYPES:
        return DATA
    return next((kind for known, kind in _KEYS if known & keys), "")


def is_kubernetes(document: Entries) -> bool:
    """Whether the `$schema` names Azure's kubernetes form."""
    return "kubernetes" in _text(document, "$schema").lower()


def _is_batch(document: Entries) -> bool:
    keys = document.entries.keys()
    if _text(document, "type") in ("model", "pipeline") or _BATCH_KEYS & keys:
        return True
    return "compute" in keys and "instance_type" not in keys


def _text(document: Entries, key: str) -> str:
    value = document.entries.get(key)
    return value.text if isinstance(value, Scalar) else ""
