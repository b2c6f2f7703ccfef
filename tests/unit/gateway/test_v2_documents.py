"""The V2 documents: every key that a strict client reads is there, with the type it expects."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.dataplane import v2_documents
from gateway.dataplane.v2_documents import BatchStatistics, Duration, IndexEntry, ModelStatistics
from gateway.telemetry.record import DeploymentRecord
from runtimes import Datatype, Signature
from tests.support.codec_signatures import signature, spec

TABULAR = signature(
    spec("x", shape=(-1, 30)),
    outputs=(spec("label", Datatype.INT64, (-1,)), spec("scores", Datatype.FP32, (-1,), maps=True)),
)


def config(sig: Signature, **changes: Any) -> dict[str, Any]:
    return v2_documents.model_config("digits", sig, **{"batch_rows_max": 64, **changes})


def test_server_metadata_names_its_extensions() -> None:
    document = v2_documents.server_metadata("1.2.3")
    assert document["name"] == "inference-gateway"
    assert document["version"] == "1.2.3"
    assert {"binary_tensor_data", "statistics", "model_configuration"} <= set(document["extensions"])
    assert v2_documents.server_metadata("1", ())["extensions"] == []


def test_model_metadata_includes_the_batch_dimension() -> None:
    assert v2_documents.model_metadata("digits", ["blue", "green"], TABULAR) == {
        "name": "digits",
        "versions": ["blue", "green"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 30]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "scores", "datatype": "BYTES", "shape": [-1]},
        ],
    }


def test_a_batched_model_has_a_batch_size_and_dims_without_rows() -> None:
    document = config(TABULAR, queue_delay_ns=5_000_000)
    assert document["max_batch_size"] == 64
    assert document["input"][0]["dims"] == [30]
    assert document["input"][0]["data_type"] == "TYPE_FP32"
    assert document["output"][0]["dims"] == []
    assert document["output"][1]["data_type"] == "TYPE_STRING"
    assert document["dynamic_batching"]["max_queue_delay_microseconds"] == 5000
    assert document["model_transaction_policy"] == {"decoupled": False}


@pytest.mark.parametrize(
    "sig",
    [
        signature(spec("x", shape=(-1, 30)), batched=False),
        signature(spec("x", shape=(2, -1), batch_axis=1)),
        signature(spec("x"), spec("sr", Datatype.INT64, (), batch_axis=None)),
        signature(spec("x"), outputs=(spec("y", shape=(3,), batch_axis=None),)),
    ],
)
def test_dims_are_whole_where_rows_are_not_the_first_axis_everywhere(sig: Signature) -> None:
    document = config(sig)
    assert document["max_batch_size"] == 0
    assert document["input"][0]["dims"] == list(sig.inputs[0].shape)
    assert ("dynamic_batching" in document) == sig.batched


def test_instances_are_on_the_cpu_or_on_devices() -> None:
    assert config(TABULAR, instance_count=2)["instance_group"][0]["kind"] == "KIND_CPU"
    group = config(TABULAR, device_ids=(0, 1))["instance_group"][0]
    assert group["kind"] == "KIND_GPU"
    assert group["gpus"] == [0, 1]


@pytest.mark.parametrize("datatype", list(Datatype))
def test_every_datatype_has_a_configuration_name(datatype: Datatype) -> None:
    name = config(signature(spec("x", datatype)))["input"][0]["data_type"]
    assert name == {"BYTES": "TYPE_STRING"}.get(datatype.v2, f"TYPE_{datatype.v2}")


def test_statistics_have_every_key_before_the_first_request() -> None:
    (model,) = v2_documents.statistics_document([ModelStatistics(name="digits", version="blue")])["model_stats"]
    assert {"name", "version", "last_inference", "inference_count", "execution_count"} <= model.keys()
    steps = [
        "success",
        "fail",
        "queue",
        "compute_input",
        "compute_infer",
        "compute_output",
        "cache_hit",
        "cache_miss",
    ]
    assert list(model["inference_stats"]) == steps
    assert all(step == {"count": 0, "ns": 0} for step in model["inference_stats"].values())
    assert model["batch_stats"] == []


def test_statistics_carry_their_numbers() -> None:
    took = Duration(count=2, ns=300)
    batch = BatchStatistics(rows=8, compute_infer=took)
    statistics = ModelStatistics(
        name="digits",
        version="blue",
        last_inference_ms=5,
        inference_count=16,
        execution_count=2,
        queue=took,
        batches=(batch,),
    )
    (model,) = v2_documents.statistics_document([statistics])["model_stats"]
    assert model["last_inference"] == 5
    assert model["inference_count"] / model["execution_count"] == 8
    assert model["inference_stats"]["queue"] == {"count": 2, "ns": 300}
    assert model["batch_stats"][0]["batch_size"] == 8
    assert model["batch_stats"][0]["compute_infer"] == {"count": 2, "ns": 300}


def test_the_index_lists_versions_with_their_reason() -> None:
    entries = [
        IndexEntry(name="digits", version="blue", state="READY"),
        IndexEntry(name="digits", version="green", state="UNAVAILABLE", reason="no such file"),
    ]
    assert v2_documents.repository_index(entries) == [
        {"name": "digits", "version": "blue", "state": "READY", "reason": ""},
        {"name": "digits", "version": "green", "state": "UNAVAILABLE", "reason": "no such file"},
    ]


def test_every_document_is_json() -> None:
    orjson.dumps([config(TABULAR), v2_documents.model_metadata("m", [], TABULAR)])


def test_statistics_speak_of_requests_rows_and_runs() -> None:
    ms = 1_000_000
    record = DeploymentRecord(clock=lambda: 77 * ms)
    record.answered(200, 9 * ms, 1 * ms, 2 * ms, 3 * ms, 4 * ms)
    record.answered(424, 5 * ms, 1 * ms, 2 * ms)
    record.ran(4, 2, 3 * ms, False)
    record.ran(2, 1, 1 * ms, False)
    record.ran(2, 1, 1 * ms, True)
    found = v2_documents.statistics_of("digits", "blue", record.snapshot(), 80 * ms, 1_000.0)
    assert found == ModelStatistics(
        name="digits",
        version="blue",
        last_inference_ms=999_997,
        inference_count=6,
        execution_count=2,
        success=Duration(count=1, ns=9 * ms),
        fail=Duration(count=1, ns=5 * ms),
        queue=Duration(count=2, ns=4 * ms),
        compute_input=Duration(count=2, ns=2 * ms),
        compute_infer=Duration(count=1, ns=3 * ms),
        compute_output=Duration(count=1, ns=4 * ms),
        batches=(
            BatchStatistics(rows=2, compute_infer=Duration(count=1, ns=1 * ms)),
            BatchStatistics(rows=4, compute_infer=Duration(count=1, ns=3 * ms)),
        ),
    )


def test_a_model_that_never_ran_has_no_last_inference() -> None:
    assert v2_documents.statistics_of("d", "b", DeploymentRecord().snapshot(), 5, 5.0).last_inference_ms == 0
