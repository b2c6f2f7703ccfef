"""One decoded YAML document becomes one resource, with what it cannot have and what it has in vain.

What: defaults that depend on other keys are settled here (kind, provider, model file), keys that this version does
not serve are refused with what to do instead, and keys without effect are noted for the person who wrote them.
Units: queue_delay_ms to nanoseconds, gpu_memory_mb to bytes; the rest keeps its unit.
Errors: `Mistake`s added to the place they were found in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from gateway.controlplane.arm.ids import IdError, asset_reference, is_asset_reference
from gateway.controlplane.decode import default_of, description_of, struct_type
from gateway.controlplane.model_files import ModelFileError, ModelReference, model_of
from gateway.controlplane.place import Place
from gateway.controlplane.store.records import Kind as AssetKind
from gateway.controlplane.translate_collector import collector_of
from gateway.controlplane.translate_mlflow import OnnxFile, local_mlflow, registered_mlflow
from gateway.controlplane.translate_script import Trees, script_of, unresolved_tree
from gateway.controlplane.triton.said import Said
from gateway.controlplane.triton.served import TritonServed, of_folder
from gateway.controlplane.yaml_types import (
    FOR_SCRIPTS,
    NOTED,
    BatchingYaml,
    DeploymentGatewayYaml,
    EnvironmentYaml,
    ModelYaml,
    OidcYaml,
    OnlineDeploymentYaml,
    OnlineEndpointYaml,
    SecretYaml,
)
from gateway.resources import (
    AssetModel,
    AuthMode,
    Deployment,
    Endpoint,
    KeySources,
    Kind,
    LocalModel,
    Oidc,
    Scale,
    Script,
    SecretSource,
)
from runtimes import BatchingSpec, BatchLimits, PaddingSpec, PadRule

Provider = Literal["cpu", "cuda", "tensorrt"]
# The second argument is the model's ONNX file; "" for the one that it holds.
Resolve = Callable[[ModelReference, str], AssetModel | TritonServed]


_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_GPU_SIZES = ("standard_nc", "standard_nd", "standard_nv")
_OWN_SIZES: dict[str, Provider] = {"cpu": "cpu", "gpu": "cuda", "cuda": "cuda", "tensorrt": "tensorrt"}


def endpoint_of(source: OnlineEndpointYaml, place: Place, default_oidc: Oidc | None) -> Endpoint:
    """The endpoint; whether it is complete is for `place.mistakes` to say."""
    auth_mode = AuthMode(source.auth_mode)
    oidc = _oidc(source.gateway.oidc, place)
    _note_unused_auth(source, auth_mode, place)
    _note_vain_keys(source, place)
    return Endpoint(
        name=source.name,
        auth_mode=auth_mode,
        description=source.description,
        tags=source.tags,
        properties=source.properties,
        traffic=_shares(source.traffic, "traffic", place),
        mirror_traffic=_shares(source.mirror_traffic, "mirror_traffic", place),
        keys=KeySources(
            primary=_secret(source.gateway.keys.primary, "gateway.keys.primary", place),
            secondary=_secret(source.gateway.keys.secondary, "gateway.keys.secondary", place),
        ),
        oidc=default_oidc if oidc is None and auth_mode is AuthMode.AAD_TOKEN else oidc,
        token_lifetime_s=source.gateway.token_lifetime_s,
        slo_ms=source.gateway.slo_ms,
        kind="kubernetes" if source.compute or _is_kubernetes(source.schema_) else "managed",
        source=place.label,
    )


def unresolved(reference: ModelReference, entry: str) -> AssetModel:
    """A registered model that cannot be looked up here."""
    return AssetModel(reference=str(reference), entry=entry)


def deployment_of(
    source: OnlineDeploymentYaml,
    place: Place,
    allow_cpu_fallback: bool,
    resolve: Resolve = unresolved,
    trees: Trees = unresolved_tree,
) -> Deployment | None:
    """The deployment, or None where it has nothing to serve. `resolve` looks up a registered model, `trees` the files
    of any asset; they raise ModelFileError where there is none."""
    kind: Kind = source.type or ("kubernetes" if _is_kubernetes(source.schema_) else "managed")
    _refuse_container(source, place)
    try:
        served = _served(source, place, resolve, trees)
    except ModelFileError as error:
        place.blame(error.key, error.text)
        _judge_rest(source, place, trees, is_native=not _may_be_script(source, trees))
        return None
    script = served if isinstance(served, Script) else None
    native = served if isinstance(served, TritonServed) else None
    model = native.model if native is not None else None
    # A registered model that cannot be looked up here may be one of mlflow's, which is a script.
    is_native = model is not None and not (isinstance(model, AssetModel) and not model.files)
    _judge_rest(source, place, trees, is_native=is_native)
    collector = collector_of(source, place, trees, model if script is None else script.model)
    if script is not None and collector is not None:
        script = replace(script, collector=collector.custom())
    runtime, request = source.gateway.runtime, source.request_settings
    said = native.said if native is not None else Said()
    provider, fallback = _provider(source, said), runtime.allow_cpu_fallback
    on_gpu = _on_gpu(said, provider, place)
    return Deployment(
        name=source.name,
        endpoint_name=source.endpoint_name,
        model=model,
        script=script,
        description=source.description,
        tags=source.tags,
        properties=source.properties,
        instance_type=source.instance_type,
        instance_count=source.instance_count,
        request_timeout_ms=request.request_timeout_ms,
        max_concurrent_requests_per_instance=request.max_concurrent_requests_per_instance,
        max_queue_wait_ms=request.max_queue_wait_ms or (said.queue_wait_ns / 1e6 or None),
        provider=provider,
        allow_cpu_fallback=allow_cpu_fallback if fallback is None else fallback,
        device_ids=runtime.device_ids or on_gpu.device_ids,
        gpu_memory_bytes=runtime.gpu_memory_mb * 1024 * 1024 or on_gpu.gpu_memory_bytes,
        threads=runtime.threads or said.threads,
        instances=runtime.instances,
        dispatch=runtime.dispatch,
        batching=_batching(source.gateway, place, said),
        sessions=said.sessions or 1,
        graph_level=said.graph_level,
        declared=said.declared,
        triton=native.triton if native is not None else None,
        scale=_scale(source, place),
        max_body_bytes=source.gateway.limits.max_body_bytes,
        collector=collector,
        kind=kind,
        source=place.label,
    )


def _may_be_script(source: OnlineDeploymentYaml, trees: Trees) -> bool:
    """Whether a deployment whose model cannot be served is, as far as is known, one of a script or of mlflow."""
    given = source.model
    if source.code_configuration is not None:
        return True
    if isinstance(given, ModelYaml):
        return given.type == "mlflow_model"
    if given is None or not is_asset_reference(given):
        return False
    try:
        return trees(AssetKind.MODEL, asset_reference(given, AssetKind.MODEL)).type in ("", "mlflow_model")
    except (IdError, ModelFileError):
        return True


def _judge_rest(source: OnlineDeploymentYaml, place: Place, trees: Trees, *, is_native: bool) -> None:
    if is_native:
        _refuse_image(source, place, trees)
    _note_vain_keys(source, place, is_native=is_native)


def _note_vain_keys(source: msgspec.Struct, place: Place, *, is_native: bool = False) -> None:
    place.notes.extend(f"{place.label}: {note}" for note in notes_of(source, is_native=is_native))


def notes_of(source: msgspec.Struct, path: str = "", *, is_native: bool = False) -> Iterator[str]:
    """A sentence for each key that was given something and has no effect here. `is_native`: of a deployment, whether
    an ONNX model is served and no script."""
    for one in struct_type(type(source)).fields:
        value = getattr(source, one.name)
        _, mark, why = _marked(description_of(one), is_native)
        inside = f"{path}.{one.encode_name}" if path else one.encode_name
        if mark:
            if value != default_of(one):
                yield f"{inside}: {NOTED[0].lower()}{NOTED[1:]}{why.rstrip('.')}"
        elif isinstance(value, msgspec.Struct):
            yield from notes_of(value, inside)


def _marked(description: str, is_native: bool) -> tuple[str, str, str]:
    """What is said before the mark of a key without effect, the mark, and why; no mark where it has one."""
    found = description.partition(NOTED)
    return description.partition(FOR_SCRIPTS) if is_native and not found[1] else found


def provider_of(instance_type: str) -> Provider:
    """What an instance type stands for; names that nobody knows stand for the CPU."""
    name = instance_type.lower().removeprefix("local-")
    return "cuda" if name.startswith(_GPU_SIZES) else _OWN_SIZES.get(name, "cpu")


def _is_kubernetes(schema: str) -> bool:
    """Whether `$schema` names Azure's kubernetes form."""
    return "kubernetes" in schema.lower()


