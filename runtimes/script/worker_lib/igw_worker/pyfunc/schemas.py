"""An MLflow model's signature as JSON schemas, for the OpenAPI documents of its endpoint.

Shapes: `columns` is what `Schema.to_dict()` of mlflow gives: a list of columns and tensors, named or not. What they
describe is a list of records, an object of named tensors, or one tensor. A saved example becomes the same shape.
Errors: none; what is not known is any value.
"""

from typing import Any, Dict, List, Optional

Schema = Dict[str, Any]

_ANY: Schema = {"description": "any value"}
_TYPES: Dict[str, Schema] = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer", "format": "int32"},
    "long": {"type": "integer", "format": "int64"},
    "float": {"type": "number", "format": "float"},
    "double": {"type": "number", "format": "double"},
    "string": {"type": "string"},
    "binary": {"type": "string", "format": "byte"},
    "datetime": {"type": "string", "format": "date-time"},
}


def input_schema(columns: Optional[List[Schema]], params: Optional[List[Schema]], example: Any) -> Schema:
    """Of the whole body: `input_data`, and `params` where the model has parameters."""
    properties: Schema = {"input_data": data_schema(columns)}
    if params:
        properties["params"] = {"type": "object", "properties": {one["name"]: _param(one) for one in params}}
    schema: Schema = {"type": "object", "required": ["input_data"], "properties": properties}
    if example is not None:
        schema["example"] = {"input_data": example}
    return schema


def data_schema(columns: Optional[List[Schema]]) -> Schema:
    if not columns:
        return _ANY
    has_names = all(one.get("name") is not None for one in columns)
    if any(one.get("type") == "tensor" for one in columns):
        return _object(columns) if has_names else _of_type(columns[0])
    if has_names:
        return {"type": "array", "items": _object(columns)}
    return {"type": "array", "items": _of_type(columns[0]) if len(columns) == 1 else _ANY}


def example_of(saved: Any) -> Any:
    """What stands in a saved request, as `input_data`; None where that is not known. A split becomes records."""
    if not isinstance(saved, dict):
        return None
    for name in ("dataframe_records", "instances", "inputs"):
        if name in saved:
            return saved[name]
    split = saved.get("dataframe_split", saved)
    if not isinstance(split, dict) or not isinstance(split.get("data"), list):
        return None
    columns = split.get("columns")
    if not isinstance(columns, list):
        return split["data"]
    return [dict(zip(map(str, columns), row)) for row in split["data"] if isinstance(row, list)]


def _object(columns: List[Schema]) -> Schema:
    properties = {str(one["name"]): _of_type(one) for one in columns}
    required = [str(one["name"]) for one in columns if one.get("required", True)]
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _of_type(one: Any) -> Schema:
    kind = one.get("type") if isinstance(one, dict) else one
    if kind == "tensor":
        return _tensor(one.get("tensor-spec") or {})
    if kind == "array":
        return {"type": "array", "items": _of_type(one.get("items"))}
    if kind == "object":
        return _object([{"name": name, **about} for name, about in (one.get("properties") or {}).items()])
    if kind == "map":
        return {"type": "object", "additionalProperties": _of_type(one.get("values"))}
    return _TYPES.get(str(kind), _ANY)


def _tensor(spec: Schema) -> Schema:
    kind = str(spec.get("dtype", ""))
    found: Schema = _ANY
    for beginnings, about in (
        (("float", "double"), {"type": "number"}),
        (("int", "uint"), {"type": "integer"}),
        (("bool",), {"type": "boolean"}),
        (("str", "object", "<U"), {"type": "string"}),
    ):
        if kind.startswith(beginnings):
            found = about
    for _ in spec.get("shape") or ():
        found = {"type": "array", "items": found}
    return found


def _param(one: Schema) -> Schema:
    found = _of_type(one)
    if one.get("shape") is not None:
        found = {"type": "array", "items": found}
    return found if one.get("default") is None else dict(found, default=one["default"])
