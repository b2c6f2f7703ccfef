"""The sandbox around a script's worker, as the command line of bubblewrap (`bwrap`).

What: namespaces of its own (no network, no other process to see), no capability, and a root that is made of nothing
but what is named here, all read-only: the system's programs and libraries, the interpreter, and the folders that the
worker must read. Whatever else lies on the machine, the state folder first of all, is not there. It may write to
its own folder alone, which is its home, its temporary files, /tmp and /dev/shm.
Why built up and not taken away: what nobody thought of is then out of reach. `hidden` is for secrets that lie inside
of what is shown. A file among them, a private key below /etc, is replaced while workers run: renamed over, or
reached by links that are turned. So its folder is hidden, and of every link on the way to it the folder that the link
leads into, as they are when a worker starts.
Order: folders are laid one over the other, outer ones first, so that what is hidden inside of what is shown, and what
is shown inside of what is hidden, both hold.
Errors: CannotHide; bwrap itself says on stderr what it could not do (`complaint`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
_LINKS_MAX = 40
# No folder that a secret can be hidden with.
_PROGRAMS = frozenset(
    {"/usr/local"}
    | {
        f"{base}/{name}"
        for base in ("/usr", "/usr/local")
        for name in ("bin", "sbin", "lib", "lib32", "lib64", "libexec", "share")
    }
)
_NAMESPACES = (
    "the kernel must let this user make user namespaces: sysctl kernel.unprivileged_userns_clone and "
    "user.max_user_namespaces, and the seccomp profile of a container"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """`own`: the one folder it may write to. `readable`: what it must read, wherever it lies; `hidden`: folders that
    it must not, even inside of what is shown; `hidden_files`: files that it must not, nor what takes their place."""

    own: Path
    folder: Path
    readable: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    hidden_files: tuple[Path, ...] = ()


class CannotHide(Exception):
    """A file that nobody shall read lies where the worker must."""


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
    that makes the sandbox. Errors: CannotHide."""
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
    needed = dict.fromkeys((*interpreter(python), *room.readable), _SHOWN)
    shown = [*layers, *needed]
    for one in room.hidden:
        if one.is_dir():
            layers |= dict.fromkeys((one.resolve(), *_seen_as(one.resolve(), shown)), _HIDDEN)
    for one in room.hidden_files:
        layers |= dict.fromkeys(_folders_to_hide(one, shown), _HIDDEN)
    layers |= needed | {room.own: _OWN}
    found: list[str] = []
    for place, layer in sorted(layers.items(), key=lambda one: one[0].parts):
        found += [*(str(place) if word is None else word for word in layer)]
    return found + [
        word for place, layer in layers.items() if layer is _HIDDEN for word in ("--remount-ro", str(place))
    ]


def _folders_to_hide(file: Path, shown: Sequence[Path]) -> Iterator[Path]:
    for folder in folders_of(file):
        for place in _seen_as(folder, shown):
            if place in shown or str(place) in _PROGRAMS:
                raise CannotHide(
                    f"{file} must be hidden from scripts (script_sandbox is bwrap), with the folder that it lies in "
                    f"and those that links on the way to it lead into; one of these is {place}, which scripts need; "
                    "accepted: a folder of its own, and links into such folders"
                )
            yield place


def _seen_as(folder: Path, shown: Iterable[Path]) -> list[Path]:
    """The names under which a folder would be seen: /lib may be /usr/lib."""
    reals = [(one, one.resolve()) for one in shown]
    return [one / folder.relative_to(real) for one, real in reals if folder.is_relative_to(real)]


def folders_of(file: Path) -> list[Path]:
    """Where a file lies and may come to lie, itself or what takes its place: its folder, and for every link on the
    way the folder that the link leads into. None of them has a link in its own path."""
    found: list[Path] = []
    at, links = Path("/"), 0
    # Each name that is left, with whether it ends a path: the file's own, or that of a link.
    rest = _names(file, is_told=True)
    while rest:
        name, is_end = rest.pop(0)
        step = at.parent if name == ".." else at / name
        if is_end:
            found.append(step.parent)
        if name != ".." and step.is_symlink() and links < _LINKS_MAX:
            links += 1
            target = step.readlink()
            # Links of the root are the system's own: /lib, /bin.
            rest[:0] = _names(target, is_told=at != Path("/"))
            at = Path("/") if target.is_absolute() else at
        else:
            at = step
    return list(dict.fromkeys(found))


def _names(path: Path, *, is_told: bool) -> list[tuple[str, bool]]:
    names = path.parts[1:] if path.is_absolute() else path.parts
    return [(one, is_told and number == len(names)) for number, one in enumerate(names, 1)]


def interpreter(python: Path) -> list[Path]:
    """The folders that an interpreter lives in: its environment's, and that of the one the environment is made of."""
    real = python.resolve().parent.parent
    return [one for one in dict.fromkeys((python.parent.parent, real)) if one != Path("/")]
