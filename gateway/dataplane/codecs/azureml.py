"""Azure-style JSON for models without a scoring script: `input_data` (or `data`) in one of four forms.

| form | tensors |
|---|---|
| `[[...], ...]` | rows of the single input |
| `{"columns": [...], "index": [...], "data": [[...]]}` | pandas split: columns by the inputs' names, or in order |
| `{"<input>": ...}` | named tensors; scalars too |
| `[{"<input>": ...}, ...]` | records: one row each; an input without a batch axis has one value in all of them |

MLflow's own names stand for the same: `dataframe_split`, `dataframe_records`, and `instances` or `inputs` with any of
the other three. Columns and records of single values also fit an input of shape [N, 1]. Beside the data only an empty
`params` is accepted. The answer is the array of the one output, or an object of arrays by output name; a scalar
output is one value. What the numbers may be: numbers.py.
Errors: InvalidInput.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gateway.dataplane.codecs import answers, documents, numbers
from gateway.dataplane.codecs.buffers import Cut
from gateway.dataplane.codecs.documents import short
from gateway.dataplane.codecs.wire import JSON, NONFINITE, Encoded
from runtimes import Array, InvalidInput, Signature, TensorSpec

_ACCEPTED = (
    'accepted are {"input_data": ...} or {"data": ...} with rows [[...], ...], named tensors {"<input>": [...]}, '
    'records [{"<input>": ...}] or a pandas split {"columns", "index", "data"}, and the same as dataframe_split, '
    "dataframe_records, instances or inputs"
)
_N = ord("n")
_NAMES = frozenset(("input_data", "data", "dataframe_split", "dataframe_records", "instances", "inputs"))
_SPLIT_KEYS = frozenset(("columns", "index", "data"))


class AzureCall:
    """A decoded Azure-style request: see wire.Decoded."""

    __slots__ = ("_signature", "inputs", "rows")

    outputs: tuple[str, ...] | None = None
    timeout_ns: int = 0

    def __init__(self, inputs: dict[str, Array], rows: int, signature: Signature) -> None:
        self.inputs = inputs
        self.rows = rows
        self._signature = signature

    def encode(self, results: Mapping[str, Array]) -> Encoded:
        specs = self._signature.outputs
        if len(specs) == 1:
            body = answers.dump_tensor(results[specs[0].name], specs[0])
        else:
            body = answers.dump_named(results, specs)
        # Texts and names may say null as well, so look closer where the word is found. One letter is found sooner.
        if _N in body and b"null" in body and any(answers.has_nonfinite(results[spec.name], spec) for spec in specs):
            return Encoded(JSON, body, NONFINITE)
        return Encoded(JSON, body)


def decode(document: object, text: bytes, signature: Signature) -> AzureCall:
    rows = _rows_alone(document, text, signature)
    if rows is not None:
        spec = signature.inputs[0]
        array = numbers.packed(rows, spec)
        if array is not None:
            inputs = {spec.name: array}
            return AzureCall(inputs, signature.check(inputs), signature)
    payload = _payload(document)
    names = _names_in(document, payload)
    documents.refuse_duplicates(text, document, names)
    inputs = signature.filled(_tensors(payload, documents.is_plain(text, names, 0), signature))
    return AzureCall(inputs, signature.check(inputs), signature)


def decode_cut(cut: Cut, signature: Signature) -> AzureCall | None:
    """The same for a body whose numbers are still text; None where only the whole body tells."""
    if _rows_alone(cut.rest, cut.text, signature) is None:
        return None
    spec = signature.inputs[0]
    array = numbers.from_block(cut.block, spec)
    if array is None:
        return None
    inputs = {spec.name: array}
    return AzureCall(inputs, signature.check(inputs), signature)


def _rows_alone(document: Any, text: bytes, signature: Signature) -> list[Any] | None:
    """A plain list for the single input with nothing beside it, which is what most bodies are."""
    if type(document) is not dict or len(document) != 1 or len(signature.inputs) != 1:
        return None
    payload = document.get("input_data")
    if payload is None:
        payload = document.get("data")
    # Two quotes are those of this one name, which has no colon in it: it cannot be there twice.
    return payload if type(payload) is list and documents.is_plain(text, 1, 0) else None


def _names_in(document: Any, payload: Any) -> int:
    """Names in the body and one level into the data. A split's column names are strings, which makes it not plain."""
    names = len(document)
    if type(payload) is dict:
        return names + len(payload)
    if type(payload) is list and payload and type(payload[0]) is dict:
        return names + sum(len(record) for record in payload if type(record) is dict)
    return names