def _provider(source: OnlineDeploymentYaml, said: Said) -> Provider:
    chosen = source.gateway.runtime.provider
    if chosen != "auto":
        return chosen
    if said.provider == "cpu":
        return "cpu"
    found = "cuda" if said.provider == "gpu" else _provider_of_size(source)
    return "tensorrt" if said.tensorrt and found == "cuda" else found


def _provider_of_size(source: OnlineDeploymentYaml) -> Provider:
    by_type = provider_of(source.instance_type)
    if by_type == "cpu" and source.resources is not None:
        amounts = (source.resources.requests, source.resources.limits)
        if any(amount.strip() not in ("", "0") for one in amounts for amount in (one.gpu, one.nvidia_gpu)):
            return "cuda"
    return by_type


def _scale(source: OnlineDeploymentYaml, place: Place) -> Scale | None:
    given = source.scale_settings
    if given.type == "default":
        return None
    if given.min_instances > given.max_instances:
        place.blame(
            "scale_settings.min_instances",
            f"found {given.min_instances}, more than max_instances ({given.max_instances}); accepted: at most that",
        )
    return Scale(
        min_instances=given.min_instances,
        max_instances=given.max_instances,
        target_percent=given.target_utilization_percentage,
        polling_interval_s=given.polling_interval,
    )


