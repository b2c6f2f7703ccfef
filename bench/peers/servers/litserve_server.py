# mypy: ignore-errors
"""LitServe: batches up to the common limit, as its page on batching shows.

Settings: a batch timeout of 1 ms (with none its worker spins, and takes the core from its HTTP server), one inference
worker and one HTTP server a core, the fast queue, which is ZeroMQ (lightning.ai/docs/litserve/features/batching,
.../api-reference/litserver).
"""

import litserve
import numpy as np
from given import PORT, ROWS_MAX, WORKERS, Model


class Api(litserve.LitAPI):
    def setup(self, device):
        self._model = Model()

    def decode_request(self, request):
        return np.asarray(request["input_data"][0], np.float32)

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, rows):
        return self._model.score(rows)

    def unbatch(self, output):
        return output.tolist()

    def encode_response(self, output):
        return [output]


if __name__ == "__main__":
    server = litserve.LitServer(
        Api(max_batch_size=ROWS_MAX, batch_timeout=0.001, api_path="/score"),
        accelerator="cpu",
        workers_per_device=WORKERS,
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=PORT,
        num_api_servers=WORKERS,
        log_level="error",
        generate_client_file=False,
        access_log=False,
    )
