"""From start to end: what is printed, how a stop drains, what a dying scorer costs, and why a start is refused."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.load import Hammer, in_thread, one_client_a_scorer
from tests.support.models import double
from tests.support.process import (
    GatewayProcess,
    deployment_yaml,
    endpoint_yaml,
    refused_to_start,
    replace_scorers,
    write_folder,
)
from tests.support.slow import SETTINGS, slow_model
from tests.support.waiting import PATIENCE_S, eventually

URL = r"https://127\.0\.0\.1:\d+"
READY = re.compile(rf"ready scoring={URL} management={URL} telemetry=http://127\.0\.0\.1:\d+ ca=(\S+)\n")
SLOW = {
    "sleeper.yml": endpoint_yaml("sleeper", traffic={"slow": 100}),
    "slow.yml": deployment_yaml("slow", "slow.onnx", "sleeper", gateway=SETTINGS),
}
QUICK: dict[str, str | bytes] = {
    "endpoint.yml": endpoint_yaml("quick", traffic={"blue": 100}),
    "blue.yml": deployment_yaml("blue", "blue.onnx", "quick"),
    "blue.onnx": double(),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One that serves on, for what others meet when one is there already."""
    place = tmp_path_factory.mktemp("running")
    with GatewayProcess(write_folder(place / "models", QUICK), place / "state", scorers=1) as gateway:
        yield gateway


@pytest.fixture
def slow_folder(tmp_path: Path) -> Path:
    """Beside the slow endpoint the quick one, whose requests do not wait for it."""
    return write_folder(tmp_path / "models", {**QUICK, **SLOW, "slow.onnx": slow_model()})


@pytest.fixture
def quick_folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "models", QUICK)


def _take(client: httpx.Client, ms: float) -> httpx.Response:
    return client.post("/endpoints/sleeper/score", json={"input_data": [[ms]]})


def _take_alone(gateway: GatewayProcess, ms: float) -> httpx.Response:
    """Over a connection that nothing else uses."""
    with gateway.client("sleeper") as client:
        return _take(client, ms)


def _double(client: httpx.Client) -> httpx.Response:
    return client.post("/endpoints/quick/score", json={"input_data": [[1, 2, 3, 4]]})


def _is_answered(reply: httpx.Response, ms: float) -> bool:
    return reply.status_code == 200 and reply.json() == [[ms]]


# Start and stop.


def test_the_ready_line_is_exact_and_alone_on_stdout(running: GatewayProcess) -> None:
    found = READY.fullmatch(running.ready_line)
    assert found is not None, running.ready_line
    assert Path(found[1]).read_text().startswith("-----BEGIN CERTIFICATE-----")
    with running.client("quick") as client:
        # Ready means ready: no retry.
        assert _double(client).json() == [[2, 4, 6, 8]]
    assert running.stdout == [running.ready_line]


def test_a_gateway_without_a_folder_starts_and_serves_nothing(tmp_path: Path) -> None:
    with GatewayProcess(None, tmp_path / "state", scorers=1) as gateway, gateway.client() as client:
        assert gateway.telemetry("/readyz").status_code == 200
        assert client.post("/endpoints/any/score", json={}).status_code == 404
        assert client.get("/v2").status_code == 200


