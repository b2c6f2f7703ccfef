"""A real issuer of OpenID Connect tokens on the loopback address: discovery and keys over HTTP, from a thread."""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any

from tests.support.tokens import AUDIENCE, oidc_claims, rs256, rsa_jwk


class Issuer:
    """`with Issuer("first") as issuer:` offers that key; `rotate` replaces it. `fetched` lists what was asked for."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.fetched: list[str] = []
        issuer = self

        class Pages(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetched.append(self.path)
                page = issuer._page(self.path)
                body = json.dumps(page).encode()
                self.send_response(404 if page is None else 200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nothing on stderr."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Issuer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def rotate(self, key: str) -> None:
        self.key = key

    def token(self, key: str = "", **changes: Any) -> str:
        """A good token of now, with changes to its claims; None leaves a claim out."""
        now_s = int(time.time())
        times = {"iat": now_s, "exp": now_s + 3600}
        claims = oidc_claims(**{"iss": self.url, "aud": AUDIENCE, **times, **changes})
        return rs256(claims, key or self.key).decode()

    def _page(self, path: str) -> object:
        match path:
            case "/.well-known/openid-configuration":
                return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
            case "/keys":
                return {"keys": [rsa_jwk(self.key)]}
            case _:
                return None
