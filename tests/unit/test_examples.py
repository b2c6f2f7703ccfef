"""The demo is what its README says: real data, two models that fit together, YAML and samples that belong to them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml

from examples.digits import run, train
from examples.digits.data import held_out, split

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
MODELS = {"blue": DIGITS / "blue" / "model.onnx", "green": DIGITS / "green" / "model.onnx"}


@pytest.fixture(params=sorted(MODELS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _session(name: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(MODELS[name], providers=["CPUExecutionProvider"])


def test_both_models_together_take_two_megabytes_at_most() -> None:
    assert sum(path.stat().st_size for path in MODELS.values()) <= 2_000_000


def test_both_models_have_the_same_inputs_and_outputs_with_a_named_row_count(name: str) -> None:
    session = _session(name)
    described = {node.name: (node.type, node.shape) for node in (*session.get_inputs(), *session.get_outputs())}
    assert described == {
        "pixels": ("tensor(float)", ["N", 64]),
        "label": ("tensor(int64)", ["N"]),
        "probabilities": ("tensor(float)", ["N", 10]),
    }


def test_the_readme_states_the_accuracy_that_onnxruntime_gives(name: str) -> None:
    digits = held_out()
    (labels,) = _session(name).run(["label"], {"pixels": digits.pixels})
    right = int((labels == digits.labels).sum())
    (row,) = re.findall(rf"\| `{name}` \|.*", (DIGITS / "README.md").read_text())
    assert f"{right} of {len(digits.labels)} ({right / len(digits.labels):.4f})" in row


def test_the_held_out_rows_are_never_trained_on_and_none_is_lost() -> None:
    training, held = split()
    assert len(training.labels) + len(held.labels) == 1797
    assert training.pixels.dtype == held.pixels.dtype == np.float32
    assert not {row.tobytes() for row in training.pixels} & {row.tobytes() for row in held.pixels}


def test_training_again_gives_the_same_answers(name: str) -> None:
    training, held = split()
    again = {"blue": train.train_blue, "green": train.train_green}[name](training).SerializeToString()
    committed = MODELS[name].read_bytes()
    # Other versions of scikit-learn may round otherwise: three rows of 540.
    assert train.accuracy(again, held) == pytest.approx(train.accuracy(committed, held), abs=3 / 540)


def test_green_is_made_of_plain_operators_only() -> None:
    nodes = [node.op_type for node in onnx.load(MODELS["green"]).graph.node]
    assert nodes == ["Div", "Gemm", "Relu", "Gemm", "Softmax", "ArgMax"]


def test_the_sample_files_are_the_first_held_out_rows_and_their_true_labels() -> None:
    for file_name, text in train.sample_texts(held_out()).items():
        assert (DIGITS / file_name).read_text() == text
    rows = json.loads((DIGITS / "sample-request.json").read_text())["input_data"]
    (tensor,) = json.loads((DIGITS / "sample-request-v2.json").read_text())["inputs"]
    labels = json.loads((DIGITS / "sample-labels.json").read_text())
    assert tensor["shape"] == [len(labels), 64]
    assert np.array_equal(np.array(tensor["data"]).reshape(tensor["shape"]), np.array(rows))
    assert labels == held_out().labels[: len(rows)].tolist()


def test_the_yaml_names_the_models_and_sends_ninety_percent_to_blue(name: str) -> None:
    endpoint = yaml.safe_load((DIGITS / "endpoint.yml").read_text())
    deployment = yaml.safe_load((DIGITS / f"{name}.yml").read_text())
    assert endpoint["traffic"] == {"blue": 90, "green": 10}
    assert (endpoint["auth_mode"], deployment["endpoint_name"]) == ("key", endpoint["name"])
    assert deployment["name"] == name
    assert (DIGITS / deployment["model"]["path"]).resolve() == MODELS[name].resolve()


READY = "ready scoring=https://127.0.0.1:8443 management=https://127.0.0.1:8444 telemetry=http://127.0.0.1:9464 ca="


def test_the_ready_line_is_understood_whatever_folder_the_certificate_is_in() -> None:
    ready = run.parse_ready(READY + "/a folder/ca.pem\n")
    assert ready == run.Ready(
        "https://127.0.0.1:8443", "https://127.0.0.1:8444", "http://127.0.0.1:9464", "/a folder/ca.pem"
    )
    assert run.parse_ready("warming up\n") is None


def test_the_curl_line_is_quoted_for_a_shell_and_works_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ready = run.parse_ready(f"{READY}my state/ca.pem")
    assert ready is not None
    words = shlex.split(run.curl_line(ready, "secret", Path("/elsewhere/body.json")))
    assert words == [
        "curl",
        *("--cacert", f"{tmp_path}/my state/ca.pem"),
        *("-H", "Authorization: Bearer secret", "-H", "Content-Type: application/json"),
        *("--data", "@/elsewhere/body.json", "https://127.0.0.1:8443/endpoints/digits/score"),
    ]


def test_without_tls_no_certificate_is_named() -> None:
    ready = run.parse_ready(READY.replace("scoring=https", "scoring=http"))
    assert ready is not None
    assert "--cacert" not in run.curl_line(ready, "secret", Path("body.json"))
    assert "CA file" not in run.instructions(ready, "secret")


@pytest.mark.parametrize(
    ("arguments", "state"),
    [([], None), (["--state", "s"], "s"), (["--scorers", "1", "--state=t"], "t"), (["--state"], None)],
)
def test_the_key_is_asked_from_the_state_folder_that_is_served(arguments: list[str], state: str | None) -> None:
    assert run.state_of(arguments) == state
