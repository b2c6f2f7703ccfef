"""A mirrored deployment that answers some rows differently: the counts of it are exact, and no caller notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest
from onnx import helper

from bench.control.management import endpoint_body, endpoint_path
from runtimes.tensor import Datatype
from tests.support.load import one_client_a_scorer
from tests.support.managed import Manager
from tests.support.models import build, fails_on_index, identity, value, weights
from tests.support.process import GatewayProcess, Metrics, deployment_yaml, endpoint_yaml, write_folder
from tests.support.waiting import eventually

# Green turns the last number's sign. So the largest entry is another where that was the last, and the differences
# are 1 and 80.
AGREES, DIFFERS = [9.0, 1.0, 2.0, 0.5], [1.0, 2.0, 3.0, 40.0]
BODIES = ([AGREES, AGREES, DIFFERS], [AGREES], [DIFFERS], [*[AGREES] * 4, DIFFERS])
ROWS, AGREEING = 10, 7
SCORERS = 2
# Of any 100 consecutive requests of a scorer, half are copied.
PERCENT, TIMES = 50, 100
COPIES = SCORERS * TIMES * PERCENT // 100


def _turned() -> bytes:
    shape = ("N", 4)
    return build(
        [helper.make_node("Mul", ["x", "sign"], ["y"])],
        [value("x", Datatype.FP32, shape)],
        [value("y", Datatype.FP32, shape)],
        [weights("sign", np.array([1, 1, 1, -1], np.float32))],
    )


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    place = tmp_path_factory.mktemp("mirror")
    files: dict[str, str | bytes] = {
        "same.onnx": identity(shape=("N", 4)),
        "turned.onnx": _turned(),
        "many.onnx": fails_on_index(100),
        "few.onnx": fails_on_index(2),
    }
    for name, blue, green in (("exact", "same.onnx", "turned.onnx"), ("failing", "many.onnx", "few.onnx")):
        files |= {
            f"{name}.yml": endpoint_yaml(name, traffic={"blue": 100}, mirror_traffic={"green": PERCENT}),
            f"{name}-blue.yml": deployment_yaml("blue", blue, name),
            f"{name}-green.yml": deployment_yaml("green", green, name),
        }
    with GatewayProcess(write_folder(place / "models", files), place / "state", scorers=SCORERS) as process:
        yield process


@pytest.fixture(scope="module")
def manager(gateway: GatewayProcess) -> Iterator[Manager]:
    with Manager(gateway) as found:
        yield found


def _ask(manager: Manager, endpoint: str, bodies: Sequence[Any], right: Callable[[Any], Any]) -> None:
    """Every body so many times, one after the other, on each scorer; blue answers them all."""
    with ExitStack() as stack:
        for client in one_client_a_scorer(stack, partial(manager.scoring, endpoint), SCORERS):
            for body in bodies:
                answers = [_score(client, endpoint, body) for _ in range(TIMES)]
                assert answers == [(200, "blue", right(body))] * TIMES


def _score(client: httpx.Client, endpoint: str, body: Any) -> tuple[int, str, Any]:
    reply = client.post(f"/endpoints/{endpoint}/score", json={"input_data": body})
    return reply.status_code, reply.headers["azureml-model-deployment"], reply.json()


def _counted(gateway: GatewayProcess, endpoint: str, copies: int) -> Metrics:
    """The page, once so many copies have ended."""

    def found() -> Metrics | None:
        page = gateway.metrics()
        return page if page.value("gateway_mirror_total", endpoint=endpoint) == copies else None

    found_page = eventually(found, f"{copies} copies of {endpoint}")
    assert found_page is not None
    return found_page


def test_agreement_is_counted_to_the_row(gateway: GatewayProcess, manager: Manager) -> None:
    _ask(manager, "exact", BODIES, lambda body: body)
    copies = COPIES * len(BODIES)
    page = _counted(gateway, "exact", copies)
    value = partial(page.value, endpoint="exact", deployment="green")
    assert value("gateway_mirror_total", outcome="answered") == copies
    assert value("gateway_mirror_compared_rows_total") == COPIES * ROWS
    assert value("gateway_mirror_agreeing_rows_total") == COPIES * AGREEING
    assert value("gateway_mirror_max_abs_difference") == 80
    # Of the four bodies, one differs by 1 at most.
    counts = {
        edge: value("gateway_mirror_abs_difference_bucket", le=edge) for edge in ("0.1", "1.0", "10.0", "100.0")
    }
    assert counts == {"0.1": 0, "1.0": COPIES, "10.0": COPIES, "100.0": copies}
    assert value("gateway_mirror_skipped_total") == value("gateway_mirror_nonfinite_total") == 0
    # Green served nobody.
    assert value("gateway_requests_total") == 0

    # What is shown is from the scorers' last reports; the page has asked for new ones.
    mirror = gateway.status()["endpoints"]["exact"]["deployments"]["green"]["mirror"]
    assert mirror["copies"]["answered"] == copies
    assert mirror["compared_rows"] == COPIES * ROWS
    assert mirror["top1_agreement"] == AGREEING / ROWS
    assert mirror["max_abs_difference"] == 80
    assert (mirror["skipped"], mirror["nonfinite"]) == ({}, 0)


def test_copies_that_fail_are_counted_and_nobody_sees_them(gateway: GatewayProcess, manager: Manager) -> None:
    # An id that blue has in its table, and green has not.
    _ask(manager, "failing", [[50]], lambda _: [[50.0]])
    page = _counted(gateway, "failing", COPIES)
    value = partial(page.value, endpoint="failing", deployment="green")
    assert value("gateway_mirror_total", outcome="failed") == COPIES
    assert value("gateway_mirror_skipped_total", reason="failed") == COPIES
    assert value("gateway_mirror_compared_rows_total") == 0
    mirror = gateway.status()["endpoints"]["failing"]["deployments"]["green"]["mirror"]
    assert mirror["skipped"] == {"failed": COPIES}
    assert mirror["top1_agreement"] is None


def test_without_its_share_the_mirror_gets_no_more_copies(gateway: GatewayProcess, manager: Manager) -> None:
    before = gateway.metrics().value("gateway_mirror_total", endpoint="exact")
    manager.do("PUT", endpoint_path("exact"), endpoint_body({"blue": 100}, {}))
    _ask(manager, "exact", BODIES[:1], lambda body: body)
    assert gateway.metrics().value("gateway_mirror_total", endpoint="exact") == before
