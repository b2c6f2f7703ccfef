"""The bytes that the load tool sends are whole, honest HTTP requests in both wire formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from bench.load.bare import Bare
from bench.load.models import Served, make_folder, wide_network
from bench.load.requests import Target, requests

TARGET = Target(endpoint="e", deployment="d", key="secret", input="x", outputs=("y", "z"))
ROWS = np.array([[1.5, 2.0], [3.0, -4.0]], np.float32)


def _split(request: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert int(headers["content-length"]) == len(body)
    assert headers["authorization"] == "Bearer secret"
    return first, headers, body


def test_azure_json_carries_one_row_to_the_named_deployment() -> None:
    first, headers, body = _split(requests(TARGET, ROWS, "json")[1])
    assert first == "POST /endpoints/e/score HTTP/1.1"
    assert headers["azureml-model-deployment"] == "d"
    assert json.loads(body) == {"input_data": [[3.0, -4.0]]}


def test_v2_binary_tells_where_its_header_ends_and_asks_for_binary_answers() -> None:
    first, headers, body = _split(requests(TARGET, ROWS, "binary")[0])
    assert first == "POST /v2/models/e/versions/d/infer HTTP/1.1"
    length = int(headers["inference-header-content-length"])
    header = json.loads(body[:length])
    (tensor,) = header["inputs"]
    assert (tensor["name"], tensor["shape"], tensor["datatype"]) == ("x", [1, 2], "FP32")
    assert tensor["parameters"]["binary_data_size"] == len(body) - length
    assert np.frombuffer(body[length:], "<f4").tolist() == [1.5, 2.0]
    assert [output["name"] for output in header["outputs"]] == ["y", "z"]
    assert all(output["parameters"] == {"binary_data": True} for output in header["outputs"])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> list[Served]:
    return make_folder(tmp_path_factory.mktemp("apply"))


def test_the_folder_holds_yaml_for_every_deployment_with_its_model(served: list[Served]) -> None:
    assert [one.label for one in served] == ["digits/blue", "digits/green", "wide/dense"]
    folder = served[0].path.parents[1]
    assert not list(folder.rglob("*.py"))
    documents = [yaml.safe_load(path.read_text()) for path in folder.glob("*.yml")]
    models = {(folder / document["model"]["path"]).resolve() for document in documents if "model" in document}
    assert models == {one.path.resolve() for one in served}


def test_the_bare_session_takes_the_rows_that_are_sent(served: list[Served]) -> None:
    for one in served:
        assert len(Bare(one).first_outputs()) == len(one.outputs)


def test_the_wide_network_is_the_same_every_time_and_valid() -> None:
    small = wide_network((4, 8, 2))
    onnx.checker.check_model(small)
    assert small.SerializeToString() == wide_network((4, 8, 2)).SerializeToString()


def test_the_bare_measurements_are_positive(served: list[Served], tmp_path: Path) -> None:
    bare = Bare(served[1])
    one = bare.one_by_one(0.01)
    assert 0 < one.p50_us <= one.p99_us
    assert bare.rate(0.01) > 0
