"""The real gateway as a process of its own, for end-to-end tests: started on free ports, stopped by its own verbs.

Leaving the `with` block stops it with SIGTERM and demands exit status 0, one line on stdout and no traceback.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.waiting import eventually

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
_UNSET = "GATEWAY_"


class Metrics:
    """One scrape. `value` sums the samples of a name whose labels are these, whatever the other labels."""

    def __init__(self, page: str) -> None:
        self.page = page
        self.samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        return sum(
            sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    def counters(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Every sample that may only grow, by name and labels."""
        endings = ("_total", "_count", "_bucket", "_sum")
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for sample in self.samples
            if sample.name.endswith(endings)
        }


class GatewayProcess:
    """`with GatewayProcess(folder, state) as gateway:` serves the folder over TLS until the block ends."""

    def __init__(
        self,
        folder: Path | None,
        state: Path,
        *arguments: str,
        scheme: str = "https",
        scorers: int = 2,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.state = state
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self.urls: dict[str, str] = {}
        self._keys: dict[str, dict[str, str]] = {}
        self._arguments = [
            *("serve", "--state", str(state), "--scorers", str(scorers)),
            *("--scoring", f"{scheme}://127.0.0.1:0", "--management", f"{scheme}://127.0.0.1:0"),
            *("--telemetry", "http://127.0.0.1:0", "--drain-grace-s", "0"),
            *(("--apply", str(folder)) if folder is not None else ()),
            *arguments,
        ]
        # Settings of whoever runs the tests are not ours.
        clean = {name: text for name, text in os.environ.items() if not name.startswith(_UNSET)}
        self._environment = {**clean, **(environment or {})}

    def __enter__(self) -> GatewayProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        status = self.stop()
        if error is None:
            assert status == 0, f"the gateway ended with {status}, log:\n{self.log()}"
            assert self.stdout == [self.ready_line]
            assert "Traceback" not in self.log(), self.log()

    # Start and stop.

    def spawn(self) -> None:
        """Start the process and collect what it prints; does not wait for it to be ready."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", *self._arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        streams = ((self.process.stdout, self.stdout), (self.process.stderr, self.stderr))
        self._readers = [Thread(target=_collect, args=stream, daemon=True) for stream in streams]
        for reader in self._readers:
            reader.start()

    def start(self) -> None:
        self.spawn()
        try:
            eventually(self._has_started_or_ended, "the gateway starts", START_TIMEOUT_S)
        except AssertionError:
            self.process.kill()
            raise
        if not self.stdout:
            status = self.finish()
            raise AssertionError(f"the gateway did not start (exit status {status}), log:\n{self.log()}")
        self.ready_line = self.stdout[0]
        self.urls = dict(part.split("=", 1) for part in self.ready_line.split()[1:])

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Send the signal, wait for the end; returns the exit status. Once ended, does nothing."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.finish(timeout_s)

    def finish(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait for the end; returns the exit status."""
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the gateway did not end within {timeout_s:g} s, log:\n{self.log()}") from None
        for reader in self._readers:
            reader.join(timeout_s)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return status

    # Its commands.

    def run(self, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """A command of the CLI on this gateway's state folder."""
        return subprocess.run(
            [sys.executable, "-m", "gateway", *arguments, "--state", str(self.state)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=self._environment,
        )

    def keys(self, endpoint: str) -> dict[str, str]:
        """The endpoint's keys as `gateway keys` prints them, asked for once."""
        if endpoint not in self._keys:
            done = self.run("keys", endpoint)
            assert done.returncode == 0, done.stderr
            self._keys[endpoint] = json.loads(done.stdout)
        return self._keys[endpoint]

    # Its listeners.

    def manage(self, method: str, path: str) -> httpx.Response:
        """A request to the management listener, with its token."""
        token = (self.state / "management.token").read_text().strip()
        with self.client(base_url=self.urls["management"]) as client:
            return client.request(method, path, headers={"authorization": f"Bearer {token}"})

    def reload(self) -> None:
        """A reload by the management listener (which is quicker than the command), and it must be accepted."""
        answer = self.manage("POST", "/reload")
        assert answer.status_code == 200, answer.text

    def status(self) -> dict[str, Any]:
        """What the management listener tells."""
        answer = self.manage("GET", "/status")
        assert answer.status_code == 200, answer.text
        status: dict[str, Any] = answer.json()
        return status

    def trust(self) -> ssl.SSLContext:
        """A client's context that trusts this gateway's CA and nothing else, and reads certificates strictly."""
        context = ssl.create_default_context(cafile=self.urls["ca"])
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    def client(self, endpoint: str = "", **options: Any) -> httpx.Client:
        """An HTTP client of the scoring listener, with the endpoint's primary key where one is named."""
        headers = {"authorization": f"Bearer {self.keys(endpoint)['primaryKey']}"} if endpoint else {}
        is_tls = self.ready_line.startswith("ready scoring=https")
        defaults: dict[str, Any] = {
            "base_url": self.urls["scoring"],
            "headers": headers,
            "verify": self.trust() if is_tls else False,
            "timeout": 60,
            "trust_env": False,
        }
        return httpx.Client(**{**defaults, **options})

    def telemetry(self, path: str) -> httpx.Response:
        # Without the trust store of the machine, which takes longer to load than all the rest.
        return httpx.get(self.urls["telemetry"] + path, timeout=30, verify=False, trust_env=False)

    def metrics(self) -> Metrics:
        return Metrics(self.telemetry("/metrics").text)

    def log(self) -> str:
        return "".join(self.stderr)

    def await_log(self, text: str, since: int = 0, timeout_s: float = 20.0) -> str:
        """The first log line with this text, of those from number `since` on."""
        try:
            return eventually(
                lambda: next((line for line in self.stderr[since:] if text in line), ""),
                f"the log says {text!r}",
                timeout_s,
            )
        except AssertionError as error:
            raise AssertionError(f"{error}, log:\n{self.log()}") from None

    def _has_started_or_ended(self) -> bool:
        return bool(self.stdout) or self.process.poll() is not None


def refused_to_start(gateway: GatewayProcess, exit_status: int = 1) -> str:
    """Runs a gateway that must not start; its log, which has a reason and no traceback."""
    gateway.spawn()
    status = gateway.finish()
    log = gateway.log()
    assert status == exit_status, log
    assert gateway.stdout == []
    assert "Traceback" not in log, log
    return log


def endpoint_yaml(name: str = "digits", **more: Any) -> str:
    return yaml.safe_dump({"name": name, "auth_mode": "key", **more}, sort_keys=False)


def deployment_yaml(name: str, model: str, endpoint: str = "digits", **more: Any) -> str:
    """`model` is a path that is relative to the folder."""
    fields = {"name": name, "endpoint_name": endpoint, "model": {"path": f"./{model}"}, "instance_type": "cpu"}
    return yaml.safe_dump({**fields, **more}, sort_keys=False)


def write_folder(folder: Path, files: Mapping[str, str | bytes], copies: Sequence[tuple[Path, str]] = ()) -> Path:
    """A folder of YAML texts and models, and copies of files. Each file is replaced whole, as deployers do."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {name: source.read_bytes() for source, name in copies}
    contents |= {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
    for name, content in contents.items():
        replace_file(folder / name, content)
    return folder


def replace_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        file.write(content)
    Path(file.name).replace(path)


def _collect(stream: Any, lines: list[str]) -> None:
    lines.extend(iter(stream.readline, ""))


def replace_scorers(gateway: GatewayProcess) -> None:
    """Kill every scorer and wait until others serve in their places."""

    def status() -> dict[str, Any]:
        # Over the control socket: it needs no certificate.
        found: dict[str, Any] = json.loads(gateway.run("status").stdout)
        return found

    before = status()["pids"]["scorers"]
    for pid in before:
        os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        now = status()
        is_new = set(now["pids"]["scorers"]).isdisjoint(before)
        return is_new and now["scorers"]["serving"] == now["scorers"]["wanted"]

    eventually(replaced, "other scorers serve")
