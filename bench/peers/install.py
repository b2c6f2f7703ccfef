"""Each peer's own virtual environment, made once and kept.

Why: peers want different versions of the same packages. A stamp with the requirements is written last, so
that an interrupted installation goes on where it was, and a changed pin is installed.
Errors: NotInstalled with pip's last error.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.peers.peer import Peer
from bench.peers.processes import last_error

PIP_WITHIN_S = 1200.0
STAMP = "installed.txt"


class NotInstalled(Exception):
    """The message is the reason that is listed."""


def environment_of(peer: Peer, folder: Path) -> Path:
    """Peers with the same requirements share one."""
    return folder / "environments" / peer.package


def python_of(peer: Peer, folder: Path) -> Path:
    """The interpreter that runs the peer: ours, where nothing is to be installed."""
    if not peer.requirements:
        return Path(sys.executable)
    return environment_of(peer, folder) / "bin" / "python"


def stamp_text(peer: Peer) -> str:
    return "".join(
        f"{line}\n" for line in (f"python {sys.version_info[0]}.{sys.version_info[1]}", *peer.requirements)
    )


def is_installed(peer: Peer, folder: Path) -> bool:
    stamp = environment_of(peer, folder) / STAMP
    return not peer.requirements or (stamp.exists() and stamp.read_text() == stamp_text(peer))


def install(peer: Peer, folder: Path) -> None:
    """Errors: NotInstalled."""
    if is_installed(peer, folder):
        return
    environment = environment_of(peer, folder)
    environment.parent.mkdir(parents=True, exist_ok=True)
    python = environment / "bin" / "python"
    if not _works(python):
        _run([sys.executable, "-m", "venv", "--clear", str(environment)])
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, *peer.pip_options, *peer.requirements])
    (environment / STAMP).write_text(stamp_text(peer))


def versions(peer: Peer, folder: Path) -> dict[str, str]:
    """All that is installed beside the peer, by name."""
    command = [str(python_of(peer, folder)), "-c", VERSIONS]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise NotInstalled(f"its packages cannot be listed: {error}") from error
    return dict(sorted(line.split("==", 1) for line in listed.splitlines() if "==" in line))


VERSIONS = (
    "from importlib.metadata import distributions\n"
    "for one in distributions():\n"
    "    print(one.metadata['Name'].lower().replace('_', '-'), one.version, sep='==')\n"
)


def _works(python: Path) -> bool:
    """Whether an environment is there and has pip: one that was cut off early has neither."""
    if not python.exists():
        return False
    tried = subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True, timeout=60, check=False)
    return tried.returncode == 0


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_WITHIN_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"{command[0]} took more than {PIP_WITHIN_S:.0f} s") from error
    if done.returncode != 0:
        raise NotInstalled(last_error(done.stderr or done.stdout))
