"""What both images promise: pinned, small, not root, health-checked, and stopped by the signal that drains."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.dockerfile import Stage, read

ROOT = Path(__file__).resolve().parents[2]
FILES = {"cpu": ROOT / "Dockerfile.cpu", "gpu": ROOT / "Dockerfile.gpu"}


@pytest.fixture(params=sorted(FILES))
def extra(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stages(extra: str) -> list[Stage]:
    return read(FILES[extra])


def test_every_base_image_is_pinned_to_a_full_version(stages: list[Stage]) -> None:
    for stage in stages:
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+-[\w.-]+", stage.image), stage.image


def test_the_final_image_has_the_python_that_built_it(stages: list[Stage]) -> None:
    build, final = stages
    assert build.image == final.image
    assert build.name == "build"


def test_the_gpu_image_carries_the_cuda_version_that_the_pinned_onnxruntime_wants() -> None:
    image = read(FILES["gpu"])[-1].image
    assert image.startswith("nvidia/cuda:13.") and "cudnn-runtime" in image
    major, minor = _pins()["onnxruntime-gpu"].split(".")[:2]
    # From 1.27 the wheels on PyPI are built for CUDA 13; before, for CUDA 12.
    assert (int(major), int(minor)) >= (1, 27)


def test_the_final_image_runs_as_a_numbered_user_who_is_not_root(stages: list[Stage]) -> None:
    final = stages[-1]
    user = final.one("USER").text
    assert user == "10001:10001"
    words = [instruction.word for instruction in final.instructions]
    assert "RUN" not in words[words.index("USER") :]


def test_no_compiler_and_no_package_manager_of_python_reaches_the_final_image(stages: list[Stage]) -> None:
    final_runs = " ".join(run.text for run in stages[-1].all("RUN"))
    assert not re.search(r"\b(gcc|g\+\+|build-essential|python3-dev|pip|curl|wget)\b", final_runs)
    build_runs = " ".join(run.text for run in stages[0].all("RUN"))
    assert "--only-binary :all:" in build_runs
    assert "--without-pip /opt/gateway" in build_runs


def test_package_lists_do_not_stay_in_a_layer(stages: list[Stage]) -> None:
    for stage in stages:
        for run in stage.all("RUN"):
            if "apt-get install" in run.text:
                assert "--no-install-recommends" in run.text
                assert run.text.endswith("rm -rf /var/lib/apt/lists/*")


def test_the_wheel_is_installed_with_the_extras_of_the_image(extra: str, stages: list[Stage]) -> None:
    (install,) = [run.text for run in stages[0].all("RUN") if " install " in run.text and "pip" in run.text]
    assert f".whl)[{extra},postgres]" in install
    assert "--constraint deploy/constraints.txt" in install


def test_it_starts_in_exec_form_so_that_signals_reach_the_gateway(stages: list[Stage]) -> None:
    final = stages[-1]
    assert final.one("ENTRYPOINT").words == ["gateway"]
    assert final.one("CMD").words[0] == "serve"
    assert final.one("STOPSIGNAL").text == "SIGTERM"


def test_the_listeners_are_reachable_from_outside_and_exposed(stages: list[Stage]) -> None:
    command = stages[-1].one("CMD").words
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options == {
        "--apply": "/etc/gateway/endpoints",
        "--state": "/var/lib/gateway/state",
        "--scoring": "https://0.0.0.0:8443",
        "--management": "https://0.0.0.0:8444",
        "--telemetry": "http://0.0.0.0:9464",
    }
    assert stages[-1].one("EXPOSE").text.split() == ["8443", "8444", "9464"]
    # Below the volume, whose own mode is the engine's: a state folder that others may write to is refused.
    assert stages[-1].one("VOLUME").words == [str(Path(options["--state"]).parent)]


def test_the_state_folder_belongs_to_the_user_and_to_nobody_else(stages: list[Stage]) -> None:
    runs = " ".join(run.text for run in stages[-1].all("RUN"))
    assert "install -d -o 10001 -g 10001 -m 0750 /var/lib/gateway" in runs
    assert "install -d -m 0755 /etc/gateway/endpoints" in runs


def test_the_health_check_is_plain_python_that_asks_for_readiness(stages: list[Stage]) -> None:
    options, _, command = stages[-1].one("HEALTHCHECK").text.partition("CMD ")
    assert {option.split("=")[0] for option in options.split()} == {
        "--interval",
        "--timeout",
        "--start-period",
        "--retries",
    }
    python, flag, program = _exec_words(command)
    assert (python, flag) == ("python3", "-c")
    imported = {
        alias.name for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Import) for alias in node.names
    }
    assert imported == {"http.client", "sys"}
    assert "9464" in program and "/readyz" in program


def test_what_is_copied_exists_and_is_not_ignored(stages: list[Stage]) -> None:
    ignore = (ROOT / ".dockerignore").read_text().split("\n")
    for copy in stages[0].all("COPY"):
        *sources, _ = copy.text.split()
        for source in sources:
            assert (ROOT / source).exists(), source
            allowed = f"!{source}/" if (ROOT / source).is_dir() else f"!{source}"
            assert allowed in ignore, source


def test_the_constraints_pin_every_dependency_within_its_bounds(extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = _pins()
    for text in (*project["dependencies"], *project["optional-dependencies"][extra]):
        requirement = Requirement(text)
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"deploy/constraints.txt does not pin {requirement.name}"
        assert requirement.specifier.contains(pin), f"{requirement} does not allow the pinned {pin}"


def _exec_words(text: str) -> list[str]:
    words = ast.literal_eval(text)
    assert isinstance(words, list)
    return words


def _pins() -> dict[str, str]:
    lines = (ROOT / "deploy" / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}
