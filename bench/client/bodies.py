"""Requests as bytes, made before anything is measured: from metadata, from a file, or from recorded traffic.

Shapes: generated tensors are [rows, ...]; sizes that the metadata leaves free are `FREE_SIZE`, unless given.
Source: Azure Machine Learning's {"input_data": ...}; the Open Inference Protocol V2 with the binary tensor
extension.
Errors: CannotMeasure. Pure.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from bench.client.errors import CannotMeasure

Tensor = np.ndarray[tuple[int, ...], np.dtype[Any]]
Headers = Sequence[tuple[str, str]]

FREE_SIZE = 32
INTEGERS_BELOW = 10
WORDS = ("one", "two words", "seven", "a somewhat longer text", "é", "42")
JSON, BINARY = "application/json", "application/octet-stream"
DATATYPES: Mapping[str, str] = {
    "BOOL": "?",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    "BYTES": "O",
}
# Made anew for each request, whatever was recorded.
_FRAMING = {"host", "connection", "content-length", "transfer-encoding"}
_REPLAY_KEYS = {"at_s", "body", "body_base64", "content_type", "headers", "path"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A model's input as its metadata says; -1 is a free size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What is needed of a model to make requests."""

    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What is sent, with the headers that belong to it."""

    content: bytes
    headers: Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One recorded request; `path` "" is the URL's."""

    at_s: float
    body: Body
    path: str = ""


