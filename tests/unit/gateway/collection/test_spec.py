"""What of a collector is the scorers' and what the script's."""

from __future__ import annotations

from dataclasses import replace

from gateway.collection.spec import CollectionSpec, CollectorSpec


def spec(*names: str) -> CollectorSpec:
    return CollectorSpec(source="s", collections=tuple(CollectionSpec(name=name, folder=name) for name in names))


def names(found: CollectorSpec | None) -> list[str]:
    return [one.name for one in found.collections] if found is not None else []


def test_request_and_response_are_the_scorers_and_all_else_the_scripts() -> None:
    both = spec("request", "model_inputs", "response")
    assert names(both.payloads()) == ["request", "response"]
    assert names(both.custom()) == ["model_inputs"]
    assert spec("request").custom() is None
    assert spec("model_inputs").payloads() is None


def test_what_only_concerns_payloads_changes_nothing_for_a_script() -> None:
    given = spec("request", "model_inputs")
    other = replace(given, headers=("x-tenant",), model_version="2")
    assert other.custom() == given.custom()
    assert other.payloads() != given.payloads()


def test_names_are_found_whatever_their_case() -> None:
    found = spec("Model_Inputs").named("model_inputs")
    assert found is not None
    assert found.name == "Model_Inputs"
    assert spec("a").named("b") is None
