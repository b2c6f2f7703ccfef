"""JSON values into tensors: exact or refused, whichever way they take."""

from __future__ import annotations

import threading
from fractions import Fraction

import numpy as np
import pytest

from gateway.dataplane.codecs import answers, numbers
from runtimes import Datatype, InvalidInput
from tests.support.codec_signatures import spec

D = Datatype


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        (D.UINT8, [0, 255]),
        (D.INT8, [-128, 127]),
        (D.UINT16, [0, 65535]),
        (D.INT16, [-32768, 32767]),
        (D.UINT32, [0, 2**32 - 1]),
        (D.INT32, [-(2**31), 2**31 - 1]),
        (D.UINT64, [0, 2**64 - 1]),
        (D.UINT64, [2**64 - 1, 2**63]),
        (D.UINT64, [2**63]),
        (D.INT64, [-(2**63), 2**63 - 1]),
        (D.INT64, [3.0, -(2.0**53)]),
        (D.FP16, [65504.0, -65504, 65519.99]),
        (D.FP32, [3.4028235e38, 1e-46, 7]),
        (D.FP64, [1.7976931348623157e308, 2**63]),
    ],
)
def test_values_at_the_limits_are_exact(datatype: Datatype, values: list[float], plain: bool) -> None:
    array = numbers.tensor(values, spec("x", datatype, (-1,)), plain=plain)
    assert array.dtype.num == datatype.dtype.num
    assert array.tolist() == [np.array(value).astype(datatype.dtype) for value in values]


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(
    ("datatype", "value", "found"),
    [
        (D.UINT8, 300, "300 at [1]; UINT8 takes whole numbers from 0 to 255"),
        (D.UINT8, -1, "-1"),
        (D.INT8, 128, "128"),
        (D.INT32, 2**31, "2147483648"),
        (D.INT64, 2**63, "9223372036854775808"),
        (D.INT64, 2.0**64, "1.8446744073709552e+19"),
        (D.UINT64, -1, "-1"),
        (D.UINT64, 2.0**64, "1.8446744073709552e+19"),
        (D.INT64, 1.5, "1.5 at [1]"),
        (D.INT64, 2.0**54, "1.8014398509481984e+16"),
        (D.FP16, 65520.0, "65520.0 at [1]; FP16 takes numbers from -65504 to 65504"),
        (D.BF16, 3.4e38, "3.4e+38 at [1]; BF16 takes numbers from -3.3895314e+38"),
        (D.FP32, 1e39, "1e+39 at [1]; FP32 takes numbers from -3.4028235e+38 to 3.4028235e+38"),
        (D.FP32, 10**19, ""),
    ],
)
def test_values_outside_the_type_are_refused(datatype: Datatype, value: float, found: str, plain: bool) -> None:
    one = spec("x", datatype, (-1,))
    if not found:
        assert numbers.tensor([0, value], one, plain=plain)[1] == np.float32(value)
        return
    with pytest.raises(InvalidInput) as caught:
        numbers.tensor([0, value], one, plain=plain)
    assert found in str(caught.value)
    assert "'x'" in str(caught.value)


