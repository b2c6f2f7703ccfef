"""The gateway's own routes: status, reload, apply, export, the audit log, management tokens and rollouts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.controlplane.authorize import Role
from gateway.controlplane.management import Answer
from gateway.controlplane.store.records import Kind, Ref
from gateway.controlplane.store.transaction import Transaction
from tests.support.house import HOST, WORKSPACE, House

DIGITS = f"{WORKSPACE}/onlineEndpoints/digits"
ROLLOUT = f"{DIGITS}/rollouts/careful"
PLAN = {"properties": {"from": "blue", "to": "green", "steps": [10, 100], "hold_s": 60}}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    found = House(tmp_path)
    yield found
    found.close()


def body_of(response: httpx.Response, status: int = 200) -> Any:
    assert response.status_code == status, response.text
    return response.json()


def refusal(response: httpx.Response, status: int, code: str) -> str:
    assert body_of(response, status)["error"]["code"] == code, response.text
    return str(response.json()["error"]["message"])


def test_the_index_is_open_and_leads_on(house: House) -> None:
    index = body_of(house.get("/", token=None))
    assert (index["name"], index["version"]) == ("inference-gateway", "1.2.3")
    assert index["openapi"] == f"https://{HOST}/openapi.json"


def test_status_and_reload_are_the_operators(house: House) -> None:
    assert body_of(house.get("/status")) == house.operator.status()
    assert body_of(house.post("/reload")) == house.operator.reply.as_json()
    house.operator.reply = Answer(False, "the change is refused")
    assert body_of(house.post("/reload"), 409) == {"ok": False, "message": "the change is refused", "data": None}
    assert house.operator.reloads == 2


# Apply and export.


def test_what_is_exported_can_be_applied_and_changes_nothing(house: House) -> None:
    house.add_endpoint(description="reads digits")
    exported = body_of(house.get("/export"))
    assert any("reads digits" in one["text"] for one in exported["documents"])
    document = {"name": "digits", "description": "reads digits"}
    bundle = {"resources": [{"kind": "online_endpoint", "document": document}]}
    answer = body_of(house.post("/apply", bundle | {"dry_run": True}))
    assert not answer["applied"]
    assert body_of(house.get(DIGITS))["properties"]["description"] == "reads digits"
    changed = bundle | {"resources": [{"kind": "online_endpoint", "document": document | {"tags": {"a": "b"}}}]}
    assert body_of(house.post("/apply", changed))["applied"]
    house.settle()
    assert body_of(house.get(DIGITS))["tags"] == {"a": "b"}


def test_what_is_no_folder_is_not_applied(house: House) -> None:
    assert "no folder" in refusal(house.post("/apply", {"files": 1}), 400, "InvalidInput")


# The audit log.


def test_every_change_is_in_the_audit_log_with_who_made_it(house: House) -> None:
    robot = house.add_token("robot", Role.OPERATOR)
    house.put(DIGITS, {"properties": {}}, token=robot)
    house.add_token("other", Role.READER)
    house.delete("/tokens/other")
    entries = body_of(house.get("/audit"))["value"]
    newest = entries[0]
    assert (newest["who"], newest["role"], newest["action"]) == ("management.token", "admin", "delete")
    assert newest["target"] == "management token other"
    made = [one for one in entries if one["target"] == "online endpoint digits"]
    assert [(one["who"], one["outcome"]) for one in made] == [
        ("token:robot", "succeeded"),
        ("token:robot", "accepted"),
    ]
    assert made[0]["source"] == "127.0.0.1"
    assert made[0]["requestId"]


def test_the_audit_log_comes_in_pages_and_is_filtered(house: House) -> None:
    for number in range(3):
        house.add_endpoint(f"endpoint{number}")
    page = body_of(house.get("/audit?limit=4"))
    seen = [one["id"] for one in page["value"]]
    while page["nextLink"]:
        page = body_of(house.get(page["nextLink"]))
        seen += [one["id"] for one in page["value"]]
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == len(set(seen)) == 6
    one = body_of(house.get("/audit?target=online%20endpoint%20endpoint1&who=management.token"))["value"]
    assert {entry["target"] for entry in one} == {"online endpoint endpoint1"}
    assert body_of(house.get("/audit?who=nobody"))["value"] == []


# Management tokens.


def test_a_token_is_told_once_works_and_ends_with_its_deletion(house: House) -> None:
    made = body_of(house.post("/tokens", {"name": "ci", "role": "Operator", "lifetimeSeconds": 3600}), 201)
    assert (made["role"], made["expiresAt"]) == ("operator", "2027-01-15T09:00:00.000000Z")
    assert body_of(house.put(DIGITS, {"properties": {}}, token=made["token"]), 201)
    listed = body_of(house.get("/tokens"))["value"]
    assert [(one["name"], one["createdBy"]) for one in listed] == [("ci", "management.token")]
    assert made["token"] not in house.get("/tokens").text
    assert "already" in refusal(house.post("/tokens", {"name": "ci", "role": "reader"}), 409, "Conflict")
    assert house.delete("/tokens/ci").status_code == 200
    assert house.delete("/tokens/ci").status_code == 204
    refusal(house.get(DIGITS, token=made["token"]), 401, "InvalidAuthenticationToken")


def test_a_token_that_has_run_out_opens_nothing(house: House) -> None:
    token = body_of(house.post("/tokens", {"name": "short", "role": "reader", "lifetimeSeconds": 60.0}), 201)["token"]
    assert house.get("/status", token=token).status_code == 200
    house.now_s += 61
    refusal(house.get("/status", token=token), 401, "InvalidAuthenticationToken")


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x"},
        {"name": "x", "role": "god"},
        {"name": 1, "role": "reader"},
        {"name": "-", "role": "reader"},
        {"name": "x", "role": "reader", "lifetimeSeconds": 0},
        {"name": "x", "role": "reader", "lifetimeSeconds": 1.5},
        {"name": "x", "role": "reader", "lifetimeSeconds": True},
    ],
)
def test_what_is_no_token_is_refused(house: House, body: dict[str, Any]) -> None:
    assert "accepted" in refusal(house.post("/tokens", body), 400, "InvalidInput")
    assert body_of(house.get("/tokens"))["value"] == []


# Rollouts.


@pytest.fixture
def two(house: House) -> House:
    house.add_endpoint()
    house.add_model()
    for name in ("blue", "green"):
        house.add_deployment(name)
    body_of(house.add_endpoint(traffic={"blue": 100}))
    return house


def traffic(house: House) -> Any:
    return body_of(house.get(DIGITS))["properties"]["traffic"]


def test_a_rollout_is_begun_promoted_and_forgotten(two: House) -> None:
    made = body_of(two.put(ROLLOUT, PLAN), 201)
    assert made["id"] == ROLLOUT
    properties = made["properties"]
    assert (properties["status"], properties["percent"], properties["from"]) == ("Running", 10, "blue")
    assert traffic(two) == {"blue": 90, "green": 10}
    assert body_of(two.put(ROLLOUT, PLAN))["properties"]["status"] == "Running"
    assert "careful" in refusal(two.put(ROLLOUT.replace("careful", "other"), PLAN), 409, "Conflict")
    assert "Running" in refusal(two.delete(ROLLOUT), 409, "Conflict")
    assert body_of(two.post(f"{ROLLOUT}/promote"))["properties"]["percent"] == 100
    assert traffic(two) == {"green": 100}
    assert body_of(two.post(f"{ROLLOUT}/promote"))["properties"]["status"] == "Succeeded"
    assert [one["name"] for one in body_of(two.get(f"{DIGITS}/rollouts"))["value"]] == ["careful"]
    assert two.delete(ROLLOUT).status_code == 200
    assert two.delete(ROLLOUT).status_code == 204
    assert "careful" in refusal(two.get(ROLLOUT), 404, "ResourceNotFound")


def test_a_rollout_is_paused_resumed_and_cancelled(two: House) -> None:
    etag = two.put(ROLLOUT, PLAN).headers["etag"]
    assert two.get(ROLLOUT).headers["etag"] == etag
    assert body_of(two.post(f"{ROLLOUT}/pause"))["properties"]["status"] == "Paused"
    assert body_of(two.post(f"{ROLLOUT}/resume"))["properties"]["status"] == "Running"
    assert body_of(two.post(f"{ROLLOUT}/cancel"))["properties"]["status"] == "Cancelled"
    assert traffic(two) == {"blue": 100}
    refusal(two.post(f"{ROLLOUT}/resume"), 409, "Conflict")
    refusal(two.delete(ROLLOUT, headers={"if-match": etag}), 412, "PreconditionFailed")


@pytest.mark.parametrize("body", [{"properties": []}, {"properties": {"from": "blue"}}, {"from": 1, "to": 2}])
def test_what_is_no_rollout_is_refused(two: House, body: dict[str, Any]) -> None:
    refusal(two.put(ROLLOUT, body), 400, "InvalidInput")


def test_a_rollout_needs_its_endpoint(house: House) -> None:
    for response in (
        house.put(ROLLOUT, PLAN),
        house.get(ROLLOUT),
        house.get(f"{DIGITS}/rollouts"),
        house.delete(ROLLOUT),
    ):
        assert "digits" in refusal(response, 404, "ResourceNotFound")


# What a later version wrote.


def of_a_later_version(house: House, kind: Kind, key: str, parent: str = "") -> None:
    def age(tx: Transaction) -> None:
        found = tx.get(Ref(kind=kind, parent=parent, key=key))
        assert found is not None
        tx.put(replace(found, document=found.document | {"newer_key": 1}), expected=found.version)

    house.write(age)


def test_what_cannot_be_read_is_shown_as_failed_and_stops_nothing_else(house: House) -> None:
    house.add_endpoint(description="reads digits")
    house.add_endpoint("letters")
    house.add_model()
    of_a_later_version(house, Kind.ONLINE_ENDPOINT, "digits")
    of_a_later_version(house, Kind.MODEL, "1", "digits")

    listed = {one["name"]: one["properties"] for one in body_of(house.get(f"{WORKSPACE}/onlineEndpoints"))["value"]}
    assert listed["letters"]["provisioningState"] == "Succeeded"
    assert listed["digits"]["provisioningState"] == "Failed"
    assert listed["digits"]["description"] == "reads digits"
    assert "unknown field `newer_key`" in listed["digits"]["properties"]["gateway.fault"]
    models = body_of(house.get(f"{WORKSPACE}/models"))["value"]
    versions = body_of(house.get(f"{WORKSPACE}/models/digits/versions"))["value"]
    assert (models[0]["name"], versions[0]["properties"]["provisioningState"]) == ("digits", "Failed")
    body_of(house.get("/export"))

    bundle = {"resources": [{"kind": "online_endpoint", "document": {"name": "letters", "description": "more"}}]}
    assert body_of(house.post("/apply", bundle))["applied"]
    message = refusal(house.patch(DIGITS, {"tags": {"a": "b"}}), 409, "Conflict")
    assert "newer_key" in message and "PUT" in message


def test_what_cannot_be_read_is_mended_by_giving_it_again(house: House) -> None:
    house.add_endpoint(description="reads digits")
    of_a_later_version(house, Kind.ONLINE_ENDPOINT, "digits")
    seen = body_of(house.get(DIGITS))
    assert house.put(DIGITS, {"properties": seen["properties"]}).is_success
    house.settle()
    mended = body_of(house.get(DIGITS))["properties"]
    assert mended["provisioningState"] == "Succeeded"
    assert "gateway.fault" not in mended["properties"]
    assert mended["description"] == "reads digits"


@pytest.mark.parametrize("deletes", [True, False])
def test_a_deployment_that_cannot_be_read_is_deleted_or_given_again(house: House, deletes: bool) -> None:
    house.add_endpoint()
    house.add_model()
    house.add_deployment()
    house.settle()
    of_a_later_version(house, Kind.ONLINE_DEPLOYMENT, "blue", "digits")
    blue = f"{DIGITS}/deployments/blue"
    assert body_of(house.get(blue))["properties"]["provisioningState"] == "Failed"
    if deletes:
        assert house.delete(blue).is_success
        house.settle()
        assert house.get(blue).status_code == 404
    else:
        house.add_deployment()
        house.settle()
        assert body_of(house.get(blue))["properties"]["provisioningState"] == "Succeeded"
