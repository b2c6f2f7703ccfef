"""The simulated model is exact, repeatable, and has its bad days on cue."""

from __future__ import annotations

import numpy as np
import pytest

from runtimes.errors import ModelFailed
from runtimes.simulated import Behaviour, SimulatedSession

X = np.array([[1, 2], [3, 4]], dtype=np.float32)


def test_each_row_is_answered_by_itself_and_by_the_seed() -> None:
    session = SimulatedSession(7)
    y = session.run({"x": X}, None)["y"]
    assert y.dtype == np.float32
    assert y.tolist() == [3 * session.scale + session.offset, 7 * session.scale + session.offset]
    assert SimulatedSession(7).run({"x": X[1:]}, ("y",))["y"].tolist() == y[1:].tolist()


def test_it_fits_its_own_signature() -> None:
    session = SimulatedSession()
    assert session.signature.check({"x": X}) == 2
    assert session.signature.batched
    assert not SimulatedSession(batched=False).signature.batched


def test_time_is_handed_to_the_pause() -> None:
    spent: list[int] = []
    session = SimulatedSession(behaviour=Behaviour(run_ns=100, row_ns=10), pause=spent.append)
    session.run({"x": X}, None)
    assert spent == [120]


def test_a_poisoned_row_fails_the_run() -> None:
    session = SimulatedSession(behaviour=Behaviour(poison=4.0))
    with pytest.raises(ModelFailed):
        session.run({"x": X}, None)
    session.run({"x": X[:1]}, None)


def test_a_row_that_hangs_calls_the_hang() -> None:
    hung: list[int] = []
    session = SimulatedSession(behaviour=Behaviour(hang_on=4.0), hang=lambda: hung.append(1))
    session.run({"x": X}, None)
    assert hung == [1]
    SimulatedSession(behaviour=Behaviour(hang_on=4.0)).run({"x": X}, None)


def test_it_may_depend_on_its_batch_or_lose_rows() -> None:
    mixing = SimulatedSession(behaviour=Behaviour(mixes_rows=True))
    alone = mixing.run({"x": X[:1]}, None)["y"][0]
    assert mixing.run({"x": X}, None)["y"][0] != alone
    assert mixing.run({"x": X[:0]}, None)["y"].shape == (0,)
    losing = SimulatedSession(behaviour=Behaviour(loses_rows=True))
    assert losing.run({"x": X}, None)["y"].shape == (1,)


def test_an_output_that_nobody_asked_for_is_not_given() -> None:
    assert SimulatedSession().run({"x": X}, ()) == {}


def test_close_is_noted() -> None:
    session = SimulatedSession()
    session.close()
    assert session.is_closed
