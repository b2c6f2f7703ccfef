"""Requests of different lengths through the whole runtime: real ONNX models, proven at load, answered as if alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest

from runtimes.batching.item import WorkItem
from runtimes.errors import LoadFailed
from runtimes.loader import OpenModel, open_model
from runtimes.proof import same
from runtimes.runtime import Runtime
from runtimes.session import Session
from runtimes.signature import Signature
from runtimes.spec import BatchingSpec, BatchLimits, Learned, PaddingSpec, PadRule, RuntimeSpec
from runtimes.tensor import Array, Tensors
from tests.support import models, sequences
from tests.support.virtual import RecordingObserver, VirtualScheduler

AUTO = PaddingSpec()
DECLARED = PaddingSpec(
    inputs={"input_ids": PadRule(axis=1, multiple_of=16), "attention_mask": PadRule(axis=1)}, mask="attention_mask"
)
WIDTHS = PaddingSpec(inputs={"x": PadRule(axis=3, multiple_of=32)}, compare="argmax")


def spec_of(path: Path, padding: PaddingSpec | None = AUTO, limits: BatchLimits | None = None) -> RuntimeSpec:
    return RuntimeSpec(
        path=str(path), sha256="", batching=BatchingSpec(padding=padding, limits=limits or BatchLimits())
    )


def opened(
    folder: Path, model: bytes, padding: PaddingSpec | None = AUTO, limits: BatchLimits | None = None
) -> OpenModel:
    return open_model(spec_of(models.write(folder, model), padding, limits))


class Watched:
    """A session that keeps the shape of the first input of each run."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.signature: Signature = session.signature
        self.provider = session.provider
        self.shapes: list[tuple[int, ...]] = []

    def run(self, inputs: Tensors, outputs: tuple[str, ...] | None) -> dict[str, Array]:
        self.shapes.append(next(iter(inputs.values())).shape)
        return self._session.run(inputs, outputs)

    def close(self) -> None:
        self._session.close()


class Served:
    """A model behind a runtime on a virtual clock; all requests of one `ask` arrive in one turn of the loop."""

    def __init__(self, model: OpenModel, limits: BatchLimits | None = None) -> None:
        self.signature = model.signature
        self.session = Watched(model.sessions[0])
        self.observer = RecordingObserver()
        self._scheduler = VirtualScheduler()
        self._runtime = Runtime(
            name="blue",
            sessions=(self.session,),
            signature=model.signature,
            limits=limits or BatchLimits(),
            dispatch="inline",
            scheduler=self._scheduler,
            observer=self.observer,
        )

    def ask(self, requests: list[dict[str, Array]]) -> list[dict[str, Array]]:
        items = []
        for request in requests:
            inputs = self.signature.filled(request)
            item = WorkItem(
                inputs=inputs,
                rows=self.signature.check(inputs),
                key=self.signature.key(inputs, None) if self.signature.batched else None,
                outputs=None,
                deadline_ns=0,
                reply=lambda _: None,
            )
            self._runtime.submit(item)
            items.append(item)
        self._scheduler.run_out()
        for item in items:
            assert item.fault is None
        return [item.results or {} for item in items]

    def check(self, requests: list[dict[str, Array]]) -> None:
        """Every answer is what the bare session gives for the request alone."""
        answers = self.ask(requests)
        self.session.shapes, kept = [], self.session.shapes
        for request, answer in zip(requests, answers, strict=True):
            alone = self.session.run(self.signature.filled(request), None)
            for spec in self.signature.outputs:
                assert same(alone[spec.name], answer[spec.name], spec.datatype), (spec.name, request)
        self.session.shapes = kept

    def close(self) -> None:
        self._runtime.close()


def texts(count: int, longest: int, seed: int = 0) -> list[dict[str, Array]]:
    """Requests of one to three rows and any length, with their masks."""
    chance = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        shape = (int(chance.integers(1, 4)), int(chance.integers(1, longest + 1)))
        found.append(
            {
                "input_ids": chance.integers(0, sequences.VOCABULARY, shape),
                "attention_mask": np.ones(shape, np.int64),
            }
        )
    return found


@pytest.mark.parametrize(
    "padding", [AUTO, DECLARED, replace(DECLARED, pad_to="bucket")], ids=["auto", "mult", "bucket"]
)
def test_texts_of_different_lengths_share_runs_and_get_their_own_answers(
    tmp_path: Path, padding: PaddingSpec
) -> None:
    model = opened(tmp_path, sequences.encoder(), padding)
    assert model.learned.padding is not None, model.learned.padding_reason
    served = Served(model)
    served.check(texts(60, 90))
    assert len(served.session.shapes) < 20
    computed, wasted = (sum(numbers) for numbers in zip(*served.observer.positions, strict=True))
    assert computed == sum(rows * length for rows, length in served.session.shapes)
    assert 0 < wasted < computed / 2
    served.close()