def _payload(document: object) -> object:
    if type(document) is not dict:
        raise InvalidInput(f"the body is JSON but no object; {_ACCEPTED}")
    if len(document) == 1:
        for key, value in document.items():
            if key in _NAMES:
                return value if key == "input_data" or key == "data" else _of_mlflow(key, value)
    given = [key for key in document if key in _NAMES]
    if len(given) != 1:
        found = f"both {given[0]!r} and {given[1]!r}" if given else _found(document)
        raise InvalidInput(f"the body has {found}; {_ACCEPTED}")
    for key, value in document.items():
        if key == "params" and (value is None or value == {}):
            continue
        if key == "params":
            raise InvalidInput("the body has 'params', which a model without a script takes no use of; leave it out")
        if key != given[0]:
            raise InvalidInput(f"the body has the unknown key {short(key)} beside {given[0]!r}; {_ACCEPTED}")
    return _of_mlflow(given[0], document[given[0]])


def _of_mlflow(key: str, value: Any) -> object:
    """A DataFrame is in the orientation that its name says. A split without columns is its rows."""
    if key == "dataframe_split":
        if type(value) is not dict or "data" not in value:
            raise InvalidInput(
                "'dataframe_split' is no object with 'data'; 'columns', 'index' and 'data' are accepted"
            )
        return value if "columns" in value or value.keys() - _SPLIT_KEYS else value["data"]
    if key == "dataframe_records" and (type(value) is not list or (value and type(value[0]) is not dict)):
        raise InvalidInput("'dataframe_records' is no list of records; [{\"<input>\": ...}] is accepted")
    return value


def _found(document: dict[str, Any]) -> str:
    return f"the keys {', '.join(map(short, list(document)[:8]))}" if document else "no keys"


def _tensors(payload: object, plain: bool, signature: Signature) -> dict[str, Array]:
    specs = signature.inputs if signature.mask is None else signature.required(_given(payload))
    if type(payload) is dict:
        if _is_split(payload, specs):
            return _split(payload, plain, specs)
        return _named(payload, plain, specs)
    if type(payload) is list and payload and type(payload[0]) is dict:
        return _records(payload, plain, specs)
    if len(specs) != 1:
        raise InvalidInput(
            f"the body has rows without names and the model has {len(specs)} inputs, {_names(specs)}; "
            'accepted are named tensors {"<input>": [...]}, records or a pandas split'
        )
    spec = specs[0]
    return {spec.name: _tensor(payload, spec, plain=plain)}


def _given(payload: Any) -> list[Any]:
    """The names in a payload: its keys, its first record's or the columns of a split. Anything may stand there."""
    if type(payload) is list:
        payload = payload[0] if payload else None
    if type(payload) is not dict:
        return []
    columns = payload.get("columns")
    return [*payload, *columns] if type(columns) is list else list(payload)


def _tensor(value: object, spec: TensorSpec, *, plain: bool) -> Array:
    array = numbers.tensor(value, spec, plain=plain)
    return array if array.size else numbers.with_lost_dimensions(array, spec)


