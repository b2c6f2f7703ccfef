"""What a YAML file may say: the keys of Azure ML's endpoint, deployment and asset files, and our block `gateway:`.

These structs are also the one form in which resources are stored and converted to and from ARM bodies.

Each field's description is the reference documentation (docs/reference/yaml.md is made from it), and its type and
bounds are what the decoder enforces. A field that is accepted but has no effect here is marked with `NOTED`, one
that has an effect on scoring scripts alone with `FOR_SCRIPTS`; `notes_of` in translate.py says so to the person who
wrote it.
Units: *_ms milliseconds, *_s seconds, *_bytes bytes, *_mb MiB; probe times in seconds.
Source: the public YAML schemas of Azure Machine Learning v2.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct, field

from runtimes import BatchLimits

NOTED = "Accepted, not enforced here: "
FOR_SCRIPTS = "For an ONNX model accepted, not enforced: "
READ_ONLY = "Read-only in Azure; accepted and ignored."

_LIMITS = BatchLimits()
_Count = Annotated[int, Meta(ge=1, le=1_000_000)]
_Seconds = Annotated[int, Meta(ge=1, le=86_400)]
_Percent = Annotated[int, Meta(ge=0, le=100)]
_Text: TypeAlias = Annotated[str, Meta(description="Free text.")]
_Texts: TypeAlias = Annotated[dict[str, str], Meta(description="Free names and values.")]
_ReadOnly: TypeAlias = Annotated[str, Meta(description=READ_ONLY)]
_Schema: TypeAlias = Annotated[str, Meta(description="A hint for editors; also tells the kind of the document.")]
_Version: TypeAlias = Annotated[str, Meta(description="Its version; not given: one more than the latest.")]
_Archived: TypeAlias = Annotated[bool, Meta(description="Whether lists leave it out unless asked.")]
_Anonymous: TypeAlias = Annotated[
    bool, Meta(description="Whether it was made for one deployment and has no own name.")
]


class _Yaml(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping that takes its own keys only."""


# ---- gateway: on an endpoint -----------------------------------------------------------------------------------


class SecretYaml(_Yaml, frozen=True, kw_only=True):
    """Where a secret comes from: exactly one of the two."""

    file: Annotated[str | None, Meta(description="File that holds the key, relative to the YAML file.")] = None
    env: Annotated[str | None, Meta(description="Environment variable that holds the key.")] = None


class KeysYaml(_Yaml, frozen=True, kw_only=True):
    """Keys that you bring; one that is not given is made by the gateway and kept in the state folder."""

    primary: Annotated[SecretYaml | None, Meta(description="The primary key.")] = None
    secondary: Annotated[SecretYaml | None, Meta(description="The secondary key.")] = None


Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]  # fmt: skip


class OidcYaml(_Yaml, frozen=True, kw_only=True):
    """Which tokens an `aad_token` endpoint accepts."""

    issuer: Annotated[str, Meta(description="The `iss` claim; an https URL.")]
    audience: Annotated[str, Meta(description="The `aud` claim.")]
    jwks_uri: Annotated[str, Meta(description="Where the signing keys are; empty: the issuer's discovery says.")] = ""
    algorithms: Annotated[tuple[Algorithm, ...], Meta(description="Signatures accepted; public-key ones only.")] = (
        "RS256",
        "ES256",
    )
    required_roles: Annotated[
        tuple[str, ...], Meta(description="A token needs one of these in `roles` or `scp`, else 403; empty: none.")
    ] = ()


class EndpointGatewayYaml(_Yaml, frozen=True, kw_only=True):
    """Our own settings of an endpoint."""

    keys: Annotated[KeysYaml, Meta(description="Keys that you bring, for `auth_mode: key`.")] = KeysYaml()
    oidc: Annotated[OidcYaml | None, Meta(description="Token rules, for `auth_mode: aad_token`.")] = None
    token_lifetime_s: Annotated[
        Annotated[int, Meta(ge=60, le=2_592_000)], Meta(description="Life of an `aml_token`, in seconds.")
    ] = 3600
    slo_ms: Annotated[
        Annotated[float, Meta(ge=0.001, le=300_000)] | None,
        Meta(
            description="Time within which requests shall be answered, counted exactly in the metrics (to a "
            "microsecond); refuses nothing."
        ),
    ] = None


# ---- gateway: on a deployment ----------------------------------------------------------------------------------


