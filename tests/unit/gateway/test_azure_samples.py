"""Files in Azure's forms are accepted, with what has no effect named, or refused with a reason that is named."""

from __future__ import annotations

import pytest

from tests.support.azure_samples import SAMPLES, outcome, page

OUTCOMES = {one.what: outcome(one) for one in SAMPLES}


@pytest.mark.parametrize(
    "what",
    [
        "managed endpoint with a key",
        "endpoint without `$schema`, tags, description and properties",
        "token of the workspace",
        "blue and green behind one endpoint, 90 to 10",
        "traffic mirrored to green",
        "model file, size and count",
        "`type: managed`, numbers in quotes, a folder as the model",
        "request settings",
        "instances as the load needs",
        "payload logging",
        "scoring script with an inline environment and a pickled model",
        "fixed count said in words",
        "GPU size",
        "data assets: a file, a folder, a table",
        "environment that is built from a Dockerfile",
        "MLflow and Triton models, registered only",
        "batch endpoint with a default deployment",
    ],
)
def test_what_exists_here_is_accepted_unchanged(what: str) -> None:
    assert OUTCOMES[what].text == "accepted"


@pytest.mark.parametrize(
    ("what", "keys"),
    [
        ("user-assigned identity", ["identity"]),
        ("closed to the public network", ["public_network_access"]),
        ("longer probes", ["liveness_probe", "readiness_probe"]),
        (
            "environment by reference, variables, Application Insights",
            ["environment", "environment_variables", "app_insights_enabled"],
        ),
        ("no public egress", ["egress_public_network_access"]),
        (
            "scoring script with registered code and a curated environment, variables, probes, egress, batching",
            ["gateway.batching.max_rows", "egress_public_network_access"],
        ),
        (
            "custom logging without a script",
            ["data_collector.collections.model_inputs", "data_collector.collections.model_outputs.client_id"],
        ),
        ("endpoint and deployment on an attached cluster", ["resources"]),
        ("model mount path", ["model_mount_path"]),
        ("Triton repository", ["config.pbtxt"]),
        ("latest version of a model", ["model"]),
        ("older deployment with its settings at the root", ["compute"]),
    ],
)
def test_what_has_no_effect_is_named(what: str, keys: list[str]) -> None:
    found = OUTCOMES[what]
    assert not found.reasons
    assert [note.partition(":")[0] for note in found.notes] == keys


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("Microsoft Entra token", "auth_mode: aad_token needs to know whose tokens to accept"),
        ("traffic to a deployment that does not exist yet", "endpoint 'digits' has no deployment 'blue'"),
        ("no size", "instance_type: missing"),
        ("mirrored traffic on a cluster", "mirror_traffic: found on a kubernetes endpoint"),
        ("scoring script that cannot be parsed", "score.py, line 1: invalid syntax"),
        ("custom container with TensorFlow Serving", "custom containers are not run here"),
        (
            "MLflow model whose folder has no MLmodel file",
            "has a file MLmodel at its top, and this one has digits.onnx",
        ),
        ("Triton repository of a TensorRT plan", "platform: found 'tensorrt_plan', which is not run here; convert"),
        ("ONNX model in an image of one's own", "environment.build: images are not built here"),
        ("model reference without `azureml:`", "a registered model is azureml:digits-model:1"),
        ("key as a batch endpoint's credential", "auth_mode: found 'key'; accepted: one of aad_token"),
        (
            "payload logging with the callers' credentials",
            "capture_headers: found 'Authorization', which proves a caller and is never collected",
        ),
        ("job", "this is a job"),
        ("component", "this is a component"),
        ("compute", "this is a compute"),
        ("datastore", "this is a datastore"),
        ("schedule", "this is a schedule"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(what: str, reason: str) -> None:
    assert any(reason in one for one in OUTCOMES[what].reasons)


def test_samples_have_names_of_their_own_and_a_row_each() -> None:
    assert len(OUTCOMES) == len(SAMPLES)
    rows = [line for line in page().splitlines() if line.startswith("| ") and not line.startswith("| sample")]
    assert len(rows) == len(SAMPLES)
    assert all(row.count(" | ") == 1 for row in rows)
