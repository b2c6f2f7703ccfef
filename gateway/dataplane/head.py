"""The head of a scoring request: what its headers say, read and checked once.

Why apart: a client's heads are alike from request to request, so that the lane reads each once and asks it again.
Nothing here knows an endpoint; whatever depends on one is an argument.
Units: *_ns nanoseconds; `length` bytes of the body as they are sent, 0 where it is not declared.
Errors: Problem: 400, 413, 415, 431.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.dataplane.authenticate import Authenticator
from gateway.dataplane.body import accepts_gzip, check_encoding, check_media_type, declared_length, too_large
from gateway.errors import Code, Problem
from gateway.identity import ID_CHARS_MAX, clean_client_id, echoed, is_guid

_DECIDING = (
    *(b"authorization", b"azureml-model-deployment", b"content-type", b"content-encoding"),
    *(b"inference-header-content-length", b"x-request-timeout-ms"),
)
_IDS = (b"x-request-id", b"x-ms-request-id", b"x-ms-client-request-id")
_TRACES = (b"traceparent", b"traceid")


class Head:
    """One head. Who asks and for what is there at once; the rest after `check`.

    `request_id`: the caller's where it is a GUID, else "". `echo`: the lines that go back with the answer. `lines`:
    all headers as they came, for a script.
    """

    __slots__ = (
        *("_headers", "_is_checked", "_is_checked_for_tensors"),
        *("accepts_gzip", "authorization", "client_id", "deployment", "echo", "header_length", "inflates", "length"),
        *("lines", "proven_by", "request_id", "timeout_ns"),
    )

    def __init__(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        single = self._headers = _single_valued(headers)
        self.lines = headers
        self._is_checked = False
        self._is_checked_for_tensors = False
        # Who has found that this head may score, where that lasts.
        self.proven_by: Authenticator | None = None
        self.authorization = single.get(b"authorization")
        self.deployment = single.get(b"azureml-model-deployment", b"").decode("latin-1")
        given = single.get(b"x-request-id")
        self.request_id = given.decode() if given is not None and is_guid(given) else ""
        self.client_id = clean_client_id(single.get(b"x-ms-client-request-id", b""))
        self.echo = b"x-ms-client-request-id: %b\r\n" % self.client_id if self.client_id else b""
        for name in _TRACES:
            if name in single and (value := echoed(name, single[name])):
                self.echo += b"%b: %b\r\n" % (name, value)
        self.length = 0
        self.header_length: int | None = None
        self.inflates = False
        self.accepts_gzip = False
        self.timeout_ns = 0

    def check(self, body_bytes_max: int, is_gzip_enabled: bool) -> None:
        """Refuse what the head says wrong, and a body over the limit before a byte of it is read. Errors: Problem."""
        if self._is_checked:
            if self.length > body_bytes_max:
                raise too_large(f"has {self.length} bytes", body_bytes_max)
            return
        headers = self._headers
        for name in _IDS:
            if name in headers and len(headers[name]) > ID_CHARS_MAX:
                raise Problem(
                    Code.HEADERS_TOO_LARGE,
                    f"header {name.decode()} has {len(headers[name])} characters; at most {ID_CHARS_MAX} are taken",
                )
        self.length = declared_length(headers.get(b"content-length"))
        if self.length > body_bytes_max:
            raise too_large(f"has {self.length} bytes", body_bytes_max)
        self.inflates = check_encoding(headers.get(b"content-encoding"), is_gzip_enabled)
        if is_gzip_enabled:
            self.accepts_gzip = accepts_gzip(headers.get(b"accept-encoding", b""))
        timeout = headers.get(b"x-request-timeout-ms")
        if timeout is not None:
            # 0 is a deadline too, and has passed.
            self.timeout_ns = max(1, _whole_number(timeout, "x-request-timeout-ms") * 1_000_000)
        self._is_checked = True

    def check_for_tensors(self) -> None:
        """Refuse what a model's codecs could not read; a script may be sent anything. Errors: Problem."""
        if self._is_checked_for_tensors:
            return
        check_media_type(self._headers.get(b"content-type"))
        length = self._headers.get(b"inference-header-content-length")
        if length is not None:
            self.header_length = _whole_number(length, "Inference-Header-Content-Length")
        self._is_checked_for_tensors = True


def _single_valued(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The head as a mapping; what decides about the request may be said only once."""
    single = dict(headers)
    if len(single) != len(headers):
        names = [name for name, _ in headers]
        twice = [name for name in _DECIDING if names.count(name) > 1]
        if twice:
            raise Problem(Code.INVALID_INPUT, f"header {twice[0].decode()} is given more than once; it is taken once")
    return single


def _whole_number(value: bytes, name: str) -> int:
    if not value.isdigit() or len(value) > 15:
        shown = value[:40].decode("latin-1")
        raise Problem(Code.INVALID_INPUT, f"header {name} is {shown!r}; it takes a whole number")
    return int(value)
