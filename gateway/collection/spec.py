"""What of a deployment is collected, as plain data: made of its YAML, sent to the scorers, kept beside its script.

`request` and `response` are what callers sent and got, taken by the scorers; every other collection is one that the
script writes by `Collector(name)` of azureml-ai-monitoring. Disabled collections are left out.
Source: contract/azure-ml-endpoints.md section 8.4.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from typing import Literal

Rolling = Literal["minute", "hour", "day"]

REQUEST, RESPONSE = "request", "response"
PAYLOADS = (REQUEST, RESPONSE)
CUSTOM_MAX = 5
HEADERS_MAX = 32
# Headers that prove a caller; they are never collected.
NEVER_COLLECTED = frozenset(
    (
        *("authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key", "apikey"),
        *("x-auth-token", "x-access-token", "x-functions-key", "ocp-apim-subscription-key"),
        *("x-amz-security-token", "x-csrf-token", "x-xsrf-token"),
    )
)
# Where a collection lies whose `data` says nothing else: this folder, the endpoint, the deployment, its name.
HOME = "modelDataCollector"


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionSpec:
    """`folder`: below the default datastore, without slashes at its ends. `sampling_rate`: from 0 to 1."""

    name: str
    folder: str
    sampling_rate: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorSpec:
    """`source`: the deployment's ARM id, which each record names. `headers`: lower-cased names of those that go with
    `request` and `response`. `model_version`: "" where the model is not a registered one."""

    source: str
    collections: tuple[CollectionSpec, ...]
    rolling_rate: Rolling = "hour"
    headers: tuple[str, ...] = ()
    model_version: str = ""

    def named(self, name: str) -> CollectionSpec | None:
        """Names are equal whatever their case."""
        return next((one for one in self.collections if one.name.lower() == name.lower()), None)

    def payloads(self) -> CollectorSpec | None:
        """Of it what scorers collect; None for nothing."""
        return self._only([one.name for one in self.collections if one.name in PAYLOADS])

    def custom(self) -> CollectorSpec | None:
        """Of it what scripts collect; None for nothing. What only concerns payloads is not in it: workers stay when
        that changes."""
        found = self._only([one.name for one in self.collections if one.name not in PAYLOADS])
        return replace(found, headers=(), model_version="") if found is not None else None

    def _only(self, names: Container[str]) -> CollectorSpec | None:
        found = tuple(one for one in self.collections if one.name in names)
        return replace(self, collections=found) if found else None
