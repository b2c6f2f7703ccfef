"""Scoring scripts over HTTPS: what a score.py sees, answers and survives, and which are refused with their reason."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import joblib
import numpy as np
import pytest

from examples.scripts.train import split, train
from tests.support.load import Hammer
from tests.support.process import GatewayProcess, endpoint_yaml, replace_scorers, write_folder
from tests.support.waiting import eventually

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "scripts"
SECRET = "SECRET_OF_THE_MACHINE"

# Says what it sees; told to by its input, it fails in every way that a script can.
PLAIN = """
    import json, logging, os, sys, time

    def init():
        global count
        count = 0
        logging.info("init ran")

    def run(raw, request_headers):
        global count
        count += 1
        asked = json.loads(raw)
        what = asked.get("do", "")
        if what == "raise":
            raise KeyError("the customer's secret column")
        if what == "object":
            return object()
        if what == "print":
            print("printed for the log")
        if what == "nothing":
            return None
        return {
            "pid": os.getpid(), "count": count, "type": type(raw).__name__, "asked": asked,
            "headers": dict(request_headers), "variables": dict(os.environ), "here": os.getcwd(),
        }
"""
RAW = """
    from azureml_inference_server_http.api.aml_request import AMLRequest, rawhttp
    from azureml_inference_server_http.api.aml_response import AMLResponse
"""
LEGACY = """
    from azureml.contrib.services.aml_request import AMLRequest, rawhttp
    from azureml.contrib.services.aml_response import AMLResponse
"""
ECHO = """
    def init():
        pass

    @rawhttp
    def run(request):
        assert isinstance(request, AMLRequest)
        if request.args.get("status"):
            return AMLResponse("no coffee here", int(request.args["status"]), {"x-pot": "tea"})
        said = {"method": request.method, "path": request.full_path, "size": len(request.get_data())}
        return AMLResponse(said, 200, {"x-seen": "yes"}, json_str=True)
"""
# A chain of small sums: whoever gets another's answer notices.
STEADY = """
    import json, os, time

    def init():
        pass

    def run(raw):
        asked = json.loads(raw)
        if asked.get("do") == "exit":
            os._exit(7)
        if asked.get("do") == "crash":
            os.kill(os.getpid(), 11)
        if asked.get("do") == "hang":
            time.sleep(3600)
        return {"double": 2 * asked["value"], "pid": os.getpid(), "version": VERSION}
