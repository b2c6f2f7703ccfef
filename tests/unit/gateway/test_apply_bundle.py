"""A folder on its way to a gateway elsewhere: what is sent, what is answered, and what is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.controlplane.apply_bundle import Bundle, apply_bundle, bundle_of, is_inside, uploads_of, wanted_of
from gateway.errors import Code, Problem
from tests.support.applied import ACTOR, DEPLOYMENT, ENDPOINT, Stored, read, write


def send(stored: Stored, body: dict[str, Any]) -> dict[str, Any]:
    """The answer as it travels."""
    answer = asyncio.run(apply_bundle(stored, body, ACTOR))
    return msgspec.json.decode(msgspec.json.encode(answer), type=dict[str, Any])


def refusal(body: dict[str, Any]) -> Problem:
    with pytest.raises(Problem) as caught:
        send(Stored(), body)
    assert caught.value.code is Code.INVALID_INPUT
    return caught.value


def body_of(folder: Path, **more: Any) -> dict[str, Any]:
    body = msgspec.to_builtins(bundle_of(read(folder, folder).wanted, **more))
    assert isinstance(body, dict)
    return body


def one(kind: str, document: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"resources": [{"kind": kind, "document": document, "label": "a.yml", **more}]}


def test_content_that_is_missing_is_asked_for_and_nothing_is_changed_before(tmp_path: Path) -> None:
    stored, body = Stored(), body_of(write(tmp_path, a=ENDPOINT, b=DEPLOYMENT + "app_insights_enabled: true\n"))
    (sha256,) = (file["sha256"] for each in body["resources"] for file in each.get("files", ()))
    asked = send(stored, body)
    assert (asked["applied"], asked["missing"], asked["changes"]) == (False, [sha256], [])
    assert stored.resources == []
    stored.present.add(sha256)
    done = send(stored, body)
    assert (done["applied"], done["missing"], done["summary"]) == (
        True,
        [],
        "3 created, 0 changed, 0 deleted, 0 unchanged",
    )
    assert done["notes"] == [
        "b.yml: app_insights_enabled: accepted, not enforced here: metrics are on the telemetry listener"
    ]
    assert send(stored, body)["changes"] == []


def test_a_dry_run_needs_no_content_and_changes_nothing(tmp_path: Path) -> None:
    stored = Stored()
    found = send(stored, body_of(write(tmp_path, a=ENDPOINT, b=DEPLOYMENT), dry_run=True))
    assert found["applied"] is False
    assert found["summary"] == "3 to create, 0 to change, 0 to delete, 0 unchanged"
    assert stored.resources == []


@pytest.mark.parametrize(("kind", "is_told"), [("custom", True), ("triton", True), ("mlflow", False)])
def test_what_only_scripts_have_is_told_of_models_that_are_surely_none(kind: str, is_told: bool) -> None:
    documents = {
        "online_endpoint": {"name": "digits"},
        "model": {"name": "m", "version": "1", "type": f"{kind}_model", "path": "azureml://datastores/a/paths/x"},
        "online_deployment": {
            "name": "blue",
            "endpoint_name": "digits",
            "model": "azureml:m:1",
            "environment_variables": {"A": "b"},
        },
    }
    resources = [{"kind": name, "document": document} for name, document in documents.items()]
    answer = send(Stored(), {"resources": resources})
    assert any("environment_variables" in note for note in answer["notes"]) == is_told


def test_to_prune_is_asked_for(tmp_path: Path) -> None:
    stored = Stored()
    stored.put(read(write(tmp_path, a=ENDPOINT)).wanted[0].ref.kind, {"name": "other"})
    assert send(stored, body_of(tmp_path))["changes"] == ["+ endpoint digits"]
    assert send(stored, body_of(tmp_path, prune=True))["changes"] == ["- endpoint other"]


def test_what_is_sent_is_what_is_wanted(tmp_path: Path) -> None:
    wanted = read(write(tmp_path, a=ENDPOINT, b=DEPLOYMENT), tmp_path).wanted
    again = msgspec.json.decode(msgspec.json.encode(bundle_of(wanted)), type=Bundle)
    assert wanted_of(again) == wanted


def test_content_is_uploaded_where_its_asset_says_that_it_is(tmp_path: Path) -> None:
    folder = write(tmp_path, c="name: m\nversion: 1\npath: m.onnx\n", d="name: a\nversion: 1\npath: deep\n")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "x.bin").write_bytes(b"x")
    (folder / "deep" / "y.bin").write_bytes(b"y")
    found = sorted(path.split("/", 2)[2] for path in uploads_of(read(folder, folder).wanted).values())
    assert found == ["deep/er/x.bin", "deep/y.bin", "m.onnx"]
    assert all(path.startswith("LocalUpload/") for path in uploads_of(read(folder, folder).wanted).values())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "the body is no folder of documents: Object missing required field `resources`"),
        ({"resources": [], "zzz": 1}, "unknown field `zzz`"),
        ({"resources": [{"kind": "rollout", "document": {}}]}, "Invalid enum value 'rollout'"),
        (one("model", {"path": "x"}, files=[{"path": "x", "sha256": "zz", "size": 1}]), "matching regex"),
        (one("online_endpoint", {}), "a.yml: cannot read a stored online_endpoint document"),
        (one("online_endpoint", {"name": "e", "auth_mode": "none"}), "a.yml: cannot read"),
        (
            one("online_deployment", {"name": "b", "endpoint_name": "e", "model": {"path": "x"}}),
            "model: found it inline",
        ),
        (one("model", {"path": "x", "version": "1"}), "a.yml: name: missing; accepted: text"),
        (one("model", {"name": "m", "path": "file:///etc/passwd"}), "a file of the gateway's own machine; accepted"),
        (one("batch_endpoint", {"name": "b"}, files=[{"path": "x", "sha256": "0" * 64, "size": 1}]), "is no asset"),
        (
            one("batch_deployment", {"name": "b", "endpoint_name": "e", "type": "pipeline"}),
            "a.yml: type: pipeline deployments are not supported",
        ),
    ],
)
def test_what_cannot_be_taken_is_refused_in_words(body: dict[str, Any], said: str) -> None:
    assert said in refusal(body).message


def test_every_document_that_is_wrong_is_told() -> None:
    first, second = one("model", {"name": "m", "path": "file:///x"}), one("model", {"path": "x"})
    second["resources"][0].pop("label")
    problem = refusal({"resources": first["resources"] + second["resources"]})
    assert [text.split(":")[0] for text in problem.details] == ["a.yml", "resources[1]"]


@pytest.mark.parametrize("path", ["../x", "/x", "a/../x", "a//x", "./x", "a\\x", "a\nx", "..", "a/", "\0"])
def test_a_file_stays_inside_its_asset(path: str) -> None:
    assert not is_inside(path)
    files = [{"path": path, "sha256": "0" * 64, "size": 1}]
    assert "stays inside the asset" in refusal(one("model", {"name": "m", "path": "x"}, files=files)).message


def test_a_file_is_in_an_asset_once() -> None:
    files = [{"path": "a/x.onnx", "sha256": "0" * 64, "size": 1}] * 2
    assert is_inside("a/x.onnx")
    assert "found a path twice" in refusal(one("model", {"name": "m", "path": "x"}, files=files)).message
