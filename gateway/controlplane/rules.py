"""What may be served together: names, traffic, bounds and references over everything that was written. Pure.

Why: a single file can be right while the whole is not; these are the rules that Azure ML applies on its side.
Units: traffic in percent, timeouts in milliseconds.
Errors: sentences that begin with the file; none means that the whole may be served.
Source: public limits and rules of Azure Machine Learning online endpoints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from gateway.resources import AuthMode, Deployment, Endpoint
from gateway.suggest import did_you_mean

MIRROR_PERCENT_MAX = 50
TIMEOUT_MS_MAX = {"managed": 180_000, "kubernetes": 300_000}

_NAME = re.compile(r"[A-Za-z]([-A-Za-z0-9]*[A-Za-z0-9])?")
_NAME_SAID = "3 to 32 characters: a letter, then letters, digits and dashes, and no dash at the end"
_NAME_CHARS = (3, 32)
_KUBERNETES_CHARS = (6, 62)

_Named = TypeVar("_Named", Endpoint, Deployment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much may be served; Azure's published limits unless a setting says otherwise."""

    endpoints: int = 100
    deployments: int = 500
    deployments_per_endpoint: int = 20
    instances_per_deployment: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Names that files with mistakes of their own would have given, so that no rule blames their absence.

    `complete` is false where a file could not be read at all: then nothing is said about missing names.
    """

    endpoints: frozenset[str] = frozenset()
    deployments: frozenset[tuple[str, str]] = frozenset()
    complete: bool = True


def check(
    endpoints: Sequence[Endpoint], deployments: Sequence[Deployment], limits: Limits, known: Known
) -> list[str]:
    """All that forbids serving these together, in the order of the files."""
    world = _World(endpoints, deployments, known)
    problems: list[str] = []
    for endpoint in endpoints:
        said = (*_name(endpoint.name), *_endpoint(endpoint, world), *_auth(endpoint))
        problems += [f"{endpoint.source}: {one}" for one in said]
    for deployment in deployments:
        said = (*_name(deployment.name), *_deployment(deployment, world), *_bounds(deployment, limits))
        problems += [f"{deployment.source}: {one}" for one in said]
    return problems + list(_counts(endpoints, world, limits))


class _World:
    """Who is there, by lower-cased name."""

    def __init__(self, endpoints: Sequence[Endpoint], deployments: Sequence[Deployment], known: Known) -> None:
        self.complete = known.complete
        self.first_endpoint = _firsts([(one.name.lower(), one) for one in endpoints])
        self.first_deployment = _firsts([(_key(one), one) for one in deployments])
        self.endpoints = {one.name.lower() for one in endpoints} | known.endpoints
        self._deployments = {_key(one) for one in deployments} | known.deployments

    def under(self, endpoint: str) -> list[str]:
        """The deployments of an endpoint."""
        return sorted(name for owner, name in self._deployments if owner == endpoint.lower())

    @property
    def deployments(self) -> int:
        return len(self._deployments)


_K = TypeVar("_K")


def _firsts(pairs: Sequence[tuple[_K, _Named]]) -> dict[_K, _Named]:
    found: dict[_K, _Named] = {}
    for key, one in pairs:
        found.setdefault(key, one)
    return found


def _key(deployment: Deployment) -> tuple[str, str]:
    return (deployment.endpoint_name.lower(), deployment.name.lower())


def name_problems(name: str) -> Iterator[str]:
    """What is wrong with the name of an endpoint or a deployment."""
    low, high = _NAME_CHARS
    if not (low <= len(name) <= high and _NAME.fullmatch(name)):
        yield f"found {name!r}; accepted: {_NAME_SAID}"


def _name(name: str) -> Iterator[str]:
    yield from (f"name: {said}" for said in name_problems(name))


def _endpoint(endpoint: Endpoint, world: _World) -> Iterator[str]:
    first = world.first_endpoint[endpoint.name.lower()]
    if first is not endpoint:
        yield f"name: endpoint {endpoint.name!r} is in {first.source} too; names are unique whatever their case"
    deployments = world.under(endpoint.name)
    for key, shares in (("traffic", endpoint.traffic), ("mirror_traffic", endpoint.mirror_traffic)):
        for name in shares:
            if world.complete and name not in deployments:
                there = f"endpoint {endpoint.name!r} has no deployment {name!r}"
                yield f"{key}.{name}: {there}{did_you_mean(name, deployments) or '; it has none at all'}"
    yield from _shares(endpoint)


def _shares(endpoint: Endpoint) -> Iterator[str]:
    total = sum(endpoint.traffic.values())
    if total not in (0, 100):
        shares = ", ".join(f"{name}: {percent}" for name, percent in endpoint.traffic.items())
        yield f"traffic: {shares} sums to {total}; accepted: a sum of 0 or 100"
    if len(endpoint.mirror_traffic) > 1:
        names = ", ".join(endpoint.mirror_traffic)
        yield f"mirror_traffic: found {names}; accepted: at most one deployment"
    if endpoint.mirror_traffic and endpoint.kind == "kubernetes":
        yield "mirror_traffic: found on a kubernetes endpoint; accepted: managed endpoints only (remove compute)"
    for name, percent in endpoint.mirror_traffic.items():
        if not 0 <= percent <= MIRROR_PERCENT_MAX:
            yield f"mirror_traffic.{name}: found {percent}; accepted: an integer from 0 to {MIRROR_PERCENT_MAX}"
        live = endpoint.traffic.get(name, 0)
        if percent and live:
            yield f"mirror_traffic.{name}: {name!r} has {live} percent of traffic too; accepted: one of the two"
    for name, percent in endpoint.traffic.items():
        if not 0 <= percent <= 100:
            yield f"traffic.{name}: found {percent}; accepted: an integer from 0 to 100"


def _auth(endpoint: Endpoint) -> Iterator[str]:
    if endpoint.auth_mode is not AuthMode.AAD_TOKEN:
        return
    if endpoint.kind == "kubernetes":
        yield "auth_mode: found aad_token on a kubernetes endpoint; accepted: key, aml_token"
    if endpoint.oidc is None:
        yield (
            "auth_mode: aad_token needs to know whose tokens to accept; "
            "give gateway.oidc (issuer, audience) or the settings oidc_issuer and oidc_audience"
        )


def _deployment(deployment: Deployment, world: _World) -> Iterator[str]:
    first = world.first_deployment[_key(deployment)]
    if first is not deployment:
        yield (
            f"name: deployment {deployment.name!r} of endpoint {deployment.endpoint_name!r} "
            f"is in {first.source} too; names are unique in any case"
        )
    if world.complete and deployment.endpoint_name.lower() not in world.endpoints:
        hint = did_you_mean(deployment.endpoint_name, world.endpoints) or "; the folder has no endpoint at all"
        yield f"endpoint_name: there is no endpoint {deployment.endpoint_name!r}{hint}"
    if deployment.kind == "kubernetes":
        low, high = _KUBERNETES_CHARS
        length = len(deployment.name) + len(deployment.endpoint_name)
        if not low <= length <= high:
            yield f"name: with endpoint_name it has {length} characters; accepted on kubernetes: {low} to {high}"


def _bounds(deployment: Deployment, limits: Limits) -> Iterator[str]:
    yield from _instances(deployment, limits.instances_per_deployment)
    longest = TIMEOUT_MS_MAX[deployment.kind]
    if deployment.request_timeout_ms > longest:
        yield (
            f"request_settings.request_timeout_ms: found {deployment.request_timeout_ms}; "
            f"accepted for {deployment.kind}: an integer from 1 to {longest}"
        )
    if deployment.kind == "managed" and not deployment.instance_type:
        yield "instance_type: missing; accepted: an Azure size such as Standard_DS3_v2, or cpu, gpu, tensorrt"
    if deployment.provider == "cpu" and (deployment.device_ids or deployment.gpu_memory_bytes):
        key = "device_ids" if deployment.device_ids else "gpu_memory_mb"
        yield f"gateway.runtime.{key}: found with provider cpu; accepted with provider cuda or tensorrt"


def _instances(deployment: Deployment, most: int) -> Iterator[str]:
    """The bound is on what runs: a Triton repository may ask for several sessions an instance."""
    sessions, scale = deployment.sessions, deployment.scale
    accepted = f"an integer from 1 to {most // sessions} (setting instances_per_deployment_max)"
    if not most // sessions:
        accepted = f"at most {most} sessions (setting instances_per_deployment_max)"
    each = f" instances of {sessions} sessions each (instance_group of config.pbtxt)" if sessions > 1 else ""
    counts = {"instance_count": deployment.instance_count}
    if scale is not None:
        counts["scale_settings.max_instances"] = scale.max_instances
    for key, count in counts.items():
        if count * sessions > most:
            yield f"{key}: found {count}{each}; accepted: {accepted}"


def _counts(endpoints: Sequence[Endpoint], world: _World, limits: Limits) -> Iterator[str]:
    if len(world.endpoints) > limits.endpoints:
        yield f"found {len(world.endpoints)} endpoints; accepted: at most {limits.endpoints} (setting endpoints_max)"
    if (count := world.deployments) > limits.deployments:
        yield f"found {count} deployments; accepted: at most {limits.deployments} (setting deployments_max)"
    most = limits.deployments_per_endpoint
    for endpoint in endpoints:
        under = len(world.under(endpoint.name))
        if under > most:
            yield (
                f"{endpoint.source}: endpoint {endpoint.name!r} has {under} deployments; "
                f"accepted: at most {most} (setting deployments_per_endpoint_max)"
            )
