"""Scoring with the models that multiply: who answered, and with which factor.

Errors: Lost.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass

from bench.control.models import ROW
from bench.control.wire import Answer, Connection

DEPLOYMENT = "azureml-model-deployment"
ATTEMPTS = 100
BODY = json.dumps({"input_data": [list(ROW)]}).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """`factor` is 0 where the answer is not that of a model."""

    status: int
    deployment: str
    factor: int
    text: str = ""


def score_path(endpoint: str) -> str:
    return f"/endpoints/{endpoint}/score"


def score_headers(key: str, deployment: str = "") -> dict[str, str]:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    return {**headers, DEPLOYMENT: deployment} if deployment else headers


async def score(connection: Connection, endpoint: str, key: str, deployment: str = "") -> Score:
    answer = await connection.request("POST", score_path(endpoint), score_headers(key, deployment), BODY)
    return read(answer)


def read(answer: Answer) -> Score:
    factor = _factor(answer.body) if answer.status == 200 else 0
    text = "" if factor else str(answer)
    return Score(status=answer.status, deployment=answer.headers.get(DEPLOYMENT, ""), factor=factor, text=text)


async def one_a_scorer(url: str, context: ssl.SSLContext, scorers: int) -> list[Connection]:
    """Connections that lead to a scorer of their own each: request ids of one scorer begin alike."""
    found: dict[str, Connection] = {}
    for _ in range(ATTEMPTS):
        connection = Connection(url, context)
        answer = await connection.request("GET", "/nowhere", {})
        scorer = answer.headers["x-request-id"].rsplit("-", 1)[0]
        if scorer in found:
            connection.close()
        found.setdefault(scorer, connection)
        if len(found) == scorers:
            break
    return list(found.values())


def _factor(body: bytes) -> int:
    try:
        found = json.loads(body)
    except ValueError:
        return 0
    row = _row(found)
    if len(row) != len(ROW) or row[0] <= 0 or abs(row[1] - row[0] * ROW[1] / ROW[0]) > 1e-6:
        return 0
    return round(row[0] / ROW[0])


def _row(found: object) -> list[float]:
    """The numbers, however deep they lie."""
    while isinstance(found, dict | list) and found:
        if isinstance(found, list) and not isinstance(found[0], dict | list):
            return [float(number) for number in found]
        found = next(iter(found.values())) if isinstance(found, dict) else found[0]
    return []
