"""Finding, importing and checking a user's script; its swagger documents and logs."""

from __future__ import annotations

import builtins
import io
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from runtimes.script.worker_lib.igw_worker import logs, script, swagger
from runtimes.script.worker_lib.igw_worker.script import StartFailed, UserScript, load, log_model_folder, trace_of


@pytest.fixture(autouse=True)
def own_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))


def write(folder: Path, text: str, name: str = "score.py") -> None:
    (folder / name).write_text(text)


def test_a_script_is_loaded_by_its_path(tmp_path: Path) -> None:
    write(tmp_path, "import helper\nn = []\ndef init(): n.append(1)\ndef run(raw): return helper.X, n")
    write(tmp_path, "X = 5", "helper.py")
    loaded = load(str(tmp_path), "score.py")
    loaded.init()
    assert loaded.run(raw="") == (5, [1])
    assert "score.py" in repr(loaded)


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("def run(", "UserScriptImportError", "SyntaxError"),
        ("import sys; sys.exit()", "UserScriptImportError", "SystemExit"),
        ("def run(raw): pass", "UserScriptFunctionNotFound", "no function init"),
        ("def init(): pass", "UserScriptFunctionNotFound", "no function run"),
        ("def init(): pass\ndef run(): pass", "BadArgument", "cannot be called"),
    ],
)
def test_what_is_wrong_with_a_script_has_a_code(tmp_path: Path, text: str, code: str, says: str) -> None:
    write(tmp_path, text)
    with pytest.raises(StartFailed, match=says) as failed:
        load(str(tmp_path), "score.py")
    assert failed.value.code == code


def test_a_script_that_is_not_there_or_no_python_is_a_bad_argument(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="which has: nothing"):
        load(str(tmp_path), "score.py")
    with pytest.raises(StartFailed, match="which has: no folder"):
        load(str(tmp_path / "none"), "score.py")
    write(tmp_path, "", "score.txt")
    with pytest.raises(StartFailed, match=r"must end in \.py"):
        load(str(tmp_path), "score.txt")


def test_the_script_behind_a_driver_is_run() -> None:
    inner = ModuleType("inner")
    vars(inner)["run"] = lambda raw: "inner"
    outer = ModuleType("outer")
    vars(outer).update(init=lambda: None, run=lambda raw: "outer", driver_module=inner)
    assert UserScript("score.py", outer).run(raw="") == "inner"


def test_an_init_that_raises_is_told_with_its_line(tmp_path: Path) -> None:
    write(tmp_path, "def init():\n    raise KeyError('a\\nb')\ndef run(raw): pass")
    with pytest.raises(StartFailed, match="KeyError") as failed:
        load(str(tmp_path), "score.py").init()
    assert failed.value.code == "UserScriptInitFailed"
    assert "line 2, in init" in failed.value.trace
    assert "script.py" not in failed.value.trace


def test_a_long_traceback_keeps_its_end() -> None:
    trace = trace_of(ValueError("x" * 100_000 + "end"))
    assert trace.startswith("...\n")
    assert trace.endswith("end\n")
    assert len(trace) < 70_000


def test_the_models_folder_is_listed_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("test.models")
    monkeypatch.delenv("AZUREML_MODEL_DIR", raising=False)
    log_model_folder(logger)
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").touch()
    with caplog.at_level(logging.INFO):
        log_model_folder(logger)
    assert caplog.messages[1:] == [f"{tmp_path.name}/", "    deep/", "        file"]
    monkeypatch.setattr(script, "_LISTED_MAX", 1)
    with caplog.at_level(logging.INFO):
        log_model_folder(logger)
    assert caplog.messages[-1].startswith("Output Truncated")


def test_a_script_without_decorators_takes_and_gives_any_object(tmp_path: Path) -> None:
    environment = {"SERVICE_NAME": "mine", "SERVICE_VERSION": "7", "SERVICE_PATH_PREFIX": "/a/"}
    found = {key: json.loads(text) for key, text in swagger.documents(str(tmp_path), len, None, environment).items()}
    assert (found["2"]["swagger"], found["3"]["openapi"], found["3.1"]["openapi"]) == ("2.0", "3.0.3", "3.1.0")
    assert list(found["2"]["paths"]) == ["/a/score"]
    assert found["2"]["definitions"]["ServiceInput"] == {"type": "object", "example": {}}
    assert (found["3"]["info"]["title"], found["3"]["info"]["version"]) == ("mine", "7")
    assert list(json.loads(swagger.documents(str(tmp_path), len, None, {})["2"])["paths"]) == ["/score"]


