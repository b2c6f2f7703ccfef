"""A folder is one change: compared, checked as a whole, loaded, published and written at once, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.controlplane import applying
from gateway.controlplane.contents import Resolved
from gateway.controlplane.folder import FolderOptions
from gateway.controlplane.model_store import ModelChanged
from gateway.controlplane.reconcile import ChangeRefused
from gateway.controlplane.rules import Limits
from gateway.controlplane.steps import serve
from gateway.controlplane.store.database import StoreBusy
from gateway.controlplane.store.records import Kind, State, Status
from gateway.controlplane.yaml_types import ModelYaml
from gateway.credentials import digest
from gateway.errors import Code, Problem
from tests.support.applied import DEPLOYMENT, ENDPOINT, read, write
from tests.support.plane import ANN, D, E, M, Plane, deployment_ref, endpoint_ref, model_ref
from tests.support.waiting import PATIENCE_S

GREEN = DEPLOYMENT.replace("blue", "green")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An endpoint with a deployment of a local model."""
    return write(tmp_path / "folder", endpoint=ENDPOINT, blue=DEPLOYMENT)


def outcome(plane: Plane, folder: Resolved, **more: object) -> Problem:
    """Why it is refused; nothing has changed then."""
    before = plane.read(lambda tx: [one for kind in Kind for one in tx.find(kind)]), plane.scorers.serves
    with pytest.raises(Problem) as caught:
        plane.apply(folder, **more)  # type: ignore[arg-type]
    assert (plane.read(lambda tx: [one for kind in Kind for one in tx.find(kind)]), plane.scorers.serves) == before
    plane.agree()
    return caught.value


# ---- what it does ----


def test_a_folder_is_served_when_apply_returns_and_again_is_no_change(plane: Plane, folder: Path) -> None:
    report = plane.apply(read(folder), notes=["a note"])
    assert report.summary == "3 created, 0 changed, 0 deleted, 0 unchanged"
    assert report.notes == ("a note",)
    assert report.operation == ""
    assert {line[:1] for line in report.changes} == {"+"}
    found = plane.need(deployment_ref())
    assert (found.owner, found.state, found.created_by) == ("folder", State.SUCCEEDED, "folder")
    assert plane.served() == str(found.document["model"]) or plane.served().endswith("m.onnx")
    again = plane.apply(read(folder))
    assert (again.changes, again.summary) == ((), "0 created, 0 changed, 0 deleted, 3 unchanged")


def test_a_model_is_kept_by_its_content_and_outlives_its_file(plane: Plane, folder: Path) -> None:
    plane.apply(read(folder))
    (runtime,) = plane.scorers.serves.runtimes()
    (folder / "m.onnx").write_bytes(b"something else")
    assert Path(runtime.path).read_bytes() == b"a model"
    plane.restart()
    (runtime,) = plane.scorers.serves.runtimes()
    assert Path(runtime.path).read_bytes() == b"a model"
    report = plane.apply(read(folder))
    assert report.summary == "1 created, 1 changed, 1 deleted, 1 unchanged"
    (runtime,) = plane.scorers.serves.runtimes()
    assert Path(runtime.path).read_bytes() == b"something else"


def test_a_dry_run_says_all_and_changes_nothing(plane: Plane, folder: Path) -> None:
    report = plane.apply(read(folder), dry_run=True)
    assert report.summary == "3 to create, 0 to change, 0 to delete, 0 unchanged"
    assert plane.read(lambda tx: tx.find(E)) == []
    assert plane.scorers.serves.endpoints == {}
    (folder / "endpoint.yml").write_text("name: digits\ntraffic: {red: 100}\n")
    assert "has no deployment 'red'" in outcome(plane, read(folder), dry_run=True).message


def test_what_the_folder_no_longer_holds_goes_and_what_others_made_stays(plane: Plane, folder: Path) -> None:
    plane.apply(read(folder))
    plane.add_model()
    plane.put_endpoint("letters")
    plane.put_deployment("main", "letters")
    (folder / "blue.yml").unlink()
    (folder / "endpoint.yml").write_text("name: digits\n")
    report = plane.apply(read(folder))
    assert report.summary == "0 created, 1 changed, 2 deleted, 0 unchanged"
    assert plane.get(deployment_ref()) is None
    assert plane.served("main", "letters") == "azureml:m:1"
    plane.agree()
    pruned = plane.apply(read(folder), prune=True)
    assert pruned.summary == "0 created, 0 changed, 3 deleted, 1 unchanged"
    assert set(plane.scorers.serves.endpoints) == {"digits"}
    assert plane.get(model_ref()) is None
    plane.agree()