class PadRuleYaml(_Yaml, frozen=True, kw_only=True):
    """How one input is made as long as the others of its run."""

    axis: Annotated[Annotated[int, Meta(ge=0, le=7)], Meta(description="The axis that grows.")]
    value: Annotated[float, Meta(description="What is added at its end; empty texts where the input is text.")] = 0.0
    multiple_of: Annotated[
        Annotated[int, Meta(ge=0, le=65_536)],
        Meta(description="Lengths up to one multiple share a run; 0, without buckets: 8, 12, 16, 24, 32, 48 ..."),
    ] = 0
    buckets: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=1_048_576)], ...],
        Meta(description="Lengths up to one of these share a run; longer ones run unpadded.", max_length=64),
    ] = ()
    length: Annotated[
        str, Meta(description="Inputs with one name here are equally long; empty: the model's name of the dimension.")
    ] = ""


class PaddingYaml(_Yaml, frozen=True, kw_only=True):
    """How requests of different lengths share a run, once proven not to change answers."""

    inputs: Annotated[dict[str, PadRuleYaml], Meta(description="A rule for each input that is padded, by its name.")]
    mask: Annotated[
        str, Meta(description="Input that is 1 where a request has something; made where the caller leaves it out.")
    ] = ""
    compare: Annotated[
        Literal["values", "argmax"],
        Meta(
            description="What padding must not change: answers' values, or only which entry of their last axis is "
            "the largest."
        ),
    ] = "values"
    pad_to: Annotated[
        Literal["auto", "bucket", "longest"],
        Meta(description="How long a run is: its bucket, or its longest request; `auto`: the bucket on a GPU."),
    ] = "auto"


class BatchingYaml(_Yaml, frozen=True, kw_only=True):
    """How requests share a run of the model."""

    enabled: Annotated[
        bool | None,
        Meta(
            description="Whether requests may share a run, once proven not to change answers. Not given: yes, or as "
            "`config.pbtxt` says."
        ),
    ] = None
    max_rows: Annotated[
        Annotated[int, Meta(ge=1, le=65_536)] | None,
        Meta(
            description=f"Most rows of one run. Not given: chosen by measurement, at most {_LIMITS.batch_rows_max}, "
            "or `max_batch_size` of `config.pbtxt`."
        ),
    ] = None
    slo_ms: Annotated[
        Annotated[float, Meta(ge=0.001, le=300_000)] | None,
        Meta(
            description="A goal for the time that a request waits for its run and runs: batches stay as small as "
            "they must for it. Not given: batches are as large as `max_rows` allows."
        ),
    ] = None
    queue_delay_ms: Annotated[
        Annotated[float, Meta(ge=0, le=60_000)] | None,
        Meta(
            description="How long the oldest request may be held so that a batch can grow, while an instance idles. "
            "Not given: 0, or as `config.pbtxt` says."
        ),
    ] = None
    queue_items_max: Annotated[
        _Count | None,
        Meta(
            description="Most requests that wait; more are refused with 429. Not given: "
            f"{_LIMITS.queue_items_max}, or as `config.pbtxt` says."
        ),
    ] = None
    axes: Annotated[
        dict[str, Annotated[int, Meta(ge=0, le=7)]],
        Meta(description="The batch axis of inputs whose model does not tell it, by input name."),
    ] = {}
    padding: Annotated[
        Literal["auto"] | PaddingYaml | None,
        Meta(
            description="Lets requests of different lengths share a run, once proven not to change answers; `auto` "
            "takes the rules from the names of the model's dimensions. Not given: only equal lengths share a run."
        ),
    ] = None
    max_tokens: Annotated[
        Annotated[int, Meta(ge=0, le=1_000_000_000)],
        Meta(description="Most rows times padded length of a run, with padding; 0: no such bound."),
    ] = _LIMITS.tokens_max
    sizes: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=65_536)], ...],
        Meta(
            description="The only numbers of rows to run the model with; batches are filled up with copies of their "
            "last row. Empty: any.",
            max_length=64,
        ),
    ] = ()


