"""Credentials, logs, management tokens and rollouts of a running gateway, over its management listener.

Errors: RemoteError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal
from urllib.parse import quote

from gateway.cli.deploy import SUBSCRIPTION
from gateway.cli.remote import Remote, RemoteError

Command = Literal["pause", "resume", "promote", "cancel"]
# The gateway says something every 15 seconds.
QUIET_S = 60.0
ENDPOINTS = (
    f"{SUBSCRIPTION}/resourceGroups/gateway/providers/Microsoft.MachineLearningServices/workspaces/gateway"
    "/onlineEndpoints"
)


def keys(remote: Remote, endpoint: str) -> dict[str, Any]:
    """The two keys of an endpoint."""
    return dict(remote.ask("POST", f"{ENDPOINTS}/{quote(endpoint, safe='')}/listKeys"))


def token(remote: Remote, endpoint: str) -> dict[str, Any]:
    """A fresh token for an endpoint."""
    return dict(remote.ask("POST", f"{ENDPOINTS}/{quote(endpoint, safe='')}/token"))


def logs(remote: Remote, endpoint: str, deployment: str, tail: int, *, follow: bool) -> Iterator[tuple[str, str]]:
    """The lines of a deployment's log, each with its kind: "", or "lost" and "end" for what is told of them."""
    path = f"{ENDPOINTS}/{quote(endpoint, safe='')}/deployments/{quote(deployment, safe='')}/logs"
    kind = ""
    for line in remote.lines(path, {"tail": str(tail), "follow": str(follow).lower()}, QUIET_S):
        name, _, value = line.partition(": ")
        if name == "data":
            yield kind, value
        kind = value if name == "event" else kind if line else ""


def tokens(remote: Remote) -> list[Any]:
    """What management tokens there are; never the tokens themselves."""
    return list(remote.ask("GET", "/tokens")["value"])


def make_token(remote: Remote, name: str, role: str, lifetime_s: int | None) -> dict[str, Any]:
    """A new token; its text is in this answer only."""
    body: dict[str, Any] = {"name": name, "role": role}
    if lifetime_s is not None:
        body["lifetimeSeconds"] = lifetime_s
    return dict(remote.ask("POST", "/tokens", body))


def delete_token(remote: Remote, name: str) -> None:
    """The token stops working."""
    known = [one["name"] for one in tokens(remote)]
    if name not in known:
        listed = ", ".join(known) or "none"
        raise RemoteError(f"there is no management token {name!r}; there are: {listed}", status=404)
    remote.ask("DELETE", f"/tokens/{quote(name, safe='')}")


def rollouts(remote: Remote, endpoint: str) -> list[Any]:
    """The rollouts of an endpoint, the oldest first: each with its keys and how it goes."""
    return [{"name": one["name"], **one["properties"]} for one in remote.ask("GET", _path(endpoint))["value"]]


def start_rollout(remote: Remote, endpoint: str, name: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Begin to move traffic."""
    return _shown(remote.ask("PUT", f"{_path(endpoint)}/{quote(name, safe='')}", dict(keys)))


def tell_rollout(remote: Remote, endpoint: str, command: Command, name: str = "") -> dict[str, Any]:
    """Pause, resume, promote or cancel; the one that is not over where no name is given."""
    name = name or _running(remote, endpoint)
    return _shown(remote.ask("POST", f"{_path(endpoint)}/{quote(name, safe='')}/{command}"))


def _running(remote: Remote, endpoint: str) -> str:
    found = [one["name"] for one in rollouts(remote, endpoint) if not one.get("ended_at")]
    if len(found) != 1:
        raise RemoteError(
            f"endpoint {endpoint} has {len(found)} rollouts under way; name one with --name", status=404
        )
    return str(found[0])


def _path(endpoint: str) -> str:
    return f"{ENDPOINTS}/{quote(endpoint, safe='')}/rollouts"


def _shown(answer: Any) -> dict[str, Any]:
    return {"name": answer["name"], **answer["properties"]}
