"""The YAML of padding and batch sizes: what it comes to, and what is said when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.controlplane.folder import FolderError, read_folder
from gateway.resources import Desired
from runtimes import BatchingSpec, BatchLimits, PaddingSpec, PadRule

DEPLOYMENT = "name: blue\nendpoint_name: digits\nmodel: m.onnx\ninstance_type: cpu\n"


def read(folder: Path, batching: str) -> Desired:
    (folder / "m.onnx").write_bytes(b"model")
    (folder / "a.yml").write_text("name: digits\n", encoding="utf-8")
    (folder / "b.yml").write_text(f"{DEPLOYMENT}gateway:\n  batching: {batching}\n", encoding="utf-8")
    return read_folder(folder)


def batching(desired: Desired) -> BatchingSpec:
    return desired.deployments[("digits", "blue")].batching


def test_padding_is_off_unless_it_is_given(tmp_path: Path) -> None:
    found = batching(read(tmp_path, "{enabled: true}"))
    assert (found.padding, found.limits.tokens_max, found.limits.sizes) == (None, 0, ())


def test_auto_leaves_the_rules_to_the_model(tmp_path: Path) -> None:
    assert batching(read(tmp_path, "{padding: auto}")).padding == PaddingSpec()


def test_rules_are_read_key_by_key(tmp_path: Path) -> None:
    desired = read(
        tmp_path,
        "{padding: {inputs: {input_ids: {axis: 1, value: 3, multiple_of: 16}, attention_mask: {axis: 1, length: T},"
        " types: {axis: 1, buckets: [64, 32, 64]}}, mask: attention_mask, compare: argmax, pad_to: bucket},"
        " max_tokens: 8192, sizes: [8, 1, 2, 8]}",
    )
    found = batching(desired)
    assert found.padding == PaddingSpec(
        inputs={
            "input_ids": PadRule(axis=1, value=3.0, multiple_of=16),
            "attention_mask": PadRule(axis=1, length="T"),
            "types": PadRule(axis=1, buckets=(32, 64)),
        },
        mask="attention_mask",
        compare="argmax",
        pad_to="bucket",
    )
    assert found.limits == BatchLimits(
        **{**_fields(found.limits), "tokens_max": 8192, "sizes": (1, 2, 8)}  # type: ignore[arg-type]
    )
    assert desired.notes == ()


def _fields(limits: BatchLimits) -> dict[str, object]:
    return {name: getattr(limits, name) for name in limits.__dataclass_fields__}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{padding: yes}", "gateway.batching.padding: found 'yes'; accepted: one of auto or a mapping (inputs, mask"),
        ("{padding: [auto]}", "gateway.batching.padding: found a list; accepted: one of auto or a mapping"),
        ("{padding: {}}", "gateway.batching.padding.inputs: missing; accepted: a mapping of names"),
        ("{padding: {inputs: {}}}", "padding.inputs: found no rules; accepted: a rule for at least one input"),
        ("{padding: {inputs: {x: {}}}}", "gateway.batching.padding.inputs.x.axis: missing; accepted: an integer"),
        ("{padding: {inputs: {x: {axis: 8}}}}", "inputs.x.axis: found '8'; accepted: an integer from 0 to 7"),
        ("{padding: {inputs: {x: {axis: 1, value: no}}}}", "inputs.x.value: found 'no'; accepted: a number"),
        (
            "{padding: {inputs: {x: {axis: 1, multiple_of: 2, buckets: [4]}}}}",
            "padding.inputs.x: found both multiple_of and buckets; accepted: at most one of them",
        ),
        (
            "{padding: {inputs: {x: {axis: 1}}, mask: m}}",
            "padding.mask: 'm' is none of the padded inputs; accepted: one of gateway.batching.padding.inputs",
        ),
        ("{padding: {inputs: {x: {axis: 1}}, compare: all}}", "found 'all'; accepted: one of argmax, values"),
        ("{sizes: [0]}", "gateway.batching.sizes[0]: found '0'; accepted: an integer from 1"),
        ("{max_tokens: -1}", "gateway.batching.max_tokens: found '-1'; accepted: an integer from 0"),
    ],
)
def test_a_mistake_names_its_path_and_what_would_be_accepted(tmp_path: Path, given: str, said: str) -> None:
    with pytest.raises(FolderError) as caught:
        read(tmp_path, given)
    assert said in caught.value.problems[0]


def test_a_token_budget_without_padding_is_noted(tmp_path: Path) -> None:
    (note,) = read(tmp_path, "{max_tokens: 100}").notes
    assert note.endswith("gateway.batching.max_tokens: has no effect without gateway.batching.padding")
