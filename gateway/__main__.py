"""`gateway` and `python -m gateway`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    # Nothing here multiplies matrices with numpy, whose threads for that spin for a tenth of a second as they begin.
    # The processes that it starts inherit it; script workers do not.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from gateway.cli.main import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
