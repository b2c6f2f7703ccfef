"""Scripts with the schema decorators, and results of numpy and pandas: the real packages in a real worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.script_worker import Worker, value_of, write_script

pytest.importorskip("inference_schema", reason="the inference-schema package is not installed")
pytest.importorskip("pandas", reason="the pandas package is not installed")

SCHEMA = """
    import numpy as np
    import pandas as pd
    from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
    from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
    from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
    from inference_schema.schema_decorators import input_schema, output_schema

    @input_schema("rows", NumpyParameterType(np.array([[1.0, 2.0]])))
    @input_schema("frame", PandasParameterType(pd.DataFrame({"a": [1], "b": ["x"]})))
    @input_schema("factor", StandardPythonParameterType(2))
    @output_schema(NumpyParameterType(np.array([1.0])))
    def run(rows, frame, factor=10, request_headers=None):
        names = [type(rows).__name__, type(frame).__name__, type(factor).__name__]
        total = float(rows.sum()) * factor
        return {"types": names, "sum": total, "a": frame["a"].tolist(), "x": request_headers["X"]}
"""
ROWS = {"rows": [[1, 2], [3, 4]], "frame": [{"a": 5, "b": "y"}]}
JSON = {"content-type": "application/json; charset=utf-8", "x": "1"}


def test_decorated_parameters_are_taken_by_name_and_converted(tmp_path: Path) -> None:
    write_script(tmp_path, SCHEMA)
    with Worker(tmp_path) as worker:
        swagger = worker.event()["swagger"]
        frame = worker.call(json.dumps({**ROWS, "factor": 3, "more": None}).encode(), headers=JSON)
        assert frame.head["status"] == 200, worker.logged()
        told = value_of(frame)
        assert told == {"types": ["ndarray", "DataFrame", "int"], "sum": 30.0, "a": [5], "x": "1"}
        assert value_of(worker.call(json.dumps(ROWS).encode(), headers=JSON))["sum"] == 100.0
    takes = json.loads(swagger["2"])["definitions"]["ServiceInput"]
    assert set(takes["properties"]) >= {"rows", "frame", "factor"}
    assert takes["example"]["rows"] == [[1.0, 2.0]]
    gives = json.loads(swagger["3"])["components"]["schemas"]["ServiceOutput"]
    assert gives["type"] == "array"


def test_what_does_not_fit_the_schema_is_refused(tmp_path: Path) -> None:
    write_script(tmp_path, SCHEMA)
    with Worker(tmp_path) as worker:
        worker.ready()
        cases = [
            (b"{}", {"content-type": "text/plain"}, 415, "Expects Content-Type to be application/json"),
            (b"", JSON, 400, "POST body is empty. Expecting a JSON dictionary."),
            (b"[1]", JSON, 400, "POST body should be a JSON dictionary."),
            (b'{"frame": []}', JSON, 400, "A value is not provided for the 'rows' parameter."),
        ]
        for body, headers, status, message in cases:
            frame = worker.call(body, headers=headers)
            assert (frame.head["status"], frame.head["failed"]) == (status, False)
            assert value_of(frame) == {"message": message}
        assert worker.call(b'{"rows"', headers=JSON).head["status"] == 400
        # A value of the wrong type is met within the decorators, which are the script's.
        assert worker.call(b'{"rows": 1, "frame": 5}', headers=JSON).head["status"] == 500


def test_rawhttp_and_input_schema_together_cannot_start(tmp_path: Path) -> None:
    script = """
        from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
        from inference_schema.schema_decorators import input_schema
        from azureml_inference_server_http.api.aml_request import rawhttp

        @rawhttp
        @input_schema("a", StandardPythonParameterType(1))
        def run(a): pass
    """
    write_script(tmp_path, script)
    with Worker(tmp_path) as worker:
        event = worker.event()
        assert event["code"] == "BadArgument"
        assert "both @rawhttp and @input_schema" in event["message"]


def test_numpy_and_pandas_results_fail_until_the_script_converts_them(tmp_path: Path) -> None:
    script = """
        import numpy as np
        import pandas as pd

        RESULTS = {
            "array": np.ones(2), "float64": np.float64(1), "float32": np.float32(1),
            "frame": pd.DataFrame({"a": [1]}), "list": np.ones(2).tolist(),
        }

        def run(raw):
            return RESULTS[raw]
    """
    write_script(tmp_path, script)
    with Worker(tmp_path) as worker:
        worker.ready()
        found = {name: worker.call(name.encode()) for name in ("array", "float64", "float32", "frame", "list")}
        statuses = {name: frame.head["status"] for name, frame in found.items()}
        # A float64 is a float, so JSON knows it.
        assert statuses == {"array": 500, "float64": 200, "float32": 500, "frame": 500, "list": 200}
        assert found["array"].head["failed"] is True
        assert "ndarray is not JSON serializable" in worker.logged()
