"""Somebody who drives a gateway of a test over its management listener, and the commands of somebody elsewhere.

Paths are the whole ones, as bench/control/management.py makes them. Units: *_s seconds.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from bench.control.management import (
    ENDPOINTS,
    WORKSPACE,
    below_host,
    deployment_body,
    deployment_path,
    endpoint_body,
    endpoint_path,
    model_body,
    model_path,
)
from tests.support.process import GatewayProcess
from tests.support.waiting import eventually


class Manager:
    """`with Manager(gateway) as manager:` asks as the admin of the first start, or with the token that is given."""

    def __init__(self, gateway: GatewayProcess, token: str = "") -> None:
        self._gateway = gateway
        token = token or (gateway.state / "management.token").read_text().strip()
        self._client = gateway.client(
            base_url=gateway.urls["management"], headers={"authorization": f"Bearer {token}"}
        )

    def __enter__(self) -> Manager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._client.close()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return self._client.request(method, path, json=body, headers=headers)

    def need(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The body of a success."""
        answer = self.ask(method, path, body, **headers)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def do(self, method: str, path: str, body: Any = None) -> None:
        """A change that is carried out when this returns."""
        answer = self.ask(method, path, body)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        ended = self.ended(answer)
        assert ended["status"] == "Succeeded", ended

    def ended(self, answer: httpx.Response, timeout_s: float = 20.0) -> dict[str, Any]:
        """The operation that an answer tells of, once it has ended."""
        url = below_host(answer.headers.get("azure-asyncoperation", ""))
        if not url:
            return {"status": "Succeeded"}

        def found() -> dict[str, Any] | None:
            told: dict[str, Any] = self.need("GET", url)
            return told if told["status"] != "InProgress" else None

        return eventually(found, f"{url} has ended", timeout_s) or {}

    # What there is to score with.

    def register(self, name: str, version: str, content: bytes) -> str:
        """Upload and register a model; its path, for a deployment."""
        place = f"LocalUpload/{hashlib.sha256(content).hexdigest()}/model.onnx"
        sent = self._client.put(f"/blob/azureml/{place}", content=content, headers={"x-ms-blob-type": "BlockBlob"})
        assert sent.status_code == 201, sent.text
        path = model_path(name, version)
        self.need("PUT", path, model_body(f"azureml://datastores/workspaceblobstore/paths/{place}", {}))
        return path

    def endpoint(self, name: str, **traffic: int) -> None:
        self.do("PUT", endpoint_path(name), endpoint_body(traffic, {}))

    def deployment(self, endpoint: str, name: str, model: str) -> None:
        self.do("PUT", deployment_path(endpoint, name), deployment_body(model, {}))

    def endpoints(self) -> set[str]:
        return {one["name"] for one in self.need("GET", ENDPOINTS)["value"]}

    def deployments(self, endpoint: str) -> set[str]:
        return {one["name"] for one in self.need("GET", f"{endpoint_path(endpoint)}/deployments")["value"]}

    def clear(self) -> None:
        """Nothing is served or registered any more."""
        for name in self.endpoints():
            self.do("DELETE", endpoint_path(name))
        for model in self.need("GET", f"{WORKSPACE}/models")["value"]:
            for version in self.need("GET", f"{WORKSPACE}/models/{model['name']}/versions")["value"]:
                self.need("DELETE", model_path(model["name"], version["name"]))

    def traffic(self, endpoint: str) -> dict[str, int]:
        """The shares that are not nothing."""
        told = self.need("GET", endpoint_path(endpoint))["properties"]["traffic"]
        return {name: percent for name, percent in told.items() if percent}

    def events(self, endpoint: str) -> list[dict[str, str]]:
        found: list[dict[str, str]] = self.need("GET", f"{endpoint_path(endpoint)}/events")["value"]
        return found

    def key(self, endpoint: str) -> str:
        return str(self.need("POST", f"{endpoint_path(endpoint)}/listKeys")["primaryKey"])

    def scoring(self, endpoint: str) -> httpx.Client:
        """A client with the endpoint's key; quicker than asking the command for it."""
        return self._gateway.client(headers={"authorization": f"Bearer {self.key(endpoint)}"})


class Elsewhere:
    """The commands on another machine: no state folder, only an address, a token in a file, and the authority."""

    def __init__(self, gateway: GatewayProcess, token: str, folder: Path, *, name: str = "ci", ca: str = "") -> None:
        self._folder = folder
        token_file = folder / f"{name}.token"
        token_file.write_text(token)
        address = ("--url", gateway.urls["management"], "--ca", ca or gateway.urls["ca"])
        self._where = (*address, "--token-file", str(token_file))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        clean = {name: text for name, text in os.environ.items() if not name.startswith("GATEWAY_")}
        return subprocess.run(
            [sys.executable, "-m", "gateway", *words, *self._where],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**clean, "PYTHONPATH": str(Path.cwd())},
        )


@contextmanager
def killed(gateway: GatewayProcess) -> Iterator[GatewayProcess]:
    """A gateway that is killed, as by a lack of power, when the block ends."""
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.stop(signal.SIGKILL)


def make_token(manager: Manager, name: str, role: str, **more: Any) -> str:
    """The text of a new management token."""
    return str(manager.need("POST", "/tokens", {"name": name, "role": role, **more})["token"])


def error_of(answer: httpx.Response, status: int) -> Mapping[str, Any]:
    """What an ARM refusal with this status says."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"code", "message", "target", "details", "additionalInfo"}
    return error