def request_bytes(authority: str, path: str, body: Body, headers: Headers = ()) -> bytes:
    """A whole request. Later headers of one name win, so that given ones replace those that were made.

    Errors: CannotMeasure, without the value, which may be a secret.
    """
    found = {"host": authority, **dict(body.headers), **dict(headers)}
    for name, value in (("path", path), *found.items()):
        if not (name + value).isprintable() or not (name + value).isascii():
            raise CannotMeasure(
                f"{name!r} of a request holds characters that do not belong there; printable ASCII does"
            )
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in found.items())]
    lines.append(f"content-length: {len(body.content)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body.content


# Generated from metadata.


def read_model(metadata: Mapping[str, Any]) -> Model:
    """The V2 protocol's metadata document. Errors: CannotMeasure."""
    try:
        inputs = tuple(
            Input(name=str(one["name"]), datatype=str(one["datatype"]), shape=tuple(int(d) for d in one["shape"]))
            for one in metadata["inputs"]
        )
        outputs = tuple(str(one["name"]) for one in metadata["outputs"])
    except (KeyError, TypeError, ValueError) as error:
        raise CannotMeasure(f"the model's metadata is not as the V2 protocol says ({error!r}); use --data") from None
    unknown = [f"{one.name} ({one.datatype})" for one in inputs if one.datatype not in DATATYPES]
    if unknown:
        raise CannotMeasure(f"requests cannot be generated for the inputs {', '.join(unknown)}; use --data")
    return Model(inputs=inputs, outputs=outputs)


def generate(
    model: Model, wire: str, *, rows: int, variants: int, seed: int, shapes: Mapping[str, Sequence[int]]
) -> list[Body]:
    """Different requests of the same shape, the same for the same seed. Errors: CannotMeasure."""
    unknown = sorted(set(shapes) - {one.name for one in model.inputs})
    if unknown:
        there = ", ".join(one.name for one in model.inputs)
        raise CannotMeasure(f"--shape: there is no input {unknown[0]!r}; the model's inputs are {there}")
    chance = np.random.default_rng(seed)
    sizes = {one.name: _shape(one, rows, shapes.get(one.name)) for one in model.inputs}
    encode = {"azure": azure_body, "v2-json": v2_json_body, "v2-binary": v2_binary_body}[wire]
    return [
        encode(model, {one.name: _values(one.datatype, sizes[one.name], chance) for one in model.inputs})
        for _ in range(variants)
    ]


def _shape(one: Input, rows: int, given: Sequence[int] | None) -> tuple[int, ...]:
    """Rows are the first axis where that is free; a model without one takes its one row."""
    if given is not None:
        return (rows, *given) if len(given) == len(one.shape) - 1 else tuple(given)
    return tuple(size if size >= 0 else rows if axis == 0 else FREE_SIZE for axis, size in enumerate(one.shape))


def _values(datatype: str, shape: tuple[int, ...], chance: np.random.Generator) -> Tensor:
    if datatype == "BYTES":
        return np.array(WORDS, object)[chance.integers(len(WORDS), size=shape)]
    if datatype.startswith("FP"):
        return chance.standard_normal(shape).astype(DATATYPES[datatype])
    if datatype == "BOOL":
        return chance.random(shape) < 0.5
    return chance.integers(INTEGERS_BELOW, size=shape).astype(DATATYPES[datatype])


def azure_body(model: Model, tensors: Mapping[str, Tensor]) -> Body:
    values = {name: tensor.tolist() for name, tensor in tensors.items()}
    data = next(iter(values.values())) if len(values) == 1 else values
    return Body(content=orjson.dumps({"input_data": data}), headers=(("content-type", JSON),))


def v2_json_body(model: Model, tensors: Mapping[str, Tensor]) -> Body:
    inputs = [
        {
            "name": one.name,
            "shape": list(tensors[one.name].shape),
            "datatype": one.datatype,
            "data": tensors[one.name].ravel().tolist(),
        }
        for one in model.inputs
    ]
    return Body(content=orjson.dumps({"inputs": inputs}), headers=(("content-type", JSON),))


def v2_binary_body(model: Model, tensors: Mapping[str, Tensor]) -> Body:
    """Answers are asked for as binary tensors, too."""
    parts = [_raw(tensors[one.name]) for one in model.inputs]
    inputs = [
        {
            "name": one.name,
            "shape": list(tensors[one.name].shape),
            "datatype": one.datatype,
            "parameters": {"binary_data_size": len(part)},
        }
        for one, part in zip(model.inputs, parts, strict=True)
    ]
    outputs = [{"name": name, "parameters": {"binary_data": True}} for name in model.outputs]
    header = orjson.dumps({"inputs": inputs, "outputs": outputs})
    return Body(
        content=header + b"".join(parts),
        headers=(("content-type", BINARY), ("inference-header-content-length", str(len(header)))),
    )


def _raw(tensor: Tensor) -> bytes:
    if tensor.dtype != object:
        return tensor.tobytes()
    texts = [text.encode() for text in tensor.ravel()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


# Given in a file.


def read_bodies(content: bytes, content_type: str | None) -> list[Body]:
    """One JSON document, JSON lines, or else the bytes as they are. Errors: CannotMeasure."""
    if not content.strip():
        raise CannotMeasure("--data: the file is empty; accepted: a request body, or one JSON body a line")
    if _is_json(content):
        return [Body(content=content.strip(), headers=(("content-type", content_type or JSON),))]
    lines = [line for line in content.splitlines() if line.strip()]
    if len(lines) > 1 and all(_is_json(line) for line in lines):
        return [Body(content=line.strip(), headers=(("content-type", content_type or JSON),)) for line in lines]
    return [Body(content=content, headers=(("content-type", content_type or BINARY),))]


def read_replay(content: bytes) -> list[Event]:
    """Recorded traffic: JSON lines, in order of time when they are read. Errors: CannotMeasure."""
    events = [_event(line, number) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
    if not events:
        raise CannotMeasure('--replay: the file is empty; accepted: JSON lines such as {"at_s": 0.5, "body": {...}}')
    return sorted(events, key=lambda event: event.at_s)


def _event(line: bytes, number: int) -> Event:
    def refuse(found: str, accepted: str) -> CannotMeasure:
        return CannotMeasure(f"--replay: line {number}: found {found}; accepted: {accepted}")

    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise refuse(f"no JSON ({error})", "one JSON object a line") from None
    if not isinstance(event, dict) or set(event) - _REPLAY_KEYS:
        unknown = ", ".join(sorted(set(event) - _REPLAY_KEYS)) if isinstance(event, dict) else "no object"
        raise refuse(unknown, f"an object of {', '.join(sorted(_REPLAY_KEYS))}")
    at_s, headers = event.get("at_s"), event.get("headers", {})
    if isinstance(at_s, bool) or not isinstance(at_s, int | float) or at_s < 0:
        raise refuse(f"at_s {at_s!r}", "seconds since the start of the recording")
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise refuse("other headers", "an object of texts")
    if ("body" in event) == ("body_base64" in event):
        raise refuse("both or none of body and body_base64", "one of them")
    path = event.get("path", "")
    if not isinstance(path, str) or (path and not path.startswith("/")) or any(char.isspace() for char in path):
        raise refuse(f"path {path!r}", "a path that begins with /")
    try:
        content = _content(event)
    except (binascii.Error, ValueError, TypeError):
        raise refuse("body_base64 that is no base64", "the body's bytes as base64") from None
    kind = event.get("content_type") or (BINARY if "body_base64" in event else JSON)
    named = tuple((name.lower(), value) for name, value in headers.items() if name.lower() not in _FRAMING)
    return Event(at_s=float(at_s), body=Body(content=content, headers=(("content-type", kind), *named)), path=path)


def _content(event: dict[str, Any]) -> bytes:
    """A body that is a text is sent as it is, any other as the JSON it is."""
    if "body_base64" in event:
        return base64.b64decode(event["body_base64"], validate=True)
    body = event["body"]
    return body.encode() if isinstance(body, str) else orjson.dumps(body)


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
