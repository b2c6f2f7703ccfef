# mypy: ignore-errors
"""mosec: a Rust front that batches, Python workers that score; JSON and msgpack bodies on two routes.

Settings: dynamic batching up to the common limit with the shortest wait that can be set (1 ms; it ends early when a
batch is full), one worker process a core and route; JSON by orjson instead of the standard library; in msgpack, the
tensor travels as bytes (mosecorg.github.io/mosec, "dynamic batching" and "customized serialization").
"""

import numpy as np
import orjson
from given import FEATURES, ROWS_MAX, WORKERS, Model
from mosec import Server, Worker
from mosec.mixin import MsgpackMixin


class Json(Worker):
    def __init__(self):
        self._model = Model()

    def deserialize(self, data):
        return orjson.loads(data)["input_data"][0]

    def forward(self, data):
        return self._model.score(data).tolist()

    def serialize(self, data):
        return orjson.dumps([data])


class Packed(MsgpackMixin, Worker):
    def __init__(self):
        self._model = Model()

    def forward(self, data):
        rows = np.frombuffer(b"".join(data), np.float32).reshape(-1, FEATURES)
        return [row.tobytes() for row in self._model.score(rows)]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Json, num=WORKERS, max_batch_size=ROWS_MAX, max_wait_time=1, route="/json")
    server.append_worker(Packed, num=WORKERS, max_batch_size=ROWS_MAX, max_wait_time=1, route="/packed")
    server.run()
