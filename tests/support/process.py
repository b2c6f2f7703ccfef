"""The real gateway as a process of its own, for end-to-end tests: started on free ports, stopped by its own verbs."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from types import TracebackType

import httpx

START_TIMEOUT_S = 60


class GatewayProcess:
    """`with GatewayProcess(folder, state) as gateway:` serves the folder over TLS until the block ends."""

    def __init__(
        self,
        folder: Path | None,
        state: Path,
        *arguments: str,
        scheme: str = "https",
        scorers: int = 2,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.state = state
        self.stderr: list[str] = []
        self._arguments = [
            *("serve", "--state", str(state), "--scorers", str(scorers)),
            *("--scoring", f"{scheme}://127.0.0.1:0", "--management", f"{scheme}://127.0.0.1:0"),
            *("--telemetry", "http://127.0.0.1:0", "--drain-grace-s", "0"),
            *(("--apply", str(folder)) if folder is not None else ()),
            *arguments,
        ]
        self._environment = {**os.environ, **(environment or {})}

    def __enter__(self) -> GatewayProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.stop()

    def spawn(self) -> None:
        """Start the process and collect its log; does not wait for it to be ready."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", *self._arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        self._reader = Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def start(self) -> None:
        self.spawn()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("ready "):
            self.process.wait(START_TIMEOUT_S)
            self._reader.join(START_TIMEOUT_S)
            raise AssertionError(f"the gateway did not start: stdout {line!r}, log:\n" + "".join(self.stderr))
        self.ready_line = line
        self.urls = dict(part.split("=", 1) for part in line.split()[1:])

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout_s: float = 40) -> int:
        """Send the signal, wait for the end; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(timeout_s)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return status

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the CLI on this gateway's state folder."""
        return subprocess.run(
            [sys.executable, "-m", "gateway", *arguments, "--state", str(self.state)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=self._environment,
        )

    def keys(self, endpoint: str) -> dict[str, str]:
        done = self.run("keys", endpoint)
        assert done.returncode == 0, done.stderr
        keys: dict[str, str] = json.loads(done.stdout)
        return keys

    def trust(self) -> ssl.SSLContext:
        """A client's context that trusts this gateway's CA and nothing else."""
        return ssl.create_default_context(cafile=self.urls["ca"])

    def client(self, endpoint: str = "", **options: object) -> httpx.Client:
        """An HTTP client of the scoring listener, with the endpoint's primary key where one is named."""
        headers = {"authorization": f"Bearer {self.keys(endpoint)['primaryKey']}"} if endpoint else {}
        is_tls = self.urls["scoring"].startswith("https")
        verify = self.trust() if is_tls else False
        return httpx.Client(base_url=self.urls["scoring"], headers=headers, verify=verify, timeout=30, **options)  # type: ignore[arg-type]

    def telemetry(self, path: str) -> httpx.Response:
        return httpx.get(self.urls["telemetry"] + path, timeout=30)

    def log(self) -> str:
        return "".join(self.stderr)

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.stderr.append(line)


def write_folder(folder: Path, files: dict[str, str], copies: Sequence[tuple[Path, str]] = ()) -> Path:
    """A folder of YAML texts, with copies of model files beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for source, name in copies:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder
