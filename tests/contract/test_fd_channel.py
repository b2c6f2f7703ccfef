"""Descriptors that travel from one process to another under a name."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

import pytest

from gateway import fd_channel
from gateway.fd_channel import FdInbox


def told(story: Callable[[socket.socket, FdInbox], Awaitable[None]]) -> None:
    async def run() -> None:
        ours, theirs = fd_channel.pair()
        inbox = FdInbox(theirs)
        inbox.attach(asyncio.get_running_loop())
        try:
            await story(ours, inbox)
        finally:
            ours.close()
            inbox.close()
            inbox.close()

    asyncio.run(run())


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_who_waits_for_a_name_gets_its_sockets_and_they_work() -> None:
    async def story(ours: socket.socket, inbox: FdInbox) -> None:
        one, other = socket.socketpair()
        waiting = asyncio.create_task(inbox.wait_for("pool", 5))
        await asyncio.sleep(0)
        await fd_channel.send(ours, "another", (one.fileno(),))
        await fd_channel.send(ours, "pool", (one.fileno(), one.fileno()))
        got, _ = sockets = await waiting
        got.send(b"x")
        assert other.recv(1) == b"x"
        for sock in (one, other, *sockets, *await inbox.wait_for("pool", 5)):
            sock.close()

    told(story)


def test_what_does_not_come_is_not_waited_for_longer_than_asked() -> None:
    async def story(ours: socket.socket, inbox: FdInbox) -> None:
        with pytest.raises(TimeoutError):
            await inbox.wait_for("pool", 0.01)

    told(story)


def test_a_name_that_is_taken_back_or_given_anew_leaves_no_descriptor() -> None:
    async def story(ours: socket.socket, inbox: FdInbox) -> None:
        one, other = socket.socketpair()
        before = open_fds()
        for _ in range(3):
            await fd_channel.send(ours, "pool", (one.fileno(), other.fileno()))
        await fd_channel.send(ours, "end", (one.fileno(),))
        (end,) = await inbox.wait_for("end", 5)
        end.close()
        assert open_fds() == before + 3
        await fd_channel.send(ours, "pool", ())
        await fd_channel.send(ours, "end", ())
        await fd_channel.send(ours, "last", (one.fileno(),))
        (last,) = await inbox.wait_for("last", 5)
        last.close()
        assert open_fds() == before + 1
        with pytest.raises(TimeoutError):
            await inbox.wait_for("pool", 0.01)
        one.close()
        other.close()

    told(story)


def test_a_slow_receiver_is_waited_for_and_a_gone_one_is_an_error() -> None:
    async def story(ours: socket.socket, inbox: FdInbox) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(inbox._sock.fileno())
        sending = asyncio.create_task(flood(ours))
        while not sending.done() and len(asyncio.all_tasks()) < 2:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert not sending.done()
        inbox.attach(loop)
        await sending
        inbox.close()
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            await fd_channel.send(ours, "x", ())

    async def flood(ours: socket.socket) -> None:
        for number in range(2000):
            await fd_channel.send(ours, f"label {number}", ())

    told(story)


def test_a_name_without_letters_is_refused() -> None:
    async def story(ours: socket.socket, inbox: FdInbox) -> None:
        with pytest.raises(ValueError, match="a label has"):
            await fd_channel.send(ours, "", ())

    told(story)


def test_an_inbox_whose_sender_is_gone_is_closed() -> None:
    async def story(ours: socket.socket, inbox: FdInbox) -> None:
        ours.close()
        while inbox._loop is not None:
            await asyncio.sleep(0)

    told(story)
