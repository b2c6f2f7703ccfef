"""The suites of the scoring path over a compiled installation: `make test-compiled`.

Builds the compiled wheel of a copy of the sources (a minute or two), installs it into an environment of its own, and
runs a copy of the suites there: what they import can only be the wheel's. Dependencies are this environment's, by a
path file; its own path files are not read, so the checkout itself stays invisible.
Beside that it is a pytest plugin for the inner run, which checks first that every module of the list is compiled.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("gateway", "runtimes", "bench", "pyproject.toml", "setup.py", "README.md", "LICENSE")
TESTED = ("tests", "examples", "docs", "pyproject.toml")

SUITES = (
    "tests/unit/gateway/codecs",
    "tests/unit/gateway/telemetry/test_record.py",
    "tests/unit/gateway/test_authenticate.py",
    "tests/unit/gateway/test_capture.py",
    "tests/unit/gateway/test_identity.py",
    "tests/unit/gateway/test_listener.py",
    "tests/unit/gateway/test_mirror.py",
    "tests/unit/gateway/test_route.py",
    "tests/unit/runtimes",
    "tests/property/test_batcher.py",
    "tests/property/test_codecs.py",
    "tests/property/test_padding.py",
    "tests/contract/test_capture_gate.py",
    "tests/contract/test_capture_served.py",
    "tests/contract/test_documents.py",
    "tests/contract/test_instance_pools.py",
    "tests/contract/test_loading.py",
    "tests/contract/test_metrics_page.py",
    "tests/contract/test_mirror_comparison.py",
    "tests/contract/test_padding.py",
    "tests/contract/test_padding_served.py",
    "tests/contract/test_scoring_door.py",
    "tests/contract/test_script_scoring.py",
    "tests/contract/test_session_contract.py",
    "tests/contract/test_tokens.py",
    "tests/contract/test_tricky_models.py",
    "tests/contract/test_triton_models.py",
    "tests/contract/test_triton_paths.py",
    "tests/contract/test_wire.py",
    "tests/fault/test_batcher_faults.py",
    "tests/fault/test_overload.py",
    "tests/e2e/test_digits.py",
    "tests/e2e/test_metrics.py",
)


def pytest_sessionstart() -> None:
    """In the inner run."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for module in project["tool"]["inference-gateway"]["compiled"]:
        file = str(importlib.import_module(module.removesuffix(".__init__")).__file__)
        assert file.endswith(tuple(EXTENSION_SUFFIXES)), f"{module} is not compiled: {file}"


def build(folder: Path) -> Path:
    """The compiled wheel."""
    source = folder / "source"
    _copy(SOURCES, source)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run(command, env={**os.environ, "GATEWAY_COMPILE": "1"}, check=True)
    return next(folder.glob("*.whl"))


def install(wheel: Path, environment: Path) -> Path:
    """The interpreter of a new environment with the wheel, and with the dependencies of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), "install"]
    subprocess.run([*command, "--quiet", "--no-index", "--no-deps", str(wheel)], check=True)
    packages = next(environment.glob("lib/python3*/site-packages"))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def _copy(names: tuple[str, ...], to: Path) -> None:
    to.mkdir()
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, to)


def main(arguments: list[str]) -> int:
    """The exit code of the inner run; `arguments` are pytest's, in place of the suites."""
    with tempfile.TemporaryDirectory(prefix="gateway-compiled-") as name:
        folder = Path(name)
        python = install(build(folder), folder / "environment")
        _copy(TESTED, folder / "tested")
        command = [str(python), "-m", "pytest", "-q", "--numprocesses", "2", "-p", "tests.support.compiled"]
        command += arguments or SUITES
        return subprocess.run(command, cwd=folder / "tested", check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
