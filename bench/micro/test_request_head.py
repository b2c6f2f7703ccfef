"""What is decided from a request's head, and counted at its end: authenticate, route, record."""

from __future__ import annotations

import itertools
import time

from pytest_benchmark.fixture import BenchmarkFixture

from gateway.credentials import digest, make_key, sign_token
from gateway.dataplane.authenticate import Authenticator
from gateway.dataplane.route import cycle, named, weighted
from gateway.snapshot import AuthSpec
from gateway.telemetry.record import DeploymentRecord

DEPLOYMENTS = {"blue": "blue", "green": "green"}


def test_authenticate_a_key(benchmark: BenchmarkFixture) -> None:
    keys = make_key(), make_key()
    spec = AuthSpec(mode="key", key_digests=tuple(digest(key) for key in keys))
    authenticator = Authenticator(spec, "digits")
    benchmark(authenticator.authenticate, b"Bearer " + keys[1].encode(), time.time())


def test_authenticate_a_token_that_was_seen_before(benchmark: BenchmarkFixture) -> None:
    secret = bytes(range(64))
    now_s = time.time()
    authenticator = Authenticator(AuthSpec(mode="aml_token", token_secret=secret), "digits")
    token = sign_token("digits", secret, 3600, now_s)
    header = b"Bearer " + token.access_token.encode()
    authenticator.authenticate(header, now_s)
    benchmark(authenticator.authenticate, header, now_s)


def test_route_by_weight(benchmark: BenchmarkFixture) -> None:
    choices, turns = cycle({"blue": 90, "green": 10}), itertools.count()
    chosen = benchmark(lambda: weighted(DEPLOYMENTS, {}, choices, next(turns), "digits"))
    assert chosen in DEPLOYMENTS


def test_route_by_name(benchmark: BenchmarkFixture) -> None:
    assert benchmark(named, DEPLOYMENTS, {}, "green", "digits") == "green"


def test_record_an_answer(benchmark: BenchmarkFixture) -> None:
    record = DeploymentRecord()
    benchmark(record.answered, 200, 900_000, 30_000, 40_000, 500_000, 10_000)
