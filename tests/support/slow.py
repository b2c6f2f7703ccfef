"""A model that takes as long as its caller asks: FP32 "ms" [1, 1] -> "y" [1, 1], the same number, so much later.

Why: deadlines, bounds and drains are told apart only by requests that last. The time is burnt in a Loop of Sin over a
small vector, calibrated once a process, so it is a lower bound on an idle machine and grows on a busy one.
What the loader draws as samples are small numbers: it loads in no time. Serve it with `dispatch: thread`.
"""

from __future__ import annotations

import time
from functools import cache

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from runtimes.tensor import Datatype
from tests.support.models import build, value, weights

LONGEST_MS = 10_000.0
_WIDTH = 2048
_PROBE_TURNS = 200

# For the YAML of a deployment of this model: on a thread, one request a run.
SETTINGS = {"runtime": {"dispatch": "thread"}, "batching": {"enabled": False}}


@cache
def slow_model() -> bytes:
    return _looping(_turns_per_ms())


def _turns_per_ms() -> float:
    session = onnxruntime.InferenceSession(_looping(1.0), providers=["CPUExecutionProvider"])
    turns = {"ms": np.full((1, 1), _PROBE_TURNS, np.float32)}
    session.run(None, turns)
    took_s = []
    for _ in range(5):
        began_s = time.perf_counter()
        session.run(None, turns)
        took_s.append(time.perf_counter() - began_s)
    return _PROBE_TURNS / (min(took_s) * 1000)


def _looping(turns_per_ms: float) -> bytes:
    nodes = [
        helper.make_node("Clip", ["ms", "none", "longest"], ["bounded"]),
        helper.make_node("Mul", ["bounded", "turns_per_ms"], ["turns"]),
        helper.make_node("Cast", ["turns"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Squeeze", ["whole"], ["trips"]),
        helper.make_node("Loop", ["trips", "", "start"], ["burnt"], body=_body()),
        helper.make_node("ReduceSum", ["burnt"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "none"], ["nothing"]),
        helper.make_node("Add", ["ms", "nothing"], ["y"]),
    ]
    inits = [
        weights("none", np.array(0, np.float32)),
        weights("longest", np.array(LONGEST_MS, np.float32)),
        weights("turns_per_ms", np.array(turns_per_ms, np.float32)),
        weights("start", np.ones(_WIDTH, np.float32)),
    ]
    shape = (1, 1)
    return build(nodes, [value("ms", Datatype.FP32, shape)], [value("y", Datatype.FP32, shape)], inits)


def _body() -> object:
    vector = (_WIDTH,)
    return helper.make_graph(
        [helper.make_node("Sin", ["v"], ["w"]), helper.make_node("Identity", ["go"], ["go_on"])],
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, ()),
            helper.make_tensor_value_info("go", TensorProto.BOOL, ()),
            value("v", Datatype.FP32, vector),
        ],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, ()), value("w", Datatype.FP32, vector)],
    )
