"""What the machine's GPUs are doing, as NVIDIA's management library (NVML) tells it; the only file that names it.

Why: a GPU that is full or idle explains a deployment that is slow or refused. The package nvidia-ml-py is part of the
extra `gpu`; without it, or without a driver, there is nothing to tell and nothing fails.
Units: bytes; ratios from 0 to 1, over the driver's last sample. GPUs are numbered as NVML does, by their bus address,
which is not always how CUDA numbers them; all that this process may see are told, whoever uses them.
Threads: NVML is asked on a thread of its own, one at a time, for a driver in trouble may take seconds to answer, or
may never. A thread that does not come back holds up neither more than one scrape nor the end of the process.
Errors: none; what cannot be read is left out, and said once in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFacts:
    """One GPU at one moment; None for what it does not tell (a GPU in MIG mode has no utilisation)."""

    index: int
    used_bytes: int | None = None
    total_bytes: int | None = None
    utilization: float | None = None


class Nvml:
    """The library, asked from one thread at a time. `library` stands for the module pynvml."""

    def __init__(self, library: Any) -> None:
        """Errors: the library's own, where there is no driver."""
        self._nvml = library
        self._fault: type[Exception] = library.NVMLError
        self._said: set[tuple[str, ...]] = set()
        library.nvmlInit()

    def read(self) -> tuple[GpuFacts, ...]:
        count = self._ask("counting the GPUs", self._nvml.nvmlDeviceGetCount)
        return tuple(self._facts(index) for index in range(count or 0))

    def _facts(self, index: int) -> GpuFacts:
        handle = self._ask(f"finding GPU {index}", self._nvml.nvmlDeviceGetHandleByIndex, index)
        if handle is None:
            return GpuFacts(index=index)
        memory = self._ask(f"the memory of GPU {index}", self._nvml.nvmlDeviceGetMemoryInfo, handle)
        busy = self._ask(f"the utilisation of GPU {index}", self._nvml.nvmlDeviceGetUtilizationRates, handle)
        return GpuFacts(
            index=index,
            used_bytes=memory.used if memory is not None else None,
            total_bytes=memory.total if memory is not None else None,
            utilization=busy.gpu / 100 if busy is not None else None,
        )

    def _ask(self, what: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """The answer, or None where the library has none; the same failure is said once."""
        try:
            return call(*arguments)
        except self._fault as error:
            if (what, str(error)) not in self._said:
                self._said.add((what, str(error)))
                log.warning("no GPU metrics of this kind: NVML, asked for %s, says: %s", what, error)
            return None


def open_nvml() -> Nvml | None:
    """NVML, or None where the package or the driver is not there."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        return Nvml(pynvml)
    except pynvml.NVMLError as error:
        log.info("no GPU metrics: NVML cannot be used: %s", error)
        return None


class GpuWatch:
    """What the event loop has of NVML, which is opened at the first question."""

    def __init__(self, opened: Callable[[], Nvml | None] = open_nvml) -> None:
        self._open = opened
        self._nvml: Nvml | None = None
        self._is_absent = False
        self._is_late = False
        self._reading: asyncio.Future[tuple[GpuFacts, ...]] | None = None

    async def read(self, timeout_s: float = ANSWER_TIMEOUT_S) -> tuple[GpuFacts, ...]:
        """Each GPU now; nothing where there is none, or where the driver does not answer in time."""
        if self._is_absent:
            return ()
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_future()
            threading.Thread(target=self._run, args=(self._reading,), name="nvml", daemon=True).start()
        # Who was late is not waited for again, until it answers.
        done, _ = await asyncio.wait({self._reading}, timeout=0 if self._is_late else timeout_s)
        if done:
            return done.pop().result()
        if not self._is_late:
            self._is_late = True
            log.warning("no GPU metrics for now: NVML has not answered for %g s", timeout_s)
        return ()

    def _run(self, reading: asyncio.Future[tuple[GpuFacts, ...]]) -> None:
        """On the thread. Whatever happens, the loop gets an answer."""
        facts: tuple[GpuFacts, ...] = ()
        try:
            if self._nvml is None:
                self._nvml = self._open()
            if self._nvml is not None:
                facts = self._nvml.read()
        except Exception:
            log.exception("no GPU metrics any more: NVML could not be asked")
            self._nvml = None
        is_absent = self._nvml is None
        # The loop may be gone by now.
        with contextlib.suppress(RuntimeError):
            reading.get_loop().call_soon_threadsafe(self._answer, reading, facts, is_absent)

    def _answer(
        self, reading: asyncio.Future[tuple[GpuFacts, ...]], facts: tuple[GpuFacts, ...], is_absent: bool
    ) -> None:
        self._reading = None
        self._is_late = False
        self._is_absent = is_absent
        reading.set_result(facts)
