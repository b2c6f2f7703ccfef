"""Every route of the scoring listener that does not score, asked through the real application with real models.

What is served, and who may see it, is in tests/support/served.py. A refusal's `error` is text on V2 routes and an
object elsewhere; every refusal has a request id, in the body and in the head.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from gateway.channel import ChannelClosed, RemoteFailed
from gateway.dataplane.documents import QUESTION_BYTES_MAX
from gateway.snapshot import AuthSpec, SnapshotSpec
from gateway.telemetry.record import ScorerRecord
from tests.support.served import (
    COLOURS,
    DARK,
    DARK_KEY,
    DOMAIN,
    EMPTY,
    KEY,
    OTHER_KEY,
    TOKENS,
    VERSION,
    WORDS,
    Served,
    endpoint,
    snapshot,
    token,
)
from tests.support.tokens import LateKeys

MODEL = "/v2/models/Colours"
HOSTED = f"https://colours.{DOMAIN}"
# What a document about a model is asked under; "" is its metadata.
KINDS = ("", "/config", "/ready", "/stats")
AZURE = ("/endpoints/{}", "/endpoints/{}/", "/endpoints/{}/swagger.json")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    found = Served()
    found.publish(snapshot(tmp_path_factory.mktemp("models")))
    yield found
    found.close()


@pytest.fixture
def fresh() -> Iterator[Served]:
    """Nothing is served yet."""
    found = Served()
    yield found
    found.close()


def json_of(response: httpx.Response, status: int = 200) -> Any:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.content)
    return orjson.loads(response.content)


def refusal(response: httpx.Response, status: int, code: str) -> str:
    """The message of a refusal in the shape of its route."""
    document = json_of(response, status)
    if (response.request.url.path + "/").startswith("/v2/"):
        assert set(document) == {"error", "code", "request_id"}
        message, found, request_id = document["error"], document["code"], document["request_id"]
    else:
        assert set(document) == {"error"}
        error = document["error"]
        assert set(error) == {"code", "message", "details", "request_id"}
        message, found, request_id = error["message"], error["code"], error["request_id"]
    assert found == code
    assert response.headers["x-request-id"] == request_id
    assert isinstance(message, str)
    assert message
    return message


def names(entries: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(entry["name"], entry["version"]) for entry in entries]


def bare(served: Served, method: str, path: str, message: dict[str, Any], query: bytes = b"") -> bytes:
    """The body of a 200 to what no well-behaved client sends: the application is asked without one."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return message

    async def send(event: Any) -> None:
        sent.append(event)

    headers = [(b"authorization", f"Bearer {KEY}".encode())]
    scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": headers}
    asyncio.run(served.app(scope, receive, send))
    assert sent[0]["status"] == 200
    body: bytes = sent[1]["body"]
    return body


# The server.


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_server_names_itself_and_its_extensions_to_anybody(served: Served, path: str) -> None:
    document = json_of(served.get(path))
    assert (document["name"], document["version"]) == ("inference-gateway", VERSION)
    assert {"binary_tensor_data", "model_configuration", "statistics"} <= set(document["extensions"])


def test_health_is_live_at_once_and_ready_from_the_first_publish(fresh: Served) -> None:
    assert json_of(fresh.get("/v2/health/live")) == {"live": True}
    not_yet = fresh.get("/v2/health/ready")
    assert "nothing is served yet" in refusal(not_yet, 503, "unavailable")
    assert not_yet.headers["retry-after"] == "1"
    fresh.publish(SnapshotSpec(revision=1))
    assert json_of(fresh.get("/v2/health/live")) == {"live": True}
    assert json_of(fresh.get("/v2/health/ready")) == {"ready": True}


def test_a_gateway_that_serves_nothing_has_empty_documents(fresh: Served) -> None:
    assert json_of(fresh.get("/v2/models")) == []
    assert json_of(fresh.ask("POST", "/v2/repository/index")) == []
    assert json_of(fresh.get("/v2/models/stats")) == {"model_stats": []}
    assert refusal(fresh.get(MODEL), 404, "not_found") == "there is no model 'Colours': a model is an endpoint"


# The index.


INDEXES = (("GET", "/v2/models"), ("POST", "/v2/repository/index"), ("POST", "/v2/repository/main/index"))


