"""The bytes of one scoring request, made once and sent many times.

Shapes: `rows` float32 [rows, features]; a request carries one row.
Source: bench.client.bodies, which `gateway bench` makes its requests with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.client import bodies

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a request goes: one deployment of one endpoint, and the model's input and outputs by name."""

    endpoint: str
    deployment: str
    key: str
    input: str
    outputs: tuple[str, ...]

    @property
    def model(self) -> bodies.Model:
        return bodies.Model(
            inputs=(bodies.Input(name=self.input, datatype="FP32", shape=(-1, -1)),), outputs=self.outputs
        )


def azure_json(target: Target, row: Rows) -> bytes:
    body = bodies.azure_body(target.model, {target.input: row[np.newaxis]})
    path = f"/endpoints/{target.endpoint}/score"
    return _request(target, path, body, (("azureml-model-deployment", target.deployment),))


def v2_binary(target: Target, row: Rows) -> bytes:
    body = bodies.v2_binary_body(target.model, {target.input: row[np.newaxis].astype("<f4")})
    return _request(target, f"/v2/models/{target.endpoint}/versions/{target.deployment}/infer", body)


FORMATS = {"json": azure_json, "binary": v2_binary}


def requests(target: Target, rows: Rows, wire: str) -> list[bytes]:
    """One request a row, so that no two neighbours are the same."""
    return [FORMATS[wire](target, row) for row in rows]


def _request(target: Target, path: str, body: bodies.Body, headers: bodies.Headers = ()) -> bytes:
    return bodies.request_bytes("localhost", path, body, (("authorization", f"Bearer {target.key}"), *headers))
