"""The sandbox around a script's worker, as the command line of bubblewrap (`bwrap`).

What: namespaces of its own (no network, no other process to see), no capability, and a root that is made of nothing
but what is named here, all read-only: the system's programs and libraries, the interpreter, and the folders that the
worker must read. Whatever else lies on the machine, the state folder first of all, is not there. It may write to
its own folder alone, which is its home, its temporary files, /tmp and /dev/shm.
Why built up and not taken away: what nobody thought of is then out of reach. `hidden` is for secrets that lie inside
of what is shown, a private key below /etc.
Order: folders are laid one over the other, outer ones first, so that what is hidden inside of what is shown, and what
is shown inside of what is hidden, both hold.
Errors: none here; bwrap itself says on stderr what it could not do (`complaint`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BWRAP = "bwrap"
# Where programs, libraries and their settings are, on one system or another. /run has sockets and is not among them.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/sys", "/nix/store")
_SCRATCH = {".tmp": ("/tmp", "/var/tmp"), ".shm": ("/dev/shm",)}  # noqa: S108
# The words that lay a folder or a file; None stands for its path.
_Layer = tuple[str | None, ...]
_SHOWN: _Layer = ("--ro-bind", None, None)
_OWN: _Layer = ("--bind", None, None)
_HIDDEN: _Layer = ("--tmpfs", None)
_HIDDEN_FILE: _Layer = ("--ro-bind", "/dev/null", None)
_NAMESPACES = (
    "the kernel must let this user make user namespaces: sysctl kernel.unprivileged_userns_clone and "
    "user.max_user_namespaces, and the seccomp profile of a container"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """`own`: the one folder it may write to. `readable`: what it must read, wherever it lies; `hidden`: files and
    folders that it must not, even inside of what is shown."""

    own: Path
    folder: Path
    readable: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()


def is_installed() -> bool:
    return shutil.which(BWRAP) is not None


def make_scratch(own: Path) -> None:
    """The folders inside its own that stand for the system's temporary ones. Blocks."""
    for name in _SCRATCH:
        (own / name).mkdir(mode=0o700)


def sandboxed(
    room: Room, python: Path, command: Sequence[str], environment: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """The command and its environment, inside. What the linker reads is for the command alone, not for the program
    that makes the sandbox."""
    linker = {name: value for name, value in environment.items() if name.startswith("LD_")}
    wrapped = [shutil.which(BWRAP) or BWRAP, "--unshare-all", "--die-with-parent", "--cap-drop", "ALL"]
    wrapped += ["--dev", "/dev", "--proc", "/proc"]
    for name, places in _SCRATCH.items():
        for place in places:
            wrapped += ["--bind", str(room.own / name), place]
    wrapped += _layers(room, python)
    # Mounts of their own inside stay as they are.
    wrapped += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(room.folder)]
    for name, value in linker.items():
        wrapped += ["--setenv", name, value]
    kept = {name: value for name, value in environment.items() if name not in linker}
    return [*wrapped, "--", *command], kept


def complaint(lines: Iterable[str]) -> str:
    """Why bwrap could not make the sandbox, "" where it says nothing of it."""
    said = [line.removeprefix("bwrap: ") for line in lines if line.startswith("bwrap: ")]
    if not said:
        return ""
    is_forbidden = any(word in line for line in said for word in ("namespace", "uid map", "Operation not permitted"))
    return f"the sandbox bwrap could not be made: {said[-1]}{f'; {_NAMESPACES}' if is_forbidden else ''}"


def _layers(room: Room, python: Path) -> list[str]:
    """What is shown and what is hidden of it, each under its own name; what is needed is shown in any case."""
    layers = {Path(one): _SHOWN for one in _SYSTEM if os.path.isdir(one)}  # noqa: PTH112 - also links to folders
    layers |= {one: _HIDDEN if one.is_dir() else _HIDDEN_FILE for one in room.hidden if one.exists()}
    layers |= dict.fromkeys((*interpreter(python), *room.readable), _SHOWN) | {room.own: _OWN}
    found: list[str] = []
    for place, layer in sorted(layers.items(), key=lambda one: one[0].parts):
        found += [*(str(place) if word is None else word for word in layer)]
    return found + [
        word for place, layer in layers.items() if layer is _HIDDEN for word in ("--remount-ro", str(place))
    ]


def interpreter(python: Path) -> list[Path]:
    """The folders that an interpreter lives in: its environment's, and that of the one the environment is made of."""
    real = python.resolve().parent.parent
    return [one for one in dict.fromkeys((python.parent.parent, real)) if one != Path("/")]
