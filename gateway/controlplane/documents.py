"""Documents as the store keeps them: JSON builtins without defaults, and back to the typed structs of yaml_types.py.

Why without defaults: what a person did not say stays unsaid, so that an exported file is as short as the one applied
and a better default of a later version reaches what is stored.
Shapes: `to_builtins` gives dicts, lists, text, numbers and truth values, by the names of YAML keys; the round trip is
exact. `normal_form` brings a document that a person wrote into the one spelling that is stored and compared.
Errors: `DocumentError` for stored data that is no document of its kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from gateway.controlplane.arm import ids
from gateway.controlplane.decode import default_of, struct_type
from gateway.controlplane.store.records import Kind
from gateway.controlplane.yaml_types import (
    BatchDeploymentYaml,
    BatchEndpointYaml,
    BuildYaml,
    CodeAssetYaml,
    CodeYaml,
    CollectedDataYaml,
    CollectionYaml,
    DataCollectorYaml,
    DataYaml,
    EnvironmentYaml,
    IdentityYaml,
    InferenceYaml,
    ModelYaml,
    OnlineDeploymentYaml,
    OnlineEndpointYaml,
    ProbeYaml,
    ResourcesYaml,
)

S = TypeVar("S", bound=msgspec.Struct)

_TYPES: dict[Kind, type[msgspec.Struct]] = {
    Kind.ONLINE_ENDPOINT: OnlineEndpointYaml,
    Kind.ONLINE_DEPLOYMENT: OnlineDeploymentYaml,
    Kind.BATCH_ENDPOINT: BatchEndpointYaml,
    Kind.BATCH_DEPLOYMENT: BatchDeploymentYaml,
    Kind.MODEL: ModelYaml,
    Kind.ENVIRONMENT: EnvironmentYaml,
    Kind.CODE: CodeAssetYaml,
    Kind.DATA: DataYaml,
}


class DocumentError(ValueError):
    """Stored data is no document of its kind."""


def document_type(kind: Kind) -> type[msgspec.Struct]:
    """The struct of a kind. Errors: DocumentError for kinds whose documents are not YAML structs (rollouts)."""
    try:
        return _TYPES[kind]
    except KeyError:
        raise DocumentError(f"{kind} has no YAML document; accepted: {', '.join(_TYPES)}") from None


def to_builtins(document: msgspec.Struct) -> dict[str, Any]:
    """The document as JSON builtins, keys as in YAML, without what is as the default is."""
    given: dict[str, Any] = {}
    for one in struct_type(type(document)).fields:
        value = getattr(document, one.name)
        if one.required or value != default_of(one):
            given[one.encode_name] = _builtin(value)
    return given


def from_builtins(kind: Kind, data: dict[str, Any]) -> msgspec.Struct:
    """The typed document of what `to_builtins` gave. Errors: DocumentError."""
    try:
        return msgspec.convert(data, document_type(kind))
    except msgspec.ValidationError as error:
        raise DocumentError(f"cannot read a stored {kind} document: {error}") from error


def legible(kind: Kind, data: dict[str, Any]) -> tuple[msgspec.Struct, str]:
    """The document, and "" or why it is not whole: keys that this version cannot read are left out, so that one row
    that another version wrote is shown with what is wrong with it, and ends no list.

    Errors: DocumentError where not even the keys that every such document has can be read."""
    try:
        return from_builtins(kind, data), ""
    except DocumentError as error:
        fields = struct_type(document_type(kind)).fields
        kept = {one.encode_name: data[one.encode_name] for one in fields if one.required and one.encode_name in data}
        document = from_builtins(kind, kept)
        for name in data.keys() - kept.keys():
            try:
                document = from_builtins(kind, kept | {name: data[name]})
            except DocumentError:
                continue
            kept[name] = data[name]
        return document, str(error)


def _builtin(value: Any) -> Any:
    match value:
        case msgspec.Struct():
            return to_builtins(value)
        case dict():
            return {name: _builtin(one) for name, one in value.items()}
        case tuple() | list():
            return [_builtin(one) for one in value]
        case _:
            return value


# ---- normal form -----------------------------------------------------------------------------------------------

# Said by Azure about what it made; nothing that a document wants.
_READ_ONLY = ("schema_", "id", "kind", "location", "scoring_uri", "openapi_uri", "provisioning_state", "datastore")
_NO_OTHER_NAME = "azureml:local"
_ASSET_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,254}")
_ASSET_NAME_SAID = "1 to 255 letters, digits, dashes, dots and underscores, a letter or digit first"
_PROBES = ("liveness_probe", "readiness_probe", "startup_probe")
_OF_PIPELINES = ("default_compute", "default_datastore", "continue_on_step_failure", "force_rerun")
_OLDER = (
    "mini_batch_size",
    "max_concurrency_per_instance",
    "output_action",
    "output_file_name",
    "retry_settings",
    "error_threshold",
    "logging_level",
)


@dataclass(frozen=True, slots=True)
class Blame:
    """What of a document has no normal form: the path of its keys, and a sentence."""

    path: str
    text: str


def normal_form(document: S) -> tuple[S, list[Blame]]:
    """The document in the one spelling that is stored and compared, and what has none (it is left as it was).

    `$schema` and read-only keys are gone once what they say is said by others (type, compute); references are
    `azureml:NAME:VERSION` or `azureml:NAME@latest`; names in traffic are lower-cased; what is given as its default is
    not given; a batch deployment's settings are in `settings`. Twice is the same as once.
    """
    blames: list[Blame] = []
    changes = dict.fromkeys((name for name in _READ_ONLY if name in document.__struct_fields__), "")
    match document:
        case OnlineEndpointYaml():
            more = _endpoint(document, blames)
        case OnlineDeploymentYaml():
            more = _deployment(document, blames)
        case BatchEndpointYaml():
            more = {"identity": _identity(document.identity)}
        case BatchDeploymentYaml():
            more = _batch(document, blames)
        case EnvironmentYaml():
            more = _environment(document)
        case _:
            more = {}
    if isinstance(document, ModelYaml | EnvironmentYaml | CodeAssetYaml | DataYaml):
        blames += _named(document)
    return msgspec.structs.replace(document, **changes, **more), blames


def _named(document: ModelYaml | EnvironmentYaml | CodeAssetYaml | DataYaml) -> Iterator[Blame]:
    """What no path could name, and nobody could ask for again."""
    for key, text in (("name", document.name), ("version", document.version)):
        if text and not _ASSET_NAME.fullmatch(text):
            yield Blame(key, f"found {text[:100]!r}; accepted: {_ASSET_NAME_SAID}")


def _endpoint(document: OnlineEndpointYaml, blames: list[Blame]) -> dict[str, Any]:
    compute = _tried(ids.compute_reference, document.compute, "compute", blames)
    if not compute and "kubernetes" in document.schema_.lower():
        compute = _NO_OTHER_NAME
    return {
        "traffic": _lowered(document.traffic),
        "mirror_traffic": _lowered(document.mirror_traffic),
        "identity": _identity(document.identity),
        "compute": compute,
    }


def _deployment(document: OnlineDeploymentYaml, blames: list[Blame]) -> dict[str, Any]:
    is_kubernetes = document.type == "kubernetes" or (
        document.type is None and "kubernetes" in document.schema_.lower()
    )
    probes = {name: _unless_default(getattr(document, name), ProbeYaml()) for name in _PROBES}
    return {
        "type": "kubernetes" if is_kubernetes else None,
        "resources": _resources(document.resources),
        "data_collector": _collector(document.data_collector, blames),
        **_inside(document, blames),
        **probes,
    }


def _batch(document: BatchDeploymentYaml, blames: list[Blame]) -> dict[str, Any]:
    told = (document.component, document.job_definition, *(getattr(document.settings, one) for one in _OF_PIPELINES))
    if document.type == "pipeline" or any(one is not None for one in told):
        blames.append(Blame("type", "pipeline deployments are not supported; accepted: type: model, with a model"))
    settings, resources = document.settings, document.resources
    older = {name: getattr(document, name) for name in _OLDER if getattr(document, name) is not None}
    given = to_builtins(settings)
    for name, value in older.items():
        if name in given and getattr(settings, name) != value:
            blames.append(Blame(name, f"settings.{name} is given too; accepted: one of the two"))
    settings = msgspec.structs.replace(settings, **older)
    if settings.instance_count is not None:
        if resources.instance_count not in (1, settings.instance_count):
            said = "resources.instance_count is given too; accepted: one of the two"
            blames.append(Blame("settings.instance_count", said))
        resources = msgspec.structs.replace(resources, instance_count=settings.instance_count)
    return {
        "compute": _tried(ids.compute_reference, document.compute, "compute", blames),
        "environment_variables": document.environment_variables | settings.environment_variables,
        "resources": resources,
        "settings": msgspec.structs.replace(settings, environment_variables={}, instance_count=None),
        **_inside(document, blames),
        **dict.fromkeys(_OLDER),
    }


def _inside(document: OnlineDeploymentYaml | BatchDeploymentYaml, blames: list[Blame]) -> dict[str, Any]:
    """What both kinds of deployment are made of."""
    code = _unless_default(document.code_configuration, CodeYaml())
    if code is not None:
        code = msgspec.structs.replace(code, code=_reference(code.code, Kind.CODE, "code_configuration.code", blames))
    return {
        "model": _asset(document.model, Kind.MODEL, "model", blames),
        "environment": _asset(document.environment, Kind.ENVIRONMENT, "environment", blames),
        "code_configuration": code,
    }


def _environment(document: EnvironmentYaml) -> dict[str, Any]:
    return {
        "build": _unless_default(document.build, BuildYaml()),
        "inference_config": _unless_default(document.inference_config, InferenceYaml()),
    }


def _asset(given: str | S | None, kind: Kind, path: str, blames: list[Blame]) -> str | S | None:
    if isinstance(given, msgspec.Struct):
        return normal_form(given)[0]
    return _reference(given, kind, path, blames) if given else None


def _reference(text: str, kind: Kind, path: str, blames: list[Blame]) -> str:
    """A text that means a registered asset, in its one form; local paths as they are."""
    if not ids.is_asset_reference(text):
        return text
    return _tried(lambda given: ids.asset_reference(given, kind), text, path, blames)


def _tried(read: Callable[[str], str], text: str, path: str, blames: list[Blame]) -> str:
    try:
        return read(text)
    except ids.IdError as error:
        blames.append(Blame(path, str(error)))
        return text


def _lowered(shares: dict[str, int]) -> dict[str, int]:
    """Percent by lower-cased name; as it is where two names become one, for the rules to blame."""
    lowered = {name.lower(): percent for name, percent in shares.items()}
    return lowered if len(lowered) == len(shares) else shares


def _identity(given: IdentityYaml | None) -> IdentityYaml | None:
    if given is None:
        return None
    users = tuple(
        msgspec.structs.replace(one, client_id="", principal_id="") for one in given.user_assigned_identities
    )
    plain = msgspec.structs.replace(given, user_assigned_identities=users, principal_id="", tenant_id="")
    return _unless_default(plain, IdentityYaml())


def _resources(given: ResourcesYaml | None) -> ResourcesYaml | None:
    """`nvidia.com/gpu` is `gpu`."""
    if given is None:
        return None
    sides = {
        side: msgspec.structs.replace(amounts, gpu=amounts.gpu or amounts.nvidia_gpu, nvidia_gpu="")
        for side, amounts in (("requests", given.requests), ("limits", given.limits))
    }
    return _unless_default(msgspec.structs.replace(given, **sides), ResourcesYaml())


def _collector(given: DataCollectorYaml | None, blames: list[Blame]) -> DataCollectorYaml | None:
    """One sampling rate for all becomes each collection's own; 1 is not given."""
    if given is None:
        return None
    collections = {
        name: _collection(one, given.sampling_rate, f"data_collector.collections.{name}.data", blames)
        for name, one in given.collections.items()
    }
    logging = given.request_logging if given.request_logging and given.request_logging.capture_headers else None
    whole = msgspec.structs.replace(given, sampling_rate=1.0, collections=collections, request_logging=logging)
    return _unless_default(whole, DataCollectorYaml())


def _collection(given: CollectionYaml, rate: float, path: str, blames: list[Blame]) -> CollectionYaml:
    own = rate if given.sampling_rate is None else given.sampling_rate
    data = given.data
    if isinstance(data, CollectedDataYaml) and not data.path:
        named = f"azureml:{data.name}:{data.version or '1'}" if data.name else None
        data = data.data_id or named
    if isinstance(data, str):
        data = _reference(data, Kind.DATA, path, blames) or None
    return msgspec.structs.replace(given, sampling_rate=None if own == 1 else own, data=data)


def _unless_default(given: S | None, default: S) -> S | None:
    return None if given == default else given
