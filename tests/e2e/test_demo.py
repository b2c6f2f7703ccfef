"""`make run` after its set-up: what it prints can be pasted, and Ctrl-C ends it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FREE_PORTS = [
    *("--scoring", "https://127.0.0.1:0", "--management", "https://127.0.0.1:0"),
    *("--telemetry", "http://127.0.0.1:0", "--scorers", "1"),
]
# Stands in for the gateway's command: ready at once, ends on SIGTERM, and knows no key.
KEYLESS = """
import signal, sys
if sys.argv[1] == "keys":
    sys.exit(3)
signal.signal(signal.SIGTERM, lambda *_: (print("stopped", flush=True), sys.exit(0)))
print("ready scoring=http://h:1 management=http://h:2 telemetry=http://h:3 ca=", flush=True)
while True:
    signal.pause()
"""


@contextmanager
def _started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def _curl_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("curl "):
            return line
    raise AssertionError(f"the demo ended with {process.wait()} before it was ready")


def test_the_printed_curl_line_scores_as_it_stands_and_an_interrupt_ends_the_demo(tmp_path: Path) -> None:
    command = [sys.executable, "examples/digits/run.py", "--state", str(tmp_path), *FREE_PORTS]
    with _started(command) as process:
        line = _curl_line(process)
        answer = subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
        process.send_signal(signal.SIGINT)
        status = process.wait(timeout=60)

    labels = json.loads((ROOT / "examples/digits/sample-labels.json").read_text())
    assert json.loads(answer.stdout)["label"] == labels
    assert status == 0


def test_a_demo_without_a_key_stops_the_gateway_and_says_so(tmp_path: Path) -> None:
    fake = tmp_path / "fake.py"
    fake.write_text(KEYLESS)
    program = f"import sys; from examples.digits.run import run; sys.exit(run([sys.executable, {str(fake)!r}], []))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "gave no key (exit status 3)" in done.stderr
