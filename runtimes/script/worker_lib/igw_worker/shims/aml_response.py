"""AMLResponse: an answer with a status and headers of the script's choice.

Why: run() returns one where a JSON value with status 200 does not do. Scripts were written against a Flask response;
this one has the members that they use.
Shapes: `message` is bytes, text or pieces of either; with `json_str` any JSON value; None is an empty object.
"""

import json
from http import HTTPStatus
from typing import Any, Iterable, Mapping, Optional

from .http import Headers

__all__ = ["AMLResponse"]


class AMLResponse:
    """What the caller shall get, as it is. A comma in a header's value parts it into several headers of that name."""

    default_mimetype = "text/html"

    def __init__(
        self,
        message: Any,
        status_code: int,
        response_headers: Optional[Mapping[str, str]] = None,
        json_str: bool = False,
        run_function_failed: bool = False,
    ) -> None:
        self.status_code = int(status_code)
        self.headers = Headers()
        if message is None or json_str:
            self._body = json.dumps({} if message is None else message).encode("utf-8")
            self.mimetype = "application/json"
        else:
            self._body = _joined(message)
            self.mimetype = self.default_mimetype
        given = dict(response_headers or {})
        if any(name.lower() == "content-type" for name in given):
            self.headers.remove("Content-Type")
        self.headers["x-ms-run-function-failed"] = bool(run_function_failed)
        for name, value in given.items():
            for part in str(value).split(","):
                self.headers.add(name, part.strip())

    def __repr__(self) -> str:
        return f"<AMLResponse {len(self._body)} bytes [{self.status_code}]>"

    @property
    def data(self) -> bytes:
        return self._body

    @data.setter
    def data(self, value: Any) -> None:
        self._body = _joined(value)

    def get_data(self, as_text: bool = False) -> Any:
        return self._body.decode("utf-8", "replace") if as_text else self._body

    def set_data(self, value: Any) -> None:
        self._body = _joined(value)

    @property
    def json(self) -> Any:
        return json.loads(self._body)

    def get_json(self, force: bool = False, silent: bool = False) -> Any:
        return json.loads(self._body)

    @property
    def mimetype(self) -> str:
        return str(self.headers.get("Content-Type", "")).partition(";")[0].strip()

    @mimetype.setter
    def mimetype(self, value: str) -> None:
        self.headers["Content-Type"] = f"{value}; charset=utf-8" if value.startswith("text/") else value

    @property
    def content_type(self) -> Optional[str]:
        value: Optional[str] = self.headers.get("Content-Type")
        return value

    @content_type.setter
    def content_type(self, value: str) -> None:
        self.headers["Content-Type"] = value

    @property
    def status(self) -> str:
        try:
            return f"{self.status_code} {HTTPStatus(self.status_code).phrase.upper()}"
        except ValueError:
            return f"{self.status_code} UNKNOWN"

    @status.setter
    def status(self, value: Any) -> None:
        self.status_code = int(str(value).split(" ", 1)[0])


def _joined(message: Any) -> bytes:
    if isinstance(message, str):
        return message.encode("utf-8")
    if isinstance(message, (bytes, bytearray, memoryview)):
        return bytes(message)
    if isinstance(message, Iterable):
        return b"".join(_joined(piece) for piece in message)
    raise TypeError(f"the message of an AMLResponse is {type(message).__name__}; bytes or text, or json_str=True")
