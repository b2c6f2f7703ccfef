"""Models that are made here, each for what it shows of a device. Weights are random and seeded: only cost matters.

Shapes: all take `x` float32 and give `y` float32, rows along the first axis. `dense` is the network of `bench.load`;
`deep` is many small layers, whose kernels take less time than starting them; `images` is convolutions over 3 x 64 x
64.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.load.models import wide_network

DEEP_UNITS = (128,) * 49
_CHANNELS = (3, 32, 64, 128)
_SIDE = 64
_SEED = 0


def made() -> dict[str, bytes]:
    networks = {"dense": wide_network(), "deep": wide_network(DEEP_UNITS), "images": _images()}
    return {name: network.SerializeToString() for name, network in networks.items()}


def _images() -> onnx.ModelProto:
    random = np.random.default_rng(_SEED)
    nodes, constants, value = [], [], "x"
    for i, (fan_in, fan_out) in enumerate(pairwise(_CHANNELS)):
        kernel = random.standard_normal((fan_out, fan_in, 3, 3)).astype(np.float32) / np.float32(3 * fan_in**0.5)
        constants.append(numpy_helper.from_array(kernel, f"kernel{i}"))
        sides = {"pads": [1, 1, 1, 1], "strides": [2, 2]}
        nodes.append(helper.make_node("Conv", [value, f"kernel{i}"], [f"sum{i}"], **sides))
        nodes.append(helper.make_node("Relu", [f"sum{i}"], [f"hidden{i}"]))
        value = f"hidden{i}"
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["y"]))
    graph = helper.make_graph(
        nodes,
        "images",
        inputs=[helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, _SIDE, _SIDE])],
        outputs=[helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", _CHANNELS[-1], 1, 1])],
        initializer=constants,
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
