"""What a YAML document is: an online endpoint, an online deployment, or something of Azure ML's that is not served.

Why: a folder from a real repository holds other files too; the right answer names them instead of their keys.
Order: `$schema` where its file name tells, else the keys. Pure; nothing here is an error.
"""

from __future__ import annotations

from gateway.yaml_text import Entries, Scalar

ENDPOINT = "online endpoint"
DEPLOYMENT = "online deployment"
CONDA = "conda file"

# The first text that is part of the schema's file name tells.
_SCHEMAS = (
    ("onlineendpoint", ENDPOINT),
    ("onlinedeployment", DEPLOYMENT),
    ("batchendpoint", "batch endpoint"),
    ("batchdeployment", "batch deployment"),
    ("component", "component"),
    ("job", "job"),
    ("environment", "environment"),
    ("model", "model"),
    ("datastore", "datastore"),
    ("data", "data asset"),
    ("compute", "compute"),
    ("workspace", "workspace"),
    ("registry", "registry"),
    ("schedule", "schedule"),
)
_BATCH_KEYS = {"mini_batch_size", "output_action", "error_threshold", "retry_settings", "settings"}
# The first row with one of its keys in the document tells.
_KEYS = (
    ({"endpoint_name", "instance_type", "code_configuration", "request_settings"}, DEPLOYMENT),
    ({"defaults"}, "batch endpoint"),
    ({"auth_mode", "traffic", "mirror_traffic"}, ENDPOINT),
    ({"channels", "dependencies"}, CONDA),
    ({"jobs", "command", "component", "experiment_name", "trial"}, "job"),
    ({"image", "conda_file", "build"}, "environment"),
    ({"path", "flavors"}, "model"),
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
        return "batch deployment"
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