def test_texts_longer_than_any_bucket_run_as_they_are(tmp_path: Path) -> None:
    rules = {name: PadRule(axis=1, buckets=(8, 16)) for name in ("input_ids", "attention_mask")}
    served = Served(opened(tmp_path, sequences.encoder(), PaddingSpec(inputs=rules, pad_to="bucket")))
    served.check(texts(30, 40))
    lengths = {length for _, length in served.session.shapes}
    assert {length for length in lengths if length <= 16} == {8, 16}
    assert len(lengths) > 4
    served.close()


def test_runs_stay_within_the_token_budget_and_the_allowed_sizes(tmp_path: Path) -> None:
    limits = BatchLimits(tokens_max=256, sizes=(1, 2, 4, 8, 16))
    served = Served(opened(tmp_path, sequences.encoder(), DECLARED, limits), limits)
    served.check(texts(60, 60))
    assert {rows for rows, _ in served.session.shapes} <= {1, 2, 4, 8, 16}
    assert all(rows * length <= 256 for rows, length in served.session.shapes)
    assert max(rows for rows, _ in served.session.shapes) == 16
    served.close()


def test_a_request_with_more_rows_than_the_budget_is_run_in_parts(tmp_path: Path) -> None:
    limits = BatchLimits(tokens_max=128)
    served = Served(opened(tmp_path, sequences.encoder(), DECLARED, limits), limits)
    ids = np.arange(30 * 30).reshape(30, 30) % sequences.VOCABULARY
    served.check([{"input_ids": ids, "attention_mask": np.ones_like(ids)}])
    assert [rows for rows, _ in served.session.shapes] == [4] * 7 + [2]
    served.close()


def test_a_mask_that_is_left_out_is_made(tmp_path: Path) -> None:
    served = Served(opened(tmp_path, sequences.encoder(), DECLARED))
    requests = [{"input_ids": request["input_ids"]} for request in texts(20, 50)]
    requests[0]["attention_mask"] = np.ones_like(requests[0]["input_ids"])
    served.check(requests)
    served.close()


@pytest.mark.parametrize(
    ("model", "output"),
    [(sequences.encoder(minds_mask=False), "hidden"), (sequences.mean_over_length(), "y")],
    ids=["mask ignored", "mean"],
)
def test_a_model_that_minds_the_padding_is_served_without_and_says_why(
    tmp_path: Path, model: bytes, output: str
) -> None:
    found = opened(tmp_path, model)
    assert found.learned.batched
    assert found.learned.padding is None
    assert found.learned.padding_reason == (
        f"lengths are not padded: output {output!r} of a request changes when it is padded (the values)"
    )
    served = Served(found)
    if output == "hidden":
        served.check(texts(20, 12))
    else:
        chance = np.random.default_rng(0)
        served.check([{"x": chance.standard_normal((1, 1 + place % 5)).astype(np.float32)} for place in range(20)])
    assert served.observer.positions == []
    served.close()


def test_a_mask_may_be_left_out_even_where_nothing_is_padded(tmp_path: Path) -> None:
    found = opened(tmp_path, sequences.encoder(minds_mask=False), DECLARED)
    assert found.learned.padding is None
    served = Served(found)
    served.check([{"input_ids": request["input_ids"]} for request in texts(10, 9)])
    served.close()


def test_a_model_whose_requests_share_no_run_is_not_padded(tmp_path: Path) -> None:
    found = opened(tmp_path, models.mean_over_batch())
    assert found.learned.padding_reason == "lengths are not padded, as requests share no run"


def test_nothing_is_padded_unless_it_is_asked_for(tmp_path: Path) -> None:
    found = opened(tmp_path, sequences.encoder(), None)
    assert (found.learned.padding, found.learned.padding_reason, found.signature.padding) == (None, "", None)


def test_what_was_learned_travels_and_is_not_proven_again(tmp_path: Path) -> None:
    first = opened(tmp_path, sequences.encoder(), DECLARED)
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(first.learned), type=Learned)
    assert sent == first.learned
    spec = spec_of(tmp_path / "model.onnx", DECLARED)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=RuntimeSpec) == spec
    second = open_model(spec, sent)
    assert (second.signature.padding, second.signature.mask) == (first.signature.padding, first.signature.mask)
    served = Served(second)
    served.check(texts(20, 40))
    served.close()