class RuntimeYaml(_Yaml, frozen=True, kw_only=True):
    """What runs the model."""

    model: Annotated[
        str, Meta(description="Which model of a Triton repository is served, by name; it may be the only one.")
    ] = ""
    provider: Annotated[
        Literal["auto", "cpu", "cuda", "tensorrt"],
        Meta(description="Execution provider; `auto` follows `config.pbtxt`, else `instance_type`."),
    ] = "auto"
    allow_cpu_fallback: Annotated[
        bool | None,
        Meta(description="Serve on the CPU where the device is missing; not given: setting `allow_cpu_fallback`."),
    ] = None
    device_ids: Annotated[
        tuple[Annotated[int, Meta(ge=0, le=1023)], ...],
        Meta(description="GPUs to use, by number; empty: the first.", max_length=64),
    ] = ()
    gpu_memory_mb: Annotated[
        Annotated[int, Meta(ge=0, le=1_048_576)], Meta(description="GPU memory of an instance, MiB; 0: no bound.")
    ] = 0
    threads: Annotated[
        Annotated[int, Meta(ge=0, le=1024)], Meta(description="Threads of one run; 0: chosen by measurement.")
    ] = 0
    instances: Annotated[
        Annotated[int, Meta(ge=0, le=1024)],
        Meta(
            description="Sessions in each scorer that run the model on threads; 0: `instance_count` is shared out "
            "over the scorers, and where that is one, a scorer with three cores or more gets two."
        ),
    ] = 0
    dispatch: Annotated[
        Literal["auto", "inline", "thread"],
        Meta(description="Where a run happens: on the event loop, on a thread, or as measured."),
    ] = "auto"


class LimitsYaml(_Yaml, frozen=True, kw_only=True):
    """Bounds of a deployment's requests."""

    max_body_bytes: Annotated[
        Annotated[int, Meta(ge=1, le=4_294_967_296)] | None,
        Meta(description="Longest request body; not given: setting `max_body_bytes`."),
    ] = None


class DeploymentGatewayYaml(_Yaml, frozen=True, kw_only=True):
    """Our own settings of a deployment."""

    batching: Annotated[BatchingYaml, Meta(description="How requests share a run.")] = BatchingYaml()
    runtime: Annotated[RuntimeYaml, Meta(description="What runs the model.")] = RuntimeYaml()
    limits: Annotated[LimitsYaml, Meta(description="Bounds of a request.")] = LimitsYaml()


# ---- online endpoint -------------------------------------------------------------------------------------------


class UserIdentityYaml(_Yaml, frozen=True, kw_only=True):
    """One user-assigned identity."""

    resource_id: Annotated[str, Meta(description="Its ARM id.")] = ""
    client_id: _ReadOnly = ""
    principal_id: _ReadOnly = ""


class IdentityYaml(_Yaml, frozen=True, kw_only=True):
    """Managed identity."""

    type: Annotated[Literal["system_assigned", "user_assigned", "none"], Meta(description="Kind of identity.")] = (
        "system_assigned"
    )
    user_assigned_identities: Annotated[
        tuple[UserIdentityYaml, ...], Meta(description="At most one.", max_length=1)
    ] = ()
    principal_id: _ReadOnly = ""
    tenant_id: _ReadOnly = ""


class OnlineEndpointYaml(_Yaml, frozen=True, kw_only=True):
    """An online endpoint (`managedOnlineEndpoint`, `kubernetesOnlineEndpoint`)."""

    schema_: _Schema = field(name="$schema", default="")
    name: Annotated[
        str, Meta(description="3 to 32 characters: a letter, then letters, digits and dashes, no dash at the end.")
    ]
    description: _Text = ""
    tags: _Texts = {}
    properties: _Texts = {}
    auth_mode: Annotated[
        Literal["key", "aml_token", "aad_token"],
        Meta(description="How callers prove themselves; `aad_token` needs `gateway.oidc`, and not `compute`."),
    ] = "key"
    traffic: Annotated[dict[str, _Percent], Meta(description="Deployment to percent; the sum is 0 or 100.")] = {}
    mirror_traffic: Annotated[
        dict[str, Annotated[int, Meta(ge=0, le=50)]],
        Meta(description="At most one deployment without traffic, and the percent of requests copied to it."),
    ] = {}
    identity: Annotated[IdentityYaml | None, Meta(description=f"{NOTED}there is no managed identity.")] = None
    public_network_access: Annotated[
        Literal["enabled", "disabled"],
        Meta(description=f"{NOTED}the setting `scoring` says which addresses are served."),
    ] = "enabled"
    compute: Annotated[
        str, Meta(description="Its presence makes this a kubernetes endpoint; the cluster's name is not used.")
    ] = ""
    gateway: Annotated[EndpointGatewayYaml, Meta(description="Our own settings.")] = EndpointGatewayYaml()
    location: _ReadOnly = ""
    id: _ReadOnly = ""
    kind: _ReadOnly = ""
    scoring_uri: _ReadOnly = ""
    openapi_uri: _ReadOnly = ""
    provisioning_state: _ReadOnly = ""


