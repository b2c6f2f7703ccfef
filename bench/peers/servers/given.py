# mypy: ignore-errors
"""What a peer's program is told: which model, which port, how many workers; and the one way to open the model.

Why: the same session options everywhere, one thread a session, no spinning; only the server differs.
Shapes: rows float32 [N, features] in, float32 [N, outputs] out.
"""

import os

import numpy as np
import onnxruntime

MODEL = os.environ["PEER_MODEL"]
NAME = os.environ["PEER_NAME"]
INPUT = os.environ["PEER_INPUT"]
OUTPUT = os.environ["PEER_OUTPUT"]
FEATURES = int(os.environ["PEER_FEATURES"])
OUTPUTS = int(os.environ["PEER_OUTPUTS"])
PORT = int(os.environ["PEER_PORT"])
SPARE_PORTS = [int(port) for port in os.environ["PEER_SPARE_PORTS"].split(",")]
WORKERS = int(os.environ["PEER_WORKERS"])
ROWS_MAX = int(os.environ["PEER_ROWS_MAX"])


class Model:
    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])

    def score(self, rows):
        """`rows`: anything that numpy makes float32 [N, features] of."""
        return self._session.run([OUTPUT], {INPUT: np.asarray(rows, np.float32)})[0]
