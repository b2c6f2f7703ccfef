"""What a peer is: what to install, how to start it, which doors it has, and what is set for it and why.

A `Launch` is made anew for each model and number of cores; it may write files into its work folder and does nothing
else. The process is started elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.peers.models import Model
from bench.peers.wires import Wire

ROWS_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one start of a peer happens. `workers` is the number of cores it has."""

    python: Path
    model: Model
    port: int
    spare_ports: tuple[int, ...]
    workers: int
    work: Path

    def environment(self) -> dict[str, str]:
        """What the programs in `servers/` read."""
        return {
            "PEER_NAME": self.model.name,
            "PEER_MODEL": str(self.model.path),
            "PEER_INPUT": self.model.input,
            "PEER_OUTPUT": self.model.output,
            "PEER_FEATURES": str(self.model.features),
            "PEER_OUTPUTS": str(self.model.outputs),
            "PEER_PORT": str(self.port),
            "PEER_SPARE_PORTS": ",".join(str(port) for port in self.spare_ports),
            "PEER_WORKERS": str(self.workers),
            "PEER_ROWS_MAX": str(ROWS_MAX),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """One wire format of a peer; `{model}` in the path stands for the model's name."""

    wire: Wire
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """`package` names the distribution whose version is stated; empty `requirements`: our own environment serves.

    `headers` asks the running peer what a request must carry, a key for one. `checked` is False where the answer is a
    constant and not the model's.
    """

    name: str
    title: str
    package: str
    requirements: tuple[str, ...]
    doors: tuple[Door, ...]
    launch: Callable[[Place], Launch]
    settings: str
    pip_options: tuple[str, ...] = ()
    headers: Callable[[Place], Mapping[str, str]] | None = None
    checked: bool = True
    ready_within_s: float = 90.0
