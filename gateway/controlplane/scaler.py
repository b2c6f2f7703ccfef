"""Scaler: adds and removes instances of the deployments that ask for it, as their load goes.

Every second it looks at what the scorers report and asks autoscale.py; a new number goes the way of any change that
touches only capacity, so no request fails. The document stays as it is: what runs now is the publisher's to say.
Errors: a change that fails is logged and tried at the next look.
Units: *_s seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.controlplane.autoscale import ScaleState, decide, utilisation
from gateway.controlplane.control import Control
from gateway.controlplane.steps import REFUSALS
from gateway.errors import Code, Problem
from gateway.resources import Deployment
from gateway.telemetry.totals import ScorerTotals

log = logging.getLogger(__name__)

INTERVAL_S = 1.0


class Scaler:
    """One gateway's. `clock` goes forward only."""

    def __init__(
        self,
        control: Control,
        collect: Callable[[], Awaitable[ScorerTotals]],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._control = control
        self._collect = collect
        self._clock = clock
        self._sleep = sleep
        self._states: dict[str, ScaleState] = {}

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._sleep(INTERVAL_S)
            await self.look()

    async def look(self) -> None:
        """Once at every deployment that may scale."""
        deployments = self._control.publisher.desired.deployments
        learned = self._control.publisher.applied.learned
        wanted = {
            name: one
            for name, one in (("/".join(key), one) for key, one in deployments.items())
            # One that runs on the loop has one instance a scorer, whatever is wanted.
            if one.scale is not None and name in learned and learned[name].dispatch == "thread"
        }
        self._states = {name: state for name, state in self._states.items() if name in wanted}
        if not wanted:
            return
        totals = await self._collect()
        for name, deployment in wanted.items():
            await self._look_at(name, deployment, totals)

    async def _look_at(self, name: str, deployment: Deployment, totals: ScorerTotals) -> None:
        assert deployment.scale is not None
        now = self._control.publisher.instances.get(name, deployment.instance_count)
        state = self._states.get(name)
        if state is None or state.instances != now:
            state = ScaleState(instances=now)
        endpoint, _, key = name.partition("/")
        seen = utilisation(totals, endpoint, key)
        instances, after, why = decide(deployment.scale, state, seen, self._clock(), deployment.sessions)
        if instances != now:
            try:
                # While somebody changes the endpoint it is left alone: both would load the same deployment.
                with self._control.claims.taking(endpoint, "scaling"):
                    if self._control.publisher.desired.deployments.get((endpoint, key)) != deployment:
                        return
                    await self._control.publisher.scale(name, instances)
            except REFUSALS as error:
                log.log(
                    logging.DEBUG if _is_held(error) else logging.ERROR,
                    "deployment %s could not be scaled: %s",
                    *(name, error),
                )
                return
            log.info("deployment %s: %s", name, why)
            await self._control.tell(name, "scale", why)
        self._states[name] = after


def _is_held(error: BaseException) -> bool:
    return isinstance(error, Problem) and error.code is Code.CONFLICT