def test_what_others_made_belongs_to_the_folder_once_it_names_it(plane: Plane, folder: Path) -> None:
    plane.put_endpoint(tags={"a": "b"})
    report = plane.apply(read(folder))
    assert any("belongs to the folder from now on; it was made by ann" in line for line in report.changes)
    found = plane.need(endpoint_ref())
    assert (found.owner, found.created_by, found.document.get("tags")) == ("folder", "ann", None)


def test_registered_assets_and_latest_are_settled(plane: Plane, folder: Path) -> None:
    write(
        folder,
        model="$schema: https://azuremlschemas.azureedge.net/latest/model.schema.json\nname: shared\npath: m.onnx\n",
        blue=DEPLOYMENT.replace("m.onnx", "azureml:shared@latest"),
    )
    plane.apply(read(folder))
    assert plane.need(deployment_ref()).document["model"] == "azureml:shared:1"
    (folder / "m.onnx").write_bytes(b"a better one")
    plane.apply(read(folder))
    assert plane.need(deployment_ref()).document["model"] == "azureml:shared:2"
    plane.restart()
    (runtime,) = plane.scorers.serves.runtimes()
    assert Path(runtime.path).read_bytes() == b"a better one"


def test_batch_resources_of_a_folder_are_kept(plane: Plane, folder: Path) -> None:
    schema = "$schema: https://azuremlschemas.azureedge.net/latest/batch"
    write(
        folder,
        nightly=f"{schema}Endpoint.schema.json\nname: nightly\n",
        main=f"{schema}Deployment.schema.json\nname: main\nendpoint_name: nightly\nmodel: azureml:gone:1\n",
    )
    assert "there is no registered model azureml:gone:1" in outcome(plane, read(folder)).message
    (folder / "main.yml").write_text(f"{schema}Deployment.schema.json\nname: main\nendpoint_name: nightly\n")
    plane.apply(read(folder))
    assert len(plane.read(lambda tx: tx.find(Kind.BATCH_DEPLOYMENT))) == 1


# ---- all or nothing ----


def test_one_deployment_that_does_not_load_changes_nothing(plane: Plane, folder: Path) -> None:
    plane.apply(read(folder))
    write(folder, green=GREEN, letters="name: letters\n")
    plane.scorers.failing["digits/green"] = "the model is no good"
    said = outcome(plane, read(folder))
    assert said.code is Code.INVALID_INPUT
    assert said.message == "deployment digits/green: the model is no good"
    assert [one.aside for one in plane.scorers.scorers] == [{}, {}]
    plane.scorers.failing.clear()
    assert plane.apply(read(folder)).summary == "2 created, 0 changed, 0 deleted, 3 unchanged"
    plane.agree()


def test_every_mistake_is_said_with_its_file(plane: Plane, folder: Path) -> None:
    write(
        folder,
        endpoint="name: digits\ntraffic: {red: 100}\n",
        blue=DEPLOYMENT.replace("digits", "nowhere"),
        green=GREEN + "instance_count: 1000\n",
    )
    said = outcome(plane, read(folder))
    assert len(said.details) == 3, said.details
    assert any(one.startswith("endpoint.yml: ") and "'red'" in one for one in said.details)
    assert any(one.startswith("blue.yml: endpoint_name: there is no endpoint 'nowhere'") for one in said.details)
    assert any(one.startswith("green.yml: ") and "instance_count" in one for one in said.details)


def test_a_registered_version_never_changes(plane: Plane, folder: Path) -> None:
    write(
        folder,
        model="$schema: https://azuremlschemas.azureedge.net/latest/model.schema.json\n"
        "name: shared\nversion: '1'\npath: m.onnx\n",
    )
    plane.apply(read(folder))
    (folder / "m.onnx").write_bytes(b"another")
    assert "a version never changes" in outcome(plane, read(folder)).message


