"""What a rollout may say: from which deployment to which, in which steps, and what forbids to go on.

The field descriptions are the reference documentation. Names of deployments are matched whatever their case.
Units: *_s seconds, *_ms milliseconds; steps in percent, ratios from 0 to 1.
Errors: `check` gives sentences; `rollout_of` raises Problem INVALID_INPUT with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from gateway.errors import Code, Problem

STEPS_MAX = 20

# A name becomes part of a path and of the store's keys.
_NAME = re.compile(r"[A-Za-z0-9]([-_A-Za-z0-9]{0,62}[A-Za-z0-9])?")

_Percent = Annotated[int, Meta(ge=1, le=100)]
_Seconds = Annotated[int, Meta(ge=0, le=2_592_000)]


class GuardsYaml(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much worse than the old deployment the new one may be in a step."""

    error_ratio_increase_max: Annotated[
        Annotated[float, Meta(ge=0, le=1)],
        Meta(
            description="Most by which the share of failed requests may be above the old deployment's. Failures: "
            "408, 424, 429, 5xx, and callers who left before their answer; a caller's own 4xx are none."
        ),
    ] = 0.01
    p99_ratio_max: Annotated[
        Annotated[float, Meta(ge=1, le=1000)],
        Meta(description="Most that the 99th percentile of the durations may be, as a multiple of the old one's."),
    ] = 1.5
    p99_floor_ms: Annotated[
        Annotated[float, Meta(ge=0, le=300_000)],
        Meta(description="A 99th percentile that is higher by no more than this never counts as worse."),
    ] = 5.0
    requests_min: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)],
        Meta(
            description="Requests that the new deployment must have had in a step before the next one. From 10 "
            "requests on (or from this, if it is less) a guard acts on what cannot be chance."
        ),
    ] = 50


class RolloutYaml(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rollout on an online endpoint."""

    name: Annotated[str, Meta(description="1 to 64 letters, digits, dashes and underscores.")]
    endpoint_name: Annotated[str, Meta(description="The endpoint whose traffic it changes.")]
    from_: Annotated[str, Meta(description="The deployment that gives its traffic away.")] = field(name="from")
    to: Annotated[str, Meta(description="The deployment that gets it.")]
    steps: Annotated[
        tuple[_Percent, ...],
        Meta(
            description="Percent of what both have together that `to` gets, rising and ending at 100.",
            max_length=STEPS_MAX,
        ),
    ] = (1, 10, 50, 100)
    hold_s: Annotated[_Seconds, Meta(description="How long each step lasts at least.")] = 300
    stall_s: Annotated[
        _Seconds,
        Meta(
            description="After this long in one step, with too few requests or a guard in doubt, the rollout pauses; "
            "at least `hold_s`."
        ),
    ] = 3600
    guards: Annotated[GuardsYaml, Meta(description="What forbids to go on.")] = GuardsYaml()
    on_failure: Annotated[
        Literal["roll_back", "pause"],
        Meta(description="What is done when a guard is broken: `from` gets its traffic back, or nothing moves."),
    ] = "roll_back"

    @property
    def old(self) -> str:
        """The key of the deployment that gives its traffic away."""
        return self.from_.lower()

    @property
    def new(self) -> str:
        """The key of the deployment that gets it."""
        return self.to.lower()

    @property
    def endpoint(self) -> str:
        """The endpoint's key."""
        return self.endpoint_name.lower()


def check(rollout: RolloutYaml) -> list[str]:
    """All that is wrong with a rollout by itself; nothing is said of whether its deployments exist."""
    return list(_mistakes(rollout))


def _mistakes(rollout: RolloutYaml) -> Iterator[str]:
    if not _NAME.fullmatch(rollout.name):
        yield (
            f"name: found {rollout.name[:80]!r}; accepted: 1 to 64 letters, digits, dashes and underscores, "
            "with a letter or digit at both ends"
        )
    for key, value in (("from", rollout.from_), ("to", rollout.to)):
        if not value:
            yield f"{key}: found nothing; accepted: the name of a deployment"
    if rollout.old == rollout.new:
        yield f"to: found {rollout.to!r}, which is `from` too; accepted: another deployment"
    steps = rollout.steps
    rises = all(low < high for low, high in pairwise(steps))
    if not steps or not rises or steps[-1] != 100:
        found = ", ".join(str(step) for step in steps) or "none"
        yield f"steps: found {found}; accepted: rising percentages, the last of which is 100"
    if rollout.stall_s < rollout.hold_s:
        yield f"stall_s: found {rollout.stall_s}; accepted: at least hold_s, which is {rollout.hold_s}"


def rollout_of(endpoint: str, name: str, properties: Mapping[str, Any]) -> RolloutYaml:
    """The rollout that a request's properties describe; both names come from its path."""
    given = {key: value for key, value in properties.items() if value is not None}
    for key, said in (("endpoint_name", endpoint), ("name", name)):
        if str(given.get(key, said)).lower() != said.lower():
            raise Problem(Code.INVALID_INPUT, f"{key}: found {given[key]!r}; accepted: {said!r}, as the path says")
    try:
        rollout = msgspec.convert(given | {"endpoint_name": endpoint, "name": name}, RolloutYaml)
    except msgspec.ValidationError as error:
        raise Problem(Code.INVALID_INPUT, f"rollout {name!r} cannot be read: {error}") from error
    refuse(check(rollout), f"rollout {name!r}", Code.INVALID_INPUT)
    return rollout


def refuse(sentences: list[str], what: str, code: Code) -> None:
    """Raises the Problem that these sentences are, if there are any."""
    if sentences:
        raise Problem(code, f"{what} was refused: {'; '.join(sentences)}", details=tuple(sentences))
