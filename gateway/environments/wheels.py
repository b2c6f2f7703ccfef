"""pip, kept from running anything: started as a program by an environment's interpreter, it installs wheels alone.

Why: `--only-binary` keeps pip from building what an index offers, and not what the metadata of a wheel names by an
address. Building, and fetching from a version control system, always begins with a program that pip starts; so no
program can be started here. What a wheel lays over pip's own files is not run either: all of pip is imported before.
Errors: pip's own; what it cannot build it says, with the sentence of `_refuse`.
"""

from __future__ import annotations

import importlib
import pkgutil
import runpy
import sys
from typing import Any

OPTIONS = ("--only-binary", ":all:")
_STARTS = frozenset(
    {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"}
)
# Where pip asks for the system's name, the failure of which it expects.
_FAILURE = "no program is started: with script_sandbox bwrap an environment is made of wheels alone"


def _refuse(event: str, arguments: Any) -> None:
    if event in _STARTS:
        raise PermissionError(_FAILURE)


def main() -> None:
    pip = importlib.import_module("pip")
    for found in pkgutil.walk_packages(pip.__path__, "pip.", onerror=lambda _: None):
        # Those for other systems cannot be imported, and are not asked for here.
        if not found.name.endswith("__main__"):
            _import(found.name)
    sys.addaudithook(_refuse)
    runpy.run_module("pip", run_name="__main__", alter_sys=True)


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception:  # noqa: BLE001, S110 - see main
        pass


if __name__ == "__main__":
    main()
