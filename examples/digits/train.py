"""Trains the two models of the demo and writes their ONNX files and the sample requests beside this script.

Why: the committed files are not magic: `python -m examples.digits.train` makes them again.
Shapes: both models take `pixels` float32 [N, 64] (0 to 16) and give `label` int64 [N] and
`probabilities` float32 [N, 10].
Source: blue is a random forest, exported by skl2onnx without ZipMap; green is a dense network of one hidden layer,
whose graph is built here from the trained weights, so that it holds six plain operators and nothing else.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier
from sklearn.neural_network import MLPClassifier

from examples.digits.data import Digits, split

HERE = Path(__file__).parent
MODEL_SEED = 0
TRAINING_PASSES = 100
PIXEL_MAX = 16.0
# The oldest operator set and file format that hold all we need, so that old runtimes can load the files too.
OPERATOR_SET = 17
IR_VERSION = 8
SAMPLE_ROWS = 5


def train_blue(train: Digits) -> onnx.ModelProto:
    """A random forest, kept small by leaves of at least two rows."""
    forest = RandomForestClassifier(n_estimators=60, min_samples_leaf=2, random_state=MODEL_SEED)
    forest.fit(train.pixels, train.labels)
    model = to_onnx(
        forest,
        initial_types=[("pixels", FloatTensorType([None, 64]))],
        options={"zipmap": False},
        target_opset={"": OPERATOR_SET, "ai.onnx.ml": 3},
    )
    # The converter leaves the row count without a name; a named dimension tells readers that it is one axis.
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    return _finish(model)


def train_green(train: Digits) -> onnx.ModelProto:
    """A dense network of 64, 128 and 10 units. A fixed number of passes: it need not converge."""
    network = MLPClassifier((128,), alpha=1e-2, random_state=MODEL_SEED)
    for _ in range(TRAINING_PASSES):
        network.partial_fit(train.pixels / PIXEL_MAX, train.labels, classes=np.arange(10))
    weights = {f"weight{i}": w.astype(np.float32) for i, w in enumerate(network.coefs_)}
    biases = {f"bias{i}": b.astype(np.float32) for i, b in enumerate(network.intercepts_)}
    return _finish(_dense_network({**weights, **biases}))


def _dense_network(parameters: dict[str, NDArray[np.float32]]) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Div", ["pixels", "pixel_max"], ["scaled"]),
        helper.make_node("Gemm", ["scaled", "weight0", "bias0"], ["hidden_sum"]),
        helper.make_node("Relu", ["hidden_sum"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "weight1", "bias1"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    constants = {"pixel_max": np.array(PIXEL_MAX, np.float32), **parameters}
    graph = helper.make_graph(
        nodes,
        "digits",
        inputs=[helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 64])],
        outputs=[
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10]),
        ],
        initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPERATOR_SET)])


def _finish(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same file from the same training, whatever version of a converter wrote it."""
    model.ir_version = IR_VERSION
    model.producer_name = "inference-gateway examples/digits"
    model.producer_version = ""
    model.domain = ""
    onnx.checker.check_model(model)
    return model


def accuracy(model: bytes, digits: Digits) -> float:
    """The share of rows whose label onnxruntime gets right."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (labels,) = session.run(["label"], {"pixels": digits.pixels})
    return float((labels == digits.labels).mean())


def sample_texts(held_out: Digits, rows: int = SAMPLE_ROWS) -> dict[str, str]:
    """The sample requests by file name: the first held-out rows, one row a line, and their true labels."""
    pixels = held_out.pixels[:rows].astype(int).tolist()
    lines = ",\n    ".join(json.dumps(row, separators=(",", ":")) for row in pixels)
    flat = ",\n      ".join(json.dumps(row, separators=(",", ":"))[1:-1] for row in pixels)
    return {
        "sample-request.json": f'{{\n  "input_data": [\n    {lines}\n  ]\n}}\n',
        "sample-request-v2.json": (
            '{\n  "inputs": [\n    {\n      "name": "pixels",\n'
            f'      "shape": [{rows}, 64],\n      "datatype": "FP32",\n'
            f'      "data": [\n      {flat}\n      ]\n    }}\n  ]\n}}\n'
        ),
        "sample-labels.json": json.dumps(held_out.labels[:rows].tolist()) + "\n",
    }


def main() -> None:
    train, held_out = split()
    for name, train_model in (("blue", train_blue), ("green", train_green)):
        content = train_model(train).SerializeToString(deterministic=True)
        path = HERE / name / "model.onnx"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        print(f"{name}: {accuracy(content, held_out):.4f} of the held-out rows right, {len(content)} bytes")
    for file_name, text in sample_texts(held_out).items():
        (HERE / file_name).write_text(text)


if __name__ == "__main__":
    main()
