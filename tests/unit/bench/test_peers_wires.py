"""Every wire format of the peers: whole requests, and answers read as numbers or refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.peers import wires
from bench.peers.wires import Address, Reply, Wire, WrongAnswer, msgpack_bin, msgpack_unbin, read

ADDRESS = Address(path="/score", input="x", output="y", headers={"authorization": "Bearer k"})
ROW = np.array([1.5, -2.25, 0.1])
ANSWER = np.array([0.25, 0.75], np.float32)
WIRES = (wires.JSON, wires.BENTO_JSON, wires.V2_JSON, wires.V2_BINARY, wires.MSGPACK, wires.RAW)


def _reply(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    return Reply(status=status, headers=headers or {}, body=body)


def _binary_reply(name: str = "y") -> Reply:
    tensor = ANSWER.tobytes()
    output = {"name": name, "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": len(tensor)}}
    head = json.dumps({"outputs": [output]}).encode()
    return _reply(head + tensor, headers={"inference-header-content-length": str(len(head))})


GOOD = {
    "JSON": _reply(b"[[0.25,0.75]]"),
    "V2 JSON": _reply(b'{"outputs":[{"name":"other","data":[9]},{"name":"y","data":[0.25,0.75]}]}'),
    "V2 binary": _binary_reply(),
    "msgpack": _reply(msgpack_bin(ANSWER.tobytes())),
    "raw bytes": _reply(ANSWER.tobytes()),
}


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
def test_a_request_is_whole_and_carries_the_callers_headers(wire: Wire) -> None:
    head, _, body = wire.request(ADDRESS, ROW).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert first == "POST /score HTTP/1.1"
    assert headers["authorization"] == "Bearer k"
    assert int(headers["content-length"]) == len(body)


@pytest.mark.parametrize("wire", [wires.V2_BINARY, wires.MSGPACK, wires.RAW], ids=lambda wire: wire.name)
def test_a_binary_request_ends_with_the_rows_bytes(wire: Wire) -> None:
    assert wire.binary and wire.request(ADDRESS, ROW).endswith(ROW.astype("<f4").tobytes())


def test_a_json_request_carries_the_rows_numbers() -> None:
    body = wires.JSON.request(ADDRESS, ROW).partition(b"\r\n\r\n")[2]
    assert json.loads(body) == {"input_data": [[1.5, -2.25, 0.1]]}
    tensor = json.loads(wires.V2_JSON.request(ADDRESS, ROW).partition(b"\r\n\r\n")[2])["inputs"][0]
    assert (tensor["shape"], tensor["data"]) == ([1, 3], [1.5, -2.25, 0.1])


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
def test_an_answer_is_read_as_numbers(wire: Wire) -> None:
    np.testing.assert_array_equal(read(wire, GOOD[wire.name], "y"), ANSWER)


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
def test_a_refusal_is_a_wrong_answer_with_its_words(wire: Wire) -> None:
    with pytest.raises(WrongAnswer, match="status 503: busy"):
        read(wire, _reply(b"busy", status=503), "y")


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
def test_an_answer_that_cannot_be_read_is_a_wrong_answer(wire: Wire) -> None:
    with pytest.raises(WrongAnswer, match="an answer that is no"):
        read(wire, _reply(b"{x}"), "y")


def test_a_binary_answer_with_another_output_is_a_wrong_answer() -> None:
    with pytest.raises(WrongAnswer, match="'y' alone was asked for"):
        read(wires.V2_BINARY, _binary_reply("z"), "y")


@given(st.binary(max_size=2000))
def test_msgpacks_bytes_come_back(data: bytes) -> None:
    assert msgpack_unbin(msgpack_bin(data)) == data
