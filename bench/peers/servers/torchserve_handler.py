# mypy: ignore-errors
"""TorchServe: a handler for batches; a body is JSON, or a row's bytes."""

import numpy as np
import orjson
from given import Model


class Handler:
    def initialize(self, context):
        self._model = Model()

    def handle(self, data, context):
        bodies = [one.get("body") or one.get("data") for one in data]
        scored = self._model.score(np.stack([row_of(body) for body in bodies]))
        return [
            orjson.dumps([row.tolist()]) if isinstance(body, dict) else row.tobytes()
            for body, row in zip(bodies, scored, strict=True)
        ]


def row_of(body):
    if isinstance(body, dict):
        return np.asarray(body["input_data"][0], np.float32)
    return np.frombuffer(body, np.float32)
