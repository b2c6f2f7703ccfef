"""The scaler: it looks every second, changes the capacity alone, and leaves an endpoint alone that others change."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from gateway.controlplane import scaler
from gateway.controlplane.scaler import Scaler
from gateway.controlplane.yaml_types import ScaleYaml
from gateway.telemetry.record import ScorerRecord
from gateway.telemetry.totals import ScorerTotals
from tests.support.plane import ANN, Plane, deployment_ref

BUSY = ScaleYaml(type="target_utilization", min_instances=1, max_instances=4, target_utilization_percentage=50)


class Load:
    """What the scorers report; and a clock that goes on by a second a look."""

    def __init__(self, plane: Plane) -> None:
        self.busy = 0
        self.now_s = 0.0
        self.asked = 0
        self.plane = plane
        self.scaler = Scaler(plane.control, self.collect, lambda: self.now_s, self.sleep)

    async def collect(self) -> ScorerTotals:
        self.asked += 1
        record = ScorerRecord()
        found = record.deployment("digits", "blue")
        found.instances, found.busy = self.instances, self.busy
        return record.snapshot()

    async def sleep(self, pause_s: float) -> None:
        assert pause_s == scaler.INTERVAL_S
        self.now_s += pause_s
        if self.now_s > 3:
            raise asyncio.CancelledError

    @property
    def instances(self) -> int:
        return self.plane.scorers.serves.runtimes()[0].instance_count

    def look(self, busy: int) -> int:
        """The instances after a look at so many busy ones."""
        self.busy = busy
        self.now_s += 1.0
        self.plane.run(self.scaler.look())
        return self.instances


@pytest.fixture
def load(plane: Plane) -> Load:
    plane.serving()
    plane.put_deployment(scale_settings=BUSY)
    return Load(plane)


def test_instances_follow_the_load_and_the_document_stays(plane: Plane, load: Load) -> None:
    assert load.look(0) == 1
    assert load.look(1) == 2
    assert load.look(2) == 4
    assert load.look(4) == 4
    assert [load.look(0) for _ in range(20)][-2:] == [4, 1]
    assert plane.need(deployment_ref()).document.get("instance_count") is None
    log = plane.run(plane.control.logs("digits", "blue", None))
    assert "1 instance become 2: utilisation is 100 % (1 of 1 busy" in log
    plane.agree()


def test_an_instance_of_two_sessions_is_not_added_for_each_of_them(plane: Plane, load: Load) -> None:
    desired, key = plane.publisher.desired, ("digits", "blue")
    deployments = {key: replace(desired.deployments[key], sessions=2)}
    plane.publisher.desired = replace(desired, deployments=deployments)
    assert load.look(1) == 1
    # Two instances of two sessions.
    assert load.look(2) == 4


def test_nobody_is_asked_where_nothing_scales(plane: Plane, load: Load) -> None:
    plane.put_deployment()
    load.look(1)
    assert load.asked == 0


def test_bounds_that_change_are_kept_at_once(plane: Plane, load: Load) -> None:
    assert load.look(1) == 2
    assert load.look(2) == 4
    plane.put_deployment(scale_settings=ScaleYaml(type="target_utilization", min_instances=1, max_instances=2))
    assert load.look(2) == 2
    plane.put_deployment(instance_count=3)
    assert load.look(2) == 3
    assert plane.control.instances("digits", "blue") is None


def test_a_number_that_somebody_else_changed_is_begun_with(plane: Plane, load: Load) -> None:
    load.look(0)
    plane.run(plane.publisher.scale("digits/blue", 3))
    assert load.look(1) == 3


def test_an_endpoint_that_is_changed_is_left_alone(
    plane: Plane, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    plane.control.claims.take("digits", "update")
    assert load.look(1) == 1
    assert "could not be scaled" not in caplog.text
    plane.control.claims.free("digits")
    assert load.look(1) == 2


def test_a_deployment_that_went_while_was_looked_is_no_failure(plane: Plane, load: Load) -> None:
    collect = load.collect

    async def meanwhile() -> ScorerTotals:
        found = await collect()
        await plane.putting_endpoint()
        await plane.control.delete(deployment_ref(), ANN)
        return found

    load.busy = 1
    load.scaler._collect = meanwhile
    plane.run(load.scaler.look())
    assert plane.scorers.serves.runtimes() == []
    plane.agree()


def test_what_fails_is_logged_and_tried_at_the_next_look(
    plane: Plane, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    plane.scorers.failing["digits/blue"] = "no room"
    assert load.look(1) == 1
    assert "deployment digits/blue could not be scaled: no room" in caplog.text
    plane.scorers.failing.clear()
    assert load.look(1) == 2
    plane.agree()


def test_it_looks_until_it_is_cancelled(plane: Plane, load: Load) -> None:
    with pytest.raises(asyncio.CancelledError):
        plane.run(load.scaler.run())
    assert load.asked == 3
