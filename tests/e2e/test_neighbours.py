"""Callers that behave badly beside callers whose answers are checked: nobody gets another's rows, and nobody waits.

All of it at once, over plain sockets so that bytes go out as they are written: requests that drip, that are huge,
pipelined, half-closed, aborted in the head, in the body and while they are scored, or no HTTP at all.
Units: *_s seconds.
"""

from __future__ import annotations

import asyncio
import random
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from urllib.parse import urlsplit

import numpy as np
import orjson
import pytest

from tests.support.models import double
from tests.support.process import GatewayProcess, deployment_yaml, endpoint_yaml, write_folder
from tests.support.wire import Peer, connected, parse

LASTS_S = 6.0
CHECKED = 16
# A neighbour's huge body is parsed in one go: this bounds what a checked caller may wait for it, on a busy machine.
WORST_S = 2.0
FILES: dict[str, str | bytes] = {
    "endpoint.yml": endpoint_yaml("quick", traffic={"blue": 100}),
    "blue.yml": deployment_yaml("blue", "blue.onnx", "quick"),
    "blue.onnx": double(),
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    place = tmp_path_factory.mktemp("neighbours")
    with GatewayProcess(write_folder(place / "models", FILES), place / "state", scheme="http") as gateway:
        yield gateway


class Calls:
    """Requests as bytes, for one gateway."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.port = urlsplit(gateway.urls["scoring"]).port or 0
        self._bearer = b"Authorization: Bearer " + gateway.keys("quick")["primaryKey"].encode()

    def json(self, rows: np.ndarray[tuple[int, ...], np.dtype[np.float32]], *lines: bytes) -> bytes:
        body = orjson.dumps({"input_data": rows}, option=orjson.OPT_SERIALIZE_NUMPY)
        return self._request(b"/endpoints/quick/score", body, *lines)

    def binary(self, rows: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bytes:
        data = rows.astype("<f4").tobytes()
        parameters = {"binary_data_size": len(data)}
        inputs = [{"name": "x", "shape": list(rows.shape), "datatype": "FP32", "parameters": parameters}]
        head = orjson.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}})
        length = b"Inference-Header-Content-Length: %d" % len(head)
        return self._request(
            b"/v2/models/quick/infer", head + data, length, b"Content-Type: application/octet-stream"
        )

    def _request(self, path: bytes, body: bytes, *lines: bytes) -> bytes:
        head = [b"POST " + path + b" HTTP/1.1", b"Host: a", self._bearer, b"Content-Length: %d" % len(body), *lines]
        return b"\r\n".join([*head, b"", body])


async def _answer(peer: Peer) -> tuple[int, bytes, bytes]:
    """Status, head and body of one answer, read to its last byte and no further."""
    head = await peer.read_until(b"\r\n\r\n")
    size = int(head.lower().split(b"\r\ncontent-length: ", 1)[1].split(b"\r\n", 1)[0])
    async with asyncio.timeout(30):
        return int(head[9:12]), head, await peer.reader.readexactly(size)


async def _checked(calls: Calls, seed: int, until_s: float, waits_s: list[float]) -> None:
    """Rows that nobody else sends, and the answer compared with what they must give."""
    chance = np.random.default_rng(seed)
    async with connected(calls.port) as peer:
        while time.monotonic() < until_s:
            rows = chance.integers(0, 1000, (int(chance.integers(1, 4)), 4)).astype(np.float32) + seed / 64
            is_json = bool(chance.integers(0, 2))
            began_s = time.monotonic()
            await peer.send(calls.json(rows) if is_json else calls.binary(rows))
            status, head, body = await _answer(peer)
            waits_s.append(time.monotonic() - began_s)
            assert status == 200, body
            if is_json:
                found = np.array(orjson.loads(body), np.float32)
            else:
                start = int(head.lower().split(b"inference-header-content-length: ", 1)[1].split(b"\r\n", 1)[0])
                found = np.frombuffer(body[start:], "<f4").reshape(rows.shape)
            np.testing.assert_array_equal(found, rows * 2)


Misdeed = Callable[[Calls, Peer, random.Random], Awaitable[None]]
ROWS = np.full((2, 4), 7, np.float32)


async def _drips(calls: Calls, peer: Peer, chance: random.Random) -> None:
    data = calls.json(ROWS)
    for at in range(0, len(data), 7):
        await peer.send(data[at : at + 7])
        await asyncio.sleep(0.01)
    assert (await _answer(peer))[0] == 200


async def _is_huge(calls: Calls, peer: Peer, chance: random.Random) -> None:
    rows = np.full((chance.choice((20_000, 200_000)), 4), 0.5, np.float32)
    request = calls.binary(rows) if chance.random() < 0.5 else calls.json(rows[:50_000])
    await peer.send(request)
    status, _, body = await _answer(peer)
    assert status == 200, body[:200]


async def _is_too_large(calls: Calls, peer: Peer, chance: random.Random) -> None:
    await peer.send(calls.json(np.zeros((1, 4), np.float32)).replace(b"Content-Length: ", b"Content-Length: 9999999"))
    assert (await _answer(peer))[0] == 413


async def _pipelines(calls: Calls, peer: Peer, chance: random.Random) -> None:
    rows = [np.full((1, 4), n, np.float32) for n in range(chance.randrange(2, 9))]
    data = b"".join(map(calls.json, rows))
    cut = chance.randrange(len(data))
    await peer.send(data[:cut], data[cut:])
    for one in rows:
        status, _, body = await _answer(peer)
        assert (status, orjson.loads(body)) == (200, (one * 2).tolist())


async def _half_closes(calls: Calls, peer: Peer, chance: random.Random) -> None:
    data = calls.json(ROWS)
    await peer.send(data[: chance.randrange(1, len(data) + 1)])
    peer.half_close()
    await peer.read_all()


async def _aborts(calls: Calls, peer: Peer, chance: random.Random) -> None:
    data = calls.json(np.full((chance.choice((1, 10_000)), 4), 3, np.float32))
    await peer.send(data[: chance.randrange(1, len(data) + 1)])
    await asyncio.sleep(chance.choice((0, 0.002)))
    peer.cut()


async def _talks_nonsense(calls: Calls, peer: Peer, chance: random.Random) -> None:
    await peer.send(chance.randbytes(chance.randrange(1, 3000)) + b"\r\n\r\n")
    answers = parse(await peer.read_all())
    assert all(400 <= answer.status < 600 for answer in answers)


async def _contradicts_itself(calls: Calls, peer: Peer, chance: random.Random) -> None:
    """Its binary tensors are not as long as it says."""
    data = calls.binary(ROWS)
    await peer.send(data[:-4] + struct.pack("<f", 1.0)[:4].replace(b"\0", b"\1"))
    assert (await _answer(peer))[0] == 200
    await peer.send(data.replace(b'"shape":[2,4]', b'"shape":[3,4]'))
    assert (await _answer(peer))[0] == 400


MISDEEDS: tuple[Misdeed, ...] = (
    *(_drips, _is_huge, _is_too_large, _pipelines, _half_closes, _aborts, _talks_nonsense, _contradicts_itself),
)


async def _misbehaves(calls: Calls, misdeed: Misdeed, until_s: float, done: Counter[str]) -> None:
    chance = random.Random(misdeed.__name__)
    while time.monotonic() < until_s:
        async with connected(calls.port) as peer:
            await misdeed(calls, peer, chance)
        done[misdeed.__name__] += 1


def test_bad_callers_neither_slow_nor_corrupt_their_neighbours(gateway: GatewayProcess) -> None:
    calls = Calls(gateway)
    waits_s: list[float] = []
    done: Counter[str] = Counter()

    async def main() -> None:
        until_s = time.monotonic() + LASTS_S
        async with asyncio.TaskGroup() as group:
            for seed in range(CHECKED):
                group.create_task(_checked(calls, seed, until_s, waits_s))
            for misdeed in MISDEEDS:
                group.create_task(_misbehaves(calls, misdeed, until_s, done))

    asyncio.run(main())
    assert set(done) == {misdeed.__name__ for misdeed in MISDEEDS}
    assert len(waits_s) > 500
    waits_s.sort()
    assert waits_s[-1] < WORST_S, f"{len(waits_s)} answers, the slowest after {waits_s[-5:]} s"
    metrics = gateway.metrics()
    assert metrics.value("gateway_requests_in_flight") == 0
    assert metrics.value("gateway_queue_depth") == 0
