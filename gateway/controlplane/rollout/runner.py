"""Rollouts: every second looks at what the scorers counted, decides, and moves traffic; takes commands in between.

Why the order: a move is saved before the traffic is touched and settled after, and both can be done again. So a crash
at any moment is picked up at the next start; what was under way is done, and the step's window begins anew.
A rollout changes traffic only where it is as the rollout left it. If anybody else changed it, the rollout pauses and
says so; `resume` then goes on from what it finds.
Units: seconds since 1970 that never go back (`steady`); traffic in percent.
Errors: commands raise Problem (CONFLICT, NOT_FOUND, INVALID_INPUT). A traffic change that fails is tried again every
second: a step until `stall_s` is over, a roll back for as long as it takes.
Threads: the supervisor's loop only. A rollout's moves and commands are one after the other, by its lock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import assert_never

from gateway.controlplane.rollout import decide as verdict
from gateway.controlplane.rollout.decide import Decision, decide, remember
from gateway.controlplane.rollout.document import RolloutYaml, check, refuse
from gateway.controlplane.rollout.observe import Observation, observe
from gateway.controlplane.rollout.state import (
    Move,
    RolloutState,
    RolloutStatus,
    Traffic,
    back,
    first_step,
    normal,
    shares,
)
from gateway.controlplane.rollout.view import View
from gateway.controlplane.rollout.world import EndpointNow, World, lost, obstacles, said_of
from gateway.controlplane.store.errors import StoreBusy
from gateway.errors import Code, Problem
from gateway.telemetry.totals import ScorerTotals
from runtimes import now_ns

log = logging.getLogger(__name__)

INTERVAL_S = 1.0

_LEFT = "the traffic was left as it is"


def steady(wall_s: float) -> Callable[[], float]:
    """The time since 1970 that goes on evenly from now, whatever is done to the wall clock."""
    began_ns = now_ns()
    return lambda: wall_s + (now_ns() - began_ns) / 1e9


class _Run:
    """One rollout that is not over. `state` is what was saved; `begin` are the counters when the window began."""

    __slots__ = ("begin", "doing", "lock", "rollout", "seen", "state")

    def __init__(self, rollout: RolloutYaml, state: RolloutState) -> None:
        self.rollout = rollout
        self.state = state
        self.lock = asyncio.Lock()
        self.begin: ScorerTotals | None = None
        self.seen: Observation | None = None
        self.doing = state.reason

    def new_window(self) -> None:
        self.begin = self.seen = None
        self.doing = self.state.reason or "the window of the step begins"

    def is_ours(self, traffic: Traffic) -> bool:
        """Whether traffic is as this rollout left it, or, in the middle of a move, found it."""
        state = self.state
        return traffic == state.traffic or (state.move is not Move.NONE and traffic == state.traffic_from)

    @property
    def percent(self) -> int:
        return self.rollout.steps[self.state.step]


class Rollouts:
    """All rollouts that are not over, at most one an endpoint."""

    def __init__(
        self, world: World, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._world = world
        self._clock = clock
        self._sleep = sleep
        self._runs: dict[str, _Run] = {}
        self._starting = asyncio.Lock()

    # ---- what is going on ----

    def view(self, endpoint: str) -> View | None:
        """The endpoint's rollout; None where there is none that is not over."""
        run = self._runs.get(endpoint.lower())
        if run is None:
            return None
        return View(rollout=run.rollout, state=run.state, seen=run.seen, doing=run.doing)

    # ---- commands ----

    async def restore(self, saved: Iterable[tuple[RolloutYaml, RolloutState]]) -> None:
        """At start: rollouts that were not over go on from their step, whose window begins anew."""
        for rollout, state in saved:
            if state.status.is_over:
                continue
            run = _Run(rollout, replace(state, step_since=self._clock()))
            run.new_window()
            self._runs[rollout.endpoint] = run
            await self._tell(run, "RolloutRestored", f"{_at(run)} after a restart, {state.status}")

    async def start(self, rollout: RolloutYaml, actor_name: str) -> RolloutState:
        """Begin. The same rollout again is no mistake while it goes on; another one is a conflict.

        Saved when it returns; the first step's traffic is set, or its failure is in the view and it is tried again.
        """
        refuse(check(rollout), f"rollout {rollout.name!r}", Code.INVALID_INPUT)
        async with self._starting:
            run = self._runs.get(rollout.endpoint)
            if run is not None:
                if run.rollout == rollout:
                    return run.state
                raise Problem(
                    Code.CONFLICT,
                    f"rollout {rollout.name!r} cannot begin: {run.rollout.name!r} of endpoint "
                    f"{rollout.endpoint_name!r} is {run.state.status}; cancel it, or wait for its end",
                )
            now = await self._fit(rollout)
            traffic, time = normal(now.traffic), self._clock()
            if not traffic.get(rollout.old):
                gives = f"from: {rollout.from_!r} has no traffic to give; the traffic is {said_of(traffic)}"
                refuse([gives], f"rollout {rollout.name!r}", Code.CONFLICT)
            state = RolloutState(started_at=time, step_since=time, traffic_before=traffic, traffic=traffic)
            run = _Run(rollout, state)
            step = first_step(rollout, traffic)
            await self._plan_move(run, Move.STEP, step, traffic, actor_name, "")
            self._runs[rollout.endpoint] = run
        await self._tell(run, "RolloutStarted", f"from {rollout.from_} to {rollout.to}, by {actor_name}")
        async with run.lock:
            # Unless the tick, or a command, was here first.
            if run.state.status is RolloutStatus.RUNNING and run.state.move is Move.STEP:
                await self._carry_out(run, traffic)
            return run.state

    async def pause(self, endpoint: str, name: str, actor_name: str) -> RolloutState:
        """Stay as it is: no step, and no guard either, until `resume`, `promote` or `cancel`."""
        run = self._named(endpoint, name)
        async with run.lock:
            self._refuse_if_ending(run, "paused")
            if run.state.status is RolloutStatus.RUNNING:
                await self._pause(run, f"paused by {actor_name}")
            return run.state

    async def resume(self, endpoint: str, name: str, actor_name: str) -> RolloutState:
        """Go on with the step from the traffic as it is now, even where somebody else changed it."""
        run = self._named(endpoint, name)
        async with run.lock:
            self._refuse_if_ending(run, "resumed")
            if run.state.status is RolloutStatus.PAUSED:
                await self._go_to(run, run.state.step, "RolloutResumed", actor_name)
            return run.state

    async def promote(self, endpoint: str, name: str, actor_name: str) -> RolloutState:
        """The next step now, whatever the guards say; at the last step, the end."""
        run = self._named(endpoint, name)
        async with run.lock:
            self._refuse_if_ending(run, "promoted")
            last = len(run.rollout.steps) - 1
            is_settled = run.state.status is RolloutStatus.RUNNING and run.state.move is Move.NONE
            if run.state.step == last and is_settled:
                await self._fit_and_ours(run)
                await self._end(run, RolloutStatus.SUCCEEDED, f"promoted by {actor_name}")
            else:
                await self._go_to(run, min(run.state.step + 1, last), "RolloutPromoted", actor_name)
            return run.state

    async def cancel(self, endpoint: str, name: str, actor_name: str) -> RolloutState:
        """Back to the traffic before; left as it is where somebody else has changed it."""
        run = self._named(endpoint, name)
        async with run.lock:
            if run.state.status.is_over or run.state.move.is_back:
                return run.state
            now = await self._world.look(run.rollout.endpoint)
            await self._go_back(run, now, Move.CANCEL, f"cancelled by {actor_name}", actor_name)
            return run.state

    # ---- every second ----

    async def run(self) -> None:
        """Look again and again, until this is cancelled."""
        while True:
            await self.tick()
            await self._sleep(INTERVAL_S)

    async def tick(self) -> None:
        """Look once at every rollout. What goes wrong is logged, and looked at again the next time."""
        if not self._runs:
            return
        collected_at = self._clock()
        try:
            totals = await self._world.collect()
        except Exception:
            log.exception("the scorers' counters cannot be collected for the rollouts; trying again")
            return
        await asyncio.gather(*(self._tick(run, totals, collected_at) for run in list(self._runs.values())))

    async def _tick(self, run: _Run, totals: ScorerTotals, collected_at: float) -> None:
        async with run.lock:
            if run.state.status.is_over:
                return
            try:
                await self._look_at(run, totals, collected_at)
            except StoreBusy as error:
                # Said once: it may last, and the cause is known.
                if run.doing != str(error):
                    run.doing = str(error)
                    log.error("rollout %s of endpoint %s waits: %s", run.rollout.name, run.rollout.endpoint, error)
            except Exception:
                log.exception("rollout %s of endpoint %s: trying again", run.rollout.name, run.rollout.endpoint)

    async def _look_at(self, run: _Run, totals: ScorerTotals, collected_at: float) -> None:
        now = await self._world.look(run.rollout.endpoint)
        if not run.state.move.is_back and (reason := lost(run.rollout, now)):
            await self._go_back(run, now, Move.FAIL, reason, "")
        elif now is None or (run.state.move.is_back and not self._may_go_back(run, now)):
            await self._end(run, run.state.move.ends_as, f"{run.state.reason}; {_LEFT}")
        elif run.state.status is RolloutStatus.PAUSED:
            return
        elif not run.is_ours(traffic := normal(now.traffic)):
            await self._pause(run, _foreign(run.state.traffic, traffic))
        elif run.state.move is not Move.NONE:
            await self._carry_out(run, traffic)
        elif collected_at >= run.state.step_since:
            # Counters from before the step, for whose traffic this waited, say nothing of it.
            await self._judge(run, totals)

    async def _judge(self, run: _Run, totals: ScorerTotals) -> None:
        rollout = run.rollout
        run.begin = run.begin or totals
        seen = observe(run.begin, totals, rollout.endpoint, rollout.old, rollout.new)
        if seen is None:
            run.new_window()
            return
        run.seen = seen
        await self._act(run, decide(rollout, run.state, seen, self._clock()))

    async def _act(self, run: _Run, decision: Decision) -> None:
        match decision:
            case verdict.Hold():
                run.doing = decision.reason
            case verdict.Advance():
                await self._step(run, run.state.step + 1, run.state.traffic, "")
            case verdict.Finish():
                await self._end(run, RolloutStatus.SUCCEEDED, "every step was held and every guard kept")
            case verdict.Pause():
                await self._pause(run, decision.reason)
            case verdict.RollBack():
                now = await self._world.look(run.rollout.endpoint)
                await self._go_back(run, now, Move.ROLL_BACK, decision.reason, "")
            case _:
                assert_never(decision)

    # ---- moves ----

    async def _go_to(self, run: _Run, step: int, event: str, actor_name: str) -> None:
        """On to a step because a person says so, from the traffic as it is."""
        traffic = await self._fit_and_ours(run)
        await self._tell(run, event, f"{_at(run)}, by {actor_name}")
        await self._step(run, max(step, first_step(run.rollout, traffic)), traffic, actor_name)

    async def _step(self, run: _Run, step: int, traffic: Traffic, actor_name: str) -> None:
        await self._plan_move(run, Move.STEP, step, traffic, actor_name, "")
        await self._carry_out(run, traffic)

    async def _go_back(self, run: _Run, now: EndpointNow | None, move: Move, reason: str, actor_name: str) -> None:
        """Give the old one its traffic back, if it is there and the traffic is ours to change; then it is over."""
        if now is None or not self._may_go_back(run, now):
            await self._end(run, move.ends_as, f"{reason}; {_LEFT}")
            return
        traffic = normal(now.traffic)
        await self._plan_move(run, move, run.state.step, traffic, actor_name, reason)
        await self._carry_out(run, traffic)

    def _may_go_back(self, run: _Run, now: EndpointNow) -> bool:
        """Whether the old one is there to take its traffic, and the traffic is ours to change."""
        return run.rollout.old in now.deployments and run.is_ours(normal(now.traffic))

    async def _plan_move(
        self, run: _Run, move: Move, step: int, traffic: Traffic, actor_name: str, reason: str
    ) -> None:
        """Write down what is about to be done, before it is done."""
        rollout, state = run.rollout, run.state
        before = back(rollout, traffic, state.traffic_before)
        target = before if move.is_back else shares(rollout, traffic, rollout.steps[step])
        worst = state.worst if run.seen is None else remember(rollout, state.worst, run.seen)
        planned = replace(
            state,
            status=RolloutStatus.RUNNING,
            move=move,
            step=step,
            step_since=self._clock(),
            traffic_before=before,
            traffic=target,
            traffic_from=traffic,
            moved_by=actor_name or f"rollout {rollout.name}",
            worst=worst,
            reason=reason,
        )
        await self._save(run, planned)
        run.new_window()
        run.doing = reason or f"setting the traffic to {said_of(target)}"

    async def _carry_out(self, run: _Run, traffic: Traffic) -> None:
        """Do what was written down, unless the traffic as it is shows it done; a failure is left for later."""
        state = run.state
        if traffic != state.traffic:
            why = state.reason or f"step of {run.percent} %"
            try:
                await self._world.set_traffic(
                    run.rollout.endpoint,
                    state.traffic,
                    expected=state.traffic_from,
                    actor_name=state.moved_by,
                    reason=f"rollout {run.rollout.name}: {why}",
                )
            except (Problem, StoreBusy) as error:
                await self._could_not(run, str(error))
                return
            except Exception:
                log.exception("rollout %s cannot set the traffic", run.rollout.name)
                await self._could_not(run, "the gateway failed; its log has the cause")
                return
        if state.move.is_back:
            await self._end(run, state.move.ends_as, state.reason)
            return
        await self._save(run, replace(state, move=Move.NONE, step_since=self._clock()))
        run.new_window()
        await self._tell(run, "RolloutStep", f"{run.rollout.to} gets {run.percent} %: {said_of(state.traffic)}")

    async def _could_not(self, run: _Run, cause: str) -> None:
        reason = f"the traffic cannot be set to {said_of(run.state.traffic)}: {cause}"
        waited_s = self._clock() - run.state.step_since
        if run.state.move is Move.STEP and waited_s >= run.rollout.stall_s:
            await self._pause(run, f"no progress: {reason}")
        elif run.doing != reason:
            run.doing = reason
            await self._tell(run, "RolloutWaiting", f"{reason}; trying again")

    async def _pause(self, run: _Run, reason: str) -> None:
        await self._save(run, replace(run.state, status=RolloutStatus.PAUSED, reason=reason))
        run.doing = reason
        await self._tell(run, "RolloutPaused", f"{_at(run)}: {reason}")

    async def _end(self, run: _Run, status: RolloutStatus, reason: str) -> None:
        ended = replace(run.state, status=status, reason=reason, move=Move.NONE, ended_at=self._clock())
        await self._save(run, ended)
        run.doing = reason
        if self._runs.get(run.rollout.endpoint) is run:
            del self._runs[run.rollout.endpoint]
        await self._tell(run, f"Rollout{status}", reason)

    # ---- beside ----

    async def _save(self, run: _Run, state: RolloutState) -> None:
        """The state is what was saved: where that fails, it is still the old one."""
        await self._world.save(run.rollout, state)
        run.state = state

    async def _tell(self, run: _Run, name: str, message: str) -> None:
        """An event that cannot be kept must not hold up a roll back."""
        text = f"rollout {run.rollout.name}: {message}"
        log.info("endpoint %s, %s", run.rollout.endpoint, text)
        try:
            await self._world.event(run.rollout.endpoint, run.rollout.new, name, text)
        except Exception:
            log.exception("the event %s of endpoint %s cannot be kept", name, run.rollout.endpoint)

    async def _fit(self, rollout: RolloutYaml) -> EndpointNow:
        """The endpoint, where this rollout may move its traffic; else Problem."""
        now = await self._world.look(rollout.endpoint)
        if now is None:
            raise Problem(Code.NOT_FOUND, f"there is no endpoint {rollout.endpoint_name!r} for {rollout.name!r}")
        refuse(obstacles(rollout, now), f"rollout {rollout.name!r}", Code.CONFLICT)
        return now

    async def _fit_and_ours(self, run: _Run) -> Traffic:
        """The traffic now; Problem, and a pause, where somebody else changed it behind a rollout that runs."""
        traffic = normal((await self._fit(run.rollout)).traffic)
        if run.state.status is RolloutStatus.RUNNING and not run.is_ours(traffic):
            await self._pause(run, _foreign(run.state.traffic, traffic))
            raise Problem(Code.CONFLICT, f"rollout {run.rollout.name!r} has paused: {run.state.reason}")
        return traffic

    def _named(self, endpoint: str, name: str) -> _Run:
        run = self._runs.get(endpoint.lower())
        if run is None or run.rollout.name.lower() != name.lower():
            found = f"; {run.rollout.name!r} is under way" if run is not None else ""
            raise Problem(
                Code.CONFLICT, f"endpoint {endpoint!r} has no rollout {name!r} that is not over already{found}"
            )
        return run

    def _refuse_if_ending(self, run: _Run, verb: str) -> None:
        state = run.state
        if state.status.is_over or state.move.is_back:
            doing = state.status if state.status.is_over else "going back"
            raise Problem(Code.CONFLICT, f"rollout {run.rollout.name!r} cannot be {verb}: it is {doing}")


def _foreign(left: Traffic, found: Traffic) -> str:
    return f"the traffic was changed by somebody else: found {said_of(found)}, left it at {said_of(left)}"


def _at(run: _Run) -> str:
    return f"at {run.percent} %"
