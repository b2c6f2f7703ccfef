# mypy: ignore-errors
"""The scoring script that Azure Machine Learning's inference server runs: init once, run for each request."""

import json

from given import Model


def init():
    global model
    model = Model()


def run(raw_data):
    return model.score(json.loads(raw_data)["input_data"]).tolist()
