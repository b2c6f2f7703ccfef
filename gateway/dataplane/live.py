"""What a scorer serves now: the snapshot with its live runtimes, swapped whole.

Ownership: a LiveRuntime is shared by the snapshots that name it and by the requests that hold a lease on it; it is
drained and closed when the last snapshot lets go and the last lease ends. All of this is touched by the loop only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.dataplane.admit import Gate
from gateway.dataplane.authenticate import Authenticator
from gateway.dataplane.capture import Capture
from gateway.dataplane.route import among, cycle, mirrors, named, weighted
from gateway.errors import Code, Problem
from gateway.snapshot import DeploymentSpec, EndpointSpec
from gateway.telemetry.record import DeploymentRecord, EndpointRecord
from runtimes import ScriptClient, ScriptRequest, WorkItem
from runtimes.runtime import Runtime


class LiveRuntime:
    """One loaded runtime and who still uses it: a model of this process, or the workers of a scoring script.

    `model` and `scripts`: the same `runtime` as what it is, and None as what it is not.
    `largest_difference`: the largest between its answers to mirrored copies and the live ones.
    """

    __slots__ = ("_leases", "_on_idle", "largest_difference", "model", "runtime", "scripts")

    def __init__(self, runtime: Runtime | ScriptClient) -> None:
        self.runtime = runtime
        self.scripts = runtime if isinstance(runtime, ScriptClient) else None
        self.model = None if isinstance(runtime, ScriptClient) else runtime
        self.largest_difference = 0.0
        self._leases = 0
        self._on_idle: Callable[[], None] | None = None

    def lease(self) -> None:
        self._leases += 1

    def release(self) -> None:
        self._leases -= 1
        if self._leases == 0 and self._on_idle is not None:
            self._drain()

    def cancel(self, item: WorkItem | ScriptRequest) -> None:
        """The item's caller hung up."""
        if isinstance(item, WorkItem):
            assert self.model is not None
            self.model.cancel(item)
        else:
            assert self.scripts is not None
            self.scripts.cancel(item)

    def retire(self, on_closed: Callable[[], None]) -> None:
        """No snapshot names it any more: finish what runs, then close. `on_closed` is called once."""

        def drained() -> None:
            self.runtime.close()
            on_closed()

        self._on_idle = drained
        if self._leases == 0:
            self._drain()

    def _drain(self) -> None:
        on_idle, self._on_idle = self._on_idle, None
        if on_idle is not None:
            self.runtime.drain(on_idle)


@dataclass(slots=True, kw_only=True)
class LiveDeployment:
    """A deployment that can score. `line` is the response header that names it; `capture` what of its requests is
    collected, None for nothing."""

    name: str
    endpoint_name: str
    spec: DeploymentSpec
    live: LiveRuntime
    gate: Gate
    record: DeploymentRecord
    capture: Capture | None = None
    line: bytes = b""

    def __post_init__(self) -> None:
        self.line = b"azureml-model-deployment: %b\r\n" % self.name.encode()

    @property
    def model(self) -> Runtime:
        """The model, for who needs its tensors. Errors: Problem where a script is served."""
        model = self.live.model
        if model is None:
            raise no_tensors(self)
        return model


def no_tensors(deployment: LiveDeployment) -> Problem:
    """What is said to who asks for the tensors of a script."""
    endpoint = deployment.endpoint_name
    return Problem(
        Code.NOT_FOUND,
        f"deployment {deployment.name!r} of endpoint {endpoint!r} runs a scoring script, which has no tensors and no "
        f"V2 routes; score with POST /endpoints/{endpoint}/score",
        reason="not_found",
    )


@dataclass(slots=True, kw_only=True)
class Round:
    """Who answers what names one model, in turn; counted apart, for turns of the endpoint go to other models too."""

    choices: tuple[str, ...]
    turns: itertools.count[int] = field(default_factory=itertools.count)


