"""NVML as a scrape sees it: asked on a thread of its own, never waited for for long, never a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Event, current_thread, main_thread

import pytest

from gateway.telemetry.gpu import GpuFacts, GpuWatch, Nvml
from tests.support.nvml import FakeNvml

ONE = (GpuFacts(index=0, used_bytes=10, total_bytes=1000, utilization=0.25),)
LONG_S = 30.0


def _read(watch: GpuWatch) -> tuple[GpuFacts, ...]:
    return asyncio.run(watch.read(LONG_S))


def test_the_library_is_opened_once_and_asked_at_every_scrape_off_the_loop() -> None:
    threads = []
    library = FakeNvml(10, before=lambda: threads.append(current_thread()))
    watch = GpuWatch(lambda: Nvml(library))
    assert [_read(watch) for _ in range(3)] == [ONE] * 3
    assert (library.called["nvmlInit"], library.called["nvmlDeviceGetCount"]) == (1, 3)
    assert main_thread() not in threads
    assert all(thread.daemon for thread in threads)


def test_scrapes_at_one_moment_share_one_answer() -> None:
    library = FakeNvml(10)
    watch = GpuWatch(lambda: Nvml(library))

    async def twice() -> tuple[tuple[GpuFacts, ...], tuple[GpuFacts, ...]]:
        return await asyncio.gather(watch.read(LONG_S), watch.read(LONG_S))

    assert list(asyncio.run(twice())) == [ONE, ONE]
    assert library.called["nvmlDeviceGetCount"] == 1


def test_where_there_is_none_it_is_looked_for_once() -> None:
    looked = []

    def opened() -> None:
        looked.append(1)

    watch = GpuWatch(opened)
    assert [_read(watch) for _ in range(3)] == [()] * 3
    assert len(looked) == 1


def _broken() -> Nvml:
    raise OSError("the library is of another machine")


def _breaking() -> Nvml:
    library = FakeNvml(10)
    nvml = Nvml(library)
    library.nvmlDeviceGetCount = lambda: "many"  # type: ignore[method-assign,assignment,return-value]
    return nvml


@pytest.mark.parametrize("opened", [_broken, _breaking])
def test_a_library_that_fails_in_a_way_of_its_own_is_not_asked_again(
    caplog: pytest.LogCaptureFixture, opened: Callable[[], Nvml]
) -> None:
    watch = GpuWatch(opened)
    assert [_read(watch) for _ in range(3)] == [()] * 3
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "NVML could not be asked" in caplog.text


def test_a_driver_that_does_not_answer_holds_up_one_scrape_and_is_back_once_it_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    may_answer = Event()
    library = FakeNvml(10, before=lambda: assert_set(may_answer))
    watch = GpuWatch(lambda: Nvml(library))

    async def story() -> None:
        assert await watch.read(0.01) == ()
        # Had these waited, the test would run into its time limit.
        assert await watch.read(1e6) == ()
        assert await watch.read(1e6) == ()
        assert library.called["nvmlDeviceGetCount"] == 0
        reading = watch._reading
        assert reading is not None
        may_answer.set()
        await reading
        assert await watch.read(LONG_S) == ONE

    asyncio.run(story())
    assert caplog.text.count("has not answered") == 1


def test_a_loop_that_ended_meanwhile_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    may_answer, threads = Event(), []

    def before() -> None:
        threads.append(current_thread())
        assert_set(may_answer)

    watch = GpuWatch(lambda: Nvml(FakeNvml(10, before=before)))
    assert asyncio.run(watch.read(0.05)) == ()
    may_answer.set()
    for thread in threads:
        thread.join(LONG_S)
        assert not thread.is_alive()
    assert "could not" not in caplog.text


def assert_set(event: Event) -> None:
    assert event.wait(LONG_S)
