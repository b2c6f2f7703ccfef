"""The whole way of a request to a scoring script: from the socket of a caller to a real worker process, and back."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from gateway.crew import Crew
from runtimes import ScriptClient
from tests.support.crews import crew_spec
from tests.support.door import Door, Part, open_door
from tests.support.scripts import echo

SCORE = "/endpoints/digits/score"
SCRIPT = """
import os
from azureml.contrib.services.aml_request import AMLRequest, rawhttp
from azureml.contrib.services.aml_response import AMLResponse

def init():
    global calls
    calls = 0

@rawhttp
def run(request):
    global calls
    calls += 1
    what = request.args.get("do", "")
    if what == "raise":
        raise ValueError("secret of the script")
    if what == "exit":
        os._exit(1)
    if what == "status":
        return AMLResponse("made", 201, {"x-mine": "a,b"})
    if what == "large":
        return AMLResponse(request.get_data() * 2, 200)
    return {"calls": calls, "method": request.method, "bytes": len(request.get_data()),
            "credentials": request.headers.get("authorization")}
"""


def served(folder: Path, way: str, story: Callable[[Door, httpx.AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        clients: list[ScriptClient] = []

        def on_gone(worker: int) -> None:
            for client in clients:
                client.worker_gone(worker)

        crew = Crew(crew_spec(folder, SCRIPT, server_version="host/1"), on_gone)
        await crew.start(1)

        def sockets() -> tuple[socket.socket, socket.socket]:
            work, replies = (socket.socket(fileno=os.dup(fd)) for fd in crew.sockets(0))
            return work, replies

        try:
            async with open_door(way, parts={"blue": Part(script=echo, pool=sockets)}) as (door, client):
                scripts = door.deployments["blue"].live.scripts
                assert scripts is not None
                clients.append(scripts)
                await story(door, client)
        finally:
            await crew.stop(1.0)

    asyncio.run(main())


@pytest.mark.parametrize("way", ["asgi", "wire", "lane"])
def test_a_users_script_answers_through_every_door(tmp_path: Path, way: str) -> None:
    async def story(door: Door, client: httpx.AsyncClient) -> None:
        first = await client.post(SCORE, content=b"\x00\xff")
        assert first.json() == {"calls": 1, "method": "POST", "bytes": 2, "credentials": None}
        assert (first.status_code, first.headers["content-type"]) == (200, "application/json")
        assert first.headers["x-ms-server-version"] == "host/1"
        assert first.headers["x-ms-run-function-failed"] == "False"
        assert float(first.headers["x-ms-run-fn-exec-ms"]) >= 0
        assert first.headers.get_list("x-ms-run-fn-exec-ms", split_commas=True) == [
            first.headers["x-ms-run-fn-exec-ms"]
        ]
        assert (await client.get(SCORE)).json()["method"] == "GET"
        large = await client.post(f"{SCORE}?do=large", content=b"x" * 50_000)
        assert len(large.content) == 100_000
        # A script that takes raw requests takes them all.
        assert (await client.options(SCORE)).json()["method"] == "OPTIONS"

    served(tmp_path, way, story)


def test_what_goes_wrong_in_a_script_is_told_as_the_contract_says(tmp_path: Path) -> None:
    async def story(door: Door, client: httpx.AsyncClient) -> None:
        failed = await client.post(f"{SCORE}?do=raise")
        assert (failed.status_code, list(failed.json())) == (424, ["message"])
        assert failed.headers["ms-azureml-model-error-statuscode"] == "500"
        assert failed.headers["x-ms-run-function-failed"] == "True"
        assert "secret of the script" not in failed.text
        made = await client.post(f"{SCORE}?do=status")
        assert (made.status_code, made.text) == (424, "made")
        assert made.headers["ms-azureml-model-error-statuscode"] == "201"
        assert made.headers.get_list("x-mine") == ["a", "b"]
        died = await client.post(f"{SCORE}?do=exit")
        assert (died.status_code, died.json()["error"]["code"]) == (424, "model_failed")
        again = await client.post(SCORE, content=b"1")
        assert (again.status_code, again.json()["calls"]) == (200, 1)

    served(tmp_path, "lane", story)
