"""Which deployment answers: by header or version, else by traffic weights. Pure: the turn is an argument.

Promise: over any 100 consecutive turns each deployment is chosen exactly as often as its weight says, and the
choices are spread evenly, not in blocks.
Errors: Problem NOT_FOUND, naming what was asked for and what there is; UNAVAILABLE where it failed to load.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from gateway.errors import Code, Problem, retry_after

T = TypeVar("T")

CYCLE = 100


def cycle(weights: Mapping[str, int]) -> tuple[str, ...]:
    """One round of 100 choices (none where all weights are 0), by smooth weighted round robin.

    Every rotation of the round holds each name exactly its weight times, so any 100 consecutive turns do.
    """
    if sum(weights.values()) != CYCLE:
        return ()
    credit = dict.fromkeys(weights, 0)
    choices = []
    for _ in range(CYCLE):
        for name, weight in weights.items():
            credit[name] += weight
        chosen = max(credit, key=lambda name: credit[name])
        credit[chosen] -= CYCLE
        choices.append(chosen)
    return tuple(choices)


def among(choices: Sequence[str], names: Collection[str], weights: Mapping[str, int]) -> tuple[str, ...]:
    """What of a round falls to these; where nothing does, the first of those with most weight has it all."""
    found = tuple(name for name in choices if name in names)
    return found if found or not choices else (max(names, key=lambda name: weights.get(name, 0)),)


def mirrors(percent: int, turn: int) -> bool:
    """Whether this turn is copied: exactly `percent` of any 100 consecutive turns, evenly spread."""
    return (turn * percent) % CYCLE < percent


def named(deployments: Mapping[str, T], failed: Mapping[str, str], name: str, endpoint: str) -> T:
    """The deployment that the caller asked for by name."""
    found = deployments.get(name) or deployments.get(name.lower())
    if found is not None:
        return found
    if name.lower() in failed:
        raise _failed(name, endpoint, failed[name.lower()])
    there = ", ".join(sorted(deployments)) or "none"
    raise Problem(
        Code.NOT_FOUND, f"endpoint {endpoint!r} has no deployment {name!r}; it has: {there}", reason="not_found"
    )


def weighted(
    deployments: Mapping[str, T], failed: Mapping[str, str], choices: Sequence[str], turn: int, endpoint: str
) -> T:
    """The deployment whose turn it is."""
    if not choices:
        raise Problem(
            Code.NOT_FOUND,
            f"endpoint {endpoint!r} has no deployment with traffic; set its traffic, or name a deployment in the "
            "header azureml-model-deployment",
            reason="not_found",
        )
    name = choices[turn % len(choices)]
    found = deployments.get(name)
    if found is None:
        raise _failed(name, endpoint, failed.get(name, "it is not loaded"))
    return found


def _failed(name: str, endpoint: str, reason: str) -> Problem:
    return Problem(
        Code.UNAVAILABLE,
        f"deployment {name!r} of endpoint {endpoint!r} failed to load: {reason}",
        headers=(retry_after(10),),
        reason="not_ready",
    )
