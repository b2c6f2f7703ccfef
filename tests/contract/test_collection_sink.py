"""The sink of scripts' collectors, spoken to by the real azureml-ai-monitoring package in a process of its own."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.collection import sink as sinks
from gateway.collection.appending import Appender
from gateway.collection.sink import PATH, SENDERS_MAX, Sink, config
from gateway.collection.spec import CollectionSpec, CollectorSpec
from gateway.collection.writer import Writer
from gateway.listener import HttpServer
from tests.support.waiting import eventually

NOW = 1_769_900_000.0
PROGRAM = """
    import json, sys
    import pandas as pd
    from azureml.ai.monitoring import Collector
    from azureml.ai.monitoring.context import BasicCorrelationContext
    from azureml.ai.monitoring.init import teardown

    rows = pd.DataFrame({"age": [1, 2], "name": ["Grüße", None]})
    inputs, outputs = Collector(name="model_inputs"), Collector(name="model_outputs")
    context = inputs.collect(rows, BasicCorrelationContext(id="my-request", headers={"tenant": "north", "id": "x"}))
    outputs.collect(rows.head(1), context)
    never = Collector(name="never")
    for _ in range(50):
        never.collect(rows)
    errors = []
    Collector(name="unknown", on_error=lambda error: errors.append(str(error)))
    Collector(name="model_inputs", on_error=lambda error: errors.append(str(error))).collect([1])
    teardown(wait_for_flush=True)
    print(json.dumps({"id": context.get_id(), "errors": errors}))
