"""What is served while measuring: the digits of the demo, and a wide network that is made here.

Shapes: `wide` takes `x` float32 [N, 512] and gives `y` float32 [N, 10]; 512, 2048, 2048 and 10 units, as in the
measurements that the design rests on. Its weights are random and seeded: only its cost matters.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.load.requests import Rows

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
WIDE_UNITS = (512, 2048, 2048, 10)
WIDE_ROWS = 16
SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One deployment, with the file it serves and rows to send."""

    endpoint: str
    deployment: str
    path: Path
    input: str
    outputs: tuple[str, ...]
    rows: Rows

    @property
    def label(self) -> str:
        return f"{self.endpoint}/{self.deployment}"


def make_folder(folder: Path) -> list[Served]:
    """Writes the YAML and the models that `gateway serve --apply` takes."""
    shutil.copytree(DIGITS, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    wide = folder / "wide" / "model.onnx"
    wide.parent.mkdir()
    wide.write_bytes(wide_network().SerializeToString())
    (folder / "wide-endpoint.yml").write_text("name: wide\nauth_mode: key\ntraffic:\n  dense: 100\n")
    (folder / "wide-dense.yml").write_text(
        "name: dense\nendpoint_name: wide\nmodel:\n  path: ./wide/model.onnx\n  type: custom_model\n"
        "instance_type: Standard_DS3_v2\n"
    )
    digits = np.array(json.loads((DIGITS / "sample-request.json").read_text())["input_data"], np.float32)
    random_rows = np.random.default_rng(SEED).standard_normal((WIDE_ROWS, WIDE_UNITS[0])).astype(np.float32)
    return [
        *(
            Served(
                endpoint="digits",
                deployment=name,
                path=folder / name / "model.onnx",
                input="pixels",
                outputs=("label", "probabilities"),
                rows=digits,
            )
            for name in ("blue", "green")
        ),
        Served(endpoint="wide", deployment="dense", path=wide, input="x", outputs=("y",), rows=random_rows),
    ]


def wide_network(units: tuple[int, ...] = WIDE_UNITS) -> onnx.ModelProto:
    random = np.random.default_rng(SEED)
    nodes, constants, value = [], [], "x"
    for i, (fan_in, fan_out) in enumerate(pairwise(units)):
        weights = random.standard_normal((fan_in, fan_out)).astype(np.float32) / np.float32(fan_in**0.5)
        constants.append(numpy_helper.from_array(weights, f"weight{i}"))
        constants.append(numpy_helper.from_array(np.zeros(fan_out, np.float32), f"bias{i}"))
        last = i == len(units) - 2
        nodes.append(helper.make_node("Gemm", [value, f"weight{i}", f"bias{i}"], ["y" if last else f"sum{i}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"sum{i}"], [f"hidden{i}"]))
            value = f"hidden{i}"
    graph = helper.make_graph(
        nodes,
        "wide",
        inputs=[helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", units[0]])],
        outputs=[helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", units[-1]])],
        initializer=constants,
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