def test_a_rule_that_does_not_fit_the_model_fails_the_load(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="padding is set for input 'tokens'"):
        opened(tmp_path, sequences.encoder(), PaddingSpec(inputs={"tokens": PadRule(axis=1)}))


def test_images_of_different_widths_get_as_many_steps_as_they_would_alone(tmp_path: Path) -> None:
    found = opened(tmp_path, sequences.recogniser(step=4))
    assert found.learned.padding is not None, found.learned.padding_reason
    served = Served(found)
    chance = np.random.default_rng(0)
    widths = [4 + int(width) for width in chance.integers(0, 100, 40)]
    served.check([{"x": chance.standard_normal((1, 3, 8, width)).astype(np.float32)} for width in widths])
    assert len(served.session.shapes) < 20
    served.close()


# ---- a real recogniser -------------------------------------------------------------------------------------------

_DIGITS = {
    "0": "01110 10001 10011 10101 11001 10001 01110",
    "1": "00100 01100 00100 00100 00100 00100 01110",
    "3": "11111 00010 00100 00010 00001 10001 01110",
    "5": "11111 10000 11110 00001 00001 10001 01110",
    "7": "11111 00001 00010 00100 01000 01000 01000",
    "8": "01110 10001 10001 01110 10001 10001 01110",
    "9": "01110 10001 10001 01111 00001 00010 01100",
}


def picture(text: str, scale: int = 5) -> Array:
    """Black digits on white, as the recogniser wants them: FP32 [1, 3, 48, width] from -1 to 1."""
    glyphs = [np.array([list(row + "0") for row in _DIGITS[digit].split()]) == "1" for digit in text]
    ink = np.kron(np.concatenate(glyphs, axis=1), np.ones((scale, scale)))
    image = np.ones((48, ink.shape[1] + 10), np.float32)
    top = (48 - ink.shape[0]) // 2
    image[top : top + ink.shape[0], 5 : 5 + ink.shape[1]] -= 2 * ink.astype(np.float32)
    return np.broadcast_to(image, (1, 3, *image.shape)).copy()


@pytest.fixture(scope="module")
def recogniser() -> Path:
    path = models.real("rapidocr_rec")
    if path is None:
        pytest.skip("the package that carries rapidocr_rec is not installed (tests/models.txt)")
    return path


def test_a_real_recogniser_feels_its_padding_and_is_not_padded_unless_told_what_counts(recogniser: Path) -> None:
    found = open_model(spec_of(recogniser, replace(WIDTHS, compare="values")))
    assert found.learned.batched
    assert found.learned.padding is None
    assert found.learned.padding_reason == (
        "lengths are not padded: output 'softmax_11.tmp_0' of a request changes when it is padded (the values)"
    )


def test_a_real_recogniser_reads_pictures_of_different_widths_in_one_run(recogniser: Path) -> None:
    found = open_model(spec_of(recogniser, WIDTHS))
    assert found.learned.padding is not None, found.learned.padding_reason
    assert "the same entries were the largest" in found.learned.padding_reason
    served = Served(found)
    words = ["7", "98", "305", "35", "1", "879", "5350", "08", "97531", "3"]
    pictures = [{"x": picture(word)} for word in words]
    answers = served.ask(pictures)
    assert len(served.session.shapes) < len(words)
    steps, agreed = 0, 0
    for one, answer in zip(pictures, answers, strict=True):
        alone = served.session.run(one, None)["softmax_11.tmp_0"]
        padded = answer["softmax_11.tmp_0"]
        assert padded.shape == alone.shape
        steps += alone.shape[1]
        agreed += int(np.sum(alone.argmax(-1) == padded.argmax(-1)))
    # Measured: all of these; of others 99 in 100. It attends to the whole width, so no more can be asked for.
    assert agreed >= 0.95 * steps
    served.close()


def test_what_was_learned_of_a_real_recogniser_holds_for_every_width(recogniser: Path) -> None:
    found = open_model(spec_of(recogniser, WIDTHS))
    padding = found.learned.padding
    assert padding is not None
    (follows,) = padding.outputs["softmax_11.tmp_0"]
    (length,) = padding.lengths
    for width in (
        *range(length.shortest, 48),
        *(size for jump in range(64, 321, 64) for size in (jump - 4, jump + 5)),
    ):
        steps = (
            found.sessions[0].run({"x": np.zeros((1, 3, 48, width), np.float32)}, None)["softmax_11.tmp_0"].shape[1]
        )
        assert follows.size(width) == steps, width
    assert all(follows.size(one) <= follows.size(other) for one, other in pairwise(range(length.shortest, 320)))