def _batching(source: DeploymentGatewayYaml, place: Place, said: Said) -> BatchingSpec:
    """What the deployment says, else what its model's own configuration says, else the default."""
    batching, default = source.batching, BatchLimits()
    delay_ms = batching.queue_delay_ms
    limits = BatchLimits(
        batch_rows_max=batching.max_rows or said.rows_max or default.batch_rows_max,
        rows_learned=batching.max_rows is None and not said.rows_max,
        rows_from=default.rows_from if batching.max_rows or not said.rows_max else "max_batch_size of config.pbtxt",
        slo_ns=round((batching.slo_ms or 0) * 1_000_000),
        queue_delay_ns=round(delay_ms * 1_000_000) if delay_ms is not None else said.queue_delay_ns or 0,
        queue_items_max=batching.queue_items_max or said.queue_items_max or default.queue_items_max,
        tokens_max=batching.max_tokens,
        sizes=tuple(sorted(set(batching.sizes))),
        preferred=said.preferred,
    )
    if batching.max_tokens and batching.padding is None:
        place.note("gateway.batching.max_tokens", "has no effect without gateway.batching.padding")
    padding = _padding(batching, place)
    spec = BatchingSpec(limits=limits, axes=batching.axes, padding=padding)
    if batching.enabled is not None:
        return replace(spec, enabled=batching.enabled)
    if said.batches is False:
        return replace(spec, enabled=False, why_not=said.why_not)
    return spec


def _padding(source: BatchingYaml, place: Place) -> PaddingSpec | None:
    given, path = source.padding, "gateway.batching.padding"
    if given is None:
        return None
    if isinstance(given, str):
        return PaddingSpec()
    if not given.inputs:
        place.blame(f"{path}.inputs", "found no rules; accepted: a rule for at least one input, or padding: auto")
    if given.mask and given.mask not in given.inputs:
        place.blame(f"{path}.mask", f"{given.mask!r} is none of the padded inputs; accepted: one of {path}.inputs")
    for name, rule in given.inputs.items():
        if rule.multiple_of and rule.buckets:
            place.blame(f"{path}.inputs.{name}", "found both multiple_of and buckets; accepted: at most one of them")
    return PaddingSpec(
        inputs={
            name: PadRule(
                axis=rule.axis,
                value=rule.value,
                multiple_of=rule.multiple_of,
                buckets=tuple(sorted(set(rule.buckets))),
                length=rule.length,
            )
            for name, rule in given.inputs.items()
        },
        mask=given.mask,
        compare=given.compare,
        pad_to=given.pad_to,
    )


def _served(
    source: OnlineDeploymentYaml, place: Place, resolve: Resolve, trees: Trees
) -> Script | TritonServed | None:
    """What answers requests; None where it is blamed. Errors: ModelFileError."""
    if source.code_configuration is not None:
        return script_of(source, place, trees)
    found = _model(source, place, resolve, trees)
    if isinstance(found, Script):
        return found
    if not isinstance(found, TritonServed):
        if source.gateway.runtime.model:
            place.note("gateway.runtime.model", "has no effect here; it is for models of type triton_model")
        return TritonServed(model=found)
    notes = found.triton.notes if found.triton is not None else ()
    place.notes.extend(f"{place.label}: {note}" for note in notes)
    return found


def _model(
    source: OnlineDeploymentYaml, place: Place, resolve: Resolve, trees: Trees
) -> Script | LocalModel | AssetModel | TritonServed:
    """The model, with what a repository that it lies in says of it; of mlflow's a script. Errors: ModelFileError."""
    given = source.model
    if isinstance(given, ModelYaml) and given.type == "mlflow_model":
        return local_mlflow(given.path, source, place, trees)
    if isinstance(given, ModelYaml) and given.type == "triton_model":
        return of_folder(place.file.parent.absolute() / given.path, source.gateway.runtime.model)
    found = model_of(given, place.file.parent)
    if not isinstance(found, ModelReference):
        return found
    registered = trees(AssetKind.MODEL, str(found))
    if registered.type != "mlflow_model":
        return resolve(found, "")
    kept = registered_mlflow(registered, source, place, trees)
    return resolve(found, kept.path) if isinstance(kept, OnnxFile) else kept


