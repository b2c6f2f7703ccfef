"""Tiny ONNX models for every test that needs one, built with the `onnx` package and named for what is odd about them.

Each builder returns the file's bytes; `write` puts them into a folder. "rows" is the batch dimension, symbol "N".
`real` finds models that installed packages carry, without importing the packages.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from runtimes.tensor import Array, Datatype

# What is written is read by onnxruntime 1.22 and newer.
_OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
_IR_VERSION = 8

Dims = Sequence[int | str | None]

REAL_MODELS = {
    "silero_vad": ("silero_vad", "data/silero_vad.onnx"),
    "magika": ("magika", "models/standard_v3_3/model.onnx"),
    "nudenet": ("nudenet", "320n.onnx"),
    "rapidocr_det": ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx"),
    "rapidocr_rec": ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx"),
    "rapidocr_cls": ("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"),
}


def real(name: str) -> Path | None:
    """The file of one of REAL_MODELS, or None where its package is not installed."""
    package, inside = REAL_MODELS[name]
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / inside
    return path if path.exists() else None


def write(folder: Path, model: bytes, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(model)
    return path


def value(name: str, datatype: Datatype, shape: Dims) -> Any:
    """An input or output of a graph."""
    return helper.make_tensor_value_info(name, _onnx_type(datatype), shape)


def weights(name: str, array: Array) -> Any:
    return numpy_helper.from_array(array, name)


def build(nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], inits: Sequence[Any] = ()) -> bytes:
    """A model of these nodes."""
    graph = helper.make_graph(list(nodes), "test", list(inputs), list(outputs), list(inits))
    return bytes(
        helper.make_model(graph, opset_imports=_OPSETS, ir_version=_IR_VERSION).SerializeToString(deterministic=True)
    )


def identity(datatype: Datatype = Datatype.FP32, shape: Dims = ("N", 2)) -> bytes:
    """y = x, for any datatype."""
    return build(
        [helper.make_node("Identity", ["x"], ["y"])], [value("x", datatype, shape)], [value("y", datatype, shape)]
    )


def double(shape: Dims = ("N", 4)) -> bytes:
    """y = 2 x, FP32: the plainest model that batches."""
    return _fp32([helper.make_node("Add", ["x", "x"], ["y"])], shape, shape)


def linear(features: int = 4, outputs: int = 3, seed: int = 0) -> bytes:
    """y = x W + b, FP32 [N, features] -> [N, outputs]."""
    return mlp((features, outputs), seed)


def mlp(sizes: Sequence[int] = (512, 2048, 2048, 10), seed: int = 0) -> bytes:
    """Layers with ReLU between them, FP32 "x" [N, first] -> "y" [N, last]."""
    chance = np.random.default_rng(seed)
    nodes, inits, name = [], [], "x"
    for layer, (wide, narrow) in enumerate(itertools.pairwise(sizes)):
        is_last = layer == len(sizes) - 2
        inits.append(weights(f"w{layer}", (chance.standard_normal((wide, narrow)) / wide**0.5).astype(np.float32)))
        inits.append(weights(f"b{layer}", chance.standard_normal(narrow).astype(np.float32)))
        gemm = "y" if is_last else f"h{layer}"
        nodes.append(helper.make_node("Gemm", [name, f"w{layer}", f"b{layer}"], [gemm]))
        name = f"r{layer}"
        if not is_last:
            nodes.append(helper.make_node("Relu", [gemm], [name]))
    return _fp32(nodes, ("N", sizes[0]), ("N", sizes[-1]), inits)


def no_batch_axis() -> bytes:
    """FP32 [3] -> [3]: one thing at a time, nothing free."""
    return double((3,))


def fixed_batch_of_one() -> bytes:
    """FP32 [1, 4] -> [1, 4]."""
    return double((1, 4))


def hidden_batch_of_one() -> bytes:
    """Claims [N, 4], but an inner Reshape to [1, 4] takes one row only."""
    nodes = [helper.make_node("Reshape", ["x", "one"], ["r"]), helper.make_node("Relu", ["r"], ["y"])]
    return _fp32(nodes, ("N", 4), ("N", 4), [weights("one", np.array([1, 4], np.int64))])


def batch_axis_second() -> bytes:
    """ "x" [N, 4] and "state" [2, N, 4] -> "y" [N, 4] and "state_out" [2, N, 4]: rows on axis 1 of the state."""
    nodes = [
        helper.make_node("ReduceSum", ["state", "zero"], ["s"], keepdims=0),
        helper.make_node("Add", ["x", "s"], ["y"]),
        helper.make_node("Add", ["state", "x"], ["state_out"]),
    ]
    shapes = {"x": (None, 4), "state": (2, None, 4), "y": (None, 4), "state_out": (None, None, None)}
    tensors = {name: value(name, Datatype.FP32, shape) for name, shape in shapes.items()}
    zero = weights("zero", np.array([0], np.int64))
    return build(nodes, [tensors["x"], tensors["state"]], [tensors["y"], tensors["state_out"]], [zero])


def scalar_beside_rows() -> bytes:
    """y = x * scale, with "scale" an FP32 scalar that all rows of a run share."""
    return build(
        [helper.make_node("Mul", ["x", "scale"], ["y"])],
        [value("x", Datatype.FP32, ("N", 4)), value("scale", Datatype.FP32, ())],
        [value("y", Datatype.FP32, ("N", 4))],
    )


def fewer_rows_out() -> bytes:
    """Adds pairs up: one output for all rows together, [N, 4] -> [1, 4]."""
    return _fp32([helper.make_node("ReduceSum", ["x", "zero"], ["y"])], ("N", 4), (1, 4), [_ZERO_AXIS])


def rows_dropped() -> bytes:
    """Keeps only rows whose first value is positive: as many rows out as it likes."""
    nodes = [
        helper.make_node("Slice", ["x", "from", "to", "axis"], ["first"]),
        helper.make_node("Squeeze", ["first", "axis"], ["flat"]),
        helper.make_node("Greater", ["flat", "limit"], ["keep"]),
        helper.make_node("Compress", ["x", "keep"], ["y"], axis=0),
    ]
    numbers = {"from": [0], "to": [1], "axis": [1]}
    inits = [weights(name, np.array(number, np.int64)) for name, number in numbers.items()]
    return _fp32(nodes, ("N", 4), ("M", 4), [*inits, weights("limit", np.array(0, np.float32))])


def more_rows_out() -> bytes:
    """Every row twice, [N, 4] -> [M, 4]."""
    return _fp32([helper.make_node("Concat", ["x", "x"], ["y"], axis=0)], ("N", 4), ("M", 4))


def mean_over_batch() -> bytes:
    """y = x - mean over the rows: the right shape, and wrong in company."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["y"]),
    ]
    return _fp32(nodes, ("N", 4), ("N", 4))


