"""What a model may answer, as JSON: by numpy, pandas and the standard library, and what has no form."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from typing import Any

import numpy as np
import pytest

from runtimes.script.worker_lib.igw_worker.pyfunc.answers import dump

pandas = pytest.importorskip("pandas", reason="the pandas package is not installed")
NOON = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)


class Sparse:
    def toarray(self) -> Any:
        return np.eye(2)


class Pydantic:
    def model_dump(self) -> dict[str, int]:
        return {"a": 1}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, None),
        ("text", "text"),
        ([1, "a", None, True, {"b": (2,)}], [1, "a", None, True, {"b": [2]}]),
        (np.array([[1, 2]], np.int8), [[1, 2]]),
        (np.array(1.5), 1.5),
        (np.float32(0.5), 0.5),
        (np.array([np.str_("a"), None, [np.int64(1)]], object), ["a", None, [1]]),
        ({np.int64(3): np.bool_(True), 1.5: [np.int64(7)]}, {"3": True, "1.5": [7]}),
        (np.array(["2026-01-31"], "datetime64[D]"), ["2026-01-31"]),
        (np.array(["2026-01-31T12", "NaT"], "datetime64[ns]"), ["2026-01-31T12:00:00.000000000", None]),
        (np.datetime64("2026-01"), "2026-01"),
        (pandas.DataFrame({"a": [1], "b": ["x"]}), [{"a": 1, "b": "x"}]),
        (pandas.DataFrame([[1, 2]]), [{"0": 1, "1": 2}]),
        (pandas.Series([1, 2], name="y"), [{"y": 1}, {"y": 2}]),
        (pandas.Series([1]), [{"0": 1}]),
        (pandas.Index(["a", "b"]), ["a", "b"]),
        (pandas.Timestamp("2026-01-31T12:00:00Z"), "2026-01-31T12:00:00+00:00"),
        ([pandas.NaT, pandas.NA], [None, None]),
        (NOON, "2026-01-31T12:00:00+00:00"),
        ([datetime.date(2026, 1, 31), datetime.time(12)], ["2026-01-31", "12:00:00"]),
        ([b"\x00\xff", bytearray(b"a")], ["AP8=", "YQ=="]),
        (decimal.Decimal("1.5"), 1.5),
        ({1}, [1]),
        (Sparse(), [[1.0, 0.0], [0.0, 1.0]]),
        ([Pydantic()], [{"a": 1}]),
    ],
)
def test_what_models_answer_has_one_form(value: Any, said: Any) -> None:
    body, lost = dump(value)
    assert json.loads(body) == said
    assert not lost


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1.0, math.nan, math.inf, -math.inf], [1.0, None, None, None]),
        (np.array([np.nan, 2.0], np.float32), [None, 2.0]),
        (pandas.DataFrame({"a": [np.nan], "b": [1]}), [{"a": None, "b": 1}]),
        ({"a": {"b": math.nan}, "n": 2}, {"a": {"b": None}, "n": 2}),
    ],
)
def test_numbers_that_json_lacks_are_null_and_that_is_told(value: Any, said: Any) -> None:
    body, lost = dump(value)
    assert json.loads(body) == said
    assert lost


def test_what_has_no_form_is_refused() -> None:
    with pytest.raises(TypeError, match="the model answered with object, which has no form in JSON"):
        dump({"a": object()})
    with pytest.raises(TypeError):
        dump(Pydantic)
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(RecursionError):
        dump(endless)
