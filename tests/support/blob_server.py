"""The asset storage behind the real listener, with TLS and the gateway's own certificates, on a thread of its own.

For clients that block. Units: seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.controlplane.blobs import sas
from gateway.controlplane.blobs.storage import BlobLimits
from gateway.controlplane.certificates import ensure_certificates
from gateway.listener import HttpLimits, HttpServer, bind
from gateway.tls import make_context, read_pair
from tests.support.blob_door import LIMITS, NOW, SECRET, Shop, open_shop
from tests.support.waiting import PATIENCE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """`url` ends before the account; `ca` is the certificate that clients trust."""

    url: str
    ca: Path
    shop: Shop
    server: HttpServer

    @property
    def host(self) -> str:
        return self.url.removeprefix("https://").partition("/")[0]

    def signed(self, container: str = "azureml", prefix: str = "", permissions: str = "racwdl") -> str:
        return sas.sign(SECRET, container, prefix, permissions, NOW + 600)


@contextlib.contextmanager
def served(folder: Path, limits: BlobLimits = LIMITS) -> Iterator[Served]:
    """Ends when the block does; demands, as `open_shop` does, that nothing is left half-written."""
    paths = ensure_certificates(folder / "tls", ())
    sock = bind("127.0.0.1", 0)[0]
    ready: list[Served] = []
    began, end = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def main() -> None:
        async with open_shop(folder, limits) as shop:
            context = make_context(read_pair(paths.cert, paths.key))
            server = HttpServer(shop.app, replace(HttpLimits(), sweep_s=0.05, linger_s=0.1), context)
            await server.start(sock)
            port = sock.getsockname()[1]
            ready.append(Served(url=f"https://127.0.0.1:{port}/blob", ca=paths.ca, shop=shop, server=server))
            began.set()
            await end.wait()
            await server.drain(PATIENCE_S)
            await server.close()

    failure: list[BaseException] = []

    def run() -> None:
        try:
            loop.run_until_complete(main())
        except BaseException as error:  # noqa: BLE001 - told to the test, on its own thread
            failure.append(error)
        finally:
            began.set()
            loop.close()

    thread = threading.Thread(target=run, name="blob-server")
    thread.start()
    try:
        assert began.wait(PATIENCE_S)
        if ready:
            yield ready[0]
    finally:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(end.set)
        thread.join(PATIENCE_S)
        sock.close()
    if failure:
        raise failure[0]
