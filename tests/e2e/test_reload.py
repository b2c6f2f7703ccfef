"""A change of the folder under load: what is served changes, no request fails, and a mistake changes nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.load import Hammer
from tests.support.models import double, identity
from tests.support.process import GatewayProcess, deployment_yaml, endpoint_yaml, replace_file, write_folder
from tests.support.waiting import eventually

BODY = {"input_data": [[1.0, 2.0, 3.0, 4.0]]}
SAME, DOUBLED = [[1.0, 2.0, 3.0, 4.0]], [[2.0, 4.0, 6.0, 8.0]]
CALLERS = 3
FIRST: dict[str, str | bytes] = {
    "endpoint.yml": endpoint_yaml(traffic={"blue": 100, "green": 0}),
    "blue.yml": deployment_yaml("blue", "blue.onnx"),
    "green.yml": deployment_yaml("green", "green.onnx"),
    "blue.onnx": identity(shape=("N", 4)),
    "green.onnx": double(),
}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Endpoint `digits` with blue (answers what it got) at 100 %, and green (doubles) at 0 %."""
    place = tmp_path_factory.mktemp("reload")
    with GatewayProcess(write_folder(place / "models", FIRST), place / "state") as gateway:
        yield gateway


@pytest.fixture
def served(started: GatewayProcess) -> GatewayProcess:
    """The gateway, back at its first folder."""
    folder = _folder(started)
    for stray in folder.glob("*.yml"):
        stray.unlink()
    write_folder(folder, FIRST)
    started.reload()
    return started


@pytest.fixture
def hammer(served: GatewayProcess) -> Iterator[Hammer]:
    """Callers that score without a pause; at the end, not one of them may have failed."""
    with Hammer(lambda: served.client("digits"), _score, CALLERS) as callers:
        yield callers
    assert callers.broken == []
    assert {status for status, _ in callers.since()} == {200}


def _folder(gateway: GatewayProcess) -> Path:
    assert gateway.folder is not None
    return gateway.folder


def _score(client: httpx.Client) -> httpx.Response:
    return client.post("/endpoints/digits/score", json=BODY)


def _answer(gateway: GatewayProcess, deployment: str = "") -> object:
    with gateway.client("digits") as client:
        named = {"azureml-model-deployment": deployment} if deployment else {}
        reply = client.post("/endpoints/digits/score", json=BODY, headers=named)
        return reply.json() if reply.status_code == 200 else reply.status_code


def _by_command(gateway: GatewayProcess) -> None:
    done = gateway.run("reload")
    assert done.returncode == 0, done.stderr


def _by_signal(gateway: GatewayProcess) -> None:
    since = len(gateway.stderr)
    gateway.process.send_signal(signal.SIGHUP)
    gateway.await_log("is served: ", since)


Reload = Callable[[GatewayProcess], None]
either_way = pytest.mark.parametrize("reload", [_by_command, _by_signal], ids=["command", "signal"])


# Changes that are applied.


@either_way
def test_traffic_flips_with_no_failed_request(served: GatewayProcess, hammer: Hammer, reload: Reload) -> None:
    for there, back in (("green", "blue"), ("blue", "green")) * 2:
        write_folder(_folder(served), {"endpoint.yml": endpoint_yaml(traffic={there: 100, back: 0})})
        reload(served)
        hammer.go_on(CALLERS)
        place = len(hammer.answers)
        hammer.go_on()
        assert set(hammer.since(place)) == {(200, there)}
    assert set(hammer.since()) == {(200, "blue"), (200, "green")}


def test_a_change_of_traffic_loads_no_model_and_keeps_every_process(served: GatewayProcess) -> None:
    since, pids = len(served.stderr), served.status()["pids"]
    write_folder(_folder(served), {"endpoint.yml": endpoint_yaml(traffic={"blue": 30, "green": 70})})
    served.reload()
    assert served.status()["pids"] == pids
    assert "is loaded" not in "".join(served.stderr[since:])
    assert served.metrics().value("gateway_traffic_weight", deployment="green") == 70


def test_a_new_deployment_is_served_and_a_removed_one_is_gone(served: GatewayProcess, hammer: Hammer) -> None:
    extra = {"red.yml": deployment_yaml("red", "green.onnx")}
    write_folder(_folder(served), {**extra, "endpoint.yml": endpoint_yaml(traffic={"blue": 50, "red": 50})})
    served.reload()
    assert _answer(served, "red") == DOUBLED
    hammer.go_on()

    (_folder(served) / "red.yml").unlink()
    write_folder(_folder(served), {"endpoint.yml": endpoint_yaml(traffic={"blue": 100})})
    served.reload()
    served.await_log("digits/red is drained and closed")
    assert _answer(served, "red") == 404
    assert '"red"' not in served.metrics().page
    place = len(hammer.answers)
    hammer.go_on()
    assert set(hammer.since(place)) <= {(200, "blue"), (200, "red")}
    assert set(hammer.since(place + CALLERS)) == {(200, "blue")}


@either_way
def test_a_new_model_file_is_served_without_an_edit_of_the_yaml(
    served: GatewayProcess, hammer: Hammer, reload: Reload
) -> None:
    assert _answer(served) == SAME
    write_folder(_folder(served), {"blue.onnx": FIRST["green.onnx"]})
    reload(served)
    assert _answer(served) == DOUBLED
    hammer.go_on()
    assert set(hammer.since()) == {(200, "blue")}