"""


def spec(*names: str, **rates: float) -> CollectorSpec:
    found = [(name, 1.0) for name in names] + list(rates.items())
    return CollectorSpec(
        source="/the/deployment",
        collections=tuple(
            CollectionSpec(name=name, folder=f"home/{name}", sampling_rate=rate) for name, rate in found
        ),
        rolling_rate="day",
    )


@asynccontextmanager
async def sink_in(folder: Path, queue_bytes_max: int = 1 << 20) -> AsyncIterator[Sink]:
    writer = Writer(Appender(folder, "scripts"), queue_bytes_max)
    sink = Sink(writer, now=lambda: NOW)
    try:
        yield sink
    finally:
        await sink.close()
        await asyncio.to_thread(writer.close)


def records(folder: Path, name: str) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted((folder / "home" / name).rglob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def url_of(variables: dict[str, str]) -> str:
    return f"http://{variables['AZUREML_MDC_HOST']}:{variables['AZUREML_MDC_PORT']}{PATH}"


def headers(type_: str = "azureml.inference.model_inputs", **more: str) -> dict[str, str]:
    return {"content-type": "application/json", "ce-type": type_, **{k.replace("_", "-"): v for k, v in more.items()}}


def test_the_package_as_it_is_delivers_what_a_script_collects(tmp_path: Path) -> None:
    pytest.importorskip("azureml.ai.monitoring", reason="azureml-ai-monitoring comes with the extra 'examples'")

    async def main() -> None:
        collector = spec("model_inputs", "model_outputs", never=0.0)
        async with sink_in(tmp_path) as sink:
            _, variables = await sink.admit("e/d", collector)
            file = tmp_path / "collector.json"
            file.write_text(config(collector))
            done = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-W", "ignore", "-c", textwrap.dedent(PROGRAM)],
                env={**variables, "AZUREML_MDC_CONFIG_PATH": str(file), "PATH": "/usr/bin:/bin"},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr + done.stdout
            told = json.loads(done.stdout.splitlines()[-1])
            assert told["id"] == "my-request"
            # The package says both, and goes on where it is given a place for errors.
            assert ["unknown" in told["errors"][0], "not supported" in told["errors"][1]] == [True, True]
            await asyncio.to_thread(sink._writer.close)
            counts = {name: one["stored"] for name, one in sink.counts("e/d").items()}
            assert counts == {"model_inputs": 1, "model_outputs": 1, "never": 0}

    asyncio.run(main())
    (asked,), (answered,) = records(tmp_path, "model_inputs"), records(tmp_path, "model_outputs")
    assert asked["data"] == [{"age": 1, "name": "Grüße"}, {"age": 2, "name": None}]
    assert answered["data"] == asked["data"][:1]
    for name, one in (("model_inputs", asked), ("model_outputs", answered)):
        assert one["type"] == f"azureml.inference.{name}"
        assert (one["source"], one["specversion"], one["datacontenttype"]) == (
            "/the/deployment",
            "1.0",
            "application/json",
        )
        assert (one["correlationid"], one["xrequestid"], one["tenant"]) == ("my-request", "my-request", "north")
        assert one["modelversion"] == "default"
        assert one["agent"].startswith("azureml-ai-monitoring/")
        assert one["collectdatatype"].endswith("DataFrame")
        size = int(one["contentrange"].rpartition("/")[2])
        assert one["contentrange"] == f"bytes 0-{size - 1}/{size}"
    assert asked["id"] not in (answered["id"], "x")
    assert records(tmp_path, "never") == []


def test_a_secret_opens_its_own_deployment_for_as_long_as_its_pool_lives(tmp_path: Path) -> None:
    async def main() -> None:
        async with sink_in(tmp_path) as sink, httpx.AsyncClient() as client:
            first, one = await sink.admit("e/one", spec("model_inputs"))
            _, other = await sink.admit("e/other", spec("model_outputs"))
            assert one["AZUREML_MDC_PORT"] == other["AZUREML_MDC_PORT"]
            assert one["AZUREML_MDC_HOST"] != other["AZUREML_MDC_HOST"]
            good = await client.post(url_of(one), headers=headers(), content=b"[1]")
            assert good.status_code == 200
            not_its_own = await client.post(url_of(other), headers=headers(), content=b"[1]")
            assert (not_its_own.status_code, "model_outputs" in not_its_own.text) == (404, True)
            open_url = f"http://127.0.0.1:{one['AZUREML_MDC_PORT']}{PATH}"
            guessed = base64.b64encode(b"collector:" + b"0" * 64).decode()
            for authorization in ("", "Basic !", f"Basic {guessed}", f"Bearer {first}", "Basic " + "QQ==" * 9):
                given = headers(**({"authorization": authorization} if authorization else {}))
                refused = await client.post(open_url, headers=given, content=b"[1]")
                assert refused.status_code == 401
            await asyncio.to_thread(
                eventually, lambda: sink.counts("e/one")["model_inputs"]["stored"] == 1, "the record is stored"
            )
            # The next pool of a deployment goes on with its counts; with the last they go.
            second, _ = await sink.admit("e/one", spec("model_inputs"))
            sink.forget(first)
            assert (await client.post(url_of(one), headers=headers(), content=b"[1]")).status_code == 401
            counts = sink.counts("e/one")["model_inputs"]
            assert (counts["stored"], sum(counts.values())) == (1, 1)
            sink.forget(second)
            sink.forget("never made")
            assert (sink.counts("e/one"), list(sink.counts("e/other"))) == ({}, ["model_outputs"])

    asyncio.run(main())
    assert [one["data"] for one in records(tmp_path, "model_inputs")] == [[1]]


def test_a_sink_that_could_not_listen_listens_for_the_next_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[socket.socket] = []
    start = HttpServer.start

    async def fails_once(server: HttpServer, sock: socket.socket) -> None:
        started.append(sock)
        # Others come meanwhile.
        await asyncio.sleep(0)
        if len(started) == 1:
            raise OSError(errno.EMFILE, "too many open files")
        await start(server, sock)

    monkeypatch.setattr(HttpServer, "start", fails_once)

    async def main() -> None:
        async with sink_in(tmp_path) as sink, httpx.AsyncClient() as client:
            with pytest.raises(OSError, match="too many"):
                await sink.admit("e/one", spec("model_inputs"))
            assert started[0].fileno() == -1
            admitted = await asyncio.gather(*(sink.admit("e/one", spec("model_inputs")) for _ in range(3)))
            assert len(started) == 2
            for _, variables in admitted:
                answer = await client.post(url_of(variables), headers=headers(), content=b"[1]")
                assert answer.status_code == 200

    asyncio.run(main())


def test_what_cannot_be_taken_is_refused_with_its_reason_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "BODY_BYTES_MAX", 5000)

    async def main() -> None:
        async with sink_in(tmp_path, queue_bytes_max=4096) as sink, httpx.AsyncClient() as client:
            _, variables = await sink.admit("e/d", spec("model_inputs"))
            url = url_of(variables)

            async def status(body: bytes = b"[1]", **given: str) -> int:
                return (await client.post(url, headers=headers(**given), content=body)).status_code

            assert await status(b"x" * 5001) == 413
            assert [await status(ce_time=text) for text in ("noon", "nan", "-1", "1e30")] == [400] * 4
            # Larger than the queue, whatever is in it.
            assert await status(b"x" * 4000) == 429
            assert await status(type_="azureml.inference.none") == 404
            assert (await client.get(url)).status_code == 405
            assert (await client.post(url.replace(PATH, "/else"), content=b"")).status_code == 404
            counts = sink.counts("e/d")["model_inputs"]
            assert (counts["too_large"], counts["invalid"], counts["queue_full"]) == (1, 4, 1)

    asyncio.run(main())
    assert records(tmp_path, "model_inputs") == []


def test_what_the_package_says_of_itself_is_bounded_and_cannot_be_forged_by_a_context(tmp_path: Path) -> None:
    context = {f"ce_more_{number}": "y" * 300 for number in range(40)}

    async def main() -> None:
        async with sink_in(tmp_path) as sink, httpx.AsyncClient() as client:
            _, variables = await sink.admit("e/d", spec("model_inputs"))
            given = headers(ce_source="forged", ce_data="forged", ce_specversion="9", trace_id="no guid", **context)
            assert (await client.post(url_of(variables), headers=given, content=b"not json")).status_code == 200

    asyncio.run(main())
    (one,) = records(tmp_path, "model_inputs")
    assert (one["source"], one["data"], one["specversion"]) == ("/the/deployment", "not json", "1.0")
    assert len(one["id"]) == 36
    more = {name: value for name, value in one.items() if name.startswith("more-")}
    assert (len(more), {len(value) for value in more.values()}) == (16, {256})


def test_a_sender_that_repeats_its_id_loses_no_record(tmp_path: Path) -> None:
    bodies = [b"\xff one", b"\xff other"]

    async def main() -> None:
        async with sink_in(tmp_path) as sink, httpx.AsyncClient() as client:
            _, variables = await sink.admit("e/d", spec("model_inputs"))
            given = headers(trace_id="0f8fad5b-d9cb-469f-a165-70867728950e")
            for body in bodies:
                assert (await client.post(url_of(variables), headers=given, content=body)).status_code == 200

    asyncio.run(main())
    found = records(tmp_path, "model_inputs")
    assert [one["id"] for one in found] == ["0f8fad5b-d9cb-469f-a165-70867728950e"] * 2
    assert [(tmp_path / one["data"].partition("/paths/")[2]).read_bytes() for one in found] == bodies


async def begin_to_send(variables: dict[str, str], size: int, body: bytes) -> asyncio.StreamWriter:
    """A sender of so many bytes, of which these have left."""
    _, writer = await asyncio.open_connection("127.0.0.1", int(variables["AZUREML_MDC_PORT"]))
    secret = base64.b64encode(variables["AZUREML_MDC_HOST"].partition("@")[0].encode()).decode()
    lines = [f"POST {PATH} HTTP/1.1", "host: sink", f"authorization: Basic {secret}", f"content-length: {size}"]
    lines += [f"{name}: {value}" for name, value in headers().items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    await writer.drain()
    return writer


def test_a_sender_that_ends_within_a_record_is_counted_and_no_failure_of_the_sink(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with sink_in(tmp_path) as sink:
            _, variables = await sink.admit("e/d", spec("model_inputs"))
            writer = await begin_to_send(variables, 1000, b"x" * 100)
            await asyncio.to_thread(
                eventually, lambda: sink._writer._reserved_bytes == 100, "what was sent has arrived"
            )
            writer.close()
            await asyncio.to_thread(
                eventually, lambda: sink.counts("e/d")["model_inputs"]["invalid"] == 1, "it is counted"
            )
            assert sink._writer._reserved_bytes == 0

    asyncio.run(main())
    assert caplog.records == []


def test_bodies_that_arrive_take_their_room_in_the_queue(tmp_path: Path) -> None:
    async def main() -> None:
        async with sink_in(tmp_path, queue_bytes_max=64 * 1024) as sink, httpx.AsyncClient() as client:
            _, variables = await sink.admit("e/d", spec("model_inputs"))
            writer = await begin_to_send(variables, 40_001, b"x" * 40_000)
            await asyncio.to_thread(
                eventually, lambda: sink._writer._reserved_bytes == 40_000, "what was sent has arrived"
            )
            refused = await client.post(url_of(variables), headers=headers(), content=b"y" * 30_000)
            assert refused.status_code == 429
            assert sink._writer._reserved_bytes == 40_000
            # The first finds the room that it held.
            writer.write(b"x")
            await asyncio.to_thread(
                eventually, lambda: sink.counts("e/d")["model_inputs"]["stored"] == 1, "the first is stored"
            )
            writer.close()
            assert (await client.post(url_of(variables), headers=headers(), content=b"[1]")).status_code == 200
            assert sink._writer._reserved_bytes == 0
            assert sink.counts("e/d")["model_inputs"]["queue_full"] == 1

    asyncio.run(main())


def test_so_many_senders_may_be_connected_and_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        async with sink_in(tmp_path) as sink:
            _, variables = await sink.admit("e/d", spec("model_inputs"))
            port = int(variables["AZUREML_MDC_PORT"])
            peers = [await asyncio.open_connection("127.0.0.1", port) for _ in range(SENDERS_MAX + 1)]
            # Whoever is one too many is sent away, or closed on.
            said = await asyncio.wait_for(peers[-1][0].read(), 5)
            assert said == b"" or b"503" in said.splitlines()[0]
            for _, writer in peers:
                writer.close()
                await writer.wait_closed()

    asyncio.run(main())