def faint_mean_over_batch() -> bytes:
    """As mean_over_batch, but a row feels only a millionth of its mates: ordinary ones are lost in rounding."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Mul", ["m", "part"], ["p"]),
        helper.make_node("Sub", ["x", "p"], ["y"]),
    ]
    return _fp32(nodes, ("N", 4), ("N", 4), [weights("part", np.array(1e-6, np.float32))])


def scaled_by_batch() -> bytes:
    """Quantized while it runs, with one scale for the whole batch, as dynamic quantization does it."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    return _fp32(nodes, ("N", 4), ("N", 4))


def similarity() -> bytes:
    """Each row against each row, [N, 4] -> [N, N]: both axes grow with the rows."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    return _fp32(nodes, ("N", 4), ("N", "N"))


def random_noise() -> bytes:
    """y = x + noise: not even repeatable alone."""
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"]),
        helper.make_node("Add", ["x", "noise"], ["y"]),
    ]
    return _fp32(nodes, ("N", 4), ("N", 4))


def embedding(rows: int = 2, width: int = 3) -> bytes:
    """INT64 ids [N, T] looked up in a small table -> FP32 [N, T, width]; ids from `rows` on fail."""
    table = weights("table", np.arange(rows * width, dtype=np.float32).reshape(rows, width))
    return build(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        [value("ids", Datatype.INT64, ("N", "T"))],
        [value("y", Datatype.FP32, ("N", "T", width))],
        [table],
    )


def text_labels() -> bytes:
    """STRING labels out of INT64 classes: "class" [N] -> "label" [N]."""
    labels = {"keys_int64s": list(range(100)), "values_strings": [f"label {number}" for number in range(100)]}
    node = helper.make_node("LabelEncoder", ["class"], ["label"], domain="ai.onnx.ml", **labels)
    return build([node], [value("class", Datatype.INT64, ("N",))], [value("label", Datatype.BYTES, ("N",))])


def zip_map(labels: Sequence[str] = ("cat", "dog")) -> bytes:
    """Probabilities as a sequence of maps: FP32 "x" [N, 2] -> "probabilities", one dict a row."""
    node = helper.make_node("ZipMap", ["x"], ["probabilities"], domain="ai.onnx.ml", classlabels_strings=list(labels))
    entry = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    output = helper.make_value_info("probabilities", helper.make_sequence_type_proto(entry))
    return build([node], [value("x", Datatype.FP32, ("N", len(labels)))], [output])


def bfloat16_beside_maps() -> bytes:
    """A map and a BF16 tensor "z" [N, 2] out of one model."""
    node = helper.make_node("ZipMap", ["x"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    entry = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    maps = helper.make_value_info("probabilities", helper.make_sequence_type_proto(entry))
    small = helper.make_node("Cast", ["x"], ["z"], to=TensorProto.BFLOAT16)
    outputs = [maps, value("z", Datatype.BF16, ("N", 2))]
    return build([node, small], [value("x", Datatype.FP32, ("N", 2))], outputs)


def rounded_to_bfloat16() -> bytes:
    """FP32 "x" [N, 2] -> BF16 "y" [N, 2]."""
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16)
    return build([node], [value("x", Datatype.FP32, ("N", 2))], [value("y", Datatype.BF16, ("N", 2))])


def unknown_rank() -> bytes:
    """y = x, FP32 [N, 4], by way of a Reshape that hides from onnxruntime how many axes "y" has."""
    nodes = [
        helper.make_node("Shape", ["x"], ["all"]),
        helper.make_node("Compress", ["all", "both"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    both = weights("both", np.array([True, True]))
    return build(nodes, [value("x", Datatype.FP32, ("N", 4))], [output], [both])


def sequence_of_tensors() -> bytes:
    """ "x" [N, 2] split into a sequence of tensors: a type that is refused."""
    output = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, [None, 2])
    return build(
        [helper.make_node("SplitToSequence", ["x"], ["y"], axis=0, keepdims=1)],
        [value("x", Datatype.FP32, ("N", 2))],
        [output],
    )


def picky_width(width: int = 7) -> bytes:
    """Claims [N, F], but takes F = `width` only."""
    table = weights("w", np.ones((width, 2), np.float32))
    return _fp32([helper.make_node("MatMul", ["x", "w"], ["y"])], ("N", "F"), ("N", 2), [table])


def never_runs() -> bytes:
    """Loads, and fails on every input: a row of "table" that is not there is taken."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Add", ["shape", "far"], ["place"]),
        helper.make_node("Gather", ["table", "place"], ["y"]),
    ]
    inits = [weights("far", np.array([99], np.int64)), weights("table", np.zeros(2, np.float32))]
    return _fp32(nodes, ("N", 4), ("M",), inits)


