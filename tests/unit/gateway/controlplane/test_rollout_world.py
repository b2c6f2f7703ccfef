"""What a rollout sees of an endpoint, and how it moves traffic: only where it is as expected."""

from __future__ import annotations

import pytest

from gateway.controlplane.rollout.document import RolloutYaml
from gateway.controlplane.rollout.state import RolloutState
from gateway.controlplane.rollout_world import RolloutWorld
from gateway.controlplane.store.records import Kind, State
from gateway.errors import Code, Problem
from gateway.telemetry.record import ScorerRecord
from gateway.telemetry.totals import ScorerTotals
from tests.support.plane import Plane, deployment_ref, endpoint_ref
from tests.support.stores import resource


async def collect() -> ScorerTotals:
    return ScorerRecord().snapshot()


@pytest.fixture
def world(plane: Plane) -> RolloutWorld:
    """Blue has all traffic, green a mirror, red failed to load and lime is being made."""
    plane.serving()
    plane.put_deployment("green")
    plane.put_endpoint(traffic={"blue": 100}, mirror_traffic={"green": 10}, tags={"a": "b"})
    plane.scorers.failing["digits/red"] = "no"
    plane.put_deployment("red")
    return RolloutWorld(plane.control, collect)


def move(plane: Plane, world: RolloutWorld, shares: dict[str, int], expected: dict[str, int]) -> None:
    plane.run(world.set_traffic("digits", shares, expected=expected, actor_name="ann", reason="step 1"))


def test_it_sees_the_traffic_and_why_a_deployment_takes_none(plane: Plane, world: RolloutWorld) -> None:
    found = plane.run(world.look("digits"))
    assert found is not None
    assert found.traffic == {"blue": 100}
    assert found.deployments == {"blue": "", "green": "", "red": "deployment digits/red: no"}
    assert plane.run(world.look("letters")) is None
    assert plane.run(world.collect()).endpoints == {}
    plane.scorers.failing["digits/green"] = "the disk is broken"
    plane.restart()
    found = plane.run(RolloutWorld(plane.control, collect).look("digits"))
    assert found is not None
    assert found.deployments["green"] == "the disk is broken"


def test_a_deployment_that_is_being_made_takes_no_traffic(plane: Plane, world: RolloutWorld) -> None:
    row = resource("lime", "digits", Kind.ONLINE_DEPLOYMENT, state=State.CREATING)
    plane.write(lambda tx: tx.put(row, expected=None))
    found = plane.run(world.look("digits"))
    assert found is not None
    assert found.deployments["lime"] == "its state is Creating"


def test_traffic_moves_and_nothing_else(plane: Plane, world: RolloutWorld) -> None:
    move(plane, world, {"blue": 90, "green": 10}, {"blue": 100})
    found = plane.need(endpoint_ref())
    # One that has traffic has no mirror.
    assert found.document == {"name": "digits", "traffic": {"blue": 90, "green": 10}, "tags": {"a": "b"}}
    audit = plane.read(lambda tx: tx.audits(before=None, limit=1))[0]
    assert (audit.who, audit.source) == ("ann", "rollout: step 1")
    plane.put_endpoint(traffic={"blue": 100, "green": 0})
    move(plane, world, {"blue": 50, "green": 50}, {"blue": 100})
    assert plane.traffic() == {"blue": 50, "green": 50}
    plane.agree()


def test_traffic_that_somebody_else_changed_is_left_alone(plane: Plane, world: RolloutWorld) -> None:
    with pytest.raises(Problem) as caught:
        move(plane, world, {"green": 100}, {"blue": 90, "green": 10})
    assert caught.value.code is Code.PRECONDITION_FAILED
    assert plane.traffic() == {"blue": 100}
    plane.control.claims.take("digits", "update")
    with pytest.raises(Problem) as caught:
        move(plane, world, {"green": 100}, {"blue": 100})
    assert caught.value.code is Code.CONFLICT
    plane.control.claims.free("digits")
    plane.delete(endpoint_ref())
    with pytest.raises(Problem) as caught:
        move(plane, world, {"green": 100}, {"blue": 100})
    assert caught.value.code is Code.NOT_FOUND


def test_a_move_that_is_not_served_is_said(plane: Plane, world: RolloutWorld) -> None:
    plane.scorers.dies = ["prepare"] * 3
    with pytest.raises(Problem, match="the traffic could not be moved: ") as caught:
        move(plane, world, {"green": 100}, {"blue": 100})
    assert caught.value.code is Code.CONFLICT
    assert plane.traffic() == {"blue": 100}


def test_rollouts_are_saved_over_a_restart_and_go_with_their_endpoint(plane: Plane, world: RolloutWorld) -> None:
    rollout = RolloutYaml(name="Careful", endpoint_name="Digits", from_="blue", to="green", steps=(1, 100))
    state = RolloutState(step_since=1.0, started_at=1.0, traffic_before={"blue": 100}, traffic={"blue": 100})
    plane.run(world.save(rollout, state))
    plane.run(world.save(rollout, state))
    plane.run(world.event("digits", "green", "RolloutStarted", "from blue to green"))
    plane.restart()
    world = RolloutWorld(plane.control, collect)
    assert plane.run(world.saved()) == [(rollout, state)]
    assert "RolloutStarted: from blue to green" in plane.run(plane.control.logs("digits", "green", 1))
    plane.delete(deployment_ref("red"))
    plane.delete(endpoint_ref())
    assert plane.run(world.saved()) == []
