"""What a rollout may say, and what is said of one that may not be."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.controlplane.decode import decode
from gateway.controlplane.rollout.document import RolloutYaml, check, rollout_of
from gateway.errors import Code, Problem
from gateway.yaml_text import read_documents


def made(**more: Any) -> RolloutYaml:
    properties = {"from": "blue", "to": "green", **more}
    return msgspec.convert({"name": "r1", "endpoint_name": "e1", **properties}, RolloutYaml)


def test_two_names_are_enough_for_a_rollout() -> None:
    rollout = rollout_of("E1", "r1", {"from": "Blue", "to": "GREEN"})
    assert (rollout.endpoint, rollout.old, rollout.new) == ("e1", "blue", "green")
    assert (rollout.steps, rollout.hold_s, rollout.stall_s, rollout.on_failure) == (
        (1, 10, 50, 100),
        300,
        3600,
        "roll_back",
    )
    guards = rollout.guards
    assert (guards.error_ratio_increase_max, guards.p99_ratio_max, guards.p99_floor_ms, guards.requests_min) == (
        0.01,
        1.5,
        5.0,
        50,
    )


def test_null_is_not_given_and_names_may_be_repeated() -> None:
    properties = {"from": "a", "to": "b", "steps": None, "name": "R1", "endpoint_name": "E1"}
    assert rollout_of("e1", "r1", properties).steps == (1, 10, 50, 100)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"name": "-x"}, "name: found '-x'; accepted: 1 to 64 letters"),
        ({"name": "a/b"}, "name: found 'a/b'"),
        ({"name": "a\n"}, "name: found 'a\\n'"),
        ({"from": ""}, "from: found nothing; accepted: the name of a deployment"),
        ({"to": "Blue"}, "to: found 'Blue', which is `from` too; accepted: another deployment"),
        ({"steps": []}, "steps: found none; accepted: rising percentages, the last of which is 100"),
        ({"steps": [10, 10, 100]}, "steps: found 10, 10, 100; accepted"),
        ({"steps": [1, 50]}, "steps: found 1, 50; accepted"),
        ({"stall_s": 5}, "stall_s: found 5; accepted: at least hold_s, which is 300"),
    ],
)
def test_a_mistake_is_one_sentence(more: dict[str, Any], said: str) -> None:
    (sentence,) = check(made(**more))
    assert sentence.startswith(said)


def test_all_mistakes_are_said_at_once() -> None:
    with pytest.raises(Problem) as caught:
        rollout_of("e1", "r1", {"from": "blue", "to": "blue", "steps": [3]})
    assert caught.value.code is Code.INVALID_INPUT
    assert len(caught.value.details) == 2
    assert all(detail in caught.value.message for detail in caught.value.details)


@pytest.mark.parametrize(
    "properties",
    [
        {"from": "a"},
        {"from": "a", "to": "b", "speed": 1},
        {"from": "a", "to": "b", "steps": [0, 100]},
        {"from": "a", "to": "b", "steps": list(range(80, 101))},
        {"from": "a", "to": "b", "hold_s": "long"},
        {"from": "a", "to": "b", "guards": {"p99_ratio_max": 0.5}},
        {"from": "a", "to": "b", "on_failure": "shrug"},
        {"from": "a", "to": "b", "name": "other"},
        {"from": "a", "to": "b", "endpoint_name": 7},
    ],
)
def test_what_cannot_be_read_is_invalid_input(properties: dict[str, Any]) -> None:
    with pytest.raises(Problem) as caught:
        rollout_of("e1", "r1", properties)
    assert caught.value.code is Code.INVALID_INPUT


def test_a_rollout_can_be_read_from_yaml_with_the_decoder_of_all_documents() -> None:
    text = b"name: r1\nendpoint_name: e1\nfrom: blue\nto: green\nsteps: [5, 100]\nguards: {requests_min: 7}\n"
    (document,), broken = read_documents(text)
    rollout, mistakes = decode(document, RolloutYaml)
    assert not broken and not mistakes
    assert rollout is not None
    assert (rollout.steps, rollout.guards.requests_min) == ((5, 100), 7)
