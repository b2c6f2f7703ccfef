"""`gateway bench`: the flags reach the bench as they were given, and what goes wrong is one line and a code."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pytest

from bench.client import session
from bench.client.errors import CannotMeasure
from bench.client.options import FLAGS, Options
from gateway.cli.doors import Doors
from gateway.cli.main import run

URL = "https://h/endpoints/d/score"


def test_every_flag_reaches_the_door() -> None:
    seen: list[tuple[str, Mapping[str, object], Mapping[str, str]]] = []

    def bench(url: str, flags: Mapping[str, object], environ: Mapping[str, str]) -> int:
        seen.append((url, flags, environ))
        return 1

    args = ["bench", URL]
    for flag in FLAGS:
        args += ["--" + flag.name.replace("_", "-"), *(["v"] if flag.symbol else [])]
    assert run([*args, "--header", "w"], Doors(bench=bench, environ={"A": "b"})) == 1
    ((url, flags, environ),) = seen
    assert (url, environ, set(flags)) == (URL, {"A": "b"}, {flag.name for flag in FLAGS})
    assert flags["header"] == ["v", "w"] and flags["shape"] == ["v"] and flags["find_rate"] is True


def test_flags_and_environment_become_options(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Options] = []

    def take(options: Options) -> int:
        seen.append(options)
        return 0

    monkeypatch.setattr(session, "run", take)
    assert run(["bench", URL, "--rate", "5,6", "--quiet"], Doors(environ={"GATEWAY_KEY": "k"})) == 0
    (options,) = seen
    assert (options.rates, options.key, options.quiet, options.headers) == ((5.0, 6.0), "k", True, ())


def test_wrong_flags_are_code_2_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", URL, "--rows", "x", "--find-rate"], Doors(environ={})) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("error: ") for line in lines)
    assert run(["bench", URL, "--connection", "5"], Doors(environ={})) == 2
    assert "--connections" in capsys.readouterr().err


def test_what_cannot_be_measured_is_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(options: Options) -> int:
        raise CannotMeasure("one", "two")

    monkeypatch.setattr(session, "run", refuse)
    assert run(["bench", URL], Doors(environ={})) == 2
    assert capsys.readouterr() == ("", "error: one\nerror: two\n")


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "bench.client.session")
    monkeypatch.setitem(sys.modules, "bench.client.session", None)
    assert run(["bench", URL], Doors(environ={})) == 2
    assert "pip install 'inference-gateway[bench]'" in capsys.readouterr().err


def test_an_installation_without_the_bench_has_no_such_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "bench.client.options", None)
    assert run(["bench", URL], Doors(environ={})) == 2
    assert "No such command 'bench'" in capsys.readouterr().err
    assert run(["version"], Doors(environ={})) == 0