"""


def script(text: str, **values: object) -> str:
    heads = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    return heads + textwrap.dedent(text)


def script_yaml(name: str, endpoint: str, code: str = "", **more: Any) -> str:
    """A deployment whose code is the folder that has its name."""
    fields: dict[str, Any] = {
        "name": name,
        "endpoint_name": endpoint,
        "instance_type": "cpu",
        "environment": "local",
        "code_configuration": {"code": f"./{code or f'{endpoint}-{name}'}", "scoring_script": "score.py"},
        "request_settings": {"max_concurrent_requests_per_instance": 20, "request_timeout_ms": 5000},
    }
    return json.dumps({**fields, **more})


def score(gateway: GatewayProcess, endpoint: str, body: Any = None, **options: Any) -> httpx.Response:
    given = {"json": body} if body is not None else {}
    deployment = options.pop("deployment", "")
    headers = {**({"azureml-model-deployment": deployment} if deployment else {}), **options.pop("headers", {})}
    method = options.pop("method", "POST")
    query = options.pop("query", "")
    with gateway.client(endpoint) as client:
        return client.request(method, f"/endpoints/{endpoint}/score{query}", headers=headers, **given, **options)


def answered(reply: httpx.Response) -> Any:
    assert reply.status_code == 200, reply.text
    return reply.json()


def logs_of(gateway: GatewayProcess, endpoint: str, deployment: str) -> str:
    path = (
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
        f"/onlineEndpoints/{endpoint}/deployments/{deployment}/getLogs"
    )
    reply = gateway.manage("POST", path)
    assert reply.status_code == 200, reply.text
    content: str = reply.json()["content"]
    return content


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ---- what a script sees and answers ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's models, made by the packages of this environment."""
    folder = tmp_path_factory.mktemp("iris")
    train(folder)
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[GatewayProcess]:
    """The example with both deployments in the gateway's own environment, and an endpoint of each form of run()."""
    place = tmp_path_factory.mktemp("scripts")
    folder = place / "models"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("*.joblib", "*.py[co]", "__pycache__"))
    for name in ("blue", "green"):
        shutil.copytree(models / name, folder / name, dirs_exist_ok=True)
        text = (folder / f"{name}.yml").read_text()
        start, end = text.index("environment:"), text.index("instance_type:")
        (folder / f"{name}.yml").write_text(text[:start] + "environment: local\n" + text[end:])
    cors = {"AML_CORS_ORIGINS": "https://www.example.org", "GREETING": "hello"}
    write_folder(
        folder,
        {
            "forms.yml": endpoint_yaml("forms", traffic={"plain": 100}),
            "plain.yml": script_yaml(
                "plain", "forms", instance_count=2, environment_variables=cors, model={"path": "./weights"}
            ),
            "forms-plain/score.py": script(PLAIN),
            "forms-plain/swagger2.json": '{"swagger": "2.0", "info": {"title": "mine"}}',
            "weights/inner/w.txt": "1",
            "raw.yml": script_yaml("raw", "forms"),
            "forms-raw/score.py": script(RAW) + script(ECHO),
            "legacy.yml": script_yaml("legacy", "forms"),
            "forms-legacy/score.py": script(LEGACY) + script(ECHO),
        },
    )
    with GatewayProcess(folder, place / "state", environment={SECRET: "do not tell"}) as gateway:
        yield gateway


@pytest.mark.parametrize("deployment", ["blue", "green"])
def test_every_held_out_iris_is_answered_as_scikit_learn_answers_it(
    served: GatewayProcess, models: Path, deployment: str
) -> None:
    _, rows, _, _ = split()
    model = joblib.load(models / deployment / "model.joblib")

    found = answered(score(served, "iris", {"data": rows.tolist()}, deployment=deployment))

    assert found["species"] == [str(name) for name in model.predict(rows)]
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(rows), atol=1e-6)


def test_traffic_weights_share_the_requests_out(served: GatewayProcess) -> None:
    body = json.loads((EXAMPLE / "sample-request.json").read_text())
    with served.client("iris") as client:
        replies = [client.post("/endpoints/iris/score", json=body) for _ in range(100)]
    assert {reply.status_code for reply in replies} == {200}
    names = [reply.headers["azureml-model-deployment"] for reply in replies]
    assert (names.count("blue"), names.count("green")) == (90, 10)


def test_globals_persist_in_a_worker_and_differ_between_workers(served: GatewayProcess) -> None:
    seen: dict[int, list[int]] = {}

    def has_met_both() -> bool:
        found = answered(score(served, "forms", {}))
        seen.setdefault(found["pid"], []).append(found["count"])
        return len(seen) == 2 and all(len(counts) > 1 for counts in seen.values())

    eventually(has_met_both, "both workers have answered")
    for counts in seen.values():
        assert counts == list(range(counts[0], counts[0] + len(counts)))


def test_a_plain_run_gets_text_and_headers_without_credentials(served: GatewayProcess) -> None:
    reply = score(served, "forms", {"x": "é"}, headers={"X-Tenant": "seven", "content-type": "text/odd"})
    found = answered(reply)
    assert (found["type"], found["asked"]) == ("str", {"x": "é"})
    headers = {name.lower(): value for name, value in found["headers"].items()}
    assert (headers["x-tenant"], headers["content-type"]) == ("seven", "text/odd")
    assert "authorization" not in headers
    assert headers["x-request-id"] == reply.headers["x-request-id"]
    assert reply.headers["x-ms-run-function-failed"] == "False"
    assert float(reply.headers["x-ms-run-fn-exec-ms"]) >= 0


