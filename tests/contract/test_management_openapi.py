"""schemathesis against the management listener: every operation, every check, in one process.

What is looked for: no answer of 5xx, no status, header, content type or body that the document does not have, nothing
accepted that the document forbids, nothing refused that it allows, no route that forgets its credentials.
Two statuses are told to be refusals that a valid request may meet, because no schema can say what decides: 412 (the
caller's own condition), and for bodies 400 (what the sentences of the refusal say: a model that is not there ...).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import from_schema
from schemathesis.engine.events import FatalError, NonFatalError, PhaseFinished, ScenarioFinished

from tests.support.house import FIRST_TOKEN, House

_ACCEPTED = ["2xx", "3xx", "401", "403", "404", "409", "412"]
CONFIG = {
    "seed": 1,
    "headers": {"Authorization": f"Bearer {FIRST_TOKEN}"},
    "generation": {"max-examples": 4, "database": "none", "allow-x00": False},
    "checks": {"positive_data_acceptance": {"expected-statuses": _ACCEPTED}},
    "operations": [
        {
            "include-method": ["PUT", "POST", "PATCH"],
            "checks": {"positive_data_acceptance": {"expected-statuses": [*_ACCEPTED, "400"]}},
        }
    ],
    "continue-on-failure": True,
}
# Fewer would mean that the phases were left out.
REQUESTS_MIN = 2000


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    found = House(tmp_path)
    found.add_model()
    found.add_endpoint()
    found.add_deployment()
    yield found
    found.close()


def failures_of(event: ScenarioFinished) -> Iterator[str]:
    for case, checks in event.recorder.checks.items():
        for check in checks:
            if check.failure_info is not None:
                exchange = event.recorder.interactions.get(case)
                sent = f"{exchange.request.method} {exchange.request.uri}" if exchange else "?"
                yield f"{event.recorder.label}: {check.failure_info.failure.message}\n  {sent}"


@pytest.mark.timeout(240)
def test_the_listener_does_what_its_document_says(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    schema = schemathesis.openapi.from_asgi("/openapi.json", house.app, config=SchemathesisConfig.from_dict(CONFIG))
    failures: list[str] = []
    statuses: dict[int, int] = {}
    phases: list[Any] = []
    for event in from_schema(schema).execute():
        match event:
            case ScenarioFinished():
                failures += failures_of(event)
                for exchange in event.recorder.interactions.values():
                    if exchange.response is not None:
                        status = exchange.response.status_code
                        statuses[status] = statuses.get(status, 0) + 1
            case NonFatalError() | FatalError():
                failures.append(str(event.__dict__))
            case PhaseFinished():
                phases.append(event.phase.name.value)
            case _:
                pass
    assert failures == []
    assert {"coverage", "fuzzing", "stateful"} <= set(phases)
    assert sum(statuses.values()) >= REQUESTS_MIN
    assert not [status for status in statuses if status >= 500]
