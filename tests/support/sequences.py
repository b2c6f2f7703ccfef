"""Small models over sequences, for padding: an encoder that minds its mask, one that does not, and a recogniser.

All weights are seeded. "N" is the rows, "T" the length of a text, "W" the width of an image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from runtimes.tensor import Datatype
from tests.support.models import build, value, weights

VOCABULARY = 100


class _Encoder:
    """Nodes and weights of an encoder under construction."""

    def __init__(self, width: int, positions: int, seed: int) -> None:
        self.width = width
        self.positions = positions
        self.nodes: list[Any] = []
        self.inits: list[Any] = []
        self._chance = np.random.default_rng(seed)
        self._count = 0

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        self._count += 1
        name = output or f"{kind.lower()}_{self._count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, array: Any) -> str:
        self._count += 1
        self.inits.append(weights(f"c{self._count}", np.asarray(array)))
        return f"c{self._count}"

    def number(self, number: float) -> str:
        return self.constant(np.array(number, np.float32))

    def indices(self, *numbers: int) -> str:
        return self.constant(np.array(numbers, np.int64))

    def matrix(self, high: int, wide: int) -> str:
        return self.constant((self._chance.standard_normal((high, wide)) / high**0.5).astype(np.float32))

    def dense(self, x: str, wide: int, high: int | None = None) -> str:
        return self.node("MatMul", x, self.matrix(high or self.width, wide))

    def norm(self, x: str) -> str:
        ones, zeros = np.ones(self.width, np.float32), np.zeros(self.width, np.float32)
        return self.node("LayerNormalization", x, self.constant(ones), self.constant(zeros), axis=-1)

    def embed(self, ids: str) -> str:
        words = self.node("Gather", self.matrix(VOCABULARY, self.width), ids)
        length = self.node("Slice", self.node("Shape", ids), self.indices(1), self.indices(2))
        place = self.node("Slice", self.matrix(self.positions, self.width), self.indices(0), length, self.indices(0))
        # A table that is too short is a mistake of the model's, not fewer positions for all.
        shape = self.node("Concat", length, self.indices(self.width), axis=0)
        return self.node("Add", words, self.node("Reshape", place, shape))

    def attend(self, x: str, bias: str | None) -> str:
        query, key, values = (self.dense(x, self.width) for _ in range(3))
        scores = self.node("MatMul", query, self.node("Transpose", key, perm=[0, 2, 1]))
        scores = self.node("Mul", scores, self.number(self.width**-0.5))
        if bias is not None:
            scores = self.node("Add", scores, bias)
        return self.dense(self.node("MatMul", self.node("Softmax", scores, axis=-1), values), self.width)

    def layer(self, x: str, bias: str | None) -> str:
        x = self.norm(self.node("Add", x, self.attend(x, bias)))
        inner = self.node("Relu", self.dense(x, 2 * self.width))
        return self.norm(self.node("Add", x, self.dense(inner, self.width, 2 * self.width)))


def encoder(
    *, minds_mask: bool = True, width: int = 16, layers: int = 2, positions: int = 512, seed: int = 0
) -> bytes:
    """INT64 "input_ids" and "attention_mask" [N, T] -> FP32 "hidden" [N, T, width] and "pooled" [N, width].

    Without `minds_mask` it attends to the padding and averages over it: right alone, wrong when padded.
    """
    made = _Encoder(width, positions, seed)
    real = made.node("Cast", "attention_mask", to=TensorProto.FLOAT)
    bias: str | None = None
    if minds_mask:
        hidden = made.node("Mul", made.node("Sub", made.number(1.0), real), made.number(-1e9))
        bias = made.node("Unsqueeze", hidden, made.indices(1))
    x = made.embed("input_ids")
    for _ in range(layers):
        x = made.layer(x, bias)
    made.node("Identity", x, output="hidden")
    if minds_mask:
        column = made.node("Unsqueeze", real, made.indices(2))
        total = made.node("ReduceSum", made.node("Mul", x, column), made.indices(1), keepdims=0)
        made.node("Div", total, made.node("ReduceSum", real, made.indices(1), keepdims=1), output="pooled")
    else:
        made.node("ReduceMean", x, axes=[1], keepdims=0, output="pooled")
    inputs = [value(name, Datatype.INT64, ("N", "T")) for name in ("input_ids", "attention_mask")]
    outputs = [value("hidden", Datatype.FP32, ("N", "T", width)), value("pooled", Datatype.FP32, ("N", width))]
    return build(made.nodes, inputs, outputs, made.inits)


def recogniser(*, step: int = 4, classes: int = 5, seed: int = 0) -> bytes:
    """FP32 "x" [N, 3, 8, W] -> "y" [N, W // step, classes]: one answer for each `step` columns, each on its own."""
    chance = np.random.default_rng(seed)
    kernel = chance.standard_normal((classes, 3, 8, step)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], strides=[1, step]),
        helper.make_node("Squeeze", ["c", "two"], ["s"]),
        helper.make_node("Transpose", ["s"], ["y"], perm=[0, 2, 1]),
    ]
    inits = [weights("kernel", kernel), weights("two", np.array([2], np.int64))]
    shapes = {"x": ("N", 3, 8, "W"), "y": ("N", None, classes)}
    x, y = (value(name, Datatype.FP32, shape) for name, shape in shapes.items())
    return build(nodes, [x], [y], inits)


def mean_over_length() -> bytes:
    """FP32 "x" [N, T] -> "y" [N, 1], the mean: zeros at the end change it, and there is no mask."""
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=1)]
    return build(nodes, [value("x", Datatype.FP32, ("N", "T"))], [value("y", Datatype.FP32, ("N", 1))])
