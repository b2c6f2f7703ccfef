"""Generated samples: what is tried, in what order, and what the rows hold."""

import itertools

import numpy as np
import pytest

from runtimes.errors import ModelFailed
from runtimes.samples import Kind, Recipe, draw, find, recipes, row, together, unknowns
from runtimes.signature import Signature, TensorSpec
from runtimes.tensor import Array, Datatype, Tensors


def spec(
    name: str,
    shape: tuple[int, ...],
    datatype: Datatype = Datatype.FP32,
    axis: int | None = 0,
    symbols: tuple[str | None, ...] = (),
) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape, symbols=symbols, batch_axis=axis)


def signature(*inputs: TensorSpec) -> Signature:
    return Signature(inputs=inputs, outputs=())


class Picky:
    """Runs only when its test says so."""

    provider = "fake"

    def __init__(self, signature: Signature, wanted: object) -> None:
        self.signature = signature
        self.wanted = wanted

    def run(self, inputs: Tensors, outputs: tuple[str, ...] | None) -> dict[str, Array]:
        if not callable(self.wanted) or not self.wanted(inputs):
            raise ModelFailed("not this one")
        return {}

    def close(self) -> None: ...


def test_a_model_without_free_dimensions_has_one_recipe() -> None:
    assert list(recipes(signature(spec("x", (-1, 3))))) == [Recipe(shapes={"x": (1, 3)})]


def test_dimensions_with_one_symbol_get_one_size_and_nameless_ones_their_own() -> None:
    both = signature(
        spec("ids", (-1, -1), symbols=("N", "T")), spec("mask", (-1, -1), symbols=("N", "T")), spec("z", (-1, -1))
    )
    assert unknowns(both) == ["T", ("z", 1)]
    for recipe in recipes(both):
        assert recipe.shapes["ids"] == recipe.shapes["mask"]
    assert any(recipe.shapes["ids"] != recipe.shapes["z"] for recipe in recipes(both))


def test_all_widths_up_to_a_thousand_are_tried_where_one_is_unknown() -> None:
    widths = [recipe.shapes["x"][1] for recipe in recipes(signature(spec("x", (-1, -1))))]
    assert widths[0] == 32
    assert sorted(widths) == list(range(1, 1025))


def test_rows_too_large_for_a_sample_are_left_out() -> None:
    assert all(
        recipe.shapes["x"][1] <= 200
        for recipe in recipes(signature(spec("x", (-1, -1, -1, 100))))
        if recipe.shapes["x"][1] == recipe.shapes["x"][2]
    )


def test_integers_are_tried_in_smaller_and_smaller_ranges() -> None:
    levels = [recipe.level for recipe in recipes(signature(spec("x", (-1, 3), Datatype.INT64)))]
    assert levels == [0, 1, 2]


@pytest.mark.parametrize("datatype", list(Datatype))
@pytest.mark.parametrize("kind", list(Kind))
def test_every_datatype_has_samples_of_its_dtype_and_shape(datatype: Datatype, kind: Kind) -> None:
    for level in range(3):
        recipe = Recipe(shapes={"x": (1, 3), "s": ()}, level=level)
        made = row(signature(spec("x", (-1, 3), datatype), spec("s", (), datatype, None)), recipe, 1, kind)
        assert (made["x"].dtype, made["x"].shape, made["s"].shape) == (datatype.dtype, (1, 3), ())
        if datatype is Datatype.BYTES:
            assert all(isinstance(text, str) for text in (*made["x"].ravel(), made["s"].item()))


def test_rows_differ_by_seed_and_shared_inputs_never_do() -> None:
    both = signature(spec("x", (-1, 8)), spec("scale", (), axis=None))
    recipe = Recipe(shapes={"x": (1, 8), "scale": ()})
    samples = draw(both, recipe)
    for one, other in itertools.combinations(samples.rows, 2):
        assert not np.array_equal(one["x"], other["x"])
        assert one["scale"] == other["scale"]
    assert [mate["scale"] for mate in samples.mates] == [samples.rows[0]["scale"]] * 3
    assert np.abs(samples.mates[0]["x"]).min() == 1000
    assert np.isnan(samples.mates[2]["x"]).all()
    assert np.array_equal(row(both, recipe, 3)["x"], row(both, recipe, 3)["x"])


def test_extreme_integers_stay_in_the_range_that_runs() -> None:
    made = row(signature(spec("x", (-1, 3), Datatype.UINT8)), Recipe(shapes={"x": (1, 3)}), 1, Kind.EXTREME)
    assert made["x"].tolist() == [[99, 99, 99]]


def test_rows_are_put_together_along_their_axes() -> None:
    both = signature(spec("x", (-1, 2)), spec("state", (2, -1), axis=1), spec("scale", (), axis=None))
    recipe = Recipe(shapes={"x": (1, 2), "state": (2, 1), "scale": ()})
    rows = draw(both, recipe, 3).rows
    batch = together(both, rows)
    assert (batch["x"].shape, batch["state"].shape, batch["scale"].shape) == ((3, 2), (2, 3), ())
    assert np.array_equal(batch["state"][:, 1:2], rows[1]["state"])


def test_the_search_ends_with_the_first_recipe_that_runs() -> None:
    wide = signature(spec("x", (-1, -1)))
    found = find(Picky(wide, lambda inputs: inputs["x"].shape[1] == 64), wide, deadline_ns=1, now=lambda: 0)
    assert found.recipe == Recipe(shapes={"x": (1, 64)})
    assert found.tried == 2


def test_the_search_ends_at_its_deadline_after_one_attempt_at_least() -> None:
    wide = signature(spec("x", (-1, -1)))
    found = find(Picky(wide, None), wide, deadline_ns=0, now=lambda: 1)
    assert (found.recipe, found.tried, found.fault) == (None, 1, "not this one")


def test_the_recipes_are_bounded_in_number() -> None:
    many = signature(spec("x", (-1,) * 6, Datatype.INT32))
    assert 0 < len(list(recipes(many))) <= 6000


def test_a_search_without_luck_says_how_far_it_went() -> None:
    narrow = signature(spec("x", (-1, 4), Datatype.INT32))
    found = find(Picky(narrow, None), narrow, deadline_ns=1, now=lambda: 0)
    assert (found.recipe, found.tried, found.fault) == (None, 3, "not this one")
