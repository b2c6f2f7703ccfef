"""What is served now, as one immutable value of plain data: made by the supervisor, carried out by every scorer.

Live runtimes never travel: a scorer turns a SnapshotSpec into live deployments (dataplane/prepare.py) and publishes
them whole. Names are lower-cased keys; `name` fields keep the author's spelling.
Units: *_ns nanoseconds, *_bytes bytes; 0 means "no such bound" where a field says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.collection.spec import CollectorSpec
from runtimes import Learned, RuntimeSpec, ScriptSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSpec:
    issuer: str
    audience: str
    jwks_uri: str
    algorithms: tuple[str, ...]
    required_roles: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSpec:
    """How callers of one endpoint prove themselves. Keys travel as SHA-256 digests only."""

    mode: str
    key_digests: tuple[bytes, ...] = ()
    token_secret: bytes = field(default=b"", repr=False)
    oidc: OidcSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSpec:
    """`seat` is the deployment's row in the shared table of pending requests, -1 where `pending_max` is 0 (none).

    With `script`, it is served by that pool of workers, and `runtime` names no file. `collector`: what of its
    requests and answers is collected. `failure`: why it cannot be served, found out before any scorer was asked.
    `model_name`, `model_version`: what the model's own repository calls it; "" where it came without one.
    """

    name: str
    runtime: RuntimeSpec
    request_timeout_ns: int
    queue_wait_ns: int
    pending_max: int
    seat: int
    body_bytes_max: int
    script: ScriptSpec | None = None
    collector: CollectorSpec | None = None
    failure: str = ""
    model_name: str = ""
    model_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSpec:
    """Traffic and mirror weights are by the deployments' lower-cased names. `slo_ns`: whole microseconds, 0: none."""

    name: str
    auth: AuthSpec
    traffic: dict[str, int] = field(default_factory=dict)
    mirror: dict[str, int] = field(default_factory=dict)
    deployments: dict[str, DeploymentSpec] = field(default_factory=dict)
    slo_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotSpec:
    revision: int
    endpoints: dict[str, EndpointSpec] = field(default_factory=dict)

    def runtimes(self) -> list[RuntimeSpec]:
        """What every deployment runs."""
        return [one.runtime for endpoint in self.endpoints.values() for one in endpoint.deployments.values()]


# What loading found out, by "endpoint/deployment", lower-cased.
LearnedByName = dict[str, Learned]
