"""The bytes of one scoring request in each wire format, and the numbers in its answer.

Shapes: a request carries one row; an answer is float32 [outputs].
Errors: WrongAnswer where an answer cannot be read at all.
Source: Azure Machine Learning's JSON body; the Open Inference Protocol V2 with its binary tensor extension; msgpack's
`bin` type.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import orjson
from numpy.typing import NDArray

Row = NDArray[np.float64]
Answer = NDArray[np.float32]


class WrongAnswer(Exception):
    """An answer that is not what onnxruntime says, or that is no answer at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a request goes, and what the model's tensors are called."""

    path: str
    input: str
    output: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """`binary` tells the two columns of the report apart."""

    name: str
    binary: bool
    request: Callable[[Address, Row], bytes]
    answer: Callable[[Reply, str], Answer]


def read(wire: Wire, reply: Reply, output: str) -> Answer:
    """The numbers of an answer. Errors: WrongAnswer."""
    if reply.status != 200:
        raise WrongAnswer(f"status {reply.status}: {reply.body[:300].decode(errors='replace')}")
    try:
        return wire.answer(reply, output)
    except (ValueError, KeyError, TypeError, IndexError, StopIteration) as error:
        raise WrongAnswer(f"an answer that is no {wire.name}: {error!r} in {reply.body[:200]!r}") from error


def _post(address: Address, body: bytes, headers: Mapping[str, str]) -> bytes:
    lines = [
        f"POST {address.path} HTTP/1.1",
        "host: localhost",
        *(f"{name}: {value}" for name, value in {**address.headers, **headers}.items()),
        f"content-length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _json_with(name: str) -> Callable[[Address, Row], bytes]:
    def request(address: Address, row: Row) -> bytes:
        return _post(address, orjson.dumps({name: [row.tolist()]}), {"content-type": "application/json"})

    return request


def _json_answer(reply: Reply, _output: str) -> Answer:
    return _flat(json.loads(reply.body))


def _v2_json(address: Address, row: Row) -> bytes:
    tensor = {"name": address.input, "shape": [1, len(row)], "datatype": "FP32", "data": row.tolist()}
    body = orjson.dumps({"inputs": [tensor], "outputs": [{"name": address.output}]})
    return _post(address, body, {"content-type": "application/json"})


def _v2_json_answer(reply: Reply, output: str) -> Answer:
    found = next(one for one in json.loads(reply.body)["outputs"] if one["name"] == output)
    return _flat(found["data"])


def _flat(numbers: object) -> Answer:
    flat: Answer = np.asarray(numbers, np.float32).ravel()
    return flat


def _v2_binary(address: Address, row: Row) -> bytes:
    tensor = row.astype("<f4").tobytes()
    parameters = {"binary_data_size": len(tensor)}
    given = {"name": address.input, "shape": [1, len(row)], "datatype": "FP32", "parameters": parameters}
    wanted = {"name": address.output, "parameters": {"binary_data": True}}
    header = orjson.dumps({"inputs": [given], "outputs": [wanted]})
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(header))}
    return _post(address, header + tensor, headers)


def _v2_binary_answer(reply: Reply, output: str) -> Answer:
    length = int(reply.headers["inference-header-content-length"])
    found = json.loads(reply.body[:length])["outputs"]
    if [one["name"] for one in found] != [output]:
        raise ValueError(f"the outputs are {found}; {output!r} alone was asked for")
    return np.frombuffer(reply.body[length : length + found[0]["parameters"]["binary_data_size"]], "<f4")


def _msgpack(address: Address, row: Row) -> bytes:
    return _post(address, msgpack_bin(row.astype("<f4").tobytes()), {"content-type": "application/msgpack"})


def _msgpack_answer(reply: Reply, _output: str) -> Answer:
    return np.frombuffer(msgpack_unbin(reply.body), "<f4")


def msgpack_bin(data: bytes) -> bytes:
    """One value of msgpack's `bin` type; nothing else of the format is needed."""
    if len(data) < 1 << 8:
        return b"\xc4" + len(data).to_bytes(1, "big") + data
    return b"\xc5" + len(data).to_bytes(2, "big") + data


def msgpack_unbin(data: bytes) -> bytes:
    widths = {0xC4: 1, 0xC5: 2}
    width = widths[data[0]]
    length = int.from_bytes(data[1 : 1 + width], "big")
    return data[1 + width : 1 + width + length]


def _raw(address: Address, row: Row) -> bytes:
    return _post(address, row.astype("<f4").tobytes(), {"content-type": "application/octet-stream"})


def _raw_answer(reply: Reply, _output: str) -> Answer:
    return np.frombuffer(reply.body, "<f4")


JSON = Wire(name="JSON", binary=False, request=_json_with("input_data"), answer=_json_answer)
BENTO_JSON = Wire(name="JSON", binary=False, request=_json_with("x"), answer=_json_answer)
V2_JSON = Wire(name="V2 JSON", binary=False, request=_v2_json, answer=_v2_json_answer)
V2_BINARY = Wire(name="V2 binary", binary=True, request=_v2_binary, answer=_v2_binary_answer)
MSGPACK = Wire(name="msgpack", binary=True, request=_msgpack, answer=_msgpack_answer)
RAW = Wire(name="raw bytes", binary=True, request=_raw, answer=_raw_answer)