@pytest.mark.parametrize(("method", "path"), INDEXES)
def test_an_index_shows_what_the_credentials_open_and_says_why_a_version_is_not_ready(
    served: Served, method: str, path: str
) -> None:
    blue, green, red = json_of(served.ask(method, path, KEY))
    assert blue == {"name": COLOURS, "version": "blue", "state": "READY", "reason": ""}
    assert green == {"name": COLOURS, "version": "green", "state": "READY", "reason": ""}
    assert (red["name"], red["version"], red["state"]) == (COLOURS, "Red", "UNAVAILABLE")
    assert "broken.onnx" in red["reason"]
    assert names(json_of(served.ask(method, path, OTHER_KEY))) == [(WORDS, "main")]
    assert names(json_of(served.ask(method, path, token(TOKENS, time.time())))) == [(TOKENS, "only")]
    assert names(json_of(served.ask(method, path, DARK_KEY))) == [(DARK, "Red")]


@pytest.mark.parametrize("key", ["", "wrong"])
@pytest.mark.parametrize(("method", "path"), [*INDEXES, ("GET", "/v2/models/stats")])
def test_an_index_opens_to_no_unknown_caller(served: Served, method: str, path: str, key: str) -> None:
    gathered = served.gathered
    refused = served.ask(method, path, key)
    refusal(refused, 401, "unauthenticated")
    assert refused.headers["www-authenticate"] == "Bearer"
    # Who may not see the statistics makes nobody gather them.
    assert served.gathered == gathered


@pytest.mark.parametrize(
    ("body", "versions"),
    [
        (b"", ["blue", "green", "Red"]),
        (b"{}", ["blue", "green", "Red"]),
        (b'{"ready": false}', ["blue", "green", "Red"]),
        (b'{"ready": true}', ["blue", "green"]),
    ],
)
def test_an_index_may_be_of_what_is_ready_only(served: Served, body: bytes, versions: list[str]) -> None:
    entries = json_of(served.ask("POST", "/v2/repository/index", KEY, content=body))
    assert [entry["version"] for entry in entries] == versions


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b'{"ready": 1}', b'{"ready": "true"}', b"\xff"])
def test_an_index_refuses_a_question_it_does_not_understand(served: Served, body: bytes) -> None:
    message = refusal(served.ask("POST", "/v2/repository/index", KEY, content=body), 400, "invalid_input")
    assert "the body is not" in message


def test_an_index_does_not_read_a_long_question(served: Served) -> None:
    body = b" " * (QUESTION_BYTES_MAX + 1)
    message = refusal(served.ask("POST", "/v2/repository/index", KEY, content=body), 413, "payload_too_large")
    assert str(QUESTION_BYTES_MAX) in message


def test_an_index_whose_caller_hangs_up_half_way_is_no_error(served: Served) -> None:
    body = bare(served, "POST", "/v2/repository/index", {"type": "http.disconnect"})
    assert len(orjson.loads(body)) == 3


# One model.


