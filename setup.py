"""What pyproject.toml cannot say: with GATEWAY_COMPILE=1 a wheel is built with its scoring path compiled (mypyc).

Which modules these are stands in pyproject.toml. Without the variable, and for an editable installation whatever it
says, nothing is compiled. mypyc reads the types of what is imported, so a build needs the dependencies too.
Everything that is made lies in `build/`, beside no source.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Any

from setuptools import setup

# What it was tested with, and newer ones.
MYPYC = "mypy[mypyc]>=2.4,<3"


def asked_for(environ: dict[str, str], commands: list[str]) -> dict[str, Any]:
    """What `setup` is told, for one of the steps in which an installer builds a wheel."""
    if environ.get("GATEWAY_COMPILE") != "1":
        return {}
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    if "bdist_wheel" not in commands:
        return {"setup_requires": [MYPYC, *project["project"]["dependencies"]]}
    from mypyc.build import mypycify

    modules = project["tool"]["inference-gateway"]["compiled"]
    paths = [module.replace(".", "/") + ".py" for module in modules]
    return {"ext_modules": mypycify(["--config-file=pyproject.toml", *paths])}


setup(**asked_for(dict(os.environ), sys.argv))
