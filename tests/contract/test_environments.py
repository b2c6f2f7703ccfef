"""Environments on a real disk: built once, side by side, bounded, whole or not there, and said why not."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.environments import Environment, EnvironmentLimits, EnvironmentRefused, Environments, cache
from gateway.resources import ScriptEnvironment
from tests.support.waiting import PATIENCE_S

OWN = f"{sys.version_info.major}.{sys.version_info.minor}"


class NoContents:
    def path_of(self, sha256: str) -> Path:
        raise AssertionError("nothing is read")


def quiet(_: str) -> None:
    """Nobody listens."""


def asking(*requirements: str, python: str = "") -> ScriptEnvironment:
    asked = [f"python={python}"] if python else []
    return ScriptEnvironment(document={"conda_file": {"dependencies": [*asked, {"pip": list(requirements)}]}})


def environments(folder: Path, **limits: Any) -> Environments:
    return Environments(folder / "environments", NoContents(), EnvironmentLimits(**limits))


def wheel(folder: Path, version: str, more: str = "") -> None:
    """A package of one module, as an index would give it."""
    info = f"tiny_thing-{version}.dist-info"
    files = {
        "tiny_thing.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tiny-thing\nVersion: {version}\n{more}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"tiny_thing-{version}-py3-none-any.whl", "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)


@pytest.fixture(autouse=True)
def _no_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip builds, wherever the tests run; the tests of uv put it on the path."""
    without = [one for one in os.environ["PATH"].split(os.pathsep) if not (Path(one) / "uv").exists()]
    monkeypatch.setenv("PATH", os.pathsep.join(without))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages come from a folder, by the operator's own variables."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for version in ("1.0", "2.0"):
        wheel(folder, version)
    for name, text in {"NO_INDEX": "1", "FIND_LINKS": str(folder)}.items():
        monkeypatch.setenv(f"PIP_{name}", text)
        monkeypatch.setenv(f"UV_{name}", text)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("IGW_SECRET", "not for builds")


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a build runs instead, as lines of a shell; they begin where it is built."""
    lines: list[str] = []

    def commands(place: Path, python: Path, is_of_wheels: bool) -> Sequence[Sequence[str]]:
        return [["sh", "-c", line] for line in lines]

    monkeypatch.setattr(cache, "_commands", commands)
    monkeypatch.setattr(cache, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(cache, "_LAST_WORDS_S", 0.1)
    return lines


MADE = "mkdir bin; touch bin/python"


def names(folder: Path) -> set[str]:
    return {one.name for one in (folder / "environments").iterdir()}


async def refused(built: Environments, environment: ScriptEnvironment) -> str:
    with pytest.raises(EnvironmentRefused) as caught:
        await built.get(environment, quiet)
    assert caught.value.code == "ImageBuildFailure"
    return str(caught.value)


def version_in(environment: Environment) -> str:
    said = subprocess.run(
        [environment.python, "-c", "import tiny_thing; print(tiny_thing.VERSION)"],
        capture_output=True,
        check=True,
        text=True,
    )
    return said.stdout.strip()


# ---- real builds


def test_two_versions_are_side_by_side_and_what_cannot_be_had_is_said(tmp_path: Path, index: None) -> None:
    async def story() -> None:
        built = environments(tmp_path)
        said: list[str] = []
        one = await built.get(asking("tiny-thing==1.0"), said.append)
        other = await built.get(asking("tiny-thing==2.0", python=OWN), quiet)
        assert said
        assert (version_in(one), version_in(other)) == ("1.0", "2.0")
        assert names(tmp_path) == {one.digest, other.digest}
        folder = tmp_path / "environments" / one.digest
        assert one.python == folder / "bin" / "python"
        assert (folder / cache.LOG_NAME).exists()
        assert "tiny" in await refused(built, asking("tiny-thing==3.0"))
        assert names(tmp_path) == {one.digest, other.digest}
        said.clear()
        assert await built.get(asking("tiny-thing==1.0"), said.append) == one
        assert said == []

    asyncio.run(story())


def test_what_asks_for_nothing_is_the_gateways_own_interpreter(tmp_path: Path) -> None:
    async def story() -> None:
        for one in (ScriptEnvironment(), asking(), asking("azureml-defaults")):
            found = await environments(tmp_path).get(one, quiet)
            assert (found.python, found.digest) == (Path(sys.executable), "")
        assert await environments(tmp_path).collect([]) == 0

    asyncio.run(story())


# ---- bounds, by builds that do something else


def test_a_build_sees_no_variable_of_the_gateways_own(
    tmp_path: Path, index: None, build: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy")
    build += ["env; cat requirements.txt", MADE]
    said: list[str] = []
    asyncio.run(environments(tmp_path).get(asking("a==1", "b"), said.append))
    assert not [line for line in said if "IGW_SECRET" in line]
    assert {"https_proxy=http://proxy", "PIP_NO_INDEX=1", "PYTHONNOUSERSITE=1", "a==1", "b"} <= set(said)


def test_a_build_that_takes_too_long_ends_with_all_it_started(tmp_path: Path, build: list[str]) -> None:
    async def story() -> None:
        build.append(f"echo downloading; sleep 600 & echo $! > {tmp_path}/child; wait")
        said = await refused(environments(tmp_path, build_timeout_s=0.3), asking("a"))
        assert "within 0.3 s (setting environment_build_timeout_s): downloading" in said
        assert names(tmp_path) == set()
        await gone(int((tmp_path / "child").read_text()))

    asyncio.run(story())


async def gone(pid: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while _runs(pid):
            await asyncio.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("rest", ["sleep 60", "exit 0", "exec >/dev/null 2>&1; sleep 60"])
def test_a_build_that_takes_too_much_of_the_disk_is_refused(tmp_path: Path, build: list[str], rest: str) -> None:
    build += [f"{MADE}; echo ERROR other; head -c 300000 /dev/zero > big; {rest}", MADE]
    said = asyncio.run(refused(environments(tmp_path, bytes_max=200_000), asking("a")))
    assert said == "the environment takes more than 200000 bytes (setting environment_max_bytes)"
    assert names(tmp_path) == set()


def test_what_a_build_says_last_is_in_the_refusal_and_errors_before_all(tmp_path: Path, build: list[str]) -> None:
    async def story() -> None:
        build.append("echo one; echo; echo two; echo three; echo four >&2; exit 7")
        assert (await refused(environments(tmp_path), asking("a"))).endswith("cannot be built: two; three; four")
        build[:] = ["echo ERROR: no such package; echo hint; exit 1"]
        assert (await refused(environments(tmp_path), asking("a"))).endswith(
            "cannot be built: ERROR: no such package"
        )
        build[:] = ["kill -9 $$"]
        assert (await refused(environments(tmp_path), asking("a"))).endswith("the environment cannot be built")

    asyncio.run(story())


def test_a_build_whose_log_cannot_be_written_is_ended_and_says_why(tmp_path: Path, build: list[str]) -> None:
    # It would wait for ever for somebody to read what it writes.
    log = cache.LOG_NAME
    # Between the two it may be made again by who keeps it.
    build += [
        f"while test ! -e {log}; do sleep 0.01; done; until rm -f {log} && mkdir {log}; do :; done",
        "yes",
        MADE,
    ]

    async def story() -> None:
        async with asyncio.timeout(PATIENCE_S):
            assert "cannot be built: Is a directory" in await refused(environments(tmp_path), asking("a"))
        assert names(tmp_path) == set()

    asyncio.run(story())


def test_lines_of_any_length_and_bytes_are_logged_within_a_bound(
    tmp_path: Path, build: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_LOG_BYTES_MAX", 300_000)
    build += ["head -c 200000 /dev/zero | tr '\\0' x; printf '\\n\\377\\nlast'", "seq 200000", MADE]
    said: list[str] = []
    found = asyncio.run(environments(tmp_path).get(asking("a"), said.append))
    assert sum(len(line) for line in said if line.startswith("x")) == 200_000
    assert {"\ufffd", "last", "1"} <= set(said)
    assert (tmp_path / "environments" / found.digest / cache.LOG_NAME).stat().st_size < 600_000


def test_a_build_is_over_when_its_installer_is_whatever_that_left_running(tmp_path: Path, build: list[str]) -> None:
    async def story() -> None:
        build.append(f"{MADE}; sleep 60 & echo $! > {tmp_path}/child")
        async with asyncio.timeout(PATIENCE_S):
            await environments(tmp_path).get(asking("a"), quiet)
        await gone(int((tmp_path / "child").read_text()))

    asyncio.run(story())


def test_who_asks_at_once_waits_for_one_build(tmp_path: Path, build: list[str]) -> None:
    async def story() -> None:
        build.append(f"{MADE}; echo once >> {tmp_path}/builds; sleep 0.2")
        built = environments(tmp_path)
        impatient = asyncio.create_task(built.get(asking("a"), quiet))
        others = [asyncio.create_task(built.get(asking("a"), quiet)) for _ in range(2)]
        await asyncio.sleep(0.05)
        impatient.cancel()
        found = await asyncio.gather(*others)
        assert found[0] == found[1]
        assert impatient.cancelled()
        assert (tmp_path / "builds").read_text() == "once\n"

    asyncio.run(story())


def test_a_build_that_failed_is_tried_again(tmp_path: Path, build: list[str]) -> None:
    async def story() -> None:
        built = environments(tmp_path)
        build.append("exit 1")
        await refused(built, asking("a"))
        build[:] = [MADE]
        await built.get(asking("a"), quiet)

    asyncio.run(story())


def test_closing_ends_builds_and_leaves_nothing_of_them(tmp_path: Path, build: list[str]) -> None:
    async def story() -> None:
        build.append(f"echo $$ > {tmp_path}/child; sleep 60")
        built = environments(tmp_path)
        asked = asyncio.create_task(built.get(asking("a"), quiet))
        while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
            await asyncio.sleep(0.01)
        await built.close()
        await asyncio.gather(asked, return_exceptions=True)
        assert asked.cancelled()
        assert names(tmp_path) == set()
        await gone(int((tmp_path / "child").read_text()))

    asyncio.run(story())


def test_what_a_crash_left_is_built_again(tmp_path: Path, build: list[str]) -> None:
    async def story() -> None:
        build.append(MADE)
        built = environments(tmp_path)
        found = await built.get(asking("a"), quiet)
        found.python.unlink()
        (tmp_path / "environments" / f"unfinished-{found.digest}").mkdir()
        assert await built.get(asking("a"), quiet) == found
        assert found.python.exists()
        assert names(tmp_path) == {found.digest}

    asyncio.run(story())


def test_a_disk_that_says_no_refuses_the_environment(tmp_path: Path, build: list[str]) -> None:
    (tmp_path / "environments").write_text("no folder")
    assert "cannot be built: " in asyncio.run(refused(environments(tmp_path), asking("a")))


def test_what_nobody_uses_or_builds_is_removed(tmp_path: Path, build: list[str]) -> None:
    async def story() -> None:
        build.append(MADE)
        built = environments(tmp_path)
        used, unused = [await built.get(asking(name), quiet) for name in ("used", "unused")]
        build[:] = [f"{MADE}; touch {tmp_path}/begun; while test ! -e {tmp_path}/go; do sleep 0.01; done"]
        building = asyncio.create_task(built.get(asking("building"), quiet))
        while not (tmp_path / "begun").exists():
            await asyncio.sleep(0.01)
        for leftover in ("unfinished-0", "removed-0"):
            (tmp_path / "environments" / leftover).mkdir()
        assert await built.collect([used.digest]) == 3
        assert not unused.python.exists()
        (tmp_path / "go").touch()
        assert (await building).python.exists()
        assert names(tmp_path) == {used.digest, (await building).digest}
        assert await built.collect([used.digest, (await building).digest]) == 0

    asyncio.run(story())


# ---- interpreters


def test_a_python_that_only_says_that_it_is_not_installed_is_not_used(
    tmp_path: Path, build: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = tmp_path / "commands"
    commands.mkdir()
    for name, text in {"python3.1": "echo not installed; exit 127", "python3.2": "echo 3.2"}.items():
        (commands / name).write_text(f"#!/bin/sh\n{text}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(commands), prepend=":")
    build.append(MADE)

    async def story() -> None:
        built = environments(tmp_path)
        for version, has_note in (("3.1", True), ("3.2", False), ("3.0", True), (OWN, False)):
            found = await built.get(asking("a", python=version), quiet)
            assert bool(found.notes) == has_note
            assert all(f"python={version} is not on this machine" in note for note in found.notes)
        # The gateway's own for those that are not there; one that is has its own.
        assert len(names(tmp_path)) == 2

    asyncio.run(story())


def test_uv_is_used_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"uv": "/bin/uv"}
    monkeypatch.setattr(shutil, "which", found.get)
    made, installed = cache._commands(tmp_path, Path("/python"))
    assert made[:2] == ["/bin/uv", "venv"]
    assert installed[:3] == ["/bin/uv", "pip", "install"]
    found.clear()
    assert cache._commands(tmp_path, Path("/python"))[0] == ["/python", "-m", "venv", str(tmp_path)]


def _uv() -> str:
    """Installed with the tests' own packages; where it is not, that is said."""
    found = Path(sys.executable).with_name("uv")
    if not found.exists():
        pytest.skip("uv is not installed beside the tests' interpreter (extra dev)")
    return str(found.parent)