# ---- online deployment -----------------------------------------------------------------------------------------


class ModelYaml(_Yaml, frozen=True, kw_only=True):
    """A model: registered, or inline in a deployment."""

    schema_: _Schema = field(name="$schema", default="")
    name: Annotated[str, Meta(description="Its name; inline, for people.")] = ""
    version: _Version = ""
    type: Annotated[
        Literal["custom_model", "mlflow_model", "triton_model"],
        Meta(
            description="`custom_model`: an ONNX model; `mlflow_model`: what mlflow saved; `triton_model`: a Triton "
            "repository of ONNX models."
        ),
    ] = "custom_model"
    path: Annotated[
        str,
        Meta(
            description="A .onnx file, or a folder that holds exactly one; the folder that mlflow saved, or of a "
            "Triton repository; for a scoring script any file or folder. Relative to the YAML file. Registered over "
            "REST: the address of the upload."
        ),
    ]
    description: _Text = ""
    tags: _Texts = {}
    properties: _Texts = {}
    stage: _Text = ""
    flavors: Annotated[dict[str, Any], Meta(description=f"{NOTED}an MLflow model's MLmodel file says them.")] = {}
    datastore: Annotated[str, Meta(description=f"{NOTED}the file is read where it is.")] = ""
    job_name: Annotated[str, Meta(description="The job that made it, for people.")] = ""
    is_anonymous: _Anonymous = False
    is_archived: _Archived = False


class CodeYaml(_Yaml, frozen=True, kw_only=True):
    """A scoring script."""

    code: Annotated[
        str, Meta(description="Its folder, or registered code; not given: the folder of the YAML file.")
    ] = ""
    scoring_script: Annotated[str, Meta(description="Its file, relative to `code`.")] = ""


class BuildYaml(_Yaml, frozen=True, kw_only=True):
    """An image to build."""

    path: Annotated[str, Meta(description="Its folder.")] = ""
    dockerfile_path: Annotated[str, Meta(description="Its Dockerfile.")] = "Dockerfile"


class RouteYaml(_Yaml, frozen=True, kw_only=True):
    """A route of a custom container."""

    port: Annotated[Annotated[int, Meta(ge=1, le=65_535)], Meta(description="Its port.")]
    path: Annotated[str, Meta(description="Its path.")] = "/"


class InferenceYaml(_Yaml, frozen=True, kw_only=True):
    """The routes of a custom container."""

    liveness_route: Annotated[RouteYaml | None, Meta(description="Where it says that it lives.")] = None
    readiness_route: Annotated[RouteYaml | None, Meta(description="Where it says that it is ready.")] = None
    scoring_route: Annotated[RouteYaml | None, Meta(description="Where it scores.")] = None


class EnvironmentYaml(_Yaml, frozen=True, kw_only=True):
    """An environment: registered, or inline in a deployment."""

    schema_: _Schema = field(name="$schema", default="")
    name: Annotated[str, Meta(description="Its name.")] = ""
    version: _Version = ""
    image: Annotated[str, Meta(description="A container image.")] = ""
    conda_file: Annotated[
        Any, Meta(description="A file, or the packages inline: as a mapping, or as text of several lines.")
    ] = None
    build: Annotated[BuildYaml | None, Meta(description="An image to build.")] = None
    os_type: Annotated[Literal["linux", "windows"], Meta(description="The image's system.")] = "linux"
    inference_config: Annotated[
        InferenceYaml | None, Meta(description="Marks a custom container; a deployment of it is refused.")
    ] = None
    description: _Text = ""
    tags: _Texts = {}
    properties: _Texts = {}
    datastore: Annotated[str, Meta(description="Where a local folder would be uploaded.")] = ""
    is_anonymous: _Anonymous = False
    is_archived: _Archived = False


class CodeAssetYaml(_Yaml, frozen=True, kw_only=True):
    """The registered folder of a scoring script."""

    schema_: _Schema = field(name="$schema", default="")
    name: Annotated[str, Meta(description="Its name.")] = ""
    version: _Version = ""
    path: Annotated[
        str, Meta(description="A folder, relative to the YAML file. Registered over REST: the address of the upload.")
    ]
    description: _Text = ""
    tags: _Texts = {}
    properties: Annotated[
        dict[str, str], Meta(description="Free names and values; `hash_sha256` and `hash_version` tell the content.")
    ] = {}
    is_anonymous: _Anonymous = False
    is_archived: _Archived = False


