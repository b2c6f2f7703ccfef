"""How run_batch() is declared and called, and what it may return.

Shapes: run_batch(batch): a list of what run(raw) would get, the bodies as text. With a parameter `request_headers`
beside it, a list of as many dicts. It returns a list (or tuple) of as many results, in the same order; one that is an
exception fails its own request.
Errors: Unfit for a run_batch() that no batch could be given to; WrongShape for what it must not return.
"""

import inspect
from typing import Any, Callable, Dict, List

from .forms import Form, Unfit


class WrongShape(ValueError):
    """run_batch() did not return one result for each request."""


class BatchForm:
    """One run_batch(), as it is called; `with_headers`: it wants them too. Raises Unfit."""

    __slots__ = ("_data", "_run_batch", "with_headers")

    def __init__(self, run_batch: Callable[..., Any]) -> None:
        parameters = list(inspect.signature(run_batch).parameters.values())
        plain = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        data = [parameter.name for parameter in parameters if parameter.name != "request_headers"]
        if len(data) != 1 or any(parameter.kind not in plain for parameter in parameters):
            found = ", ".join(str(parameter) for parameter in parameters)
            raise Unfit(f"run_batch() takes one list, and request_headers where it wants them; found ({found})")
        self._run_batch = run_batch
        self._data = data[0]
        self.with_headers = len(parameters) > 1

    def check_beside(self, form: Form) -> None:
        """Whether run() is of a form whose requests may share a call. Raises Unfit."""
        if form.kind == "raw":
            raise Unfit("run_batch() is given bodies as text, @rawhttp the request itself; keep one of them")
        if form.kind == "schema":
            raise Unfit("run_batch() is given bodies as text, which @input_schema does not convert; keep one of them")

    def call(self, texts: List[str], headers: List[Dict[str, str]]) -> List[Any]:
        """One result for each text. Raises WrongShape, and whatever run_batch() raises."""
        count = len(texts)
        more = {"request_headers": headers} if self.with_headers else {}
        found = self._run_batch(**{self._data: texts}, **more)
        if not isinstance(found, (list, tuple)):
            raise WrongShape(f"run_batch() returned {type(found).__name__}; it must return a list of {count}")
        if len(found) != count:
            raise WrongShape(f"run_batch() returned {len(found)} results for {count} requests")
        return list(found)

    def alone(self, raw: str, request_headers: Dict[str, str]) -> Any:
        """run() of a script that has none of its own."""
        (result,) = self.call([raw], [request_headers])
        if isinstance(result, BaseException):
            raise result
        return result
