"""The two models that every peer serves, made once and kept as files; and the rows and answers to check with.

Shapes: `tabular` float32 [N, 30] to [N, 2], a forest of 100 trees, some microseconds a row; `mlp` float32 [N, 512] to
[N, 10], a 512-2048-2048-10 network, most of a millisecond a row alone and a tenth of that in a batch.
Both have one output, so that no peer pays for a second one that another does not send. Rows are rounded, so that JSON
and binary carry the same numbers: the float32 of a row's JSON is the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from bench.load.models import WIDE_UNITS, wide_network

CHECK_ROWS = 64
SEED = 0
DIGITS = 6
# In the file names: a change of what is made here must not meet a file that an earlier version left.
EDITION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """`rows` float64 [CHECK_ROWS, features], rounded; `answers` float32 [CHECK_ROWS, outputs]."""

    name: str
    path: Path
    input: str
    output: str
    rows: NDArray[np.float64]
    answers: NDArray[np.float32]

    @property
    def features(self) -> int:
        return int(self.rows.shape[1])

    @property
    def outputs(self) -> int:
        return int(self.answers.shape[1])


def make(folder: Path, name: str) -> Model:
    path = folder / f"{name}-{EDITION}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        unfinished.write_bytes(MAKERS[name]().SerializeToString())
        unfinished.replace(path)
    session = open_session(path)
    source, sink = session.get_inputs()[0].name, session.get_outputs()[0].name
    rows = _rows(name)
    answers: NDArray[np.float32] = session.run([sink], {source: rows.astype(np.float32)})[0]
    return Model(name=name, path=path, input=source, output=sink, rows=rows, answers=answers)


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """One thread, as every peer's."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _forest() -> onnx.ModelProto:
    # Slow to import, and needed once.
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import RandomForestClassifier

    table = load_breast_cancer()
    forest = RandomForestClassifier(n_estimators=100, random_state=SEED).fit(table.data, table.target)
    model: onnx.ModelProto = to_onnx(
        forest,
        initial_types=[("x", FloatTensorType([None, table.data.shape[1]]))],
        options={id(forest): {"zipmap": False}},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    probabilities = [output for output in model.graph.output if output.name == "probabilities"]
    del model.graph.output[:]
    model.graph.output.extend(probabilities)
    onnx.checker.check_model(model)
    return model


def _rows(name: str) -> NDArray[np.float64]:
    if name == "tabular":
        from sklearn.datasets import load_breast_cancer

        exact: NDArray[np.float64] = load_breast_cancer().data[:CHECK_ROWS].astype(np.float64)
    else:
        exact = np.random.default_rng(SEED).standard_normal((CHECK_ROWS, WIDE_UNITS[0]))
    rounded: NDArray[np.float64] = np.round(exact, DIGITS)
    return rounded


MAKERS = {"tabular": _forest, "mlp": wide_network}