def test_metadata_has_shapes_with_the_rows(served: Served) -> None:
    expected = {
        "name": COLOURS,
        "versions": ["blue", "green"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
    }
    # The endpoint is as its heaviest deployment is, whatever turn the traffic takes.
    for _ in range(20):
        assert json_of(served.get(MODEL, KEY)) == expected
    assert json_of(served.get(f"{MODEL}/versions/blue", KEY)) == expected
    green = json_of(served.get(f"{MODEL}/versions/green", KEY))
    assert [tensor["shape"] for tensor in green["inputs"]] == [[-1, 4], [2, -1, 4]]
    words = json_of(served.get("/v2/models/words", OTHER_KEY))
    assert words["inputs"] == [{"name": "class", "datatype": "INT64", "shape": [-1]}]
    assert words["outputs"] == [{"name": "label", "datatype": "BYTES", "shape": [-1]}]


def test_the_header_chooses_a_deployment_for_documents_as_for_scoring(served: Served) -> None:
    chosen = served.get(MODEL, KEY, headers={"azureml-model-deployment": "green"})
    assert len(json_of(chosen)["inputs"]) == 2


def test_a_config_has_the_keys_that_perf_analyzer_reads_without_asking(served: Served) -> None:
    config = json_of(served.get(f"{MODEL}/versions/blue/config", KEY))
    assert config == json_of(served.get(f"{MODEL}/config", KEY))
    assert config["max_batch_size"] == 32
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 2000
    assert config["model_transaction_policy"] == {"decoupled": False}
    assert [(tensor["name"], tensor["data_type"], tensor["dims"]) for tensor in config["input"]] == [
        ("x", "TYPE_FP32", [4])
    ]
    assert (config["input"][0]["optional"], config["input"][0]["is_shape_tensor"]) == (False, False)
    assert [(tensor["name"], tensor["dims"]) for tensor in config["output"]] == [("y", [3])]
    assert not {"sequence_batching", "ensemble_scheduling"} & set(config)


def test_a_model_without_rows_first_has_no_batch_size(served: Served) -> None:
    # Green batches, but along the second axis of its state, which V2's configuration cannot say.
    green = json_of(served.get(f"{MODEL}/versions/green/config", KEY))
    assert green["max_batch_size"] == 0
    assert "dynamic_batching" in green
    only = json_of(served.get("/v2/models/tokens/config", token(TOKENS, time.time())))
    assert only["max_batch_size"] == 0
    assert "dynamic_batching" not in only
    assert only["input"][0]["dims"] == [3]


@pytest.mark.parametrize("path", [f"{MODEL}/ready", f"{MODEL}/versions/green/ready"])
def test_a_model_that_is_loaded_is_ready(served: Served, path: str) -> None:
    assert json_of(served.get(path, KEY)) == {"name": COLOURS, "ready": True}


@pytest.mark.parametrize("path", ["/v2/models/COLOURS/versions/BLUE{}", "/v2/models/%43olours/versions/bl%75e{}"])
@pytest.mark.parametrize("kind", KINDS)
def test_names_may_be_quoted_and_in_any_case(served: Served, path: str, kind: str) -> None:
    given = json_of(served.get(path.format(kind), KEY))
    assert given == json_of(served.get(f"{MODEL}/versions/blue{kind}", KEY))


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_model_or_version_is_not_found(served: Served, kind: str) -> None:
    for path in (f"/v2/models/nobody{kind}", f"/v2/models/nobody/versions/1{kind}"):
        message = refusal(served.get(path, KEY), 404, "not_found")
        assert message == "there is no model 'nobody': a model is an endpoint"
    message = refusal(served.get(f"{MODEL}/versions/9{kind}", KEY), 404, "not_found")
    assert "no deployment '9'" in message
    assert "blue, green" in message


@pytest.mark.parametrize("kind", KINDS)
def test_a_version_that_failed_to_load_answers_with_its_reason(served: Served, kind: str) -> None:
    for path, key in ((f"{MODEL}/versions/red{kind}", KEY), (f"/v2/models/dark/versions/Red{kind}", DARK_KEY)):
        refused = served.get(path, key)
        message = refusal(refused, 503, "unavailable")
        assert "failed to load" in message
        assert "broken.onnx" in message
        assert refused.headers["retry-after"] == "10"


@pytest.mark.parametrize("path", ["/v2/models/dark", "/v2/models/dark/config", "/v2/models/dark/ready"])
def test_a_model_of_which_no_version_is_loaded_is_unavailable(served: Served, path: str) -> None:
    assert "broken.onnx" in refusal(served.get(path, DARK_KEY), 503, "unavailable")


@pytest.mark.parametrize("path", ["/v2/models/empty", "/v2/models/empty/ready", "/endpoints/empty/"])
def test_an_endpoint_without_deployments_says_what_it_lacks(served: Served, path: str) -> None:
    assert "no deployment with traffic" in refusal(served.get(path, DARK_KEY), 404, "not_found")
    assert json_of(served.get("/v2/models/empty/stats", DARK_KEY)) == {"model_stats": []}
    nothing = refusal(served.ask("POST", "/v2/models/empty/versions/1/infer", DARK_KEY), 404, "not_found")
    assert nothing == f"model {EMPTY!r} has no version '1'; it has: none"


# Who may see what.


@pytest.mark.parametrize(
    "path", [f"{MODEL}{kind}" for kind in KINDS] + [f"{MODEL}/versions/blue", f"{MODEL}/nothing"]
)
@pytest.mark.parametrize("key", ["", "wrong", OTHER_KEY])
def test_a_wrong_key_is_refused_in_the_shape_of_v2(served: Served, path: str, key: str) -> None:
    gathered = served.gathered
    refused = served.get(path, key)
    assert "no valid credential" in refusal(refused, 401, "unauthenticated")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert served.gathered == gathered


@pytest.mark.parametrize("path", [*AZURE, "/endpoints/{}/nothing"])
@pytest.mark.parametrize("key", ["", "wrong", OTHER_KEY])
def test_a_wrong_key_is_refused_in_the_shape_of_azure(served: Served, path: str, key: str) -> None:
    refused = served.get(path.format("colours"), key)
    assert "no valid credential" in refusal(refused, 401, "unauthenticated")
    assert refused.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", [*AZURE, "/v2/models/{}", "/v2/models/{}/stats"])
def test_a_token_opens_the_documents_of_its_endpoint_only(served: Served, path: str) -> None:
    assert served.get(path.format("tokens"), token(TOKENS, time.time())).status_code == 200
    refusal(served.get(path.format("tokens"), token(COLOURS, time.time())), 403, "forbidden")
    refusal(served.get(path.format("tokens"), token(TOKENS, time.time() - 7200)), 401, "unauthenticated")
    refusal(served.get(path.format("tokens"), KEY), 401, "unauthenticated")


def test_what_versions_there_are_is_not_told_to_strangers(served: Served) -> None:
    """Else 404 against 401 would tell one from the other."""
    for version in ("blue", "red", "unheard-of"):
        refusal(served.ask("POST", f"{MODEL}/versions/{version}/infer", "wrong"), 401, "unauthenticated")
    message = refusal(served.ask("POST", f"{MODEL}/versions/unheard-of/infer", KEY), 404, "not_found")
    assert message == "model 'Colours' has no version 'unheard-of'; it has: blue, green"


def test_a_token_whose_keys_are_not_known_yet_waits_for_them_once(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = LateKeys()
    monkeypatch.setattr(served.cell.current.endpoints["words"], "authenticator", late.authenticator("words"))
    assert served.get("/v2/models/words/ready", "any").status_code == 200
    assert late.asked == ["verify", "refresh", "verify"]


# Statistics.


DURATIONS = {
    "success",
    "fail",
    "queue",
    "compute_input",
    "compute_infer",
    "compute_output",
    "cache_hit",
    "cache_miss",
}


def one_model(response: httpx.Response) -> dict[str, Any]:
    (found,) = json_of(response)["model_stats"]
    assert isinstance(found, dict)
    return found


def test_statistics_are_what_was_scored(tmp_path: Path, fresh: Served) -> None:
    fresh.publish(snapshot(tmp_path))
    before = one_model(fresh.get(f"{MODEL}/versions/blue/stats", KEY))
    assert (before["inference_count"], before["execution_count"], before["last_inference"]) == (0, 0, 0)
    for rows in (1, 5, 5):
        assert fresh.score(rows, **{"azureml-model-deployment": "blue"}).status_code == 200
    bad = fresh.ask(
        *("POST", f"{MODEL}/versions/blue/infer", KEY),
        json={"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]},
    )
    refusal(bad, 400, "invalid_input")
    blue = one_model(fresh.get(f"{MODEL}/versions/blue/stats", KEY))
    assert (blue["name"], blue["version"]) == (COLOURS, "blue")
    assert (blue["inference_count"], blue["execution_count"]) == (11, 3)
    assert abs(blue["last_inference"] / 1000 - time.time()) < 60
    stats = blue["inference_stats"]
    assert set(stats) == DURATIONS
    assert all(set(found) == {"count", "ns"} and min(found.values()) >= 0 for found in stats.values())
    assert (stats["success"]["count"], stats["fail"]["count"]) == (3, 1)
    assert stats["success"]["ns"] > 0
    assert stats["compute_infer"]["count"] == 3
    assert (stats["cache_hit"], stats["cache_miss"]) == ({"count": 0, "ns": 0}, {"count": 0, "ns": 0})
    sizes = [(batch["batch_size"], batch["compute_infer"]["count"]) for batch in blue["batch_stats"]]
    assert sizes == [(1, 1), (5, 2)]
    green = one_model(fresh.get(f"{MODEL}/versions/green/stats", KEY))
    assert (green["inference_count"], green["execution_count"]) == (0, 0)


def test_statistics_of_a_model_are_of_its_versions_and_of_the_server_of_all_that_opens(served: Served) -> None:
    found = [json_of(served.get(path, KEY))["model_stats"] for path in (f"{MODEL}/stats", "/v2/models/stats")]
    assert [names(models) for models in found] == [[(COLOURS, "blue"), (COLOURS, "green")]] * 2
    assert names(json_of(served.get("/v2/models/stats", OTHER_KEY))["model_stats"]) == [(WORDS, "main")]


def test_statistics_take_no_turn_of_the_traffic(tmp_path: Path, fresh: Served) -> None:
    fresh.publish(snapshot(tmp_path))
    turns = repr(fresh.cell.current.endpoints["colours"].turns)
    assert turns == "count(0)"
    for path in (MODEL, f"{MODEL}/stats", f"{MODEL}/versions/green/stats", "/endpoints/colours/", "/v2/models/stats"):
        assert fresh.get(path, KEY).status_code == 200
    assert repr(fresh.cell.current.endpoints["colours"].turns) == turns


def test_a_deployment_that_no_report_names_yet_has_the_counters_of_this_scorer(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "record", ScorerRecord())
    monkeypatch.setattr(served.preparer, "measure", lambda: None)
    assert one_model(served.get("/v2/models/words/stats", OTHER_KEY))["version"] == "main"


@pytest.mark.parametrize("path", ["/v2/models/stats", f"{MODEL}/stats", f"{MODEL}/versions/blue/stats"])
@pytest.mark.parametrize("failure", [TimeoutError(), ChannelClosed("gone"), RemoteFailed("no")])
def test_statistics_that_cannot_be_gathered_are_unavailable(
    served: Served, path: str, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "gather_fails", failure)
    refused = served.get(path, KEY)
    assert "could not be gathered" in refusal(refused, 503, "unavailable")
    assert refused.headers["retry-after"] == "1"


def test_a_bug_of_ours_is_a_500_with_an_id_that_the_log_has(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(served, "gather_fails", ZeroDivisionError("a secret"))
    with caplog.at_level(logging.ERROR):
        broken = served.get(f"{MODEL}/stats", KEY)
    assert "secret" not in refusal(broken, 500, "internal")
    assert broken.headers["x-request-id"] in caplog.text


# Azure's routes.


@pytest.mark.parametrize("path", ["/endpoints/colours", "/endpoints/Colours/", "/endpoints/COLOURS/"])
def test_an_endpoint_says_healthy_and_which_deployment_says_so(served: Served, path: str) -> None:
    healthy = served.get(path, KEY)
    assert (healthy.status_code, healthy.text) == (200, "Healthy")
    assert healthy.headers["azureml-model-deployment"] == "blue"
    green = served.get(path, KEY, headers={"azureml-model-deployment": "green"})
    assert (green.text, green.headers["azureml-model-deployment"]) == ("Healthy", "green")


@pytest.mark.parametrize("path", AZURE)
def test_the_routes_of_an_endpoint_refuse_as_scoring_does(served: Served, path: str) -> None:
    red = {"azureml-model-deployment": "red"}
    assert "broken.onnx" in refusal(served.get(path.format("colours"), KEY, headers=red), 503, "unavailable")
    assert "broken.onnx" in refusal(served.get(path.format("dark"), DARK_KEY), 503, "unavailable")
    unknown = served.get(path.format("colours"), KEY, headers={"azureml-model-deployment": "pink"})
    assert "no deployment 'pink'" in refusal(unknown, 404, "not_found")
    assert refusal(served.get(path.format("nobody"), KEY), 404, "not_found") == "there is no endpoint 'nobody'"


@pytest.mark.parametrize(
    ("query", "key", "version"),
    [
        ("", "swagger", "2.0"),
        ("?version=2", "swagger", "2.0"),
        ("?version=3", "openapi", "3.0.3"),
        ("?version=3.1", "openapi", "3.1.0"),
    ],
)
def test_swagger_comes_in_three_versions(served: Served, query: str, key: str, version: str) -> None:
    found = served.get(f"/endpoints/colours/swagger.json{query}", KEY)
    document = json_of(found)
    assert document[key] == version
    assert list(document["paths"]) == ["/score"]
    assert document["info"]["title"] == COLOURS
    assert found.headers["azureml-model-deployment"] == "blue"


def test_swagger_says_where_to_score_and_with_what(served: Served) -> None:
    path = "/endpoints/colours/swagger.json"
    two = json_of(served.get(path, KEY))
    assert (two["host"], two["basePath"], two["schemes"]) == ("gateway.example", "/endpoints/colours", ["https"])
    three = json_of(served.get(f"{path}?version=3", KEY))
    assert three["servers"] == [{"url": "https://gateway.example/endpoints/colours"}]
    example = two["definitions"]["ServiceInput"]["example"]
    assert served.ask("POST", "/endpoints/colours/score", KEY, json=example).status_code == 200
    green = json_of(served.get(path, KEY, headers={"azureml-model-deployment": "green"}))
    assert set(green["definitions"]["ServiceInput"]["properties"]["input_data"]["properties"]) == {"x", "state"}


@pytest.mark.parametrize("version", ["1", "3.0", "", "2'"])
def test_an_unknown_swagger_version_is_not_found(served: Served, version: str) -> None:
    refused = served.get("/endpoints/colours/swagger.json", KEY, params={"version": version})
    assert "there are 2, 3, 3.1" in refusal(refused, 404, "not_found")


@pytest.mark.parametrize("host", ["[", "a b", "a:99999", 'a"b', "\xff"])
def test_an_odd_host_breaks_no_document(served: Served, host: str) -> None:
    for path in ("/endpoints/colours/swagger.json", "/v2/models/colours", "/endpoints/colours/"):
        assert served.get(path, KEY, headers={"host": host.encode("latin-1")}).status_code == 200
    refusal(served.get("/v2/nothing", KEY, headers={"host": host.encode("latin-1")}), 404, "not_found")


def test_a_query_of_odd_bytes_breaks_no_document(served: Served) -> None:
    asked = {"type": "http.request", "body": b""}
    body = bare(served, "GET", "/endpoints/colours/swagger.json", asked, query=b"a=\xff")
    assert orjson.loads(body)["basePath"] == "/endpoints/colours"


def test_the_host_name_may_name_the_endpoint(served: Served) -> None:
    healthy = served.get(f"{HOSTED}/", KEY)
    assert (healthy.status_code, healthy.text) == (200, "Healthy")
    document = json_of(served.get(f"{HOSTED}:8443/swagger.json?version=3.1", KEY))
    (server,) = document["servers"]
    scored = served.ask("POST", f"{server['url']}/score", KEY, json={"input_data": [[1.0, 2.0, 3.0, 4.0]]})
    assert scored.status_code == 200
    scored = served.ask("POST", f"{HOSTED}/score", KEY, json={"input_data": [[1.0, 2.0, 3.0, 4.0]]})
    assert scored.status_code == 200
    assert json_of(served.get(f"{HOSTED}/v2/models/colours/ready", KEY))["ready"]
    nobody = served.get(f"https://nobody.{DOMAIN}/swagger.json", KEY)
    assert refusal(nobody, 404, "not_found") == "there is no endpoint 'nobody'"


# What is not there.


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/models/Colours/load"),
        ("POST", "/v2/repository/models/Colours/unload"),
        ("POST", "/v2/repository/main/models/Colours/load"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/a/register"),
        ("POST", "/v2/systemsharedmemory/unregister"),
        ("GET", "/v2/cudasharedmemory/region/a/status"),
        ("GET", "/v2/trace/setting"),
        ("POST", f"{MODEL}/trace/setting"),
        ("GET", "/v2/logging"),
        ("POST", "/v2/logging"),
        ("POST", f"{MODEL}/generate"),
        ("POST", f"{MODEL}/versions/blue/generate_stream"),
    ],
)
def test_extensions_that_are_not_offered_say_so(served: Served, method: str, path: str) -> None:
    message = refusal(served.ask(method, path), 501, "not_implemented")
    assert "not offered" in message or "not by clients" in message


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/", "/endpoints/{endpoint}/score"),
        ("/score", "/v2/models/{endpoint}/infer"),
        ("/v3", "scoring is POST"),
        ("/v2x", "scoring is POST"),
        ("/v2/logginess", "scoring is POST"),
        ("/v2/health", "scoring is POST"),
        ("/endpoints", "scoring is POST"),
        ("/endpoints/", "scoring is POST"),
        ("/endpoints/nobody/score", "there is no endpoint 'nobody'"),
        ("/v2/models/nobody/infer", "there is no model 'nobody': a model is an endpoint"),
        ("/v2/models/", "scoring is POST"),
        (f"{MODEL}/", "scoring is POST /v2/models/Colours/infer"),
        (f"{MODEL}/infers", "scoring is POST /v2/models/Colours/infer"),
        (f"{MODEL}/versions/blue/nothing", "scoring is POST /v2/models/Colours/infer"),
        (f"{MODEL}/versions/9/infer", "model 'Colours' has no version '9'; it has: blue, green"),
        ("/endpoints/colours/scores", "scoring is POST /endpoints/Colours/score"),
        ("/endpoints/colours/swagger.json/", "scoring is POST /endpoints/Colours/score"),
    ],
)
def test_an_unknown_path_is_not_found_and_told_where_to_go(served: Served, path: str, said: str) -> None:
    assert said in refusal(served.get(path, KEY), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v2", {"GET", "HEAD"}),
        ("POST", "/v2/health/ready", {"GET", "HEAD"}),
        ("POST", "/v2/models", {"GET", "HEAD"}),
        ("DELETE", MODEL, {"GET", "HEAD"}),
        ("PUT", f"{MODEL}/config", {"GET", "HEAD"}),
        ("POST", f"{MODEL}/versions/blue/stats", {"GET", "HEAD"}),
        ("GET", "/v2/repository/index", {"POST"}),
        ("PUT", "/v2/repository/main/index", {"POST"}),
        ("POST", "/endpoints/colours/", {"GET", "HEAD"}),
        ("OPTIONS", "/endpoints/colours/swagger.json", {"GET", "HEAD"}),
        ("GET", f"{MODEL}/infer", {"POST"}),
        ("GET", "/endpoints/colours/score", {"POST"}),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(served: Served, method: str, path: str, allowed: set[str]) -> None:
    refused = served.ask(method, path, KEY)
    assert set(refused.headers["allow"].split(", ")) == allowed
    assert method in refusal(refused, 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["/v2", "/v2/health/live", "/v2/models", MODEL, f"{MODEL}/stats", *AZURE])
def test_head_has_the_head_of_get(served: Served, path: str) -> None:
    path = path.format("colours")
    asked, given = served.ask("HEAD", path, KEY), served.get(path, KEY)
    assert asked.status_code == 200
    assert asked.headers == given.headers
    assert int(asked.headers["content-length"]) == len(given.content)
    assert served.ask("HEAD", "/v2/repository/index", KEY).status_code == 405


# What is counted.


def test_paths_of_no_endpoint_and_of_one_are_counted_where_they_belong(tmp_path: Path, fresh: Served) -> None:
    fresh.publish(snapshot(tmp_path))
    for path in ("/nothing", "/v2/models/nobody", "/endpoints/nobody/score"):
        fresh.get(path, KEY)
    fresh.ask("POST", f"{MODEL}/versions/9/infer", KEY)
    fresh.ask("POST", f"{MODEL}/versions/9/infer", "wrong")
    totals = fresh.record.snapshot()
    assert totals.unknown == {404: 3}
    colours = totals.endpoints["colours"]
    assert colours.codes == {404: 1, 401: 1}
    assert (colours.rejected["not_found"], colours.rejected["auth"]) == (1, 1)


def test_documents_follow_a_change_of_what_is_served(tmp_path: Path, fresh: Served) -> None:
    first = snapshot(tmp_path)
    fresh.publish(first)
    assert json_of(fresh.get("/v2/models/words/ready", OTHER_KEY))["ready"]
    blue = first.endpoints["colours"].deployments["blue"]
    moved = endpoint(WORDS, AuthSpec(mode="key", key_digests=first.endpoints["words"].auth.key_digests), {}, blue)
    fresh.publish(SnapshotSpec(revision=2, endpoints={"words": moved}))
    refusal(fresh.get(MODEL, KEY), 404, "not_found")
    # A deployment without traffic has documents: it is scored by name.
    assert names(json_of(fresh.get("/v2/models", OTHER_KEY))) == [(WORDS, "blue")]
    assert json_of(fresh.get("/v2/models/words", OTHER_KEY))["versions"] == ["blue"]
