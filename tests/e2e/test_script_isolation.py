"""Scripts in the sandbox, and what is told of one that cannot start: its operation, its log, and its log as it grows.

One gateway for all of it. Where the machine makes no sandbox, the tests of it are skipped and say so; the rest runs.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bwrap import has_bwrap, need_bwrap
from tests.support.process import GatewayProcess, endpoint_yaml, write_folder
from tests.support.waiting import eventually

WS = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
SCRIPT = """
import glob, json, os, resource, socket, time

def init():
    if os.environ.get("FAIL") == "init":
        print("about to load the weights")
        time.sleep(0.5)
        raise OSError("no weights in the model")

def tried(text):
    try:
        return eval(text)
    except Exception as error:
        return type(error).__name__

def run(raw):
    if raw == '"huge"':
        return "x" * 500_000_000
    asked = json.loads(raw)
    return asked if isinstance(asked, str) else [tried(one) for one in asked]
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    place = tmp_path_factory.mktemp("isolation")
    deployment: dict[str, Any] = {
        "name": "blue",
        "endpoint_name": "iso",
        "instance_type": "cpu",
        "environment": "local",
        "model": {"path": "./weights"},
        "code_configuration": {"code": "./code", "scoring_script": "score.py"},
        "request_settings": {"max_concurrent_requests_per_instance": 20, "request_timeout_ms": 20_000},
    }
    files: dict[str, str | bytes] = {
        "endpoint.yml": endpoint_yaml("iso", traffic={"blue": 100}),
        "blue.yml": json.dumps(deployment),
        "code/score.py": SCRIPT,
        "weights/w.txt": "my weights",
    }
    folder = write_folder(place / "models", files)
    settings = {
        "GATEWAY_SCRIPT_SANDBOX": "bwrap" if has_bwrap() else "none",
        "GATEWAY_SCRIPT_CPU_SECONDS": "900",
        "GATEWAY_SCRIPT_FILES_MAX": "333",
        "GATEWAY_SCRIPT_PROCESSES_MAX": "200",
        "GATEWAY_SCRIPT_MEMORY_BYTES": str(4 << 30),
    }
    with GatewayProcess(folder, place / "state", environment=settings) as process:
        yield process


def score(gateway: GatewayProcess, body: Any) -> httpx.Response:
    with gateway.client("iso") as client:
        return client.post("/endpoints/iso/score", json=body)


def tried(gateway: GatewayProcess, *asked: str) -> list[Any]:
    reply = score(gateway, asked)
    assert reply.status_code == 200, reply.text
    found: list[Any] = reply.json()
    return found


def manager(gateway: GatewayProcess) -> httpx.Client:
    token = (gateway.state / "management.token").read_text().strip()
    return gateway.client(base_url=gateway.urls["management"], headers={"authorization": f"Bearer {token}"})


# ---- the sandbox


def test_a_script_reads_its_own_and_no_secret_of_the_gateway(gateway: GatewayProcess) -> None:
    need_bwrap()
    state, folder = str(gateway.state), str(gateway.folder)
    assert (gateway.state / "master.key").exists()
    weights, key, token, database, applied, files, there = tried(
        gateway,
        "open(os.path.join(os.environ['AZUREML_MODEL_DIR'], 'weights', 'w.txt')).read()",
        *(f"open({state + '/' + name!r}).read()" for name in ("master.key", "management.token", "gateway.db")),
        f"os.listdir({folder!r})",
        f"[one for one in glob.glob({state!r} + '/**', recursive=True) if os.path.isfile(one)]",
        f"sorted(os.listdir({state!r}))",
    )
    assert weights == "my weights"
    assert key == token == database == "FileNotFoundError"
    assert applied == []
    assert there == ["scripts", "workers"]
    names = {Path(one).name for one in files}
    assert {"score.py", "w.txt"} <= names
    assert not any(name.endswith((".log", ".key", ".token", ".pem", ".db", ".sock")) for name in names)


def test_a_script_has_no_network_and_cannot_change_the_machine(gateway: GatewayProcess) -> None:
    need_bwrap()
    port = int(gateway.urls["scoring"].rpartition(":")[2])
    inner, outer, root, code, own = tried(
        gateway,
        f"socket.create_connection(('127.0.0.1', {port}), 2)",
        "socket.create_connection(('192.0.2.1', 443), 2)",
        "open('/x', 'w')",
        "open('score.py', 'a')",
        "open(os.path.join(os.environ['TMPDIR'], 'x'), 'w').write('1')",
    )
    assert (inner, outer, root, code, own) == ("ConnectionRefusedError", "OSError", "OSError", "OSError", 1)


def test_each_limit_that_is_set_holds_in_the_worker(gateway: GatewayProcess) -> None:
    cpu, files, memory, processes, core = tried(
        gateway,
        *(f"resource.getrlimit(resource.RLIMIT_{name})[0]" for name in ("CPU", "NOFILE", "DATA", "NPROC", "CORE")),
    )
    assert (cpu, files, memory, core) == (900, 333, 4 << 30, 0)
    assert processes >= 200