@dataclass(slots=True, kw_only=True)
class LiveEndpoint:
    """An endpoint with its deployments; `turns` counts what the weights decided.

    `failed` names deployments that are wanted but could not be loaded, with the reason. `has_scripts`: whether any of
    its deployments, loaded or not, is a scoring script. `rounds`: by the lower-cased name of a Triton repository's
    model, where some of the traffic goes to deployments of others.
    """

    spec: EndpointSpec
    authenticator: Authenticator
    deployments: dict[str, LiveDeployment]
    failed: dict[str, str]
    record: EndpointRecord
    turns: itertools.count[int] = field(default_factory=itertools.count)
    choices: tuple[str, ...] = ()
    mirror_name: str = ""
    mirror_percent: int = 0
    has_scripts: bool = False
    rounds: dict[str, Round] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.has_scripts = any(spec.script is not None for spec in self.spec.deployments.values())
        self.choices = cycle(self.spec.traffic)
        for model in {spec.model_name.lower() for spec in self.spec.deployments.values()}:
            choices = among(self.choices, self.serving(model), self.spec.traffic)
            if choices != self.choices:
                self.rounds[model] = Round(choices=choices)
        for name, percent in self.spec.mirror.items():
            self.mirror_name, self.mirror_percent = name, percent
            if percent and name in self.deployments:
                # Its counts are there before its first copy: a rate over a series needs its zero.
                self.deployments[name].record.comparison()

    @property
    def name(self) -> str:
        return self.spec.name

    def serving(self, model: str) -> dict[str, DeploymentSpec]:
        """The deployments, loaded or not, of a model of a Triton repository; all of them where none is called so, and
        for the endpoint's own name."""
        every = self.spec.deployments
        if not model or model.lower() == self.name.lower():
            return every
        return {key: spec for key, spec in every.items() if spec.model_name.lower() == model.lower()} or every

    def go_on_from(self, before: LiveEndpoint) -> None:
        """Turns are counted over what is published, so that a small share comes to its turn."""
        if before.spec.traffic == self.spec.traffic:
            self.turns = before.turns
        for model, one in self.rounds.items():
            if model in before.rounds:
                one.turns = before.rounds[model].turns

    def heaviest(self, model: str = "") -> LiveDeployment:
        """The deployment with most traffic of those that serve the model, for documents; takes no turn. Errors:
        Problem."""
        weights, serving = self.spec.traffic, self.serving(model)
        # Where none is loaded, the answer is why not.
        names = [name for name in self.deployments if name in serving] or [
            name for name in self.failed if name in serving
        ]
        best = max(names, key=lambda name: weights.get(name, 0), default="")
        choices = (best,) if best else ()
        return weighted(self.deployments, self.failed, choices, 0, self.name)

    def choose(self, wanted: str, model: str = "") -> tuple[LiveDeployment, LiveDeployment | None]:
        """The deployment that answers and the one that gets a copy. Errors: Problem."""
        if wanted:
            return named(self.deployments, self.failed, wanted, self.name), None
        turn = next(self.turns)
        own = self.rounds.get(model.lower()) if model else None
        if own is None:
            chosen = weighted(self.deployments, self.failed, self.choices, turn, self.name)
        else:
            chosen = weighted(self.deployments, self.failed, own.choices, next(own.turns), self.name)
        if self.mirror_percent and mirrors(self.mirror_percent, turn):
            mirror = self.deployments.get(self.mirror_name)
            return chosen, mirror if mirror is not chosen else None
        return chosen, None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a scoring path leads: which endpoint, which deployment it names ("" for none), which protocol; and which
    model of a Triton repository ("" for the endpoint's)."""

    path: str
    endpoint: LiveEndpoint
    deployment: str
    is_v2: bool
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSnapshot:
    """All that is served, with one dictionary from scoring path to target."""

    revision: int
    endpoints: dict[str, LiveEndpoint]
    targets: dict[str, Target]


EMPTY = LiveSnapshot(revision=0, endpoints={}, targets={})


class SnapshotCell:
    """The one place that says what is served now; `publish` swaps it whole."""

    __slots__ = ("current",)

    def __init__(self) -> None:
        self.current = EMPTY

    def publish(self, snapshot: LiveSnapshot) -> None:
        self.current = snapshot
