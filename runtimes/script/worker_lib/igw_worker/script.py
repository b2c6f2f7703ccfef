"""The user's script: found, imported, checked, and its init() called.

A code folder without the name of a script is an MLflow model, and our own `pyfunc` is the script that serves it.
Why: whatever a script can do wrong before its first request ends here in one code and one sentence for a person, with
the traceback beside it for the log.
Errors: StartFailed, with a code of the contract: BadArgument, UserScriptImportError, UserScriptFunctionNotFound,
UserScriptInitFailed. A script may raise anything, SystemExit as well.
"""

import importlib.util
import itertools
import logging
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Iterator, Optional, Union

from .batch_form import BatchForm
from .forms import Form, Unfit
from .pyfunc.model import MlflowModel
from .shims.aml_request import RawHttp

_TRACEBACK_MAX = 64 * 1024
_LISTED_MAX = 200


class StartFailed(Exception):
    """The script cannot serve. `message` is one sentence; `trace` the traceback, its end where it is long."""

    def __init__(self, code: str, message: str, cause: Optional[BaseException] = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.trace = "" if cause is None else trace_of(cause)


def trace_of(exc: BaseException) -> str:
    """The traceback without the frames of this package; of a long one its end, where the cause is."""
    frame = exc.__traceback__
    ours = str(Path(__file__).parent) + os.sep
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith((ours, "<frozen importlib")):
        frame = frame.tb_next
    text = "".join(traceback.format_exception(type(exc), exc, frame))
    return text if len(text) <= _TRACEBACK_MAX else "...\n" + text[-_TRACEBACK_MAX:]


def _cause(exc: BaseException) -> str:
    """Type and text on one line, and the line of the script that led there."""
    text = " ".join(str(exc).split())[:1000]
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


class UserScript:
    """A script that has been imported; `init` and `run` are its own, `form` is how run() is called.

    `batch` is how its run_batch() is called, None where it has none. Where it has no run(), `run` is that with one.
    `schemas` is inference_schema's module where run() is decorated, or what else knows what run() takes and gives.
    """

    def __init__(self, name: str, module: Union[ModuleType, MlflowModel]) -> None:
        self.name = name
        self.called = f"the scoring script '{name}'" if name else "the MLflow model"
        # A generated script may stand before the real one; its run() only forwards, and not always rightly.
        driven = getattr(module, "driver_module", None)
        has_driver = isinstance(driven, ModuleType) and callable(getattr(driven, "run", None))
        scoring: Any = driven if has_driver else module
        init, run = _function(module, "init"), _function(scoring, "run")
        batch = _function(scoring, "run_batch")
        try:
            self.batch = None if batch is None else BatchForm(batch)
        except (Unfit, TypeError, ValueError) as exc:
            raise self._unfit(exc) from exc
        if run is None and self.batch is not None:
            run = self.batch.alone
        if init is None or run is None:
            missing = "init" if init is None else "run"
            message = f"{self.called} has no function {missing}(); it needs init() and run(...)"
            raise StartFailed("UserScriptFunctionNotFound", message)
        self._init = init
        self.run = run
        is_ours, has_schema = isinstance(module, MlflowModel), _has_schema(run)
        self.schemas: Any = module if is_ours else schema_module() if has_schema else None
        try:
            self.form = Form(run, is_raw=RawHttp.wanted or is_ours, has_schema=has_schema)
            if self.batch is not None:
                self.batch.check_beside(self.form)
        except (Unfit, TypeError, ValueError) as exc:
            raise self._unfit(exc) from exc

    def _unfit(self, exc: Exception) -> StartFailed:
        return StartFailed("BadArgument", f"{self.called} cannot be called: {exc}")

    def __repr__(self) -> str:
        return f"<UserScript {self.name} {self.form!r}>"

    def init(self) -> None:
        try:
            self._init()
        except BaseException as exc:
            message = f"init() of {self.called} failed: {_cause(exc)}"
            raise StartFailed("UserScriptInitFailed", message, exc) from exc


def load(code_dir: str, name: str) -> UserScript:
    """Imports `<code_dir>/<name>`. Its folders come last on the path: what lies there hides no installed package."""
    if not name:
        return UserScript(name, MlflowModel(code_dir))
    folder = Path(code_dir)
    path = folder / name
    if not path.is_file():
        found = ", ".join(sorted(child.name for child in folder.iterdir())[:20]) if folder.is_dir() else "no folder"
        message = f"the scoring script '{name}' is not in the code folder, which has: {found or 'nothing'}"
        raise StartFailed("BadArgument", message)
    for importable in (str(folder), str(path.parent)):
        if importable not in sys.path:
            sys.path.append(importable)
    spec = importlib.util.spec_from_file_location("entry_module", str(path))
    if spec is None or spec.loader is None:
        raise StartFailed("BadArgument", f"the scoring script '{name}' is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles look their module up by its name.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as exc:
        message = f"the scoring script '{name}' cannot be imported: {_cause(exc)}"
        raise StartFailed("UserScriptImportError", message, exc) from exc
    return UserScript(name, module)


def _function(module: Any, name: str) -> Optional[Callable[..., Any]]:
    found = getattr(module, name, None)
    return found if callable(found) else None


def schema_module() -> Any:
    """`inference_schema.schema_util`, where the script has imported it; the host never imports it of itself."""
    return sys.modules.get("inference_schema.schema_util")


def _has_schema(run: Callable[..., Any]) -> bool:
    schemas = schema_module()
    return schemas is not None and bool(schemas.is_schema_decorated(run))


def log_model_folder(logger: logging.Logger) -> None:
    """Most scripts whose init() fails look for a file in the wrong folder, so the log shows what there is."""
    folder = os.environ.get("AZUREML_MODEL_DIR", "")
    if not folder or not Path(folder).is_dir():
        return
    logger.info("Model Directory Contents:")
    lines = _tree(Path(folder))
    for line in itertools.islice(lines, _LISTED_MAX):
        logger.info("%s", line)
    if next(lines, None) is not None:
        logger.info("Output Truncated. First %d lines shown.", _LISTED_MAX)


def _tree(path: Path, depth: int = 0) -> Iterator[str]:
    is_folder = path.is_dir() and (depth == 0 or not path.is_symlink())
    yield " " * 4 * depth + path.name + ("/" if is_folder else "")
    if is_folder:
        for child in sorted(path.iterdir()):
            yield from _tree(child, depth + 1)
