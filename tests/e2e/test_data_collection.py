"""Data collection of a real gateway: a native model, and a script whose own environment has azureml-ai-monitoring.

One environment is built, which takes longest here; the deployment by the Azure SDK uses it again. Where its packages
cannot be had, the tests of scripts are skipped and say so.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import models
from tests.support.azure import deployment, endpoint, sdk, trusting
from tests.support.process import GatewayProcess, endpoint_yaml, replace_scorers, write_folder
from tests.support.waiting import eventually

# The SDK and what it needs warn about each other; the gateway is another process.
pytestmark = pytest.mark.filterwarnings("ignore")

HOME = "modelDataCollector"
PATHS = "azureml://datastores/workspaceblobstore/paths"
PACKAGES = ["azureml-ai-monitoring==1.0.0", "pandas>=2.2"]
IMAGE = "mcr.microsoft.com/azureml/minimal-ubuntu22.04-py310-cpu-inference:latest"
CONDA = {"name": "collecting", "channels": ["conda-forge"], "dependencies": ["pip", {"pip": PACKAGES}]}
PAYLOADS = {"request": {"enabled": "True"}, "response": {"enabled": True}}
CUSTOM = {"model_inputs": {"enabled": "True"}, "model_outputs": {"enabled": "True"}}
SCRIPT = """
import json

import pandas as pd
from azureml.ai.monitoring import Collector
from azureml.ai.monitoring.context import BasicCorrelationContext
from azureml.contrib.services.aml_request import rawhttp  # the shim lives beside the package


def init():
    global inputs, outputs
    inputs, outputs = Collector(name="model_inputs"), Collector(name="model_outputs")


def run(raw, request_headers):
    rows = pd.DataFrame(json.loads(raw)["rows"])
    mine = BasicCorrelationContext(id=request_headers["X-Request-Id"], headers={"tenant": "north"})
    context = inputs.collect(rows, mine)
    result = rows.sum(axis=1).to_frame("sum")
    outputs.collect(result, context)
    return result["sum"].tolist()
