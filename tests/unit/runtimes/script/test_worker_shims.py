"""AMLRequest, AMLResponse and the names they are imported by."""

from __future__ import annotations

import importlib
import io
import sys
from pathlib import Path
from types import ModuleType

import pytest

from runtimes.script.worker_lib.igw_worker.shims import finder
from runtimes.script.worker_lib.igw_worker.shims.aml_request import AMLRequest, RawHttp, rawhttp
from runtimes.script.worker_lib.igw_worker.shims.aml_response import AMLResponse
from runtimes.script.worker_lib.igw_worker.shims.http import Headers, MultiDict, parse_options
from runtimes.script.worker_lib.igw_worker.shims.multipart import FileStorage

FORM = b"\r\n".join(
    (
        b"preamble",
        b"--B",
        b'Content-Disposition: form-data; name="word"',
        b"",
        "größer".encode(),
        b"--B",
        b'content-disposition: form-data; name="file"; filename="a;\\"b.png"',
        b"Content-Type: image/png; x=y",
        b"",
        b"\x89\r\n\r\n--not",
        b"--B",
        b'Content-Disposition: form-data; name="file"; filename=second.txt',
        b"no header",
        b"",
        b"two",
        b"--B",
        b"Content-Disposition: form-data",
        b"",
        b"nameless",
        b"--B",
        b"no blank line",
        b"--B--",
        b'Content-Disposition: form-data; name="after"',
        b"",
        b"the end",
    )
)


def test_a_request_has_the_members_that_scripts_use() -> None:
    headers = [
        ("host", "h.example:8"),
        ("Content-Type", "application/json; charset=utf-8"),
        ("cookie", 'a=1; b="2"; none'),
        ("user-agent", "me"),
    ]
    request = AMLRequest("POST", "/score/a%20b?x=1&x=2&y=%C3%9F", headers, memoryview(b'{"a": 1}'))
    assert request.path == "/score/a b"
    assert request.full_path == "/score/a b?x=1&x=2&y=%C3%9F"
    assert request.url == "https://h.example:8/score/a%20b?x=1&x=2&y=%C3%9F"
    assert (request.base_url, request.host_url) == ("https://h.example:8/score/a%20b", "https://h.example:8/")
    assert request.args.getlist("x") == ["1", "2"]
    assert request.args["y"] == "ß"
    assert request.data == request.get_data() == b'{"a": 1}'
    assert request.get_data(as_text=True) == '{"a": 1}'
    assert request.stream.read() == b'{"a": 1}'
    assert request.json == {"a": 1}
    assert (request.mimetype, request.mimetype_params) == ("application/json", {"charset": "utf-8"})
    assert request.content_length == 8
    assert request.cookies == {"a": "1", "b": "2"}
    assert request.user_agent == "me"
    assert request.headers["HOST"] == "h.example:8"
    assert "POST" in repr(request)
    assert (request.form, request.files) == ({}, {})
    assert request.values.getlist("x") == ["1", "2"]


def test_json_that_is_none_raises_or_is_silent() -> None:
    request = AMLRequest("POST", "/score", [("content-type", "text/plain")], b"{")
    with pytest.raises(ValueError, match="text/plain"):
        _ = request.json
    assert request.get_json(silent=True) is None
    with pytest.raises(ValueError, match="Expecting"):
        request.get_json(force=True)
    assert request.get_json(force=True, silent=True) is None
    assert AMLRequest().url == "https://localhost/score"
    assert AMLRequest().content_length is None


def test_a_multipart_form_has_fields_and_files(tmp_path: Path) -> None:
    request = AMLRequest("POST", "/score?q=1", [("content-type", "multipart/form-data; boundary=B")], FORM)
    assert request.form.to_dict() == {"word": "größer"}
    assert request.values.to_dict(flat=False) == {"q": ["1"], "word": ["größer"]}
    first, second = request.files.getlist("file")
    assert isinstance(first, FileStorage)
    assert (first.filename, first.content_type, first.mimetype) == ('a;"b.png', "image/png; x=y", "image/png")
    assert first.read() == b"\x89\r\n\r\n--not"
    assert (second.filename, second.content_length) == ("second.txt", 3)
    assert list(second) == [b"two"]
    second.seek(0)
    second.save(str(tmp_path / "saved"))
    assert (tmp_path / "saved").read_bytes() == b"two"
    second.seek(1)
    target = io.BytesIO()
    second.save(target)
    assert target.getvalue() == b"wo"
    second.close()
    assert "second.txt" in repr(second)
    assert "after" not in request.form
    # As Flask has it: what was parsed as a form is no data.
    assert request.data == b""
    assert request.get_data(as_text=True, parse_form_data=True) == ""
    assert request.get_data() == FORM


def test_a_urlencoded_form_and_one_without_boundary() -> None:
    kind = [("content-type", "application/x-www-form-urlencoded")]
    assert AMLRequest("POST", "/score", kind, b"a=1&b=&a=2").form.to_dict(flat=False) == {"a": ["1", "2"], "b": [""]}
    assert AMLRequest("POST", "/score", [("content-type", "multipart/form-data")], FORM).form == {}


