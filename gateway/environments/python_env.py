"""MLflow's `python_env.yaml` as a conda file that asks for the same. Pure.

What: MLflow writes one beside a model: the Python version, what builds need, and as dependencies packages or files of
packages (`-r requirements.txt`), relative to it. A conda file says all of that too, so recipe.py knows one form.
Errors: EnvironmentRefused: what was found, and what would be accepted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from gateway.environments.recipe import EnvironmentRefused
from gateway.yaml_text import Entries, Items, Node, Scalar, read_documents

_KEYS = ("python", "build_dependencies", "dependencies")
_FILE = re.compile(r"(?:-r|--requirement)(?:\s+|=)(\S+)")
_VERSION = re.compile(r"\d+(?:\.\d+){0,2}")
# Each virtual environment has its own.
_TOOLS = re.compile(r"(?:pip|setuptools|wheel)(?![\w-]).*", re.DOTALL)


def conda_of_python_env(name: str, text: str, read: Callable[[str], str | None]) -> dict[str, Any]:
    """`name`: the file's path in the model; `read` gives the text of another file of the model, None where there is
    none."""
    documents, mistakes = read_documents(text.encode())
    tree = documents[0] if len(documents) == 1 else None
    if mistakes or not isinstance(tree, Entries):
        raise _refused(name, str(mistakes[0]) if mistakes else "it is no mapping")
    unknown = [key for key in tree.entries if key not in _KEYS]
    if unknown:
        raise _refused(name, f"found the key {unknown[0]!r}; accepted: {', '.join(_KEYS)}")
    packages = [
        one for one in _texts(tree.entries.get("build_dependencies"), name) if not _TOOLS.fullmatch(one.strip())
    ]
    for one in _texts(tree.entries.get("dependencies"), name):
        packages += _lines(one, name, read)
    return {"dependencies": [*_python(tree.entries.get("python"), name), {"pip": packages}]}


def _python(node: Node | None, name: str) -> list[str]:
    if node is None or (isinstance(node, Scalar) and node.is_null):
        return []
    if not isinstance(node, Scalar) or not _VERSION.fullmatch(node.text):
        said = node.text if isinstance(node, Scalar) else "a list or mapping"
        raise _refused(name, f"found python: {said[:100]}; accepted: a version such as 3.11.7")
    return [f"python={node.text}"]


def _lines(dependency: str, name: str, read: Callable[[str], str | None]) -> list[str]:
    file = _FILE.fullmatch(dependency.strip())
    if file is None:
        return [dependency]
    path = PurePosixPath(name).parent / file[1]
    text = None if path.is_absolute() or ".." in path.parts else read(str(path))
    if text is None:
        raise _refused(name, f"it names {file[1][:200]!r}, which is not in the model; accepted: a file of the model")
    # As a whole, for a line may go on in the next one.
    return [text]


def _texts(node: Node | None, name: str) -> list[str]:
    if node is None or (isinstance(node, Scalar) and node.is_null):
        return []
    if not isinstance(node, Items) or not all(isinstance(one, Scalar) for one in node.items):
        raise _refused(name, "its dependencies are no list of texts; accepted: a list of packages")
    return [one.text for one in node.items if isinstance(one, Scalar)]


def _refused(name: str, why: str) -> EnvironmentRefused:
    return EnvironmentRefused("BadArgument", f"{name} cannot be used: {why}")
