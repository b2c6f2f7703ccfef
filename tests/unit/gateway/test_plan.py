"""From resources to a snapshot's plain data."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.controlplane.model_store import StoredModel
from gateway.controlplane.plan import Defaults, Secrets, bounded, plan
from gateway.resources import AuthMode, Deployment, Desired, Endpoint, LocalModel, Oidc
from runtimes import BatchingSpec

DEFAULTS = Defaults(body_bytes_max=1000, cache_dir="/state/cache")
MODEL = LocalModel(path=Path("/models/a.onnx"))
STORED = StoredModel(path=Path("/state/a.onnx"), origin="/models/a.onnx", sha256="abc")


def desired(**changes: object) -> Desired:
    blue = Deployment(name="Blue", endpoint_name="Digits", model=MODEL, **changes)  # type: ignore[arg-type]
    green = Deployment(name="green", endpoint_name="Digits", model=MODEL, max_body_bytes=5)
    return Desired(
        endpoints={"digits": Endpoint(name="Digits", traffic={"Blue": 100}, mirror_traffic={"Green": 10})},
        deployments={("digits", "blue"): blue, ("digits", "green"): green},
    )


def planned(what: Desired, seats: dict[str, int] | None = None) -> object:
    return plan(
        what,
        revision=4,
        secrets={name: Secrets(key_digests=(b"d",)) for name in what.endpoints},
        models={MODEL: STORED},
        seats=seats or {},
        defaults=DEFAULTS,
    )


def test_a_plan_is_a_function_of_what_is_desired() -> None:
    assert planned(desired()) == planned(desired())
    assert planned(desired(request_timeout_ms=7)) != planned(desired())


def test_names_are_keys_in_lower_case_and_spelled_as_written() -> None:
    spec = plan(
        desired(request_timeout_ms=250, max_queue_wait_ms=20),
        revision=4,
        secrets={"digits": Secrets(key_digests=(b"d",))},
        models={MODEL: STORED},
        seats={},
        defaults=DEFAULTS,
    )
    endpoint = spec.endpoints["digits"]
    assert (spec.revision, endpoint.name, endpoint.traffic, endpoint.mirror) == (
        4,
        "Digits",
        {"blue": 100},
        {"green": 10},
    )
    blue, green = endpoint.deployments["blue"], endpoint.deployments["green"]
    assert (blue.name, blue.runtime.path, blue.runtime.sha256) == ("Blue", "/state/a.onnx", "abc")
    assert blue.runtime.origin == "/models/a.onnx"
    assert (blue.request_timeout_ns, blue.queue_wait_ns) == (250_000_000, 20_000_000)
    assert (blue.body_bytes_max, green.body_bytes_max) == (1000, 5)
    assert (blue.pending_max, blue.seat) == (0, -1)
    assert blue.runtime.batching == BatchingSpec()


def test_pending_requests_are_bounded_where_the_yaml_says_so() -> None:
    what = desired(max_concurrent_requests_per_instance=3, instance_count=2)
    assert list(bounded(what)) == ["digits/blue"]
    spec = plan(
        what,
        revision=1,
        secrets={"digits": Secrets()},
        models={MODEL: STORED},
        seats={"digits/blue": 9},
        defaults=DEFAULTS,
    )
    blue = spec.endpoints["digits"].deployments["blue"]
    assert (blue.pending_max, blue.seat) == (12, 9)


@pytest.mark.parametrize(
    ("slo_ms", "slo_ns"), [(None, 0), (40, 40_000_000), (0.001, 1_000), (12.3456, 12_346_000), (1.1, 1_100_000)]
)
def test_an_slo_is_planned_to_a_microsecond(slo_ms: float | None, slo_ns: int) -> None:
    what = Desired(endpoints={"e": Endpoint(name="e", slo_ms=slo_ms)}, deployments={})
    spec = plan(what, revision=1, secrets={"e": Secrets()}, models={}, seats={}, defaults=DEFAULTS)
    assert spec.endpoints["e"].slo_ns == slo_ns


def test_an_oidc_endpoint_carries_its_rules() -> None:
    oidc = Oidc(issuer="https://issuer", audience="ml", required_roles=("score",))
    what = Desired(endpoints={"e": Endpoint(name="e", auth_mode=AuthMode.AAD_TOKEN, oidc=oidc)}, deployments={})
    spec = plan(what, revision=1, secrets={"e": Secrets()}, models={}, seats={}, defaults=DEFAULTS)
    auth = spec.endpoints["e"].auth
    assert auth.mode == "aad_token"
    assert auth.oidc is not None
    assert (auth.oidc.issuer, auth.oidc.audience, auth.oidc.required_roles) == ("https://issuer", "ml", ("score",))
