"""What the bench sends and where: URLs, flags, and bodies that the gateway's own codecs take."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.client import bodies
from bench.client.errors import CannotMeasure
from bench.client.options import FLAGS, WIRES, Misused, Options, read
from bench.client.target import read_target

METADATA = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
}


# URLs.


@pytest.mark.parametrize(
    ("url", "wire", "path", "found"),
    [
        ("https://h/endpoints/digits/score", None, "/endpoints/digits/score", "azure"),
        ("https://h/endpoints/digits/score", "v2-binary", "/v2/models/digits/infer", "v2-binary"),
        ("https://h/v2/models/digits", None, "/v2/models/digits/infer", "v2-json"),
        ("https://h/v2/models/digits/infer", "azure", "/endpoints/digits/score", "azure"),
        ("https://h/v2/models/d/versions/blue", "v2-binary", "/v2/models/d/versions/blue/infer", "v2-binary"),
        ("https://h/score?a=b", None, "/score?a=b", "azure"),
    ],
)
def test_a_url_says_path_and_format(url: str, wire: str | None, path: str, found: str) -> None:
    target = read_target(url, wire)
    assert (target.path, target.wire, target.tls, target.port) == (path, found, True, 443)


def test_a_model_is_known_from_the_url_or_given() -> None:
    assert (
        read_target("http://h:8/endpoints/d/score", deployment="blue").metadata_path == "/v2/models/d/versions/blue"
    )
    assert read_target("http://h/v2/models/d").metadata_path == "/v2/models/d"
    target = read_target("http://h:8", model="d")
    assert (target.path, target.model, target.base) == ("/endpoints/d/score", "d", "http://h:8")
    assert read_target("http://h/score").model == ""


def test_an_address_is_written_as_a_host_header_wants_it() -> None:
    assert read_target("https://[::1]:8443/score").authority == "[::1]:8443"
    assert read_target("https://h:443/score").authority == "h"
    assert read_target("https://h/score?token=secret").url == "https://h/score"


@pytest.mark.parametrize("url", ["h/score", "ftp://h/score", "https:///score", "https://h:x/score", "https://h"])
def test_a_url_that_names_nothing_is_refused(url: str) -> None:
    with pytest.raises(CannotMeasure, match="accepted"):
        read_target(url)


def test_secrets_in_a_url_are_refused_and_not_repeated() -> None:
    for url in ("https://user:hunter2@h/score", "ftp://user:hunter2@h/score?hunter2"):
        with pytest.raises(CannotMeasure) as caught:
            read_target(url)
        assert "hunter2" not in str(caught.value)


# Flags.


def options(**given: object) -> Options:
    return read("http://h/score", given, {})


def problems(**given: object) -> str:
    with pytest.raises(Misused) as caught:
        options(**given)
    return "\n".join(caught.value.problems)


def test_defaults_are_a_closed_loop_and_an_open_one_has_more_connections() -> None:
    closed, opened = options(), options(rate="10,20")
    assert (closed.connections, closed.rates, closed.is_open) == ((64,), (), False)
    assert (opened.connections, opened.rates, opened.is_open) == ((256,), (10.0, 20.0), True)
    assert options(connections="1,4,16").connections == (1, 4, 16)
    assert options(replay="f").warm_up_s == 0.0 and options(replay="f").is_open


def test_the_key_comes_from_the_flag_or_the_environment_and_is_never_shown() -> None:
    assert read("http://h/score", {}, {"GATEWAY_KEY": "secret\n"}).key == "secret"
    assert read("http://h/score", {"key": "other"}, {"GATEWAY_KEY": "secret"}).key == "other"
    shown = repr(options(key="hunter2", header=["x-token: hunter3"]))
    assert "hunter" not in shown


def test_lists_headers_and_shapes_are_taken_apart() -> None:
    found = options(header=["X-Trace: 1", "a:b"], shape=["pixels=3,224,224", "mask="], data="d", content_type="t")
    assert found.headers == (("x-trace", "1"), ("a", "b"))
    assert found.shapes == {"pixels": (3, 224, 224), "mask": ()}
    assert (found.data, found.content_type) == (Path("d"), "t")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"connections": "x"}, "--connections: found 'x'; accepted: a whole number from 1"),
        ({"connections": "0"}, "a whole number from 1"),
        ({"rate": "10,nan"}, "--rate: found '10,nan'"),
        ({"duration": "inf"}, "--duration"),
        ({"arrivals": "burst", "rate": "1"}, "one of poisson, constant"),
        ({"format": "json"}, "one of azure, v2-json, v2-binary"),
        ({"shape": ["x=a"]}, "such as pixels=3,224,224"),
        ({"header": ["content-length: 3"]}, "any header but those that frame"),
        ({"find_rate": True}, "give it with --slo-p99-ms"),
        ({"find_rate": True, "slo_p99_ms": "5", "rate": "1,2"}, "starts from one --rate"),
        ({"connections": "1,2", "rate": "5"}, "one list at a time"),
        ({"replay": "f", "rate": "5"}, "has its own times"),
        ({"replay": "f", "connections": "1,2"}, "one number of --connections"),
        ({"speed": "2"}, "--speed is of --replay"),
        ({"arrivals": "constant"}, "--arrivals is of an open loop"),
        ({"insecure": True, "ca": "f"}, "give one of them"),
        ({"content_type": "t"}, "--content-type is of the bodies"),
    ],
)
def test_what_makes_no_sense_is_said(given: dict[str, Any], said: str) -> None:
    assert said in problems(**given)


def test_all_mistakes_are_told_at_once_and_no_headers_value() -> None:
    said = problems(rows="x", seed="-1", header=["transfer-encoding: hunter2"])
    assert len(said.splitlines()) == 3 and "hunter2" not in said


def test_every_flag_is_read() -> None:
    texts = {"arrivals": "constant", "format": "azure", "shape": ["x=1"], "header": ["a: b"], "slo_p99_ms": "5"}
    for flag in FLAGS:
        given: dict[str, object] = {flag.name: texts.get(flag.name, "1") if flag.symbol else True}
        also = {"speed": {"replay": "f"}, "arrivals": {"rate": "1"}, "content_type": {"data": "f"}}
        extra = {"slo_p99_ms": "5"} if flag.name == "find_rate" else also.get(flag.name, {})
        with_flag = read("http://h/score", given | extra, {})
        without = read("http://h/score", extra if flag.name != "find_rate" else {}, {})
        same = flag.name in ("warm_up", "rows", "speed", "max_error_ratio") or with_flag != without
        assert same, flag.name


# Bodies.


def split(request: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines), body


def test_a_request_is_whole_and_given_headers_win() -> None:
    body = bodies.Body(content=b"{}", headers=(("content-type", "application/json"),))
    first, headers, content = split(bodies.request_bytes("h:1", "/score", body, (("content-type", "text/x"),)))
    assert first == "POST /score HTTP/1.1"
    assert headers == {"host": "h:1", "content-type": "text/x", "content-length": "2"}
    assert content == b"{}"


@pytest.mark.parametrize("value", ["a\r\nx: 1", "é", "\x00"])
def test_a_header_that_would_break_the_request_is_refused_without_its_value(value: str) -> None:
    with pytest.raises(CannotMeasure, match="'x-token' of a request") as caught:
        bodies.request_bytes("h", "/", bodies.Body(content=b"", headers=(("x-token", value),)))
    assert value not in str(caught.value)


@pytest.mark.parametrize("wire", WIRES)
def test_generated_requests_differ_and_are_the_same_for_the_same_seed(wire: str) -> None:
    model = bodies.read_model(METADATA)
    made = [bodies.generate(model, wire, rows=2, variants=3, seed=seed, shapes={}) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
    assert len({body.content for body in made[0]}) == 3


def test_azure_bodies_hold_rows_or_named_tensors() -> None:
    (one,) = bodies.generate(bodies.read_model(METADATA), "azure", rows=2, variants=1, seed=0, shapes={})
    assert np.shape(orjson.loads(one.content)["input_data"]) == (2, 3)
    two = bodies.read_model(
        {"inputs": [*METADATA["inputs"], {"name": "z", "datatype": "BOOL", "shape": [-1]}], "outputs": []}
    )
    (both,) = bodies.generate(two, "azure", rows=2, variants=1, seed=0, shapes={})
    assert set(orjson.loads(both.content)["input_data"]) == {"x", "z"}


@pytest.mark.parametrize("datatype", sorted(bodies.DATATYPES))
@pytest.mark.parametrize("wire", ["v2-json", "v2-binary"])
def test_v2_bodies_carry_every_datatype(datatype: str, wire: str) -> None:
    model = bodies.Model(inputs=(bodies.Input(name="x", datatype=datatype, shape=(-1, -1)),), outputs=("y",))
    (body,) = bodies.generate(model, wire, rows=2, variants=1, seed=0, shapes={"x": (4,)})
    headers = dict(body.headers)
    length = int(headers.get("inference-header-content-length", len(body.content)))
    header = orjson.loads(body.content[:length])
    (tensor,) = header["inputs"]
    assert (tensor["name"], tensor["shape"], tensor["datatype"]) == ("x", [2, 4], datatype)
    if wire == "v2-json":
        assert len(tensor["data"]) == 8
    else:
        assert tensor["parameters"]["binary_data_size"] == len(body.content) - length
        assert header["outputs"] == [{"name": "y", "parameters": {"binary_data": True}}]


def test_free_sizes_are_given_or_chosen_and_a_fixed_first_axis_stays() -> None:
    model = bodies.Model(inputs=(bodies.Input(name="x", datatype="FP32", shape=(1, -1)),), outputs=())
    (chosen,) = bodies.generate(model, "v2-json", rows=5, variants=1, seed=0, shapes={})
    assert orjson.loads(chosen.content)["inputs"][0]["shape"] == [1, bodies.FREE_SIZE]
    (given,) = bodies.generate(model, "v2-json", rows=5, variants=1, seed=0, shapes={"x": (1, 7)})
    assert orjson.loads(given.content)["inputs"][0]["shape"] == [1, 7]
    with pytest.raises(CannotMeasure, match="no input 'z'"):
        bodies.generate(model, "azure", rows=1, variants=1, seed=0, shapes={"z": (1,)})


@pytest.mark.parametrize(
    "metadata", [{}, {"inputs": [{"name": "x"}], "outputs": []}, {"inputs": None, "outputs": []}]
)
def test_metadata_of_another_shape_is_refused(metadata: dict[str, Any]) -> None:
    with pytest.raises(CannotMeasure, match="use --data"):
        bodies.read_model(metadata)


def test_a_datatype_that_cannot_be_generated_is_named() -> None:
    with pytest.raises(CannotMeasure, match="x \\(BF16\\)"):
        bodies.read_model({"inputs": [{"name": "x", "datatype": "BF16", "shape": [1]}], "outputs": []})


def test_a_data_file_is_one_document_lines_or_bytes() -> None:
    pretty = b'{\n "input_data": [[1]]\n}\n'
    assert [body.content for body in bodies.read_bodies(pretty, None)] == [pretty.strip()]
    lines = bodies.read_bodies(b'{"a": 1}\n\n{"a": 2}\n', None)
    assert [body.content for body in lines] == [b'{"a": 1}', b'{"a": 2}']
    (raw,) = bodies.read_bodies(b"\x00\x01\n", None)
    assert (raw.content, raw.headers) == (b"\x00\x01\n", (("content-type", bodies.BINARY),))
    assert dict(bodies.read_bodies(b"{}", "text/plain")[0].headers) == {"content-type": "text/plain"}
    with pytest.raises(CannotMeasure, match="the file is empty"):
        bodies.read_bodies(b" \n", None)


def test_a_recording_is_read_in_order_of_time() -> None:
    lines = [
        {"at_s": 2, "body": {"input_data": [[1]]}},
        {"at_s": 0.5, "body": "text", "content_type": "text/plain", "path": "/other"},
        {"at_s": 1, "body_base64": base64.b64encode(b"\x00").decode(), "headers": {"X-A": "1", "Host": "h"}},
    ]
    events = bodies.read_replay(b"\n".join(map(orjson.dumps, lines)) + b"\n\n")
    assert [event.at_s for event in events] == [0.5, 1.0, 2.0]
    assert [event.body.content for event in events] == [b"text", b"\x00", b'{"input_data":[[1]]}']
    assert [event.path for event in events] == ["/other", "", ""]
    assert events[1].body.headers == (("content-type", bodies.BINARY), ("x-a", "1"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", "the file is empty"),
        (b"{", "line 1: found no JSON"),
        (b"[]", "found no object"),
        (b'{"at_s": 1, "body": 1, "more": 2}', "found more"),
        (b'{"body": 1}', "at_s None"),
        (b'{"at_s": true, "body": 1}', "at_s True"),
        (b'{"at_s": -1, "body": 1}', "at_s -1"),
        (b'{"at_s": 1}', "one of them"),
        (b'{"at_s": 1, "body": 1, "body_base64": ""}', "one of them"),
        (b'{"at_s": 1, "body_base64": "?"}', "no base64"),
        (b'{"at_s": 1, "body": 1, "headers": {"a": 1}}', "an object of texts"),
        (b'{"at_s": 1, "body": 1, "path": "x"}', "begins with /"),
    ],
)
def test_a_broken_recording_is_refused_with_its_line(line: bytes, said: str) -> None:
    with pytest.raises(CannotMeasure, match="--replay") as caught:
        bodies.read_replay(line)
    assert said in str(caught.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_recording_or_refused(content: bytes) -> None:
    try:
        bodies.read_replay(content)
    except CannotMeasure as refused:
        assert "--replay" in str(refused)
