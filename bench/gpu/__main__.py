"""`python -m bench.gpu`: plain runs, fixed buffers and CUDA graphs on a GPU; prints tables, and JSON with --json -.

Exit status: 0 when everything was measured; 1 for a wrong answer; 3 where there is no GPU, with the reason.
`--provider cpu` tries the tool itself on any machine: its figures say nothing of a GPU, and it has no graphs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import machine
from bench.gpu import measure, report
from bench.gpu.models import made

COPY_SIZES = (1 << 10, 1 << 14, 1 << 18, 1 << 22, 1 << 26)
PACKAGES = (*machine.PACKAGES, "onnxruntime-gpu", "nvidia-ml-py")
NO_DEVICE = 3


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as folder:
        try:
            found = _measured(options, Path(folder))
        except measure.NoDevice as reason:
            print(f"nothing was measured, as there is no GPU to be had: {reason}", file=sys.stderr)
            return NO_DEVICE
        except measure.WrongAnswer as wrong:
            print(wrong, file=sys.stderr)
            return 1
    if options.json == "-":
        print(json.dumps(found, indent=2))
    elif options.json:
        Path(options.json).write_text(json.dumps(found, indent=2) + "\n")
    return 0


def _measured(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    models = {Path(name).stem: Path(name) for name in options.model} or _written(folder)
    memory = measure.found_memory(next(iter(models.values())), options.provider)
    timings = [
        timing
        for name, path in models.items()
        for timing in measure.runs(name, path, options.provider, options.rows, options.seconds)
    ]
    copies = measure.copies(memory, options.copy_bytes, options.seconds)
    # Where JSON goes to stdout, it goes there alone.
    out = sys.stderr if options.json == "-" else sys.stdout
    for text in (report.runs_table(timings), report.notes(timings), report.copies_table(copies)):
        print(text, end="\n\n", file=out)
    return {
        "provider": options.provider,
        "gpus": _gpus(),
        "machine": machine.facts(PACKAGES),
        "seconds": options.seconds,
        "runs": measure.plain(timings),
        "copies": measure.plain(copies),
    }


def _written(folder: Path) -> dict[str, Path]:
    models = {name: folder / f"{name}.onnx" for name in made()}
    for name, model in made().items():
        models[name].write_bytes(model)
    return models


def _gpus(driver: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """What the driver says of each, as it says it."""
    return [path.read_text() for path in sorted(driver.glob("*/information"))]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--provider", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--model", action="append", default=[], help="an ONNX file; several may be given")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--copy-bytes", type=int, nargs="+", default=list(COPY_SIZES))
    parser.add_argument("--seconds", type=float, default=1.0, help="for each way and size")
    parser.add_argument("--json", default="", help="a file to write to, or - for stdout")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