def _on_gpu(said: Said, provider: Provider, place: Place) -> Said:
    """What a configuration says of GPUs, where there is one."""
    if provider != "cpu":
        return said
    if said.device_ids or said.gpu_memory_bytes:
        place.note("config.pbtxt", "gpus, gpu_mem_limit: has no effect on the CPU")
    return Said()


_INSTEAD = (
    "give the model as an ONNX file or a Triton repository and remove environment, or write a scoring script "
    "(code_configuration) whose environment has a conda_file"
)


def _refuse_container(source: OnlineDeploymentYaml, place: Place) -> None:
    given = source.environment
    if isinstance(given, EnvironmentYaml) and given.inference_config is not None:
        place.blame("environment.inference_config", f"custom containers are not run here; {_INSTEAD}")


def _refuse_image(source: OnlineDeploymentYaml, place: Place, trees: Trees) -> None:
    """What serves no ONNX model. A script's environment, and that of a model of mlflow's, is judged when it is made
    ready."""
    given = source.environment
    if isinstance(given, EnvironmentYaml):
        if given.build is not None:
            place.blame("environment.build", f"images are not built here, and no container is run; {_INSTEAD}")
    elif given is not None:
        document = _registered_environment(given, trees)
        what = next((key for key in ("inference_config", "build") if document.get(key)), "")
        if what:
            place.blame(
                "environment", f"{given} is a custom container ({what}), and no container is run here; {_INSTEAD}"
            )


def _registered_environment(reference: str, trees: Trees) -> dict[str, Any]:
    """The document of a registered environment; an empty one where it is not known here."""
    try:
        return (
            trees(AssetKind.ENVIRONMENT, asset_reference(reference, AssetKind.ENVIRONMENT)).environment.document or {}
        )
    except (IdError, ModelFileError):
        # Curated ones are known to everybody and registered by nobody; an ONNX model needs none anyway.
        return {}


def _shares(given: dict[str, int], key: str, place: Place) -> dict[str, int]:
    """Percent by lower-cased name."""
    shares: dict[str, int] = {}
    for name, percent in given.items():
        if name.lower() in shares:
            place.blame(f"{key}.{name}", "the deployment is named twice; names are equal whatever their case")
        shares[name.lower()] = shares.get(name.lower(), 0) + percent
    return shares


def _secret(source: SecretYaml | None, path: str, place: Place) -> SecretSource | None:
    if source is None:
        return None
    if bool(source.file) == bool(source.env):
        both = "both file and env" if source.file else "neither file nor env"
        place.blame(path, f"found {both}; accepted: exactly one of them")
        return None
    if not source.file:
        return SecretSource(env=source.env)
    file = place.file.parent.absolute() / source.file
    if not file.is_file():
        place.blame(f"{path}.file", f"there is no file {file}; accepted: a file that holds the key")
    return SecretSource(file=file)


def _oidc(source: OidcYaml | None, place: Place) -> Oidc | None:
    if source is None:
        return None
    for key, url in (("issuer", source.issuer), ("jwks_uri", source.jwks_uri)):
        if (url or key == "issuer") and not _is_web_url(url):
            place.blame(f"gateway.oidc.{key}", f"found {url!r}; accepted: an https URL (http on this machine only)")
    if not source.audience:
        place.blame("gateway.oidc.audience", "found ''; accepted: the audience that tokens are made for")
    if not source.algorithms:
        place.blame("gateway.oidc.algorithms", "found an empty list; accepted: at least one algorithm")
    return Oidc(
        issuer=source.issuer,
        audience=source.audience,
        jwks_uri=source.jwks_uri,
        algorithms=tuple(source.algorithms),
        required_roles=source.required_roles,
    )


def _note_unused_auth(source: OnlineEndpointYaml, auth_mode: AuthMode, place: Place) -> None:
    mode = auth_mode.value
    if source.gateway.oidc is not None and auth_mode is not AuthMode.AAD_TOKEN:
        place.note("gateway.oidc", f"has no effect with auth_mode {mode}; it is for aad_token")
    keys = source.gateway.keys
    if auth_mode is not AuthMode.KEY and (keys.primary or keys.secondary):
        place.note("gateway.keys", f"has no effect with auth_mode {mode}; it is for key")


def _is_web_url(url: str) -> bool:
    """https anywhere, http on this machine only: signing keys that travel in the open prove nothing."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK))
