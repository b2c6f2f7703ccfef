"""What of a deployment is collected: its `data_collector` as plain data, each collection with its place.

A collection lies where its `data` says: at the path given there, or at the one of the registered data asset it names;
else at modelDataCollector/ENDPOINT/DEPLOYMENT/COLLECTION of the default datastore, where Azure's client expects it.
Errors: mistakes added to the place they were found in.
Source: contract/azure-ml-endpoints.md sections 2.2 and 8.4.
"""

from __future__ import annotations

import re

from gateway.collection.spec import (
    CUSTOM_MAX,
    HEADERS_MAX,
    HOME,
    NEVER_COLLECTED,
    PAYLOADS,
    CollectionSpec,
    CollectorSpec,
)
from gateway.controlplane.arm.ids import IdError, Workspace, is_asset_reference, resource_id, stored_at
from gateway.controlplane.assets import DATASTORE
from gateway.controlplane.model_files import ModelFileError
from gateway.controlplane.place import Place
from gateway.controlplane.store.records import Kind
from gateway.controlplane.translate_script import Trees
from gateway.controlplane.yaml_types import CollectedDataYaml, CollectionYaml, DataCollectorYaml, OnlineDeploymentYaml
from gateway.resources import AssetModel, AssetTree, LocalModel, LocalTree

# A gateway is one workspace, whatever its clients call it.
WORKSPACE = Workspace("gateway", "gateway", "gateway")
PATH_CHARS_MAX = 512
SEGMENT_BYTES_MAX = 255

_KEY = "data_collector"
_PATHS = f"azureml://datastores/{DATASTORE}/paths/"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_HEADER = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")

Model = AssetModel | LocalModel | AssetTree | LocalTree | None


def collector_of(source: OnlineDeploymentYaml, place: Place, trees: Trees, model: Model) -> CollectorSpec | None:
    """What is collected; None for nothing. `model`: the one that is served, whose version the records tell."""
    given = source.data_collector
    if given is None:
        return None
    _check_names(given, place)
    headers = given.request_logging.capture_headers if given.request_logging is not None else ()
    _check_headers(headers, place)
    _note_vain(source, given, place)
    found = tuple(
        CollectionSpec(
            name=name.lower() if name.lower() in PAYLOADS else name,
            folder=_folder(source, name, one, place, trees),
            sampling_rate=given.sampling_rate if one.sampling_rate is None else one.sampling_rate,
        )
        for name, one in given.collections.items()
        if one.enabled
    )
    if not found:
        return None
    return CollectorSpec(
        source=resource_id(WORKSPACE, Kind.ONLINE_DEPLOYMENT, source.name, source.endpoint_name),
        collections=found,
        rolling_rate=given.rolling_rate,
        headers=tuple(name.lower() for name in headers),
        model_version=_version(model),
    )


def _check_names(given: DataCollectorYaml, place: Place) -> None:
    seen: set[str] = set()
    for name in given.collections:
        path = f"{_KEY}.collections.{name}"
        if not _NAME.fullmatch(name):
            text = "accepted: a name of at most 64 letters, digits, '_', '-' and '.'"
            place.blame(path, f"found a collection {name[:80]!a}; {text}")
        if name.lower() in seen:
            place.blame(path, "the collection is named twice; names are equal whatever their case")
        seen.add(name.lower())
    custom = sorted(seen - set(PAYLOADS))
    if len(custom) > CUSTOM_MAX:
        said = f"found {len(custom)} collections beside {' and '.join(PAYLOADS)}; accepted: at most {CUSTOM_MAX}"
        place.blame(f"{_KEY}.collections", said)


def _check_headers(headers: tuple[str, ...], place: Place) -> None:
    path = f"{_KEY}.request_logging.capture_headers"
    if len(headers) > HEADERS_MAX:
        place.blame(path, f"found {len(headers)} headers; accepted: at most {HEADERS_MAX}")
    for name in headers:
        if not _HEADER.fullmatch(name):
            place.blame(path, f"found {name[:80]!a}; accepted: names of headers, such as x-tenant")
        elif name.lower() in NEVER_COLLECTED:
            place.blame(path, f"found {name!r}, which proves a caller and is never collected; remove it")


def _note_vain(source: OnlineDeploymentYaml, given: DataCollectorYaml, place: Place) -> None:
    """What is accepted and has no effect."""
    for name, one in given.collections.items():
        path = f"{_KEY}.collections.{name}"
        if one.client_id:
            place.note(f"{path}.client_id", "accepted, not enforced here: there is no managed identity")
        if one.enabled and name.lower() not in PAYLOADS and source.code_configuration is None:
            text = "has no effect without code_configuration; an ONNX model collects request and response"
            place.note(path, text)
    if given.request_logging is not None and not any(
        one.enabled and name.lower() in PAYLOADS for name, one in given.collections.items()
    ):
        place.note(f"{_KEY}.request_logging", "has no effect while neither request nor response is collected")


def _folder(source: OnlineDeploymentYaml, name: str, one: CollectionYaml, place: Place, trees: Trees) -> str:
    key = f"{_KEY}.collections.{name}.data"
    address = _address(one, key, place, trees)
    if not address:
        return f"{HOME}/{source.endpoint_name}/{source.name}/{name}"
    try:
        where = stored_at(address)
    except IdError as error:
        place.blame(key, str(error))
        return ""
    if where is None or where.datastore.lower() != DATASTORE or not where.path:
        place.blame(key, f"found {address[:200]!r}; accepted: a folder of the default datastore, {_PATHS}...")
        return ""
    if len(where.path) > PATH_CHARS_MAX or any(len(part.encode()) > SEGMENT_BYTES_MAX for part in _parts(where.path)):
        text = f"at most {PATH_CHARS_MAX} characters, and {SEGMENT_BYTES_MAX} bytes between two slashes"
        place.blame(key, f"found a path of {len(where.path)} characters; accepted: {text}")
        return ""
    return where.path


def _parts(path: str) -> list[str]:
    return path.split("/")


def _address(one: CollectionYaml, key: str, place: Place, trees: Trees) -> str:
    """Where the collection is told to be; "" where nothing is said."""
    given = one.data
    if isinstance(given, CollectedDataYaml):
        if given.path:
            return given.path
        given = given.data_id or (f"azureml:{given.name}:{given.version or '1'}" if given.name else "")
    if not given or not is_asset_reference(given):
        return given or ""
    try:
        return trees(Kind.DATA, given).address
    except ModelFileError as error:
        # A deployment goes on when the asset that described its data is gone.
        place.note(key, f"{error.text}; the data lies where it does without it")
        return ""


def _version(model: Model) -> str:
    """Of a registered model; "" for a local one, whose version is its content."""
    return model.reference.rpartition(":")[2] if isinstance(model, AssetModel | AssetTree) else ""
