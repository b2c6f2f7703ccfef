"""The host of an MLflow model over a stand-in for mlflow: what is asked of it, and whose mistake each refusal is.

The real mlflow is in tests/e2e/test_mlflow.py: it is in an environment of its own, never in that of the tests.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from runtimes.script.worker_lib.igw_worker import swagger
from runtimes.script.worker_lib.igw_worker.forms import ScoringTimeout
from runtimes.script.worker_lib.igw_worker.host import FAILED_RUN, ScriptHost
from runtimes.script.worker_lib.igw_worker.script import StartFailed, UserScript, load


class MlflowException(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Schema:
    """Of mlflow's: what the host asks of it."""

    def __init__(self, columns: list[dict[str, Any]]) -> None:
        self.columns = columns

    def is_tensor_spec(self) -> bool:
        return False

    def has_input_names(self) -> bool:
        return True

    def input_names(self) -> list[str]:
        return [one["name"] for one in self.columns]

    def to_dict(self) -> list[dict[str, Any]]:
        return self.columns


class Loaded:
    """A model that answers with what it was given; an exception given as input is raised."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.inputs: Schema | None = Schema([{"name": "x", "type": "long"}])
        self.is_typed = False
        self.raised: Exception | None = None
        self.metadata = SimpleNamespace(
            get_input_schema=lambda: self.inputs,
            get_output_schema=lambda: None,
            saved_input_example_info={"artifact_path": "example.json"},
            _is_signature_from_type_hint=lambda: self.is_typed,
        )

    def predict(self, data: Any, params: Any = "none given") -> Any:
        if self.raised is not None:
            raise self.raised
        return {"data": data, "params": params}


def frame(data: Any, *, pandas_orient: str, schema: Any) -> Any:
    if data == "unreadable":
        raise AttributeError("'str' object has no attribute 'keys'")
    return [pandas_orient, data]


def tensors(data: dict[str, Any], *, schema: Any) -> Any:
    if data.get("inputs") == "wrong":
        raise MlflowException("Invalid input.")
    return ["tf", data]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Loaded]:
    """The models that were loaded."""
    found: list[Loaded] = []

    def load_model(folder: str) -> Loaded:
        if "broken" in folder:
            raise ModuleNotFoundError("No module named 'sklearn'")
        found.append(Loaded(folder))
        return found[-1]

    members: dict[str, dict[str, Any]] = {
        "mlflow": {},
        "mlflow.pyfunc": {"load_model": load_model},
        "mlflow.exceptions": {"MlflowException": MlflowException},
        "mlflow.utils": {},
        "mlflow.utils.proto_json_utils": {"dataframe_from_parsed_json": frame, "parse_tf_serving_input": tensors},
    }
    for name, given in members.items():
        module = ModuleType(name)
        vars(module).update(given)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, module)
    # What loading sets is put back.
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return found


def host_of(folder: Path, script: UserScript | None = None) -> ScriptHost:
    script = script or load(str(folder), "")
    script.init()
    return ScriptHost(script, max_result_bytes=100_000)


def ask(host: ScriptHost, body: Any, method: str = "POST", content_type: str = "application/json") -> tuple[int, Any]:
    head = {"method": method, "target": "/score", "headers": [["content-type", content_type]]}
    answer = host.handle(head, body if isinstance(body, bytes) else json.dumps(body).encode())
    assert ("content-type", "application/json") in answer.headers
    return answer.status, json.loads(answer.body)


@pytest.mark.parametrize(
    ("body", "data"),
    [
        ({"input_data": {"columns": ["x"], "data": [[1]]}}, ["split", {"columns": ["x"], "data": [[1]]}]),
        ({"input_data": [[1]]}, ["split", {"columns": ["x"], "data": [[1]]}]),
        ({"dataframe_records": [{"x": 1}]}, ["records", [{"x": 1}]]),
        ({"instances": [1]}, ["tf", {"instances": [1]}]),
        ({"inputs": {"x": [1]}}, ["tf", {"inputs": {"x": [1]}}]),
    ],
)
def test_each_form_is_read_by_mlflow_itself(loaded: list[Loaded], tmp_path: Path, body: Any, data: Any) -> None:
    host = host_of(tmp_path)
    assert loaded[0].folder == str(tmp_path)
    assert ask(host, body) == (200, {"data": data, "params": "none given"})
    assert ask(host, {**body, "params": {"n": 1}})[1]["params"] == {"n": 1}


def test_a_csv_is_read_with_the_types_of_the_columns(loaded: list[Loaded], tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="the pandas package is not installed")
    host = host_of(tmp_path)
    loaded[0].inputs.pandas_types = lambda: [str]  # type: ignore[union-attr]
    assert ask(host, b"x\n007", content_type="text/csv")[1]["data"] == [{"x": "007"}]
    status, said = ask(host, b'x\n"', content_type="text/csv")
    assert (status, "EOF inside string" in said["message"]) == (400, True)


def test_a_model_with_type_hints_gets_what_was_sent(loaded: list[Loaded], tmp_path: Path) -> None:
    host = host_of(tmp_path)
    loaded[0].is_typed = True
    assert ask(host, {"inputs": [{"x": 1}]})[1]["data"] == [{"x": 1}]


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (MlflowException("Failed to enforce schema of data 'all of it' with schema 'x'. Error: no x."), 400, "no x."),
        (MlflowException("y" * 2000), 400, "y" * 1000 + "..."),
        (MlflowException(""), 400, "MlflowException"),
        (ValueError("a secret"), 500, FAILED_RUN),
    ],
)
def test_what_mlflow_refuses_is_the_callers_and_the_rest_the_models(
    loaded: list[Loaded], tmp_path: Path, raised: Exception, status: int, said: str
) -> None:
    host = host_of(tmp_path)
    loaded[0].raised = raised
    assert ask(host, {"inputs": 1}) == (status, {"message": said})


def test_whatever_cannot_be_read_is_the_callers(loaded: list[Loaded], tmp_path: Path) -> None:
    host = host_of(tmp_path)
    assert ask(host, {"inputs": "wrong"}) == (400, {"message": "Invalid input."})
    assert ask(host, {"dataframe_split": "unreadable"})[0] == 400
    assert ask(host, {"x": 1})[0] == 400
    assert ask(host, b"", "GET") == (405, {"message": "found GET; accepted: POST"})
    assert ask(host, b"", "OPTIONS")[0] == 405


def test_no_time_and_no_memory_to_read_it_are_not_the_callers_mistake(
    loaded: list[Loaded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = host_of(tmp_path)
    raised: list[Exception] = [ScoringTimeout(), MemoryError()]

    def read(data: Any, *, schema: Any) -> Any:
        raise raised.pop(0)

    monkeypatch.setattr(sys.modules["mlflow.utils.proto_json_utils"], "parse_tf_serving_input", read)
    assert ask(host, {"inputs": 1}) == (500, {"message": "Scoring timeout after None ms"})
    assert ask(host, {"inputs": 1}) == (500, {"message": FAILED_RUN})


def test_the_documents_have_the_signature_and_a_short_example(loaded: list[Loaded], tmp_path: Path) -> None:
    script = load(str(tmp_path), "")
    host_of(tmp_path, script)

    def taken() -> Any:
        found = swagger.documents(str(tmp_path), script.run, script.schemas, {})
        assert set(found) == {"2", "3", "3.1"}
        return json.loads(found["3"])["components"]["schemas"]["ServiceInput"]

    assert "example" not in taken()
    (tmp_path / "example.json").write_text('{"columns": ["x"], "data": [[1]]}')
    assert taken()["example"] == {"input_data": [{"x": 1}]}
    assert taken()["properties"]["input_data"]["items"]["properties"]["x"]["type"] == "integer"
    (tmp_path / "example.json").write_text("[" + " " * 70_000 + "]")
    assert "example" not in taken()
    for outside in ("../example.json", "", None):
        loaded[0].metadata.saved_input_example_info = {"artifact_path": outside}
        assert "example" not in taken()


def test_a_model_that_cannot_be_loaded_says_why(loaded: list[Loaded], tmp_path: Path) -> None:
    script = load(str(tmp_path / "broken"), "")
    with pytest.raises(StartFailed) as caught:
        script.init()
    assert caught.value.code == "UserScriptInitFailed"
    assert str(caught.value) == "init() of the MLflow model failed: ModuleNotFoundError: No module named 'sklearn'"
