"""Rules over all that shall be served, given as plain values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.controlplane.rules import Known, Limits, check
from gateway.resources import AuthMode, Deployment, Endpoint, LocalModel, Oidc, Scale

ENDPOINT = Endpoint(name="digits", source="e.yml")
BLUE = Deployment(
    name="blue", endpoint_name="digits", model=LocalModel(path=Path("/m.onnx")), instance_type="cpu", source="b.yml"
)
GREEN = replace(BLUE, name="green", source="g.yml")


def said(
    *deployments: Deployment, limits: Limits | None = None, known: Known | None = None, **more: Any
) -> list[str]:
    """What is said of one endpoint with these fields and these deployments."""
    return check([replace(ENDPOINT, **more)], deployments, limits or Limits(), known or Known())


@pytest.mark.parametrize("name", ["abc", "A-1", "a" * 32, "a--b", "Z9z"])
def test_good_names_are_accepted(name: str) -> None:
    assert (
        check([replace(ENDPOINT, name=name)], [replace(BLUE, name=name, endpoint_name=name)], Limits(), Known()) == []
    )


@pytest.mark.parametrize("name", ["", "ab", "a" * 33, "1ab", "ab-", "-ab", "a_b", "a.b", "äbc", "abc\n", "a b"])
def test_bad_names_are_refused_with_the_rule(name: str) -> None:
    (problem,) = check([replace(ENDPOINT, name=name)], [], Limits(), Known())
    assert problem.startswith(f"e.yml: name: found {name!r}; accepted: 3 to 32 characters")
    (problem,) = said(replace(BLUE, name=name))
    assert problem.startswith(f"b.yml: name: found {name!r}; accepted: 3 to 32 characters")


def test_names_are_unique_whatever_their_case() -> None:
    other = replace(ENDPOINT, name="DIGITS", source="f.yml")
    assert check([ENDPOINT, other], [], Limits(), Known()) == [
        "f.yml: name: endpoint 'DIGITS' is in e.yml too; names are unique whatever their case"
    ]
    assert said(BLUE, replace(BLUE, name="Blue", endpoint_name="Digits", source="c.yml")) == [
        "c.yml: name: deployment 'Blue' of endpoint 'Digits' is in b.yml too; names are unique in any case"
    ]


@pytest.mark.parametrize(
    "traffic", [{}, {"blue": 0}, {"blue": 100}, {"blue": 90, "green": 10}, {"blue": 0, "green": 100}]
)
def test_traffic_that_sums_to_0_or_100_is_accepted(traffic: dict[str, int]) -> None:
    assert said(BLUE, GREEN, traffic=traffic) == []


def test_other_sums_are_refused_with_the_sum() -> None:
    assert said(BLUE, GREEN, traffic={"blue": 90, "green": 11}) == [
        "e.yml: traffic: blue: 90, green: 11 sums to 101; accepted: a sum of 0 or 100"
    ]
    negative = said(BLUE, GREEN, traffic={"blue": -10, "green": 110})
    assert [one.split(";")[0] for one in negative] == [
        "e.yml: traffic.blue: found -10",
        "e.yml: traffic.green: found 110",
    ]


def test_shares_of_unknown_deployments_are_refused_with_the_nearest() -> None:
    assert said(BLUE, GREEN, traffic={"gren": 100}) == [
        "e.yml: traffic.gren: endpoint 'digits' has no deployment 'gren'; did you mean green?"
    ]
    assert said(BLUE, mirror_traffic={"other": 10}) == [
        "e.yml: mirror_traffic.other: endpoint 'digits' has no deployment 'other'; accepted: blue"
    ]
    assert said(traffic={"blue": 0}) == [
        "e.yml: traffic.blue: endpoint 'digits' has no deployment 'blue'; it has none at all"
    ]


def test_names_that_broken_files_would_have_given_are_not_missed() -> None:
    known = Known(endpoints=frozenset({"letters"}), deployments=frozenset({("digits", "green")}))
    assert said(replace(BLUE, endpoint_name="Letters"), known=known, traffic={"green": 100}) == []
    lost = replace(BLUE, endpoint_name="nowhere")
    assert said(lost, known=Known(complete=False), traffic={"green": 100}) == []


def test_a_deployment_needs_its_endpoint() -> None:
    assert said(replace(BLUE, endpoint_name="digit")) == [
        "b.yml: endpoint_name: there is no endpoint 'digit'; did you mean digits?"
    ]
    assert check([], [BLUE], Limits(), Known()) == [
        "b.yml: endpoint_name: there is no endpoint 'digits'; the folder has no endpoint at all"
    ]


def test_one_mirror_of_up_to_50_percent_without_traffic_is_accepted() -> None:
    assert said(BLUE, GREEN, traffic={"blue": 100}, mirror_traffic={"green": 50}) == []
    assert said(BLUE, traffic={"blue": 100}, mirror_traffic={"blue": 0}) == []


@pytest.mark.parametrize(
    ("mirror", "problem"),
    [
        ({"green": 51}, "mirror_traffic.green: found 51; accepted: an integer from 0 to 50"),
        ({"green": 1, "red": 1}, "mirror_traffic: found green, red; accepted: at most one deployment"),
        ({"blue": 10}, "mirror_traffic.blue: 'blue' has 100 percent of traffic too; accepted: one of the two"),
    ],
)
def test_other_mirrors_are_refused(mirror: dict[str, int], problem: str) -> None:
    red = replace(BLUE, name="red")
    assert said(BLUE, GREEN, red, traffic={"blue": 100}, mirror_traffic=mirror) == [f"e.yml: {problem}"]


def test_kubernetes_takes_no_mirror_and_no_aad_token() -> None:
    oidc = Oidc(issuer="https://i", audience="a")
    found = said(GREEN, kind="kubernetes", mirror_traffic={"green": 1}, auth_mode=AuthMode.AAD_TOKEN, oidc=oidc)
    assert found == [
        "e.yml: mirror_traffic: found on a kubernetes endpoint; accepted: managed endpoints only (remove compute)",
        "e.yml: auth_mode: found aad_token on a kubernetes endpoint; accepted: key, aml_token",
    ]


def test_aad_token_needs_token_rules() -> None:
    assert said(auth_mode=AuthMode.AAD_TOKEN, oidc=Oidc(issuer="https://i", audience="a")) == []
    (problem,) = said(auth_mode=AuthMode.AAD_TOKEN)
    assert "give gateway.oidc (issuer, audience) or the settings oidc_issuer and oidc_audience" in problem


def test_kubernetes_bounds_both_names_together() -> None:
    long = replace(BLUE, name="b" * 32, endpoint_name="d" * 31, kind="kubernetes")
    problems = check([replace(ENDPOINT, name="d" * 31)], [long], Limits(), Known())
    assert problems == ["b.yml: name: with endpoint_name it has 63 characters; accepted on kubernetes: 6 to 62"]
    assert said(replace(BLUE, kind="kubernetes", instance_type="")) == []


def test_a_managed_deployment_needs_an_instance_type() -> None:
    (problem,) = said(replace(BLUE, instance_type=""))
    assert problem.startswith("b.yml: instance_type: missing; accepted: an Azure size")


def test_timeouts_are_bounded_by_kind() -> None:
    assert said(replace(BLUE, request_timeout_ms=180_000)) == []
    assert said(replace(BLUE, request_timeout_ms=300_000, kind="kubernetes")) == []
    assert said(replace(BLUE, request_timeout_ms=180_001)) == [
        "b.yml: request_settings.request_timeout_ms: found 180001; accepted for managed: an integer from 1 to 180000"
    ]


def test_gpu_settings_need_a_gpu_provider() -> None:
    assert said(replace(BLUE, device_ids=(0,), gpu_memory_bytes=1, provider="cuda")) == []
    (problem,) = said(replace(BLUE, device_ids=(0,)))
    assert (
        problem
        == "b.yml: gateway.runtime.device_ids: found with provider cpu; accepted with provider cuda or tensorrt"
    )
    (problem,) = said(replace(BLUE, gpu_memory_bytes=1))
    assert "gpu_memory_mb" in problem


def test_sessions_and_what_autoscale_may_add_are_bounded_as_instances_are() -> None:
    limits = Limits(instances_per_deployment=8)
    four = replace(BLUE, instance_count=2, sessions=4)
    setting = "(setting instances_per_deployment_max)"
    group = "instances of 4 sessions each (instance_group of config.pbtxt)"
    assert said(four, replace(GREEN, scale=Scale(max_instances=8)), limits=limits) == []
    assert said(
        replace(four, instance_count=3, scale=Scale(max_instances=4)),
        replace(GREEN, scale=Scale(max_instances=9)),
        limits=limits,
    ) == [
        f"b.yml: instance_count: found 3 {group}; accepted: an integer from 1 to 2 {setting}",
        f"b.yml: scale_settings.max_instances: found 4 {group}; accepted: an integer from 1 to 2 {setting}",
        f"g.yml: scale_settings.max_instances: found 9; accepted: an integer from 1 to 8 {setting}",
    ]
    (problem,) = said(replace(BLUE, sessions=9), limits=limits)
    assert problem.endswith(f"accepted: at most 8 sessions {setting}")


def test_limits_hold_exactly_and_name_their_setting() -> None:
    limits = Limits(endpoints=1, deployments=2, deployments_per_endpoint=2, instances_per_deployment=3)
    red = replace(BLUE, name="red", instance_count=4, source="r.yml")
    other = replace(ENDPOINT, name="letters", source="f.yml")
    assert check([ENDPOINT], [BLUE, replace(GREEN, instance_count=3)], limits, Known()) == []
    assert check([ENDPOINT, other], [BLUE, GREEN, red], limits, Known()) == [
        "r.yml: instance_count: found 4; accepted: an integer from 1 to 3 (setting instances_per_deployment_max)",
        "found 2 endpoints; accepted: at most 1 (setting endpoints_max)",
        "found 3 deployments; accepted: at most 2 (setting deployments_max)",
        "e.yml: endpoint 'digits' has 3 deployments; accepted: at most 2 (setting deployments_per_endpoint_max)",
    ]
