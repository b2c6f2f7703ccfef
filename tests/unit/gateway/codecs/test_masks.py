"""A mask that the gateway makes may be left out in every form of a request, and may be given in every form too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from gateway.dataplane import swagger
from gateway.dataplane.codecs import Decoded, decode_score, decode_v2
from runtimes import Datatype, InvalidInput
from runtimes.signature import Mask
from tests.support.codec_signatures import signature, spec

IDS = [[1, 2, 3], [4, 5, 6]]
ONES = [[1, 1, 1], [1, 1, 1]]
ZEROS = [[1, 1, 0], [1, 0, 0]]
PLAIN = signature(spec("ids", Datatype.INT64, (-1, -1)), spec("mask", Datatype.INT64, (-1, -1)))
MASKED = replace(PLAIN, mask=Mask(name="mask", like="ids", axes=(0, 1)))


def azure(data: Any) -> Decoded:
    return decode_score(orjson.dumps({"input_data": data}), None, MASKED, "texts", "blue")


def v2(*inputs: dict[str, Any]) -> Decoded:
    return decode_v2(orjson.dumps({"inputs": list(inputs)}), None, MASKED, "texts", "blue")


def tensor(name: str, values: list[list[int]]) -> dict[str, Any]:
    return {"name": name, "shape": [2, 3], "datatype": "INT64", "data": values}


@pytest.mark.parametrize(
    "decoded",
    [
        lambda: azure(IDS),
        lambda: azure({"ids": IDS}),
        lambda: azure([{"ids": row} for row in IDS]),
        lambda: azure({"columns": ["ids"], "index": [0, 1], "data": [[row] for row in IDS]}),
        lambda: v2(tensor("ids", IDS)),
    ],
    ids=["rows", "named", "records", "split", "v2"],
)
def test_a_mask_that_is_left_out_is_all_ones(decoded: Any) -> None:
    call = decoded()
    assert call.rows == 2
    assert call.inputs["ids"].tolist() == IDS
    assert call.inputs["mask"].tolist() == ONES
    assert call.inputs["mask"].dtype == np.int64


@pytest.mark.parametrize(
    "decoded",
    [
        lambda: azure({"ids": IDS, "mask": ZEROS}),
        lambda: azure([{"ids": row, "mask": mask} for row, mask in zip(IDS, ZEROS, strict=True)]),
        lambda: azure({"columns": ["mask", "ids"], "data": [list(pair) for pair in zip(ZEROS, IDS, strict=True)]}),
        lambda: v2(tensor("mask", ZEROS), tensor("ids", IDS)),
    ],
    ids=["named", "records", "split", "v2"],
)
def test_a_mask_that_is_given_is_taken(decoded: Any) -> None:
    assert decoded().inputs["mask"].tolist() == ZEROS


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"mask": ONES}, "input 'ids' is missing"),
        ({"ids": [1, 2]}, r"input 'ids' has shape \[2\]; the model takes INT64 \[-1, -1\]"),
        ({"ids": IDS, "types": IDS}, "there is no input 'types'"),
        ([{"ids": [1], "types": [2]}], "record 0 names 'types'"),
    ],
)
def test_what_else_is_missing_or_wrong_is_said_as_ever(body: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        azure(body)


def test_without_a_declared_mask_all_inputs_are_needed() -> None:
    with pytest.raises(InvalidInput, match="input 'mask' is missing"):
        decode_score(orjson.dumps({"input_data": {"ids": IDS}}), None, PLAIN, "texts", "blue")


def test_a_mask_has_its_own_datatype_and_fixed_sizes() -> None:
    wide = replace(
        signature(spec("ids", Datatype.INT64, (-1, -1)), spec("mask", Datatype.BF16, (-1, 1, -1))),
        mask=Mask(name="mask", like="ids", axes=(0, None, 1)),
    )
    filled = wide.filled({"ids": np.array(IDS)})
    assert (filled["mask"].shape, int(filled["mask"][0, 0, 0])) == ((2, 1, 3), 0x3F80)


def test_the_schema_requires_no_mask() -> None:
    named = swagger._named_schema(MASKED, "3.0")
    assert named["required"] == ["ids"]
    assert set(named["properties"]) == {"ids", "mask"}
    assert swagger._rows_schema(MASKED, "3.0") is not None
    assert swagger._rows_schema(PLAIN, "3.0") is None
