"""The body of a `multipart/form-data` request: its fields and its files.

Why: a script with @rawhttp reads uploaded files as Flask shows them, and the standard library has no parser any more.
Shapes: a part is its header lines, an empty line, its content; a line of two dashes and the boundary stands between
parts.
Errors: none; what is not a part is left out, as Flask does. The body was bounded when it was received.
"""

import io
import shutil
from pathlib import Path
from typing import IO, Any, Iterator, List, Tuple, Union

from .http import Headers, MultiDict, parse_options

_PARTS_MAX = 1000


class FileStorage:
    """One uploaded file."""

    def __init__(self, content: bytes, filename: str, name: str, headers: Headers) -> None:
        self.stream: IO[bytes] = io.BytesIO(content)
        self.filename = filename
        self.name = name
        self.headers = headers
        self.content_type = str(headers.get("content-type", "application/octet-stream"))
        self.mimetype = parse_options(self.content_type)[0]
        self.content_length = len(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["stream"], name)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.stream)

    def __repr__(self) -> str:
        return f"<FileStorage: {self.filename!r} ({self.content_type!r})>"

    def read(self, size: int = -1) -> bytes:
        return self.stream.read(size)

    def save(self, target: Union[str, IO[bytes]], buffer_size: int = 16384) -> None:
        """Writes what was not read yet into a file, or into the file of that name."""
        if hasattr(target, "write"):
            shutil.copyfileobj(self.stream, target, buffer_size)
            return
        with Path(str(target)).open("wb") as file:
            shutil.copyfileobj(self.stream, file, buffer_size)

    def close(self) -> None:
        self.stream.close()


def parse(body: bytes, boundary: str) -> Tuple[MultiDict, MultiDict]:
    """The form's fields as text, and its files."""
    fields: List[Tuple[str, str]] = []
    files: List[Tuple[str, FileStorage]] = []
    for headers, content in _parts(body, boundary.encode("latin-1", "replace")):
        _, options = parse_options(headers.get("content-disposition", ""))
        name = options.get("name")
        if name is None:
            continue
        if "filename" in options:
            files.append((name, FileStorage(content, options["filename"], name, headers)))
        else:
            fields.append((name, content.decode("utf-8", "replace")))
    return MultiDict(fields), MultiDict(files)


def _parts(body: bytes, boundary: bytes) -> Iterator[Tuple[Headers, bytes]]:
    mark = b"\r\n--" + boundary
    # The first boundary has no line before it.
    pieces = (b"\r\n" + body).split(mark, _PARTS_MAX + 1)
    for piece in pieces[1 : _PARTS_MAX + 1]:
        if piece.startswith(b"--"):
            return
        _, _, part = piece.partition(b"\r\n")
        head, blank, content = (b"\r\n" + part).partition(b"\r\n\r\n")
        if blank:
            yield _headers(head), content


def _headers(head: bytes) -> Headers:
    headers = Headers()
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, mark, value = line.partition(":")
        if mark:
            headers.add(name.strip(), value.strip())
    return headers
