"""The MLflow model of a deployment: loaded once, then asked as a scoring script is.

Why a class: to the host it is what a script's module is, with `init()` and `run(request)`; and what the module of
inference-schema is, with the schemas of its input and output.
What is left to mlflow: its own functions read DataFrames and tensors, cast them by the model's signature and refuse
what does not fit. Those refusals are the caller's mistakes (400). Anything else that a model raises is the model's
failure: 500, and the traceback is for the log.
Errors: `init` raises what loading raises.
"""

import io
import json
import os
from pathlib import Path
from typing import Any, Dict, List, Optional

from ..forms import Refused, ScoringTimeout
from ..shims.aml_request import AMLRequest
from ..shims.aml_response import AMLResponse
from . import answers, forms, schemas

NONFINITE = "x-gateway-nonfinite"
_EXAMPLE_BYTES_MAX = 64 * 1024
_SAID_MAX = 1000


class MlflowModel:
    """The model in `folder`, which holds its MLmodel file."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._model: Any = None
        self._inputs: Any = None

    def init(self) -> None:
        # A model that is served tells nobody that it is.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import pyfunc

        self._model = pyfunc.load_model(str(self._folder))
        self._inputs = self._model.metadata.get_input_schema()

    def run(self, request: AMLRequest) -> AMLResponse:
        try:
            if request.method != "POST":
                raise Refused(405, f"found {request.method}; accepted: POST")
            asked = forms.read(request.get_data(), request.content_type)
            return _answer(self._predicted(asked))
        except Refused as refused:
            return AMLResponse({"message": refused.message}, refused.status, json_str=True)

    def _predicted(self, asked: forms.Asked) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            data = self._data(asked)
        except (Refused, ScoringTimeout, MemoryError):
            raise
        except Exception as exc:
            # mlflow and pandas refuse data in many ways, and it is the caller's data in each.
            raise Refused(400, _said(exc)) from exc
        try:
            return self._model.predict(data, params=asked.params) if asked.params else self._model.predict(data)
        except MlflowException as exc:
            raise Refused(400, _said(exc)) from exc

    def _data(self, asked: forms.Asked) -> Any:
        """What predict() takes."""
        form, data = asked.form, asked.data
        if form == forms.CSV:
            return self._of_csv(data)
        if self._is_typed():
            # Such a model checks its input against the type hints of its own predict().
            return data
        if form == forms.INPUT_DATA:
            form, data = forms.meant(data, self._columns())
        from mlflow.utils import proto_json_utils as readers

        if form in (forms.SPLIT, forms.RECORDS):
            return readers.dataframe_from_parsed_json(data, pandas_orient=form, schema=self._inputs)
        return readers.parse_tf_serving_input({form: data}, schema=self._inputs)

    def _of_csv(self, text: str) -> Any:
        import pandas

        columns = self._columns()
        types = dict(zip(columns, self._inputs.pandas_types())) if columns else None
        return pandas.read_csv(io.StringIO(text), dtype=types)

    def _columns(self) -> List[str]:
        """The names of the DataFrame that the signature describes; none where it describes tensors or nothing."""
        inputs = self._inputs
        if inputs is None or inputs.is_tensor_spec() or not inputs.has_input_names():
            return []
        return list(inputs.input_names())

    def _is_typed(self) -> bool:
        told = getattr(self._model.metadata, "_is_signature_from_type_hint", None)
        return told is not None and bool(told())

    # As inference-schema's module: swagger.py asks these.

    def get_supported_versions(self, run: Any) -> List[str]:
        return ["2.0", "3.0", "3.1"]

    def get_input_schema(self, run: Any) -> Dict[str, Any]:
        metadata = self._model.metadata
        params = getattr(metadata, "get_params_schema", lambda: None)()
        found = schemas.input_schema(_listed(self._inputs), _listed(params), self._example())
        # Defaults and examples may hold what JSON does not.
        plain: Dict[str, Any] = json.loads(answers.dump(found)[0])
        return plain

    def get_output_schema(self, run: Any) -> Dict[str, Any]:
        return schemas.data_schema(_listed(self._model.metadata.get_output_schema()))

    def _example(self) -> Any:
        """The example that was saved with the model; None where there is none, or a long one."""
        about: Optional[Dict[str, Any]] = self._model.metadata.saved_input_example_info
        name = (about or {}).get("serving_input_path") or (about or {}).get("artifact_path")
        if not name:
            return None
        path = (self._folder / str(name)).resolve()
        try:
            path.relative_to(self._folder.resolve())
            if path.stat().st_size > _EXAMPLE_BYTES_MAX:
                return None
            return schemas.example_of(json.loads(path.read_text("utf-8")))
        except (OSError, ValueError):
            # It is for readers of the document alone; a model without one serves as well.
            return None


def _listed(schema: Any) -> Optional[List[Dict[str, Any]]]:
    """A schema of mlflow's as plain data; None where the model has none."""
    return None if schema is None else list(schema.to_dict())


def _answer(predicted: Any) -> AMLResponse:
    body, lost = answers.dump(predicted)
    headers = {"Content-Type": "application/json", **({NONFINITE: "true"} if lost else {})}
    return AMLResponse(body, 200, headers)


def _said(exc: Any) -> str:
    """The sentence of mlflow or pandas. Where a schema is not kept, mlflow shows all the data first."""
    text = str(getattr(exc, "message", exc)) or type(exc).__name__
    if text.startswith("Failed to enforce schema"):
        text = text.rpartition(" Error: ")[2]
    return text if len(text) <= _SAID_MAX else text[:_SAID_MAX] + "..."
