"""Absolute URLs: of this listener and of the scoring listener, as the caller reaches them.

Why from the Host header: behind a port mapping or a name, only the caller knows which address leads here. It is put
into answers, so it is checked to be a host and a port and nothing else. A setting wins over it.
Errors: Problem, 400. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.errors import Code, Problem

_HOST = re.compile(
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253})|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Urls:
    """How answers name the two listeners. The settings are full URLs without a slash at the end, "" for none."""

    scheme: str = "https"
    management_url: str = ""
    scoring_url: str = ""
    scoring_scheme: str = "https"
    scoring_port: int = 443

    def management(self, host: str) -> str:
        _check(host)
        return self.management_url or f"{self.scheme}://{host}"

    def scoring(self, host: str) -> str:
        name = _check(host)
        return self.scoring_url or f"{self.scoring_scheme}://{name}:{self.scoring_port}"


def _check(host: str) -> str:
    """The host's name, without its port."""
    found = _HOST.fullmatch(host)
    if found is None or int(found["port"] or 0) > 65_535:
        raise Problem(Code.INVALID_INPUT, f"the Host header is {host[:100]!r}; a host name or address is accepted")
    return found["host"]
