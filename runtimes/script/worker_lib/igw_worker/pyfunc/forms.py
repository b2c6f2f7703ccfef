"""A request's body in one of the forms that MLflow's scoring server and Azure's MLflow deployments take.

| member | what it holds |
|---|---|
| `input_data` | a pandas split, rows, records or named tensors: which one, `meant` says |
| `dataframe_split`, `dataframe_records` | a pandas DataFrame in that orientation |
| `instances`, `inputs` | tensors by row, or by name |

Exactly one of them, and beside it at most `params`, an object. A body of type text/csv is a DataFrame.
Errors: Refused, with what was found and what is accepted; 415 for another type of content.
"""

import json
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

from ..forms import Refused
from ..shims.http import parse_options

CSV, SPLIT, RECORDS, INSTANCES, INPUTS = "csv", "split", "records", "instances", "inputs"
INPUT_DATA = "input_data"
_FORMS = {
    INPUT_DATA: INPUT_DATA,
    "dataframe_split": SPLIT,
    "dataframe_records": RECORDS,
    "instances": INSTANCES,
    "inputs": INPUTS,
}
_SPLIT_KEYS = {"columns", "index", "data"}
_ACCEPTED = f"accepted: a JSON object with exactly one of {', '.join(_FORMS)}, and beside it params"
_SHOWN = 8

Body = Union[bytes, bytearray, memoryview]


class Asked(NamedTuple):
    """`form` is one of the constants above; `data` what the body holds in it, of a CSV its text."""

    form: str
    data: Any
    params: Optional[Dict[str, Any]] = None


def read(body: Body, content_type: Optional[str]) -> Asked:
    """Raises Refused."""
    kind, options = parse_options(content_type or "application/json")
    if options.get("charset", "utf-8").lower().replace("-", "") != "utf8":
        raise Refused(415, f"found the charset {options['charset']}; accepted: utf-8")
    if kind == "text/csv":
        return Asked(CSV, _text(body))
    if kind != "application/json" and not kind.endswith("+json"):
        raise Refused(415, f"found Content-Type {kind}; accepted: application/json, text/csv")
    return _asked(_object(_text(body)))


def meant(payload: Any, columns: List[str]) -> Tuple[str, Any]:
    """Form and data of what stood under `input_data`. `columns`: the names that the model's signature gives to the
    columns of a DataFrame, none where it takes tensors or says nothing."""
    if isinstance(payload, dict):
        return (SPLIT if _is_split(payload, columns) else INPUTS), payload
    if isinstance(payload, list) and payload and all(isinstance(row, dict) for row in payload):
        return RECORDS, payload
    if columns and isinstance(payload, list) and payload and all(isinstance(row, list) for row in payload):
        return SPLIT, {"columns": columns, "data": [_fitting(row, at, columns) for at, row in enumerate(payload)]}
    return INPUTS, payload


def _text(body: Body) -> str:
    try:
        return str(body, "utf-8")
    except UnicodeDecodeError as exc:
        raise Refused(400, f"the body is not UTF-8: {exc.reason} at byte {exc.start}") from None


def _object(text: str) -> Dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise Refused(400, f"the body is not JSON: {exc}; {_ACCEPTED}") from None
    if not isinstance(value, dict):
        raise Refused(400, f"the body is JSON but no object; {_ACCEPTED}")
    return value


def _asked(value: Dict[str, Any]) -> Asked:
    given = [name for name in _FORMS if name in value]
    others = [name for name in value if name not in _FORMS and name != "params"]
    if len(given) != 1 or others:
        raise Refused(400, f"the body has {_names(list(value))}; {_ACCEPTED}")
    params = value.get("params")
    if params is not None and not isinstance(params, dict):
        raise Refused(400, f"params is {_kind(params)}; accepted: an object of the model's parameters")
    return Asked(_FORMS[given[0]], value[given[0]], params or None)


def _is_split(payload: Dict[str, Any], columns: List[str]) -> bool:
    """Unless the model itself has inputs of these names."""
    names = set(payload)
    return {"columns", "data"} <= names <= _SPLIT_KEYS and not names <= set(columns)


def _fitting(row: List[Any], at: int, columns: List[str]) -> List[Any]:
    if len(row) != len(columns):
        raise Refused(400, f"row {at} has {len(row)} values; the model takes {len(columns)}: {_names(columns)}")
    return row


def _names(names: List[str]) -> str:
    shown = ", ".join(repr(str(name)[:60]) for name in names[:_SHOWN])
    return (shown + (", ..." if len(names) > _SHOWN else "")) or "no member"


def _kind(value: Any) -> str:
    return {list: "a list", str: "text", bool: "a truth value"}.get(type(value), "a number")
