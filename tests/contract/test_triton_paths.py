"""V2 below an endpoint's address, by every door: models by their repository's names, the deployment by its header."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import httpx
import pytest

from gateway.dataplane.live import LiveSnapshot
from gateway.dataplane.paths import scoring_paths
from tests.support.door import WAYS, Part, open_door

V2_ROWS = {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
BASES = ("/endpoints/digits/v2", "/endpoints/digits/score/v2")
PARTS = {
    "blue": Part(repository=("DenseNet", "3")),
    "green": Part(repository=("DenseNet", "7")),
    "plain": Part(),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def served(way: str) -> Any:
    return open_door(way, parts=PARTS)


def names(answer: httpx.Response) -> tuple[str, str, str]:
    """Model, version and deployment of an answer."""
    assert answer.status_code == 200, answer.text
    said = answer.json()
    return said["model_name"], said["model_version"], answer.headers["azureml-model-deployment"]


@pytest.mark.parametrize("base", BASES)
def test_a_model_has_the_names_of_its_repository(base: str, way: str) -> None:
    async def main() -> None:
        async with served(way) as (_, client):
            for path in ("/models/DenseNet/infer", "/models/densenet/infer", "/models/DenseNet/versions/3/infer"):
                assert names(await client.post(base + path, json=V2_ROWS)) == ("DenseNet", "3", "blue")
            found = await client.post(f"{base}/models/DenseNet/versions/7/infer", json=V2_ROWS)
            assert names(found) == ("DenseNet", "7", "green")
            found = await client.post(f"{base}/models/DenseNet/versions/green/infer", json=V2_ROWS)
            assert names(found) == ("DenseNet", "7", "green")
            named = {"azureml-model-deployment": "green"}
            found = await client.post(f"{base}/models/DenseNet/infer", json=V2_ROWS, headers=named)
            assert names(found) == ("DenseNet", "7", "green")

    run(main())


def test_the_endpoints_own_name_is_a_model_too(way: str) -> None:
    async def main() -> None:
        async with served(way) as (_, client):
            found = await client.post(f"{BASES[0]}/models/Digits/infer", json=V2_ROWS)
            assert names(found) == ("Digits", "blue", "blue")
            found = await client.post(f"{BASES[0]}/models/digits/versions/plain/infer", json=V2_ROWS)
            assert names(found) == ("Digits", "plain", "plain")
            # At the root nothing has changed.
            assert names(await client.post("/v2/models/digits/infer", json=V2_ROWS)) == ("Digits", "blue", "blue")

    run(main())


def test_a_deployment_that_serves_another_model_says_which(way: str) -> None:
    async def main() -> None:
        async with served(way) as (_, client):
            named = {"azureml-model-deployment": "plain"}
            answer = await client.post(f"{BASES[0]}/models/DenseNet/infer", json=V2_ROWS, headers=named)
            assert answer.status_code == 404
            assert answer.json()["error"] == (
                "deployment 'plain' of endpoint 'Digits' serves model 'Digits', not 'DenseNet'; the header "
                "azureml-model-deployment names another deployment"
            )

    run(main())


def test_what_is_not_there_is_said_with_what_is(way: str) -> None:
    async def main() -> None:
        async with served(way) as (_, client):
            for path, said in (
                ("/models/other/infer", "endpoint 'Digits' has no model 'other'; it has: DenseNet, Digits"),
                ("/models/DenseNet/versions/9/infer", "model 'DenseNet' has no version '9'; it has: 3, 7, plain"),
                ("/models/DenseNet/generate", "the generate extension is not offered; send V2 tensors to /infer"),
            ):
                answer = await client.post(f"{BASES[0]}{path}", json=V2_ROWS)
                assert answer.status_code in (404, 501)
                assert answer.json()["error"] == said

    run(main())


@pytest.mark.parametrize("base", BASES)
def test_documents_speak_of_the_repositorys_models(base: str, way: str) -> None:
    async def main() -> None:
        async with served(way) as (_, client):
            assert (await client.get(base)).json()["name"] == "inference-gateway"
            assert (await client.get(f"{base}/health/live")).json() == {"live": True}
            assert (await client.get(f"{base}/health/ready")).json() == {"ready": True}
            metadata = (await client.get(f"{base}/models/DenseNet")).json()
            assert (metadata["name"], metadata["versions"]) == ("DenseNet", ["3", "7"])
            assert (await client.get(f"{base}/models/DenseNet/versions/7/ready")).json()["name"] == "DenseNet"
            config = (await client.get(f"{base}/models/DenseNet/versions/7/config")).json()
            assert (config["name"], config["version_policy"]) == ("DenseNet", {"specific": {"versions": [7]}})
            await client.post(f"{base}/models/DenseNet/infer", json=V2_ROWS)
            stats = (await client.get(f"{base}/models/DenseNet/stats")).json()["model_stats"]
            assert [(one["name"], one["version"], one["inference_count"]) for one in stats] == [
                ("DenseNet", "3", 2),
                ("DenseNet", "7", 0),
            ]
            every = (await client.get(f"{base}/models/stats")).json()["model_stats"]
            assert [one["version"] for one in every] == ["blue", "green", "plain"]
            for body, count in ((None, 3), ({"ready": True}, 3)):
                index = (await client.post(f"{base}/repository/index", json=body)).json()
                assert [(one["name"], one["version"]) for one in index] == [
                    ("DenseNet", "3"),
                    ("DenseNet", "7"),
                    ("Digits", "plain"),
                ][:count]

    run(main())


def test_a_host_name_is_a_server_of_its_own(way: str) -> None:
    async def main() -> None:
        async with served(way) as (_, client):
            host = {"host": "digits.models.example"}
            found = await client.post("/v2/models/DenseNet/infer", json=V2_ROWS, headers=host)
            assert names(found) == ("DenseNet", "3", "blue")
            assert (await client.get("/v2/models/DenseNet", headers=host)).json()["name"] == "DenseNet"
            found = await client.post("/v2/models/digits/infer", json=V2_ROWS, headers=host)
            assert names(found) == ("Digits", "blue", "blue")
            assert (await client.get("/v2/models/stats", headers=host)).status_code == 200
            assert (await client.post("/v2/models/DenseNet/infer", json=V2_ROWS)).status_code == 404

    run(main())


def test_a_host_name_leads_to_the_endpoints_own_models_first(way: str) -> None:
    async def main() -> None:
        async with served(way) as (door, client):
            other = replace(door.endpoint, spec=replace(door.endpoint.spec, name="DenseNet"))
            targets = scoring_paths(door.endpoint) | scoring_paths(other)
            endpoints = {"digits": door.endpoint, "densenet": other}
            door.cell.publish(LiveSnapshot(revision=2, endpoints=endpoints, targets=targets))
            path = "/v2/models/DenseNet/infer"
            for host, said in (
                ("digits.models.example", ("DenseNet", "3", "blue")),
                ("else.models.example", ("DenseNet", "blue", "blue")),
                ("localhost", ("DenseNet", "blue", "blue")),
            ):
                for one in (path, path.lower()):
                    assert names(await client.post(one, json=V2_ROWS, headers={"host": host})) == said

    run(main())


TWO = {
    "blue": Part(repository=("aaa", "1")),
    "green": Part(repository=("bbb", "1")),
    "brown": Part(repository=("bbb", "2")),
}


@pytest.mark.parametrize("base", BASES)
def test_a_model_without_traffic_beside_one_with_it_is_answered_by_its_own_deployment(base: str, way: str) -> None:
    async def main() -> None:
        async with open_door(way, parts=TWO) as (_, client):
            for _ in range(4):
                found = await client.post(f"{base}/models/bbb/infer", json=V2_ROWS)
                assert names(found) == ("bbb", "1", "green")
            assert names(await client.post(f"{base}/models/aaa/infer", json=V2_ROWS)) == ("aaa", "1", "blue")
            for model in ("aaa", "bbb"):
                assert (await client.get(f"{base}/models/{model}/ready")).json() == {"name": model, "ready": True}
                assert (await client.get(f"{base}/models/{model}")).json()["name"] == model

    run(main())


def test_what_answers_gets_no_copy_of_its_own_request() -> None:
    async def main() -> None:
        async with open_door("asgi", parts=TWO, mirror={"green": 50}) as (door, _):
            blue, green = door.deployments["blue"], door.deployments["green"]
            assert door.endpoint.choose("", "bbb") == (green, None)
            assert door.endpoint.choose("", "aaa") == (blue, None)
            assert door.endpoint.choose("", "aaa") == (blue, green)

    run(main())


def test_traffic_weighs_among_the_deployments_of_a_model(way: str) -> None:
    async def main() -> None:
        traffic = {"blue": 50, "green": 40, "brown": 10}
        async with open_door(way, parts=TWO, traffic=traffic) as (door, client):
            for _ in range(10):
                for model in ("aaa", "bbb"):
                    answer = await client.post(f"{BASES[0]}/models/{model}/infer", json=V2_ROWS)
                    assert names(answer)[0] == model
            assert [door.codes(name) for name in TWO] == [{200: 10}, {200: 8}, {200: 2}]

    run(main())


def test_an_endpoint_without_traffic_has_none_for_its_models_either(way: str) -> None:
    async def main() -> None:
        parts = {"blue": TWO["blue"]}
        async with open_door(way, parts=parts, traffic={"blue": 0}) as (_, client):
            answer = await client.post(f"{BASES[0]}/models/aaa/infer", json=V2_ROWS)
            assert answer.status_code == 404
            assert "has no deployment with traffic" in answer.json()["error"]

    run(main())


def test_nothing_is_told_without_credentials(way: str) -> None:
    async def main() -> None:
        async with served(way) as (_, client):
            for path in ("", "/health/ready", "/models/DenseNet", "/models/none", "/models/stats"):
                answer = await client.get(f"{BASES[0]}{path}", headers={"authorization": ""})
                assert answer.status_code == 401
                assert isinstance(answer.json()["error"], str)

    run(main())
