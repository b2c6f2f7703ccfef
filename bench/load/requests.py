"""The bytes of one scoring request, made once and sent many times.

Shapes: `rows` float32 [rows, features]; a request carries one row.
Source: Azure Machine Learning's JSON body `{"input_data": [[...]]}`, and the Open Inference Protocol V2 with the
binary tensor extension, answer included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a request goes: one deployment of one endpoint, and the model's input and outputs by name."""

    endpoint: str
    deployment: str
    key: str
    input: str
    outputs: tuple[str, ...]


def azure_json(target: Target, row: Rows) -> bytes:
    body = orjson.dumps({"input_data": [row.tolist()]})
    return _request(
        f"/endpoints/{target.endpoint}/score",
        body,
        {
            "authorization": f"Bearer {target.key}",
            "azureml-model-deployment": target.deployment,
            "content-type": "application/json",
        },
    )


def v2_binary(target: Target, row: Rows) -> bytes:
    tensor = row.astype("<f4").tobytes()
    header = orjson.dumps(
        {
            "inputs": [
                {
                    "name": target.input,
                    "shape": [1, len(row)],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": len(tensor)},
                }
            ],
            "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in target.outputs],
        }
    )
    return _request(
        f"/v2/models/{target.endpoint}/versions/{target.deployment}/infer",
        header + tensor,
        {
            "authorization": f"Bearer {target.key}",
            "content-type": "application/octet-stream",
            "inference-header-content-length": str(len(header)),
        },
    )


FORMATS = {"json": azure_json, "binary": v2_binary}


def requests(target: Target, rows: Rows, wire: str) -> list[bytes]:
    """One request a row, so that no two neighbours are the same."""
    return [FORMATS[wire](target, row) for row in rows]


def _request(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    lines: Sequence[str] = [
        f"POST {path} HTTP/1.1",
        "host: localhost",
        *(f"{name}: {value}" for name, value in headers.items()),
        f"content-length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
