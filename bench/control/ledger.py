"""What a client knows that the gateway has accepted, as plain data: what must be there after any crash. Pure.

A change is applied to a `World` when it is acknowledged. A change whose answer never came may have happened or not:
`differences` are taken for both worlds, and one of them must have none.
Facts are what is compared: the same keys for what is expected and for what was found.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from bench.control import management as at

Facts = dict[tuple[str, ...], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDoc:
    """A registered version. `factor` 0: its content is no model."""

    n: int
    factor: int
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentDoc:
    n: int
    model: tuple[str, str]
    factor: int
    instances: int = 1
    timeout_s: int = 5


@dataclass(slots=True, kw_only=True)
class Deployment:
    """What is wanted, and what is served (None: nothing yet)."""

    doc: DeploymentDoc
    served: DeploymentDoc | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyBut:
    """A key that the gateway made and nobody has read yet: any but those that there were."""

    keys: frozenset[str]


@dataclass(slots=True, kw_only=True)
class Endpoint:
    n: int
    traffic: dict[str, int] = field(default_factory=dict)
    deployments: dict[str, Deployment] = field(default_factory=dict)
    primary: str | AnyBut = field(default_factory=lambda: AnyBut(keys=frozenset()))
    secondary: str | AnyBut = field(default_factory=lambda: AnyBut(keys=frozenset()))


@dataclass(slots=True, kw_only=True)
class World:
    """One client's resources; no other client touches them. `dead`: keys that must not open an endpoint any more."""

    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    models: dict[tuple[str, str], ModelDoc] = field(default_factory=dict)
    dead: dict[str, list[str]] = field(default_factory=dict)

    def copy(self) -> World:
        return copy.deepcopy(self)

    def used(self) -> set[tuple[str, str]]:
        """Versions that some deployment names."""
        deployments = [one for endpoint in self.endpoints.values() for one in endpoint.deployments.values()]
        return {doc.model for one in deployments for doc in (one.doc, one.served) if doc is not None}

    def bury(self, endpoint: str, *keys: str | AnyBut) -> None:
        self.dead.setdefault(endpoint, []).extend(key for key in keys if isinstance(key, str))


class Change(Protocol):
    """One request that changes something."""

    @property
    def endpoint(self) -> str:
        """The endpoint that it changes; "" for models."""
        ...

    def request(self) -> tuple[str, str, Any]:
        """Method, path and body."""
        ...

    def apply(self, world: World) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PutEndpoint:
    """Make an endpoint, or change its traffic and tags."""

    endpoint: str
    n: int
    traffic: Mapping[str, int]

    def request(self) -> tuple[str, str, Any]:
        return "PUT", at.endpoint_path(self.endpoint), at.endpoint_body(self.traffic, {"n": str(self.n)})

    def apply(self, world: World) -> None:
        found = world.endpoints.setdefault(self.endpoint, Endpoint(n=self.n))
        found.n, found.traffic = self.n, dict(self.traffic)


@dataclass(frozen=True, slots=True, kw_only=True)
class TagEndpoint:
    """Only its tags, by PATCH."""

    endpoint: str
    n: int

    def request(self) -> tuple[str, str, Any]:
        return "PATCH", at.endpoint_path(self.endpoint), {"tags": {"n": str(self.n)}}

    def apply(self, world: World) -> None:
        world.endpoints[self.endpoint].n = self.n


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteEndpoint:
    endpoint: str

    def request(self) -> tuple[str, str, Any]:
        return "DELETE", at.endpoint_path(self.endpoint), None

    def apply(self, world: World) -> None:
        gone = world.endpoints.pop(self.endpoint)
        world.bury(self.endpoint, gone.primary, gone.secondary)


@dataclass(frozen=True, slots=True, kw_only=True)
class PutDeployment:
    endpoint: str
    name: str
    doc: DeploymentDoc

    def request(self) -> tuple[str, str, Any]:
        doc = self.doc
        body = at.deployment_body(
            at.model_path(*doc.model), {"n": str(doc.n)}, instances=doc.instances, timeout_s=doc.timeout_s
        )
        return "PUT", at.deployment_path(self.endpoint, self.name), body

    def apply(self, world: World) -> None:
        deployments = world.endpoints[self.endpoint].deployments
        found = deployments.setdefault(self.name, Deployment(doc=self.doc))
        found.doc = self.doc
        if self.doc.factor:
            found.served = self.doc


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteDeployment:
    endpoint: str
    name: str

    def request(self) -> tuple[str, str, Any]:
        return "DELETE", at.deployment_path(self.endpoint, self.name), None

    def apply(self, world: World) -> None:
        owner = world.endpoints[self.endpoint]
        del owner.deployments[self.name]
        owner.traffic.pop(self.name, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Regenerate:
    """`value` "": the gateway makes the key."""

    endpoint: str
    which: str
    value: str = ""

    def request(self) -> tuple[str, str, Any]:
        given = {"keyValue": self.value} if self.value else {}
        return "POST", f"{at.endpoint_path(self.endpoint)}/regenerateKeys", {"keyType": self.which, **given}

    def apply(self, world: World) -> None:
        found = world.endpoints[self.endpoint]
        before = found.primary if self.which == "Primary" else found.secondary
        world.bury(self.endpoint, before)
        fresh = self.value or AnyBut(keys=frozenset({before} if isinstance(before, str) else ()))
        if self.which == "Primary":
            found.primary = fresh
        else:
            found.secondary = fresh


@dataclass(frozen=True, slots=True, kw_only=True)
class PutModel:
    name: str
    version: str
    doc: ModelDoc

    @property
    def endpoint(self) -> str:
        return ""

    def request(self) -> tuple[str, str, Any]:
        body = at.model_body(self.doc.address, {"n": str(self.doc.n)})
        return "PUT", at.model_path(self.name, self.version), body

    def apply(self, world: World) -> None:
        world.models[self.name, self.version] = self.doc


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteModel:
    name: str
    version: str

    @property
    def endpoint(self) -> str:
        return ""

    def request(self) -> tuple[str, str, Any]:
        return "DELETE", at.model_path(self.name, self.version), None

    def apply(self, world: World) -> None:
        del world.models[self.name, self.version]


def expected(world: World) -> Facts:
    """What must be found once nothing is under way."""
    facts: Facts = {}
    for (name, version), model in world.models.items():
        facts["model", name, version] = model.n
    for name, endpoint in world.endpoints.items():
        facts["endpoint", name] = (endpoint.n, endpoint.traffic)
        facts["primary", name], facts["secondary", name] = endpoint.primary, endpoint.secondary
        for key, one in endpoint.deployments.items():
            doc = one.doc
            state = "Succeeded" if doc.factor else "Failed"
            facts["deployment", name, key] = (doc.n, doc.model, doc.instances, doc.timeout_s, state)
            facts["answers", name, key] = one.served.factor if one.served is not None else 0
    return facts


def differences(wanted: Facts, found: Facts) -> list[str]:
    """A sentence for each fact that is not as it must be."""
    return list(_differences(wanted, found))


def _differences(wanted: Facts, found: Facts) -> Iterator[str]:
    for key in sorted(wanted.keys() | found.keys()):
        name = " ".join(key)
        if key not in found:
            yield f"{name} is lost; it was acknowledged as {wanted[key]}"
        elif key not in wanted:
            yield f"{name} is there as {found[key]}, and should not be"
        elif isinstance(wanted[key], AnyBut):
            if found[key] in wanted[key].keys:
                yield f"{name} is still the key that was replaced"
        elif wanted[key] != found[key]:
            yield f"{name} is {found[key]}; it was acknowledged as {wanted[key]}"
