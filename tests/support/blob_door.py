"""The asset storage in a folder of a test, and requests to it: straight to the ASGI application, byte for byte.

`Shop` is the storage with an index in memory and a clock that stands still; `ask` sends one request.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gateway.controlplane.blobs import sas
from gateway.controlplane.blobs.files import Files
from gateway.controlplane.blobs.http import Authorise, BlobApp
from gateway.controlplane.blobs.index import Index
from gateway.controlplane.blobs.storage import BlobLimits, Storage
from tests.support.blob_index import MemoryIndex

SECRET = b"the secret of the signatures of a test"
NOW = 1_700_000_000.0
BLOCK_BLOB = {"x-ms-blob-type": "BlockBlob"}
LIMITS = BlobLimits(assets_max_bytes=1 << 20, upload_max_bytes=600_000, block_max_bytes=300_000, disk_reserve_bytes=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return self.headers.get("x-ms-error-code", "")

    @property
    def xml(self) -> ElementTree.Element:
        return ElementTree.fromstring(self.body)


class Shop:
    """A storage, and the application before it."""

    def __init__(
        self,
        folder: Path,
        limits: BlobLimits = LIMITS,
        *,
        index: Index | None = None,
        authorise: Authorise | None = None,
    ) -> None:
        self.folder = folder / "assets"
        self.now = NOW
        self.memory = MemoryIndex()
        self.files = Files(self.folder, bytes_max=limits.assets_max_bytes, reserve_bytes=limits.disk_reserve_bytes)
        self.storage = Storage(self.files, index or self.memory, limits, lambda: self.now)
        self.app = BlobApp(self.storage, SECRET, authorise)

    def on_disk(self) -> list[Path]:
        return sorted(path.relative_to(self.folder) for path in self.folder.rglob("*") if not path.is_dir())

    async def ask(
        self,
        method: str,
        path: str | bytes,
        query: str = "",
        headers: dict[str, str] | None = None,
        body: bytes | Iterable[bytes] = b"",
        *,
        container: str = "azureml",
        permissions: str = "racwdl",
        hangs_up: bool = False,
    ) -> Answer:
        """`path`: of a blob in the container, or, as bytes, the whole path as it is sent. `hangs_up`: the caller is
        gone where the body should go on. No signature where there are no permissions."""
        raw = path if isinstance(path, bytes) else f"/blob/a/{container}{'/' if path else ''}{path}".encode()
        signed = sas.sign(SECRET, container, "", permissions, self.now + 60) if permissions else ""
        text = "&".join(part for part in (query, signed) if part)
        pieces = [body] if isinstance(body, bytes) else list(body)
        return await send(self.app, method, raw, text, headers or {}, pieces, hangs_up=hangs_up)


@contextlib.asynccontextmanager
async def open_shop(folder: Path, limits: BlobLimits = LIMITS, **options: Any) -> AsyncIterator[Shop]:
    """Demands that nothing is left half-written, and that every byte is accounted for."""
    shop = Shop(folder, limits, **options)
    try:
        yield shop
        kept = [path for path in shop.on_disk() if path.parts[0] != "unfinished"]
        assert shop.on_disk() == kept, "something was left half-written"
        assert shop.files.used_bytes == sum((shop.folder / path).stat().st_size for path in kept)
    finally:
        shop.files.close()


async def send(
    app: BlobApp,
    method: str,
    raw_path: bytes,
    query: str,
    headers: dict[str, str],
    pieces: list[bytes],
    *,
    hangs_up: bool = False,
) -> Answer:
    said = {"host": "gateway.test", **headers}
    if not hangs_up and "content-length" not in said:
        said["content-length"] = str(sum(map(len, pieces)))
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": raw_path.decode("latin-1"),
        "raw_path": raw_path,
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in said.items()],
        "server": ("gateway.test", 443),
        "client": ("127.0.0.1", 1),
    }
    coming = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    coming.append({"type": "http.disconnect"} if hangs_up else {"type": "http.request", "body": b""})
    sent: list[Any] = []

    async def receive() -> Any:
        if coming:
            return coming.pop(0)
        # Whoever waits for the caller to hang up waits until the answer is given.
        return await asyncio.Event().wait()

    async def take(event: Any) -> None:
        sent.append(event)

    await app(scope, receive, take)
    if not sent:
        return Answer(status=0, headers={}, body=b"")
    found = {name.decode("latin-1"): value.decode("latin-1") for name, value in sent[0]["headers"]}
    assert len(found) == len(sent[0]["headers"]), "a header is given twice"
    body = b"".join(event.get("body", b"") for event in sent[1:])
    assert not hangs_up, "an answer for a caller who is gone"
    return Answer(status=sent[0]["status"], headers=found, body=body)
