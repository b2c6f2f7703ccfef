"""The nouns as a person wrote them: what shall be served, frozen and checked.

They are made of documents (controlplane/translate.py) and turned into a SnapshotSpec by controlplane/plan.py.
Units go last in a name: *_ms milliseconds, *_s seconds, *_bytes bytes. Paths are absolute.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from gateway.collection.spec import CollectorSpec
from gateway.liveness import Probe
from runtimes import BatchingSpec, Declared

# Azure's two kinds of online endpoint and deployment; they differ in bounds only.
Kind = Literal["managed", "kubernetes"]


class AuthMode(Enum):
    KEY = "key"
    AML_TOKEN = "aml_token"  # noqa: S105 - the mode's name
    AAD_TOKEN = "aad_token"  # noqa: S105


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSource:
    """Where a key comes from: exactly one of a file (its text, stripped) and an environment variable."""

    file: Path | None = None
    env: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySources:
    """Keys that the operator brings; a missing one is made by the gateway and kept in the state folder."""

    primary: SecretSource | None = None
    secondary: SecretSource | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Oidc:
    """Which tokens an `aad_token` endpoint accepts.

    `jwks_uri` empty: it is read from `{issuer}/.well-known/openid-configuration`. `required_roles`: a token needs
    one of them in its `roles` or `scp` claim, else 403; empty asks for none.
    """

    issuer: str
    audience: str
    jwks_uri: str = ""
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    required_roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A name with an auth mode. Keys of `traffic` and `mirror_traffic` are lower-cased deployment names, percent.

    `slo_ms`: the time within which requests shall be answered, for the metrics; None for no promise.
    """

    name: str
    auth_mode: AuthMode = AuthMode.KEY
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    traffic: dict[str, int] = field(default_factory=dict)
    mirror_traffic: dict[str, int] = field(default_factory=dict)
    keys: KeySources = KeySources()
    oidc: Oidc | None = None
    token_lifetime_s: int = 3600
    slo_ms: float | None = None
    kind: Kind = "managed"
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """An ONNX file where a folder of YAML says it is; serving it registers its content."""

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetModel:
    """A registered model: `files` are (path inside the asset, SHA-256, bytes), and `entry` is the ONNX file of them.

    `origin` is the path of a local file that the content came from, "" for one that was uploaded. Without files it is
    a reference that nobody has looked up.
    """

    reference: str
    files: tuple[tuple[str, str, int], ...] = ()
    entry: str = ""
    origin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonModel:
    """What a Triton repository calls the model that is served, and the number of its version. `notes`: a sentence for
    each field of its configuration that was given and has no effect."""

    name: str
    version: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTree:
    """A file or folder where a folder of YAML says it is; serving it registers its content."""

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetTree:
    """A registered file or folder: `files` are (path inside, SHA-256, bytes). `folder` is the name that holds them,
    "" for a single file."""

    reference: str
    files: tuple[tuple[str, str, int], ...] = ()
    folder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptEnvironment:
    """What a script runs in: a registered environment's document and build context, or only a name. `needs_mlflow`:
    it is for an MLflow model, and gets mlflow-skinny where it names no mlflow."""

    reference: str = ""
    document: dict[str, Any] | None = None
    files: tuple[tuple[str, str, int], ...] = ()
    needs_mlflow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A scoring script: its folder, its file in it, and what it finds when it runs. Without code it is the one that
    every MLflow model has: `model` is its folder. `collector`: what it collects by itself; the collections of its
    requests are the deployment's."""

    code: LocalTree | AssetTree | None = None
    scoring_script: str = ""
    model: LocalTree | AssetTree | None = None
    environment: ScriptEnvironment = field(default_factory=ScriptEnvironment)
    variables: dict[str, str] = field(default_factory=dict)
    init_timeout_s: float = 310.0
    liveness: Probe = field(default_factory=Probe)
    collector: CollectorSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What a deployment asks of autoscale: `min_instances` and `max_instances` are kept whatever is seen."""

    min_instances: int = 1
    max_instances: int = 1
    target_percent: int = 70
    polling_interval_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One way of serving one model, natively or by a script: exactly one of `model` and `script` is given.

    `max_pending` None: bounded by the queue limit and deadlines alone. `scale` None: exactly `instance_count`
    instances, each of `sessions` sessions. `triton`: where the model is one of a Triton repository.
    """

    name: str
    endpoint_name: str
    model: LocalModel | AssetModel | None = None
    script: Script | None = None
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    instance_type: str = ""
    instance_count: int = 1
    request_timeout_ms: int = 5000
    max_concurrent_requests_per_instance: int | None = None
    max_queue_wait_ms: float | None = None
    provider: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    allow_cpu_fallback: bool = False
    device_ids: tuple[int, ...] = ()
    gpu_memory_bytes: int = 0
    threads: int = 0
    instances: int = 0
    dispatch: Literal["auto", "inline", "thread"] = "auto"
    batching: BatchingSpec = field(default_factory=BatchingSpec)
    sessions: int = 1
    graph_level: Literal["all", "extended", "basic", "none"] = "all"
    declared: Declared | None = None
    triton: TritonModel | None = None
    scale: Scale | None = None
    max_body_bytes: int | None = None
    collector: CollectorSpec | None = None
    kind: Kind = "managed"
    source: str = ""

    @property
    def max_pending(self) -> int | None:
        """Contract section 1: twice the concurrent requests of all instances."""
        concurrent = self.max_concurrent_requests_per_instance
        if concurrent is None:
            # Scripts keep Azure's default; a natively served model batches, which makes it meaningless.
            concurrent = 1 if self.script is not None else None
        return None if concurrent is None else 2 * concurrent * self.workers

    @property
    def workers(self) -> int:
        """Processes that run the script: for each instance as many as WORKER_COUNT says."""
        count = self.script.variables.get("WORKER_COUNT", "1") if self.script is not None else "1"
        return self.instance_count * (int(count) if count.isdecimal() and int(count) else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """All that shall be served, by lower-cased name. `notes` say what was accepted but has no effect here."""

    endpoints: dict[str, Endpoint]
    deployments: dict[tuple[str, str], Deployment]
    notes: tuple[str, ...] = ()
