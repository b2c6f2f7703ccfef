# mypy: ignore-errors
"""The model of Triton's Python backend: many requests in, one run, an answer each."""

import os
import sys

# The backend's interpreter is isolated: it heeds neither PYTHONPATH nor an environment.
sys.path[:0] = os.environ["PEER_PATH"].split(os.pathsep)

import numpy as np  # noqa: E402
import triton_python_backend_utils as triton  # noqa: E402
from given import INPUT, OUTPUT, Model  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        self._model = Model()

    def execute(self, requests):
        rows = [triton.get_input_tensor_by_name(request, INPUT).as_numpy() for request in requests]
        scored = self._model.score(rows[0] if len(rows) == 1 else np.concatenate(rows))
        answers, begin = [], 0
        for part in rows:
            end = begin + len(part)
            answers.append(triton.InferenceResponse([triton.Tensor(OUTPUT, scored[begin:end])]))
            begin = end
        return answers
