"""Where requests go: a URL taken apart, and the paths of an endpoint in each wire format. Pure.

A URL is a scoring URI (/endpoints/NAME/score), a V2 one (/v2/models/NAME, with /versions/V and /infer or
without), or any other URL that takes POST; of the last kind nothing can be known, so bodies must be given with
it.
Errors: CannotMeasure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from bench.client.errors import CannotMeasure

_AZURE = re.compile(r"/endpoints/(?P<name>[^/]+)/score/?")
_V2 = re.compile(r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/infer)?/?")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One place to POST to. `model` is whose metadata describes it ("" where that is not known)."""

    host: str
    port: int
    tls: bool
    path: str
    wire: str
    model: str = ""
    version: str = ""

    @property
    def authority(self) -> str:
        """The Host header's value."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS["https" if self.tls else "http"] else f"{host}:{self.port}"

    @property
    def base(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.authority}"

    @property
    def metadata_path(self) -> str:
        """Where the V2 protocol describes the model's inputs."""
        version = f"/versions/{self.version}" if self.version else ""
        return f"/v2/models/{self.model}{version}"

    @property
    def url(self) -> str:
        """For a report: without a query, which may hold secrets."""
        return self.base + self.path.partition("?")[0]


def read_target(url: str, wire: str | None = None, model: str | None = None, deployment: str | None = None) -> Target:
    """`wire` is the format asked for; without it the URL's own. Errors: CannotMeasure."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in _PORTS or not parts.hostname or port == -1:
        raise CannotMeasure(f"URL: found {_harmless(url)!r}; accepted: https://HOST[:PORT]/endpoints/NAME/score")
    if parts.username or parts.password:
        raise CannotMeasure("URL: found a user or password in it; give a key with --key or GATEWAY_KEY")
    path, found_wire, name, version = _paths(parts.path or "/", wire, model, deployment or "")
    return Target(
        host=parts.hostname,
        port=port or _PORTS[parts.scheme],
        tls=parts.scheme == "https",
        path=path + (f"?{parts.query}" if parts.query else ""),
        wire=found_wire,
        model=name,
        version=version,
    )


def _paths(path: str, wire: str | None, model: str | None, deployment: str) -> tuple[str, str, str, str]:
    """The path to POST to, the format, whose metadata, and of which version."""
    if path == "/":
        if model is None:
            raise CannotMeasure(
                "URL: it names no endpoint; accepted: a scoring URI such as https://HOST/endpoints/NAME/score, "
                "or --model NAME beside it"
            )
        path = f"/endpoints/{model}/score"
    azure, v2 = _AZURE.fullmatch(path), _V2.fullmatch(path)
    if azure is None and v2 is None:
        # A server of another make, or an endpoint by host name: the path is left as it is.
        return path, wire or "azure", model or "", deployment
    match = azure or v2
    assert match is not None
    name = match["name"]
    version = (v2["version"] or "") if v2 is not None else ""
    chosen = wire or ("azure" if azure is not None else "v2-json")
    posted = f"/endpoints/{name}/score" if chosen == "azure" else f"/v2/models/{name}{_version(version)}/infer"
    return posted, chosen, model or name, version or deployment


def _version(version: str) -> str:
    return f"/versions/{version}" if version else ""


def _harmless(url: str) -> str:
    """Without what may be a secret."""
    return url.partition("?")[0].rpartition("@")[2]
