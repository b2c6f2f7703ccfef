"""What the tests of a scorer's loads ask for, and what it answers."""

from __future__ import annotations

from gateway.channel import LoadDone, Loaded
from gateway.snapshot import DeploymentSpec
from runtimes import Learned, RuntimeSpec

BLUE = DeploymentSpec(
    name="blue",
    runtime=RuntimeSpec(path="/blue.onnx", sha256="x"),
    request_timeout_ns=1,
    queue_wait_ns=0,
    pending_max=0,
    seat=-1,
    body_bytes_max=1,
)
LOADED = LoadDone(
    learned=Learned(batched=True, reason="proven"), loaded=Loaded(load_s=0.1, provider="cpu", sha256="x")
)
