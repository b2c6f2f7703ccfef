"""Real ONNX models under a declared signature: loaded, refused with both sides named, run in the declared shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper

from gateway.controlplane.triton.meaning import meaning_of
from gateway.controlplane.triton.model_config import ModelConfig
from gateway.controlplane.triton.typed import read_as
from runtimes import BatchingSpec, BatchLimits, LoadFailed, RuntimeSpec
from runtimes.loader import OpenModel, open_model
from runtimes.tensor import Datatype
from tests.support import models
from tests.support.triton import times

TENSOR = '{role} {{ name: "{name}" data_type: {type} dims: [ {dims} ] }}'


def config(dims: str = "4", datatype: str = "TYPE_FP32", rows: int = 8, more: str = "") -> str:
    ends = (("input", "x"), ("output", "y"))
    io = " ".join(TENSOR.format(role=role, name=name, type=datatype, dims=dims) for role, name in ends)
    return f"{io} max_batch_size: {rows} {more}"


def opened(place: Path, model: bytes, text: str, **more: Any) -> OpenModel:
    """The model as a deployment of this configuration loads it."""
    said = meaning_of(read_as(text.encode(), ModelConfig), "net")
    assert said.mistakes == []
    limits = BatchLimits(batch_rows_max=said.rows_max or 64, rows_learned=not said.rows_max)
    spec = RuntimeSpec(
        path=str(models.write(place, model)),
        sha256="",
        batching=BatchingSpec(enabled=said.batches is not False, limits=limits),
        declared=said.declared,
        graph_level=said.graph_level,
        **more,
    )
    return open_model(spec)


def refusal(place: Path, model: bytes, text: str) -> str:
    with pytest.raises(LoadFailed) as caught:
        opened(place, model, text)
    return str(caught.value)


def test_a_model_as_it_is_declared_is_proven_to_batch_up_to_its_bound(tmp_path: Path) -> None:
    model = opened(tmp_path, times(3.0), config(more="dynamic_batching { }"))
    assert model.learned.batched
    assert (model.learned.rows_max, model.signature.rows_max) == (8, 8)
    assert max(model.learned.run_times) == 8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            config(datatype="TYPE_FP64"),
            "config.pbtxt of model 'net' declares input 'x' as FP64 [-1, 4] (its first size is the batch's); the "
            "model's is FP32 [-1, 4]",
        ),
        (config(dims="5"), "declares input 'x' as FP32 [-1, 5] (its first size is the batch's); the model's is FP32"),
        (config(dims="4, 1"), "declares input 'x' as FP32 [-1, 4, 1] (its first size"),
        (config(rows=0), "declares input 'x' as FP32 [4]; the model's is FP32 [-1, 4]"),
        (config().replace('"y"', '"z"'), "declares output 'z'; the model's outputs are 'y'"),
        (config().replace('"x"', '"w"'), "declares input 'w'; the model's inputs are 'x'"),
    ],
)
def test_a_mismatch_fails_the_load_and_names_both_sides(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, times(3.0), text)


def test_a_model_of_fixed_rows_does_not_batch(tmp_path: Path) -> None:
    assert "must be free; the model's is FP32 [1, 4]; a model that does not batch has max_batch_size 0" in refusal(
        tmp_path, times(3.0, (1, 4)), config()
    )
    model = opened(tmp_path, times(3.0, (1, 4)), config(dims="1, 4", rows=0))
    assert not model.learned.batched
    assert model.learned.rows_max == 1


def test_declared_sizes_hold_where_the_model_takes_any(tmp_path: Path) -> None:
    model = opened(tmp_path, times(3.0, ("N", None)), config(more="dynamic_batching { }"))
    assert model.signature.inputs[0].shape == (-1, 4)
    assert model.learned.sample_shapes["x"][1:] == (4,)


def test_a_reshaped_model_answers_in_the_shapes_that_are_declared(tmp_path: Path) -> None:
    """A model of bare rows, as callers of Triton see it: with a size of one beside them."""
    text = config(dims="1", more="dynamic_batching { }").replace("dims: [ 1 ]", "dims: [ 1 ] reshape { shape: [ ] }")
    model = opened(tmp_path, times(3.0, ("N",)), text)
    assert model.learned.batched
    assert model.signature.inputs[0].shape == model.signature.outputs[0].shape == (-1, 1)
    answer = model.sessions[0].run({"x": np.array([[1.0], [2.0]], np.float32)}, None)
    np.testing.assert_array_equal(answer["y"], [[3.0], [6.0]])


def test_outputs_that_are_not_declared_are_neither_shown_nor_computed(tmp_path: Path) -> None:
    x, y, z = (models.value(name, Datatype.FP32, ("N", 4)) for name in "xyz")
    nodes = [helper.make_node("Add", ["x", "x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    model = opened(tmp_path, models.build(nodes, [x], [y, z]), config(more="dynamic_batching { }"))
    assert [one.name for one in model.signature.outputs] == ["y"]
    assert set(model.sessions[0].run({"x": np.ones((1, 4), np.float32)}, None)) == {"y"}
    assert model.learned.batched


def test_without_inputs_and_outputs_the_model_says_them(tmp_path: Path) -> None:
    model = opened(tmp_path, times(3.0), "max_batch_size: 4")
    assert model.learned.batched
    assert model.signature.inputs[0].shape == (-1, 4)
    assert model.learned.rows_max == 4


@pytest.mark.parametrize(
    ("level", "expected"),
    [(0, "ORT_ENABLE_ALL"), (1, "ORT_ENABLE_EXTENDED"), (2, "ORT_DISABLE_ALL"), (-1, "ORT_ENABLE_BASIC")],
)
def test_the_graphs_optimization_level_is_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: int, expected: str
) -> None:
    seen: list[Any] = []

    def watched(path: str, options: Any, **more: Any) -> Any:
        seen.append(options.graph_optimization_level)
        return real(path, options, **more)

    real = ort.InferenceSession
    monkeypatch.setattr(ort, "InferenceSession", watched)
    opened(tmp_path, times(3.0), config(more=f"optimization {{ graph {{ level: {level} }} }}"))
    assert {one.name for one in seen} == {expected}
