"""The management listener as a client sees it: paths, bodies, uploads, and operations that are waited for.

Shapes: ARM's. Errors: Lost; Refused for an answer that is no success where one is needed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import time
from collections.abc import Mapping
from typing import Any

from bench.control.wire import Answer, Connection

WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
ENDPOINTS = f"{WORKSPACE}/onlineEndpoints"
VERSION = "api-version=2023-04-01"
POLL_S = 0.02
ENDED_WITHIN_S = 30.0
CHANGING = ("Creating", "Updating", "Deleting", "Scaling")


class Refused(Exception):
    """An answer that is no success."""


class Management:
    """One connection with the management token."""

    def __init__(self, url: str, context: ssl.SSLContext, token: str) -> None:
        self._connection = Connection(url, context)
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}

    async def call(self, method: str, path: str, body: Any = None) -> Answer:
        content = json.dumps(body).encode() if body is not None else b""
        mark = "&" if "?" in path else "?"
        return await self._connection.request(method, f"{path}{mark}{VERSION}", self._headers, content)

    async def need(self, method: str, path: str, body: Any = None) -> Any:
        """The body of a success. Errors: Refused."""
        answer = await self.call(method, path, body)
        if not answer.is_good:
            raise Refused(f"{method} {path}: {answer}")
        return answer.json() if answer.body else None

    async def do(self, method: str, path: str, body: Any = None, *, rests_s: float = 0.0) -> None:
        """A change, and wait until it is carried out; nothing is asked until so long after its beginning. Errors:
        Refused, also where the operation fails."""
        ask_s = time.monotonic() + rests_s
        answer = await self.call(method, path, body)
        if not answer.is_good:
            raise Refused(f"{method} {path}: {answer}")
        url = operation_of(answer)
        if url:
            await asyncio.sleep(max(0.0, ask_s - time.monotonic()))
            found = await self.ended(url)
            if found["status"] != "Succeeded":
                raise Refused(f"{method} {path}: {found}")

    async def ended(self, path: str) -> dict[str, Any]:
        """The operation once it has ended. Errors: Refused where it does not."""
        ends_s = time.monotonic() + ENDED_WITHIN_S
        while True:
            found: dict[str, Any] = await self.need("GET", path)
            if found["status"] != "InProgress":
                return found
            if time.monotonic() > ends_s:
                raise Refused(f"{path} has not ended after {ENDED_WITHIN_S:.0f} s: {found}")
            await asyncio.sleep(POLL_S)

    async def listed(self, path: str) -> list[dict[str, Any]]:
        """All pages."""
        items: list[dict[str, Any]] = []
        while path:
            page = await self.need("GET", path)
            items += page["value"]
            path = below_host(page.get("nextLink") or "")
        return items

    async def upload(self, content: bytes) -> str:
        """The address of a model's file, for `register`."""
        digest = hashlib.sha256(content).hexdigest()
        path = f"LocalUpload/{digest}/model.onnx"
        headers = {**self._headers, "x-ms-blob-type": "BlockBlob", "x-ms-version": "2023-11-03"}
        answer = await self._connection.request("PUT", f"/blob/azureml/{path}", headers, content)
        if not answer.is_good:
            raise Refused(f"PUT /blob/azureml/{path}: {answer}")
        return f"azureml://datastores/workspaceblobstore/paths/{path}"

    def close(self) -> None:
        self._connection.close()


def endpoint_path(endpoint: str) -> str:
    return f"{ENDPOINTS}/{endpoint}"


def deployment_path(endpoint: str, deployment: str) -> str:
    return f"{ENDPOINTS}/{endpoint}/deployments/{deployment}"


def model_path(name: str, version: str) -> str:
    return f"{WORKSPACE}/models/{name}/versions/{version}"


def endpoint_body(traffic: Mapping[str, int], tags: Mapping[str, str]) -> dict[str, Any]:
    return {"location": "local", "tags": tags, "properties": {"authMode": "Key", "traffic": traffic}}


def deployment_body(model: str, tags: Mapping[str, str], *, instances: int = 1, timeout_s: int = 5) -> dict[str, Any]:
    """`model` is the path of a registered version."""
    return {
        "location": "local",
        "tags": tags,
        "sku": {"name": "Default", "capacity": instances},
        "properties": {
            "endpointComputeType": "Managed",
            "instanceType": "Standard_DS3_v2",
            "model": model,
            "requestSettings": {"requestTimeout": f"PT{timeout_s}S", "maxConcurrentRequestsPerInstance": 100},
        },
    }


def model_body(address: str, tags: Mapping[str, str]) -> dict[str, Any]:
    return {"properties": {"modelUri": address, "modelType": "custom_model", "tags": tags}}


def operation_of(answer: Answer) -> str:
    """The path at which to ask how a change goes; "" where it has ended."""
    return below_host(answer.headers.get("azure-asyncoperation", ""))


def below_host(url: str) -> str:
    """Path and query of an absolute URL, without the version, which every call adds."""
    if not url:
        return ""
    path = "/" + url.split("/", 3)[3]
    head, _, query = path.partition("?")
    kept = "&".join(part for part in query.split("&") if part and not part.startswith("api-version="))
    return f"{head}?{kept}" if kept else head
