"""Crews and environments without processes: what `Scripts` asks of them is kept, and a test says what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any

from gateway.crew import CrewFailed, CrewSpec, Ready
from gateway.environments import Environment, EnvironmentRefused
from gateway.resources import ScriptEnvironment


class FakeCrews:
    """`running` by pool; `stopped` are (pool, after_s) in order. `failing`: the next start or resize fails so."""

    def __init__(self) -> None:
        self.running: dict[str, CrewSpec] = {}
        self.workers: dict[str, int] = {}
        self.stopped: list[tuple[str, float]] = []
        self.failing: CrewFailed | None = None
        self.swagger: dict[str, str] = {}
        self.batches = False
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.may_stop = asyncio.Event()
        self.may_stop.set()

    async def start(self, spec: CrewSpec) -> Ready:
        await self.may_start.wait()
        if self.failing is not None:
            raise self.failing
        assert spec.pool not in self.running
        self.running[spec.pool] = spec
        self.workers[spec.pool] = spec.workers
        return Ready(swagger=self.swagger, batches=self.batches)

    async def resize(self, pool: str, workers: int) -> None:
        if self.failing is not None:
            raise self.failing
        assert pool in self.running
        self.workers[pool] = workers

    async def stop(self, pool: str, after_s: float) -> None:
        self.stopped.append((pool, after_s))
        await self.may_stop.wait()
        del self.running[pool]

    def tail(self, pool: str, lines: int) -> str:
        return f"{lines} lines of {pool}"


class FakeEnvironments:
    """Every environment is there, named by its reference; `refused` says why one is not. `collected`: what was in use
    at each collection."""

    def __init__(self) -> None:
        self.refused: dict[str, EnvironmentRefused] = {}
        self.notes: tuple[str, ...] = ()
        self.collected: list[set[str]] = []

    async def get(self, environment: ScriptEnvironment, say: Any) -> Environment:
        say("found")
        if environment.reference in self.refused:
            raise self.refused[environment.reference]
        return Environment(python=Path("/env/bin/python"), digest=environment.reference, notes=self.notes)

    async def collect(self, in_use: Collection[str]) -> int:
        self.collected.append(set(in_use))
        return len(self.collected)
