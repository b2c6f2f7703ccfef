"""Which iris is it? The scoring script of both deployments, as Azure Machine Learning runs it.

A request is {"data": [[sepal length, sepal width, petal length, petal width], ...]} in centimetres; the answer has
the name and the probabilities of each row.
"""

import json
import logging
import os
from pathlib import Path

import joblib
import numpy as np


def init():
    """Once in each worker process, before it is given a request."""
    global model
    model = joblib.load(Path(os.environ["AZUREML_MODEL_DIR"]) / "model.joblib")
    logging.info("the model is a %s", type(model).__name__)


def run(raw_data):
    """Once for each request. Whatever it raises is a 424 for the caller and a traceback in the log."""
    rows = np.array(json.loads(raw_data)["data"], dtype=float)
    probabilities = model.predict_proba(rows)
    return {
        "species": [str(model.classes_[place]) for place in probabilities.argmax(axis=1)],
        "probabilities": probabilities.round(6).tolist(),
    }
