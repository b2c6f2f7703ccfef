"""Rollouts on a virtual clock, with simulated deployments."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.controlplane.rollout.document import RolloutYaml
from gateway.controlplane.rollout.runner import Rollouts, steady
from gateway.controlplane.rollout.state import Move, RolloutStatus
from gateway.controlplane.rollout.view import describe
from gateway.controlplane.rollout.world import EndpointNow
from gateway.controlplane.store.errors import StoreBusy
from gateway.errors import Code, Problem
from tests.support.rollouts import START_S, Behaviour, SimulatedWorld, rollout

LEFT = "the traffic was left as it is"


def play(scene: Callable[[SimulatedWorld, Rollouts], Awaitable[None]], **world: Any) -> SimulatedWorld:
    """The scene in a world of its own; what is left of the world."""
    made = SimulatedWorld(**world)
    asyncio.run(scene(made, made.rollouts()))  # type: ignore[arg-type]
    return made


async def begin(world: SimulatedWorld, rollouts: Rollouts, seconds: int = 0, **more: Any) -> RolloutYaml:
    """A rollout that has gone on for so many seconds."""
    wanted = rollout(**more)
    await rollouts.start(wanted, "ann")
    await world.live(rollouts, seconds)
    return wanted


async def refused(work: Awaitable[object]) -> Problem:
    with pytest.raises(Problem) as caught:
        await work
    return caught.value


def shares_set(world: SimulatedWorld) -> list[dict[str, int]]:
    return [after for _, after, _ in world.moves]


# ---- by itself ----


def test_a_healthy_rollout_goes_through_its_steps_and_ends() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        await begin(world, rollouts, 160)

    world = play(scene)
    assert shares_set(world) == [
        {"blue": 99, "green": 1},
        {"blue": 90, "green": 10},
        {"blue": 50, "green": 50},
        {"green": 100},
    ]
    assert world.state().status is RolloutStatus.SUCCEEDED
    assert world.state().ended_at is not None
    assert world.event_names == ["RolloutStarted", *["RolloutStep"] * 4, "RolloutSucceeded"]
    assert {actor for _, _, actor in world.moves} == {"ann", "rollout r1"}


def test_the_first_step_waits_for_its_requests() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        await begin(world, rollouts, 40)
        assert world.state().step == 0
        view = rollouts.view("E1")
        assert view is not None
        assert "of 50 requests" in view.doing

    play(scene)


@pytest.mark.parametrize("step", [0, 1, 2, 3])
@pytest.mark.parametrize("bad", [Behaviour(fails=0.3), Behaviour(hangs_up=0.3), Behaviour(slow=0.3)])
def test_a_bad_deployment_is_rolled_back_within_its_step(bad: Behaviour, step: int) -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        await begin(world, rollouts)
        while world.state().step < step:
            await world.live(rollouts, 1)
        world.behaviours["green"] = bad
        began = world.now
        while not world.state().status.is_over:
            await world.live(rollouts, 1)
        assert world.now - began < 100
        assert world.state().step == step

    world = play(scene)
    assert world.state().status is RolloutStatus.ROLLED_BACK
    assert world.traffic == {"blue": 100}
    assert "accepted: at most" in world.state().reason
    assert world.event_names[-1] == "RolloutRolledBack"


def test_a_bad_deployment_may_pause_instead_and_nothing_judges_it_then() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        world.behaviours["green"].fails = 1.0
        await begin(world, rollouts, 60, on_failure="pause", steps=(10, 100))

    world = play(scene)
    assert world.state().status is RolloutStatus.PAUSED
    assert world.traffic == {"blue": 90, "green": 10}
    assert world.event_names[-1] == "RolloutPaused"


def test_trouble_of_both_rolls_nothing_back() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        for behaviour in world.behaviours.values():
            behaviour.fails, behaviour.slow = 0.2, 0.2
        guards = type(rollout().guards)(error_ratio_increase_max=0.1)
        await begin(world, rollouts, 160, guards=guards)

    assert play(scene, rate=300).state().status is RolloutStatus.SUCCEEDED


def test_too_little_traffic_holds_and_then_pauses() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        await begin(world, rollouts, 99)
        assert world.state().status is RolloutStatus.RUNNING
        await world.live(rollouts, 2)

    world = play(scene, rate=1)
    assert world.state().status is RolloutStatus.PAUSED
    assert "no progress: at 1 %; green had" in world.state().reason
    assert shares_set(world) == [{"blue": 99, "green": 1}]


def test_other_deployments_keep_their_share() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        world.behaviours["red"] = Behaviour()
        await begin(world, rollouts, 160, steps=(1, 25, 100))

    world = play(scene, traffic={"blue": 40, "red": 60}, deployments={"blue": "", "green": "", "red": ""})
    assert shares_set(world) == [
        {"blue": 39, "green": 1, "red": 60},
        {"blue": 30, "green": 10, "red": 60},
        {"green": 40, "red": 60},
    ]


def test_a_new_one_with_traffic_begins_at_the_step_that_it_has() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        await begin(world, rollouts, 15)
        assert world.moves[0] == ({"blue": 90, "green": 10}, {"blue": 50, "green": 50}, "rollout r1")
        await rollouts.cancel("e1", "r1", "ann")

    world = play(scene, traffic={"blue": 90, "green": 10})
    assert world.traffic == {"blue": 90, "green": 10}


# ---- commands ----


def test_pause_resume_promote_and_the_end() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        await begin(world, rollouts, 3)
        paused = await rollouts.pause("E1", "R1", "bob")
        assert (paused.status, paused.reason) == (RolloutStatus.PAUSED, "paused by bob")
        assert await rollouts.pause("e1", "r1", "bob") == paused
        await world.live(rollouts, 200)
        assert world.state() == paused
        resumed = await rollouts.resume("e1", "r1", "bob")
        assert (resumed.status, resumed.reason, resumed.step_since) == (RolloutStatus.RUNNING, "", world.now)
        assert await rollouts.resume("e1", "r1", "bob") == resumed
        assert (await rollouts.promote("e1", "r1", "bob")).traffic == {"blue": 90, "green": 10}
        await rollouts.pause("e1", "r1", "bob")
        assert (await rollouts.promote("e1", "r1", "bob")).traffic == {"blue": 50, "green": 50}
        assert (await rollouts.promote("e1", "r1", "bob")).traffic == {"green": 100}
        await rollouts.pause("e1", "r1", "bob")
        again = await rollouts.promote("e1", "r1", "bob")
        assert (again.status, again.step) == (RolloutStatus.RUNNING, 3)
        ended = await rollouts.promote("e1", "r1", "bob")
        assert (ended.status, ended.reason) == (RolloutStatus.SUCCEEDED, "promoted by bob")

    world = play(scene)
    assert world.event_names.count("RolloutPromoted") == 4
    assert [actor for _, _, actor in world.moves] == ["ann", "bob", "bob", "bob"]


def test_cancel_gives_the_traffic_back() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        await begin(world, rollouts, 80)
        assert world.traffic["green"] > 1
        state = await rollouts.cancel("e1", "r1", "bob")
        assert (state.status, state.reason) == (RolloutStatus.CANCELLED, "cancelled by bob")
        assert rollouts.view("e1") is None

    world = play(scene)
    assert world.traffic == {"blue": 100}


def test_commands_on_what_is_not_there_are_conflicts() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        problem = await refused(rollouts.pause("e1", "r1", "bob"))
        assert (problem.code, problem.message) == (
            Code.CONFLICT,
            "endpoint 'e1' has no rollout 'r1' that is not over already",
        )
        await begin(world, rollouts)
        problem = await refused(rollouts.cancel("e1", "r2", "bob"))
        assert problem.message.endswith("; 'r1' is under way")

    play(scene)


def test_only_one_rollout_at_a_time() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        first = await begin(world, rollouts, 5)
        assert await rollouts.start(first, "bob") == world.state()
        problem = await refused(rollouts.start(rollout(hold_s=1), "bob"))
        assert problem.code is Code.CONFLICT
        assert "'r1' of endpoint 'E1' is Running" in problem.message
        await rollouts.cancel("e1", "r1", "bob")
        await rollouts.start(rollout(hold_s=1), "bob")

    play(scene)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"exists": False}, Code.NOT_FOUND, "there is no endpoint 'E1' for 'r1'"),
        ({"traffic": {}}, Code.CONFLICT, "have no traffic to divide; the traffic is none"),
        ({"traffic": {"green": 100}}, Code.CONFLICT, "'Blue' has no traffic to give; the traffic is green: 100"),
        ({"deployments": {"blue": ""}}, Code.CONFLICT, "endpoint 'E1' has no deployment 'green'; it has: blue"),
        ({"deployments": {}}, Code.CONFLICT, "has no deployment 'blue'; it has: none; to: endpoint"),
        ({"deployments": {"blue": "", "green": "no file"}}, Code.CONFLICT, "'green' failed: no file"),
    ],
)
def test_what_cannot_begin_is_refused_and_nothing_is_kept(change: dict[str, Any], code: Code, said: str) -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        problem = await refused(rollouts.start(rollout(), "ann"))
        assert problem.code is code
        assert said in problem.message
        assert not world.saved
        assert rollouts.view("e1") is None

    play(scene, **change)


def test_a_rollout_with_mistakes_is_refused() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        problem = await refused(rollouts.start(rollout(steps=(5,)), "ann"))
        assert problem.code is Code.INVALID_INPUT

    play(scene)


# ---- others, and mishaps ----


def test_it_pauses_where_somebody_else_changes_the_traffic() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        await begin(world, rollouts, 5)
        world.traffic = {"blue": 70, "green": 30}
        await world.live(rollouts, 300)
        assert world.traffic == {"blue": 70, "green": 30}
        resumed = await rollouts.resume("e1", "r1", "ann")
        # Nothing is taken from the new one by going on.
        assert (resumed.step, resumed.traffic) == (2, {"blue": 50, "green": 50})
        await rollouts.cancel("e1", "r1", "ann")

    world = play(scene)
    assert world.traffic == {"blue": 100}
    paused = [message for name, message in world.events if name == "RolloutPaused"]
    assert paused == [
        "rollout r1: at 1 %: the traffic was changed by somebody else: found blue: 70, green: 30, "
        "left it at blue: 99, green: 1"
    ]


def test_cancelling_leaves_traffic_that_somebody_else_changed() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        await begin(world, rollouts, 5)
        world.traffic = {"blue": 70, "green": 30}
        state = await rollouts.cancel("e1", "r1", "ann")
        assert (state.status, state.reason) == (RolloutStatus.CANCELLED, f"cancelled by ann; {LEFT}")

    assert play(scene).traffic == {"blue": 70, "green": 30}


def test_promoting_does_not_overrule_somebody_else() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        await begin(world, rollouts, 5)
        world.traffic = {"blue": 70, "green": 30}
        problem = await refused(rollouts.promote("e1", "r1", "ann"))
        assert problem.code is Code.CONFLICT
        assert world.state().status is RolloutStatus.PAUSED
        assert (await rollouts.promote("e1", "r1", "ann")).traffic == {"blue": 50, "green": 50}

    play(scene)


def test_promoting_the_last_step_does_not_end_it_over_the_traffic_of_somebody_else() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        await begin(world, rollouts, steps=(100,))
        world.traffic = {"blue": 55, "green": 45}
        await refused(rollouts.promote("e1", "r1", "ann"))
        assert world.state().status is RolloutStatus.PAUSED

    play(scene)


def test_a_resume_without_anything_to_divide_is_refused() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        await begin(world, rollouts, 5)
        world.traffic = {"red": 100}
        await rollouts.tick()
        assert "Blue and green have no traffic" in (await refused(rollouts.resume("e1", "r1", "ann"))).message
        assert world.state().status is RolloutStatus.PAUSED

    play(scene)


@pytest.mark.parametrize(
    ("change", "reason", "traffic"),
    [
        ({"deployments": {"blue": "", "green": "model is corrupt"}}, "failed: model is corrupt", {"blue": 100}),
        ({"deployments": {"blue": ""}}, "deployment green was deleted", {"blue": 100}),
        ({"deployments": {"green": ""}}, f"Blue was deleted; {LEFT}", {"blue": 99, "green": 1}),
        ({"exists": False}, f"the endpoint was deleted; {LEFT}", {"blue": 99, "green": 1}),
        (
            {"deployments": {"blue": ""}, "traffic": {"blue": 60, "green": 40}},
            f"deployment green was deleted; {LEFT}",
            {"blue": 60, "green": 40},
        ),
    ],
)
@pytest.mark.parametrize("is_paused", [False, True])
def test_a_loss_ends_it(change: dict[str, Any], reason: str, traffic: dict[str, int], is_paused: bool) -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        await begin(world, rollouts, 5)
        if is_paused:
            await rollouts.pause("e1", "r1", "ann")
        for name, value in change.items():
            setattr(world, name, value)
        await rollouts.tick()
        assert rollouts.view("e1") is None

    world = play(scene)
    assert world.state().status is RolloutStatus.FAILED
    assert world.state().reason.endswith(reason)
    assert world.traffic == traffic


def test_a_step_that_cannot_be_set_is_tried_again_and_then_pauses() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        world.refuse = Problem(Code.CONFLICT, "the endpoint is being changed")
        state = await rollouts.start(rollout(), "ann")
        assert (state.status, state.move) == (RolloutStatus.RUNNING, Move.STEP)
        await world.live(rollouts, 50)
        view = rollouts.view("e1")
        assert view is not None
        assert "cannot be set to blue: 99, green: 1: the endpoint is being changed" in view.doing
        assert world.event_names == ["RolloutStarted", "RolloutWaiting"]
        await world.live(rollouts, 60)
        assert world.state().status is RolloutStatus.PAUSED
        world.refuse = None
        await world.live(rollouts, 60)
        assert not world.moves
        assert (await rollouts.resume("e1", "r1", "ann")).move is Move.NONE

    assert play(scene).traffic == {"blue": 99, "green": 1}


def test_a_roll_back_is_tried_until_it_is_done() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        await begin(world, rollouts, 5)
        world.behaviours["green"].fails = 1.0
        world.refuse = RuntimeError("a bug")
        await world.live(rollouts, 30)
        assert (world.state().status, world.state().move) == (RolloutStatus.RUNNING, Move.ROLL_BACK)
        problem = await refused(rollouts.promote("e1", "r1", "ann"))
        assert problem.message == "rollout 'r1' cannot be promoted: it is going back"
        assert (await rollouts.cancel("e1", "r1", "ann")).move is Move.ROLL_BACK
        world.refuse = None
        await world.live(rollouts, 1)

    world = play(scene)
    assert world.state().status is RolloutStatus.ROLLED_BACK
    assert world.traffic == {"blue": 100}


@pytest.mark.parametrize("change", [{"exists": False}, {"deployments": {"green": ""}}, {"traffic": {"green": 100}}])
def test_a_roll_back_that_became_impossible_ends(change: dict[str, Any]) -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        await begin(world, rollouts, 5)
        world.refuse = Problem(Code.UNAVAILABLE, "no")
        await rollouts.cancel("e1", "r1", "ann")
        for name, value in change.items():
            setattr(world, name, value)
        await rollouts.tick()
        assert (world.state().status, world.state().reason) == (
            RolloutStatus.CANCELLED,
            f"cancelled by ann; {LEFT}",
        )

    play(scene)


def test_a_change_that_was_made_although_it_failed_is_not_made_twice() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        world.refuse = Problem(Code.UNAVAILABLE, "lost the answer")
        await begin(world, rollouts)
        world.traffic = {"blue": 99, "green": 1}
        await rollouts.tick()
        assert world.state().move is Move.NONE
        assert world.state().status is RolloutStatus.RUNNING

    assert not play(scene).moves


def test_traffic_that_is_not_as_expected_at_the_last_moment_pauses() -> None:
    class Racing(SimulatedWorld):
        async def set_traffic(self, endpoint: str, shares: dict[str, int], **more: Any) -> None:
            self.traffic = {"blue": 20, "green": 80}
            await super().set_traffic(endpoint, shares, **more)

    async def scene() -> None:
        world = Racing()
        rollouts = world.rollouts()
        await rollouts.start(rollout(), "ann")
        await rollouts.tick()
        assert world.state().status is RolloutStatus.PAUSED
        assert world.traffic == {"blue": 20, "green": 80}

    asyncio.run(scene())


def test_while_the_store_is_away_a_rollout_waits_says_so_once_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class Forgetful(SimulatedWorld):
        is_away = False

        async def look(self, endpoint: str) -> EndpointNow | None:
            if self.is_away:
                raise StoreBusy("the database is away")
            return await super().look(endpoint)

    async def scene() -> None:
        world = Forgetful()
        rollouts = world.rollouts()
        await begin(world, rollouts, 5)
        world.is_away = True
        await world.live(rollouts, 50)
        view = rollouts.view("e1")
        assert view is not None
        assert view.doing == "the database is away"
        assert [one.getMessage() for one in caplog.records if one.levelname == "ERROR"] == [
            "rollout r1 of endpoint e1 waits: the database is away"
        ]
        world.is_away, world.refuse = False, StoreBusy("the database is away again")
        await world.live(rollouts, 10)
        view = rollouts.view("e1")
        assert view is not None
        assert view.doing.endswith(": the database is away again")
        world.refuse = None
        await world.live(rollouts, 200)
        assert world.state().status is RolloutStatus.SUCCEEDED

    asyncio.run(scene())


def test_counters_that_went_back_begin_the_window_anew() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        await begin(world, rollouts, 5, steps=(50, 100), stall_s=1000)
        world.record.drop("e1", "green")
        await world.live(rollouts, 1)
        view = rollouts.view("e1")
        assert view is not None
        assert view.seen is None
        await world.live(rollouts, 30)

    assert play(scene).state().status is RolloutStatus.SUCCEEDED


def test_a_busy_store_a_lost_event_and_a_silent_fleet_only_delay() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        world.broken_events = True
        await begin(world, rollouts, 5, steps=(50, 100))
        world.broken_collects = 3
        await world.live(rollouts, 3)
        world.broken_saves = 3
        await world.live(rollouts, 60)

    assert play(scene).state().status is RolloutStatus.SUCCEEDED


def test_a_start_that_cannot_be_saved_is_no_start() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        world.broken_saves = 1
        with pytest.raises(OSError, match="busy"):
            await rollouts.start(rollout(), "ann")
        assert rollouts.view("e1") is None
        assert not world.moves

    play(scene)


# ---- restart ----


def test_after_a_restart_the_step_goes_on_with_a_window_of_its_own() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        await begin(world, rollouts, 8, steps=(50, 100))
        world.now += 1000
        rollouts = await world.restarted()
        await world.live(rollouts, 9)
        assert (world.state().status, world.state().step) == (RolloutStatus.RUNNING, 0)
        await world.live(rollouts, 30)
        assert world.state().status is RolloutStatus.SUCCEEDED
        again = await world.restarted()
        assert again.view("e1") is None

    assert "RolloutRestored" in play(scene).event_names


def test_a_pause_outlives_a_restart() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        await begin(world, rollouts, 5)
        await rollouts.pause("e1", "r1", "ann")
        rollouts = await world.restarted()
        await world.live(rollouts, 50)
        view = rollouts.view("e1")
        assert view is not None
        assert view.doing == "paused by ann"
        await rollouts.cancel("e1", "r1", "ann")

    assert play(scene).traffic == {"blue": 100}


@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("is_back", [False, True])
def test_a_crash_in_the_middle_of_a_move_is_picked_up(is_done: bool, is_back: bool) -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        await begin(world, rollouts, 5)
        world.refuse = asyncio.CancelledError()
        command = rollouts.cancel if is_back else rollouts.promote
        with pytest.raises(asyncio.CancelledError):
            await command("e1", "r1", "ann")
        if is_done:
            world.traffic = dict(world.state().traffic)
        world.refuse = None
        rollouts = await world.restarted()
        await world.live(rollouts, 1)

    world = play(scene)
    expected = RolloutStatus.CANCELLED if is_back else RolloutStatus.RUNNING
    assert (world.state().status, world.state().move) == (expected, Move.NONE)
    assert world.traffic == ({"blue": 100} if is_back else {"blue": 90, "green": 10})


# ---- beside ----


def test_commands_and_looks_at_one_moment_are_one_after_the_other() -> None:
    class Slow(SimulatedWorld):
        async def set_traffic(self, endpoint: str, shares: dict[str, int], **more: Any) -> None:
            await asyncio.sleep(0)
            await super().set_traffic(endpoint, shares, **more)

        async def event(self, endpoint: str, deployment: str, name: str, message: str) -> None:
            await asyncio.sleep(0)
            await super().event(endpoint, deployment, name, message)

    async def scene() -> None:
        world = Slow()
        rollouts = world.rollouts()
        starts = [rollouts.start(rollout(), "ann") for _ in range(3)]
        await asyncio.gather(*starts, *(rollouts.tick() for _ in range(3)))
        await asyncio.gather(rollouts.start(rollout(), "ann"), rollouts.tick(), rollouts.tick())
        assert [after for _, after, _ in world.moves] == [{"blue": 99, "green": 1}]
        commands = [rollouts.cancel("e1", "r1", "ann") for _ in range(2)]
        await asyncio.gather(*commands, rollouts.tick(), rollouts.tick())
        with pytest.raises(Problem):
            await rollouts.pause("e1", "r1", "ann")
        assert world.event_names.count("RolloutCancelled") == 1
        assert world.traffic == {"blue": 100}

    asyncio.run(scene())


def test_a_command_that_waited_for_the_end_is_refused() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        await begin(world, rollouts)
        _, late = await asyncio.gather(
            rollouts.cancel("e1", "r1", "ann"), rollouts.pause("e1", "r1", "bob"), return_exceptions=True
        )
        assert isinstance(late, Problem)

    play(scene)


def test_counters_from_before_the_step_begin_no_window() -> None:
    class Late(SimulatedWorld):
        async def collect(self) -> Any:
            totals = await super().collect()
            self.now += 1
            await self.promoted
            return totals

        promoted: Any = None

    async def scene() -> None:
        world = Late()
        rollouts = world.rollouts()
        await rollouts.start(rollout(), "ann")
        world.promoted = rollouts.promote("e1", "r1", "ann")
        await rollouts.tick()
        view = rollouts.view("e1")
        assert view is not None
        assert (view.seen, view.state.step) == (None, 1)

    asyncio.run(scene())


def test_the_loop_looks_every_second_until_it_is_cancelled() -> None:
    async def scene() -> None:
        world, slept = SimulatedWorld(), []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:
                raise asyncio.CancelledError

        rollouts = Rollouts(world, lambda: world.now, sleep)
        with pytest.raises(asyncio.CancelledError):
            await rollouts.run()
        assert slept == [1.0, 1.0, 1.0]

    asyncio.run(scene())


def test_a_steady_clock_goes_on_from_the_given_time() -> None:
    clock = steady(START_S)
    first, second = clock(), clock()
    assert START_S <= first <= second < START_S + 60


def test_a_rollout_is_described_with_what_it_saw_and_waits_for() -> None:
    async def scene(world: SimulatedWorld, rollouts: Rollouts) -> None:
        await begin(world, rollouts, 5)
        view = rollouts.view("e1")
        assert view is not None
        tree = describe(view.rollout, view.state, view.seen, view.doing)
        assert tree["seen"]["Blue"]["requests"] > 300
        assert set(tree["seen"]["green"]) == {"requests", "failures", "p99_ms"}
        assert (tree["status"], tree["step"], tree["percent"]) == ("Running", 1, 1)
        assert tree["reason"] == "at 1 % for 5 of 10 s"
        await rollouts.cancel("e1", "r1", "ann")
        ended = describe(view.rollout, world.state(), None, "")
        assert "seen" not in ended
        assert (ended["status"], ended["reason"]) == ("Cancelled", "cancelled by ann")

    play(scene)
