"""A real disk that fills up: changes are refused in Azure's shape, scores go on, and nothing is half-made.

The disk is a file system in memory of its own, which takes root to mount; who may not is told so.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.control.management import deployment_body, deployment_path, endpoint_body, endpoint_path
from tests.support.managed import Manager
from tests.support.models import double, identity
from tests.support.process import GatewayProcess, deployment_yaml, endpoint_yaml, write_folder

DISK_BYTES = 400 * 1024 * 1024
BODY = {"input_data": [[1.0, 2.0, 3.0, 4.0]]}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)]
    mounted = subprocess.run(mounting, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_refuses_changes_keeps_scoring_and_is_forgotten_once_there_is_room(
    disk: Path, tmp_path: Path
) -> None:
    files: dict[str, str | bytes] = {
        "endpoint.yml": endpoint_yaml(traffic={"blue": 100}),
        "blue.yml": deployment_yaml("blue", "same.onnx"),
        "same.onnx": identity(shape=("N", 4)),
    }
    folder = write_folder(tmp_path / "folder", files)
    with GatewayProcess(folder, disk / "state", scorers=1) as gateway, Manager(gateway) as manager:
        model = manager.register("doubles", "1", double())
        before = manager.need("GET", endpoint_path("digits"))
        filler = disk / "filler"
        _fill(filler)
        with gateway.client("digits") as client:
            refused = [
                manager.ask("PUT", endpoint_path("late"), endpoint_body({}, {"n": "1" * 100_000})),
                manager.ask("PUT", deployment_path("digits", "green"), deployment_body(model, {"n": "1" * 100_000})),
                manager.ask("POST", f"{endpoint_path('digits')}/regenerateKeys", {"keyType": "Secondary"}),
                _upload(gateway, manager, b"x" * (1 << 20)),
            ]
            told = [_told(answer) for answer in refused]
            assert all(text.endswith("there is no room left on its disk") for text in told[:3]), told
            assert "the disk of the state folder is full; nothing was kept" in told[3]
            assert client.post("/endpoints/digits/score", json=BODY).json() == BODY["input_data"]
        assert manager.need("GET", endpoint_path("digits"))["properties"] == before["properties"]
        assert (manager.endpoints(), manager.deployments("digits")) == ({"digits"}, {"blue"})
        filler.unlink()
        manager.deployment("digits", "green", model)
    with GatewayProcess(None, disk / "state", scorers=1) as again, Manager(again) as manager:
        assert manager.deployments("digits") == {"blue", "green"}
        with again.client("digits") as client:
            assert client.post("/endpoints/digits/score", json=BODY).json() == BODY["input_data"]


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


def _upload(gateway: GatewayProcess, manager: Manager, content: bytes) -> httpx.Response:
    token = (gateway.state / "management.token").read_text().strip()
    headers = {"authorization": f"Bearer {token}", "x-ms-blob-type": "BlockBlob"}
    with gateway.client(base_url=gateway.urls["management"], headers=headers) as client:
        return client.put("/blob/azureml/LocalUpload/late/model.onnx", content=content)


def _told(answer: httpx.Response) -> str:
    """What a refusal says."""
    assert answer.status_code in (503, 507), f"{answer.status_code} {answer.text}"
    if answer.headers["content-type"].startswith("application/xml"):
        return answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["code"]
    return str(error["message"])
