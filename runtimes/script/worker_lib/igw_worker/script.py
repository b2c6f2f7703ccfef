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
    """A script that has been imported; `init` and `run` are its own, `form` is how run() is called. `schemas` is
    inference_schema's module where run() is decorated, or whatever else knows what run() takes and gives."""

    def __init__(self, name: str, module: Union[ModuleType, MlflowModel]) -> None:
        self.name = name
        self.called = f"the scoring script '{name}'" if name else "the MLflow model"
        for function in ("init", "run"):
            if not callable(getattr(module, function, None)):
                message = f"{self.called} has no function {function}(); it needs init() and run(...)"
                raise StartFailed("UserScriptFunctionNotFound", message)
        self._init: Callable[[], Any] = module.init
        # A generated script may stand before the real one; its run() only forwards, and not always rightly.
        driven = getattr(module, "driver_module", None)
        has_driver = isinstance(driven, ModuleType) and callable(getattr(driven, "run", None))
        self.run: Callable[..., Any] = driven.run if has_driver else module.run  # type: ignore[union-attr]
        is_ours = isinstance(module, MlflowModel)
        has_schema = _has_schema(self.run)
        self.schemas: Any = module if is_ours else schema_module() if has_schema else None
        try:
            self.form = Form(self.run, is_raw=RawHttp.wanted or is_ours, has_schema=has_schema)
        except (Unfit, TypeError, ValueError) as exc:
            raise StartFailed("BadArgument", f"{self.called} cannot be called: {exc}") from exc

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
