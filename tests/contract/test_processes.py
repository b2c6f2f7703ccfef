"""The supervisor and a scorer, each run in the test's own loop against the real other side.

The supervisor starts real scorer processes; the scorer is driven over a real channel, by the messages a supervisor
sends. End-to-end tests run both as processes; here their decisions can be looked at.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from starlette.responses import PlainTextResponse

from gateway.channel import (
    Abort,
    Channel,
    Collect,
    Collected,
    CollectionSettings,
    Commit,
    Done,
    Drain,
    Gather,
    Message,
    Opening,
    Prepare,
    Prepared,
    ReloadTls,
    RemoteFailed,
    ScorerSettings,
    Start,
)
from gateway.collection import appending
from gateway.collection import writer as writers
from gateway.collection.spec import CollectionSpec, CollectorSpec
from gateway.controlplane.assembly import ControlPlane
from gateway.controlplane.certificates import ensure_certificates
from gateway.controlplane.management import answer
from gateway.controlplane.publisher import seat_rows
from gateway.credentials import digest
from gateway.listener import HttpLimits, HttpServer, bind
from gateway.scorer import Scorer
from gateway.seats import SeatTable
from gateway.settings import load_settings
from gateway.snapshot import AuthSpec, DeploymentSpec, EndpointSpec, SnapshotSpec
from gateway.supervisor import Supervisor, serve
from gateway.telemetry.totals import ScorerTotals
from gateway.tls import Pair, read_pair
from runtimes import RuntimeSpec
from tests.support import models
from tests.support.waiting import PATIENCE_S

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
KEY = "k" * 43


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that another process makes true."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come true in time"
        await asyncio.sleep(0.02)


# A scorer, driven by messages.


def scorer_settings(tls: Pair | None = None) -> ScorerSettings:
    return ScorerSettings(
        scorers=1,
        http=HttpLimits(),
        tls=tls,
        tls_profile="intermediate",
        domain="models.example",
        gzip=True,
        timeout_status=408,
        mirror_in_flight_max=4,
        version="0",
        log_level="warning",
        log_format="text",
    )


def digits(revision: int, *deployments: str, traffic: dict[str, int] | None = None) -> SnapshotSpec:
    specs = {
        name: DeploymentSpec(
            name=name,
            runtime=RuntimeSpec(path=str(DIGITS / name / "model.onnx"), sha256=""),
            request_timeout_ns=5_000_000_000,
            queue_wait_ns=0,
            pending_max=0,
            seat=-1,
            body_bytes_max=1 << 20,
        )
        for name in deployments
    }
    endpoint = EndpointSpec(
        name="digits",
        auth=AuthSpec(mode="key", key_digests=(digest(KEY),)),
        traffic=traffic or {},
        deployments=specs,
    )
    return SnapshotSpec(revision=revision, endpoints={"digits": endpoint})


class Driven:
    """What a story gets: the supervisor's end of the channel, and an HTTP client of the scorer's listener."""

    def __init__(self, channel: Channel, client: httpx.AsyncClient) -> None:
        self.channel = channel
        self.client = client

    async def score(self, **headers: str) -> httpx.Response:
        body = (DIGITS / "sample-request.json").read_bytes()
        return await self.client.post("/endpoints/digits/score", content=body, headers=headers)


def drive(story: Callable[[Driven], Awaitable[None]], settings: ScorerSettings) -> None:
    async def handle(message: Message) -> Message:
        if isinstance(message, Opening):
            return Done()
        assert isinstance(message, Gather)
        return Collected(totals=ScorerTotals())

    async def run() -> None:
        (listening,) = bind("127.0.0.1", 0)
        port = listening.getsockname()[1]
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        seats_fd = SeatTable.create(1)
        scorer = asyncio.create_task(Scorer([listening], seats_fd).run(theirs))
        channel = await Channel.over(ours, handle)
        reading = asyncio.create_task(channel.serve())
        scheme = "https" if settings.tls else "http"
        verify: Any = False
        if settings.tls is not None:
            verify = ssl.create_default_context(cafile=str(Path(settings.tls.cert_name).parent / "ca.pem"))
        async with httpx.AsyncClient(
            base_url=f"{scheme}://127.0.0.1:{port}",
            verify=verify,
            headers={"authorization": f"Bearer {KEY}"},
        ) as client:
            await channel.call(Start(index=0, settings=settings))
            await story(Driven(channel, client))
        channel.close()
        await asyncio.gather(reading, scorer)
        os.close(seats_fd)

    asyncio.run(run())


def test_a_scorer_serves_what_is_committed_and_nothing_before() -> None:
    async def story(driven: Driven) -> None:
        prepared = await driven.channel.call(
            Prepare(spec=digits(1, "blue", "green", traffic={"blue": 100}), learned={})
        )
        assert isinstance(prepared, Prepared)
        assert prepared.failures == {}
        assert prepared.learned["digits/blue"].batched
        await driven.channel.call(Commit(revision=1))
        scored = await driven.score()
        assert (scored.status_code, scored.headers["azureml-model-deployment"]) == (200, "blue")

        again = await driven.channel.call(
            Prepare(spec=digits(2, "blue", "green", traffic={"green": 100}), learned=prepared.learned)
        )
        assert isinstance(again, Prepared)
        assert (await driven.score()).headers["azureml-model-deployment"] == "blue"
        await driven.channel.call(Commit(revision=2))
        assert (await driven.score()).headers["azureml-model-deployment"] == "green"
        totals = await driven.channel.call(Collect())
        assert isinstance(totals, Collected)
        assert totals.totals.endpoints["digits"].deployments["blue"].codes == {200: 2}

    drive(story, scorer_settings())


def test_an_aborted_change_leaves_no_trace_and_an_unprepared_one_is_refused() -> None:
    async def story(driven: Driven) -> None:
        await driven.channel.call(Prepare(spec=digits(1, "blue", traffic={"blue": 100}), learned={}))
        await driven.channel.call(Commit(revision=1))
        await driven.channel.call(Prepare(spec=digits(2, "green", traffic={"green": 100}), learned={}))
        await driven.channel.call(Abort(revision=2))
        assert (await driven.score()).headers["azureml-model-deployment"] == "blue"
        with pytest.raises(RemoteFailed, match="revision 2 was not prepared"):
            await driven.channel.call(Commit(revision=2))
        with pytest.raises(RemoteFailed, match="does not answer Done"):
            await driven.channel.call(Done())

    drive(story, scorer_settings())


def test_a_deployment_that_cannot_be_loaded_is_named_and_answers_with_its_reason() -> None:
    async def story(driven: Driven) -> None:
        prepared = await driven.channel.call(
            Prepare(spec=digits(1, "blue", "red", traffic={"blue": 100}), learned={})
        )
        assert isinstance(prepared, Prepared)
        assert "red/model.onnx" in prepared.failures["digits/red"]
        await driven.channel.call(Commit(revision=1))
        assert (await driven.score()).status_code == 200
        refused = await driven.score(**{"azureml-model-deployment": "red"})
        assert refused.status_code == 503
        assert "failed to load" in refused.json()["error"]["message"]

    drive(story, scorer_settings())


def test_a_deployment_that_is_dropped_is_drained_and_its_metrics_vanish() -> None:
    async def story(driven: Driven) -> None:
        await driven.channel.call(Prepare(spec=digits(1, "blue", "green", traffic={"blue": 100}), learned={}))
        await driven.channel.call(Commit(revision=1))
        await driven.score()
        await driven.channel.call(Prepare(spec=digits(2, "green", traffic={"green": 100}), learned={}))
        await driven.channel.call(Commit(revision=2))
        assert (await driven.score()).headers["azureml-model-deployment"] == "green"
        totals = await driven.channel.call(Collect())
        assert isinstance(totals, Collected)
        assert set(totals.totals.endpoints["digits"].deployments) == {"green"}

    drive(story, scorer_settings())


def test_a_scorer_reloads_its_certificate_and_drains(tmp_path: Path) -> None:
    paths = ensure_certificates(tmp_path, ["localhost"])
    first = read_pair(paths.cert, paths.key)

    async def story(driven: Driven) -> None:
        await driven.channel.call(Prepare(spec=digits(1, "blue", traffic={"blue": 100}), learned={}))
        await driven.channel.call(Commit(revision=1))
        assert (await driven.score()).status_code == 200
        ensure_certificates(tmp_path, ["localhost", "new.example"])
        second = read_pair(paths.cert, paths.key)
        await driven.channel.call(ReloadTls(pair=second))
        assert (await driven.score()).status_code == 200
        with pytest.raises(RemoteFailed, match="cannot be served"):
            await driven.channel.call(ReloadTls(pair=replace(second, key=b"not a key")))
        assert (await driven.score()).status_code == 200
        await driven.channel.call(Drain(grace_s=0, timeout_s=5))
        with pytest.raises(httpx.TransportError):
            await driven.score()

    drive(story, scorer_settings(first))


def collecting_digits() -> SnapshotSpec:
    spec = digits(1, "blue", traffic={"blue": 100})
    both = tuple(CollectionSpec(name=name, folder=name) for name in ("request", "response"))
    blue = replace(
        spec.endpoints["digits"].deployments["blue"], collector=CollectorSpec(source="s", collections=both)
    )
    return replace(spec, endpoints={"digits": replace(spec.endpoints["digits"], deployments={"blue": blue})})


def collecting_settings(folder: Path) -> ScorerSettings:
    collection = CollectionSettings(folder=str(folder), bytes_max=1 << 30, queue_bytes_max=1 << 20)
    return msgspec.structs.replace(scorer_settings(), collection=collection)


def lines_in(folder: Path) -> list[int]:
    """How many each file of a scorer has."""
    return [len(path.read_text().splitlines()) for path in folder.rglob("scorer-0.jsonl")]


def test_a_scorer_that_says_it_has_drained_has_written_what_it_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The thread would not look at its queue by itself.
    monkeypatch.setattr(writers, "EVERY_S", 3600.0)

    async def story(driven: Driven) -> None:
        await driven.channel.call(Prepare(spec=collecting_digits(), learned={}))
        await driven.channel.call(Commit(revision=1))
        for _ in range(3):
            assert (await driven.score()).status_code == 200
        assert lines_in(tmp_path) == []
        await driven.channel.call(Drain(grace_s=0, timeout_s=5))
        # It may be killed now.
        assert lines_in(tmp_path) == [3, 3]
        totals = await driven.channel.call(Collect())
        assert isinstance(totals, Collected)
        counts = totals.totals.endpoints["digits"].deployments["blue"].collections
        assert {name: one["stored"] for name, one in counts.items()} == {"request": 3, "response": 3}

    drive(story, collecting_settings(tmp_path))


def test_a_disk_that_stands_still_holds_up_a_drain_for_so_long_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    moves = threading.Event()
    monkeypatch.setattr(appending.Appender, "append", lambda *_: moves.wait(PATIENCE_S))

    async def story(driven: Driven) -> None:
        await driven.channel.call(Prepare(spec=collecting_digits(), learned={}))
        await driven.channel.call(Commit(revision=1))
        assert (await driven.score()).status_code == 200
        await driven.channel.call(Drain(grace_s=0, timeout_s=5, flush_s=0.05))
        assert "the disk did not take it within 0.05 s" in capsys.readouterr().err
        moves.set()

    drive(story, collecting_settings(tmp_path))


def test_a_scorer_accepts_for_another_for_as_long_as_it_is_told_to() -> None:
    async def run() -> None:
        (own,), (other,) = bind("127.0.0.1", 0), bind("127.0.0.1", 0)
        server = HttpServer(nothing_here, HttpLimits(), None)
        await server.start(own)
        for _ in range(2):
            await server.cover({1: other})
            assert await status_of(other) == 404
            await server.cover({})
            with pytest.raises(httpx.TimeoutException):
                # The socket still listens, for the one whose it is: the connection waits.
                await status_of(other, timeout_s=0.3)
        await server.cover({1: other})
        assert await server.drain(1)
        with pytest.raises(httpx.TimeoutException):
            await status_of(other, timeout_s=0.3)
        await server.close()
        other.close()

    asyncio.run(run())


async def nothing_here(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("nothing here", 404)(scope, receive, send)


async def status_of(listening: socket.socket, timeout_s: float = PATIENCE_S) -> int:
    async with httpx.AsyncClient(timeout=timeout_s) as client:
        return (await client.get(f"http://127.0.0.1:{listening.getsockname()[1]}/")).status_code


# A supervisor, with real scorer processes.


def settings_for(folder: Path | None, state: object, **more: object) -> Any:
    values = {
        "state": state,
        "scoring": "https://127.0.0.1:0",
        "management": "https://127.0.0.1:0",
        "telemetry": "http://127.0.0.1:0",
        "scorers": 1,
        "drain_grace_s": 0,
        "apply": folder,
        **more,
    }
    return load_settings(values, {}, None)


def supervise(settings: Any, story: Callable[[Supervisor], Awaitable[None]]) -> None:
    async def run() -> None:
        supervisor = await Supervisor.open(settings, [])
        try:
            await supervisor.start()
            await story(supervisor)
        finally:
            await supervisor.close()

    asyncio.run(run())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DIGITS, tmp_path / "digits"))


def test_a_supervisor_serves_changes_and_drains(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def story(supervisor: Supervisor) -> None:
        assert supervisor.is_started()
        assert supervisor.is_ready() == (True, "ready")
        status = supervisor.status()
        blue = status["endpoints"]["digits"]["deployments"]["blue"]
        assert (blue["state"], blue["batched"]) == ("Succeeded", True)

        endpoint = folder / "endpoint.yml"
        good = endpoint.read_text()
        endpoint.write_text(good.replace("blue: 90", "blue: 89"))
        refused = await answer(supervisor, "reload")
        assert not refused.ok
        assert "99" in refused.message
        endpoint.write_text(good.replace("blue: 90", "blue: 50").replace("green: 10", "green: 50"))
        assert (await answer(supervisor, "reload")).ok
        assert supervisor.status()["revision"] == 2
        (folder / "green" / "model.onnx").write_bytes(b"not a model")
        assert "green" in (await supervisor.reload()).message
        assert supervisor.status()["revision"] == 2

        page, content_type = await supervisor.metrics("")
        assert content_type.startswith("text/plain")
        text = page.decode()
        assert 'gateway_traffic_weight{deployment="green",endpoint="digits"} 50.0' in text
        assert "gateway_config_last_reload_success 0.0" in text
        assert not (await answer(supervisor, "dance")).ok
        await the_operator_is_answered(supervisor, tmp_path)

        pid = status["pids"]["scorers"][0]
        os.kill(pid, signal.SIGKILL)
        await until(lambda: supervisor.status()["pids"]["scorers"] != [pid] and supervisor.status()["ready"])
        text = (await supervisor.metrics(""))[0].decode()
        assert 'gateway_scorer_restarts_total{reason="signal"} 1.0' in text

        os.kill(os.getpid(), signal.SIGTERM)
        await supervisor.until_stopped()
        assert supervisor.is_ready() == (False, "draining")
        assert supervisor.is_draining()

    supervise(settings_for(folder, tmp_path / "state"), story)
    out = capsys.readouterr().out
    assert out.startswith("ready scoring=https://127.0.0.1:")
    assert out.count("\n") == 1


async def the_operator_is_answered(supervisor: Supervisor, tmp_path: Path) -> None:
    """Over the control socket and over HTTPS, with and without the token."""
    reader, writer = await asyncio.open_unix_connection(tmp_path / "state" / "control.sock")
    writer.write(b'{"command": "status"}\n')
    assert json.loads(await reader.readline())["data"]["ready"]
    writer.close()
    reader, writer = await asyncio.open_unix_connection(tmp_path / "state" / "control.sock")
    writer.write(b"[]\n")
    assert not json.loads(await reader.readline())["ok"]
    writer.close()


def test_what_was_learned_of_a_model_is_not_believed_of_another(folder: Path, tmp_path: Path) -> None:
    async def story(supervisor: Supervisor) -> None:
        model = models.mean_over_batch()
        (folder / "blue" / "model.onnx").write_bytes(model)
        assert (await supervisor.reload()).ok
        deployments = supervisor.status()["endpoints"]["digits"]["deployments"]
        assert not deployments["blue"]["batched"]
        assert deployments["green"]["batched"]

    supervise(settings_for(folder, tmp_path / "state"), story)


def test_a_signal_while_models_are_loading_ends_the_start(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def load_for_ever(self: ControlPlane, planned: object, collect: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    monkeypatch.setattr(ControlPlane, "start", load_for_ever)
    assert serve(settings_for(folder, tmp_path / "state"), []) == 0
    assert capsys.readouterr().out == ""


def test_a_row_of_seats_is_not_given_to_another_while_it_is_in_use() -> None:
    fd = SeatTable.create(1)
    table = SeatTable(fd, 1)
    rows = seat_rows({}, ["e/a", "e/b"], table)
    assert sorted(rows.values()) == [0, 1]
    table.take(rows["e/b"], 0, 2)
    after = seat_rows({"e/a": rows["e/a"]}, ["e/a", "e/c"], table)
    assert after == {"e/a": rows["e/a"], "e/c": 2}
    assert table.taken(rows["e/b"]) == 1
    table.close()
    os.close(fd)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_wait(tmp_path: Path, how: signal.Signals) -> None:
    async def story(supervisor: Supervisor) -> None:
        os.kill(os.getpid(), how)
        stopping = asyncio.create_task(supervisor.until_stopped())
        await until(supervisor.is_draining)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            await stopping

    supervise(settings_for(None, tmp_path / "state", drain_grace_s=600), story)


def test_a_hang_up_signal_reads_the_folder_again(folder: Path, tmp_path: Path) -> None:
    async def story(supervisor: Supervisor) -> None:
        shutil.rmtree(folder / "green")
        (folder / "green.yml").unlink()
        endpoint = folder / "endpoint.yml"
        endpoint.write_text(endpoint.read_text().replace("blue: 90", "blue: 100").replace("  green: 10\n", ""))
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: supervisor.status()["revision"] == 2)
        assert set(supervisor.status()["endpoints"]["digits"]["deployments"]) == {"blue"}

    supervise(settings_for(folder, tmp_path / "state"), story)


def test_a_gateway_starts_with_what_it_can_and_says_what_it_cannot(folder: Path, tmp_path: Path) -> None:
    (folder / "green" / "model.onnx").write_bytes(b"not a model")

    async def story(supervisor: Supervisor) -> None:
        green = supervisor.status()["endpoints"]["digits"]["deployments"]["green"]
        assert green["state"] == "Failed"
        assert "green" in green["reason"]
        # Green still fails, and holds up no other change.
        endpoint = folder / "endpoint.yml"
        endpoint.write_text(endpoint.read_text().replace("blue: 90", "blue: 80").replace("green: 10", "green: 20"))
        assert (await supervisor.reload()).ok

    supervise(settings_for(folder, tmp_path / "state", scoring="http://127.0.0.1:0"), story)


def test_what_cannot_start_says_why_and_exits_with_one(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refusal(**changes: object) -> str:
        assert serve(settings_for(folder, **{"state": tmp_path / "state", **changes}), []) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "Traceback" not in captured.err
        return captured.err

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}" in refusal(scoring=f"https://127.0.0.1:{port}")
    assert "not-there.pem" in refusal(tls_cert="not-there.pem", tls_key="not-there.key")
    (tmp_path / "a-file").write_text("")
    assert "a-file" in refusal(state=tmp_path / "a-file")
    for name in ("blue", "green"):
        (folder / name / "model.onnx").write_bytes(b"")
    err = refusal()
    assert "digits/blue" in err
    assert "digits/green" in err
    (folder / "endpoint.yml").write_text("nonsense: true\n")
    assert "nonsense" in refusal()