def test_totals_hold_over_the_whole(plane: Plane, folder: Path) -> None:
    plane.control.book.options = FolderOptions(limits=Limits(endpoints=2, deployments=1))
    write(folder, main=DEPLOYMENT.replace("digits", "letters"), letters="name: letters\n", words="name: words\n")
    assert outcome(plane, read(folder)).details == (
        "there would be 3 endpoints; accepted: at most 2 (setting endpoints_max)",
        "there would be 2 deployments; accepted: at most 1 (setting deployments_max)",
    )


def test_traffic_goes_to_no_deployment_that_was_never_ready(plane: Plane, folder: Path) -> None:
    plane.add_model()
    plane.put_endpoint()
    plane.scorers.failing["digits/green"] = "no"
    plane.put_deployment("green")
    (folder / "blue.yml").unlink()
    (folder / "endpoint.yml").write_text("name: digits\ntraffic: {green: 100}\n")
    assert "deployment green takes no traffic yet: its state is Failed" in outcome(plane, read(folder)).message
    # One that the folder tries again may have it.
    plane.scorers.failing.clear()
    write(folder, green=GREEN)
    plane.apply(read(folder))
    assert plane.traffic() == {"green": 100}
    plane.agree()


def test_a_deployment_with_traffic_of_somebody_elses_endpoint_is_not_taken_away(plane: Plane, folder: Path) -> None:
    plane.put_endpoint()
    (folder / "endpoint.yml").unlink()
    plane.apply(read(folder))
    plane.put_endpoint(traffic={"blue": 100})
    (folder / "blue.yml").unlink()
    write(folder, letters="name: letters\n")
    said = outcome_of(plane, read(folder))
    assert "deployment digits/blue is no longer in the folder, and endpoint digits gives it 100 percent" in said
    plane.put_endpoint()
    plane.apply(read(folder))
    assert plane.get(deployment_ref()) is None
    plane.agree()


def outcome_of(plane: Plane, folder: Resolved) -> str:
    with pytest.raises(Problem) as caught:
        plane.apply(folder)
    return caught.value.message


