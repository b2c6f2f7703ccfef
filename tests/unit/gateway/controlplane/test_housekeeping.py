"""Housekeeping: only what nothing needs goes, and it tries again."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.controlplane import housekeeping
from gateway.controlplane.blobs.collect import CollectLimits
from gateway.controlplane.blobs.index import StoreIndex
from gateway.controlplane.blobs.storage import BlobLimits, Storage
from gateway.controlplane.housekeeping import ANONYMOUS_KEPT_S, EVERY_S, Housekeeping, named_places
from gateway.controlplane.steps import claim_of
from gateway.controlplane.store.database import StoreBusy
from gateway.controlplane.store.records import Kind, Ref
from tests.support.plane import Plane, deployment_ref, model_ref
from tests.support.stores import resource as stored_resource

DAY_S = 24 * 3600.0


def keeper(plane: Plane, sleep: Callable[[float], object] | None = None) -> Housekeeping:
    limits = BlobLimits(assets_max_bytes=1 << 30, upload_max_bytes=1 << 20, upload_link_lifetime_s=60)
    storage = Storage(plane.files, StoreIndex(plane.store), limits)
    return Housekeeping(plane.control, storage, plane.scripts, CollectLimits(), sleep or asyncio.sleep)  # type: ignore[arg-type]


def anonymous(plane: Plane, version: str, age_s: float = ANONYMOUS_KEPT_S + 1) -> Ref:
    made = plane.add_model(version)
    document = {**made.document, "is_anonymous": True}
    old = replace(made, document=document, modified_at=plane.now_s - age_s)
    plane.write(lambda tx: tx.put(old, expected=made.version))
    return made.ref


def test_anonymous_assets_go_when_no_deployment_names_them_any_more(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    plane.serving()
    for version in ("2", "3", "4", "5"):
        anonymous(plane, version)
    young = anonymous(plane, "6", age_s=DAY_S)
    plane.put_deployment(model="azureml:m:2")
    plane.scorers.failing["azureml:m:3"] = "no"
    plane.put_deployment(model="azureml:m:3")
    plane.control.asset_claims.take(claim_of(model_ref("4")), "apply")
    plane.run(keeper(plane).once())
    # Served, wanted, held by an apply, and young; and one that is no deployment's but somebody's.
    assert {ref.key for ref in _models(plane)} == {"1", "2", "3", "4", "6"}
    assert plane.get(young) is not None
    assert "removed what nothing refers to: 1 assets" in caplog.text
    plane.control.asset_claims.free(claim_of(model_ref("4")))
    plane.agree()
    plane.restart()
    plane.agree()


def _models(plane: Plane) -> list[Ref]:
    return [one.ref for one in plane.read(lambda tx: tx.find(Kind.MODEL))]


def test_a_batch_deployment_needs_its_model_too(plane: Plane) -> None:
    anonymous(plane, "1")
    row = stored_resource("main", "nightly", Kind.BATCH_DEPLOYMENT, document={"name": "main", "model": "azureml:M:1"})
    plane.write(lambda tx: tx.put(row, expected=None))
    plane.run(keeper(plane).once())
    assert plane.get(model_ref()) is not None


def test_content_and_uploads_of_what_is_registered_stay(plane: Plane) -> None:
    plane.serving()
    orphan = plane.folder / "orphan"
    orphan.write_bytes(b"nobody's")
    sha256, _ = plane.files.add_file(orphan)
    for found in (plane.folder / "assets").rglob("*"):
        if found.is_file():
            os.utime(found, (1.0, 1.0))
    plane.run(keeper(plane).once())
    assert plane.files.find(sha256) is None
    plane.restart()
    plane.agree()
    assert plane.files.find(plane.need(model_ref()).files[0].sha256) is not None


def test_operations_that_ended_long_ago_go(plane: Plane) -> None:
    done = plane.put_endpoint().operation
    assert done is not None
    plane.run(keeper(plane).once())
    assert plane.run(plane.control.operation(done.id)) is not None
    plane.now_s += 8 * DAY_S
    plane.run(keeper(plane).once())
    assert plane.run(plane.control.operation(done.id)) is None


def test_the_places_of_uploads_are_those_of_registered_assets(plane: Plane) -> None:
    plane.add_model()
    rows = [
        stored_resource("1", "d", Kind.DATA, document={"name": "d", "path": "https://gw/blob/upload-1/rows.csv"}),
        stored_resource("2", "d", Kind.DATA, document={"name": "d", "path": "https://data.example/rows.csv"}),
        stored_resource("3", "d", Kind.DATA, document={"name": "d", "path": "azureml://datastores/a/paths/../b"}),
        stored_resource("4", "d", Kind.DATA, document={"unreadable": 1}),
    ]
    plane.write(lambda tx: [tx.put(one, expected=None) for one in rows])
    assert plane.read(named_places) == [("azureml", "up/m/1/model.onnx"), ("upload-1", "rows.csv")]


def test_it_works_every_hour_and_goes_on_after_a_failure(
    plane: Plane, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    collected: list[int] = []

    async def sleep(pause_s: float) -> None:
        slept.append(pause_s)
        if len(slept) == 4:
            raise asyncio.CancelledError

    async def collect(*_: object) -> None:
        collected.append(1)
        raise (StoreBusy("the database is locked"), OSError("no disk"), StoreBusy("again"))[len(collected) - 1]

    monkeypatch.setattr(housekeeping, "collect", collect)
    with pytest.raises(asyncio.CancelledError):
        plane.run(keeper(plane, sleep).run())
    assert slept == [EVERY_S] * 4
    assert caplog.text.count("could not be removed, and is looked at again") == 3


def test_nothing_to_do_is_not_told(plane: Plane, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    plane.serving()
    caplog.clear()
    plane.run(keeper(plane).once())
    assert caplog.text == ""
    assert plane.get(deployment_ref()) is not None


def test_environments_go_that_no_deployment_has(plane: Plane, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    plane.serving()
    (plane.folder / "environments" / "old").mkdir(parents=True)
    plane.run(keeper(plane).once())
    assert list((plane.folder / "environments").iterdir()) == []
    assert "removed 1 environments that no deployment has" in caplog.text
