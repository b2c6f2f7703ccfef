"""The wall clock of the machine is put ahead or back under way: what is written keeps its order and its meaning.

The real control plane, REST and store, with a clock that the test moves. Orders and newest versions come from the
store's own numbers; only what must end at a time of day looks at the clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.controlplane.authorize import Role
from gateway.controlplane.housekeeping import EVERY_S, JUMP_S, Housekeeping
from tests.support.house import House

DAY_S = 86_400.0
JUMPS = pytest.mark.parametrize(
    "jump_s", [-365 * DAY_S, -5.0, 5.0, 365 * DAY_S], ids=["a year back", "5 s back", "5 s ahead", "a year ahead"]
)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


def _good(answer: Any) -> dict[str, Any]:
    assert answer.status_code in (200, 201, 202), answer.text
    return dict(answer.json()) if answer.content else {}


@JUMPS
def test_changes_before_and_after_a_jump_are_carried_out_and_told_in_their_order(house: House, jump_s: float) -> None:
    house.add_model()
    _good(house.add_endpoint())
    _good(house.add_deployment("blue"))
    house.settle()
    house.now_s += jump_s
    _good(house.add_deployment("green"))
    house.settle()
    _good(house.add_endpoint(traffic={"green": 100}))
    house.settle()
    house.now_s -= 2 * jump_s
    _good(house.delete(house.ws("/onlineEndpoints/digits/deployments/blue")))
    house.settle()
    shown = _good(house.get(house.ws("/onlineEndpoints/digits")))["properties"]
    assert (shown["traffic"], shown["provisioningState"]) == ({"green": 100}, "Succeeded")
    listed = _good(house.get(house.ws("/onlineEndpoints/digits/deployments")))["value"]
    assert [one["name"] for one in listed] == ["green"]
    targets = [entry["target"].replace("/", " ").split()[-1] for entry in _audit(house)]
    assert list(dict.fromkeys(reversed(targets))) == ["1", "digits", "blue", "green"]
    assert targets[0] == "blue"


def _audit(house: House) -> list[dict[str, Any]]:
    return list(_good(house.get("/audit"))["value"])


@JUMPS
def test_the_newest_version_is_the_one_that_was_registered_last(house: House, jump_s: float) -> None:
    house.add_model(version="1")
    house.now_s += jump_s
    house.add_model(version="2")
    container = _good(house.get(house.ws("/models/digits")))["properties"]
    assert (container["latestVersion"], container["nextVersion"]) == ("2", "3")
    newest = house.get(house.ws("/models/digits/versions?$orderBy=createdtime desc&$top=1"))
    assert [one["name"] for one in _good(newest)["value"]] == ["2"]


@JUMPS
def test_keys_and_tokens_without_an_end_open_whatever_the_clock_says(house: House, jump_s: float) -> None:
    _good(house.add_endpoint())
    forever = house.add_token("ci", Role.OPERATOR)
    keys = _good(house.post(house.ws("/onlineEndpoints/digits/listKeys")))
    house.now_s += jump_s
    assert house.get(house.ws("/onlineEndpoints"), token=forever).status_code == 200
    assert _good(house.post(house.ws("/onlineEndpoints/digits/listKeys"), token=forever)) == keys


def test_a_token_with_an_end_ends_by_the_clock_and_says_so_in_azures_shape(house: House) -> None:
    short = house.add_token("night", Role.READER, lifetime_s=3600)
    house.now_s += 2 * 3600
    answer = house.get(house.ws("/onlineEndpoints"), token=short)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "InvalidAuthenticationToken"


def test_an_operation_that_ends_before_it_began_is_told_as_it_was(house: House) -> None:
    house.add_model()
    _good(house.add_endpoint())
    house.scorers.may_load.clear()
    began = house.add_deployment("blue")
    assert _good(began)["properties"]["provisioningState"] == "Creating"
    house.now_s -= DAY_S
    house.scorers.may_load.set()
    house.settle()
    status = _good(house.get(began.headers["azure-asyncoperation"].removeprefix("https://gateway.example:8444")))
    assert status["status"] == "Succeeded"
    assert status["endTime"] < status["startTime"]


@pytest.mark.parametrize(("ahead_s", "rounds"), [(0.0, 2), (JUMP_S + 1, 1), (365 * DAY_S, 1)])
def test_nothing_is_removed_in_the_hour_in_which_the_clock_was_put_ahead(
    house: House, ahead_s: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[float] = []
    jumps = [ahead_s, 0.0]

    async def sleep(seconds: float) -> None:
        if not jumps:
            raise asyncio.CancelledError
        house.now_s += seconds + jumps.pop(0)

    async def once() -> None:
        done.append(house.now_s)

    keeper = Housekeeping(house.control, None, None, sleep=sleep)  # type: ignore[arg-type]
    monkeypatch.setattr(keeper, "once", once)
    began_s = house.now_s
    with pytest.raises(asyncio.CancelledError):
        house.run(keeper.run())
    assert len(done) == rounds
    assert done[-1] == began_s + ahead_s + 2 * EVERY_S