class DataYaml(_Yaml, frozen=True, kw_only=True):
    """A registered data asset."""

    schema_: _Schema = field(name="$schema", default="")
    name: Annotated[str, Meta(description="Its name.")] = ""
    version: _Version = ""
    type: Annotated[
        Literal["uri_file", "uri_folder", "mltable"], Meta(description="A file, a folder, or a table; noted only.")
    ] = "uri_folder"
    path: Annotated[
        str, Meta(description="A file or folder, relative to the YAML file, or the address where it is stored.")
    ]
    description: _Text = ""
    tags: _Texts = {}
    properties: _Texts = {}
    datastore: Annotated[str, Meta(description=f"{NOTED}it is read where it is.")] = ""
    is_anonymous: _Anonymous = False
    is_archived: _Archived = False


class ScaleYaml(_Yaml, frozen=True, kw_only=True):
    """How many instances run."""

    type: Annotated[
        Literal["default", "target_utilization"],
        Meta(
            description="`default`: `instance_count` run. `target_utilization`: as many as the load needs, beginning "
            "with `instance_count`."
        ),
    ] = "default"
    min_instances: Annotated[_Count, Meta(description="Fewest instances, with `target_utilization`.")] = 1
    max_instances: Annotated[_Count, Meta(description="Most instances, with `target_utilization`.")] = 1
    target_utilization_percentage: Annotated[
        Annotated[int, Meta(ge=1, le=100)],
        Meta(description="Utilization aimed at: busy instances and waiting requests, to instances."),
    ] = 70
    polling_interval: Annotated[_Seconds, Meta(description="Seconds between looks.")] = 1


class RequestYaml(_Yaml, frozen=True, kw_only=True):
    """How long a request may take and how many may run."""

    request_timeout_ms: Annotated[
        Annotated[int, Meta(ge=1, le=300_000)],
        Meta(description="Deadline of a request from its arrival; managed: at most 180000."),
    ] = 5000
    max_concurrent_requests_per_instance: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None,
        Meta(
            description="Bounds requests in flight to twice this times `instance_count`; not given: only deadlines "
            "and the queue bound them, and for a scoring script without `run_batch` it is 1."
        ),
    ] = None
    max_queue_wait_ms: Annotated[
        Annotated[int, Meta(ge=1, le=300_000)] | None,
        Meta(description="Longest wait for an instance, else 429; not given: until the deadline."),
    ] = None


class ProbeYaml(_Yaml, frozen=True, kw_only=True):
    """A probe of a container."""

    initial_delay: Annotated[_Seconds, Meta(description="Seconds before the first.")] = 10
    period: Annotated[_Seconds, Meta(description="Seconds between two.")] = 10
    timeout: Annotated[_Seconds, Meta(description="Seconds one may take.")] = 2
    success_threshold: Annotated[_Count, Meta(description="Successes that count.")] = 1
    failure_threshold: Annotated[_Count, Meta(description="Failures that count.")] = 30


class AmountsYaml(_Yaml, frozen=True, kw_only=True):
    """Amounts of resources."""

    cpu: Annotated[str, Meta(description="Cores.")] = ""
    memory: Annotated[str, Meta(description="Memory.")] = ""
    gpu: Annotated[str, Meta(description="The same as `nvidia.com/gpu`.")] = ""
    nvidia_gpu: Annotated[str, Meta(description="GPUs; more than 0 chooses provider `cuda`.")] = field(
        name="nvidia.com/gpu", default=""
    )


class ResourcesYaml(_Yaml, frozen=True, kw_only=True):
    """Resources of a kubernetes deployment."""

    requests: Annotated[AmountsYaml, Meta(description="Amounts asked for.")] = AmountsYaml()
    limits: Annotated[AmountsYaml, Meta(description="Amounts at most.")] = AmountsYaml()


class CollectedDataYaml(_Yaml, frozen=True, kw_only=True):
    """Where a collection lies."""

    name: Annotated[str, Meta(description="Name of a registered data asset.")] = ""
    path: Annotated[
        str, Meta(description="A folder: `azureml://datastores/workspaceblobstore/paths/...`; wins over the asset's.")
    ] = ""
    version: Annotated[str, Meta(description="Version of the data asset; not given: 1.")] = ""
    data_id: Annotated[str, Meta(description="Its reference, instead of name and version.")] = ""