def test_headers_are_a_mapping_without_regard_to_case() -> None:
    headers = Headers({"A": "1"})
    headers.add("a", 2)
    headers["B"] = "x"
    assert headers.getlist("a") == headers.get_all("A") == ["1", "2"]
    assert (headers.get("b"), headers.get("c"), headers.get("c", "d")) == ("x", None, "d")
    assert (headers.get("a", type=int), headers.get("b", 0, int)) == (1, 0)
    assert "b" in headers
    assert 5 not in headers
    assert (headers.keys(), headers.values()) == (["A", "a", "B"], ["1", "2", "x"])
    assert list(headers) == headers.items()
    assert headers.setdefault("b", "y") == "x"
    assert headers.setdefault("C", "z") == "z"
    headers.set("A", "3")
    headers.update({"C": "w"})
    del headers["b"]
    assert (len(headers), dict(headers.items())) == (2, {"A": "3", "C": "w"})
    with pytest.raises(KeyError):
        _ = headers["b"]
    assert "'C'" in repr(headers)


def test_a_multidict_is_a_dict_of_first_values() -> None:
    values = MultiDict([("a", "1"), ("a", "2"), ("b", "x")])
    assert values == {"a": "1", "b": "x"}
    assert (values.get("a", type=int), values.get("b", 7, int), values.get("c", 8, int)) == (1, 7, 8)
    assert (values.get("a"), values.getlist("c")) == ("1", [])


def test_options_of_a_header_are_parsed() -> None:
    assert parse_options('Form-Data; Name="a\\"b;c"; x=1; flag') == ("form-data", {"name": 'a"b;c', "x": "1"})


def test_a_response_is_made_as_the_server_makes_it() -> None:
    text = AMLResponse("word", 200)
    assert (text.get_data(), text.mimetype, text.status_code) == (b"word", "text/html", 200)
    assert text.headers["x-ms-run-function-failed"] == "False"
    assert AMLResponse(None, 200).data == b"{}"
    value = AMLResponse({"a": 1}, 200, json_str=True)
    assert (value.data, value.mimetype, value.json, value.get_json()) == (
        b'{"a": 1}',
        "application/json",
        {"a": 1},
        {"a": 1},
    )
    many = AMLResponse([b"a", "b"], 200, {"content-type": "text/csv", "X-Many": "1, 2"}, run_function_failed=True)
    assert (many.data, many.headers.getlist("content-type"), many.headers.getlist("x-many")) == (
        b"ab",
        ["text/csv"],
        ["1", "2"],
    )
    assert many.headers["x-ms-run-function-failed"] == "True"
    with pytest.raises(TypeError, match="json_str"):
        AMLResponse(5, 200)
    with pytest.raises(TypeError):
        AMLResponse([5], 200)


def test_a_response_can_be_changed() -> None:
    response = AMLResponse(b"a", 200)
    response.mimetype = "application/xml"
    assert response.content_type == "application/xml"
    response.content_type = "text/plain"
    response.status = "404 Not Found"
    assert (response.status_code, response.status, response.mimetype) == (404, "404 NOT FOUND", "text/plain")
    response.status = 299
    assert response.status == "299 UNKNOWN"
    response.status_code = 404
    response.data = b"b"
    assert response.get_data(as_text=True) == "b"
    response.set_data("c")
    assert response.data == b"c"
    assert "404" in repr(response)


def test_rawhttp_leaves_a_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RawHttp, "wanted", False)
    function = len
    assert rawhttp(function) is function
    assert RawHttp.wanted


@pytest.fixture
def shims(monkeypatch: pytest.MonkeyPatch) -> None:
    """The finders, and no azureml module imported, for one test."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    known = [name for name in sys.modules if name.split(".")[0] in ("azureml", "azureml_inference_server_http")]
    monkeypatch.setattr(sys, "modules", {name: value for name, value in sys.modules.items() if name not in known})
    finder.install()


@pytest.mark.usefixtures("shims")
def test_both_names_give_the_same_classes() -> None:
    for package in ("azureml_inference_server_http.api", "azureml.contrib.services"):
        assert importlib.import_module(f"{package}.aml_request").rawhttp is rawhttp
        assert importlib.import_module(f"{package}.aml_response").AMLResponse is AMLResponse
    formatter = importlib.import_module("azureml_inference_server_http.log_config").AMLLogFormatter
    assert "azmlinfsrv" not in formatter()._fmt
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("azureml.core")


@pytest.mark.usefixtures("shims")
def test_packages_that_are_installed_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services = tmp_path / "azureml" / "contrib" / "services"
    services.mkdir(parents=True)
    # A package and not only a folder: azureml-ai-monitoring, where it is installed, brings one of that name as well.
    (tmp_path / "azureml" / "__init__.py").write_text("")
    (tmp_path / "azureml" / "core.py").write_text("HERE = 1")
    for folder in (services, services.parent):
        (folder / "__init__.py").write_text("HERE = 2")
    (services / "aml_request.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.import_module("azureml.core").HERE == 1
    assert importlib.import_module("azureml.contrib.services").HERE == 2
    module: ModuleType = importlib.import_module("azureml.contrib.services.aml_request")
    assert module.AMLRequest is AMLRequest
