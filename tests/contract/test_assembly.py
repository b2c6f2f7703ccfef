"""The control plane put together on real files: what is made once, what an earlier version left, who may what."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from gateway.controlplane import steps
from gateway.controlplane.assembly import ControlPlane
from gateway.controlplane.authorize import Role, make_token
from gateway.controlplane.folder import FolderError
from gateway.controlplane.keyring import MASTER_KEY, MASTER_KEY_OLD, KeyringError
from gateway.controlplane.management import Answer
from gateway.controlplane.rest.urls import Urls
from gateway.controlplane.state import State, StateError, open_state
from gateway.controlplane.store.records import Kind
from gateway.errors import Problem
from gateway.settings import Settings, load_settings
from gateway.telemetry.record import ScorerRecord
from gateway.telemetry.totals import ScorerTotals
from tests.support.applied import DEPLOYMENT, ENDPOINT, write
from tests.support.plane import ANN, D, E, Scorers, deployment, deployment_ref, endpoint

T = TypeVar("T")


class TheOperator:
    """The supervisor, asked for nothing here."""

    async def reload(self) -> Answer:
        return Answer(True, "served", {})

    def status(self) -> dict[str, Any]:
        return {}


async def collect() -> ScorerTotals:
    return ScorerRecord().snapshot()


class Gateway:
    """One control plane after the other in one state folder, with scorers that are told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "state"
        self.environ: dict[str, str] = {}
        self.runner = asyncio.Runner()
        self.scorers = self.run(_made(Scorers))
        self.state: State | None = None
        self.plane: ControlPlane | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def open(self, given: Mapping[str, object] | None = None) -> ControlPlane:
        self.close()
        settings: Settings = load_settings(dict(given or {}), {})
        self.state = open_state(self.folder)
        self.plane = self.run(ControlPlane.open(settings, self.state, self.environ))
        self.run(_made(self.scorers.reset))
        self.plane.publisher.attach(self.scorers, self.scorers)  # type: ignore[arg-type]
        return self.plane

    def start(self, given: Mapping[str, object] | None = None) -> ControlPlane:
        plane = self.open(given)
        self.run(self._start(plane))
        return plane

    async def _start(self, plane: ControlPlane) -> None:
        await plane.start(await plane.plan_start(), collect)

    def close(self) -> None:
        if self.plane is not None:
            self.run(self.plane.close())
        if self.state is not None:
            self.state.close()
        self.plane = self.state = None

    def put(self, name: str = "digits") -> None:
        assert self.plane is not None
        self.run(self.plane.control.put(E, "", name, endpoint(name), ANN))

    def keys(self, name: str = "digits") -> Any:
        assert self.plane is not None
        return self.run(self.plane.control.keys(name))

    def ask(self, app: Any, path: str, token: str = "") -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="https://gw.example") as client:
                return await client.get(path, headers={"authorization": f"Bearer {token}"} if token else {})

        return self.run(send())


async def _made(make: Callable[[], T]) -> T:
    return make()


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    monkeypatch.setattr(steps, "AGAIN_S", 0.0)
    made = Gateway(tmp_path)
    yield made
    made.close()
    made.runner.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "folder", endpoint=ENDPOINT, blue=DEPLOYMENT)


def test_what_was_served_is_served_by_the_next_one(gateway: Gateway) -> None:
    gateway.start()
    gateway.put()
    keys = gateway.keys()
    gateway.start()
    assert gateway.keys() == keys
    assert set(gateway.scorers.serves.endpoints) == {"digits"}
    assert (gateway.folder / "gateway.db").is_file()
    assert (gateway.folder / "master.key").stat().st_mode & 0o777 == 0o600


def test_a_folder_is_read_applied_and_read_again(
    gateway: Gateway, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder, blue=DEPLOYMENT + "description: the first\nliveness_probe: {initial_delay: 7}\n")
    plane = gateway.start({"apply": folder})
    assert "liveness_probe" in caplog.text
    assert gateway.scorers.serves.endpoints["digits"].traffic == {"blue": 100}
    caplog.clear()
    (folder / "endpoint.yml").write_text("name: digits\n")
    gateway.run(plane.apply_folder())
    assert gateway.scorers.serves.endpoints["digits"].traffic == {}
    assert "liveness_probe" in caplog.text
    (folder / "endpoint.yml").write_text("name: 17\n")
    with pytest.raises(FolderError):
        gateway.run(plane.apply_folder())
    (folder / "blue.yml").write_text(DEPLOYMENT.replace("m.onnx", "azureml:gone:1"))
    (folder / "endpoint.yml").write_text("name: digits\n")
    with pytest.raises(Problem, match="there is no registered model azureml:gone:1"):
        gateway.run(plane.apply_folder())
    assert len(gateway.scorers.serves.runtimes()) == 1


def test_without_a_folder_there_is_nothing_to_read(gateway: Gateway) -> None:
    plane = gateway.start()
    assert plane.read_folder() is None
    gateway.run(plane.apply_folder())
    assert gateway.scorers.serves.endpoints == {}


