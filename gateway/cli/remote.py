"""Requests to the management listener of a running gateway, here or elsewhere.

Where it is: `--url`, `--token-file` and `--ca`, or the environment's GATEWAY_URL, GATEWAY_TOKEN and GATEWAY_CA.
Without a URL it is the gateway of the state folder, which writes `management.json` ({"url", "certificate"}) and
`management.token`. There exactly that certificate is trusted, whatever names it is for: a gateway's own commands must
work also where its certificate names the address that the world uses.
The token goes over TLS only, except to this machine itself. Content is streamed both ways.
Units: *_s seconds.
Errors: RemoteError, one sentence a line, with the HTTP status where the gateway answered.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

URL_VARIABLE, TOKEN_VARIABLE, CA_VARIABLE = "GATEWAY_URL", "GATEWAY_TOKEN", "GATEWAY_CA"
MANAGEMENT_FILE, TOKEN_FILE = "management.json", "management.token"

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - what a listener says, not an address to bind
_PIECE_BYTES = 1024 * 1024
_CONNECT_S = 10.0
# A change of another is waited for; so is a gateway that is starting.
_WAIT_STATUSES = (409, 503)


class RemoteError(Exception):
    """A request that was not answered as hoped."""

    def __init__(self, *lines: str, status: int = 0) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A gateway: its management URL, what to show it, and whom to trust: the one certificate (PEM), the authorities
    of a file, or, where both are "", the system's."""

    url: str
    token: str = field(repr=False)
    ca: str = ""
    certificate: str = ""


def target_of(
    state: Path, environ: Mapping[str, str], *, url: str = "", token_file: str = "", ca: str = ""
) -> Target:
    """The gateway that is meant. Errors: RemoteError."""
    url = url or environ.get(URL_VARIABLE, "")
    ca = ca or environ.get(CA_VARIABLE, "")
    if not url:
        url, certificate = _here(state)
        token = _token_in(Path(token_file) if token_file else state / TOKEN_FILE)
        return Target(url=_checked(url), token=token, ca=ca, certificate="" if ca else certificate)
    if token_file:
        token = _token_in(Path(token_file))
    elif not (token := environ.get(TOKEN_VARIABLE, "").strip()):
        raise RemoteError(f"no credential for {url}: give --token-file, or set {TOKEN_VARIABLE}")
    return Target(url=_checked(url), token=token, ca=ca)