def test_a_worker_sees_its_own_variables_and_none_of_the_gateways(served: GatewayProcess) -> None:
    found = answered(score(served, "forms", {}))
    variables = found["variables"]
    assert variables["GREETING"] == "hello"
    assert variables["AZUREML_ENTRY_SCRIPT"] == "score.py"
    assert SECRET not in variables
    assert not any(name.startswith("GATEWAY_") for name in variables)
    model_dir = Path(variables["AZUREML_MODEL_DIR"])
    assert (model_dir / "weights" / "inner" / "w.txt").read_text() == "1"
    assert Path(variables["AML_APP_ROOT"]) == Path(found["here"])
    assert variables["HOME"] != os.environ.get("HOME")


def test_none_is_an_empty_object(served: GatewayProcess) -> None:
    assert answered(score(served, "forms", {"do": "nothing"})) == {}


@pytest.mark.parametrize("what", ["raise", "object"])
def test_an_exception_is_a_424_without_traceback_and_the_traceback_is_in_the_logs(
    served: GatewayProcess, what: str
) -> None:
    reply = score(served, "forms", {"do": what})
    assert (reply.status_code, reply.headers["ms-azureml-model-error-statuscode"]) == (424, "500")
    assert reply.headers["x-ms-run-function-failed"] == "True"
    assert "secret" not in reply.text
    assert "Traceback" not in reply.text
    text = {"raise": "the customer's secret column", "object": "not JSON serializable"}[what]
    eventually(lambda: text in logs_of(served, "forms", "plain"), "the traceback is in the logs")
    assert "Traceback" in logs_of(served, "forms", "plain")


def test_what_a_script_prints_is_in_the_logs(served: GatewayProcess) -> None:
    answered(score(served, "forms", {"do": "print"}))
    eventually(
        lambda: "azmlinfsrv.print - printed for the log" in logs_of(served, "forms", "plain"),
        "the print is in the logs",
    )
    assert "init ran" in logs_of(served, "forms", "plain")


def test_a_body_that_is_not_text_is_the_callers_mistake(served: GatewayProcess) -> None:
    reply = score(served, "forms", content=b'{"x": "\xff"}')
    assert (reply.status_code, reply.headers["ms-azureml-model-error-statuscode"]) == (424, "400")
    assert "UTF-8" in reply.json()["message"]


@pytest.mark.parametrize("deployment", ["raw", "legacy"])
def test_a_raw_run_has_the_whole_request_and_the_whole_answer(served: GatewayProcess, deployment: str) -> None:
    body = base64.b64decode(base64.b64encode(bytes(range(256)))) * 400
    reply = score(served, "forms", deployment=deployment, content=body, query="?a=1&b=two")
    assert answered(reply) == {"method": "POST", "path": "/score?a=1&b=two", "size": len(body)}
    assert reply.headers["x-seen"] == "yes"

    refused = score(served, "forms", deployment=deployment, content=b"", query="?status=418")
    assert (refused.status_code, refused.text) == (424, "no coffee here")
    assert refused.headers["ms-azureml-model-error-statuscode"] == "418"
    assert refused.headers["x-pot"] == "tea"


def test_get_reaches_a_script(served: GatewayProcess) -> None:
    found = answered(score(served, "forms", method="GET", query="?a=1&b=two&b=3"))
    assert found["asked"] == {"a": 1, "b": ["two", 3]}
    raw = answered(score(served, "forms", method="GET", query="?a=1", deployment="raw"))
    assert (raw["method"], raw["path"]) == ("GET", "/score?a=1")


def test_a_browser_may_ask_where_the_script_names_its_origin(served: GatewayProcess) -> None:
    with served.client() as client:
        reply = client.options(
            "/endpoints/forms/score",
            headers={"origin": "https://www.example.org", "access-control-request-method": "POST"},
        )
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == "https://www.example.org"


