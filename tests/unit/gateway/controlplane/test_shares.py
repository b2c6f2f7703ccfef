"""A deployment that is deleted leaves the traffic of its endpoint: the endpoint can be changed on."""

from __future__ import annotations

from gateway.controlplane.steps import without_share
from tests.support.plane import Plane, deployment_ref, endpoint_ref


def test_the_usual_end_of_blue_and_green_leaves_green_changeable(plane: Plane) -> None:
    plane.serving()
    plane.put_deployment("Green")
    plane.put_endpoint(traffic={"blue": 0, "green": 100}, mirror_traffic={})
    plane.delete(deployment_ref("blue"))
    assert plane.traffic() == {"green": 100}
    owner = plane.need(endpoint_ref())
    assert owner.document == owner.served
    assert owner.document["traffic"] == {"green": 100}
    plane.put_deployment("Green", instance_count=2)
    plane.agree()


def test_an_endpoint_without_deployments_is_stored_as_if_it_never_had_traffic(plane: Plane) -> None:
    plane.serving()
    plane.put_endpoint(traffic={"blue": 0})
    plane.delete(deployment_ref("blue"))
    assert "traffic" not in plane.need(endpoint_ref()).document
    plane.put_deployment("blue")
    plane.agree()


def test_only_the_share_of_that_deployment_is_taken_away() -> None:
    stored = {"name": "e", "traffic": {"Blue": 0, "green": 100}, "mirror_traffic": {"blue": 0}}
    assert without_share(stored, "blue") == {"name": "e", "traffic": {"green": 100}}
    assert without_share({"name": "e"}, "blue") == {"name": "e"}
