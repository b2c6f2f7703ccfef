"""The real tritonclient over HTTPS, sync and aio: it cannot tell the gateway from Triton."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine, Iterator
from typing import Any

import gevent.ssl
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from examples.digits.data import Digits
from tests.e2e.conftest import Truth
from tests.support.process import GatewayProcess

ROWS = 7
Headers = dict[str, str]


@pytest.fixture
def headers(gateway: GatewayProcess) -> Headers:
    return {"Authorization": f"Bearer {gateway.keys('digits')['primaryKey']}"}


@pytest.fixture
def client(gateway: GatewayProcess) -> Iterator[Any]:
    address = gateway.urls["scoring"].removeprefix("https://")

    def trust() -> ssl.SSLContext:
        context: ssl.SSLContext = gevent.ssl.create_default_context(cafile=gateway.urls["ca"])
        return context

    with triton.InferenceServerClient(address, ssl=True, ssl_context_factory=trust) as found:
        yield found


def _input(module: Any, rows: np.ndarray[Any, Any], *, binary: bool) -> Any:
    tensor = module.InferInput("pixels", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return tensor


def _outputs(module: Any, names: list[str], *, binary: bool) -> list[Any]:
    return [module.InferRequestedOutput(name, binary_data=binary) for name in names]


# The sync client.


def test_health_and_metadata_read_as_from_triton(client: Any, headers: Headers) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits", headers=headers)
    assert client.is_model_ready("digits", "green", headers=headers)
    assert not client.is_model_ready("digits", "purple", headers=headers)

    server = client.get_server_metadata()
    assert {"binary_tensor_data", "statistics", "model_configuration"} <= set(server["extensions"])
    model = client.get_model_metadata("digits", headers=headers)
    assert model["name"] == "digits"
    assert sorted(model["versions"]) == ["blue", "green"]
    assert model["inputs"] == [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}]
    assert {tensor["name"] for tensor in model["outputs"]} == {"label", "probabilities"}


def test_config_index_and_statistics_read_as_from_triton(client: Any, headers: Headers) -> None:
    config = client.get_model_config("digits", "blue", headers=headers)
    assert config["max_batch_size"] > 0
    assert config["input"][0]["dims"] == [64]
    index = client.get_model_repository_index(headers=headers)
    assert {(entry["name"], entry["version"], entry["state"]) for entry in index} == {
        ("digits", "blue", "READY"),
        ("digits", "green", "READY"),
    }
    statistics = client.get_inference_statistics("digits", "blue", headers=headers)
    (blue,) = statistics["model_stats"]
    assert (blue["name"], blue["version"]) == ("digits", "blue")
    assert {model["version"] for model in client.get_inference_statistics(headers=headers)["model_stats"]} == {
        "blue",
        "green",
    }


def test_statistics_count_what_was_inferred(client: Any, headers: Headers, digits: Digits) -> None:
    def counted() -> tuple[int, int]:
        (green,) = client.get_inference_statistics("digits", "green", headers=headers)["model_stats"]
        return green["inference_count"], green["inference_stats"]["success"]["count"]

    rows_before, requests_before = counted()
    for _ in range(3):
        inputs = [_input(triton, digits.pixels[:ROWS], binary=True)]
        client.infer("digits", inputs, model_version="green", headers=headers)
    rows, requests = counted()
    assert rows - rows_before == 3 * ROWS
    assert requests - requests_before == 3


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("deployment", ["blue", "green"])
def test_infer_gives_the_models_answers(
    client: Any,
    headers: Headers,
    digits: Digits,
    truth: dict[str, Truth],
    deployment: str,
    binary_in: bool,
    binary_out: bool,
) -> None:
    result = client.infer(
        "digits",
        [_input(triton, digits.pixels[:ROWS], binary=binary_in)],
        model_version=deployment,
        outputs=_outputs(triton, ["label", "probabilities"], binary=binary_out),
        request_id="mine",
        headers=headers,
    )
    response = result.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == ("digits", deployment, "mine")
    np.testing.assert_array_equal(result.as_numpy("label"), truth[deployment].labels[:ROWS])
    np.testing.assert_allclose(
        result.as_numpy("probabilities"), truth[deployment].probabilities[:ROWS], rtol=1e-4, atol=1e-6
    )


def test_only_the_outputs_that_were_asked_for_come_back(client: Any, headers: Headers, digits: Digits) -> None:
    inputs = [_input(triton, digits.pixels[:1], binary=True)]
    result = client.infer("digits", inputs, outputs=_outputs(triton, ["label"], binary=True), headers=headers)
    assert result.as_numpy("probabilities") is None
    assert result.as_numpy("label").shape == (1,)


def test_asynchronous_calls_work_and_asking_for_gzip_does_no_harm(
    client: Any, headers: Headers, digits: Digits, truth: dict[str, Truth]
) -> None:
    inputs = [_input(triton, digits.pixels[:ROWS], binary=True)]
    pending = [client.async_infer("digits", inputs, model_version="blue", headers=headers) for _ in range(3)]
    for one in pending:
        np.testing.assert_array_equal(one.get_result().as_numpy("label"), truth["blue"].labels[:ROWS])
    result = client.infer("digits", inputs, headers=headers, response_compression_algorithm="gzip")
    assert result.as_numpy("label").shape == (ROWS,)


def test_what_is_wrong_is_said_in_words(client: Any, headers: Headers, digits: Digits) -> None:
    rows = digits.pixels[:1]
    unnamed = triton.InferInput("image", [1, 64], "FP32")
    unnamed.set_data_from_numpy(rows)
    wide = triton.InferInput("pixels", [1, 32], "FP32")
    wide.set_data_from_numpy(rows[:, :32])
    doubled = triton.InferInput("pixels", [1, 64], "FP64")
    doubled.set_data_from_numpy(rows.astype(np.float64))
    for wrong, said in ((unnamed, "pixels"), (wide, "64"), (doubled, "FP32")):
        with pytest.raises(InferenceServerException, match=said) as caught:
            client.infer("digits", [wrong], headers=headers)
        assert str(caught.value.status()) == "400"
    good = [_input(triton, rows, binary=True)]
    with pytest.raises(InferenceServerException, match="purple"):
        client.infer("digits", good, model_version="purple", headers=headers)
    with pytest.raises(InferenceServerException, match="squares"):
        client.infer("digits", good, outputs=_outputs(triton, ["squares"], binary=True), headers=headers)
    with pytest.raises(InferenceServerException, match="no valid credential"):
        client.infer("digits", good)


def test_models_are_not_loaded_or_unloaded_by_clients(client: Any, headers: Headers) -> None:
    for refused in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="not by clients"):
            refused("digits", headers=headers)


# The aio client.


def _with_aio(gateway: GatewayProcess, use: Any) -> Any:
    address = gateway.urls["scoring"].removeprefix("https://")

    async def run() -> Any:
        async with triton_aio.InferenceServerClient(address, ssl=True, ssl_context=gateway.trust()) as client:
            return await use(client)

    coroutine: Coroutine[Any, Any, Any] = run()
    return asyncio.run(coroutine)


def test_the_aio_client_reads_health_and_metadata(gateway: GatewayProcess, headers: Headers) -> None:
    async def use(client: Any) -> None:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("digits", headers=headers)
        assert not await client.is_model_ready("digits", "purple", headers=headers)
        assert "statistics" in (await client.get_server_metadata())["extensions"]
        assert (await client.get_model_metadata("digits", headers=headers))["name"] == "digits"
        assert (await client.get_model_config("digits", headers=headers))["max_batch_size"] > 0
        assert len(await client.get_model_repository_index(headers=headers)) == 2
        statistics = await client.get_inference_statistics("digits", headers=headers)
        assert len(statistics["model_stats"]) == 2

    _with_aio(gateway, use)


@pytest.mark.parametrize("binary", [True, False])
def test_the_aio_client_infers_many_at_once(
    gateway: GatewayProcess, headers: Headers, digits: Digits, truth: dict[str, Truth], binary: bool
) -> None:
    async def use(client: Any) -> list[Any]:
        return await asyncio.gather(
            *(
                client.infer(
                    "digits",
                    [_input(triton_aio, digits.pixels[row : row + 1], binary=binary)],
                    model_version="green",
                    outputs=_outputs(triton_aio, ["label"], binary=binary),
                    headers=headers,
                )
                for row in range(50)
            )
        )

    labels = [result.as_numpy("label")[0] for result in _with_aio(gateway, use)]
    assert labels == truth["green"].labels[:50].tolist()


def test_the_aio_client_is_told_what_is_wrong(gateway: GatewayProcess, headers: Headers, digits: Digits) -> None:
    async def use(client: Any) -> None:
        with pytest.raises(InferenceServerException, match="purple"):
            inputs = [_input(triton_aio, digits.pixels[:1], binary=True)]
            await client.infer("digits", inputs, model_version="purple", headers=headers)
        with pytest.raises(InferenceServerException, match="no valid credential"):
            await client.get_model_metadata("digits")

    _with_aio(gateway, use)
