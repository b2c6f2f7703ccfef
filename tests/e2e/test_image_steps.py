"""The install steps of both Dockerfiles, run as they stand on this machine, without Docker and without a network.

What is changed: the paths of the image become folders of the test, pip is this environment's, and dependencies come
from this environment in place of the index (--no-deps, --no-index). What is left out: apt-get and the making of the
user, which need root.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.dockerfile import read

ROOT = Path(__file__).resolve().parents[2]


def _copy_sources(dockerfile: str, to: Path) -> None:
    for copy in read(ROOT / dockerfile)[0].all("COPY"):
        *sources, target = copy.text.split()
        for source in sources:
            place = to / target / source if target.endswith("/") else to / target
            place.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, place)


def _as_run_here(step: str, image: Path) -> str:
    pip = f"{sys.executable} -m pip --disable-pip-version-check"
    changes = {
        "/opt/build/bin/pip": pip,
        "python3 -m venv /opt/build && ": "",
        "python3 -m venv": f"{sys.executable} -m venv",
        " wheel --no-cache-dir": " wheel --no-cache-dir --no-index --no-build-isolation",
        " install --no-cache-dir": " install --no-cache-dir --no-index --no-deps",
        "/wheels": str(image / "wheels"),
        "/opt/gateway": str(image / "opt/gateway"),
    }
    for old, new in changes.items():
        step = step.replace(old, new)
    return step


def _run(command: str | list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, shell=isinstance(command, str), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_the_install_steps_give_a_gateway_command_that_runs(extra: str, tmp_path: Path) -> None:
    source = tmp_path / "src"
    _copy_sources(f"Dockerfile.{extra}", source)

    for step in read(ROOT / f"Dockerfile.{extra}")[0].all("RUN"):
        if "apt-get" not in step.text:
            _run(_as_run_here(step.text, tmp_path), source)

    environment = tmp_path / "opt/gateway"
    installed = next(environment.glob("lib/python3*/site-packages"))
    assert (installed / "gateway" / "py.typed").exists()
    assert not (installed / "tests").exists()
    # The dependencies of this environment, behind what was installed; a plain path does not read its .pth files,
    # so the checkout itself stays invisible.
    (installed / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = str(environment / "bin/python")
    where = _run([python, "-c", "import gateway; print(gateway.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(environment)
    assert version("inference-gateway") in _run([str(environment / "bin/gateway"), "version"], tmp_path)
