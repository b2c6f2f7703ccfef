"""What must change so that what is stored is what a folder says, and how it is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.controlplane.apply import changes, describe, report, settle, summary
from gateway.controlplane.documents import to_builtins
from gateway.controlplane.store.records import Kind, Ref, State
from tests.support.applied import DEPLOYMENT, ENDPOINT, Stored, read, write

MODEL = "name: Digits\nversion: 3\npath: m.onnx\n"
NAMED = DEPLOYMENT.replace("m.onnx", "azureml:Digits:3")


def lines(stored: Stored, folder: Path, *, prune: bool = False) -> list[str]:
    """What an apply says; it is carried out."""
    found = stored.changes(read(folder).wanted, prune=prune)
    assert found.problems == ()
    stored.carry_out(found)
    return list(report(found, is_done=True).changes)


def problems(stored: Stored, folder: Path, *, prune: bool = False) -> list[str]:
    return list(stored.changes(read(folder).wanted, prune=prune).problems)


def test_a_new_folder_is_made_whole_and_twice_is_once(tmp_path: Path) -> None:
    stored, folder = Stored(), write(tmp_path, a=ENDPOINT, b=DEPLOYMENT)
    model, endpoint, deployment = lines(stored, folder)
    assert model.startswith("+ model ")
    assert model.endswith(":1 (m.onnx, 7 bytes)")
    assert (endpoint, deployment) == ("+ endpoint digits", "+ deployment digits/blue")
    again = stored.changes(read(folder).wanted)
    assert again.is_empty
    assert summary(again, is_done=True) == "0 created, 0 changed, 0 deleted, 3 unchanged"


def test_a_changed_value_is_told_as_old_and_new(tmp_path: Path) -> None:
    stored, folder = Stored(), write(tmp_path, a=ENDPOINT, b=DEPLOYMENT)
    lines(stored, folder)
    more = "instance_count: 2\nrequest_settings: {request_timeout_ms: 90}\nenvironment_variables: {SECRET: x}\n"
    assert lines(stored, write(tmp_path, b=DEPLOYMENT + more + 'description: "a\\nb"\n')) == [
        '~ deployment digits/blue: description: not given → "a\\nb"',
        "~ deployment digits/blue: instance_count: 1 → 2",
        "~ deployment digits/blue: request_settings.request_timeout_ms: 5000 → 90",
        "~ deployment digits/blue: environment_variables.SECRET: changed",
    ]
    assert lines(stored, write(tmp_path, b=DEPLOYMENT + f"tags: {{a: {'x' * 200}}}\ninstance_count: 2\n")) == [
        '~ deployment digits/blue: description: "a\\nb" → not given',
        "~ deployment digits/blue: request_settings.request_timeout_ms: 90 → 5000",
        "~ deployment digits/blue: environment_variables.SECRET: changed",
        f"~ deployment digits/blue: tags.a: not given → {'x' * 100}...",
    ]


def test_a_block_without_keys_is_a_change_too(tmp_path: Path) -> None:
    stored, folder = Stored(), write(tmp_path, b=NAMED)
    stored.put(Kind.ONLINE_ENDPOINT, {"name": "digits"})
    lines(stored, folder)
    collected = "data_collector: {collections: {request: {}}}\n"
    said = "~ deployment digits/blue: data_collector.collections.request:"
    assert lines(stored, write(folder, b=NAMED + collected)) == [f"{said} not given → {{}}"]
    assert lines(stored, write(folder, b=NAMED)) == [f"{said} {{}} → not given"]


def test_what_this_version_cannot_read_is_compared_as_it_is(tmp_path: Path) -> None:
    stored, folder = Stored(), write(tmp_path, a="name: digits\n")
    lines(stored, folder)
    stored.resources[0].document["zzz"] = {"x": [1]}
    assert lines(stored, folder) == ["~ endpoint digits: zzz.x: [1] → not given"]


def test_a_document_changes_when_the_content_of_its_model_does(tmp_path: Path) -> None:
    stored, folder = Stored(), write(tmp_path, a=ENDPOINT, b=DEPLOYMENT)
    lines(stored, folder)
    (folder / "m.onnx").write_bytes(b"another model" * 1000)
    made, changed, gone = lines(stored, folder)
    assert made.startswith("+ model ")
    assert made.endswith("(m.onnx, 12.7 KiB)")
    assert changed.startswith("~ deployment digits/blue: model: azureml:")
    assert gone.startswith("- model ")


def test_what_the_folder_no_longer_holds_is_deleted_in_an_order_that_can_be_done(tmp_path: Path) -> None:
    stored, folder = Stored(), write(tmp_path, a=ENDPOINT, b=DEPLOYMENT)
    lines(stored, folder)
    for name in "ab":
        (folder / f"{name}.yml").unlink()
    found = lines(stored, write(tmp_path, c="name: other\n"))
    assert found[:3] == ["+ endpoint other", "- deployment digits/blue", "- endpoint digits"]
    assert found[3].startswith("- model ")
    assert [one.name for one in stored.resources] == ["other"]


def test_what_others_made_is_left_alone_unless_the_folder_is_the_whole_truth(tmp_path: Path) -> None:
    stored, folder = Stored(), write(tmp_path, a="name: digits\n")
    stored.put(Kind.ONLINE_ENDPOINT, {"name": "letters"})
    stored.put(Kind.MODEL, {"name": "old", "version": "1", "path": "https://far/m.onnx"})
    stored.resources.append(replace(stored.resources[0], ref=Ref(kind=Kind.ROLLOUT, parent="letters", key="x")))
    assert lines(stored, folder) == ["+ endpoint digits"]
    assert lines(stored, folder, prune=True) == ["- endpoint letters", "- model old:1"]
    assert stored.changes(read(folder).wanted, prune=True).is_empty


def test_what_the_folder_names_becomes_its_own(tmp_path: Path) -> None:
    stored, folder = Stored(), write(tmp_path, a="name: digits\n")
    stored.put(Kind.ONLINE_ENDPOINT, {"name": "digits"}, by="anna")
    said = "~ endpoint digits: belongs to the folder from now on; it was made by anna"
    assert lines(stored, folder) == [said]
    assert stored.changes(read(folder).wanted).is_empty


def test_an_endpoint_with_deployments_of_others_is_not_taken_from_under_them(tmp_path: Path) -> None:
    stored, folder = Stored(), write(tmp_path, a="name: digits\n")
    lines(stored, folder)
    deployment = {"name": "red", "endpoint_name": "digits", "model": "azureml:m:1"}
    stored.put(Kind.ONLINE_DEPLOYMENT, deployment, by="anna")
    write(folder, a="name: letters\n")
    (problem,) = problems(stored, folder)
    assert problem == (
        "endpoint digits is no longer in the folder, and its deployment digits/red was made by anna; "
        "delete that first, add both to the folder, or prune"
    )
    assert lines(stored, folder, prune=True) == ["+ endpoint letters", "- deployment digits/red", "- endpoint digits"]


def test_a_deployment_does_not_outlive_its_endpoint(tmp_path: Path) -> None:
    stored, folder = Stored(), write(tmp_path, a=ENDPOINT, b=DEPLOYMENT)
    lines(stored, folder)
    (folder / "a.yml").unlink()
    assert problems(stored, folder) == [
        "b.yml: deployment digits/blue: its endpoint digits is no longer in the folder; "
        "add that again, or remove this too"
    ]


def test_an_asset_that_something_refers_to_is_never_deleted(tmp_path: Path) -> None:
    stored, folder = Stored(), write(tmp_path, a=ENDPOINT, b=NAMED, c=MODEL)
    lines(stored, folder)
    (folder / "c.yml").unlink()
    assert lines(stored, folder, prune=True) == []
    # Another's deployment served it until its update failed.
    (folder / "b.yml").unlink()
    document = {"name": "red", "endpoint_name": "letters", "model": "azureml:gone:1"}
    stored.put(Kind.ONLINE_DEPLOYMENT, document)
    before = {"model": "azureml:digits:3", "code_configuration": {"code": "azureml:c:1"}}
    stored.resources[-1] = replace(stored.resources[-1], served=before)
    assert lines(stored, write(tmp_path, a="name: digits\n")) == [
        "~ endpoint digits: traffic.blue: 100 → not given",
        "- deployment digits/blue",
    ]


def test_a_failed_resource_is_tried_again(tmp_path: Path) -> None:
    stored, folder = Stored(), write(tmp_path, a="name: digits\n")
    lines(stored, folder)
    stored.resources[0] = replace(stored.resources[0], state=State.FAILED, reason="no room")
    assert lines(stored, folder) == ["~ endpoint digits: tried again, for it failed: no room"]


# ---- assets ------------------------------------------------------------------------------------------------------


def test_a_registered_version_never_changes_its_content(tmp_path: Path) -> None:
    stored, folder = Stored(), write(tmp_path, c=MODEL)
    assert lines(stored, folder) == ["+ model Digits:3 (m.onnx, 7 bytes)"]
    assert lines(stored, write(folder, c=MODEL + "description: new\ntags: {a: b}\n")) == [
        "~ model Digits:3: description: not given → new",
        "~ model Digits:3: tags.a: not given → b",
    ]
    (folder / "m.onnx").write_bytes(b"other")
    assert problems(stored, folder) == [
        "c.yml: model Digits:3 is registered with other content, and a version never changes; "
        "accepted: the same content, or another version"
    ]
    write(folder, c=MODEL + "type: triton_model\n")
    assert "never changes" in problems(stored, folder)[0]


def test_content_counts_and_not_where_it_came_from(tmp_path: Path) -> None:
    stored, folder = Stored(), write(tmp_path, c=MODEL)
    stored.carry_out(stored.changes(read(folder, tmp_path).wanted))
    assert (
        stored.resources[0].document["path"].startswith("azureml://datastores/workspaceblobstore/paths/LocalUpload")
    )
    assert stored.changes(read(folder).wanted).is_empty


def test_an_address_elsewhere_is_the_content(tmp_path: Path) -> None:
    text = "name: images\nversion: 1\ntype: uri_folder\npath: https://far/images\n"
    stored, folder = Stored(), write(tmp_path, c=text)
    assert lines(stored, folder) == ["+ data images:1"]
    assert lines(stored, folder) == []
    write(folder, c=text.replace("far/images", "far/others"))
    assert "data images:1 is registered with other content" in problems(stored, folder)[0]


def test_a_build_context_is_the_content_of_an_environment(tmp_path: Path) -> None:
    text = "name: env\nversion: 1\nbuild: {path: context}\n"
    folder = write(tmp_path, c=text)
    (folder / "context").mkdir()
    (folder / "context" / "Dockerfile").write_text("FROM scratch")
    stored = Stored()
    assert lines(stored, folder) == ["+ environment env:1 (Dockerfile, 12 bytes)"]
    assert lines(stored, folder) == []
    assert stored.changes(read(folder, tmp_path).wanted).is_empty
    (folder / "context" / "Dockerfile").write_text("FROM other")
    assert "never changes" in problems(stored, folder)[0]


def test_a_version_that_is_not_given_is_one_more_than_the_latest_where_the_content_is_new(tmp_path: Path) -> None:
    unversioned = MODEL.replace("version: 3\n", "")
    stored, folder = Stored(), write(tmp_path, a=ENDPOINT, b=NAMED.replace(":3", "@latest"), c=unversioned)
    assert lines(stored, folder)[0] == "+ model Digits:1 (m.onnx, 7 bytes)"
    assert lines(stored, folder) == []
    (folder / "m.onnx").write_bytes(b"other")
    assert lines(stored, folder) == [
        "+ model Digits:2 (m.onnx, 5 bytes)",
        "~ deployment digits/blue: model: azureml:Digits:1 → azureml:Digits:2",
        "- model Digits:1",
    ]
    # Back to what it was: the latest is what counts.
    write(folder)
    assert lines(stored, folder)[0] == "+ model Digits:3 (m.onnx, 7 bytes)"


def test_versions_that_are_given_are_no_number_twice(tmp_path: Path) -> None:
    folder = write(tmp_path, a=MODEL, b=MODEL.replace("version: 3\n", ""), c=MODEL.replace("3", "beta"))
    found = settle(read(folder).wanted, [])
    assert [one.name for one in found] == ["3", "4", "beta"]


@pytest.mark.parametrize("reference", ["azureml:other@latest", "azureml:Digits@latest", "azureml:Digits:3"])
def test_references_to_the_latest_are_looked_up_where_they_can_be(tmp_path: Path, reference: str) -> None:
    folder = write(tmp_path, b=NAMED.replace("azureml:Digits:3", reference) + "environment: azureml:env@latest\n")
    stored = Stored()
    stored.put(Kind.MODEL, {"name": "Digits", "version": "9", "path": "x"})
    stored.put(Kind.MODEL, {"name": "Digits", "version": "3", "path": "x"})
    (found,) = settle(read(folder).wanted, stored.resources)
    document = to_builtins(found.document)
    assert document["model"] == reference.replace("Digits@latest", "Digits:3")
    assert document["environment"] == "azureml:env@latest"


def test_one_thing_in_two_documents_is_refused(tmp_path: Path) -> None:
    assert problems(Stored(), write(tmp_path, a="name: digits\n", b="name: DIGITS\n")) == [
        "b.yml: endpoint DIGITS is in a.yml too; accepted: one document for it"
    ]


def test_batch_resources_are_named_as_such(tmp_path: Path) -> None:
    batch = "$schema: https://x/batchEndpoint.schema.json\nname: nightly\n"
    main = "name: main\nendpoint_name: nightly\ntype: model\nmodel: m.onnx\ncompute: azureml:any\n"
    stored, folder = Stored(), write(tmp_path, a=batch, b=main)
    assert lines(stored, folder)[1:] == ["+ batch endpoint nightly", "+ batch deployment nightly/main"]
    assert lines(stored, folder) == []


def test_sizes_are_told_in_units_that_people_read(tmp_path: Path) -> None:
    (wanted,) = read(write(tmp_path, c=MODEL)).wanted
    for size, said in ((3 * 1024**2, "3.0 MiB"), (5 * 1024**3, "5.0 GiB")):
        one = replace(wanted, files=(replace(wanted.files[0], size_bytes=size),))
        (change,) = changes([], [one]).upserts
        assert describe(change) == [f"+ model Digits:3 (m.onnx, {said})"]
    two = replace(wanted, files=(wanted.files[0], replace(wanted.files[0], path="n.onnx")))
    (change,) = changes([], [two]).upserts
    assert describe(change) == ["+ model Digits:3 (2 files, 14 bytes)"]


def test_at_a_start_an_endpoint_that_left_the_folder_stays_while_others_have_deployments_there(
    tmp_path: Path,
) -> None:
    stored, folder = Stored(), write(tmp_path, a=ENDPOINT)
    lines(stored, folder)
    stored.put(Kind.ONLINE_DEPLOYMENT, {"name": "theirs", "endpoint_name": "digits"})
    resources = stored.resources
    assert changes(resources, []).problems
    spared = changes(resources, [], spares=True)
    assert not spared.problems
    assert not spared.deletes
    alone = [one for one in resources if one.ref.kind is Kind.ONLINE_ENDPOINT]
    assert [one.ref for one in changes(alone, [], spares=True).deletes] == [alone[0].ref]