def fails_on_index(rows: int = 2) -> bytes:
    """As `embedding`, one id a row: "id" [N] -> "y" [N, 1]. An id out of the table poisons its whole run."""
    table = weights("table", np.arange(rows, dtype=np.float32).reshape(rows, 1))
    return build(
        [helper.make_node("Gather", ["table", "id"], ["y"])],
        [value("id", Datatype.INT64, ("N",))],
        [value("y", Datatype.FP32, ("N", 1))],
        [table],
    )


@cache
def random_forest(zipmap: bool = True, string_labels: bool = False, features: int = 4) -> bytes:
    """A scikit-learn forest: "X" [N, features] -> "output_label" and "output_probability" (maps with `zipmap`)."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier

    chance = np.random.default_rng(0)
    rows = chance.standard_normal((60, features)).astype(np.float32)
    classes: Any = (rows[:, 0] > 0).astype(np.int64) + (rows[:, 1] > 0)
    if string_labels:
        classes = np.array(["low", "middle", "high"])[classes]
    forest = RandomForestClassifier(5, max_depth=3, random_state=0).fit(rows, classes)
    model = to_onnx(
        forest, rows[:1], options={id(forest): {"zipmap": zipmap}}, target_opset={"": 17, "ai.onnx.ml": 3}
    )
    return bytes(model.SerializeToString())


def external_data(location: str, **entries: str) -> bytes:
    """y = x + w, with "w" (FP32 [4], 16 bytes) in the file `location`; `entries` such as offset and length."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, text in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=text)
    return _fp32([helper.make_node("Add", ["x", "w"], ["y"])], ("N", 4), ("N", 4), [tensor])


_ZERO_AXIS = weights("zero", np.array([0], np.int64))


def _fp32(nodes: Sequence[Any], shape_in: Dims, shape_out: Dims, inits: Sequence[Any] = ()) -> bytes:
    return build(nodes, [value("x", Datatype.FP32, shape_in)], [value("y", Datatype.FP32, shape_out)], inits)


def _onnx_type(datatype: Datatype) -> int:
    names = {Datatype.FP32: "FLOAT", Datatype.FP64: "DOUBLE", Datatype.BYTES: "STRING"}
    return int(TensorProto.DataType.Value(names.get(datatype, datatype.onnx.upper())))


def endless() -> bytes:
    """y = x + a sum of four billion billion ones: its first run, which is at load, never ends."""
    tensor = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["sum", "one"], ["more"])],
        "body",
        [
            tensor("i", TensorProto.INT64, []),
            tensor("go", TensorProto.BOOL, []),
            tensor("sum", TensorProto.FLOAT, [1]),
        ],
        [tensor("on", TensorProto.BOOL, []), tensor("more", TensorProto.FLOAT, [1])],
        [weights("one", np.ones(1, np.float32))],
    )
    return build(
        [
            helper.make_node("Loop", ["times", "true", "zero"], ["total"], body=body),
            helper.make_node("Add", ["x", "total"], ["y"]),
        ],
        [value("x", Datatype.FP32, ("N", 4))],
        [value("y", Datatype.FP32, ("N", 4))],
        [
            weights("times", np.array(1 << 62)),
            weights("true", np.array(True)),
            weights("zero", np.zeros(1, np.float32)),
        ],
    )
