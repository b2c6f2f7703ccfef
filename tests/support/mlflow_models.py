"""Makes MLflow models as users do, with the real mlflow: `PYTHON mlflow_models.py FOLDER`, no test imports it.

Run by an interpreter that has mlflow, scikit-learn and pandas; `onnx` is made where skl2onnx and onnx are there too.
Beside each model, `expected.json` holds what the model itself predicts of `rows.json`.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

# As the seed of test_mlflow.py asks for, so that one environment does for all.
CONDA = {"dependencies": ["python=3", {"pip": ["scikit-learn", "pandas", "mlflow-skinny"]}]}


class Frames(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Answers with all that a DataFrame may hold; params say how often, and whether it fails."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        if params["fails"]:
            raise KeyError("the column of a customer")
        rows = pd.concat([model_input] * params["times"], ignore_index=True)
        when = [pd.NaT if pd.isna(one) else pd.Timestamp("2026-01-31T12:00:00Z") for one in rows["x"]]
        return pd.DataFrame({"twice": rows["x"] * 2, "when": when, "n": np.arange(len(rows), dtype=np.int32)})


class Tensors(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Named tensors in, one out."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        assert model_input["image"].dtype == np.float32
        return model_input["image"].sum(axis=(1, 2)) * model_input["factor"]


def iris(folder: Path) -> None:
    rows, kinds = load_iris(return_X_y=True, as_frame=True)
    model = LogisticRegression(max_iter=500).fit(rows, kinds)
    mlflow.sklearn.save_model(
        model,
        str(folder / "iris"),
        conda_env=CONDA,
        serialization_format="cloudpickle",
        signature=infer_signature(rows, model.predict(rows)),
        input_example=rows.head(2),
    )
    expect(folder / "iris", {"columns": list(rows.columns), "data": rows.values.tolist()}, model.predict(rows))


def frames(folder: Path) -> None:
    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.double, "x")]),
        params=ParamSchema(
            [ParamSpec("times", DataType.long, 1), ParamSpec("fails", DataType.boolean, default=False)]
        ),
    )
    mlflow.pyfunc.save_model(str(folder / "frames"), python_model=Frames(), conda_env=CONDA, signature=signature)


def tensors(folder: Path) -> None:
    inputs = Schema(
        [TensorSpec(np.dtype(np.float32), (-1, 2, 2), "image"), TensorSpec(np.dtype(np.int64), (-1,), "factor")]
    )
    outputs = Schema([TensorSpec(np.dtype(np.float32), (-1,))])
    signature = ModelSignature(inputs=inputs, outputs=outputs)
    mlflow.pyfunc.save_model(str(folder / "tensors"), python_model=Tensors(), conda_env=CONDA, signature=signature)


def onnx(folder: Path) -> None:
    from skl2onnx import to_onnx

    rows, kinds = load_iris(return_X_y=True)
    rows = rows.astype(np.float32)
    model = LogisticRegression(max_iter=500).fit(rows, kinds)
    proto = to_onnx(model, rows[:1], options={"zipmap": False})
    mlflow.onnx.save_model(proto, str(folder / "onnx"), pip_requirements=["mlflow-skinny", "onnxruntime"])
    expect(folder / "onnx", {"data": rows.tolist()}, model.predict(rows))


def expect(model: Path, rows: Any, predicted: Any) -> None:
    (model.parent / f"{model.name}-rows.json").write_text(json.dumps(rows))
    (model.parent / f"{model.name}-expected.json").write_text(json.dumps(predicted.tolist()))


if __name__ == "__main__":
    for make in (onnx,) if importlib.util.find_spec("skl2onnx") is not None else (iris, frames, tensors):
        make(Path(sys.argv[1]))
