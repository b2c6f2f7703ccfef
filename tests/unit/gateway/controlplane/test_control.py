"""Changes of endpoints and deployments: accepted whole, carried out whatever happens, told as they ended."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from gateway.controlplane.control import Accepted
from gateway.controlplane.documents import to_builtins
from gateway.controlplane.folder import FolderOptions
from gateway.controlplane.matching import Match, etag_of
from gateway.controlplane.rules import Limits
from gateway.controlplane.state import Keys
from gateway.controlplane.store.database import StoreBusy
from gateway.controlplane.store.records import Kind, Operation, Ref, Resource, State, Status
from gateway.controlplane.yaml_types import BatchDeploymentYaml, BatchEndpointYaml
from gateway.credentials import digest
from gateway.errors import Code, Problem
from tests.support.plane import ANN, D, Plane, deployment, deployment_ref, endpoint_ref
from tests.support.stores import resource as stored_resource


def refused(caught: pytest.ExceptionInfo[Problem], code: Code, *said: str) -> None:
    assert caught.value.code is code
    for one in said:
        assert one in caught.value.message


# ---- a change that goes well ----


def test_an_endpoint_and_a_deployment_are_served_when_their_puts_return(plane: Plane) -> None:
    plane.add_model()
    made = plane.put_endpoint("Digits")
    assert (made.created, made.resource.state, made.resource.name) == (True, State.SUCCEEDED, "Digits")
    assert made.resource.ref == endpoint_ref()
    made = plane.put_deployment("Blue")
    assert made.created
    assert made.operation is not None
    assert made.operation.status is Status.SUCCEEDED
    assert plane.served("blue") == "azureml:m:1"
    changed = plane.put_endpoint("Digits", traffic={"BLUE": 100}, tags={"a": "b"})
    assert not changed.created
    assert changed.resource.version != made.resource.version
    assert plane.traffic() == {"blue": 100}
    plane.agree()


def test_what_is_done_is_in_the_audit_log_and_the_events(plane: Plane) -> None:
    plane.serving()
    entries = plane.read(lambda tx: tx.audits(before=None, limit=100))
    assert {(one.who, one.role, one.source, one.request_id) for one in entries} == {
        ("ann", "operator", "10.0.0.7", "r-1")
    }
    assert [(one.action, one.target, one.outcome) for one in reversed(entries)][1:5] == [
        ("create", "online endpoint digits", "accepted"),
        ("create", "online endpoint digits", "succeeded"),
        ("create", "deployment digits/blue", "accepted"),
        ("create", "deployment digits/blue", "succeeded"),
    ]
    lines = plane.run(plane.control.logs("digits", "blue", None)).splitlines()
    assert (lines[0], lines[-1]) == (
        "2027-01-15T08:00:00Z create: accepted",
        "2027-01-15T08:00:00Z create: succeeded",
    )
    assert plane.run(plane.control.logs("digits", "blue", 1)) == f"{lines[-1]}\n"


def test_latest_is_settled_when_a_deployment_is_made(plane: Plane) -> None:
    plane.add_model("1")
    plane.add_model("2")
    plane.put_endpoint()
    made = plane.put_deployment(model="azureml:m@latest")
    assert made.resource.document["model"] == "azureml:m:2"
    plane.add_model("3")
    plane.restart()
    assert plane.served() == "azureml:m:2"


def test_a_number_of_instances_that_is_not_the_documents_is_told(plane: Plane) -> None:
    plane.publisher.instances["digits/blue"] = 4
    assert plane.control.instances("digits", "blue") == 4
    assert plane.control.instances("digits", "green") is None


def test_the_first_scorer_is_not_asked_again_for_what_did_not_change(plane: Plane) -> None:
    plane.serving()
    plane.scorers.loads.clear()
    plane.put_endpoint(traffic={})
    plane.put_deployment(tags={"note": "the same model"})
    assert plane.scorers.loads == []
    plane.agree()


def test_why_a_script_could_not_start_is_told_of_nothing_that_takes_its_place(plane: Plane) -> None:
    def told(name: str) -> bool:
        return plane.run(plane.control.logs("digits", name, None)) == "init() raised"

    # What Scripts keeps of deployments whose first crew could not be made ready.
    words = plane.scripts._last_words
    plane.serving()
    words |= {f"{parent}/{name}": "init() raised" for parent in ("digits", "m") for name in ("blue", "1", "green")}
    assert told("blue")
    plane.put_deployment(model="azureml:m:1", tags={"a": "model now"})
    assert told("green")
    plane.put_deployment("green")
    words["digits/green"] = "init() raised"
    plane.delete(deployment_ref("green"))
    assert (told("green"), told("blue"), "m/1" in words) == (False, False, True)
    words["digits/green"] = "init() raised"
    plane.put_endpoint(traffic={})
    plane.delete(endpoint_ref())
    assert set(words) == {"m/blue", "m/1", "m/green"}


# ---- one at a time ----


def test_a_second_change_of_an_endpoint_is_refused_while_the_first_goes_on(plane: Plane) -> None:
    plane.serving()
    plane.add_model("2")
    plane.scorers.may_load.clear()
    plane.answers_within(0.0)
    slow = plane.put_deployment(model="azureml:m:2")
    assert slow.operation is not None
    assert slow.operation.status is Status.IN_PROGRESS
    assert slow.resource.state is State.UPDATING
    for change in (
        plane.putting_endpoint(tags={"a": "b"}),
        plane.putting_deployment("green"),
        plane.control.delete(deployment_ref(), ANN),
        plane.control.regenerate("DIGITS", "primary", None, ANN),
    ):
        with pytest.raises(Problem, match="endpoint digits is being changed") as caught:
            plane.run(change)
        assert caught.value.code is Code.CONFLICT
        assert (b"retry-after", b"1") in caught.value.headers
    # Another endpoint is none of its business.
    plane.answers_within(60.0)
    assert plane.put_endpoint("letters").resource.state is State.SUCCEEDED
    assert plane.served() == "azureml:m:1"
    plane.scorers.may_load.set()
    assert plane.run(plane.control.ended(slow.operation)).status is Status.SUCCEEDED
    assert plane.served() == "azureml:m:2"
    plane.agree()


def test_changes_of_two_endpoints_that_end_together_lose_nothing_of_each_other(plane: Plane) -> None:
    plane.add_model()
    names = [f"endpoint{number}" for number in range(6)]

    async def story() -> None:
        await asyncio.gather(*(plane.putting_endpoint(name) for name in names))
        await asyncio.gather(*(plane.putting_deployment("blue", name) for name in names))
        await asyncio.gather(*(plane.putting_endpoint(name, traffic={"blue": 100}) for name in names))

    plane.run(story())
    plane.agree()
    assert all(plane.traffic(name) == {"blue": 100} for name in names)


def test_a_caller_who_goes_right_after_the_change_was_written_does_not_stop_it(plane: Plane) -> None:
    plane.add_model()
    plane.put_endpoint()
    plane.scorers.may_load.clear()

    async def story() -> None:
        caller = asyncio.create_task(plane.putting_deployment())
        while not plane.scorers.loads:
            await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        plane.scorers.may_load.set()

    plane.run(story())
    plane.settle()
    assert plane.need(deployment_ref()).state is State.SUCCEEDED
    plane.agree()


def test_a_caller_who_goes_before_the_change_was_written_leaves_no_claim(plane: Plane) -> None:
    async def story() -> None:
        caller = asyncio.create_task(plane.putting_endpoint())
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)

    plane.run(story())
    plane.settle()
    plane.agree()


# ---- the store is away ----


def test_a_store_that_is_away_when_a_change_comes_changes_nothing(plane: Plane) -> None:
    plane.go_away(1)
    with pytest.raises(Problem) as caught:
        plane.put_endpoint()
    refused(caught, Code.UNAVAILABLE, "nothing is changed: the database is locked")
    assert plane.get(endpoint_ref()) is None
    assert plane.put_endpoint().created
    plane.agree()


def test_an_outcome_is_written_later_if_the_store_is_away(plane: Plane, caplog: pytest.LogCaptureFixture) -> None:
    plane.go_away(3, after=1)
    plane.put_endpoint()
    plane.settle()
    assert plane.away == 3
    assert "is not written yet, and is tried again" in caplog.text
    assert plane.need(endpoint_ref()).state is State.SUCCEEDED
    plane.agree()


def test_what_was_accepted_is_not_refused_because_its_end_cannot_be_read(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(work: object) -> None:
        raise StoreBusy("the database is locked")

    plane.put_endpoint()
    monkeypatch.setattr(plane.store, "read", busy)
    monkeypatch.setattr(plane.vault, "secrets", lambda *_: _secrets(plane))
    accepted = plane.put_endpoint(tags={"a": "b"})
    assert accepted.operation is not None
    monkeypatch.undo()
    assert plane.operation(accepted.operation).status is Status.SUCCEEDED


async def _secrets(plane: Plane) -> object:
    return plane.publisher._secrets["digits"]


def test_the_resource_as_it_was_accepted_is_shown_where_it_cannot_be_read_again(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(ref: Ref) -> Resource:
        raise StoreBusy("the database is locked")

    monkeypatch.setattr(plane.control, "get", busy)
    accepted = plane.put_endpoint()
    assert accepted.operation is not None
    assert accepted.operation.status is Status.SUCCEEDED
    assert accepted.resource.state is State.CREATING


# ---- a change that fails ----


def test_an_update_that_fails_leaves_what_was_served_also_after_a_restart_and_a_retry_heals(plane: Plane) -> None:
    plane.serving()
    plane.add_model("2")
    plane.scorers.failing["azureml:m:2"] = "the model is no good"
    failed = plane.put_deployment(model="azureml:m:2")
    ended = plane.operation(failed.operation)
    assert (ended.status, ended.error_code) == (Status.FAILED, "BadArgument")
    assert ended.error_message == "deployment digits/blue: the model is no good"
    for _ in range(2):
        found = plane.need(deployment_ref())
        assert (found.state, found.reason) == (State.FAILED, ended.error_message)
        assert found.document["model"] == "azureml:m:2"
        assert found.served is not None
        assert found.served["model"] == "azureml:m:1"
        assert plane.served() == "azureml:m:1"
        assert plane.control.failed == {"digits/blue": ended.error_message}
        plane.agree()
        plane.restart()
    plane.scorers.failing.clear()
    assert plane.put_deployment(model="azureml:m:2").resource.state is State.SUCCEEDED
    assert plane.served() == "azureml:m:2"
    assert plane.control.failed == {}
    plane.agree()


def test_a_deployment_that_never_loaded_stays_visible_takes_no_traffic_and_heals(plane: Plane) -> None:
    plane.serving()
    plane.scorers.failing["digits/green"] = "no"
    failed = plane.put_deployment("green")
    assert failed.created
    assert plane.need(deployment_ref("green")).served is None
    for traffic, mirror in (({"green": 100}, {}), ({"blue": 100}, {"green": 10})):
        with pytest.raises(Problem) as caught:
            plane.put_endpoint(traffic=traffic, mirror_traffic=mirror)
        refused(caught, Code.INVALID_INPUT, "deployment green takes no traffic yet: its state is Failed", ": no")
    plane.agree()
    plane.restart()
    plane.agree()
    plane.scorers.failing.clear()
    assert plane.put_deployment("green").created
    plane.put_endpoint(traffic={"green": 100})
    plane.agree()


def test_a_share_of_nothing_may_name_a_deployment_that_never_loaded(plane: Plane) -> None:
    plane.serving()
    plane.scorers.failing["digits/green"] = "no"
    plane.put_deployment("green")
    assert plane.put_endpoint(traffic={"blue": 100, "green": 0}).resource.state is State.SUCCEEDED


def test_a_scorer_that_dies_while_it_loads_or_changes_is_waited_for(plane: Plane) -> None:
    plane.add_model()
    plane.put_endpoint()
    plane.scorers.dies = ["load", "prepare"]
    assert plane.put_deployment().resource.state is State.SUCCEEDED
    assert plane.scorers.dies == []
    plane.agree()


@pytest.mark.parametrize("verb", ["load", "prepare"])
def test_a_model_that_ends_every_scorer_is_given_up(plane: Plane, verb: str) -> None:
    plane.add_model()
    plane.put_endpoint()
    plane.scorers.dies = [verb] * 3
    failed = plane.put_deployment()
    assert plane.operation(failed.operation).status is Status.FAILED
    assert "scorer" in plane.need(deployment_ref()).reason
    plane.agree()


def test_a_failure_of_our_own_is_logged_and_told_without_its_inside(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(plane.publisher, "publish", broken)
    failed = plane.put_endpoint()
    assert plane.operation(failed.operation).error_message == (
        "the gateway failed: ZeroDivisionError; its log has the cause"
    )
    assert "inside" in caplog.text
    assert plane.need(endpoint_ref()).state is State.FAILED


def test_a_refusal_without_words_is_told_by_its_name(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(plane.publisher, "publish", silent)
    assert plane.operation(plane.put_endpoint().operation).error_message == "TimeoutError"


# ---- what may be ----


def test_a_deployment_needs_its_endpoint_and_its_model(plane: Plane) -> None:
    with pytest.raises(Problem) as caught:
        plane.put_deployment()
    refused(caught, Code.NOT_FOUND, "there is no online endpoint digits; create it first")
    plane.put_endpoint()
    with pytest.raises(Problem) as caught:
        plane.put_deployment()
    refused(caught, Code.INVALID_INPUT, "there is no registered model azureml:m:1")
    plane.agree()


@pytest.mark.parametrize("model", ["/etc/model.onnx", "model.onnx", "../m.onnx", "file:///etc/model.onnx"])
def test_a_deployment_names_no_file_of_this_machine(plane: Plane, model: str) -> None:
    plane.put_endpoint()
    with pytest.raises(Problem) as caught:
        plane.put_deployment(model=model)
    refused(caught, Code.INVALID_INPUT, "model: found a path; accepted: a registered model")
    assert "no file" not in caught.value.message


def test_the_rules_over_an_endpoint_and_its_deployments_hold(plane: Plane) -> None:
    plane.serving()
    with pytest.raises(Problem) as caught:
        plane.put_endpoint(traffic={"blue": 60, "green": 30})
    refused(caught, Code.INVALID_INPUT, "sums to 90", "has no deployment 'green'")
    assert len(caught.value.details) == 2
    with pytest.raises(Problem) as caught:
        plane.put_deployment(instance_count=1000)
    refused(caught, Code.INVALID_INPUT, "instances_per_deployment_max")
    with pytest.raises(Problem) as caught:
        plane.put_endpoint("x")
    refused(caught, Code.INVALID_INPUT, "name: found 'x'")
    plane.agree()


def test_there_are_no_more_endpoints_and_deployments_than_the_settings_allow(plane: Plane) -> None:
    plane.control.book.options = FolderOptions(limits=Limits(endpoints=1, deployments=2, deployments_per_endpoint=5))
    plane.serving()
    with pytest.raises(Problem) as caught:
        plane.put_endpoint("letters")
    refused(caught, Code.INVALID_INPUT, "there would be 2 endpoints; accepted: at most 1 (setting endpoints_max)")
    plane.put_deployment("green")
    with pytest.raises(Problem) as caught:
        plane.put_deployment("red")
    refused(caught, Code.INVALID_INPUT, "3 deployments; accepted: at most 2 (setting deployments_max)")
    # Those that are there may still change.
    plane.put_endpoint(tags={"a": "b"})
    plane.put_deployment(tags={"a": "b"})
    plane.agree()


def test_conditions_are_held_against_the_stored_version(plane: Plane) -> None:
    made = plane.put_endpoint(match=Match(if_none_match="*")).resource
    etag = etag_of(made.version)
    for match in (
        Match(if_none_match="*"),
        Match(if_match='"0"'),
        Match(if_match='W/"1", "2"'),
        Match(if_none_match=f'"0", {etag}'),
    ):
        with pytest.raises(Problem) as caught:
            plane.put_endpoint(match=match)
        refused(caught, Code.PRECONDITION_FAILED, etag)
    with pytest.raises(Problem) as caught:
        plane.put_endpoint("letters", match=Match(if_match="*"))
    refused(caught, Code.PRECONDITION_FAILED, "it is not there")
    for match in (Match(if_match=f"W/{etag}"), Match(if_match="*"), Match(if_none_match='"0"')):
        etag = etag_of(plane.put_endpoint(match=match).resource.version)
        plane.put_endpoint(match=match if match.if_match == "*" else Match(if_match=etag_of(_version(plane))))
    with pytest.raises(Problem):
        plane.delete(endpoint_ref(), Match(if_match='"0"'))
    plane.agree()


def _version(plane: Plane) -> int:
    return plane.need(endpoint_ref()).version


def test_a_row_that_changes_under_a_change_is_a_conflict(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    plane.put_endpoint()
    book, checked = plane.control.book, plane.control.book.checked

    def meanwhile(tx: object, ref: Ref, document: object, existing: Resource | None) -> object:
        assert existing is not None
        tx.put(replace(existing, modified_by="another gateway"), expected=existing.version)  # type: ignore[attr-defined]
        return checked(tx, ref, document, existing)  # type: ignore[arg-type]

    monkeypatch.setattr(book, "checked", meanwhile)
    with pytest.raises(Problem) as caught:
        plane.put_endpoint(tags={"a": "b"})
    refused(caught, Code.CONFLICT, "someone else changed it at the same moment")


def test_a_document_without_a_normal_form_is_refused(plane: Plane) -> None:
    with pytest.raises(Problem) as caught:
        plane.put_endpoint(compute="a b c/d")
    refused(caught, Code.INVALID_INPUT, "compute: ")


# ---- delete ----


def test_a_deployment_with_traffic_or_a_mirror_is_not_deleted(plane: Plane) -> None:
    plane.serving()
    plane.put_deployment("green")
    plane.put_endpoint(traffic={"blue": 100}, mirror_traffic={"green": 10})
    for name, share in (("blue", "100 percent of traffic"), ("green", "10 percent of mirror_traffic")):
        with pytest.raises(Problem) as caught:
            plane.delete(deployment_ref(name))
        refused(caught, Code.INVALID_INPUT, f"deployment {name} has {share}; take that away")
    plane.put_endpoint(traffic={"blue": 100})
    ended = plane.delete(deployment_ref("green"))
    assert ended is not None
    assert ended.status is Status.SUCCEEDED
    assert plane.get(deployment_ref("green")) is None
    assert plane.delete(deployment_ref("green")) is None
    plane.agree()


def test_traffic_that_is_served_still_counts_though_its_update_failed(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.serving()
    plane.put_deployment("green")
    plane.scorers.dies = ["prepare"] * 3
    plane.put_endpoint(traffic={"green": 100})
    found = plane.need(endpoint_ref())
    assert found.state is State.FAILED
    assert plane.traffic() == {"blue": 100}
    for name in ("blue", "green"):
        with pytest.raises(Problem) as caught:
            plane.delete(deployment_ref(name))
        refused(caught, Code.INVALID_INPUT, f"deployment {name} has 100 percent of traffic")
    plane.agree()


def test_an_endpoint_goes_with_its_deployments_rollouts_and_keys(plane: Plane) -> None:
    plane.serving()
    plane.put_endpoint("letters")
    before = plane.run(plane.control.keys("digits"))
    rollout = stored_resource("careful", "digits", Kind.ROLLOUT, served={})
    plane.write(lambda tx: tx.put(rollout, expected=None))
    ended = plane.delete(endpoint_ref())
    assert ended is not None
    assert ended.status is Status.SUCCEEDED
    assert set(plane.scorers.serves.endpoints) == {"letters"}
    assert plane.read(lambda tx: [*tx.find(D), *tx.find(Kind.ROLLOUT)]) == []
    assert plane.read(lambda tx: tx.secret("keys/digits")) is None
    with pytest.raises(Problem) as caught:
        plane.run(plane.control.keys("digits"))
    refused(caught, Code.NOT_FOUND, "there is no online endpoint digits")
    assert plane.delete(endpoint_ref()) is None
    plane.put_endpoint()
    assert plane.run(plane.control.keys("digits")) != before
    plane.agree()


def test_a_delete_that_fails_is_told_and_served_on(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    plane.serving()
    plane.scorers.dies = ["prepare"] * 3
    ended = plane.delete(endpoint_ref())
    assert ended is not None
    assert ended.status is Status.FAILED
    assert plane.need(endpoint_ref()).state is State.FAILED
    assert plane.served() == "azureml:m:1"
    assert plane.control.failed == {}
    plane.agree()


# ---- keys ----


def test_a_new_key_counts_when_it_is_told_and_the_other_stays(plane: Plane) -> None:
    plane.put_endpoint()
    before = plane.run(plane.control.keys("DIGITS"))
    ended = plane.run(plane.control.regenerate("Digits", "secondary", None, ANN))
    assert ended.status is Status.SUCCEEDED
    after = plane.run(plane.control.keys("digits"))
    assert after.primary == before.primary
    assert after.secondary != before.secondary
    plane.agree()
    plane.run(plane.control.regenerate("digits", "primary", "p" * 20, ANN))
    assert plane.run(plane.control.keys("digits")) == Keys(primary="p" * 20, secondary=after.secondary)
    plane.agree()
    assert plane.need(endpoint_ref()).state is State.SUCCEEDED


def test_a_regeneration_that_cannot_be_is_refused_and_leaves_no_claim(plane: Plane) -> None:
    plane.put_endpoint("tokens", auth_mode="aml_token")
    plane.put_endpoint()
    for name, value, code in (
        ("missing", None, Code.NOT_FOUND),
        ("tokens", None, Code.INVALID_INPUT),
        ("digits", "short", Code.INVALID_INPUT),
    ):
        with pytest.raises(Problem) as caught:
            plane.run(plane.control.regenerate(name, "primary", value, ANN))
        refused(caught, code)
        assert "short" not in caught.value.message
    plane.agree()


def test_a_key_that_could_not_be_published_says_nothing_about_its_endpoint(plane: Plane) -> None:
    plane.put_endpoint()
    before = plane.run(plane.control.keys("digits"))
    plane.scorers.dies = ["prepare"] * 3
    ended = plane.run(plane.control.regenerate("digits", "primary", None, ANN))
    assert ended.status is Status.FAILED
    assert plane.need(endpoint_ref()).state is State.SUCCEEDED
    # The keys that are told are those that open it.
    assert plane.run(plane.control.keys("digits")) == before
    plane.agree()
    plane.restart()
    plane.agree()


def test_a_store_that_is_away_while_a_change_is_carried_out_is_its_reason(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(*_: object) -> None:
        raise StoreBusy("the database is locked")

    monkeypatch.setattr(plane.vault, "secrets", busy)
    assert plane.operation(plane.put_endpoint().operation).error_message == "the database is locked"
    monkeypatch.undo()
    plane.agree()


def test_an_endpoint_gives_what_its_mode_has(plane: Plane) -> None:
    plane.put_endpoint("tokens", auth_mode="aml_token")
    plane.put_endpoint()
    answer = plane.run(plane.control.token("tokens"))
    assert answer["expiryTimeUtc"] == plane.now_s + 3600
    for ask in (plane.control.token("digits"), plane.control.keys("tokens")):
        with pytest.raises(Problem) as caught:
            plane.run(ask)
        refused(caught, Code.INVALID_INPUT)
    plane.put_endpoint("tokens", auth_mode="key")
    keys = plane.run(plane.control.keys("tokens"))
    assert digest(keys.primary) in plane.scorers.serves.endpoints["tokens"].auth.key_digests
    plane.agree()


# ---- batch ----


def put_batch(plane: Plane, parent: str = "", name: str = "nightly", **members: object) -> Accepted:
    if parent:
        document: object = BatchDeploymentYaml(name=name, endpoint_name=parent, **members)  # type: ignore[arg-type]
        kind = Kind.BATCH_DEPLOYMENT
    else:
        document, kind = BatchEndpointYaml(name=name, **members), Kind.BATCH_ENDPOINT  # type: ignore[arg-type]
    return plane.run(plane.control.put(kind, parent, name, document, ANN))  # type: ignore[arg-type]


def test_batch_endpoints_and_deployments_are_kept_and_checked(plane: Plane) -> None:
    plane.add_model()
    with pytest.raises(Problem) as caught:
        put_batch(plane, "nightly", "main", model="azureml:m:1")
    refused(caught, Code.NOT_FOUND, "there is no batch endpoint nightly")
    made = put_batch(plane)
    assert (made.created, made.resource.state) == (True, State.SUCCEEDED)
    assert not put_batch(plane).created
    put_batch(plane, "nightly", "main", model="azureml:m:1")
    put_batch(plane, "nightly", "main", model="azureml:m@latest")
    with pytest.raises(Problem) as caught:
        put_batch(plane, "nightly", "x", model="azureml:other:1")
    refused(caught, Code.INVALID_INPUT, "name: found 'x'", "there is no registered model azureml:other:1")
    ref = Ref(kind=Kind.BATCH_ENDPOINT, key="nightly")
    ended = plane.delete(ref)
    assert ended is not None
    assert ended.status is Status.SUCCEEDED
    assert plane.read(lambda tx: tx.find(Kind.BATCH_DEPLOYMENT)) == []
    assert plane.delete(ref) is None
    plane.agree()


def test_a_batch_deployment_is_deleted_alone(plane: Plane) -> None:
    put_batch(plane)
    put_batch(plane, "nightly", "main")
    plane.delete(Ref(kind=Kind.BATCH_DEPLOYMENT, parent="nightly", key="main"))
    assert plane.read(lambda tx: len(tx.find(Kind.BATCH_ENDPOINT))) == 1


# ---- secrets ----


def test_nothing_of_a_key_is_in_logs_operations_or_audit(plane: Plane, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    value = "canary-0123456789-canary"
    plane.put_endpoint()
    plane.run(plane.control.regenerate("digits", "primary", value, ANN))
    keys = plane.run(plane.control.keys("digits"))
    audits = plane.read(lambda tx: tx.audits(before=None, limit=100))
    said = caplog.text + repr(audits) + repr(keys) + repr(plane.vault) + repr(plane.publisher.desired)
    assert value not in said
    assert keys.secondary not in said
    database = b"".join(path.read_bytes() for path in plane.folder.glob("gateway.db*"))
    assert value.encode() not in database


def test_a_document_is_stored_without_what_it_does_not_say(plane: Plane) -> None:
    plane.serving()
    assert plane.need(deployment_ref()).document == to_builtins(deployment())
    assert plane.need(endpoint_ref()).document == {"name": "digits", "traffic": {"blue": 100}}


def test_an_operation_that_nobody_runs_is_looked_up(plane: Plane) -> None:
    done = plane.put_endpoint().operation
    assert done is not None
    assert plane.run(plane.control.ended(done)).status is Status.SUCCEEDED
    stranger = Operation(id="x", action="update", actor="ann", started_at=1.0)
    assert plane.run(plane.control.ended(stranger)) == stranger
    assert plane.run(plane.control.operation("x")) is None