def test_uv_builds_what_pip_builds(tmp_path: Path, index: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def packages(environment: Environment) -> str:
        program = (
            "import importlib.metadata as m, sys\n"
            "print(sys.version_info[:2], sys.prefix != sys.base_prefix, sorted("
            "f'{d.name} {d.version}' for d in m.distributions() if d.name not in ('pip', 'setuptools')))"
        )
        done = subprocess.run([environment.python, "-c", program], capture_output=True, check=True, text=True)
        return done.stdout

    async def story() -> None:
        by_pip = await environments(tmp_path / "pip").get(asking("tiny-thing==1.0"), quiet)
        monkeypatch.setenv("PATH", f"{_uv()}:{os.environ['PATH']}")
        said: list[str] = []
        built = environments(tmp_path / "uv")
        by_uv = await built.get(asking("tiny-thing==1.0"), said.append)
        assert " pip install " in said[1]
        assert said[1].split()[0].endswith("/uv")
        assert version_in(by_uv) == "1.0"
        assert packages(by_uv) == packages(by_pip)
        assert by_uv.digest == by_pip.digest
        assert "tiny-thing" in await refused(built, asking("tiny-thing==3.0"))

    asyncio.run(story())


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_of_wheels_alone_nothing_is_run_not_even_what_a_wheel_asks_for_by_address(
    tmp_path: Path, index: None, monkeypatch: pytest.MonkeyPatch, installer: str
) -> None:
    wheels, ran = tmp_path / "wheels", tmp_path / "ran"
    text = f"open({str(ran)!r}, 'w')\n"
    sdist(wheels, "igw-named-thing", text)
    sdist(tmp_path, "hidden", text)
    wheel(wheels, "3.0", f"Requires-Dist: hidden @ file://{tmp_path}/hidden-1.0.tar.gz\n")
    monkeypatch.setenv("UV_OFFLINE", "1")
    if installer == "uv":
        monkeypatch.setenv("PATH", f"{_uv()}:{os.environ['PATH']}")
    asked = [asking("igw-named-thing"), asking("tiny-thing==3.0")]

    async def story() -> None:
        shut = environments(tmp_path, wheels_only=True)
        for one in asked:
            await refused(shut, one)
            assert not ran.exists()
        assert version_in(await shut.get(asking("--only-binary=:none:", "tiny-thing==2.0"), quiet)) == "2.0"
        # uv takes no address from a wheel in any case.
        for one in asked[: 1 if installer == "uv" else 2]:
            await refused(environments(tmp_path / "open"), one)
            assert ran.exists(), "it is run where nothing is shut in"
            ran.unlink()

    asyncio.run(story())


def sdist(folder: Path, name: str, setup: str) -> None:
    """A package that is built by a program of its own."""
    root = folder / f"{name.replace('-', '_')}-1.0"
    root.mkdir()
    (root / "backend.py").write_text(setup)
    (root / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (root / "PKG-INFO").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    with tarfile.open(folder / f"{root.name}.tar.gz", "w:gz") as archive:
        archive.add(root, root.name)
    shutil.rmtree(root)


def prefix_of(environment: Environment) -> str:
    asked = [str(environment.python), "-c", "import sys; print(sys.prefix)"]
    return subprocess.run(asked, capture_output=True, check=True, text=True).stdout.strip()


# A stand-in for micromamba and conda, whose channels no test may need: it says what it was told and makes an
# environment where it was told to.
TOOL = f"""#!/bin/sh
echo "told: $*"
echo "set: $CONDA_PKGS_DIRS $MAMBA_ROOT_PREFIX $CONDA_ALWAYS_YES $CONDA_CHANNEL_ALIAS $IGW_SECRET."
mkdir -p "$CONDA_PKGS_DIRS"
for word in "$@"; do
    [ "$before" = --prefix ] && prefix=$word
    [ "$before" = --file ] && cat "$word"
    before=$word
done
[ -e "{{refuses}}" ] && echo "nothing provides gdal" >&2 && exit 1
exec {sys.executable} -m venv --without-pip "$prefix"
"""
GDAL = ScriptEnvironment(document={"conda_file": {"channels": ["conda-forge"], "dependencies": ["gdal=3.8"]}})


@pytest.mark.parametrize(
    ("name", "told"),
    [("micromamba", "create --yes"), ("conda", "env create")],
)
def test_what_only_conda_has_is_built_by_its_tool(
    tmp_path: Path, index: None, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    program = tmp_path / "bin" / name
    program.parent.mkdir()
    program.write_text(TOOL.format(refuses=tmp_path / "refuses"))
    program.chmod(0o755)
    monkeypatch.setenv("CONDA_CHANNEL_ALIAS", "https://conda.example")
    monkeypatch.setenv("CONDA_PREFIX", "/somewhere/else")

    async def story() -> None:
        built = environments(tmp_path)
        without = await built.get(GDAL, quiet)
        assert without.python == Path(sys.executable)
        assert "gdal=3.8" in without.notes[0]

        shut = environments(tmp_path, wheels_only=True)
        assert (await shut.get(GDAL, quiet)).python == Path(sys.executable)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        with pytest.raises(EnvironmentRefused, match=r"gdal=3\.8.*conda packages may run scripts"):
            await shut.get(GDAL, quiet)
        (tmp_path / "refuses").touch()
        assert "nothing provides gdal" in await refused(built, GDAL)
        assert names(tmp_path) == set()
        (tmp_path / "refuses").unlink()
        said: list[str] = []
        one = await built.get(GDAL, said.append)
        place = tmp_path / "environments" / one.digest
        assert one.python == place / "env" / "bin" / "python"
        assert one.notes == ()
        assert f"told: {told} --prefix {place}/env --file {place}/environment.yml" in said
        assert f"set: {place}/root/pkgs {place}/root true https://conda.example ." in said
        assert '  - "gdal=3.8"' in said
        assert prefix_of(one) == str(place / "env")
        assert {one.name for one in place.iterdir()} == {"env", "environment.yml", cache.LOG_NAME}

        (place / cache.UNFINISHED).touch()
        said.clear()
        assert await built.get(GDAL, said.append) == one
        assert said, "what a crash left is built again"
        assert await built.collect([one.digest]) == 0
        assert await built.collect([]) == 1

    asyncio.run(story())


def test_a_build_that_makes_no_interpreter_is_refused(tmp_path: Path, build: list[str]) -> None:
    build.append("echo well")
    assert "no python: well" in asyncio.run(refused(environments(tmp_path), asking("a")))


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x" * 1000)
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    assert cache._size(tmp_path) == 1000


def test_what_was_built_while_anything_might_run_is_built_again_of_wheels_alone(
    tmp_path: Path, build: list[str]
) -> None:
    build.append(MADE)

    async def story() -> None:
        by_anything, *of_wheels = [
            (await environments(tmp_path, wheels_only=only).get(asking("a"), quiet)).digest
            for only in (False, True, True)
        ]
        assert by_anything not in of_wheels
        assert of_wheels[0] == of_wheels[1]
        assert names(tmp_path) == {by_anything, of_wheels[0]}

    asyncio.run(story())


def test_the_same_requirements_have_the_same_name(tmp_path: Path, build: list[str]) -> None:
    build.append(MADE)

    async def story() -> None:
        built = environments(tmp_path)
        digests = [(await built.get(asking(*lines), quiet)).digest for lines in (["a"], ["a # x", ""], ["b"])]
        assert digests[0] == digests[1] != digests[2]

    asyncio.run(story())
