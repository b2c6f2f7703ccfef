"""Strangers' models: each is batched where that changes no answer, and otherwise served one request at a time with
the reason in one sentence. Small models built for one trait each, and the real ones that packages carry."""

from pathlib import Path

import numpy as np
import pytest

from runtimes import samples
from runtimes.errors import LoadFailed
from runtimes.loader import OpenModel, open_model
from runtimes.proof import same
from runtimes.spec import BatchingSpec, RuntimeSpec
from tests.support import models


def opened(path: Path, **axes: int) -> OpenModel:
    return open_model(RuntimeSpec(path=str(path), sha256="", batching=BatchingSpec(axes=axes)))


def close(model: OpenModel) -> None:
    for session in model.sessions:
        session.close()


def check_rows_alone_and_together(model: OpenModel) -> None:
    """The promise itself, once more and from outside: five rows in one run are what each is alone."""
    signature = model.signature
    recipe = samples.Recipe(shapes=model.learned.sample_shapes, level=model.learned.sample_level)
    rows = [samples.row(signature, recipe, seed) for seed in range(50, 55)]
    together = model.sessions[0].run(samples.together(signature, rows), None)
    for place, row in enumerate(rows):
        alone = model.sessions[0].run(row, None)
        for spec in signature.outputs:
            assert spec.batch_axis is not None
            assert same(alone[spec.name], np.take(together[spec.name], [place], spec.batch_axis), spec.datatype)


BATCHED = {
    "double": (models.double(), {"x": 0}, {"y": 0}),
    "linear": (models.linear(), {"x": 0}, {"y": 0}),
    "wide network": (models.mlp((64, 256, 10)), {"x": 0}, {"y": 0}),
    "rows on the second axis": (models.batch_axis_second(), {"x": 0, "state": 1}, {"y": 0, "state_out": 1}),
    "scalar beside rows": (models.scalar_beside_rows(), {"x": 0}, {"y": 0}),
    "string outputs": (models.text_labels(), {"class": 0}, {"label": 0}),
    "small table": (models.embedding(), {"ids": 0}, {"y": 0}),
    "one width only": (models.picky_width(7), {"x": 0}, {"y": 0}),
    "sequence of maps": (models.zip_map(), {"x": 0}, {"probabilities": 0}),
}

UNBATCHED = {
    "no batch axis": (models.no_batch_axis(), "no input has a free dimension"),
    "fixed batch of one": (models.fixed_batch_of_one(), "no input has a free dimension"),
    "hidden batch of one": (models.hidden_batch_of_one(), "a run of 2 rows fails where each row alone is answered"),
    "fewer rows out": (models.fewer_rows_out(), "output 'y' has shape [1, 4] for 2 rows of input"),
    "rows dropped": (models.rows_dropped(), "for 2 rows of input, not one entry a row"),
    "more rows out": (models.more_rows_out(), "output 'y' has shape [4, 4] for 2 rows of input"),
    "mean over the batch": (models.mean_over_batch(), "output 'y' of a row changes with the other rows"),
    "faint mean": (models.faint_mean_over_batch(), "output 'y' of a row changes with the other rows"),
    "scaled by the batch": (models.scaled_by_batch(), "output 'y' of a row changes with the other rows"),
    "all against all": (models.similarity(), "output 'y' of a row changes with the other rows"),
    "noise": (models.random_noise(), "output 'y' of the same row differs from run to run"),
    "never runs": (models.never_runs(), "none of 1 generated samples runs"),
}


@pytest.mark.parametrize(("model", "inputs", "outputs"), BATCHED.values(), ids=BATCHED.keys())
def test_models_whose_rows_are_independent_are_batched(
    tmp_path: Path, model: bytes, inputs: dict[str, int], outputs: dict[str, int]
) -> None:
    found = opened(models.write(tmp_path, model))
    assert found.learned.batched, found.learned.reason
    assert (found.learned.input_axes, found.learned.output_axes) == (inputs, outputs)
    assert {spec.name: spec.batch_axis for spec in found.signature.outputs} == outputs
    check_rows_alone_and_together(found)
    close(found)


@pytest.mark.parametrize(("model", "reason"), UNBATCHED.values(), ids=UNBATCHED.keys())
def test_other_models_are_served_one_request_at_a_time_and_say_why(tmp_path: Path, model: bytes, reason: str) -> None:
    found = opened(models.write(tmp_path, model))
    assert not found.learned.batched
    assert not found.signature.batched
    assert reason in found.learned.reason
    assert "\n" not in found.learned.reason
    assert all(spec.batch_axis is None for spec in found.signature.inputs + found.signature.outputs)
    close(found)


@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize("string_labels", [True, False])
def test_a_random_forest_is_batched_with_and_without_maps(tmp_path: Path, zipmap: bool, string_labels: bool) -> None:
    found = opened(models.write(tmp_path, models.random_forest(zipmap, string_labels)))
    assert found.learned.batched, found.learned.reason
    assert found.signature.outputs[1].maps == zipmap
    check_rows_alone_and_together(found)
    result = found.sessions[0].run({"X": np.zeros((3, 4), np.float32)}, None)
    label, probabilities = result.values()
    assert (label.shape, probabilities.shape[0]) == ((3,), 3)
    assert isinstance(label[0], str) == string_labels
    if zipmap:
        assert set(probabilities[0]) == ({"low", "middle", "high"} if string_labels else {0, 1, 2})
    close(found)


def test_a_sequence_of_tensors_is_refused_at_load(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"output 'y' has type seq\(tensor\(float\)\), which is not supported"):
        opened(models.write(tmp_path, models.sequence_of_tensors()))


def test_an_axis_set_by_hand_is_proven_like_any_other(tmp_path: Path) -> None:
    path = models.write(tmp_path, models.identity(shape=(3, None, None)))
    guessed, told = opened(path), opened(path, x=2)
    assert not guessed.learned.batched
    assert told.learned.batched
    assert told.learned.output_axes == {"y": 2}
    close(guessed)
    close(told)


REAL = {
    "silero_vad": ({"input": 0, "state": 1}, {"output": 0, "stateN": 1}),
    "magika": ({"bytes": 0}, {"target_label": 0}),
    "nudenet": ({"images": 0}, {"output0": 0}),
    "rapidocr_det": ({"x": 0}, {"sigmoid_0.tmp_0": 0}),
    "rapidocr_rec": ({"x": 0}, {"softmax_11.tmp_0": 0}),
    "rapidocr_cls": ({"x": 0}, {"save_infer_model/scale_0.tmp_1": 0}),
}


@pytest.mark.parametrize("name", models.REAL_MODELS)
def test_real_models_are_batched(name: str) -> None:
    path = models.real(name)
    if path is None:
        pytest.skip(f"the package that carries {name} is not installed (tests/models.txt)")
    found = opened(path)
    assert found.learned.batched, found.learned.reason
    assert (found.learned.input_axes, found.learned.output_axes) == REAL[name]
    check_rows_alone_and_together(found)
    close(found)


def test_a_network_of_full_size_is_batched(tmp_path: Path) -> None:
    found = opened(models.write(tmp_path, models.mlp()))
    assert found.learned.batched, found.learned.reason
    check_rows_alone_and_together(found)
    close(found)