"""


def native(name: str, **collector: Any) -> str:
    fields = {"name": name, "endpoint_name": "native", "instance_type": "cpu", "model": {"path": "./linear.onnx"}}
    return json.dumps({**fields, **({"data_collector": collector} if collector else {})})


def scripted() -> str:
    fields = {
        "name": "blue",
        "endpoint_name": "frames",
        "instance_type": "cpu",
        "code_configuration": {"code": "./code", "scoring_script": "score.py"},
        "environment": {"image": IMAGE, "conda_file": CONDA},
        "request_settings": {"max_concurrent_requests_per_instance": 20},
        "data_collector": {"collections": {**CUSTOM, **PAYLOADS}, "rolling_rate": "day"},
    }
    return json.dumps(fields)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    place = tmp_path_factory.mktemp("collecting")
    folder = place / "models"
    folder.mkdir()
    models.write(folder, models.linear(), "linear.onnx")
    write_folder(
        folder,
        {
            "native.yml": endpoint_yaml("native", traffic={"blue": 100}),
            "blue.yml": native(
                "blue", collections=PAYLOADS, request_logging={"capture_headers": ["X-Tenant", "user-agent"]}
            ),
            "half.yml": native("half", sampling_rate=0.5, collections=PAYLOADS),
            "none.yml": native("none"),
            "elsewhere.yml": native(
                "elsewhere",
                rolling_rate="minute",
                collections={"response": {"enabled": "True", "data": {"path": f"{PATHS}/audit/answers"}}},
            ),
        },
    )
    with GatewayProcess(folder, place / "state") as process:
        yield process


@pytest.fixture(scope="module")
def frames(gateway: GatewayProcess, tmp_path_factory: pytest.TempPathFactory) -> GatewayProcess:
    """With the script, whose environment is built when it is applied."""
    place = tmp_path_factory.mktemp("wheel")
    wanted = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1", "--dest", str(place)]
    found = subprocess.run([*wanted, PACKAGES[0]], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"{PACKAGES[0]} cannot be had: {found.stderr.strip().splitlines()[-1:]}")
    assert gateway.folder is not None
    more = {"frames.yml": endpoint_yaml("frames", traffic={"blue": 100}), "frames-blue.yml": scripted()}
    write_folder(gateway.folder, {**more, "code/score.py": SCRIPT})
    done = gateway.run("apply", "-f", str(gateway.folder), timeout_s=300)
    assert done.returncode == 0, done.stderr
    return gateway


def score(gateway: GatewayProcess, name: str, body: Any, deployment: str = "", **headers: str) -> httpx.Response:
    chosen = {"azureml-model-deployment": deployment} if deployment else {}
    with gateway.client(name) as client:
        reply = client.post(f"/endpoints/{name}/score", json=body, headers={**chosen, **headers})
    assert reply.status_code == 200, reply.text
    return reply


def lines_of(gateway: GatewayProcess, folder: str) -> list[dict[str, Any]]:
    """All records below a folder of the datastore, in no order."""
    texts = [path.read_text() for path in sorted((gateway.state / "collected" / folder).rglob("*.jsonl"))]
    return [json.loads(line) for text in texts for line in text.splitlines()]


def collected(gateway: GatewayProcess, folder: str, ids: set[str]) -> dict[str, dict[str, Any]]:
    """The records of these requests, once all are there."""

    def found() -> dict[str, dict[str, Any]]:
        return {one["xrequestid"]: one for one in lines_of(gateway, folder) if one["xrequestid"] in ids}

    eventually(lambda: found().keys() == ids, f"{len(ids)} records are in {folder}")
    return found()


def blob(gateway: GatewayProcess, path: str) -> httpx.Response:
    return gateway.manage("GET", f"/blob/a/azureml/{path}")


# ---- a native model --------------------------------------------------------------------------------------------


def test_every_request_and_answer_of_a_native_model_is_a_line_of_its_own(gateway: GatewayProcess) -> None:
    rows = {str(uuid.uuid4()): [[number, 2.0, 3.0, 4.0]] for number in range(40)}
    with gateway.client("native") as client, ThreadPoolExecutor(8) as pool:

        def ask(item: tuple[str, Any]) -> tuple[str, Any]:
            headers = {"x-request-id": item[0], "x-tenant": "north", "x-secret": "not asked for"}
            reply = client.post("/endpoints/native/score", json={"input_data": item[1]}, headers=headers)
            assert reply.status_code == 200
            return item[0], reply.json()

        answers = dict(pool.map(ask, rows.items()))

    requests = collected(gateway, f"{HOME}/native/blue/request", set(rows))
    responses = collected(gateway, f"{HOME}/native/blue/response", set(rows))
    assert {identity: one["data"] for identity, one in responses.items()} == answers
    assert {identity: one["data"]["input_data"] for identity, one in requests.items()} == rows
    one = next(iter(requests.values()))
    assert one["headers"] == {"x-tenant": "north", "user-agent": one["headers"]["user-agent"]}
    assert (one["path"], one["method"], one["specversion"]) == ("/score", "POST", "1.0")
    assert one["source"].endswith("/onlineEndpoints/native/deployments/blue")
    every = lines_of(gateway, f"{HOME}/native/blue")
    assert len({record["id"] for record in every}) == len(every)
    assert gateway.keys("native")["primaryKey"] not in json.dumps(every)


def test_half_of_the_requests_are_pairs_and_nothing_is_kept_where_nothing_is_asked_for(
    gateway: GatewayProcess,
) -> None:
    for name in ("half", "none"):
        for _ in range(100):
            score(gateway, "native", {"input_data": [[1.0, 2.0, 3.0, 4.0]]}, name)

    def counted() -> list[float]:
        names = {"endpoint": "native", "deployment": "half"}
        return [
            gateway.metrics().value("gateway_data_collection_events_total", **names, type=type_)
            for type_ in ("request", "response")
        ]

    eventually(lambda: counted()[0] == counted()[1] > 0, "the records are counted")
    requests, responses = (lines_of(gateway, f"{HOME}/native/half/{one}") for one in ("request", "response"))
    assert {one["xrequestid"] for one in requests} == {one["xrequestid"] for one in responses}
    # Of 100 tosses, further off is rarer than one in a billion.
    assert 20 < len(requests) < 80
    assert [len(requests), len(responses)] == counted()
    assert not (gateway.state / "collected" / HOME / "native" / "none").exists()


def test_a_path_of_the_datastore_is_honoured_and_what_lies_there_is_a_blob(gateway: GatewayProcess) -> None:
    identity = str(uuid.uuid4())
    score(gateway, "native", {"input_data": [[1.0, 2.0, 3.0, 4.0]]}, "elsewhere", **{"x-request-id": identity})
    collected(gateway, "audit/answers", {identity})

    listed = gateway.manage("GET", "/blob/a/azureml?restype=container&comp=list&prefix=audit/").text

    (path,) = [part.partition("</Name>")[0] for part in listed.split("<Name>")[1:]]
    # A folder for each minute: year, month, day, hour, minute.
    assert len(path.removeprefix("audit/answers/").split("/")) == 6
    read = blob(gateway, path)
    assert read.status_code == 200
    assert json.loads(read.text)["xrequestid"] == identity
    part = gateway.manage("GET", f"/blob/a/azureml/{path}?comp=")
    assert part.content == read.content
    assert gateway.manage("DELETE", f"/blob/a/azureml/{path}").status_code == 202
    assert blob(gateway, path).status_code == 404


def test_no_request_fails_while_nothing_can_be_written_and_all_is_counted(gateway: GatewayProcess) -> None:
    names = {"endpoint": "native", "deployment": "blue", "type": "response"}

    def counts() -> tuple[float, float]:
        page = gateway.metrics()
        dropped = page.value("gateway_data_collection_errors_total", **names, reason="disk_error")
        return page.value("gateway_data_collection_events_total", **names), dropped

    stored, dropped = counts()
    place, aside = gateway.state / "collected", gateway.state / "collected.aside"
    place.rename(aside)
    # Where the folder should be is a file: whoever the gateway runs as, it cannot write below.
    place.write_text("")
    try:
        for _ in range(30):
            score(gateway, "native", {"input_data": [[1.0, 2.0, 3.0, 4.0]]}, "blue")
        eventually(lambda: counts() == (stored, dropped + 30), "all 30 are dropped and counted")
    finally:
        place.unlink()
        aside.rename(place)
    score(gateway, "native", {"input_data": [[1.0, 2.0, 3.0, 4.0]]}, "blue")
    eventually(lambda: counts() == (stored + 1, dropped + 30), "it is collected again")
    assert "collected data cannot be written and is dropped" in gateway.log()


def test_scorers_that_are_killed_leave_whole_lines_and_the_next_go_on(gateway: GatewayProcess) -> None:
    row = {"input_data": [[1.0, 2.0, 3.0, 4.0]]}
    folder, identity = f"{HOME}/native/blue/request", str(uuid.uuid4())
    score(gateway, "native", row, "blue", **{"x-request-id": identity})
    collected(gateway, folder, {identity})
    before = {one["id"] for one in lines_of(gateway, folder)}
    for file in (gateway.state / "collected" / folder).rglob("*.jsonl"):
        with file.open("ab") as torn:
            # What a process leaves that is ended within a write.
            torn.write(b'{"specversion":"1.0","id":"cut off')
    replace_scorers(gateway)

    def is_whole() -> bool:
        # Whichever scorer takes it writes to its own file.
        score(gateway, "native", row, "blue")
        files = list((gateway.state / "collected" / folder).rglob("*.jsonl"))
        return all(b"cut off" not in file.read_bytes() for file in files)

    eventually(is_whole, "every scorer has cut off what was torn")
    assert {one["id"] for one in lines_of(gateway, folder)} > before


# ---- scripts ---------------------------------------------------------------------------------------------------


def test_what_a_script_collects_lies_beside_what_it_was_asked(frames: GatewayProcess) -> None:
    asked = {str(uuid.uuid4()): [{"a": number, "b": 1}, {"a": 2, "b": 3}] for number in range(10)}
    for identity, rows in asked.items():
        score(frames, "frames", {"rows": rows}, **{"x-request-id": identity})

    found = {name: collected(frames, f"{HOME}/frames/blue/{name}", set(asked)) for name in (*CUSTOM, *PAYLOADS)}

    assert {identity: one["data"] for identity, one in found["model_inputs"].items()} == asked
    one = next(iter(found["model_outputs"].values()))
    assert one["type"] == "azureml.inference.model_outputs"
    assert one["collectdatatype"].endswith("DataFrame")
    assert one["agent"].startswith("azureml-ai-monitoring/")
    assert (one["modelversion"], one["tenant"], one["correlationid"]) == ("default", "north", one["xrequestid"])
    sums = {identity: [row["sum"] for row in one["data"]] for identity, one in found["model_outputs"].items()}
    assert sums == {identity: one["data"] for identity, one in found["response"].items()}
    assert frames.metrics().value(
        "gateway_data_collection_events_total", endpoint="frames", deployment="blue", type="model_inputs"
    ) >= len(asked)


def test_the_azure_sdk_registers_the_data_and_deploys_what_collects_it(
    frames: GatewayProcess, tmp_path: Path
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text(SCRIPT)
    with trusting(frames):
        client = sdk(frames)
        endpoint(client, "by-sdk")
        collections = {name: client.e.DeploymentCollection(enabled="true") for name in (*CUSTOM, "request")}
        entity = deployment(
            *(client, "by-sdk", "blue", "azureml:none:1"),
            code_configuration=client.e.CodeConfiguration(code=str(tmp_path / "code"), scoring_script="score.py"),
            environment=client.e.Environment(image=IMAGE, conda_file=CONDA),
            data_collector=client.e.DataCollector(collections=collections, sampling_rate=1.0, rolling_rate="hour"),
        )
        entity.model = None
        client.ml.online_deployments.begin_create_or_update(entity).result()
        data = client.ml.data.get("by-sdk-blue-model_inputs", "1")
        told = client.ml.online_deployments.get("blue", "by-sdk").data_collector
        identity = str(uuid.uuid4())
        score(frames, "by-sdk", {"rows": [{"a": 1}]}, "blue", **{"x-request-id": identity})
        collected(frames, f"{HOME}/by-sdk/blue/model_inputs", {identity})
        from azure.ai.ml._artifacts._artifact_utilities import download_artifact_from_aml_uri

        download_artifact_from_aml_uri(data.path, str(tmp_path / "down"), client.ml.datastores)

    assert data.path.endswith(f"/{HOME}/by-sdk/blue/model_inputs")
    assert sorted(told.collections) == sorted(collections)
    assert told.collections["request"].data.endswith("/data/by-sdk-blue-request/versions/1")
    (file,) = (tmp_path / "down").rglob("*.jsonl")
    assert json.loads(file.read_text())["xrequestid"] == identity