def test_a_new_endpoint_gets_keys_of_its_own_and_goes_again(served: GatewayProcess, hammer: Hammer) -> None:
    write_folder(
        _folder(served),
        {
            "second.yml": endpoint_yaml("second", traffic={"only": 100}),
            "only.yml": deployment_yaml("only", "green.onnx", "second"),
        },
    )
    served.reload()
    with served.client("second") as client:
        assert client.post("/endpoints/second/score", json=BODY).json() == DOUBLED
        assert client.post("/endpoints/digits/score", json=BODY).status_code == 401
        for name in ("second.yml", "only.yml"):
            (_folder(served) / name).unlink()
        served.reload()
        assert client.post("/endpoints/second/score", json=BODY).status_code == 404
    hammer.go_on()


def test_many_reloads_at_once_end_with_what_the_folder_says(served: GatewayProcess, hammer: Hammer) -> None:
    for weight in (10, 20, 30, 40, 50):
        write_folder(
            _folder(served), {"endpoint.yml": endpoint_yaml(traffic={"blue": weight, "green": 100 - weight})}
        )
        served.process.send_signal(signal.SIGHUP)
    eventually(lambda: served.metrics().value("gateway_traffic_weight", deployment="blue") == 50, "50 % for blue")
    hammer.go_on()


# Mistakes.

Break = Callable[[Path], None]


def _yaml_syntax(folder: Path) -> None:
    replace_file(folder / "blue.yml", b"name: [blue\n")


def _unknown_key(folder: Path) -> None:
    text = deployment_yaml("blue", "blue.onnx", instance_cout=2)
    replace_file(folder / "blue.yml", text.encode())


def _weights_of_110(folder: Path) -> None:
    replace_file(folder / "endpoint.yml", endpoint_yaml(traffic={"blue": 60, "green": 50}).encode())


def _traffic_for_nobody(folder: Path) -> None:
    replace_file(folder / "endpoint.yml", endpoint_yaml(traffic={"purple": 100}).encode())


def _missing_model(folder: Path) -> None:
    replace_file(folder / "blue.yml", deployment_yaml("blue", "gone.onnx").encode())


def _corrupt_model(folder: Path) -> None:
    replace_file(folder / "blue.onnx", b"not a model at all")


def _truncated_model(folder: Path) -> None:
    replace_file(folder / "blue.onnx", identity(shape=("N", 4))[:-20])


def _empty_model(folder: Path) -> None:
    replace_file(folder / "blue.onnx", b"")


def _unreadable_text(folder: Path) -> None:
    replace_file(folder / "blue.yml", b"name: bl\xffue\n")


MISTAKES: dict[str, tuple[Break, str]] = {
    "syntax": (_yaml_syntax, "blue.yml"),
    "unknown key": (_unknown_key, "did you mean instance_count"),
    "weights of 110": (_weights_of_110, "110"),
    "traffic for nobody": (_traffic_for_nobody, "purple"),
    "missing model": (_missing_model, "gone.onnx"),
    "corrupt model": (_corrupt_model, "blue.onnx"),
    "truncated model": (_truncated_model, "blue.onnx"),
    "empty model": (_empty_model, "is empty"),
    "not UTF-8": (_unreadable_text, "blue.yml"),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_leaves_the_old_serving_and_says_why(served: GatewayProcess, hammer: Hammer, mistake: str) -> None:
    break_it, said = MISTAKES[mistake]
    pids, revision = served.status()["pids"], served.status()["revision"]
    break_it(_folder(served))

    refused = served.manage("POST", "/reload")
    assert refused.status_code == 409
    assert said in refused.json()["message"]
    served.await_log(said)

    assert served.metrics().value("gateway_config_last_reload_success") == 0
    assert served.status()["revision"] == revision
    assert served.status()["pids"] == pids
    assert served.telemetry("/readyz").status_code == 200
    assert _answer(served) == SAME
    hammer.go_on()
    assert set(hammer.since()) == {(200, "blue")}


def test_the_command_says_why_a_change_is_refused_and_fails(served: GatewayProcess) -> None:
    _unknown_key(_folder(served))
    done = served.run("reload")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: the change is refused, what was served is served on: ")
    assert "did you mean instance_count" in done.stderr


def test_a_mistake_by_signal_is_logged_and_mending_it_works(served: GatewayProcess) -> None:
    since = len(served.stderr)
    refused = served.metrics().value("gateway_config_reloads_total", outcome="refused")
    _corrupt_model(_folder(served))
    served.process.send_signal(signal.SIGHUP)
    assert "what was served is served on" in served.await_log("the change is refused", since)
    assert served.metrics().value("gateway_config_reloads_total", outcome="refused") == refused + 1
    assert served.metrics().value("gateway_config_last_reload_success") == 0
    assert _answer(served) == SAME

    write_folder(_folder(served), {"blue.onnx": FIRST["green.onnx"]})
    _by_signal(served)
    assert served.metrics().value("gateway_config_last_reload_success") == 1
    assert _answer(served) == DOUBLED


def test_a_folder_that_is_gone_is_a_mistake_like_any_other(served: GatewayProcess, tmp_path: Path) -> None:
    folder = _folder(served)
    folder.rename(tmp_path / "elsewhere")
    try:
        done = served.run("reload")
    finally:
        (tmp_path / "elsewhere").rename(folder)
    assert done.returncode == 1
    assert str(folder) in done.stderr
    assert _answer(served) == SAME


def test_a_scorer_that_dies_during_a_change_does_not_stop_the_next_one(served: GatewayProcess) -> None:
    pids = served.status()["pids"]["scorers"]
    os.kill(pids[1], signal.SIGKILL)
    write_folder(_folder(served), {"endpoint.yml": endpoint_yaml(traffic={"green": 100})})
    done = served.run("reload")
    assert "Traceback" not in done.stderr
    eventually(lambda: served.run("reload").returncode == 0, "a change is applied again")
    eventually(lambda: served.status()["scorers"] == {"wanted": 2, "serving": 2}, "both scorers serve")
    assert _answer(served) == DOUBLED
    assert served.status()["pids"]["scorers"][1] != pids[1]
