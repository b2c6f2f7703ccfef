"""How many instances a deployment needs: pure decisions over what its scorers report.

Rule: utilisation is busy instances and waiting runs, over instances. Above the target the deployment gets at once
what its load needs; below it, instances go only after about twenty looks in a row, and as many stay as the busiest of
them needed. So a load that does not change is followed by one change at most, and one that swings by none down.
A run stands for the requests that share it: sixty requests that wait for one run are no work for sixty instances.
Units: seconds of any clock that goes forward; a look after a jump is one look. Percent of the target.
Errors: none. Nobody reports (no instances seen): nothing changes.
Source: Azure Machine Learning's `target_utilization` for Kubernetes online deployments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.resources import Scale
from gateway.telemetry.totals import ScorerTotals

# How many looks in a row must find less needed than there is.
LOOKS_BELOW = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleState:
    """What is remembered between looks: the instances that are wanted, when was looked last (None: never), how many
    looks in a row found less needed, and the most that any of these found."""

    instances: int
    looked_at: float | None = None
    below: int = 0
    highest: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Utilisation:
    """What one look sees, over all scorers: sessions, of which an instance may have several. `waiting`: how many runs
    it takes to run what waits for one."""

    instances: int
    busy: int
    waiting: int

    @property
    def percent(self) -> int:
        return 100 * (self.busy + self.waiting) // max(1, self.instances)


def utilisation(totals: ScorerTotals, endpoint: str, deployment: str) -> Utilisation:
    """Of one deployment, by its keys; one that nobody reports has no instances."""
    found = totals.endpoints.get(endpoint)
    seen = found.deployments.get(deployment) if found is not None else None
    if seen is None:
        return Utilisation(instances=0, busy=0, waiting=0)
    return Utilisation(instances=seen.instances, busy=seen.busy, waiting=seen.waiting_runs)


def decide(
    scale: Scale, state: ScaleState, seen: Utilisation, now: float, sessions: int = 1
) -> tuple[int, ScaleState, str]:
    """How many instances are wanted from now on, what to remember, and why that changed: "" where it did not.
    `sessions`: how many of what is seen one instance is.

    May be asked at any time; between two looks it answers what it answered last.
    """
    bounded = _bounded(scale, state.instances)
    if bounded != state.instances:
        why = f"from {scale.min_instances} to {scale.max_instances} instances are allowed"
        return _become(state, bounded, now, why)
    if state.looked_at is not None and 0 <= now - state.looked_at < scale.polling_interval_s:
        return state.instances, state, ""
    if not seen.instances:
        return state.instances, replace(state, looked_at=now), ""
    need = _bounded(scale, -(-100 * (seen.busy + seen.waiting) // (scale.target_percent * sessions)))
    if need > state.instances:
        return _become(state, need, now, _told(seen, scale))
    if need == state.instances:
        return state.instances, ScaleState(instances=need, looked_at=now), ""
    below, highest = state.below + 1, max(state.highest, need)
    if below < LOOKS_BELOW:
        return state.instances, replace(state, looked_at=now, below=below, highest=highest), ""
    return _become(state, highest, now, f"{_told(seen, scale)}, and {below} looks needed no more than {highest}")


def _become(state: ScaleState, instances: int, now: float, why: str) -> tuple[int, ScaleState, str]:
    change = f"{state.instances} instance{'s' if state.instances != 1 else ''} become {instances}"
    return instances, ScaleState(instances=instances, looked_at=now), f"{change}: {why}"


def _bounded(scale: Scale, instances: int) -> int:
    return min(max(instances, scale.min_instances), scale.max_instances)


def _told(seen: Utilisation, scale: Scale) -> str:
    return (
        f"utilisation is {seen.percent} % ({seen.busy} of {seen.instances} busy, {seen.waiting} runs waiting), "
        f"the target {scale.target_percent} %"
    )
