"""A deployment's log as a person reads it: what loading found, what was given in vain, why something failed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from gateway.channel import Loaded
from gateway.controlplane.documents import from_builtins, to_builtins
from gateway.controlplane.events import loading, log_text, news
from gateway.controlplane.folder import FolderOptions
from gateway.controlplane.store.records import AssetFile, Event, Kind, Ref, Resource, State
from gateway.controlplane.wanted import notes
from gateway.controlplane.yaml_types import BatchDeploymentYaml
from runtimes import Learned
from tests.support.plane import ANN, D, Plane, deployment, deployment_ref, endpoint_ref

LOADED = Loaded(load_s=0.214, provider="CPUExecutionProvider", sha256="x")
BATCHED = Learned(
    batched=True,
    reason="each of 8 sample rows got the same answer alone and beside other rows",
    run_ns=11_400,
    dispatch="inline",
    rows_max=64,
    reasons={"dispatch": "it is quick", "rows_max": "the most", "threads": "shared out", "instances": "one loop"},
)
ALONE = Learned(
    batched=False,
    reason="output y has no batch axis",
    run_ns=2_400_000,
    rows_max=1,
    instances=2,
    padding_reason="row 3 got another answer beside padding",
    reasons={"device": "the model does not fit on the device; it runs on the CPU"},
)


def event(name: str, message: str, at: float = 1_800_000_000.0) -> Event:
    return Event(at=at, endpoint="digits", deployment="blue", name=name, message=message)


def log_of(plane: Plane, name: str = "blue") -> list[str]:
    """Without the times."""
    lines = plane.run(plane.control.logs("digits", name, None)).splitlines()
    return [" ".join(line.split()[1:]) for line in lines]


# ---- lines ----


def test_lines_stand_one_under_the_other() -> None:
    text = log_text([event("create", "accepted"), event("RolloutStarted", "from blue to green", 1_800_000_059.9)])
    assert text.splitlines() == [
        "2027-01-15T08:00:00Z create:         accepted",
        "2027-01-15T08:00:59Z RolloutStarted: from blue to green",
    ]
    assert log_text([]) == ""


def test_a_reason_of_several_lines_is_one_line_and_no_terminal_obeys_it() -> None:
    text = log_text([event("update", "failed: Load failed:\n  node\tConv\r\n\x1b[31mred \u202eback\u2028end")])
    assert text == "2027-01-15T08:00:00Z update: failed: Load failed: node Conv \\u001b[31mred \\u202eback end\n"


def test_what_loading_found_is_a_line_each() -> None:
    assert list(loading(BATCHED, LOADED)) == [
        "in 0.21 s on CPUExecutionProvider; a run of one row takes 11 us",
        "requests share runs: each of 8 sample rows got the same answer alone and beside other rows",
        "at most 64 rows a run: the most",
        "runs are on the event loop: it is quick",
        "1 instance in each scorer: one loop",
        "1 thread for each instance: shared out",
    ]
    assert list(loading(ALONE, LOADED)) == [
        "in 0.21 s on CPUExecutionProvider; a run of one row takes 2.4 ms",
        "requests share no run: output y has no batch axis",
        "lengths are not padded: row 3 got another answer beside padding",
        "runs are on threads of their own",
        "2 instances in each scorer",
        "1 thread for each instance",
        "device: the model does not fit on the device; it runs on the CPU",
    ]


def test_what_was_not_loaded_again_is_told_only_where_it_changed() -> None:
    assert news((BATCHED, LOADED), (BATCHED, LOADED)) == []
    more = replace(BATCHED, instances=3)
    assert news((BATCHED, LOADED), (more, LOADED)) == ["3 instances in each scorer: one loop"]
    again = msgspec.structs.replace(LOADED, load_s=0.3)
    assert len(news((BATCHED, LOADED), (BATCHED, again))) == len(news(None, (BATCHED, LOADED))) == 6


# ---- keys in vain ----


def found(kind: Kind, name: str, version: str) -> Resource | None:
    """Any model, of one ONNX file."""
    if kind is not Kind.MODEL:
        return None
    return Resource(
        ref=Ref(kind=kind, parent=name, key=version),
        name=version,
        parent_name=name,
        document={"path": "x/m.onnx"},
        files=(AssetFile(path="m.onnx", sha256="0" * 64, size_bytes=1),),
        state=State.SUCCEEDED,
        owner="",
        created_at=0.0,
        created_by="",
        modified_at=0.0,
        modified_by="",
    )


def told(document: msgspec.Struct) -> list[str]:
    return [one.partition(":")[0] for one in notes(document, FolderOptions(), found)]


def test_keys_without_effect_are_told_by_their_path() -> None:
    given = deployment(environment="azureml:env:1", app_insights_enabled=True)
    document = from_builtins(D, {**to_builtins(given), "gateway": {"batching": {"max_tokens": 64}}})
    assert told(document) == [
        "environment",
        "app_insights_enabled",
        "gateway.batching.max_tokens",
    ]
    batch = BatchDeploymentYaml(name="b", endpoint_name="e", model="azureml:m:1", compute="azureml:cpu")
    assert told(batch) == ["compute"]
    assert told(deployment()) == []


def test_a_key_without_effect_is_an_event_once(plane: Plane) -> None:
    plane.add_model()
    plane.put_endpoint()
    vain: dict[str, Any] = {"app_insights_enabled": True}
    plane.put_deployment(**vain)
    said = "note: app_insights_enabled: accepted, not enforced here: metrics are on the telemetry listener"
    assert log_of(plane)[:2] == ["create: accepted", said]
    plane.put_deployment(tags={"a": "b"}, **vain)
    assert log_of(plane).count(said) == 1
    plane.put_deployment(environment="azureml:env:1", **vain)
    assert log_of(plane)[-2].startswith("note: environment: accepted, not enforced here: ")


def test_an_endpoints_key_without_effect_is_an_event_of_the_endpoint(plane: Plane) -> None:
    plane.put_endpoint(public_network_access="disabled")
    events = plane.read(lambda tx: tx.events("digits", "", 10))
    assert [(one.name, one.message.partition(":")[0]) for one in events] == [
        ("create", "accepted"),
        ("note", "public_network_access"),
        ("create", "succeeded"),
    ]


def test_a_document_that_can_no_longer_be_read_may_be_replaced(plane: Plane) -> None:
    plane.serving()
    found = plane.need(deployment_ref())
    broken = replace(found, document={"name": 7})
    plane.write(lambda tx: tx.put(broken, expected=found.version))
    assert plane.put_deployment(app_insights_enabled=True).resource.state is State.SUCCEEDED
    assert any(line.startswith("note: app_insights_enabled") for line in log_of(plane))


# ---- changes ----


def test_a_change_that_loads_nothing_says_nothing_of_loading(plane: Plane) -> None:
    plane.serving()
    before = log_of(plane)
    plane.put_deployment(tags={"a": "b"})
    assert log_of(plane)[len(before) :] == ["update: accepted", "update: succeeded"]


def test_a_change_that_fails_says_why_in_one_line(plane: Plane) -> None:
    plane.add_model()
    plane.put_endpoint()
    plane.scorers.failing["digits/blue"] = "Load failed:\nnode Conv_7 has no weights"
    plane.put_deployment()
    assert log_of(plane) == [
        "create: accepted",
        "create: failed: deployment digits/blue: Load failed: node Conv_7 has no weights",
    ]


def test_a_deployment_that_does_not_load_at_a_start_says_so_once_and_so_when_it_does_again(plane: Plane) -> None:
    plane.serving()
    before = len(log_of(plane))
    plane.scorers.failing["digits/blue"] = "no memory"
    plane.restart()
    plane.restart()
    plane.scorers.failing.clear()
    plane.restart()
    assert log_of(plane)[before:] == ["load: failed: no memory", "load: succeeded again"]


def test_what_happens_beside_changes_is_told_in_the_log(plane: Plane) -> None:
    plane.serving()
    plane.run(plane.control.tell("digits/blue", "degraded", "a scorer that was replaced could not load it again: no"))
    assert log_of(plane)[-1] == "degraded: a scorer that was replaced could not load it again: no"


def test_a_deleted_endpoint_takes_the_failures_of_its_deployments_along(plane: Plane) -> None:
    plane.add_model()
    plane.put_endpoint()
    plane.put_endpoint("letters")
    for endpoint in ("digits", "letters"):
        plane.scorers.failing[f"{endpoint}/blue"] = "no"
        plane.put_deployment(parent=endpoint)
    assert set(plane.control.failed) == {"digits/blue", "letters/blue"}
    plane.delete(endpoint_ref())
    assert set(plane.control.failed) == {"letters/blue"}


# ---- counts ----


def test_operations_are_counted_as_they_end(plane: Plane) -> None:
    plane.serving()
    plane.scorers.failing["digits/green"] = "no"
    plane.put_deployment("green")
    plane.run(plane.control.regenerate("digits", "primary", None, ANN))
    plane.delete(deployment_ref("green"))
    counted = {key: count for key, count in plane.control.operations.ended.items() if count}
    assert counted == {
        ("create", "succeeded"): 2,
        ("update", "succeeded"): 1,
        ("create", "failed"): 1,
        ("regenerate", "succeeded"): 1,
        ("delete", "succeeded"): 1,
    }
    assert plane.control.operations.under_way == 0
    assert plane.control.operations.totals().count == 6
    assert not plane.read(lambda tx: tx.unfinished())