def test_swagger_is_the_users_file_or_made_from_the_script(served: GatewayProcess) -> None:
    with served.client("forms") as client:
        mine, made = (client.get(f"/endpoints/forms/swagger.json?version={one}") for one in ("2", "3"))
    assert mine.json()["info"]["title"] == "mine"
    assert made.json()["openapi"].startswith("3.")
    assert "/score" in "".join(made.json()["paths"])


def test_no_key_no_script(served: GatewayProcess) -> None:
    with served.client() as client:
        assert client.post("/endpoints/forms/score", json={}).status_code == 401


# ---- what a script and its workers may do to others ------------------------------------------------------------


class Steady:
    """Callers that score `steady` without a pause and check that each got the answer to what it asked."""

    def __init__(self, gateway: GatewayProcess, callers: int = 3) -> None:
        self.gateway = gateway
        self.wrong: list[str] = []
        self.versions: set[int] = set()
        self._values = iter(range(1_000_000_000))
        self.hammer = Hammer(lambda: gateway.client("steady"), self._ask, callers)

    def _ask(self, client: httpx.Client) -> httpx.Response:
        value = next(self._values)
        reply = client.post("/endpoints/steady/score", json={"value": value})
        if reply.status_code == 200:
            found = reply.json()
            self.versions.add(found["version"])
            if found["double"] != 2 * value:
                self.wrong.append(f"{value}: {found}")
        return reply

    def failures(self) -> int:
        assert self.hammer.broken == []
        assert self.wrong == []
        return sum(count for (status, _), count in self.hammer.since().items() if status != 200)


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    place = tmp_path_factory.mktemp("steady")
    folder = write_folder(
        place / "models",
        {
            "endpoint.yml": endpoint_yaml("steady", traffic={"blue": 100}),
            "blue.yml": script_yaml(
                "blue",
                "steady",
                instance_count=3,
                request_settings={"max_concurrent_requests_per_instance": 20, "request_timeout_ms": 2000},
            ),
            "steady-blue/score.py": script(STEADY, VERSION=1),
        },
    )
    with GatewayProcess(folder, place / "state") as gateway:
        yield gateway


def pids_of(gateway: GatewayProcess, workers: int = 3) -> set[int]:
    seen: set[int] = set()

    def has_met_all() -> bool:
        reply = score(gateway, "steady", {"value": 1})
        if reply.status_code == 200:
            seen.add(reply.json()["pid"])
        seen.difference_update([pid for pid in seen if not is_alive(pid)])
        return len(seen) == workers

    eventually(has_met_all, f"{workers} workers have answered")
    return seen


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV])
def test_a_worker_that_ends_or_stops_costs_one_request_at_most(changing: GatewayProcess, how: signal.Signals) -> None:
    victim, *_ = pids_of(changing)
    steady = Steady(changing)
    with steady.hammer:
        os.kill(victim, how)
        eventually(lambda: not is_alive(victim), "it is ended")
        steady.hammer.go_on()
    assert steady.failures() <= 1
    assert victim not in pids_of(changing)


@pytest.mark.parametrize("what", ["exit", "crash"])
def test_a_request_that_ends_its_worker_fails_alone(changing: GatewayProcess, what: str) -> None:
    steady = Steady(changing)
    with steady.hammer:
        reply = score(changing, "steady", {"do": what})
        assert (reply.status_code, reply.headers["azureml-model-deployment"]) == (424, "blue")
        steady.hammer.go_on()
    assert steady.failures() == 0
    assert len(pids_of(changing)) == 3


def test_a_run_beyond_the_deadline_is_a_408_and_its_worker_is_replaced(changing: GatewayProcess) -> None:
    before = pids_of(changing)
    steady = Steady(changing)
    with steady.hammer:
        assert score(changing, "steady", {"do": "hang"}).status_code == 408
        eventually(lambda: not all(map(is_alive, before)), "the hung worker is ended", 4.0)
        steady.hammer.go_on()
    assert steady.failures() == 0
    assert len(before & pids_of(changing)) == 2


