"""A start waits for a port that scorers of a killed gateway still hold, and for nothing else."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import pytest

from gateway import supervisor
from gateway.listener import PortInUse
from gateway.settings import Listen

HERE = Listen("https", "127.0.0.1", 8443)


class Port:
    """Refuses so often, each time for this reason."""

    def __init__(self, refusals: int, number: int = errno.EADDRINUSE) -> None:
        self.asked = 0
        self._refusals = refusals
        self._number = number

    def bind(self, host: str, port: int, *, shared: int = 1) -> list[Any]:
        self.asked += 1
        if self.asked <= self._refusals:
            raise PortInUse("cannot listen") from OSError(self._number, "refused")
        return [(host, port)] * shared


def bound(monkeypatch: pytest.MonkeyPatch, port: Port, wait_s: float = 60.0) -> Any:
    monkeypatch.setattr(supervisor, "bind", port.bind)
    monkeypatch.setattr(supervisor, "PORT_WAIT_S", wait_s)
    monkeypatch.setattr(supervisor, "PORT_EVERY_S", 0.0)
    return asyncio.run(supervisor.bind_again(HERE, shared=2))


def test_a_port_that_comes_free_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    port = Port(3)
    assert bound(monkeypatch, port) == [("127.0.0.1", 8443)] * 2
    assert port.asked == 4


def test_a_port_that_stays_taken_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PortInUse):
        bound(monkeypatch, Port(1000), wait_s=0.0)


def test_what_waiting_does_not_mend_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    port = Port(1000, errno.EACCES)
    with pytest.raises(PortInUse):
        bound(monkeypatch, port)
    assert port.asked == 1
