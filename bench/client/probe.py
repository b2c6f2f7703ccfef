"""What is asked before anything is measured: the model's metadata, and whether one request is answered at all.

Why: a load of refusals measures nothing; what is wrong should be one sentence that says what to do.
Errors: CannotMeasure. The one file that names httpx.
"""

from __future__ import annotations

import ssl
from typing import Any

import httpx

from bench.client.errors import CannotMeasure
from bench.client.target import Target

TEXT_MAX = 300
# An overloaded server is what one may want to measure.
_BUSY = (408, 429, 503, 504)


class Probe:
    """One client of the target; `with Probe(...) as probe:`."""

    def __init__(self, target: Target, tls: ssl.SSLContext | None, key: str | None, timeout_s: float) -> None:
        self._target = target
        self._has_key = bool(key)
        self._client = httpx.Client(
            base_url=target.base,
            headers={"authorization": f"Bearer {key}"} if key else {},
            verify=tls if tls is not None else False,
            timeout=timeout_s,
            trust_env=False,
        )

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def metadata(self) -> dict[str, Any]:
        """The V2 protocol's document about the model. Errors: CannotMeasure."""
        target = self._target
        if not target.model:
            raise CannotMeasure(
                f"{target.url} says no model whose metadata could describe the inputs; "
                "give bodies with --data FILE, or --model NAME where the server speaks the V2 protocol"
            )
        answer = self._ask("GET", target.metadata_path)
        if answer.status_code != 200:
            raise CannotMeasure(
                f"{target.base}{target.metadata_path}: {self._refusal(answer)}",
                "requests are generated from this document; without it, give bodies with --data FILE",
            )
        try:
            document = answer.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise CannotMeasure(f"{target.base}{target.metadata_path} answered no JSON object; use --data FILE")
        return document

    def one(self, request: bytes) -> int:
        """The first request, as it will be sent; its status. Errors: CannotMeasure where the server refuses it."""
        head, _, body = request.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        answer = self._ask("POST", first.split()[1], headers=headers, content=body)
        if not (answer.is_success or answer.status_code in _BUSY):
            raise CannotMeasure(f"{self._target.url}: the first request was refused: {self._refusal(answer)}")
        return answer.status_code

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **more)
        except httpx.HTTPError as error:
            raise CannotMeasure(_unreachable(self._target, error)) from None

    def _refusal(self, answer: httpx.Response) -> str:
        said = " ".join(answer.text.split())[:TEXT_MAX]
        hint = ""
        if answer.status_code in (401, 403):
            hint = (
                "; the key that was sent does not open it"
                if self._has_key
                else "; no key was sent: give one with --key or GATEWAY_KEY (gateway keys ENDPOINT prints them)"
            )
        return f"answered {answer.status_code}{f' {said}' if said else ''}{hint}"


def _unreachable(target: Target, error: httpx.HTTPError) -> str:
    at = f"{target.host}:{target.port}"
    said = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in said:
        reason = said.partition("certificate verify failed: ")[2].partition(" (_ssl")[0] or said
        return (
            f"{target.base}: its certificate is not trusted: {reason}; give its authority with --ca FILE "
            "(a gateway prints ca=FILE when ready), or --insecure"
        )
    if isinstance(error, httpx.TimeoutException):
        return f"{target.base}: no answer in time ({type(error).__name__}); is {at} the right address?"
    if isinstance(error, httpx.ConnectError):
        hint = "does it speak http instead of https?" if "SSL" in said else "is it running, and is this its address?"
        return f"{target.base}: cannot connect to {at}: {said}; {hint}"
    hint = "" if target.tls else "; does it speak https instead of http?"
    return f"{target.base}: the connection broke: {said}{hint}"
