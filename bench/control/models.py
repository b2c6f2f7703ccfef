"""Small models whose answers tell them apart, and networks of some megabytes.

Shapes: `scaled` takes "x" float32 [N, 2] and gives "y" float32 [N, 2], each number times `factor`; `network` takes
[N, 1024] and gives [N, 16].
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

ROW = (1.0, 2.0)
WIDTH = 1024
OUT = 16


def scaled(factor: int) -> bytes:
    constants = [numpy_helper.from_array(np.array([factor], np.float32), "factor")]
    return _model([helper.make_node("Mul", ["x", "factor"], ["y"])], constants, 2, 2)


def network(megabytes: int, seed: int) -> bytes:
    """Layers of 1024 units: 4 MB each."""
    random = np.random.default_rng(seed)
    nodes, constants, value = [], [], "x"
    widths = [WIDTH] * (megabytes // 4 + 1) + [OUT]
    for number, (before, after) in enumerate(pairwise(widths)):
        weights = random.standard_normal((before, after)).astype(np.float32) / np.float32(before**0.5)
        constants.append(numpy_helper.from_array(weights, f"weights{number}"))
        is_last = number == len(widths) - 2
        nodes.append(helper.make_node("MatMul", [value, f"weights{number}"], ["y" if is_last else f"sum{number}"]))
        if not is_last:
            value = f"value{number}"
            nodes.append(helper.make_node("Relu", [f"sum{number}"], [value]))
    return _model(nodes, constants, WIDTH, OUT)


def _model(nodes: list[helper.NodeProto], constants: list[TensorProto], width: int, out: int) -> bytes:
    graph = helper.make_graph(
        nodes,
        "model",
        inputs=[helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])],
        outputs=[helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", out])],
        initializer=constants,
    )
    model: ModelProto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    return bytes(model.SerializeToString())
