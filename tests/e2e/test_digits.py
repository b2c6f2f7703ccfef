"""All held-out digits through HTTPS, in every wire format: what onnxruntime answers directly, row for row."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from examples.digits.data import Digits
from tests.e2e.conftest import Truth
from tests.support.process import GatewayProcess

Pixels = NDArray[np.float32]
Score = Callable[[httpx.Client, str, Pixels], Truth]


# The answer may come from a batch of another size, whose sums are rounded otherwise.
def _assert_close(found: Pixels, expected: Pixels) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def _azure(client: httpx.Client, deployment: str, pixels: Pixels) -> Truth:
    reply = client.post(
        "/endpoints/digits/score",
        headers={"azureml-model-deployment": deployment},
        json={"input_data": pixels.tolist()},
    )
    assert reply.status_code == 200, reply.text
    assert reply.headers["azureml-model-deployment"] == deployment
    found = reply.json()
    return Truth(np.array(found["label"]), np.array(found["probabilities"], np.float32))


def _v2_json(client: httpx.Client, deployment: str, pixels: Pixels) -> Truth:
    tensor = {"name": "pixels", "shape": list(pixels.shape), "datatype": "FP32", "data": pixels.ravel().tolist()}
    reply = client.post(f"/v2/models/digits/versions/{deployment}/infer", json={"inputs": [tensor]})
    assert reply.status_code == 200, reply.text
    assert reply.json()["model_version"] == deployment
    outputs = {one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in reply.json()["outputs"]}
    return Truth(outputs["label"], outputs["probabilities"].astype(np.float32))


def _v2_binary(client: httpx.Client, deployment: str, pixels: Pixels) -> Truth:
    data = pixels.tobytes()
    sized = {"binary_data_size": len(data)}
    tensor = {"name": "pixels", "shape": list(pixels.shape), "datatype": "FP32", "parameters": sized}
    asked = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    head = json.dumps(asked).encode()
    reply = client.post(
        f"/v2/models/digits/versions/{deployment}/infer",
        headers={"inference-header-content-length": str(len(head))},
        content=head + data,
    )
    assert reply.status_code == 200, reply.text
    place = int(reply.headers["inference-header-content-length"])
    outputs = {}
    for one in json.loads(reply.content[:place])["outputs"]:
        end = place + one["parameters"]["binary_data_size"]
        dtype = {"INT64": "<i8", "FP32": "<f4"}[one["datatype"]]
        outputs[one["name"]] = np.frombuffer(reply.content[place:end], dtype).reshape(one["shape"])
        place = end
    assert place == len(reply.content)
    return Truth(outputs["label"], outputs["probabilities"])


def _parts(pixels: Pixels, rows: int) -> list[Pixels]:
    return [pixels[first : first + rows] for first in range(0, len(pixels), rows)]


def _joined(answers: list[Truth]) -> Truth:
    return Truth(*(np.concatenate(parts) for parts in zip(*answers, strict=True)))


@pytest.mark.parametrize("deployment", ["blue", "green"])
@pytest.mark.parametrize("score", [_azure, _v2_json, _v2_binary], ids=["azure", "v2-json", "v2-binary"])
@pytest.mark.parametrize("rows", [1, 37, 540])
def test_every_held_out_digit_is_scored_as_onnxruntime_scores_it(
    gateway: GatewayProcess, digits: Digits, truth: dict[str, Truth], deployment: str, score: Score, rows: int
) -> None:
    with gateway.client("digits") as client:
        found = _joined([score(client, deployment, part) for part in _parts(digits.pixels, rows)])

    expected = truth[deployment]
    np.testing.assert_array_equal(found.labels, expected.labels)
    _assert_close(found.probabilities, expected.probabilities)
    accuracy = float((found.labels == digits.labels).mean())
    assert accuracy == float((expected.labels == digits.labels).mean())
    assert accuracy > 0.95


def test_concurrent_single_rows_of_all_callers_get_their_own_answers(
    gateway: GatewayProcess, digits: Digits, truth: dict[str, Truth]
) -> None:
    def score(caller: int) -> Truth:
        mine = digits.pixels[caller::8]
        with gateway.client("digits") as client:
            return _joined([_azure(client, "green", row) for row in _parts(mine, 1)])

    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(score, range(8)))

    for caller, found in enumerate(answers):
        np.testing.assert_array_equal(found.labels, truth["green"].labels[caller::8])
        _assert_close(found.probabilities, truth["green"].probabilities[caller::8])