def test_a_scorer_that_dies_costs_the_workers_nothing(changing: GatewayProcess) -> None:
    before = pids_of(changing)
    replace_scorers(changing)
    assert pids_of(changing) == before


# ---- changes ---------------------------------------------------------------------------------------------------


def test_a_changed_script_is_taken_up_without_a_failed_request(changing: GatewayProcess) -> None:
    assert changing.folder is not None
    before = pids_of(changing)
    steady = Steady(changing)
    with steady.hammer:
        for version in (2, 3, 1):
            write_folder(changing.folder, {"steady-blue/score.py": script(STEADY, VERSION=version)})
            changing.reload()
            steady.versions.clear()
            steady.hammer.go_on()
            assert version in steady.versions
    assert steady.failures() == 0
    assert steady.versions == {1}
    eventually(lambda: not any(map(is_alive, before)), "the first workers are ended")


def test_the_same_script_again_starts_nothing(changing: GatewayProcess) -> None:
    before = pids_of(changing)
    changing.reload()
    assert pids_of(changing) == before


def _refuse(change: Callable[[str], str], *said: str) -> Any:
    return pytest.param(change, said, id=said[0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        _refuse(lambda text: text + "def broken(:\n", "score.py", "line"),
        _refuse(lambda text: text.replace("def init", "def begin"), "no function init()", "score.py"),
        _refuse(lambda text: text.replace("def run", "def walk"), "no function run()", "score.py"),
        _refuse(lambda text: "import no_such_package\n" + text, "no_such_package", "cannot be imported"),
        _refuse(lambda text: text.replace("pass", "raise OSError('no weights')"), "no weights", "init()"),
        _refuse(lambda text: text.replace("run(raw)", "run(*raw)"), "*args", "score.py"),
        _refuse(lambda text: text.replace("pass", "os._exit(9)"), "exit status 9", "init()"),
    ],
)
def test_a_script_that_cannot_start_is_refused_with_its_reason_and_the_old_goes_on(
    changing: GatewayProcess, change: Callable[[str], str], said: tuple[str, ...]
) -> None:
    assert changing.folder is not None
    before = pids_of(changing)
    good = script(STEADY, VERSION=1)
    write_folder(changing.folder, {"steady-blue/score.py": change(good)})
    try:
        refused = changing.manage("POST", "/reload")
        assert refused.status_code >= 400
        for text in said:
            assert text in refused.text
        assert "Traceback" not in refused.text
        assert answered(score(changing, "steady", {"value": 21}))["double"] == 42
    finally:
        write_folder(changing.folder, {"steady-blue/score.py": good})
        changing.reload()
    assert pids_of(changing) == before


def test_a_start_brings_everything_back_and_a_delete_ends_the_workers(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "models",
        {
            "endpoint.yml": endpoint_yaml("steady", traffic={"blue": 100, "green": 0}),
            "blue.yml": script_yaml("blue", "steady"),
            # Workers are kept until the last request that they may have taken is over.
            "green.yml": script_yaml("green", "steady", request_settings={"request_timeout_ms": 1000}),
            "steady-blue/score.py": script(STEADY, VERSION=1),
            "steady-green/score.py": script(STEADY, VERSION=2),
        },
    )
    state = tmp_path / "state"
    with GatewayProcess(folder, state) as gateway:
        first = answered(score(gateway, "steady", {"value": 1}))
    assert not is_alive(first["pid"])
    shutil.rmtree(folder)
    with GatewayProcess(None, state) as gateway:
        again = [answered(score(gateway, "steady", {"value": 1}, deployment=name)) for name in ("blue", "green")]
        assert [one["version"] for one in again] == [1, 2]
        path = (
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
            "/onlineEndpoints/steady/deployments/green"
        )
        assert gateway.manage("DELETE", path).status_code in (200, 202, 204)
        eventually(lambda: not is_alive(again[1]["pid"]), "the worker of green is ended")
        assert answered(score(gateway, "steady", {"value": 2}))["pid"] == again[0]["pid"]
    assert not is_alive(again[0]["pid"])
