"""The ceiling: an asyncio protocol on the gateway's own parser and loop that answers a constant.

Why: nothing in Python answers HTTP faster; what a server is below this is what it does besides.
It has no limits, no deadlines and no model; a floor for cost, not a candidate.
"""

from __future__ import annotations

import asyncio
import os
from typing import cast

import httptools
import uvloop

BODY = b"[[0.123456,0.876544]]"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
ANSWER = HEAD % len(BODY) + BODY


class Constant(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._body.clear()
        self._transport.write(ANSWER)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Constant, "127.0.0.1", int(os.environ["PEER_PORT"]), backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
