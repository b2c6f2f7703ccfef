"""The command line of the sandbox: what is laid over what, and what bwrap's own words mean."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from gateway.sandbox import Room, complaint, interpreter, sandboxed

PYTHON = Path(sys.executable)


def mounts(command: list[str]) -> Iterator[tuple[str, str]]:
    """How and where, in order."""
    words = iter(command[: command.index("--")])
    for word in words:
        if word in ("--bind", "--ro-bind"):
            next(words)
            yield word, next(words)
        elif word in ("--tmpfs", "--remount-ro"):
            yield word, next(words)


def test_outer_folders_are_laid_before_inner_ones_so_that_both_hold(tmp_path: Path) -> None:
    state = tmp_path / "state"
    code = state / "scripts" / "one"
    key = code / "tls.key"
    code.mkdir(parents=True)
    key.touch()
    room = Room(own=state / "own", folder=code, readable=(code,), hidden=(state, key, tmp_path / "nothing"))

    command, _ = sandboxed(room, PYTHON, ["x"], {})

    found = list(mounts(command))
    mine = [one for one in found if str(tmp_path) in one[1]]
    assert mine[:2] == [("--tmpfs", str(state)), ("--bind", str(room.own))]
    assert mine[2:] == [("--ro-bind", str(code)), ("--ro-bind", str(key)), ("--remount-ro", str(state))]
    assert command[command.index(str(key)) - 1] == "/dev/null"
    assert ("--ro-bind", "/usr") in found
    assert found[-2:] == [("--remount-ro", "/dev"), ("--remount-ro", "/")]


def test_what_is_needed_is_shown_though_it_is_named_as_hidden(tmp_path: Path) -> None:
    room = Room(own=tmp_path / "own", folder=tmp_path, readable=(tmp_path,), hidden=(tmp_path,))
    command, _ = sandboxed(room, PYTHON, ["x"], {})
    assert ("--ro-bind", str(tmp_path)) in mounts(command)
    assert ("--tmpfs", str(tmp_path)) not in mounts(command)


def test_the_linkers_variables_are_for_the_script_alone(tmp_path: Path) -> None:
    room = Room(own=tmp_path, folder=tmp_path)
    command, kept = sandboxed(room, PYTHON, ["/python", "-c", "x"], {"LD_PRELOAD": "x.so", "MINE": "1"})
    assert " ".join(command).endswith("--setenv LD_PRELOAD x.so -- /python -c x")
    assert kept == {"MINE": "1"}


def test_an_interpreter_needs_its_environment_and_what_that_is_made_of(tmp_path: Path) -> None:
    for folder in ("base/bin", "venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "base/bin/python").touch()
    (tmp_path / "venv/bin/python").symlink_to(tmp_path / "base/bin/python")
    assert interpreter(tmp_path / "venv/bin/python") == [tmp_path / "venv", tmp_path / "base"]
    assert interpreter(Path("/python")) == []


def test_what_bwrap_could_not_do_is_told_with_what_is_missing() -> None:
    said = complaint(["2026 I - init", "bwrap: No permissions to create new namespace, likely because ..."])
    assert "No permissions to create new namespace" in said
    assert "user namespaces" in said
    assert complaint(["bwrap: Can't find source path /x: No such file or directory"]).endswith("directory")
    assert complaint(["the script's own last line"]) == ""