class CollectionYaml(_Yaml, frozen=True, kw_only=True):
    """One collection."""

    enabled: Annotated[bool, Meta(description="Whether it is collected.")] = False
    sampling_rate: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None, Meta(description="Share collected; not given: as the whole's.")
    ] = None
    data: Annotated[
        str | CollectedDataYaml | None,
        Meta(
            description="Where it goes: a registered data asset, or a folder; not given: "
            "`modelDataCollector/ENDPOINT/DEPLOYMENT/COLLECTION` of the default datastore."
        ),
    ] = None
    client_id: Annotated[str, Meta(description=f"{NOTED}there is no managed identity.")] = ""


class RequestLoggingYaml(_Yaml, frozen=True, kw_only=True):
    """What of a request's head is collected."""

    capture_headers: Annotated[
        tuple[str, ...],
        Meta(description="Names of headers that `request` and `response` keep; never those that prove a caller."),
    ] = ()


class DataCollectorYaml(_Yaml, frozen=True, kw_only=True):
    """Data collection."""

    sampling_rate: Annotated[
        Annotated[float, Meta(ge=0, le=1)], Meta(description="Share of requests that is collected.")
    ] = 1.0
    rolling_rate: Annotated[
        Literal["minute", "hour", "day"], Meta(description="Files are cut by this: their folder is of a time.")
    ] = "hour"
    request_logging: Annotated[RequestLoggingYaml | None, Meta(description="Headers.")] = None
    collections: Annotated[
        dict[str, CollectionYaml],
        Meta(
            description="Collections by name: `request` and `response` are what callers sent and got; at most five "
            "others are what a scoring script writes with `Collector(name)`."
        ),
    ] = {}


class OnlineDeploymentYaml(_Yaml, frozen=True, kw_only=True):
    """An online deployment (`managedOnlineDeployment`, `kubernetesOnlineDeployment`)."""

    schema_: _Schema = field(name="$schema", default="")
    name: Annotated[
        str, Meta(description="3 to 32 characters: a letter, then letters, digits and dashes, no dash at the end.")
    ]
    endpoint_name: Annotated[str, Meta(description="The endpoint it belongs to.")]
    type: Annotated[
        Literal["managed", "kubernetes"] | None,
        Meta(description="Not given: as `$schema` says, else managed."),
    ] = None
    description: _Text = ""
    tags: _Texts = {}
    properties: _Texts = {}
    model: Annotated[
        str | ModelYaml | None,
        Meta(
            description="Required without `code_configuration`. A local path, a registered model as "
            "`azureml:NAME:VERSION` or `azureml:NAME@latest`, or the model inline."
        ),
    ] = None
    instance_type: Annotated[
        str,
        Meta(
            description="Required for managed. Azure's NC, ND and NV sizes and `gpu`, `cuda`, `tensorrt` choose a "
            "GPU provider, all other names the CPU; `local-` may stand before a name."
        ),
    ] = ""
    instance_count: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)],
        Meta(
            description="Sessions that run the model; with a scoring script, worker processes, of which each "
            "instance has `WORKER_COUNT`."
        ),
    ] = 1
    request_settings: Annotated[RequestYaml, Meta(description="Deadline and bounds.")] = RequestYaml()
    gateway: Annotated[DeploymentGatewayYaml, Meta(description="Our own settings.")] = DeploymentGatewayYaml()
    resources: Annotated[
        ResourcesYaml | None, Meta(description=f"{NOTED}amounts; a GPU amount chooses provider `cuda`.")
    ] = None
    code_configuration: Annotated[
        CodeYaml | None,
        Meta(
            description="The scoring script, run in worker processes of its own (docs/scripts.md); not given: the "
            "model is an ONNX file or an MLflow model (docs/mlflow.md)."
        ),
    ] = None
    environment: Annotated[
        str | EnvironmentYaml | None,
        Meta(
            description="What the scoring script, or an MLflow model instead of the environment that it names, runs "
            f"in: `local`, a reference, or the environment inline. {FOR_SCRIPTS}an ONNX model needs no environment."
        ),
    ] = None
    environment_variables: Annotated[
        dict[str, str],
        Meta(description=f"What the scoring script finds set. {FOR_SCRIPTS}there is no scoring script to read them."),
    ] = {}
    model_mount_path: Annotated[str, Meta(description=f"{NOTED}there is no container.")] = ""
    app_insights_enabled: Annotated[bool, Meta(description=f"{NOTED}metrics are on the telemetry listener.")] = False
    scale_settings: Annotated[ScaleYaml, Meta(description="How many instances run.")] = ScaleYaml()
    liveness_probe: Annotated[
        ProbeYaml | None,
        Meta(
            description="A worker of a script that runs no request is asked every `period`, first after "
            "`initial_delay`; one that does not answer within `timeout`, `failure_threshold` times one after the "
            f"other, is replaced. {FOR_SCRIPTS}there is no worker to probe."
        ),
    ] = None
    readiness_probe: Annotated[
        ProbeYaml | None,
        Meta(
            description="A script's `init()` may take `initial_delay` plus `period` times `failure_threshold` "
            "seconds; where `liveness_probe` is given and allows more, that. "
            f"{FOR_SCRIPTS}a deployment is ready once its model is loaded and warm."
        ),
    ] = None
    startup_probe: Annotated[
        ProbeYaml | None, Meta(description=f"{NOTED}`readiness_probe` bounds how long a script's `init()` takes.")
    ] = None
    egress_public_network_access: Annotated[
        Literal["enabled", "disabled"],
        Meta(
            description=f"{NOTED}an ONNX model makes no connections, and a script's the setting script_sandbox ends."
        ),
    ] = "enabled"
    private_network_connection: Annotated[bool, Meta(description=f"{NOTED}there is no private network.")] = False
    data_collector: Annotated[
        DataCollectorYaml | None, Meta(description="What of requests and answers is kept (docs/data-collection.md).")
    ] = None
    id: _ReadOnly = ""
    kind: _ReadOnly = ""
    location: _ReadOnly = ""
    provisioning_state: _ReadOnly = ""