def test_schemas_are_told_in_the_versions_that_they_know(tmp_path: Path) -> None:
    schemas = SimpleNamespace(
        get_supported_versions=lambda run: ["3.0", "3.1"],
        get_input_schema=lambda run: {"type": "object", "title": "in"},
        get_output_schema=lambda run: {"type": "array"},
    )
    found = swagger.documents(str(tmp_path), len, schemas, {})
    assert set(found) == {"3", "3.1"}
    told = json.loads(found["3"])["components"]["schemas"]
    assert (told["ServiceInput"]["title"], told["ServiceOutput"]) == ("in", {"type": "array"})


def test_a_swagger_that_is_too_large_is_left_out_and_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(swagger, "DOCUMENT_BYTES_MAX", 2000)
    write(tmp_path, json.dumps({"mine": "x" * 3000}), "swagger2.json")
    write(tmp_path, json.dumps({"mine": "x" * 1000}), "swagger3.json")
    found = swagger.documents(str(tmp_path), len, None, {})
    assert set(found) == {"3", "3.1"}
    assert "The OpenAPI document swagger2.json has 3012 bytes and is left out; it may have 2000" in caplog.text
    monkeypatch.setattr(swagger, "DOCUMENT_BYTES_MAX", 1100)
    assert set(swagger.documents(str(tmp_path), len, None, {})) == {"3"}
    assert "The OpenAPI document of version 3.1 has" in caplog.text


def test_a_users_swagger_wins_unless_it_is_broken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, '\ufeff{"mine": 2}', "swagger2.json")
    write(tmp_path, "{", "swagger3.json")
    found = swagger.documents(str(tmp_path), len, None, {})
    assert found["2"] == '{"mine": 2}'
    assert "openapi" in found["3"]
    assert "swagger3.json beside the scoring script cannot be used" in caplog.text
    write(tmp_path, '{"mine": 1}', "swagger.json")
    assert swagger.documents(str(tmp_path), len, None, {})["2"] == '{"mine": 1}'


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Loggers as they were, afterwards."""
    loggers = [logging.getLogger(name) for name in ("", "azmlinfsrv")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def own_streams(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """stderr as text."""
    text = io.StringIO()
    monkeypatch.setattr(sys, "stderr", text)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.setattr(builtins, "print", builtins.print)
    return text


@pytest.mark.usefixtures("own_logging")
def test_records_are_written_in_the_servers_format(monkeypatch: pytest.MonkeyPatch) -> None:
    text = own_streams(monkeypatch)
    logs.configure("warning", ["/nosuchfolder"])
    logging.getLogger("azmlinfsrv").info("not this")
    logging.getLogger("azmlinfsrv").warning("this")
    logging.getLogger("mine").error("and this")
    first, second = text.getvalue().splitlines()
    assert first.endswith("] azmlinfsrv - this")
    assert " E [" in second
    assert second.endswith("] mine - and this")
    assert logs.level_of("nonsense") == logging.INFO


@pytest.mark.usefixtures("own_logging")
def test_prints_become_records_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    text = own_streams(monkeypatch)
    logs.configure("INFO", [])
    prints = logs.Prints()
    prints.install()
    other = io.StringIO()
    print("a", 1, sep="-", end="")
    assert text.getvalue() == ""
    print("b\nc")
    print("d", end="", flush=True)
    print("e", file=other)
    print("f" * 70_000, end="")
    print("g", end="")
    prints.flush()
    prints.flush()
    lines = [line.partition("azmlinfsrv.print - ")[2] for line in text.getvalue().splitlines()]
    assert lines == ["a-1b", "c", "d", "f" * 70_000, "g"]
    assert other.getvalue() == "e\n"


@pytest.mark.usefixtures("own_logging")
def test_a_logging_json_that_cannot_be_used_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own_streams(monkeypatch)
    write(tmp_path, "[]", "logging.json")
    with pytest.raises(ValueError, match=r"logging\.json cannot be used"):
        logs.configure("INFO", [str(tmp_path)])
    fine: dict[str, Any] = {"version": 1, "incremental": True, "loggers": {"azmlinfsrv": {"level": "ERROR"}}}
    write(tmp_path, json.dumps(fine), "logging.json")
    logs.configure("INFO", [str(tmp_path)])
    assert logging.getLogger("azmlinfsrv").level == logging.ERROR