def test_a_file_that_changes_while_it_is_read_is_said_and_may_be_tried_again(
    plane: Plane, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(sources: object) -> None:
        raise ModelChanged("the file m.onnx changed while it was read; try it again")

    monkeypatch.setattr(plane.control.models, "keep", changed)
    said = outcome(plane, read(folder))
    assert said.code is Code.CONFLICT
    assert said.message == "the file m.onnx changed while it was read; try it again"


def test_a_store_that_is_away_changes_nothing_before_and_delays_the_record_after(
    plane: Plane, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.go_away(1)
    assert outcome(plane, read(folder)).code is Code.UNAVAILABLE
    # The operation is written, then the store goes.
    plane.go_away(1, after=1)
    assert outcome(plane, read(folder)).code is Code.UNAVAILABLE
    plane.go_away(3, after=2)
    plane.apply(read(folder))
    assert plane.need(deployment_ref()).state is State.SUCCEEDED
    assert plane.away == 5


def test_a_store_that_cannot_be_read_is_said(plane: Plane, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_, calls = plane.store.read, []

    async def busy(work: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise StoreBusy("the database is locked")
        return await read_(work)  # type: ignore[arg-type]

    monkeypatch.setattr(plane.store, "read", busy)
    with pytest.raises(Problem) as caught:
        plane.apply(read(folder))
    assert caught.value.code is Code.UNAVAILABLE
    assert caught.value.message == "nothing is changed: the database is locked"


def test_a_failure_of_our_own_ends_the_operation(
    plane: Plane, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(applying, "serve", broken)
    said = outcome(plane, read(folder))
    assert said.code is Code.INTERNAL
    assert "inside" not in said.message
    assert "inside" in caplog.text
    assert plane.read(lambda tx: tx.unfinished()) == []


def test_another_deployment_that_fails_while_it_is_published_changes_nothing(
    plane: Plane, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise ChangeRefused(["deployment digits/blue: no"])

    monkeypatch.setattr(plane.publisher, "publish", refuse)
    assert outcome(plane, read(folder)).message == "deployment digits/blue: no"

    async def refuse_whole(*_: object, **__: object) -> None:
        raise Problem(Code.CONFLICT, "as it is")

    monkeypatch.setattr(plane.publisher, "publish", refuse_whole)
    assert outcome(plane, read(folder)).code is Code.CONFLICT


# ---- beside other changes ----


def test_an_apply_waits_for_the_change_of_an_endpoint_and_then_looks_again(
    plane: Plane, folder: Path, impatient: Callable[[], None]
) -> None:
    plane.put_endpoint()
    plane.add_model()
    impatient()
    plane.scorers.may_load.clear()
    slow = plane.put_deployment().operation
    assert slow is not None
    report = plane.apply(read(folder), wait_s=0.0)
    assert report.operation
    plane.scorers.may_load.set()
    plane.settle()
    assert plane.operation(slow).status is Status.SUCCEEDED
    assert plane.read(lambda tx: tx.operation(report.operation)).status is Status.SUCCEEDED  # type: ignore[union-attr]
    found = plane.need(deployment_ref())
    assert (found.owner, found.created_by) == ("folder", "ann")
    assert plane.served().endswith("m.onnx")


def test_a_change_is_refused_while_a_long_apply_goes_on_and_its_end_is_told_by_its_operation(
    plane: Plane, folder: Path
) -> None:
    plane.apply(read(folder))
    (folder / "m.onnx").write_bytes(b"another")
    plane.scorers.may_load.clear()
    report = plane.apply(read(folder), ANN, wait_s=0.0)
    assert report.summary == "1 to create, 1 to change, 1 to delete, 1 unchanged"
    plane.run(_until(lambda: bool(plane.control.claims.held)))
    with pytest.raises(Problem, match=r"endpoint digits is being changed \(apply\)"):
        plane.put_endpoint()
    plane.scorers.failing["digits/blue"] = "no"
    plane.scorers.may_load.set()
    plane.settle()
    found = plane.read(lambda tx: tx.operation(report.operation))
    assert found is not None
    assert (found.status, found.error_message) == (Status.FAILED, "deployment digits/blue: no")
    assert (found.action, found.actor) == ("apply", "ann")


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0)


def test_an_endpoint_that_came_to_differ_while_others_were_waited_for_is_held_too(
    plane: Plane, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, letters="name: letters\n")
    plane.apply(read(folder))
    (folder / "endpoint.yml").write_text(ENDPOINT + "tags: {a: b}\n")
    # Both are changed by somebody; the apply is there before the second one ends.
    plane.control.claims.take("digits", "update")
    plane.apply(read(folder), wait_s=0.0)
    plane.put_endpoint("letters", tags={"by": "ann"})
    assert "letters" not in plane.control.claims.held
    held: list[frozenset[str]] = []

    async def looked(*given: Any) -> None:
        held.append(plane.control.claims.held)
        await serve(*given)

    monkeypatch.setattr(applying, "serve", looked)
    plane.control.claims.free("digits")
    plane.settle()
    assert held == [{"digits", "letters"}]
    assert plane.need(endpoint_ref("letters")).document == {"name": "letters"}
    assert plane.need(endpoint_ref()).document["tags"] == {"a": "b"}


def test_a_caller_who_goes_does_not_stop_an_apply(plane: Plane, folder: Path) -> None:
    plane.scorers.may_load.clear()

    async def story() -> None:
        found = read(folder)
        caller = asyncio.create_task(
            plane.control.apply(found.wanted, ANN, prune=False, dry_run=False, sources=found.sources)
        )
        await _until(lambda: bool(plane.scorers.loads))
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        plane.scorers.may_load.set()

    plane.run(story())
    plane.settle()
    assert plane.need(deployment_ref()).state is State.SUCCEEDED


def test_an_asset_that_an_apply_names_is_neither_registered_nor_deleted_meanwhile(plane: Plane, folder: Path) -> None:
    plane.add_model("1", content=b"one")
    write(folder, blue=DEPLOYMENT.replace("m.onnx", "azureml:m:1"), code=_model("m", "2"))
    plane.scorers.may_load.clear()
    plane.apply(read(folder), wait_s=0.0)
    plane.run(_until(lambda: bool(plane.scorers.loads)))
    with pytest.raises(Problem, match=r"asset model m:1 is being changed \(apply\)"):
        plane.run(plane.control.delete_asset(model_ref("1"), ANN))
    with pytest.raises(Problem, match="asset model m:2 is being changed"):
        plane.add_model("2", content=b"two")
    plane.add_model("3", content=b"three")
    plane.scorers.may_load.set()
    plane.settle()
    plane.agree()
    (file,) = plane.need(model_ref("2")).files
    assert file.size_bytes == len(b"a model")
    with pytest.raises(Problem, match="is used by deployment digits/blue"):
        plane.run(plane.control.delete_asset(model_ref("1"), ANN))


def _model(name: str, version: str) -> str:
    schema = "$schema: https://azuremlschemas.azureedge.net/latest/model.schema.json"
    return f"{schema}\nname: {name}\nversion: '{version}'\npath: m.onnx\n"


def test_an_asset_that_somebody_came_to_use_is_not_taken_away(plane: Plane, folder: Path) -> None:
    write(folder, model=_model("shared", "1"))
    plane.apply(read(folder))
    (folder / "model.yml").unlink()
    write(folder, endpoint=ENDPOINT + "tags: {a: b}\n", green=GREEN)
    plane.put_endpoint("letters")
    plane.scorers.may_load.clear()
    plane.apply(read(folder), wait_s=0.0)
    plane.run(_until(lambda: bool(plane.scorers.loads)))

    async def use() -> None:
        user = asyncio.create_task(plane.putting_deployment("main", "letters", model="azureml:shared:1"))
        await _until(lambda: len(plane.scorers.loads) == 2)
        plane.scorers.may_load.set()
        await user

    plane.run(use())
    plane.settle()
    assert plane.get(model_ref("1", "shared")) is not None
    assert plane.served("main", "letters").endswith("m.onnx")


# ---- keys that a person brings ----


def test_given_keys_are_read_at_every_apply_and_never_over_the_network(plane: Plane, folder: Path) -> None:
    (folder / "key").write_text("first-key-of-digits-0\n")
    (folder / "endpoint.yml").write_text(ENDPOINT + "gateway: {keys: {primary: {file: key}}}\n")
    said = outcome(plane, read(folder), actor=ANN)
    assert "gateway.keys names files or variables of the gateway's machine" in said.message
    plane.apply(read(folder))
    assert _first_digest(plane) == digest("first-key-of-digits-0")
    (folder / "key").write_text("second-key-of-digits-0\n")
    # Nothing of the documents has changed.
    assert plane.apply(read(folder)).changes == ()
    assert _first_digest(plane) == digest("second-key-of-digits-0")
    # As it is, it may be sent back by whoever changes something else.
    keys = plane.need(endpoint_ref()).document["gateway"]
    assert keys["keys"]["primary"]["file"] == str(folder / "key")
    plane.agree()


def _first_digest(plane: Plane) -> bytes:
    return plane.scorers.serves.endpoints["digits"].auth.key_digests[0]


def test_an_endpoint_goes_together_with_the_file_of_its_key(plane: Plane, folder: Path) -> None:
    (folder / "key").write_text("first-key-of-digits-0\n")
    (folder / "endpoint.yml").write_text(ENDPOINT + "gateway: {keys: {primary: {file: key}}}\n")
    write(folder, letters="name: letters\n")
    plane.apply(read(folder))
    for name in ("key", "endpoint.yml", "blue.yml"):
        (folder / name).unlink()
    plane.apply(read(folder))
    assert set(plane.scorers.serves.endpoints) == {"letters"}
    plane.agree()


def test_a_given_key_that_cannot_be_used_refuses_the_change(plane: Plane, folder: Path) -> None:
    (folder / "key").write_text("first-key-of-digits-0\n")
    (folder / "endpoint.yml").write_text(ENDPOINT + "gateway: {keys: {primary: {file: key}}}\n")
    plane.apply(read(folder))
    (folder / "key").write_text("short\n")
    said = outcome_of(plane, read(folder))
    assert "the primary key of digits, from the file" in said
    assert "short" not in said.replace("too short", "")
    assert _first_digest(plane) == digest("first-key-of-digits-0")


# ---- at a start ----


def test_a_start_serves_the_folder_on_top_of_what_was_served(plane: Plane, folder: Path) -> None:
    plane.serving()
    plane.put_endpoint("letters")
    plane.restart(read(folder))
    assert set(plane.scorers.serves.endpoints) == {"digits", "letters"}
    assert plane.served().endswith("m.onnx")
    assert plane.need(deployment_ref()).owner == "folder"
    audits = plane.read(lambda tx: tx.audits(before=None, limit=3))
    assert {one.who for one in audits} == {"folder"}


def test_a_start_serves_what_loads_and_says_of_the_rest(plane: Plane, folder: Path) -> None:
    write(folder, green=GREEN)
    plane.scorers.failing["digits/green"] = "no"
    plane.restart(read(folder))
    found = plane.need(deployment_ref("green"))
    assert (found.state, found.reason) == (State.FAILED, "no")
    assert plane.need(deployment_ref()).state is State.SUCCEEDED
    events = plane.read(lambda tx: tx.events("digits", "green", 10))
    assert events[-1].message == "failed: no"
    # The same folder again tries it again.
    plane.scorers.failing.clear()
    report = plane.apply(read(folder))
    assert any("tried again, for it failed: no" in line for line in report.changes)
    assert plane.need(deployment_ref("green")).state is State.SUCCEEDED
    plane.agree()


def test_a_start_with_a_folder_of_which_nothing_loads_is_refused(plane: Plane, folder: Path) -> None:
    plane.scorers.failing["digits/blue"] = "no"
    plane.stop()
    plane.open()
    with pytest.raises(ChangeRefused, match="deployment digits/blue: no"):
        plane.start(read(folder))
    assert plane.read(lambda tx: tx.find(D)) == []


def test_a_start_with_mistakes_in_the_folder_is_refused(plane: Plane, folder: Path) -> None:
    (folder / "endpoint.yml").write_text("name: digits\ntraffic: {red: 100}\n")
    with pytest.raises(Problem, match="has no deployment 'red'"):
        plane.start(read(folder))


def test_a_folder_that_moved_its_key_file_keeps_its_deployments(plane: Plane, folder: Path) -> None:
    (folder / "key").write_text("first-key-of-digits-0\n")
    (folder / "endpoint.yml").write_text(ENDPOINT + "gateway: {keys: {primary: {file: key}}}\n")
    plane.apply(read(folder))
    (folder / "key").rename(folder / "moved")
    (folder / "endpoint.yml").write_text(ENDPOINT + "gateway: {keys: {primary: {file: moved}}}\n")
    plane.restart(read(folder))
    assert plane.served().endswith("m.onnx")
    for ref in (endpoint_ref(), deployment_ref()):
        assert plane.need(ref).state is State.SUCCEEDED
    audits = plane.read(lambda tx: tx.audits(before=None, limit=1))
    assert audits[0].outcome == "succeeded"


def test_a_folder_whose_update_failed_over_the_network_has_its_own_back(plane: Plane, folder: Path) -> None:
    plane.apply(read(folder))
    plane.add_model()
    plane.scorers.failing["azureml:m:1"] = "no"
    plane.put_deployment()
    assert plane.control.failed
    report = plane.apply(read(folder))
    assert any("tried again" in line for line in report.changes)
    assert plane.need(deployment_ref()).state is State.SUCCEEDED
    assert plane.control.failed == {}


def test_a_model_that_cannot_be_copied_is_served_from_where_it_lies(
    plane: Plane, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(source: Path) -> None:
        raise Problem(Code.INSUFFICIENT_STORAGE, "no room")

    monkeypatch.setattr(plane.files, "add_file", full)
    plane.apply(read(folder))
    (runtime,) = plane.scorers.serves.runtimes()
    assert runtime.path == str(folder / "m.onnx")
    assert "is not copied" in caplog.text
    assert "must stay as it is" in caplog.text


def test_an_origin_is_that_of_the_onnx_file_of_a_model_with_more_files(plane: Plane, folder: Path) -> None:
    found = read(folder)
    (model,) = (one for one in found.wanted if one.ref.kind is M)
    settled = applying._with_origins([*found.wanted], found.sources)
    (there,) = (one for one in settled if one.ref == model.ref)
    assert isinstance(there.document, ModelYaml)
    assert there.document.path == f"file://{folder / 'm.onnx'}"
    assert applying._with_origins(found.wanted, {}) == found.wanted
