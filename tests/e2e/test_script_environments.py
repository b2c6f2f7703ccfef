"""Environments of scripts, really built: two versions of numpy side by side, and one that cannot be had.

The slow file of the scripts' tests: pip is run three times. It needs a package index that has the wheels; where they
cannot be had, the tests are skipped and say so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.bwrap import has_bwrap
from tests.support.process import GatewayProcess, endpoint_yaml, write_folder

VERSIONS = {"blue": "1.26.4", "green": "2.2.6"}
SCRIPT = """import json
import sys

import numpy


def init():
    pass


def run(raw):
    rows = numpy.array(json.loads(raw)["data"])
    return {"numpy": numpy.__version__, "sum": float(rows.sum()), "python": sys.prefix}
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whether packages can be had at all; what is asked for first is kept by pip for the builds."""
    place = tmp_path_factory.mktemp("wheels")
    options = ("--quiet", "--no-deps", "--only-binary", ":all:", "--retries", "1", "--dest", str(place))
    for version in VERSIONS.values():
        wanted = [sys.executable, "-m", "pip", "download", *options, f"numpy=={version}"]
        found = subprocess.run(wanted, capture_output=True, text=True, check=False)
        if found.returncode:
            pytest.skip(f"numpy {version} cannot be had: {found.stderr.strip().splitlines()[-1:]}")


def deployment(name: str, numpy: str) -> str:
    conda = {"name": name, "channels": ["conda-forge"], "dependencies": ["pip", {"pip": [f"numpy=={numpy}"]}]}
    fields: dict[str, Any] = {
        "name": name,
        "endpoint_name": "rows",
        "instance_type": "cpu",
        "code_configuration": {"code": "./code", "scoring_script": "score.py"},
        "environment": {"image": "mcr.microsoft.com/azureml/minimal", "conda_file": conda},
    }
    return json.dumps(fields)


@pytest.fixture(scope="module")
def gateway(index: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Without a deployment at first: building takes longer than a start may."""
    place = tmp_path_factory.mktemp("environments")
    folder = write_folder(place / "models", {"endpoint.yml": endpoint_yaml("rows"), "code/score.py": SCRIPT})
    # What is built is also found inside the sandbox, where the machine makes one.
    settings = {"GATEWAY_SCRIPT_SANDBOX": "bwrap"} if has_bwrap() else {}
    with GatewayProcess(folder, place / "state", environment=settings) as process:
        yield process


def score(gateway: GatewayProcess, deployment: str) -> Any:
    with gateway.client("rows") as client:
        headers = {"azureml-model-deployment": deployment}
        reply = client.post("/endpoints/rows/score", json={"data": [[1, 2], [3, 4]]}, headers=headers)
    assert reply.status_code == 200, reply.text
    return reply.json()


def apply(gateway: GatewayProcess) -> subprocess.CompletedProcess[str]:
    return gateway.run("apply", "-f", str(gateway.folder), timeout_s=300)


def test_two_versions_of_a_package_serve_side_by_side(gateway: GatewayProcess) -> None:
    assert gateway.folder is not None
    write_folder(gateway.folder, {f"{name}.yml": deployment(name, numpy) for name, numpy in VERSIONS.items()})
    done = apply(gateway)
    assert done.returncode == 0, done.stderr

    answers = {name: score(gateway, name) for name in VERSIONS}

    assert {name: one["numpy"] for name, one in answers.items()} == VERSIONS
    assert {one["sum"] for one in answers.values()} == {10.0}
    assert len({one["python"] for one in answers.values()} | {sys.prefix}) == 3


def test_what_cannot_be_installed_fails_with_what_pip_said_and_the_old_goes_on(gateway: GatewayProcess) -> None:
    assert gateway.folder is not None
    write_folder(gateway.folder, {"blue.yml": deployment("blue", "0.0.0.0.1")})
    done = apply(gateway)
    assert done.returncode != 0
    assert "numpy==0.0.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr
    assert score(gateway, "blue")["numpy"] == VERSIONS["blue"]