def test_keys_the_ca_and_tokens_outlive_a_restart(quick_folder: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    kept = (state / "tls/ca.pem", state / "management.token")
    seen = []
    for _ in range(2):
        with GatewayProcess(quick_folder, state, scorers=1) as gateway:
            seen.append((gateway.keys("quick"), [path.read_bytes() for path in kept]))
    assert seen[0] == seen[1]
    assert len(set(seen[0][0].values())) == 2


# Drain.


def test_a_stop_is_told_at_once_and_serves_on_through_the_grace(slow_folder: Path, tmp_path: Path) -> None:
    grace_s = 2.0
    with ExitStack() as stack:
        gateway = stack.enter_context(
            GatewayProcess(slow_folder, tmp_path / "state", "--drain-grace-s", str(grace_s))
        )
        clients = [stack.enter_context(gateway.client("quick")) for _ in range(2)]
        assert _double(clients[1]).status_code == 200
        # One scorer may run both, one after the other; the last outlasts the grace.
        slow = [in_thread(partial(_take_alone, gateway, ms)) for ms in (700.0, 1000.0 + 1000 * grace_s)]
        eventually(lambda: gateway.metrics().value("gateway_requests_in_flight") == 2, "two requests are in flight")

        gateway.process.send_signal(signal.SIGTERM)
        began_s = time.monotonic()
        eventually(lambda: gateway.telemetry("/readyz").status_code == 503, "not ready", grace_s)
        assert "draining" in gateway.telemetry("/readyz").text
        assert gateway.telemetry("/livez").status_code == 200
        # A new connection and one that was open: both are served, and told to come back elsewhere.
        for client in clients:
            reply = _double(client)
            assert reply.json() == [[2, 4, 6, 8]]
            assert reply.headers["connection"] == "close"
        assert time.monotonic() - began_s < grace_s, "the requests were not sent within the grace"

        assert [result().status_code for result in slow] == [200, 200]
        assert gateway.finish() == 0
        assert time.monotonic() - began_s > grace_s


def test_no_request_fails_while_callers_hammer_through_a_stop(quick_folder: Path, tmp_path: Path) -> None:
    gateway = GatewayProcess(quick_folder, tmp_path / "state", "--drain-grace-s", "1", scorers=1)
    gateway.start()
    with Hammer(lambda: gateway.client("quick"), _double) as hammer:
        gateway.process.send_signal(signal.SIGTERM)
        eventually(lambda: "draining" in gateway.log(), "it drains", 5)
        hammer.go_on(100)
        assert hammer.broken == []
        assert gateway.finish() == 0
    assert set(hammer.since()) == {(200, "blue")}


def test_a_second_signal_cuts_the_grace(slow_folder: Path, tmp_path: Path) -> None:
    with GatewayProcess(slow_folder, tmp_path / "state", "--drain-grace-s", "600", scorers=1) as gateway:
        gateway.process.send_signal(signal.SIGTERM)
        gateway.await_log("draining")
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.finish(20) == 0


def test_an_interrupt_skips_the_grace_and_finishes_what_runs(slow_folder: Path, tmp_path: Path) -> None:
    with GatewayProcess(slow_folder, tmp_path / "state", "--drain-grace-s", "600", scorers=1) as gateway:
        running = in_thread(partial(_take_alone, gateway, 800))
        eventually(lambda: gateway.metrics().value("gateway_requests_in_flight") == 1, "a request runs")
        gateway.process.send_signal(signal.SIGINT)
        assert gateway.finish(20) == 0
        assert _is_answered(running(), 800)


def test_clients_that_keep_idle_connections_do_not_hold_up_a_stop(slow_folder: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        gateway = stack.enter_context(GatewayProcess(slow_folder, tmp_path / "state", scorers=1))
        for _ in range(3):
            assert _is_answered(_take(stack.enter_context(gateway.client("sleeper")), 1), 1)
        assert gateway.stop(timeout_s=10) == 0
        assert "cut off" not in gateway.log()


def test_what_outlasts_the_drain_is_cut_off(slow_folder: Path, tmp_path: Path) -> None:
    with GatewayProcess(slow_folder, tmp_path / "state", "--drain-timeout-s", "0.3", scorers=1) as gateway:
        running = in_thread(partial(_take_alone, gateway, 4000))
        eventually(lambda: gateway.metrics().value("gateway_requests_in_flight") == 1, "a request runs")
        gateway.process.send_signal(signal.SIGTERM)
        with pytest.raises(httpx.TransportError):
            running()
        assert gateway.finish(20) == 0
        assert "cut off" in gateway.log()


# A scorer dies.


def test_a_killed_scorer_is_replaced_and_the_other_serves_on(quick_folder: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        gateway = stack.enter_context(GatewayProcess(quick_folder, tmp_path / "state"))
        clients = one_client_a_scorer(stack, lambda: gateway.client("quick"))
        for client in clients:
            assert _double(client).status_code == 200
        eventually(lambda: gateway.metrics().value("gateway_requests_total", code="200") == 2, "both are counted")
        before = gateway.metrics().counters()
        pids = gateway.status()["pids"]["scorers"]

        os.kill(pids[0], signal.SIGKILL)

        gateway.await_log("is replaced")
        # A client may see its connection lost before it sends; then it has a new one, and waits for the replacement.
        outcomes = [_outcome(client) for client in clients]
        assert set(outcomes) <= {"200", "reset"}
        assert outcomes.count("200") >= 1
        eventually(lambda: gateway.metrics().value("gateway_scorers", state="serving") == 2, "two serve again")
        after = gateway.metrics()
        assert [name for name, value in before.items() if after.counters().get(name, 0) < value] == []
        assert after.value("gateway_requests_total", code="200") == 2 + outcomes.count("200")
        assert after.value("gateway_scorer_restarts_total", reason="signal") == 1
        now = gateway.status()["pids"]["scorers"]
        assert now[1] == pids[1]
        assert now[0] not in (0, pids[0])
        # The replacement serves: it listens on the socket of the one that died.
        for client in one_client_a_scorer(stack, lambda: gateway.client("quick")):
            assert _double(client).json() == [[2, 4, 6, 8]]


def _outcome(client: httpx.Client) -> str:
    try:
        return str(_double(client).status_code)
    except httpx.TransportError:
        return "reset"


def test_counters_never_go_back_and_no_connection_is_refused_while_scorers_are_killed_under_load(
    quick_folder: Path, tmp_path: Path
) -> None:
    with GatewayProcess(quick_folder, tmp_path / "state") as gateway:
        with Hammer(lambda: gateway.client("quick"), _double) as hammer:
            counters: list[dict[Any, float]] = [gateway.metrics().counters()]
            for scorer in (0, 1):
                os.kill(gateway.status()["pids"]["scorers"][scorer], signal.SIGKILL)
                eventually(lambda: gateway.status()["scorers"]["serving"] < 2, "a scorer is missed")
                counters.append(gateway.metrics().counters())
                eventually(lambda: gateway.status()["scorers"]["serving"] == 2, "two serve again")
                counters.append(gateway.metrics().counters())
                hammer.go_on()
        counters.append(gateway.metrics().counters())
        for earlier, later in pairwise(counters):
            assert [name for name, value in earlier.items() if later.get(name, 0) < value] == []
        assert set(hammer.since()) == {(200, "blue")}
        # Only requests that were under way, or connections that were open, at a kill may break.
        assert len(hammer.broken) <= 2 * 3, hammer.broken
        assert gateway.metrics().value("gateway_scorer_restarts_total") == 2


def test_new_connections_do_not_wait_for_a_scorer_that_is_stopped(quick_folder: Path, tmp_path: Path) -> None:
    with GatewayProcess(quick_folder, tmp_path / "state") as gateway:
        stopped = gateway.status()["pids"]["scorers"][0]
        os.kill(stopped, signal.SIGSTOP)
        try:
            gateway.await_log("the others accept their connections")
            # The kernel gives about half of the connections to the socket of the one that is stopped.
            for _ in range(20):
                with gateway.client("quick", timeout=5) as client:
                    assert _double(client).status_code == 200
        finally:
            os.kill(stopped, signal.SIGCONT)
        eventually(lambda: gateway.metrics().value("gateway_scorers", state="serving") == 2, "both serve again")


def test_a_scorer_that_is_stopped_keeps_nothing_from_being_changed(tmp_path: Path) -> None:
    blue_and_green = {**QUICK, "green.yml": deployment_yaml("green", "blue.onnx", "quick")}
    folder = write_folder(tmp_path / "models", blue_and_green)
    with GatewayProcess(folder, tmp_path / "state") as gateway:
        stopped, other = gateway.status()["pids"]["scorers"]
        os.kill(stopped, signal.SIGSTOP)
        write_folder(folder, {"endpoint.yml": endpoint_yaml("quick", traffic={"green": 100})})
        # The change begins long before it is found out, and asks both.
        done = gateway.run("reload", timeout_s=PATIENCE_S)
        assert done.returncode == 0, done.stderr
        assert "has not answered for 10 s and is killed" in gateway.log()
        eventually(lambda: gateway.status()["scorers"]["serving"] == 2, "two serve again")
        now = gateway.status()["pids"]["scorers"]
        assert (now[0] != stopped, now[1]) == (True, other)
        with ExitStack() as stack:
            for client in one_client_a_scorer(stack, lambda: gateway.client("quick")):
                assert _double(client).headers["azureml-model-deployment"] == "green"
        # And the next change meets nothing that was left.
        write_folder(folder, {"endpoint.yml": endpoint_yaml("quick", traffic={"blue": 100})})
        gateway.reload()


def test_a_replaced_scorer_serves_what_was_accepted_not_what_lies_in_the_file(
    quick_folder: Path, tmp_path: Path
) -> None:
    with GatewayProcess(quick_folder, tmp_path / "state") as gateway:
        model = next(quick_folder.glob("*.onnx"))
        model.write_bytes(b"not a model")
        refused = gateway.run("reload")
        assert refused.returncode == 1
        # The operator's own file is named, not the gateway's copy.
        assert str(model) in refused.stderr
        replace_scorers(gateway)
        for _ in range(10):
            with gateway.client("quick") as client:
                assert _double(client).json() == [[2, 4, 6, 8]]


def test_scorers_end_with_a_supervisor_that_is_killed(quick_folder: Path, tmp_path: Path) -> None:
    gateway = GatewayProcess(quick_folder, tmp_path / "state")
    gateway.start()
    pids = gateway.status()["pids"]["scorers"]
    assert gateway.stop(signal.SIGKILL) == -signal.SIGKILL
    eventually(lambda: not any(_is_running(pid) for pid in pids), "no scorer is left")
    # And the folder can be used again at once.
    with GatewayProcess(quick_folder, tmp_path / "state") as second, second.client("quick") as client:
        assert _double(client).status_code == 200


def _is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


# Starts with a mistake.


def test_a_corrupt_model_does_not_keep_the_others_from_serving(tmp_path: Path) -> None:
    files = {
        **QUICK,
        "endpoint.yml": endpoint_yaml("quick", traffic={"blue": 100, "broken": 0}),
        "broken.yml": deployment_yaml("broken", "broken.onnx", "quick"),
        "broken.onnx": b"not a model",
    }
    folder = write_folder(tmp_path / "models", files)
    with GatewayProcess(folder, tmp_path / "state", scorers=1) as gateway, gateway.client("quick") as client:
        assert _double(client).json() == [[2, 4, 6, 8]]
        refused = client.post(
            "/endpoints/quick/score",
            json={"input_data": [[1, 2, 3, 4]]},
            headers={"azureml-model-deployment": "broken"},
        )
        assert refused.status_code == 503
        assert "broken.onnx" in refused.json()["error"]["message"]
        assert int(refused.headers["retry-after"]) > 0
        states = gateway.status()["endpoints"]["quick"]["deployments"]
        assert states["blue"]["state"] == "Succeeded"
        assert states["broken"]["state"] == "Failed"
        assert "broken.onnx" in states["broken"]["reason"]
        assert client.get("/v2/models/quick/versions/broken/ready").status_code == 503

        # Mended, it is served without a restart.
        write_folder(folder, {"broken.onnx": double()})
        gateway.reload()
        assert client.get("/v2/models/quick/versions/broken/ready").status_code == 200


def test_only_corrupt_models_are_no_gateway(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "models", {**QUICK, "blue.onnx": b"not a model"})
    log = refused_to_start(GatewayProcess(folder, tmp_path / "state"))
    assert "cannot start: deployment quick/blue: " in log
    assert "blue.onnx" in log


def test_all_mistakes_of_a_folder_are_told_at_once(tmp_path: Path) -> None:
    files = {**QUICK, "endpoint.yml": endpoint_yaml("quick", traffic={"blue": 90}), "other.yml": "name: [\n"}
    log = refused_to_start(GatewayProcess(write_folder(tmp_path / "models", files), tmp_path / "state"))
    assert "other.yml" in log
    assert "90" in log


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    log = refused_to_start(GatewayProcess(tmp_path / "nowhere", tmp_path / "state"))
    assert str(tmp_path / "nowhere") in log


def test_two_gateways_cannot_share_a_state_folder(running: GatewayProcess) -> None:
    log = refused_to_start(GatewayProcess(running.folder, running.state))
    assert f"in use by the gateway with process id {running.process.pid}" in log
    # The first one is none the worse for it.
    with running.client("quick") as client:
        assert _double(client).status_code == 200
    assert running.run("status").returncode == 0


@pytest.mark.parametrize("listener", ["scoring", "management", "telemetry"])
def test_a_port_in_use_is_named(quick_folder: Path, tmp_path: Path, listener: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        scheme = "http" if listener == "telemetry" else "https"
        gateway = GatewayProcess(quick_folder, tmp_path / "state", f"--{listener}", f"{scheme}://127.0.0.1:{port}")
        log = refused_to_start(gateway)
    assert str(port) in log
    assert "another program listens there" in log


def test_a_port_of_another_gateway_is_in_use_too(running: GatewayProcess, quick_folder: Path, tmp_path: Path) -> None:
    # Scorers share a port among themselves, and with nobody else.
    second = GatewayProcess(quick_folder, tmp_path / "other", "--scoring", running.urls["scoring"])
    assert "another program listens there" in refused_to_start(second)


def test_an_address_of_another_machine_is_refused(quick_folder: Path, tmp_path: Path) -> None:
    gateway = GatewayProcess(quick_folder, tmp_path / "state", "--scoring", "https://192.0.2.1:0")
    assert "192.0.2.1" in refused_to_start(gateway)


ODD_STATES = ("a file", "below a file", "writable for everybody", "no real folder", "damaged keys")


@pytest.fixture
def odd_states(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "public").mkdir()
    (tmp_path / "public").chmod(0o777)
    (tmp_path / "damaged/keys").mkdir(parents=True)
    (tmp_path / "damaged/keys/quick.json").write_text("{")
    return {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file/state",
        "writable for everybody": tmp_path / "public",
        "no real folder": Path("/proc/no-such-folder"),
        "damaged keys": tmp_path / "damaged",
    }


@pytest.mark.parametrize("kind", ODD_STATES)
def test_a_state_folder_that_cannot_be_used_is_named(
    quick_folder: Path, odd_states: dict[str, Path], kind: str
) -> None:
    log = refused_to_start(GatewayProcess(quick_folder, odd_states[kind]))
    assert str(odd_states[kind]) in log


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_state_folder_that_is_not_writable_is_named(quick_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o500)
    assert "not writable" in refused_to_start(GatewayProcess(quick_folder, tmp_path / "state"))


def test_a_state_folder_with_a_long_path_works(quick_folder: Path, tmp_path: Path) -> None:
    state = tmp_path / ("long-" * 20) / ("longer-" * 20)
    with GatewayProcess(quick_folder, state, scorers=1) as gateway, gateway.client("quick") as client:
        assert _double(client).status_code == 200
        assert gateway.run("status").returncode == 0
        assert gateway.run("reload").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--scorers", "many"], "scorers"),
        (["--scoring", "ftp://127.0.0.1:1"], "scoring"),
        (["--drain-grace-s", "-1"], "drain-grace-s"),
        (["--tls-cert", "only-one.pem"], "tls_key"),
        (["--no-such-flag"], "no-such-flag"),
    ],
)
def test_a_bad_flag_is_wrong_usage(quick_folder: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    log = refused_to_start(GatewayProcess(quick_folder, tmp_path / "state", *arguments), exit_status=2)
    assert log.startswith("error: ")
    assert said in log
    assert not (tmp_path / "state").exists()


def test_a_bad_variable_is_wrong_usage_and_a_likely_one_is_named(quick_folder: Path, tmp_path: Path) -> None:
    gateway = GatewayProcess(quick_folder, tmp_path / "state", environment={"GATEWAY_SCORRERS": "2"})
    assert "did you mean GATEWAY_SCORERS?" in refused_to_start(gateway, exit_status=2)


def test_certificate_files_that_do_not_fit_are_refused(quick_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("nothing")
    (tmp_path / "key.pem").write_text("nothing")
    given = ["--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem")]
    assert "cert.pem" in refused_to_start(GatewayProcess(quick_folder, tmp_path / "state", *given))


def test_commands_for_a_gateway_that_does_not_run_say_so(quick_folder: Path, tmp_path: Path) -> None:
    gateway = GatewayProcess(quick_folder, tmp_path / "state", scorers=1)
    with gateway:
        unknown = gateway.run("keys", "nobody")
        assert unknown.returncode == 3
        assert "nobody" in unknown.stderr
    for command in (("reload",), ("status",), ("keys", "quick"), ("export",)):
        done = gateway.run(*command)
        assert (done.returncode, done.stdout) == (1, "")
        assert "no gateway runs on the state folder" in done.stderr