# ---- batch -----------------------------------------------------------------------------------------------------


class BatchDefaultsYaml(_Yaml, frozen=True, kw_only=True):
    """What a batch endpoint does where the caller names nothing."""

    deployment_name: Annotated[str, Meta(description="The deployment that runs jobs which name none.")] = ""


class BatchEndpointYaml(_Yaml, frozen=True, kw_only=True):
    """A batch endpoint (`batchEndpoint`)."""

    schema_: _Schema = field(name="$schema", default="")
    name: Annotated[
        str, Meta(description="3 to 32 characters: a letter, then letters, digits and dashes, no dash at the end.")
    ]
    description: _Text = ""
    tags: _Texts = {}
    properties: _Texts = {}
    auth_mode: Annotated[
        Literal["aad_token"], Meta(description="How callers prove themselves; batch endpoints take tokens only.")
    ] = "aad_token"
    identity: Annotated[IdentityYaml | None, Meta(description=f"{NOTED}there is no managed identity.")] = None
    defaults: Annotated[BatchDefaultsYaml, Meta(description="What runs where nothing is named.")] = (
        BatchDefaultsYaml()
    )
    location: _ReadOnly = ""
    id: _ReadOnly = ""
    kind: _ReadOnly = ""
    scoring_uri: _ReadOnly = ""
    openapi_uri: _ReadOnly = ""
    provisioning_state: _ReadOnly = ""


class BatchRetryYaml(_Yaml, frozen=True, kw_only=True):
    """How often and how long a mini-batch is tried."""

    max_retries: Annotated[Annotated[int, Meta(ge=0, le=1_000_000)], Meta(description="Tries after the first.")] = 3
    timeout: Annotated[_Seconds, Meta(description="Seconds that one mini-batch may take.")] = 30


_PIPELINES = "Refused: of pipelines."
_MiniBatch: TypeAlias = Annotated[_Count, Meta(description="Files in one mini-batch.")]
_Concurrency: TypeAlias = Annotated[_Count, Meta(description="Mini-batches that run at once on an instance.")]
_OutputAction: TypeAlias = Annotated[
    Literal["append_row", "summary_only"], Meta(description="Whether results are collected in one file.")
]
_OutputFile: TypeAlias = Annotated[str, Meta(description="The name of that file.")]
_Retry: TypeAlias = Annotated[BatchRetryYaml, Meta(description="How often and how long a mini-batch is tried.")]
_ErrorThreshold: TypeAlias = Annotated[
    Annotated[int, Meta(ge=-1, le=2_147_483_647)], Meta(description="Most files that may fail; -1: any number.")
]
_LogLevel: TypeAlias = Annotated[Literal["warning", "info", "debug"], Meta(description="How much is logged.")]
_Instances: TypeAlias = Annotated[_Count, Meta(description="Instances that run a job.")]


