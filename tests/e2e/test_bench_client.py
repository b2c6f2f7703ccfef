"""`gateway bench` against the real gateway: TLS with its own CA, a key from the environment, all three formats."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.cli.doors import Doors
from gateway.cli.main import run
from tests.support.process import GatewayProcess

QUICK = ("--duration", "0.4", "--warm-up", "0.1", "--processes", "1", "--quiet")


def bench(gateway: GatewayProcess, arguments: Sequence[str], key: str, path: str = "/endpoints/digits/score") -> int:
    """The command in this process, which saves its start; its exit status. The generators are real processes."""
    return run(
        ["bench", gateway.urls["scoring"] + path, *QUICK, *arguments],
        Doors(environ={"GATEWAY_KEY": key} if key else {}),
    )


@pytest.mark.parametrize("wire", ["azure", "v2-json", "v2-binary"])
def test_every_format_is_generated_from_metadata_and_answered(
    gateway: GatewayProcess, tmp_path: Path, wire: str, capsys: pytest.CaptureFixture[str]
) -> None:
    key, out = gateway.keys("digits")["primaryKey"], tmp_path / "report.json"
    # One connection: requests of a batch of another size may be rounded otherwise, and are compared byte for byte.
    given = [
        "--ca",
        gateway.urls["ca"],
        "--format",
        wire,
        "--deployment",
        "blue",
        "--rows",
        "2",
        "--connections",
        "1",
    ]
    given += ["--expect-same", "--json", str(out), "--html", str(tmp_path / "report.html")]
    assert bench(gateway, given, key) == 0
    report = json.loads(out.read_text())
    (step,) = report["steps"]
    # Every answer is a 200, and equal requests got equal answers.
    assert step["statuses"] == {"200": step["requests"]} and step["requests"] > 20
    assert step["mismatches"] == 0 and step["error_ratio"] == 0.0
    assert report["target"]["format"] == wire and report["target"]["deployment"] == "blue"
    shown = "".join(capsys.readouterr()) + out.read_text() + (tmp_path / "report.html").read_text()
    assert key not in shown


def test_the_command_keeps_an_open_loop_at_its_rate_over_tls(gateway: GatewayProcess, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    given = ["--insecure", "--rate", "100", "--arrivals", "constant", "--connections", "8", "--json", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "bench", gateway.urls["scoring"] + "/v2/models/digits", *QUICK, *given],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**gateway._environment, "GATEWAY_KEY": gateway.keys("digits")["primaryKey"]},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "100/s" in done.stdout
    (step,) = json.loads(out.read_text())["steps"]
    assert (step["requests"], step["statuses"]) == (40, {"200": 40})


@pytest.mark.parametrize(
    ("given", "key", "said"),
    [
        (["--insecure"], "", "no key was sent: give one with --key or GATEWAY_KEY"),
        (["--insecure"], "wrong", "the key that was sent does not open it"),
        ([], "wrong", "its certificate is not trusted"),
        (["--ca", "/nowhere.pem"], "wrong", "--ca: there is no file /nowhere.pem"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(
    gateway: GatewayProcess, given: list[str], key: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(gateway, given, key) == 2
    out = capsys.readouterr()
    assert said in out.err and out.out == ""
