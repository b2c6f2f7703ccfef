"""The command line of the sandbox: what is laid over what, and what bwrap's own words mean."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.sandbox import CannotHide, Room, complaint, folders_of, interpreter, sandboxed

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
    key = code / "tls" / "tls.key"
    key.parent.mkdir(parents=True)
    hidden = (state, tmp_path / "nothing")
    room = Room(own=state / "own", folder=code, readable=(code,), hidden=hidden, hidden_files=(key,))

    command, _ = sandboxed(room, PYTHON, ["x"], {})

    found = list(mounts(command))
    mine = [one for one in found if str(tmp_path) in one[1]]
    assert mine[:2] == [("--tmpfs", str(state)), ("--bind", str(room.own))]
    assert mine[2:4] == [("--ro-bind", str(code)), ("--tmpfs", str(key.parent))]
    assert mine[4:] == [("--remount-ro", str(state)), ("--remount-ro", str(key.parent))]
    assert ("--ro-bind", "/usr") in found
    assert found[-2:] == [("--remount-ro", "/dev"), ("--remount-ro", "/")]


def test_what_is_needed_is_shown_though_it_is_named_as_hidden(tmp_path: Path) -> None:
    room = Room(own=tmp_path / "own", folder=tmp_path, readable=(tmp_path,), hidden=(tmp_path,))
    command, _ = sandboxed(room, PYTHON, ["x"], {})
    assert ("--ro-bind", str(tmp_path)) in mounts(command)
    assert ("--tmpfs", str(tmp_path)) not in mounts(command)


def test_a_file_is_hidden_with_its_folder_and_those_that_links_on_the_way_lead_into(tmp_path: Path) -> None:
    live, archive, pods = tmp_path / "live" / "x", tmp_path / "archive" / "x", tmp_path / "pods"
    for folder in (live, archive, pods / "..2026"):
        folder.mkdir(parents=True)
    # As certbot lays it, and as Kubernetes does.
    (live / "key.pem").symlink_to("../../archive/x/key1.pem")
    (pods / "..data").symlink_to("..2026")
    (pods / "tls.key").symlink_to("..data/tls.key")
    assert folders_of(live / "key.pem") == [live, archive]
    assert folders_of(pods / "tls.key") == [pods, pods / "..2026"]
    assert folders_of(pods / "..data" / "tls.key") == [pods, pods / "..2026"]
    assert folders_of(tmp_path / "none" / "tls.key") == [tmp_path / "none"]
    (tmp_path / "loop").symlink_to("loop")
    assert folders_of(tmp_path / "loop") == [tmp_path]


def test_a_file_among_what_scripts_need_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "tls.key").symlink_to("/etc/tls.key")
    for file in ("/etc/tls.key", "/usr/lib/tls.key", str(tmp_path / "own" / "tls.key")):
        room = Room(own=tmp_path, folder=tmp_path, hidden_files=(Path(file),))
        with pytest.raises(CannotHide, match=f"^{file} must be hidden .* accepted: a folder of its own"):
            sandboxed(room, PYTHON, ["x"], {})
    # What is not shown needs no hiding.
    sandboxed(Room(own=tmp_path, folder=tmp_path, hidden_files=(Path("/tls.key"),)), PYTHON, ["x"], {})


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
