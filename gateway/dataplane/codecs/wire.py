"""The shapes that every codec shares: a decoded request, and an encoded answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from runtimes import Array

JSON = b"application/json"
OCTETS = b"application/octet-stream"
NONFINITE = ((b"x-gateway-nonfinite", b"true"),)


class Encoded:
    """An answer's body and what its headers say about it. Header names are lower-case."""

    # No tuple: one is made for every answer, and this takes half the time.
    __slots__ = ("body", "content_type", "headers")

    def __init__(self, content_type: bytes, body: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self.content_type = content_type
        self.body = body
        self.headers = headers


class Decoded(Protocol):
    """One request as tensors that fit the signature, and the way back to the caller's format.

    `outputs` None asks for all, else names in the model's order. `timeout_ns` is the caller's own limit, 0 for none.
    `encode` takes an array for each asked output, as the session gave them.
    """

    @property
    def inputs(self) -> dict[str, Array]: ...

    @property
    def rows(self) -> int: ...

    @property
    def outputs(self) -> tuple[str, ...] | None: ...

    @property
    def timeout_ns(self) -> int: ...

    def encode(self, results: Mapping[str, Array]) -> Encoded: ...