def _named(payload: dict[str, object], plain: bool, specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    by_name = {spec.name: spec for spec in specs}
    inputs = {}
    for name, value in payload.items():
        spec = by_name.get(name)
        if spec is None:
            raise InvalidInput(f"there is no input {short(name)}; the model's inputs are {_names(specs)}")
        inputs[name] = _as_column(_tensor(value, spec, plain=plain), spec)
    return inputs


def _as_column(array: Array, spec: TensorSpec) -> Array:
    """[N] where the model takes [N, 1]."""
    return array.reshape(-1, 1) if array.ndim == 1 and len(spec.shape) == 2 and spec.shape[1] == 1 else array


def _records(payload: list[Any], plain: bool, specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    wanted = {spec.name for spec in specs}
    for index, record in enumerate(payload):
        if type(record) is not dict:
            raise InvalidInput(f"record {index} is no object; each record is an object with {_names(specs)}")
        if record.keys() != wanted:
            _refuse_record(record, index, wanted, specs)
    return {spec.name: _stacked([record[spec.name] for record in payload], plain, spec) for spec in specs}


def _refuse_record(record: dict[str, object], index: int, wanted: set[str], specs: tuple[TensorSpec, ...]) -> None:
    unknown = sorted(record.keys() - wanted)
    problem = f"names {short(unknown[0])}" if unknown else f"lacks {sorted(wanted - record.keys())[0]!r}"
    raise InvalidInput(f"record {index} {problem}; the model's inputs are {_names(specs)}")


def _stacked(values: list[Any], plain: bool, spec: TensorSpec) -> Array:
    """One value a row, along the batch axis; or one value for all, where the input has none."""
    array = _tensor(values, spec, plain=plain)
    if spec.batch_axis is None and array.ndim == len(spec.shape) + 1:
        return _shared(array, spec)
    if array.ndim == 1:
        return _as_column(array, spec)
    axis = spec.batch_axis or 0
    return np.ascontiguousarray(np.moveaxis(array, 0, axis)) if axis and axis < array.ndim else array


def _shared(array: Array, spec: TensorSpec) -> Array:
    if not len(array):
        raise InvalidInput(f"input {spec.name!r} has no value, for there are no rows; at least one is accepted")
    first: Array = array[0, ...]
    if not (array == first).all():
        raise InvalidInput(
            f"input {spec.name!r} differs between records; the model takes one value of it a request "
            f"({spec.describe()})"
        )
    return first


def _is_split(payload: dict[str, object], specs: tuple[TensorSpec, ...]) -> bool:
    """Pandas split, unless the model itself has inputs of these names."""
    if "columns" not in payload or "data" not in payload:
        return False
    return not payload.keys() <= {spec.name for spec in specs}


def _split(payload: dict[str, Any], plain: bool, specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    columns, rows = payload["columns"], payload["data"]
    _check_split(payload, columns, rows)
    if sorted(map(str, columns)) == sorted(spec.name for spec in specs):
        place = {str(column): index for index, column in enumerate(columns)}
        return {spec.name: _stacked([row[place[spec.name]] for row in rows], plain, spec) for spec in specs}
    if len(specs) != 1:
        raise InvalidInput(
            f"the split has the columns {', '.join(map(short, columns[:8]))}; "
            f"the model's inputs are {_names(specs)}, and a column for each is accepted"
        )
    array = _tensor(rows, specs[0], plain=plain)
    return {specs[0].name: array if rows else np.empty((0, len(columns)), array.dtype)}


def _check_split(payload: dict[str, Any], columns: object, rows: object) -> None:
    for key in payload:
        if key not in _SPLIT_KEYS:
            raise InvalidInput(
                f"the split has the unknown key {short(key)}; 'columns', 'index' and 'data' are accepted"
            )
    if type(columns) is not list or any(type(column) not in (str, int) for column in columns):
        raise InvalidInput("the split's 'columns' is no list of names; a list of strings is accepted")
    if type(rows) is not list or any(type(row) is not list for row in rows):
        raise InvalidInput("the split's 'data' is no list of rows; [[...], ...] is accepted")
    for index, row in enumerate(rows):
        if len(row) != len(columns):
            raise InvalidInput(
                f"row {index} of the split has {len(row)} values and there are {len(columns)} columns; "
                "a value for each column is accepted"
            )
    labels = payload.get("index")
    documents.check_nesting(labels, 2)
    if labels is not None and (type(labels) is not list or len(labels) != len(rows)):
        raise InvalidInput(f"the split's 'index' does not fit its {len(rows)} rows; a label for each row is accepted")


def _names(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name!r} ({spec.describe()})" for spec in specs)
