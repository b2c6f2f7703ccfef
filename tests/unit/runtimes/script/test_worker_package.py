"""What runs in the user's interpreter: old syntax, the standard library, nothing of the gateway's."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from runtimes.script import worker_lib

# What serves MLflow models runs where these are installed, and imports them when it is called.
LATE = {"igw_worker/pyfunc/model.py": {"mlflow", "pandas"}}
ROOT = Path(str(worker_lib.__file__)).parent
SOURCES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_of_the_worker_is_python_3_8_and_needs_nothing_installed(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    at_the_top = {id(node) for node in tree.body}
    late = LATE.get(path.relative_to(ROOT).as_posix(), set())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        else:
            continue
        for name in names:
            first = name.split(".")[0]
            is_late = first in late and id(node) not in at_the_top
            assert first in sys.stdlib_module_names or is_late, f"{path.name}:{node.lineno} imports {name}"
