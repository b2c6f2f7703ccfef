"""One HTTP/1.1 connection over TLS that is kept open: send a request, await the answer, one at a time.

Why not a client library: what a connection loses must be known exactly, and 200 requests a second must cost little.
Errors: Lost where the connection ends or cannot be made; what became of the request is then unknown.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

ANSWER_WITHIN_S = 30.0


class Lost(Exception):
    """The connection ended before the answer was there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        return json.loads(self.body)

    def __str__(self) -> str:
        return f"{self.status} {self.body[:300].decode(errors='replace')}"


class Connection:
    """Opened at the first request, and again by the first one after a loss."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        where = urlsplit(url)
        assert where.hostname is not None
        assert where.port is not None
        self._host, self._port = where.hostname, where.port
        self._context = context
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        """Errors: Lost."""
        try:
            return await asyncio.wait_for(self._exchange(method, path, headers, body), ANSWER_WITHIN_S)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self.close()
            raise Lost(f"{method} {path}: {error!r}") from error
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, ssl=self._context)
        reader, writer = self._streams
        lines = [f"{method} {path} HTTP/1.1", f"host: {self._host}:{self._port}"]
        lines += [f"{name}: {text}" for name, text in headers.items()]
        if body or method in ("POST", "PUT", "PATCH"):
            lines.append(f"content-length: {len(body)}")
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        found = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in head[1:] if line)}
        content = await reader.readexactly(int(found.get("content-length", 0)))
        if found.get("connection", "").lower() == "close":
            self.close()
        return Answer(status=int(head[0].split()[1]), headers=found, body=content)


def trusting(ca: str) -> ssl.SSLContext:
    """A context that trusts this CA and nothing else."""
    return ssl.create_default_context(cafile=ca)