def _here(state: Path) -> tuple[str, str]:
    path = state / MANAGEMENT_FILE
    try:
        found = json.loads(path.read_text())
        return str(found["url"]), str(found.get("certificate") or "")
    except FileNotFoundError:
        raise RemoteError(
            f"no gateway runs on the state folder {state}: there is no {path}; start one with: "
            f"gateway serve --state {state}, or name another with --url or {URL_VARIABLE}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RemoteError(f"{path} does not say where the gateway is: {error}") from error


def _token_in(path: Path) -> str:
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RemoteError(f"cannot read the token from {path}: {error}") from error
    if not token:
        raise RemoteError(f"the token file {path} is empty; accepted: a management token")
    return token


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or "@" in parts.netloc:
        raise RemoteError(f"found {url!r}; accepted: the management URL, such as https://gateway.example:8444")
    if parts.scheme == "http" and host not in (*_LOOPBACK, *_ANYWHERE):
        raise RemoteError(f"the token would travel in the open to {url}; accepted: an https URL")
    if host in _ANYWHERE:
        return f"{parts.scheme}://{_ANYWHERE[host]}" + (f":{port}" if port else "")
    return url.rstrip("/")


def _context(target: Target) -> ssl.SSLContext:
    if target.certificate:
        return _pinned(target.certificate)
    try:
        return ssl.create_default_context(cafile=target.ca or None)
    except (OSError, ssl.SSLError) as error:
        raise RemoteError(f"cannot read the authority's certificate {target.ca}: {error}") from error


def _pinned(certificate: str) -> ssl.SSLContext:
    """Trusts the holder of this certificate's key, and nobody else; so it need not name the address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=certificate)
    except (ValueError, ssl.SSLError) as error:
        raise RemoteError(f"the certificate in {MANAGEMENT_FILE} cannot be read: {error}") from error
    return context


class Remote:
    """One gateway, asked again and again. Close it. `transport` and `sleep` are for tests."""

    def __init__(
        self,
        target: Target,
        *,
        timeout_s: float = 600.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.timeout_s = timeout_s
        self.sleep = sleep
        self._url = target.url
        verify = _context(target) if target.url.startswith("https") and transport is None else True
        self._client = httpx.Client(
            base_url=target.url,
            headers={"authorization": f"Bearer {target.token}", "accept": "application/json"},
            verify=verify,
            timeout=httpx.Timeout(timeout_s, connect=_CONNECT_S),
            transport=transport,
            # Only what is said here decides where the token goes.
            trust_env=False,
        )

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def ask(self, method: str, path: str, body: Any = None, query: Mapping[str, str] | None = None) -> Any:
        """One request with JSON both ways; None for an answer without a body. Errors: RemoteError."""
        response = self._send(lambda: self._client.request(method, path, json=body, params=query or {}))
        return self._json(response, f"{method} {path}")

    def ask_patiently(self, method: str, path: str, body: Any, on_wait: Callable[[str], None]) -> Any:
        """The same, again and again while another change is under way. Errors: RemoteError."""
        waited, pause_s = 0.0, 1.0
        while True:
            try:
                return self.ask(method, path, body)
            except RemoteError as error:
                if error.status not in _WAIT_STATUSES or waited + pause_s > self.timeout_s:
                    raise
                if not waited:
                    on_wait(error.lines[0])
            self.sleep(pause_s)
            waited += pause_s

    def lines(self, path: str, query: Mapping[str, str], quiet_s: float) -> Iterator[str]:
        """The lines of an answer as they come, none for longer than this. Errors: RemoteError."""
        begun = b""
        try:
            with self._client.stream(
                "GET",
                path,
                params=query,
                headers={"accept": "*/*"},
                timeout=httpx.Timeout(quiet_s, connect=_CONNECT_S),
            ) as response:
                if not response.is_success:
                    response.read()
                    raise self._refusal(response, f"GET {path}")
                for piece in response.iter_bytes():
                    *whole, begun = (begun + piece).split(b"\n")
                    yield from (line.decode("utf-8", "replace") for line in whole)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def upload(self, container: str, path: str, source: Path, sha256: str, size_bytes: int) -> None:
        """Send a file as a blob. Errors: RemoteError, also where the file is not what it was."""
        digest = hashlib.sha256()

        def pieces() -> Iterator[bytes]:
            with source.open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    digest.update(piece)
                    yield piece

        headers = {
            "x-ms-blob-type": "BlockBlob",
            "content-type": "application/octet-stream",
            "content-length": str(size_bytes),
        }
        place = f"/blob/{container}/{quote(path)}"
        try:
            response = self._send(lambda: self._client.put(place, content=pieces(), headers=headers))
        except OSError as error:
            raise RemoteError(f"cannot read {source}: {error.strerror}") from error
        self._json(response, f"the upload of {source}")
        if digest.hexdigest() != sha256:
            raise RemoteError(f"{source} changed while it was sent; try it again")

    def download(self, path: str, target: Path, sha256: str) -> None:
        """Receive content into a new file, whole or not at all. Errors: RemoteError."""
        digest = hashlib.sha256()
        unfinished = target.with_name(f".{target.name}.unfinished")
        try:
            with self._client.stream("GET", path) as response, unfinished.open("wb") as file:
                if not response.is_success:
                    response.read()
                    raise self._refusal(response, f"GET {path}")
                for piece in response.iter_bytes(_PIECE_BYTES):
                    digest.update(piece)
                    file.write(piece)
            if digest.hexdigest() != sha256:
                raise RemoteError(
                    f"what the gateway sent for {target.name} is not the content {sha256}; try it again"
                )
            unfinished.replace(target)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        except OSError as error:
            raise RemoteError(f"cannot write {target}: {error.strerror}") from error
        finally:
            unfinished.unlink(missing_ok=True)

    def _send(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        try:
            return send()
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.HTTPError) -> RemoteError:
        said = str(error) or type(error).__name__
        if isinstance(error, httpx.TimeoutException):
            return RemoteError(f"{self._url} gave no answer in time ({type(error).__name__})")
        hint = f"; name its authority with --ca or {CA_VARIABLE}" if "CERTIFICATE_VERIFY_FAILED" in said else ""
        return RemoteError(f"cannot reach the gateway at {self._url}: {said}{hint}")

    def _json(self, response: httpx.Response, what: str) -> Any:
        if not response.is_success:
            raise self._refusal(response, what)
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError:
            raise RemoteError(
                f"{self._url} answered {what} with {len(response.content)} bytes that are no JSON; is it a gateway?"
            ) from None

    def _refusal(self, response: httpx.Response, what: str) -> RemoteError:
        """What the gateway said, a line for each thing; the XML of the asset storage by its code."""
        status = response.status_code
        try:
            error = response.json()["error"]
            lines = [str(one["message"]) for one in error.get("details") or []] or [str(error["message"])]
        except (ValueError, KeyError, TypeError, AttributeError):
            code = response.headers.get("x-ms-error-code", "")
            lines = [f"{what} was answered with {status}{f' {code}' if code else ''}"]
        if status == 401:
            lines.append(f"the management token is not known to {self._url}; see --token-file and {TOKEN_VARIABLE}")
        return RemoteError(*lines, status=status)
