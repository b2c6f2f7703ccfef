# mypy: ignore-errors
"""BentoML: adaptive batching up to the common limit, arrays in and out.

Settings: one worker a core, no access log; the latency that its batcher may trade stays at the documented default
(docs.bentoml.com, "adaptive batching").
"""

import bentoml
import numpy as np
from given import ROWS_MAX, WORKERS, Model


@bentoml.service(
    workers=WORKERS,
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Scorer:
    def __init__(self):
        self._model = Model()

    @bentoml.api(batchable=True, max_batch_size=ROWS_MAX)
    def score(self, x: np.ndarray) -> np.ndarray:
        return self._model.score(x)
