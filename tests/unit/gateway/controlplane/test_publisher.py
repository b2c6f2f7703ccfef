"""The publisher: edits over what is served at that moment, whole or not at all; and what is told of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.controlplane.plan import Defaults, deployment_spec, with_instances
from gateway.controlplane.publisher import seat_rows
from gateway.controlplane.reconcile import ChangeRefused
from gateway.controlplane.store.records import State
from gateway.controlplane.yaml_types import RequestYaml, ScaleYaml
from gateway.resources import AssetModel, Deployment, Desired, Scale
from gateway.seats import ROWS_MAX
from tests.support.plane import Plane, deployment_ref, endpoint_ref

SCALES = ScaleYaml(type="target_utilization", min_instances=1, max_instances=5)


class Seats:
    """Rows in which somebody still sits."""

    def __init__(self, *rows: int) -> None:
        self._rows = rows

    def taken(self, row: int) -> int:
        return int(row in self._rows)


def rows(before: dict[str, int], names: list[str], *busy: int) -> dict[str, int]:
    return seat_rows(before, names, Seats(*busy))  # type: ignore[arg-type]


def test_a_row_is_kept_and_a_new_one_was_nobodys() -> None:
    assert rows({}, ["a", "b"]) == {"a": 0, "b": 1}
    assert rows({"a": 0, "b": 1}, ["b", "c"]) == {"b": 1, "c": 2}
    assert rows({"b": 1}, ["b", "c", "d"], 0, 2) == {"b": 1, "c": 3, "d": 4}
    with pytest.raises(StopIteration):
        rows({}, ["a"], *range(ROWS_MAX))


def test_only_bounded_deployments_have_a_row(plane: Plane) -> None:
    plane.serving()
    assert plane.publisher._rows == {}
    plane.put_deployment("green", request_settings=RequestYaml(max_concurrent_requests_per_instance=3))
    assert plane.publisher._rows == {"digits/green": 0}
    found = plane.scorers.serves.endpoints["digits"].deployments["green"]
    assert (found.seat, found.pending_max) == (0, 6)


def test_instances_are_those_that_run_now() -> None:
    model = AssetModel(reference="azureml:m:1")
    one = Deployment(name="blue", endpoint_name="e", model=model, instance_count=2)
    desired = Desired(endpoints={}, deployments={("e", "blue"): one, ("e", "green"): replace(one, name="green")})
    found = with_instances(desired, {"e/blue": 7})
    assert [one.instance_count for one in found.deployments.values()] == [7, 2]


def test_a_deployment_scales_and_its_document_stays(plane: Plane) -> None:
    plane.serving()
    plane.put_deployment(scale_settings=SCALES)
    plane.run(plane.publisher.scale("digits/blue", 3))
    (runtime,) = plane.scorers.serves.runtimes()
    assert runtime.instance_count == 3
    assert plane.publisher.deployment_status("digits/blue")["instance_count"] == 3
    plane.agree()
    # Another change does not take it back.
    plane.put_endpoint(traffic={"blue": 100}, tags={"a": "b"})
    assert plane.scorers.serves.runtimes()[0].instance_count == 3
    # Nor does a change of the deployment, for as long as it scales.
    plane.put_deployment(scale_settings=SCALES, tags={"a": "b"})
    assert plane.scorers.serves.runtimes()[0].instance_count == 3
    plane.put_deployment(instance_count=2)
    assert plane.scorers.serves.runtimes()[0].instance_count == 2
    assert plane.publisher.instances == {}
    plane.agree()


@pytest.mark.parametrize("before", [None, 2])
def test_a_scaling_that_fails_changes_nothing(plane: Plane, before: int | None) -> None:
    plane.serving()
    plane.put_deployment(scale_settings=SCALES)
    if before is not None:
        plane.run(plane.publisher.scale("digits/blue", before))
    plane.scorers.failing["digits/blue"] = "no room"
    with pytest.raises(Exception, match="no room"):
        plane.run(plane.publisher.scale("digits/blue", 4))
    assert plane.publisher.instances.get("digits/blue") == before
    assert plane.scorers.serves.runtimes()[0].instance_count == (before or 1)


def test_edits_compose_over_what_is_served_at_that_moment(plane: Plane) -> None:
    plane.serving()
    plane.put_endpoint("letters")

    def without(name: str) -> Any:
        return lambda desired: replace(
            desired, endpoints={key: one for key, one in desired.endpoints.items() if key != name}, deployments={}
        )

    async def story() -> None:
        await asyncio.gather(plane.publisher.publish(without("digits")), plane.publisher.publish(without("letters")))

    plane.run(story())
    assert plane.publisher.desired.endpoints == {}
    assert plane.scorers.serves.endpoints == {}


def test_what_failed_before_and_nobody_touched_holds_up_no_change(plane: Plane) -> None:
    plane.serving()
    plane.put_deployment("green")
    plane.scorers.failing["digits/green"] = "no"
    with pytest.raises(ChangeRefused, match="deployment digits/green: no"):
        plane.run(plane.publisher.publish(lambda desired: desired))
    plane.restart()
    assert plane.publisher.applied.failures == {"digits/green": "no"}
    plane.put_endpoint(traffic={"blue": 100}, tags={"a": "b"})
    assert plane.need(endpoint_ref()).state is State.SUCCEEDED
    status = plane.publisher.status()["digits"]["deployments"]
    assert status["green"] == {"state": "Failed", "reason": "no"}
    assert status["blue"]["state"] == "Succeeded"
    assert plane.need(deployment_ref("green")).state is State.FAILED


def test_the_status_tells_what_was_learned_and_what_a_replacement_lacks(plane: Plane) -> None:
    plane.serving()
    plane.scorers.degraded = {"digits/blue": "no memory"}
    found = plane.publisher.status()["digits"]
    assert (found["auth_mode"], found["traffic"], found["mirror_traffic"]) == ("key", {"blue": 100}, {})
    blue = found["deployments"]["blue"]
    assert blue["degraded"] == "a scorer that was replaced could not load it again: no memory"
    assert blue["batching"] == "proven"
    assert "padding" not in blue


def test_models_that_nothing_serves_go_from_the_disk_and_one_that_cannot_is_a_warning(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plane.serving()
    plane.add_model("2")
    first = Path(plane.scorers.serves.runtimes()[0].path)
    plane.put_deployment(model="azureml:m:2")
    assert not first.exists()
    assert len(list((plane.folder / "models").iterdir())) == 1

    def full(paths: object) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(plane.control.models, "keep_only", full)
    assert plane.put_deployment(model="azureml:m:1").resource.state is State.SUCCEEDED
    assert "are not removed yet: too many open files" in caplog.text
    plane.agree()


def test_a_model_that_is_loaded_stays_on_the_disk_while_others_change(plane: Plane) -> None:
    plane.serving()
    plane.put_endpoint("letters")
    plane.add_model("2")
    plane.scorers.may_load.clear()

    async def story() -> None:
        slow = asyncio.create_task(plane.putting_deployment("main", "letters", model="azureml:m:2"))
        while len(plane.scorers.loads) < 2:
            await asyncio.sleep(0)
        await plane.putting_endpoint(traffic={"blue": 100}, tags={"a": "b"})
        assert len(list((plane.folder / "models").iterdir())) == 2
        plane.scorers.may_load.set()
        await slow

    plane.scorers.loads.clear()
    plane.scorers.loads.append("one before")
    plane.run(story())
    assert len(list((plane.folder / "models").iterdir())) == 2
    plane.agree()


def test_what_is_made_ready_and_never_served_is_let_go(plane: Plane) -> None:
    plane.add_model()
    plane.put_endpoint()
    plane.scorers.dies = ["prepare"] * 3
    plane.put_deployment()
    assert [one.aside for one in plane.scorers.scorers] == [{}, {}]
    plane.put_endpoint(tags={"a": "b"})
    assert list((plane.folder / "models").iterdir()) == []


def test_a_spec_carries_the_defaults_of_the_process(plane: Plane) -> None:
    plane.serving()
    found = plane.scorers.serves.endpoints["digits"].deployments["blue"]
    assert found.body_bytes_max == 1 << 20
    assert Scale() == Scale(min_instances=1, max_instances=1)
    stored = plane.control.models.take(plane.publisher.desired.deployments["digits", "blue"].model)  # type: ignore[arg-type]
    one = replace(plane.publisher.desired.deployments["digits", "blue"], max_body_bytes=7, max_queue_wait_ms=2)
    spec = deployment_spec(one, stored, -1, Defaults(body_bytes_max=1, cache_dir="/cache"))
    assert (spec.body_bytes_max, spec.queue_wait_ns, spec.runtime.cache_dir) == (7, 2_000_000, "/cache")