class BatchSettingsYaml(_Yaml, frozen=True, kw_only=True):
    """How a batch deployment runs its jobs."""

    mini_batch_size: _MiniBatch = 10
    max_concurrency_per_instance: _Concurrency = 1
    output_action: _OutputAction = "append_row"
    output_file_name: _OutputFile = "predictions.csv"
    retry_settings: _Retry = BatchRetryYaml()
    error_threshold: _ErrorThreshold = -1
    logging_level: _LogLevel = "info"
    environment_variables: Annotated[
        dict[str, str], Meta(description="The same as `environment_variables` of the deployment.")
    ] = {}
    instance_count: Annotated[_Count | None, Meta(description="The same as `resources.instance_count`.")] = None
    default_compute: Annotated[Any, Meta(description=_PIPELINES)] = None
    default_datastore: Annotated[Any, Meta(description=_PIPELINES)] = None
    continue_on_step_failure: Annotated[Any, Meta(description=_PIPELINES)] = None
    force_rerun: Annotated[Any, Meta(description=_PIPELINES)] = None


class BatchResourcesYaml(_Yaml, frozen=True, kw_only=True):
    """What a job runs on."""

    instance_count: _Instances = 1
    instance_type: Annotated[str, Meta(description=f"{NOTED}jobs run on this machine.")] = ""
    properties: Annotated[dict[str, Any], Meta(description="Free names and values.")] = {}


class BatchDeploymentYaml(_Yaml, frozen=True, kw_only=True):
    """A batch deployment (`modelBatchDeployment`, `batchDeployment`): settings in `settings`, or all at the root."""

    schema_: _Schema = field(name="$schema", default="")
    name: Annotated[
        str, Meta(description="3 to 32 characters: a letter, then letters, digits and dashes, no dash at the end.")
    ]
    endpoint_name: Annotated[str, Meta(description="The endpoint it belongs to.")]
    type: Annotated[Literal["model", "pipeline"], Meta(description="`model`; pipelines are refused.")] = "model"
    description: _Text = ""
    tags: _Texts = {}
    properties: _Texts = {}
    model: Annotated[
        str | ModelYaml | None,
        Meta(
            description="A local path, a registered model as `azureml:NAME:VERSION` or `azureml:NAME@latest`, or the "
            "model inline."
        ),
    ] = None
    code_configuration: Annotated[CodeYaml | None, Meta(description="The scoring script.")] = None
    environment: Annotated[
        str | EnvironmentYaml | None, Meta(description="A reference, or the environment inline.")
    ] = None
    environment_variables: Annotated[dict[str, str], Meta(description="What the scoring script finds set.")] = {}
    compute: Annotated[str, Meta(description=f"{NOTED}jobs run on this machine.")] = ""
    resources: Annotated[BatchResourcesYaml, Meta(description="What a job runs on.")] = BatchResourcesYaml()
    settings: Annotated[BatchSettingsYaml, Meta(description="How jobs run.")] = BatchSettingsYaml()
    mini_batch_size: Annotated[_MiniBatch | None, Meta(description="Older form of the key in `settings`.")] = None
    max_concurrency_per_instance: Annotated[
        _Concurrency | None, Meta(description="Older form of the key in `settings`.")
    ] = None
    output_action: Annotated[_OutputAction | None, Meta(description="Older form of the key in `settings`.")] = None
    output_file_name: Annotated[_OutputFile | None, Meta(description="Older form of the key in `settings`.")] = None
    retry_settings: Annotated[_Retry | None, Meta(description="Older form of the key in `settings`.")] = None
    error_threshold: Annotated[_ErrorThreshold | None, Meta(description="Older form of the key in `settings`.")] = (
        None
    )
    logging_level: Annotated[_LogLevel | None, Meta(description="Older form of the key in `settings`.")] = None
    component: Annotated[Any, Meta(description=_PIPELINES)] = None
    job_definition: Annotated[Any, Meta(description=_PIPELINES)] = None
    id: _ReadOnly = ""
    kind: _ReadOnly = ""
    location: _ReadOnly = ""
    provisioning_state: _ReadOnly = ""
