"""AMLRequest and @rawhttp: a script's view of the request itself.

Why: with @rawhttp, run() gets the request as it was sent. Scripts were written against Flask's request; this one has
the members that they use, over plain data, and needs no package.
Errors: ValueError from `json` where the body is none. Attributes are computed when they are asked for.
"""

import io
import json
from typing import IO, Any, Callable, Dict, Iterable, List, Optional, Tuple, TypeVar, Union, cast
from urllib.parse import parse_qsl, unquote

from .http import Headers, MultiDict, parse_options
from .multipart import parse as parse_multipart

__all__ = ["AMLRequest", "rawhttp"]

_Run = TypeVar("_Run", bound=Callable[..., Any])
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


class RawHttp:
    """Whether @rawhttp was applied anywhere. A decorator cannot know its host, so this is the one state of a module:
    a process hosts one script, and the mark holds for its run() however else that is decorated."""

    wanted = False


def rawhttp(func: _Run) -> _Run:
    """Applied to run(): it gets the request itself, of any method, as an AMLRequest."""
    RawHttp.wanted = True
    return func


class AMLRequest:
    """One request. `headers` is a mapping without regard to case; `data` is the body, but of a form it is empty."""

    def __init__(
        self,
        method: str = "GET",
        target: str = "/score",
        headers: Iterable[Tuple[str, str]] = (),
        body: Union[bytes, bytearray, memoryview] = b"",
    ) -> None:
        self.method = method
        self.headers = Headers(headers)
        path, _, query = target.partition("?")
        self._raw_path = path
        self.path = unquote(path)
        self.query_string = query.encode("latin-1", "replace")
        self._body = body
        self._forms: Optional[Tuple[MultiDict, MultiDict]] = None

    def __repr__(self) -> str:
        return f"<AMLRequest {self.url!r} [{self.method}]>"

    # The body.

    def get_data(self, cache: bool = True, as_text: bool = False, parse_form_data: bool = False) -> Any:
        if parse_form_data and self.mimetype in _FORMS:
            return "" if as_text else b""
        if not isinstance(self._body, bytes):
            self._body = bytes(self._body)
        return self._body.decode("utf-8", "replace") if as_text else self._body

    @property
    def data(self) -> bytes:
        return cast(bytes, self.get_data(parse_form_data=True))

    @property
    def stream(self) -> IO[bytes]:
        return io.BytesIO(self.get_data())

    @property
    def json(self) -> Any:
        return self.get_json()

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        if not force and not self.is_json:
            if silent:
                return None
            raise ValueError(f"the body is not JSON by its Content-Type, '{self.content_type or ''}'")
        try:
            return json.loads(self.get_data())
        except ValueError:
            if silent:
                return None
            raise

    @property
    def is_json(self) -> bool:
        kind = self.mimetype
        return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))

    @property
    def form(self) -> MultiDict:
        return self._parsed_forms()[0]

    @property
    def files(self) -> MultiDict:
        return self._parsed_forms()[1]

    def _parsed_forms(self) -> Tuple[MultiDict, MultiDict]:
        if self._forms is None:
            kind, options = parse_options(self.content_type or "")
            if kind == "multipart/form-data" and "boundary" in options:
                self._forms = parse_multipart(self.get_data(), options["boundary"])
            elif kind == "application/x-www-form-urlencoded":
                self._forms = (_query(self.get_data()), MultiDict())
            else:
                self._forms = (MultiDict(), MultiDict())
        return self._forms

    # The query.

    @property
    def args(self) -> MultiDict:
        return _query(self.query_string)

    @property
    def values(self) -> MultiDict:
        return MultiDict(_all(self.args) + _all(self.form))

    @property
    def full_path(self) -> str:
        """Path and query; the question mark is there without a query as well, as in Flask."""
        return f"{self.path}?{self.query_string.decode('latin-1')}"

    @property
    def url(self) -> str:
        query = self.query_string.decode("latin-1")
        return f"{self.base_url}?{query}" if query else self.base_url

    @property
    def base_url(self) -> str:
        return f"{self.scheme}://{self.host}{self._raw_path}"

    @property
    def host(self) -> str:
        return str(self.headers.get("host", "localhost"))

    @property
    def host_url(self) -> str:
        return f"{self.scheme}://{self.host}/"

    @property
    def scheme(self) -> str:
        return "https"

    # The head.

    @property
    def content_type(self) -> Optional[str]:
        return cast(Optional[str], self.headers.get("content-type"))

    @property
    def mimetype(self) -> str:
        return parse_options(self.content_type or "")[0]

    @property
    def mimetype_params(self) -> Dict[str, str]:
        return parse_options(self.content_type or "")[1]

    @property
    def content_length(self) -> Optional[int]:
        return len(self._body) if self._body or "content-length" in self.headers else None

    @property
    def cookies(self) -> Dict[str, str]:
        pairs = (part.strip().partition("=") for part in self.headers.get("cookie", "").split(";"))
        return {name: value.strip('"') for name, mark, value in pairs if mark}

    @property
    def user_agent(self) -> str:
        return str(self.headers.get("user-agent", ""))


def _query(text: bytes) -> MultiDict:
    return MultiDict(parse_qsl(text.decode("utf-8", "replace"), keep_blank_values=True))


def _all(values: MultiDict) -> List[Tuple[str, Any]]:
    return [(name, value) for name in values for value in values.getlist(name)]
