"""Conda's own packages, where a tool for them is on the PATH: which one, what it is told, and in which file.

Why: some of what a conda file names is not on PyPI. Then the whole environment is made by micromamba or conda, out of
a file that is written anew from what was understood, so that nothing of this machine can be named in it. Such an
environment is made where it stays, for its files know their place; its activation scripts are not run.
Source: `micromamba create --file`, `conda env create`; the environment variables of conda's configuration.
Errors: none.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

FILE_NAME, PREFIX, ROOT = "environment.yml", "env", "root"
# A name with a version and a build; neither a place nor an option.
_PACKAGE = re.compile(r"(?:[A-Za-z0-9][\w.-]*::)?[A-Za-z0-9_][\w.-]*(?:[\s=<>!~|,]+[\w.*+]+)*,?", re.ASCII)
_CHANNEL = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[\w.-]+)*|https://[^\s${}]+", re.ASCII)
_KEPT = re.compile(
    r"CONDARC|MAMBARC|CONDA_(?:CHANNEL|CUSTOM_|DEFAULT_CHANNELS|OVERRIDE_|SSL_VERIFY|PROXY_|REMOTE_).*"
)


def is_package(text: str) -> bool:
    return _PACKAGE.fullmatch(text) is not None


def is_channel(text: str) -> bool:
    return _CHANNEL.fullmatch(text) is not None


def file_of(channels: Sequence[str], packages: Sequence[str], pip: Sequence[str]) -> str:
    """The file for the tool."""
    lines = ["channels:", *(f"  - {json.dumps(one)}" for one in channels)] if channels else []
    lines += ["dependencies:", *(f"  - {json.dumps(one)}" for one in packages)]
    if pip:
        lines += ["  - pip:", *(f"    - {json.dumps(one)}" for one in pip)]
    return "".join(f"{line}\n" for line in lines)


def and_pip(text: str, requirement: str) -> str:
    """A file of `file_of` that asks for this, too."""
    line = f"    - {json.dumps(requirement)}\n"
    if "\n  - pip:\n" in text:
        return text + line
    asked = text if '\n  - "pip"\n' in text else f'{text}  - "pip"\n'
    return f"{asked}  - pip:\n{line}"


def tool() -> str | None:
    return shutil.which("micromamba") or shutil.which("conda")


def command(program: str, place: Path) -> list[str]:
    how = ["env", "create"] if Path(program).name == "conda" else ["create", "--yes"]
    return [program, *how, "--prefix", str(place / PREFIX), "--file", str(place / FILE_NAME)]


def variables(place: Path, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the tool finds set beside what every build does; its downloads lie beside the environment, for a while."""
    given = {name: value for name, value in environ.items() if _KEPT.fullmatch(name)}
    root = place / ROOT
    return {
        **given,
        "CONDA_ALWAYS_YES": "true",
        "CONDA_PKGS_DIRS": str(root / "pkgs"),
        "MAMBA_ROOT_PREFIX": str(root),
    }