def test_keys_that_an_earlier_version_kept_are_taken_over_and_their_files_go(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    old = gateway.folder / "keys" / "digits.json"
    old.parent.mkdir(parents=True)
    old.write_text(json.dumps({"name": "digits", "primaryKey": "p" * 20, "secondaryKey": "s" * 20}))
    gateway.start()
    assert "the keys of digits are taken over into the store" in caplog.text
    assert "pppp" not in caplog.text
    gateway.put()
    assert gateway.keys().primary == "p" * 20
    assert not old.exists()


def test_a_damaged_file_of_keys_keeps_the_gateway_from_starting(gateway: Gateway) -> None:
    old = gateway.folder / "keys" / "digits.json"
    old.parent.mkdir(parents=True)
    old.write_text("{")
    with pytest.raises(StateError, match=r"digits\.json is damaged"):
        gateway.open()
    old.unlink()
    gateway.open()


def test_where_it_cannot_be_prepared_nothing_stays_open(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.open()

    def fails(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(ControlPlane, "_prepare", fails)
    with pytest.raises(OSError, match="no"):
        gateway.open()
    folder = f"{gateway.folder}/"
    names = [str(one.readlink()) for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
    # The lock is the state's own.
    assert [name for name in names if name.startswith(folder) and not name.endswith("lock")] == []


def test_secrets_are_opened_by_their_master_key_alone(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    gateway.start()
    gateway.put()
    keys = gateway.keys()
    gateway.close()
    file = gateway.folder / "master.key"
    text = file.read_text().strip()
    file.unlink()
    with pytest.raises(KeyringError, match="there is no master key"):
        gateway.open()
    assert not file.exists()
    gateway.environ = {MASTER_KEY: "A" * 43, MASTER_KEY_OLD: text}
    gateway.start()
    assert "3 secrets are sealed under the new master key; the old one can be forgotten" in caplog.text
    gateway.environ = {MASTER_KEY: "A" * 43}
    gateway.start()
    assert gateway.keys() == keys


def test_a_store_elsewhere_is_used_where_one_is_named(gateway: Gateway, tmp_path: Path) -> None:
    gateway.start({"database": f"sqlite:///{tmp_path / 'elsewhere.db'}"})
    gateway.put()
    assert (tmp_path / "elsewhere.db").is_file()
    assert not (gateway.folder / "gateway.db").exists()


def test_a_credential_of_the_management_listener_opens_blobs_by_its_role(gateway: Gateway) -> None:
    plane = gateway.start()
    app = plane.app(TheOperator(), Urls(scoring_port=8443), "1.2.3")
    reader, record = make_token("ci", Role.READER, None, "test", plane.control.now())
    gateway.run(plane.store.write(lambda tx: tx.add_token(record)))
    assert gateway.state is not None
    listing = "/blob/azureml?restype=container&comp=list"
    assert gateway.ask(app, listing, reader).status_code == 200
    assert gateway.ask(app, listing, gateway.state.management_token()).status_code == 200
    assert gateway.ask(app, listing).status_code in (401, 403)
    assert gateway.ask(app, listing, "igm_" + "x" * 43).status_code in (401, 403)
    assert gateway.run(plane._blob_permissions(_Request(reader))) == "rl"
    assert set("wd") <= set(gateway.run(plane._blob_permissions(_Request(gateway.state.management_token()))))
    link = plane._link("upload-1", "racwl")
    assert "sig=" in link


class _Request:
    def __init__(self, token: str) -> None:
        self.headers = {"authorization": f"Bearer {token}"}


def test_people_of_an_issuer_may_be_asked_for(gateway: Gateway) -> None:
    plane = gateway.start({"people_issuer": "https://issuer.example", "people_audience": "gateway"})
    app = plane.app(TheOperator(), Urls(scoring_port=8443), "1.2.3")
    assert gateway.ask(app, "/healthz").status_code in (401, 404)


def test_the_status_tells_of_updates_that_failed(gateway: Gateway, folder: Path) -> None:
    plane = gateway.start({"apply": folder})
    gateway.scorers.failing["digits/blue"] = gateway.scorers.failing["digits/green"] = "no"
    for name in ("blue", "green"):
        found = gateway.run(plane.control.get(deployment_ref()))
        assert found is not None
        document = deployment(name, model=found.document["model"], instance_count=2)
        gateway.run(plane.control.put(D, "digits", name, document, ANN))
    status = plane.status(ScorerRecord().snapshot())["digits"]["deployments"]
    assert status["blue"]["state"] == "Succeeded"
    assert status["blue"]["last_update_failed"] == "deployment digits/blue: no"
    assert status["green"] == {"state": "Failed", "reason": "deployment digits/green: no"}


def test_what_is_kept_over_a_life_is_not_made_by_another(gateway: Gateway) -> None:
    plane = gateway.open()
    names = gateway.run(plane.store.read(lambda tx: tx.secrets()))
    assert names == ["links", "token"]
    before = plane._link_secret
    plane = gateway.open()
    assert plane._link_secret == before
    assert gateway.run(plane.store.read(lambda tx: tx.find(Kind.MODEL))) == []


# ---- scripts


def test_what_no_sandboxed_script_may_read_is_known(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "linked.key").symlink_to(tmp_path / "real.key")
    given = {
        "apply": str(tmp_path / "models"),
        "tls_cert": str(tmp_path / "chain.pem"),
        "tls_key": str(tmp_path / "linked.key"),
        "model_folders": f"{tmp_path / 'a'},{tmp_path / 'b'}",
        "script_folders": str(tmp_path / "data"),
        "script_cpu_seconds": "7",
        "script_processes_max": "9",
    }
    limits = gateway.open(given).scripts._limits
    hidden = ("state", "models", "a", "b")
    assert limits.hidden == tuple(tmp_path / name for name in hidden)
    assert limits.hidden_files == (tmp_path / "linked.key",)
    assert limits.readable == (tmp_path / "data",)
    assert (limits.cpu_seconds, limits.processes_max) == (7, 9)
