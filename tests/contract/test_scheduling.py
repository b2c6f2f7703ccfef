"""The wish to be put off, asked of the kernel that runs here and read back from it."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from gateway import scheduling
from gateway.scheduling import LONG_NS, yield_at_once

T = TypeVar("T")
GET_ATTRIBUTES = {"x86_64": 315, "aarch64": 275}
SINCE = (6, 12)


def slice_ns() -> int:
    """The calling thread's."""
    room = ctypes.create_string_buffer(48)
    assert ctypes.CDLL(None).syscall(GET_ATTRIBUTES[platform.machine()], 0, room, 48, 0) == 0
    return int(struct.unpack("=IIQiIQQQ", room.raw)[5])


def on_thread(work: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


@pytest.fixture
def kernel() -> None:
    if platform.machine() not in GET_ATTRIBUTES:
        pytest.skip(f"nothing is asked of the kernel on {platform.machine()}")
    release = tuple(map(int, platform.release().split(".")[:2]))
    if release < SINCE:
        pytest.skip(f"Linux {platform.release()} has no slices that a thread could ask for")


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("heirs", [False, True])
def test_a_thread_gets_the_long_slice_and_others_do_not(heirs: bool) -> None:
    before, usual = slice_ns(), on_thread(slice_ns)

    def story() -> tuple[int, int]:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 3)
        yield_at_once(heirs=heirs)
        assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == 3, "what it may use stays"
        return slice_ns(), on_thread(slice_ns)

    own, heir = on_thread(story)
    assert own == LONG_NS != usual
    assert heir == (LONG_NS if heirs else usual)
    assert (slice_ns(), on_thread(slice_ns)) == (before, usual)


def test_where_the_kernel_does_not_know_it_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "_SET_ATTRIBUTES", {platform.machine(): 1 << 20})
    on_thread(yield_at_once)
    monkeypatch.setattr(scheduling, "_SET_ATTRIBUTES", {})
    on_thread(yield_at_once)
