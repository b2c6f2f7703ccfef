"""Session, the seam between batching and an engine: named arrays in, named arrays out.

Contract (one suite for every implementation, tests/contract): `run` is called from one thread at a time; it returns
an array for each requested output, in a mapping by name; it raises ModelFailed and nothing else; it does not keep
or change its inputs. `close` may be called once, after the last run.
"""

from __future__ import annotations

from typing import Protocol

from runtimes.signature import Signature
from runtimes.tensor import Array, Tensors


class Session(Protocol):
    @property
    def signature(self) -> Signature: ...

    @property
    def provider(self) -> str:
        """What really computes it, in the engine's own word."""
        ...

    def run(self, inputs: Tensors, outputs: tuple[str, ...] | None) -> dict[str, Array]:
        """Run once. `outputs` None asks for all of them. Errors: ModelFailed."""
        ...

    def close(self) -> None: ...
