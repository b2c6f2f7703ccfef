"""Bytes into tensors and back, one row: 30 to 4,096 floats, Azure-style JSON, V2 JSON and V2 binary.

Texts of BYTES_MIN and more take the way of codecs/buffers.py; the sizes lie on both sides of it.
"""

from __future__ import annotations

import orjson
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.load.requests import Target, requests
from bench.micro.support import dense_signature, rows
from gateway.dataplane.codecs import Decoded, decode_score, decode_v2

CLASSES = 10
TARGET = Target(endpoint="e", deployment="d", key="k", input="x", outputs=("y",))


def _decode(wire: str, features: int) -> Decoded:
    request = requests(TARGET, rows(1, features), wire)[0]
    head, _, body = request.partition(b"\r\n\r\n")
    signature = dense_signature(features, CLASSES)
    if wire == "json":
        return decode_score(body, None, signature, "e", "d")
    return decode_v2(body, _header_length(head), signature, "e", "d")


def _header_length(head: bytes) -> int:
    (line,) = [line for line in head.split(b"\r\n") if line.startswith(b"inference-header-content-length")]
    return int(line.partition(b": ")[2])


@pytest.mark.parametrize("features", [30, 64, 512, 4096])
def test_decode_azure_json(benchmark: BenchmarkFixture, features: int) -> None:
    body = requests(TARGET, rows(1, features), "json")[0].partition(b"\r\n\r\n")[2]
    decoded = benchmark(decode_score, body, None, dense_signature(features, CLASSES), "e", "d")
    assert decoded.rows == 1


@pytest.mark.parametrize("features", [30, 64, 512, 4096])
def test_decode_v2_json(benchmark: BenchmarkFixture, features: int) -> None:
    row = rows(1, features)
    entry = {"name": "x", "shape": row.shape, "datatype": "FP32", "data": row.ravel()}
    body = orjson.dumps({"inputs": [entry]}, option=orjson.OPT_SERIALIZE_NUMPY)
    decoded = benchmark(decode_v2, body, None, dense_signature(features, CLASSES), "e", "d")
    assert decoded.rows == 1


@pytest.mark.parametrize("features", [64, 512])
def test_decode_v2_binary(benchmark: BenchmarkFixture, features: int) -> None:
    head, _, body = requests(TARGET, rows(1, features), "binary")[0].partition(b"\r\n\r\n")
    decoded = benchmark(decode_v2, body, _header_length(head), dense_signature(features, CLASSES), "e", "d")
    assert decoded.rows == 1


@pytest.mark.parametrize("wire", ["json", "binary"])
def test_encode(benchmark: BenchmarkFixture, wire: str) -> None:
    decoded = _decode(wire, 64)
    encoded = benchmark(decoded.encode, {"y": rows(1, CLASSES)})
    assert encoded.body