def test_large_bodies_go_in_and_out(gateway: GatewayProcess) -> None:
    body = "a" * 5_000_000
    assert score(gateway, body).json() == body


def test_a_result_of_500_megabytes_is_a_424_and_the_next_request_is_answered(gateway: GatewayProcess) -> None:
    reply = score(gateway, "huge")
    assert reply.status_code == 424, reply.text
    assert "500000002 bytes" in reply.json()["message"]
    assert "Traceback" not in reply.text
    assert score(gateway, "small").json() == "small"


# ---- a start that fails, seen by whoever deploys


def put(client: httpx.Client, name: str, **changes: Any) -> str:
    """The deployment blue under another name; the URL of the operation."""
    body = client.get(f"{WS}/onlineEndpoints/iso/deployments/blue").json()
    properties = {**body["properties"], **changes}
    reply = client.put(
        f"{WS}/onlineEndpoints/iso/deployments/{name}",
        json={"location": "local", "sku": body["sku"], "properties": properties},
    )
    assert reply.status_code == 201, reply.text
    return str(reply.headers["azure-asyncoperation"])


def outcome(client: httpx.Client, url: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def has_ended() -> bool:
        found.update(client.get(url).json())
        return bool(found["status"] != "InProgress")

    eventually(has_ended, "the operation has ended", 30.0)
    return found


def test_a_script_that_fails_is_told_by_its_operation_its_log_and_whoever_follows(gateway: GatewayProcess) -> None:
    seen: list[str] = []

    def follow(client: httpx.Client) -> None:
        with client.stream("GET", f"{WS}/onlineEndpoints/iso/deployments/bad/logs?follow=true") as reply:
            seen.extend(reply.iter_lines())

    with manager(gateway) as client:
        url = put(client, "bad", environmentVariables={"FAIL": "init"})
        following = threading.Thread(target=follow, args=(client,))
        following.start()
        ended = outcome(client, url)
        assert ended["status"] == "Failed"
        assert ended["error"]["code"] == "UserScriptInitFailed"
        message = ended["error"]["message"]
        assert "no weights in the model" in message
        assert message.endswith("its log ends with: about to load the weights")
        assert "Traceback" not in message
        state = client.get(f"{WS}/onlineEndpoints/iso/deployments/bad").json()["properties"]["provisioningState"]
        assert state == "Failed"
        logs = client.post(f"{WS}/onlineEndpoints/iso/deployments/bad/getLogs", json={}).json()["content"]
        assert "Traceback" in logs
        eventually(lambda: any("failed: " in line for line in seen), "the follower is told")
        assert client.delete(f"{WS}/onlineEndpoints/iso/deployments/bad").status_code in (200, 202)
        following.join(20)
        assert not following.is_alive()
    text = "\n".join(seen)
    begun, worker, failed = (text.index(one) for one in ("data: [gateway]", "about to load the weights", "failed: "))
    assert begun < failed
    assert worker < failed
    assert "event: end\ndata: deployment bad is gone" in text


@pytest.mark.parametrize(
    ("conda", "says"),
    [
        ("dependencies: [\n", "the conda file cannot be read"),
        ("dependencies: {pip: numpy}", "dependencies are no list"),
    ],
    ids=["no YAML", "no list"],
)
def test_an_environment_that_cannot_be_is_a_failed_deployment_with_its_cause(
    gateway: GatewayProcess, conda: str, says: str
) -> None:
    name = f"env-{len(conda)}"
    with manager(gateway) as client:
        environment = f"{WS}/environments/{name}/versions/1"
        image = "mcr.microsoft.com/azureml/minimal"
        made = client.put(environment, json={"properties": {"condaFile": conda, "image": image}})
        assert made.status_code == 201, made.text
        ended = outcome(client, put(client, "no-env", environmentId=environment))
        assert (ended["status"], ended["error"]["code"]) == ("Failed", "BadArgument")
        assert says in ended["error"]["message"]
        assert "Traceback" not in ended["error"]["message"]
        client.delete(f"{WS}/onlineEndpoints/iso/deployments/no-env")
        assert score(gateway, "served on").json() == "served on"


# ---- the log


def test_the_command_prints_the_log_and_follows_it(gateway: GatewayProcess) -> None:
    done = gateway.run("logs", "iso", "blue", "--tail", "3")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert "POST /score 200" in done.stdout
    missing = gateway.run("logs", "iso", "nobody")
    assert missing.returncode == 3
    assert "nobody" in missing.stderr

    command = [sys.executable, "-m", "gateway", "logs", "iso", "blue", "--follow", "--tail", "0"]
    following = subprocess.Popen([*command, "--state", str(gateway.state)], stdout=subprocess.PIPE, text=True)
    try:
        assert following.stdout is not None
        line = ""
        while "POST /score" not in line:
            # The command takes a moment to follow; nobody says when.
            assert score(gateway, "for the log").status_code == 200
            line = following.stdout.readline() if _has_line(following) else ""
    finally:
        following.kill()
        following.communicate()
    assert line.startswith("[worker 0] ")


def _has_line(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return bool(select.select([process.stdout], [], [], 0.3)[0])
