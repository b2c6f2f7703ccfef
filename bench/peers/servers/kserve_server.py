# mypy: ignore-errors
"""KServe's Python model server: a custom model over the Open Inference Protocol, binary tensors included.

Settings: one worker a core, no gRPC, no latency log (kserve.github.io, "custom model"). The server has no batching of
its own: on Kubernetes a sidecar does that, which has no part outside it. It listens on every interface; it is told
loopback here.
"""

import functools

import uvicorn
from given import INPUT, NAME, OUTPUT, PORT, WORKERS, Model
from kserve import InferOutput, InferResponse, ModelServer
from kserve import Model as Served

original = uvicorn.Config.__init__


@functools.wraps(original)
def on_loopback(self, *arguments, **options):
    original(self, *arguments, **{**options, "host": "127.0.0.1"})


uvicorn.Config.__init__ = on_loopback


class Scorer(Served):
    def __init__(self):
        super().__init__(NAME)
        # With more than one worker this travels to them by pickle, and a session does not.
        self._model = None
        self.ready = True

    def load(self):
        return True

    async def predict(self, payload, headers=None, response_headers=None):
        if self._model is None:
            self._model = Model()
        rows = payload.get_input_by_name(INPUT).as_numpy()
        scored = self._model.score(rows)
        output = InferOutput(name=OUTPUT, shape=list(scored.shape), datatype="FP32", data=scored)
        return InferResponse(
            response_id=payload.id or "",
            model_name=NAME,
            infer_outputs=[output],
            requested_outputs=payload.request_outputs,
            use_binary_outputs=payload.use_binary_outputs,
        )


if __name__ == "__main__":
    server = ModelServer(http_port=PORT, workers=WORKERS, enable_grpc=False, enable_latency_logging=False)
    server.start([Scorer()])
