"""What somebody who means harm, or a model that nobody tried before, may not do to the control plane.

Models that never load or end the process that loads them, names that no path could say, text for a terminal, rows of
the store that another hand wrote.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event

from gateway.channel import LoadOverdue, ScorerSettings
from gateway.controlplane.apply_bundle import Bundle, BundleFile, BundleResource, wanted_of
from gateway.controlplane.assembly import ControlPlane
from gateway.controlplane.export import export_all
from gateway.controlplane.reconcile import ChangeRefused, LoadRefused, change, load
from gateway.controlplane.store.database import StoreBusy, StoreError
from gateway.controlplane.store.records import Kind, State
from gateway.credentials import digest
from gateway.errors import Code, Problem
from gateway.fleet import Fleet
from gateway.listener import HttpLimits, bind
from gateway.seats import SeatTable
from gateway.snapshot import AuthSpec, DeploymentSpec, EndpointSpec, SnapshotSpec
from runtimes import RuntimeSpec
from runtimes.onnx.causes import short_cause
from tests.support import models
from tests.support.applied import DEPLOYMENT, ENDPOINT, read, write
from tests.support.house import WORKSPACE, House
from tests.support.plane import Plane, deployment_ref
from tests.support.stores import resource, sql
from tests.support.waiting import PATIENCE_S

DEADLY = "the scorer that loaded it ended before it was ready"


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = Plane(tmp_path)
    yield made
    made.close()


# ---- models that never load, or end the process that loads them --------------------------------------------------


def test_what_ended_a_scorer_is_left_out_at_the_next_start_and_the_others_are_served(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    plane.serving()
    plane.put_deployment("green")
    plane.scorers.dies = ["prepare", "load"]
    plane.restart()
    assert (plane.served("blue"), plane.served("green")) == ("", "azureml:m:1")
    found = plane.need(deployment_ref("blue"))
    assert (found.state, found.reason) == (State.FAILED, DEADLY)
    assert f"deployment digits/blue is not served: {DEADLY}" in caplog.text
    assert all(not one.aside for one in plane.scorers.scorers)
    # It is not given up for ever.
    plane.put_deployment("blue")
    plane.agree()
    assert plane.served("blue") == "azureml:m:1"


def test_the_next_start_tries_all_of_it_again(plane: Plane) -> None:
    plane.serving()
    plane.scorers.dies = ["prepare", "load"]
    plane.restart()
    assert plane.served() == ""
    plane.restart()
    plane.agree()
    assert plane.need(deployment_ref()).state is State.SUCCEEDED


def test_a_folder_of_which_nothing_can_be_served_is_refused_with_what_ended_the_scorer(
    plane: Plane, tmp_path: Path
) -> None:
    folder = read(write(tmp_path / "folder", endpoint=ENDPOINT, blue=DEPLOYMENT))
    plane.scorers.dies = ["prepare", "load"]
    with pytest.raises(ChangeRefused, match=f"deployment digits/blue: {DEADLY}"):
        plane.start(folder)


def test_a_load_that_never_ends_is_ended_and_others_load_after_it(tmp_path: Path) -> None:
    endless = models.write(tmp_path, models.endless(), "endless.onnx")
    good = models.write(tmp_path, models.double(), "good.onnx")

    async def story() -> None:
        scorers = _fleet()
        try:
            await scorers.start()
            (first,) = scorers.scorers
            killed = first.pid
            hanging = asyncio.create_task(load(scorers.members, "e/endless", _deployment(endless), None))
            while not first.is_loading:
                await asyncio.sleep(0)
            behind = asyncio.create_task(load(scorers.members, "e/good", _deployment(good), None))
            with pytest.raises(LoadRefused, match=r"not loaded within 1 s \(setting load_timeout_s\)") as refused:
                await hanging
            assert not refused.value.is_scorer_lost
            with pytest.raises(LoadRefused) as lost:
                await behind
            assert lost.value.is_scorer_lost
            while not first.is_up:
                await asyncio.sleep(0.01)
            assert first.pid != killed
            learned, _ = await load(scorers.members, "e/good", _deployment(good), None)
            assert learned.batched
        finally:
            await scorers.stop()

    asyncio.run(asyncio.wait_for(story(), 20))


def test_a_model_that_never_loads_holds_up_neither_a_start_nor_a_replacement_for_ever(tmp_path: Path) -> None:
    endless = _deployment(models.write(tmp_path, models.endless(), "endless.onnx"))
    good = _deployment(models.write(tmp_path, models.double(), "good.onnx"))
    auth = AuthSpec(mode="key", key_digests=(digest("k" * 43),))
    endpoint = EndpointSpec(name="e", auth=auth, deployments={"endless": endless, "good": good})
    both = SnapshotSpec(revision=1, endpoints={"e": endpoint})

    async def story() -> None:
        scorers = _fleet(load_timeout_s=3)
        try:
            await scorers.start()
            (first,) = scorers.scorers
            begun = first.pid
            with pytest.raises(LoadOverdue, match=r"deployment e/endless: it was not loaded within 3 s"):
                async with scorers.changing:
                    await change(scorers.members, both, {}, None)
            while first.pid == begun or not first.is_up:
                await asyncio.sleep(0.01)
            # As if it had been served until now.
            scorers.current = (both, {})
            first.kill()
            while not first.is_serving:
                await asyncio.sleep(0.01)
            assert scorers.degraded == {"e/endless": "it was not loaded within 3 s (setting load_timeout_s)"}
            totals = await scorers.collect()
            assert totals.endpoints["e"].deployments["good"].instances == 1
        finally:
            await scorers.stop()

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_what_never_loads_at_a_start_is_left_out_and_the_others_are_served(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    plane.serving()
    plane.put_deployment("green")
    plane.scorers.endless = "digits/blue"
    plane.restart()
    assert (plane.served("blue"), plane.served("green")) == ("", "azureml:m:1")
    found = plane.need(deployment_ref("blue"))
    assert (found.state, found.reason) == (State.FAILED, "it was not loaded within 1 s")
    assert "deployment digits/blue: it was not loaded within 1 s; every deployment is loaded by itself" in caplog.text


def _fleet(load_timeout_s: float = 1) -> Fleet:
    settings = ScorerSettings(
        scorers=1,
        http=HttpLimits(),
        tls=None,
        tls_profile="intermediate",
        domain="",
        gzip=True,
        timeout_status=408,
        mirror_in_flight_max=4,
        version="0",
        log_level="warning",
        log_format="text",
    )
    seats_fd = SeatTable.create(1)
    try:
        seats = SeatTable(seats_fd, 1)
    finally:
        kept = os.dup(seats_fd)
        os.close(seats_fd)
    return Fleet(settings, bind("127.0.0.1", 0, shared=1), seats, kept, lambda _: None, load_timeout_s=load_timeout_s)


def _deployment(path: Path) -> DeploymentSpec:
    return DeploymentSpec(
        name=path.stem,
        runtime=RuntimeSpec(path=str(path), sha256=""),
        request_timeout_ns=5_000_000_000,
        queue_wait_ns=0,
        pending_max=0,
        seat=-1,
        body_bytes_max=1 << 20,
    )


# ---- names and texts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../up", "a/b", "a b", ".hidden", "two\nlines", "\u202eright to left", "x" * 256])
@pytest.mark.parametrize("key", ["name", "version"])
@pytest.mark.parametrize("kind", ["model", "environment", "code", "data"])
def test_an_applied_asset_is_called_what_a_path_can_say(kind: Any, key: str, name: str) -> None:
    document = {"name": "fine", "version": "1", key: name}
    if kind != "environment":
        document["path"] = "azureml://datastores/workspaceblobstore/paths/up/m"
    file = BundleFile(path="m", sha256="0" * 64, size=1)
    files = () if kind == "environment" else (file,)
    with pytest.raises(Problem, match=f"{key}: found .*; accepted: 1 to 255 letters, digits"):
        wanted_of(Bundle(resources=(BundleResource(kind=kind, document=document, files=files),)))


def test_names_in_a_model_are_no_commands_for_a_terminal() -> None:
    fault = RuntimeError('In Node, ("\x1b]0;owned\x07", \x1b[2J\u202eNoSuch) is wrong')
    assert short_cause(fault) == 'In Node, ("?]0;owned?", ?[2J?NoSuch) is wrong'


# ---- a store that another hand wrote to --------------------------------------------------------------------------


@pytest.mark.parametrize(("column", "value"), [("document", "{bad"), ("state", "Strange"), ("files", "[1]")])
def test_a_damaged_row_is_named_instead_of_a_crash(plane: Plane, column: str, value: str) -> None:
    plane.serving()
    _alter(plane, f"UPDATE resources SET {column} = '{value}' WHERE kind = 'online_endpoint'")
    with pytest.raises(StoreError, match="the row online_endpoint digits of its table resources cannot be read"):
        plane.restart()


def test_a_damaged_operation_is_named_instead_of_a_crash(plane: Plane) -> None:
    plane.serving()
    _alter(plane, "UPDATE operations SET status = 'InProgress', targets = '[[1]]'")
    with pytest.raises(StoreError, match=r"the row .* of its table operations cannot be read"):
        plane.restart()


def test_a_wanted_document_of_another_version_keeps_nothing_from_being_served(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    plane.serving()
    _alter(plane, """UPDATE resources SET document = '{"name": "digits", "of_tomorrow": 1}' WHERE key = 'digits'""")
    plane.restart()
    assert plane.served() == "azureml:m:1"
    assert "online endpoint digits is left as it is: cannot read a stored online_endpoint document" in caplog.text


def _alter(plane: Plane, statement: str) -> None:
    plane.write(lambda tx: sql(tx, statement))


# ---- a store that is away, and a reader who asks for everything --------------------------------------------------


@pytest.mark.parametrize(
    "error", [StoreBusy("it is locked"), Problem(Code.UNAVAILABLE, "the issuer's keys cannot be fetched")]
)
def test_who_cannot_be_proven_now_is_asked_to_come_again(error: Exception) -> None:
    async def identify(*_: object) -> None:
        raise error

    here: Any = SimpleNamespace(doorkeeper=SimpleNamespace(identify=identify))
    with pytest.raises(Problem) as refused:
        asyncio.run(ControlPlane._blob_permissions(here, SimpleNamespace(headers={})))
    assert refused.value.code is Code.UNAVAILABLE


def test_an_export_is_written_aside_from_the_loop(plane: Plane) -> None:
    plane.put_endpoint(tags={f"t{number}": "v" * 8 for number in range(4000)})

    async def story() -> int:
        turns, exporting = 0, asyncio.create_task(export_all(plane.store))
        while not exporting.done():
            turns += 1
            await asyncio.sleep(0.001)
        assert len((await exporting)["documents"]) == 1
        return turns

    assert plane.run(story()) > 5


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/models?count=1", ["m0"]),
        ("/models?name=M7", ["m7"]),
        ("/models/m5/versions?count=1&tags=none", []),
        ("/onlineEndpoints?count=1&tags=last", ["e299"]),
        ("/onlineEndpoints?count=1&tags=none", []),
    ],
)
def test_a_list_asks_the_store_few_questions_however_much_is_stored(
    tmp_path: Path, path: str, names: list[str]
) -> None:
    house = House(tmp_path)
    try:
        house.write(_fill)
        asked: list[str] = []
        event.listen(house.store._engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
        answer = house.get(WORKSPACE + path).json()
        assert [one["name"] for one in answer["value"]] == names
        assert len([one for one in asked if one.startswith("SELECT")]) <= 5
    finally:
        house.close()


def test_pages_of_what_a_filter_keeps_leave_nothing_out(tmp_path: Path) -> None:
    house = House(tmp_path)
    try:
        house.write(_fill)
        found, url = [], f"{WORKSPACE}/onlineEndpoints?count=2&tags=third"
        while url:
            page = house.get(url).json()
            found += [one["name"] for one in page["value"]]
            url = page["nextLink"]
        assert found == [f"e{number}" for number in range(0, 300, 3)]
    finally:
        house.close()


def _fill(tx: Any) -> None:
    for number in range(300):
        tags = ({"third": ""} if number % 3 == 0 else {}) | ({"last": ""} if number == 299 else {})
        name = f"e{number}"
        tx.put(resource(name, document={"name": name, "tags": tags} if tags else {"name": name}), expected=None)
        model = {"name": f"m{number}", "version": "1", "path": "p"}
        tx.put(resource("1", f"m{number}", Kind.MODEL, document=model), expected=None)
