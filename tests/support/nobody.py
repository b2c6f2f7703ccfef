"""Running something as a user who is not root, where the tests are root's: as Debian's `nobody`.

The tests' own interpreter may lie where nobody may look, so it is another of the machine's.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

NOBODY = 65534


def another_user() -> dict[str, Any]:
    """The arguments of subprocess for it; none where the tests are not root's."""
    return {} if os.getuid() else {"user": NOBODY, "group": NOBODY, "extra_groups": []}


def give_to_him(*folders: Path) -> None:
    for folder in folders:
        if another_user():
            os.chown(folder, NOBODY, NOBODY)


def his_python() -> Path:
    found = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if found is None:
        pytest.skip("there is no python3 in /usr/bin that every user may run")
    return Path(found)
