"""A gateway that was killed: what was under way is resumed, what was served is served, and what was lost is said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.controlplane import publisher
from gateway.controlplane.documents import to_builtins
from gateway.controlplane.reconcile import ChangeRefused
from gateway.controlplane.state import StateError
from gateway.controlplane.store.records import Operation, Ref, Resource, State, Status
from gateway.errors import Problem
from tests.support.applied import DEPLOYMENT, ENDPOINT, read, write
from tests.support.plane import (
    Plane,
    deployment,
    deployment_ref,
    endpoint,
    endpoint_ref,
    interrupted,
    model_ref,
)
from tests.support.stores import resource as stored_resource


def left_behind(plane: Plane, operation: Operation, *rows: Resource) -> None:
    """What is in the store when the gateway is killed."""

    def write(tx: Any) -> None:
        for row in rows:
            existing = tx.get(row.ref)
            tx.put(row, expected=existing.version if existing is not None else None)
        tx.add_operation(operation)

    plane.write(write)


def wanted(plane: Plane, ref: Ref, document: Mapping[str, Any], state: State) -> Resource:
    return replace(plane.need(ref), document=dict(document), state=state)


def ended(plane: Plane, operation: Operation) -> Operation:
    plane.settle()
    plane.agree()
    return plane.operation(operation)


def test_a_creation_that_was_written_is_carried_out(plane: Plane, caplog: pytest.LogCaptureFixture) -> None:
    plane.add_model()
    plane.put_endpoint()
    row = stored_resource("blue", "digits", deployment_ref().kind, state=State.CREATING)
    operation = interrupted("create", deployment_ref())
    left_behind(plane, operation, replace(row, document=to_builtins(deployment())))
    plane.restart()
    assert ended(plane, operation).status is Status.SUCCEEDED
    assert plane.served() == "azureml:m:1"
    assert "operation op-1 (create of deployment digits/blue) was interrupted and is resumed" in caplog.text


def test_an_update_that_was_written_is_carried_out_while_the_old_serves(plane: Plane) -> None:
    plane.serving()
    plane.add_model("2")
    document = to_builtins(deployment(model="azureml:m:2"))
    operation = interrupted("update", deployment_ref())
    left_behind(plane, operation, wanted(plane, deployment_ref(), document, State.UPDATING))
    plane.scorers.may_load.clear()
    plane.restart()
    assert plane.served() == "azureml:m:1"
    with pytest.raises(Problem, match="endpoint digits is being changed"):
        plane.put_endpoint(tags={"a": "b"})
    plane.scorers.may_load.set()
    assert ended(plane, operation).status is Status.SUCCEEDED
    assert plane.served() == "azureml:m:2"


def test_an_endpoints_update_is_carried_out(plane: Plane) -> None:
    plane.serving()
    plane.put_deployment("green")
    document = to_builtins(endpoint(traffic={"green": 100}))
    operation = interrupted("update", endpoint_ref())
    left_behind(plane, operation, wanted(plane, endpoint_ref(), document, State.UPDATING))
    plane.restart()
    assert ended(plane, operation).status is Status.SUCCEEDED
    assert plane.traffic() == {"green": 100}


@pytest.mark.parametrize("ref", [endpoint_ref(), deployment_ref("green")])
def test_a_delete_that_was_written_is_carried_out(plane: Plane, ref: Ref) -> None:
    plane.serving()
    plane.put_deployment("green")
    operation = interrupted("delete", ref)
    left_behind(plane, operation, replace(plane.need(ref), state=State.DELETING))
    plane.restart()
    assert ended(plane, operation).status is Status.SUCCEEDED
    assert plane.get(ref) is None


def test_what_was_carried_out_and_not_written_is_done_again(plane: Plane) -> None:
    plane.serving()
    gone = interrupted("delete", deployment_ref("green"))
    plane.write(lambda tx: tx.add_operation(gone))
    plane.restart()
    assert ended(plane, gone).status is Status.SUCCEEDED
    # A creation of what has been deleted since.
    made = interrupted("create", deployment_ref("green"), id_="op-2")
    plane.write(lambda tx: tx.add_operation(made))
    plane.restart()
    assert ended(plane, made).status is Status.SUCCEEDED
    assert plane.get(deployment_ref("green")) is None


def test_a_key_that_was_written_counts(plane: Plane) -> None:
    plane.put_endpoint()
    before = plane.run(plane.control.keys("digits"))
    operation = interrupted("regenerate", endpoint_ref())

    def write(tx: Any) -> None:
        plane.vault.regenerate(tx, tx.get(endpoint_ref()), "primary", None)
        tx.add_operation(operation)

    plane.write(write)
    plane.restart()
    assert ended(plane, operation).status is Status.SUCCEEDED
    assert plane.run(plane.control.keys("digits")) != before


def test_an_apply_that_was_interrupted_has_changed_nothing_and_says_so(plane: Plane) -> None:
    plane.serving()
    operation = interrupted("apply")
    plane.write(lambda tx: tx.add_operation(operation))
    plane.restart()
    found = ended(plane, operation)
    assert found.status is Status.FAILED
    assert (
        found.error_message == "the gateway ended while this was applied; nothing of it was changed, apply it again"
    )


def test_what_cannot_be_resumed_fails_with_its_reason(plane: Plane) -> None:
    plane.serving()
    document = to_builtins(deployment(model="azureml:gone:1"))
    operation = interrupted("update", deployment_ref())
    left_behind(plane, operation, wanted(plane, deployment_ref(), document, State.UPDATING))
    plane.restart()
    found = ended(plane, operation)
    assert found.status is Status.FAILED
    assert "there is no registered model azureml:gone:1" in found.error_message
    assert plane.need(deployment_ref()).reason == found.error_message
    assert plane.control.failed == {"digits/blue": found.error_message}
    assert plane.served() == "azureml:m:1"


def test_two_operations_of_one_endpoint_are_resumed_one_after_the_other(plane: Plane) -> None:
    """A commit in doubt leaves one that its caller was never told of, and then the one that he asked for again."""
    plane.serving()
    plane.put_deployment("green")
    document = to_builtins(endpoint(traffic={"green": 100}))
    first, second = (interrupted("update", endpoint_ref(), id_=f"op-{n}", at=float(n)) for n in (1, 2))
    left_behind(plane, first, wanted(plane, endpoint_ref(), document, State.UPDATING))
    plane.write(lambda tx: tx.add_operation(second))
    plane.restart()
    assert [ended(plane, one).status for one in (first, second)] == [Status.SUCCEEDED] * 2
    assert plane.traffic() == {"green": 100}


def test_operations_that_ended_a_week_ago_are_forgotten(plane: Plane) -> None:
    operation = plane.put_endpoint().operation
    assert operation is not None
    plane.now_s += 6 * 24 * 3600
    plane.restart()
    assert plane.operation(operation).status is Status.SUCCEEDED
    plane.now_s += 2 * 24 * 3600
    plane.restart()
    assert plane.run(plane.control.operation(operation.id)) is None


def test_a_gateway_that_ends_in_the_middle_leaves_the_rest_to_the_next(
    plane: Plane, impatient: Callable[[], None]
) -> None:
    plane.serving()
    plane.add_model("2")
    impatient()
    plane.scorers.may_load.clear()
    operation = plane.put_deployment(model="azureml:m:2").operation
    plane.stop()
    plane.open()
    assert plane.operation(operation).status is Status.IN_PROGRESS
    plane.scorers.may_load.set()
    plane.start()
    plane.settle()
    assert plane.operation(operation).status is Status.SUCCEEDED
    assert plane.served() == "azureml:m:2"
    plane.agree()


# ---- what is served at a start ----


def test_everything_that_was_served_is_served_again(plane: Plane) -> None:
    plane.serving()
    plane.put_endpoint("tokens", auth_mode="aml_token")
    before = plane.scorers.serves
    plane.restart()
    after = plane.scorers.serves
    assert after.endpoints == before.endpoints
    plane.agree()


def test_a_deployment_that_does_not_load_any_more_is_failed_and_heals_at_the_next_start(plane: Plane) -> None:
    plane.serving()
    plane.scorers.failing["digits/blue"] = "the disk is broken"
    plane.restart()
    found = plane.need(deployment_ref())
    assert (found.state, found.reason) == (State.FAILED, "the disk is broken")
    assert found.served is not None
    assert plane.publisher.applied.failures == {"digits/blue": "the disk is broken"}
    # It holds up nobody else.
    plane.put_endpoint("letters")
    plane.agree()
    plane.scorers.failing.clear()
    plane.restart()
    assert plane.need(deployment_ref()).state is State.SUCCEEDED
    plane.agree()


def test_a_document_that_cannot_be_read_any_more_takes_nothing_else_down(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    plane.serving()
    plane.put_deployment("green")
    found = plane.need(deployment_ref("green"))
    plane.write(
        lambda tx: tx.put(replace(found, served={**found.document, "instance_count": "many"}), expected=found.version)
    )
    plane.restart()
    assert plane.served() == "azureml:m:1"
    assert plane.served("green") == ""
    assert "digits/green cannot be served any more" in caplog.text


def test_a_deployment_whose_model_is_gone_is_failed_and_says_why(plane: Plane) -> None:
    plane.serving()
    plane.write(lambda tx: tx.delete(model_ref()))
    plane.restart()
    found = plane.need(deployment_ref())
    assert found.state is State.FAILED
    assert "there is no registered model azureml:m:1" in found.reason


def test_an_endpoint_that_cannot_be_served_any_more_is_failed_with_its_deployments(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    plane.serving()
    found = plane.need(endpoint_ref())
    broken = {**found.document, "gateway": {"keys": {"primary": {"file": str(plane.folder / "gone")}}}}
    plane.write(lambda tx: tx.put(replace(found, document=broken, served=broken), expected=found.version))
    plane.restart()
    assert plane.scorers.serves.endpoints == {}
    assert "there is no file" in plane.need(endpoint_ref()).reason
    assert plane.need(deployment_ref()).reason.startswith("its endpoint cannot be served: ")
    (plane.folder / "gone").write_text("k" * 20)
    plane.restart()
    assert plane.need(endpoint_ref()).state is State.SUCCEEDED
    assert plane.served() == "azureml:m:1"
    plane.agree()


def test_a_start_without_a_folder_serves_nothing_rather_than_ending(plane: Plane) -> None:
    plane.serving()
    plane.scorers.failing["digits/blue"] = "no"
    plane.restart()
    assert plane.publisher.applied.loaded == {}


def test_a_given_key_that_is_not_there_at_a_start_is_said(plane: Plane) -> None:
    plane.serving()
    found = plane.need(endpoint_ref())
    given = {**found.document, "gateway": {"keys": {"primary": {"env": "DIGITS_KEY"}}}}
    plane.write(lambda tx: tx.put(replace(found, document=given, served=given), expected=found.version))
    with pytest.raises(StateError, match="environment variable DIGITS_KEY, cannot be read"):
        plane.restart()
    plane.environ["DIGITS_KEY"] = "d" * 20
    plane.restart()
    plane.agree()


def test_a_change_that_ends_while_the_gateway_does_is_whole_or_resumed(plane: Plane) -> None:
    plane.serving()

    async def story() -> None:
        caller = asyncio.create_task(plane.putting_endpoint(tags={"a": "b"}))
        await asyncio.sleep(0)
        await asyncio.gather(caller, plane.control.close(), return_exceptions=True)

    plane.run(story())
    plane.restart()
    plane.settle()
    plane.agree()


def test_refusals_at_a_start_are_what_the_publisher_says(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    plane.serving()

    async def refuse(*_: object, **__: object) -> None:
        raise ChangeRefused(["nothing loads"])

    plane.stop()
    plane.open()
    monkeypatch.setattr(plane.publisher, "publish", refuse)
    with pytest.raises(ChangeRefused, match="nothing loads"):
        plane.start()


# ---- what ends a scorer ----


def test_a_model_that_ends_a_scorer_does_not_keep_the_gateway_from_starting(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    plane.serving()
    plane.put_deployment("green")
    # The first one that is loaded by itself is blue.
    plane.scorers.dies = ["prepare", "load"]
    plane.restart()
    assert plane.scorers.dies == []
    assert (plane.served(), plane.served("green")) == ("", "azureml:m:1")
    found = plane.need(deployment_ref())
    assert (found.state, found.reason) == (State.FAILED, "the scorer that loaded it ended before it was ready")
    assert plane.need(deployment_ref("green")).state is State.SUCCEEDED
    assert "deployment digits/blue is not served: the scorer that loaded it ended" in caplog.text
    # Others change on, and a retry heals.
    plane.put_endpoint("letters")
    assert plane.put_deployment().resource.state is State.SUCCEEDED
    plane.agree()


def test_a_scorer_that_died_for_another_reason_costs_nothing(plane: Plane) -> None:
    plane.serving()
    plane.scorers.dies = ["prepare"]
    plane.restart()
    plane.agree()
    assert plane.served() == "azureml:m:1"


def test_a_folder_of_which_every_model_ends_a_scorer_is_refused(plane: Plane, tmp_path: Path) -> None:
    folder = write(tmp_path / "folder", endpoint=ENDPOINT, blue=DEPLOYMENT)
    plane.scorers.dies = ["prepare", "load"]
    with pytest.raises(ChangeRefused, match="deployment digits/blue: the scorer that loaded it ended"):
        plane.start(read(folder))


def test_a_start_waits_for_a_scorer_that_is_being_replaced_and_not_for_ever(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "WHOLE_WITHIN_S", 0.01)
    monkeypatch.setattr(publisher, "WHOLE_EVERY_S", 0.001)
    plane.scorers.scorers[0].is_up = False
    plane.run(plane.publisher.whole())
    plane.scorers.scorers[0].is_up = True
    plane.run(plane.publisher.whole())