@pytest.mark.parametrize(
    ("datatype", "value", "found"),
    [
        (D.BOOL, 1, "1; BOOL takes true and false"),
        (D.BOOL, "true", '"true"'),
        (D.INT64, True, "true"),
        (D.INT64, "1", '"1"'),
        (D.FP32, "1.5", '"1.5"'),
        (D.FP32, None, "null"),
        (D.BF16, True, "true"),
        (D.BYTES, 1, "1; BYTES takes strings"),
        (D.BYTES, None, "null"),
        (D.BYTES, {}, "an object"),
        (D.FP32, "s" * 99, "sss…"),
    ],
)
def test_values_of_another_kind_are_refused(datatype: Datatype, value: object, found: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        numbers.tensor(value, spec("x", datatype, ()), plain=False)
    assert found in str(caught.value)


def test_bits_are_booleans_where_the_format_says_so() -> None:
    one = spec("x", D.BOOL, (-1,))
    assert numbers.tensor([1, 0, True], one, plain=False, bits=True).tolist() == [True, False, True]
    with pytest.raises(InvalidInput, match="2 at "):
        numbers.tensor([1, 2], one, plain=True, bits=True)


def test_strings_become_an_object_array() -> None:
    array = numbers.tensor([["a", ""], ["ü", "0"]], spec("x", D.BYTES, (-1, 2)), plain=False)
    assert array.dtype == np.object_
    assert array.tolist() == [["a", ""], ["ü", "0"]]


@pytest.mark.parametrize(
    ("value", "shape", "found"),
    [
        ([], (-1, 3, -1), (0, 3, 0)),
        ([], (-1,), (0,)),
        ([], (2, 3), (0, 3)),
        ([[], []], (-1, 3), (2, 0)),
        ([[]], (-1, -1, 5), (1, 0, 5)),
    ],
)
@pytest.mark.parametrize("datatype", list(Datatype))
def test_an_empty_list_stands_for_the_dimensions_it_cannot_say(
    datatype: Datatype, value: object, shape: tuple[int, ...], found: tuple[int, ...]
) -> None:
    one = spec("x", datatype, shape)
    array = numbers.with_lost_dimensions(numbers.tensor(value, one, plain=True), one)
    assert array.shape == found
    assert array.dtype == datatype.dtype


@pytest.mark.parametrize("datatype", [D.FP32, D.INT64, D.BYTES])
def test_more_lists_than_an_array_has_dimensions_are_refused(datatype: Datatype) -> None:
    value: object = 1
    for _ in range(65):
        value = [value]
    with pytest.raises(InvalidInput, match="nests more than 64"):
        numbers.tensor(value, spec("x", datatype), plain=True)


def test_ragged_lists_are_refused_where_they_are() -> None:
    one = spec("x", D.FP32, (-1, -1, -1))
    with pytest.raises(InvalidInput, match=r"1 elements at \[1\]\[0\] where the first list there has 2"):
        numbers.tensor([[[1, 2], [3, 4]], [[5], [6, 7]]], one, plain=True)


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 1.0, 1 + 2**-8, 1 + 2**-8 + 2**-40, 1 + 3 * 2**-8, 0.1, -3.3e38, 1e-40, 1e-45, 2**-134]
)
def test_bfloat16_rounds_once_to_nearest_even(value: float) -> None:
    bits = int(numbers.tensor(value, spec("x", D.BF16, ()), plain=True))
    candidates = [b for b in (bits - 1, bits, bits + 1) if 0 <= b < 2**16 and b & 0x7F80 != 0x7F80]
    distance = {
        b: abs(Fraction(float(answers.widen_bfloat16(np.array([b], np.uint16))[0])) - Fraction(value))
        for b in candidates
    }
    best = min(distance.values())
    nearest = [b for b in candidates if distance[b] == best]
    assert bits in nearest
    assert len(nearest) == 1 or bits % 2 == 0


def test_an_overflow_warns_nobody_and_leaves_the_error_state_alone() -> None:
    before = np.geterr()
    with pytest.raises(InvalidInput):
        numbers.tensor([1e39], spec("x", D.FP32, (-1,)), plain=True)
    with pytest.raises(InvalidInput):
        numbers.tensor([1e39], spec("x", D.BF16, (-1,)), plain=True)
    assert np.geterr() == before


def test_a_second_thread_gets_the_same_answer_while_the_first_converts() -> None:
    results: list[object] = []
    one = spec("x", D.FP32, (-1,))

    def convert() -> None:
        results.append(numbers.tensor([1.5], one, plain=True).tolist())

    def while_inside() -> None:
        thread = threading.Thread(target=convert)
        thread.start()
        thread.join()

    numbers._OVERFLOW_RAISES.run(while_inside)
    assert results == [[1.5]]


@pytest.mark.parametrize("datatype", list(Datatype))
def test_every_datatype_says_what_it_takes(datatype: Datatype) -> None:
    assert numbers.accepted(datatype)
