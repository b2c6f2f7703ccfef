# mypy: ignore-errors
"""Ray Serve: dynamic batching up to the common limit without a wait, one replica a core.

Settings: RAY_SERVE_THROUGHPUT_OPTIMIZED=1 and no access log (docs.ray.io, "performance tuning"), orjson for bodies.
"""

import signal
import threading

import orjson
import ray
from given import PORT, ROWS_MAX, WORKERS, Model
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig
from starlette.responses import Response


@serve.deployment(
    num_replicas=WORKERS,
    max_ongoing_requests=1024,
    ray_actor_options={"num_cpus": 0},
    logging_config=LoggingConfig(enable_access_log=False, log_level="ERROR"),
)
class Scorer:
    def __init__(self):
        self._model = Model()

    @serve.batch(max_batch_size=ROWS_MAX, batch_wait_timeout_s=0)
    async def _score(self, rows):
        return self._model.score(rows).tolist()

    async def __call__(self, request):
        row = orjson.loads(await request.body())["input_data"][0]
        return Response(orjson.dumps([await self._score(row)]), media_type="application/json")


if __name__ == "__main__":
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    ray.init(num_cpus=max(1, WORKERS), include_dashboard=False, log_to_driver=False, configure_logging=False)
    serve.start(
        http_options=HTTPOptions(host="127.0.0.1", port=PORT),
        logging_config=LoggingConfig(enable_access_log=False, log_level="ERROR"),
    )
    serve.run(Scorer.bind(), name="peer", route_prefix="/score")
    stop.wait()
    ray.shutdown()
