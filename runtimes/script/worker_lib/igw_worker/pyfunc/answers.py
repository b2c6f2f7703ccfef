"""What a model predicted, as JSON: the bare value, as Azure's MLflow deployments answer it.

Shapes: an array is its nested lists, a DataFrame or a Series a list of records. Times are ISO 8601, bytes base64.
JSON has no NaN and no infinity: they are null, and so is what pandas calls missing.
Errors: TypeError for what has no form in JSON; RecursionError for what holds itself.
"""

import base64
import datetime
import decimal
import json
import math
import sys
from typing import Any, Callable, Tuple


def dump(value: Any) -> Tuple[bytes, bool]:
    """The JSON text, and whether a number in it had to become null."""
    opened = _opened(value)
    try:
        return json.dumps(opened, allow_nan=False, default=_opened_strictly).encode("utf-8"), False
    except (TypeError, ValueError):
        # Something that JSON does not have, or names that are no text: looked at one by one.
        plain = _Plain()
        return json.dumps(plain.of(opened), allow_nan=False).encode("utf-8"), plain.lost


class _Plain:
    """Makes values of JSON alone; `lost` where a number was none that JSON can say."""

    def __init__(self) -> None:
        self.lost = False

    def of(self, value: Any) -> Any:
        if value is None or isinstance(value, (str, bool)):
            return value
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else self._null()
        if isinstance(value, int):
            return int(value)
        if isinstance(value, dict):
            return {str(_opened(name)): self.of(one) for name, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.of(one) for one in value]
        return self.of(_opened_strictly(value))

    def _null(self) -> None:
        self.lost = True


def _opened_strictly(value: Any) -> Any:
    opened = _opened(value)
    if opened is value:
        raise TypeError(f"the model answered with {type(value).__name__}, which has no form in JSON")
    return opened


def _opened(value: Any) -> Any:
    """One level nearer to JSON; the value itself where there is no way."""
    for name, open_ in (("pandas", _of_pandas), ("numpy", _of_numpy)):
        module = sys.modules.get(name)
        if module is not None:
            found = open_(module, value)
            if found is not value:
                return found
    return _of_python(value)


def _of_pandas(pandas: Any, value: Any) -> Any:
    if isinstance(value, pandas.DataFrame):
        return value.to_dict(orient="records")
    if isinstance(value, pandas.Series):
        return value.to_frame().to_dict(orient="records")
    if isinstance(value, pandas.Index):
        return value.tolist()
    return None if value is pandas.NaT or value is getattr(pandas, "NA", pandas.NaT) else value


def _of_numpy(numpy: Any, value: Any) -> Any:
    if isinstance(value, (numpy.ndarray, numpy.generic)) and value.dtype.kind in "mM":
        texts = numpy.where(numpy.isnat(value), None, numpy.asarray(value.astype(str), dtype=object))
        return texts.tolist()
    if isinstance(value, (numpy.ndarray, numpy.generic)):
        return value.tolist()
    return value


def _of_python(value: Any) -> Any:
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    # Sparse matrices of scipy, and models of pydantic.
    for name in ("toarray", "model_dump"):
        opener: Callable[[], Any] = getattr(value, name, None)  # type: ignore[assignment]
        if callable(opener) and not isinstance(value, type):
            return opener()
    return value
