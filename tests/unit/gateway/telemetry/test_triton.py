"""Triton's names over the gateway's numbers."""

from __future__ import annotations

from gateway.telemetry import triton
from gateway.telemetry.record import ScorerRecord


def _samples(record: ScorerRecord) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in triton.families(record.snapshot())
        for sample in family.samples
    }


def test_the_aliases_say_what_triton_says() -> None:
    record = ScorerRecord()
    blue = record.deployment("digits", "blue")
    blue.answered(200, 9_000_000, 1_000_000, 2_000_000, 3_000_000, 1_500_000, 500_000)
    for code in (408, 429, 503, 504, 424, 424, 400, 499):
        blue.answered(code, 1_000_000)
    blue.hung_up()
    blue.ran(8, 3, 3_000_000, False)
    blue.ran(8, 3, 3_000_000, True)
    blue.queue_depth = 7
    one = ("digits", "blue")
    assert _samples(record) == {
        ("nv_inference_request_success", *one): 1,
        ("nv_inference_request_failure", *one, "REJECTED"): 4,
        ("nv_inference_request_failure", *one, "CANCELED"): 1,
        ("nv_inference_request_failure", *one, "BACKEND"): 2,
        ("nv_inference_request_failure", *one, "OTHER"): 1,
        ("nv_inference_count", *one): 8,
        ("nv_inference_exec_count", *one): 1,
        ("nv_inference_pending_request_count", *one): 7,
        ("nv_inference_request_duration_us", *one): 17_000,
        ("nv_inference_queue_duration_us", *one): 2_500,
        ("nv_inference_compute_input_duration_us", *one): 1_000,
        ("nv_inference_compute_infer_duration_us", *one): 3_000,
        ("nv_inference_compute_output_duration_us", *one): 1_500,
    }


def test_every_alias_of_the_table_is_filled() -> None:
    record = ScorerRecord()
    record.deployment("digits", "blue")
    assert {name for name, *_ in _samples(record)} == {row.name for row in triton.TABLE}
