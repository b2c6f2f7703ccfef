"""Triton model repositories for tests: folders of tiny models, with configurations as people write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import helper

from runtimes.tensor import Datatype
from tests.support.models import Dims, build, value, weights

DELAY_US = 30_000_000

TIMES = """name: "times" # what the folder is called
platform: "onnxruntime_onnx"
max_batch_size: 8
input [
  { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
]
output [ { name: "y" data_type: TYPE_FP32 dims: 4 } ]
version_policy: { latest { num_versions: 2 } }
instance_group [ { kind: KIND_CPU count: 1 } ]
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 100
  default_queue_policy { max_queue_size: 100 }
}
"""


def times(factor: float, shape: Dims = ("N", 4)) -> bytes:
    """y = factor x, FP32."""
    node = helper.make_node("Mul", ["x", "factor"], ["y"])
    x, y = (value(name, Datatype.FP32, shape) for name in ("x", "y"))
    return build([node], [x], [y], [weights("factor", np.array(factor, np.float32))])


def repository(
    folder: str, model: str = "times", config: str = TIMES, versions: Mapping[int, float] | None = None
) -> dict[str, Any]:
    """The files of a repository with one model: each version multiplies by its own number."""
    numbers = versions or {1: 10.0, 3: 30.0}
    files: dict[str, Any] = {f"{folder}/{model}/{version}/model.onnx": times(by) for version, by in numbers.items()}
    return files | ({f"{folder}/{model}/config.pbtxt": config} if config else {})
