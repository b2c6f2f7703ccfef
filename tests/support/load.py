"""Callers that never rest: threads that each score over a connection of their own until the block ends.

Every answer is kept as (status, deployment); what went wrong on the way (a reset, a time-out) is kept in `broken`.
A caller that names a scorer stays on its connection, and a connection stays on its scorer.
"""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any

import httpx

from tests.support.waiting import eventually

Answer = tuple[int, str]


class Hammer:
    """`with Hammer(client, post) as hammer:` calls `post` from every thread without a pause."""

    def __init__(
        self,
        make_client: Callable[[], httpx.Client],
        post: Callable[[httpx.Client], httpx.Response],
        callers: int = 3,
    ) -> None:
        self.answers: list[Answer] = []
        self.broken: list[str] = []
        self._make_client = make_client
        self._post = post
        self._stop = Event()
        self._lock = Lock()
        self._threads = [Thread(target=self._call, daemon=True) for _ in range(callers)]

    def __enter__(self) -> Hammer:
        for thread in self._threads:
            thread.start()
        self.go_on()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def go_on(self, answers: int = 30) -> None:
        """Returns after so many more answers."""
        before = len(self.answers)
        eventually(lambda: len(self.answers) >= before + answers, f"{answers} more answers")

    def since(self, place: int = 0) -> Counter[Answer]:
        """How often each answer came, from this place in `answers` on."""
        with self._lock:
            return Counter(self.answers[place:])

    def _call(self) -> None:
        with self._make_client() as client:
            while not self._stop.is_set():
                try:
                    reply = self._post(client)
                except (httpx.TransportError, ssl.SSLError, OSError) as error:
                    with self._lock:
                        self.broken.append(f"{type(error).__name__}: {error}")
                    continue
                with self._lock:
                    self.answers.append((reply.status_code, reply.headers.get("azureml-model-deployment", "")))


def in_thread(call: Callable[[], Any]) -> Callable[[], Any]:
    """Starts the call on a thread; the function that is returned waits for its result."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            found.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(60)
        assert found, "the call has not ended within 60 s"
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0]

    return result


def one_client_a_scorer(
    stack: ExitStack, make_client: Callable[[], httpx.Client], scorers: int = 2
) -> list[httpx.Client]:
    """Clients whose one connection each leads to a scorer of its own: request ids of one scorer begin alike."""
    found: dict[str, httpx.Client] = {}
    for _ in range(200):
        client = stack.enter_context(make_client())
        scorer = client.get("/nowhere").headers["x-request-id"].rsplit("-", 1)[0]
        if scorer in found:
            client.close()
        found.setdefault(scorer, client)
        if len(found) == scorers:
            return list(found.values())
    raise AssertionError(f"200 connections all went to {len(found)} of {scorers} scorers")
