"""After a restart: is everything there that was acknowledged, does it do what it says, and is nothing half-made?

Reads over REST, scores on every scorer, and looks into the state folder and a copy of the database.
Every function returns sentences about what is wrong; none means that all is well.
Units: seconds.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.control import management as at
from bench.control.ledger import AnyBut, Change, Facts, World, differences, expected
from bench.control.management import CHANGING, Management
from bench.control.scoring import score
from bench.control.stream import Client
from bench.control.wire import Connection

Body = dict[str, Any]

SETTLED_WITHIN_S = 15.0
DEAD_KEYS_TRIED = 3
DATABASE = "gateway.db"
# What writers of the gateway call a file until it is whole.
TEMPORARY = ("unfinished-*", "upload-*", ".*.*")


async def settled(management: Management) -> tuple[list[Body], list[Body], list[str]]:
    """Endpoints and deployments once nothing is under way, and what never got there."""
    ends_s = time.monotonic() + SETTLED_WITHIN_S
    while True:
        endpoints = await management.listed(at.ENDPOINTS)
        moving = [_said(one) for one in endpoints if _state(one) in CHANGING]
        deployments: list[Body] = []
        for one in endpoints if not moving else ():
            deployments += await management.listed(f"{at.endpoint_path(one['name'])}/deployments")
        moving += [_said(one) for one in deployments if _state(one) in CHANGING]
        # A delete that ends between the two looks changes what the first one saw.
        if not moving and endpoints == await management.listed(at.ENDPOINTS):
            return endpoints, deployments, []
        if time.monotonic() > ends_s:
            return endpoints, deployments, [f"{', '.join(moving)} {SETTLED_WITHIN_S:.0f} s after the restart"]
        await asyncio.sleep(at.POLL_S)


async def check(management: Management, scorers: Sequence[Connection], clients: Sequence[Client]) -> list[str]:
    """Everything; the doubts of the clients are settled by what is found."""
    endpoints, deployments, faults = await settled(management)
    found: Facts = {}
    for one in endpoints:
        faults += await _read_endpoint(management, one, found)
    for one in deployments:
        _read_deployment(one, found)
    for client in clients:
        await _read_models(management, client, found)
        faults += await _check_client(management, scorers, client, _of(client, found))
    known = tuple(f"-{client.name}" for client in clients)
    faults += [f"{' '.join(key)} belongs to nobody" for key in found if not any(mark in key[1] for mark in known)]
    return faults


async def _check_client(
    management: Management, scorers: Sequence[Connection], client: Client, found: Facts
) -> list[str]:
    # What answers is looked at before it is decided whether a change happened: it belongs to the facts.
    faults = await _read_answers(scorers, found)
    world, unlike = _nearest(client.world, client.doubt, found)
    faults += unlike
    client.counts["doubts that had happened"] += client.doubt is not None and world is not client.world
    client.counts["doubts that had not"] += client.doubt is not None and world is client.world
    client.world, client.doubt = world, None
    for name, endpoint in world.endpoints.items():
        endpoint.primary, endpoint.secondary = found.get(("primary", name), ""), found.get(("secondary", name), "")
        faults += await _check_traffic(scorers, name, endpoint.traffic, endpoint.primary)
    faults += await _check_dead_keys(scorers, world)
    for operation in list(client.open):
        await client.settle(management, operation)
    return [f"client {client.name}: {fault}" for fault in faults]


def _nearest(world: World, doubt: Change | None, found: Facts) -> tuple[World, list[str]]:
    """The world that is found: the acknowledged one, or that with the change in doubt."""
    unlike = differences(expected(world), found)
    if not unlike or doubt is None:
        return world, unlike
    other = world.copy()
    doubt.apply(other)
    others = differences(expected(other), found)
    if not others:
        return other, []
    return (other, others) if len(others) < len(unlike) else (world, unlike)


# ---- reading -----------------------------------------------------------------------------------------------------


async def _read_endpoint(management: Management, one: Body, found: Facts) -> list[str]:
    name = one["name"]
    found["endpoint", name] = (_number(one), dict(one["properties"]["traffic"]))
    keys = await management.need("POST", f"{at.endpoint_path(name)}/listKeys")
    found["primary", name], found["secondary", name] = keys["primaryKey"], keys["secondaryKey"]
    return [] if _state(one) == "Succeeded" else [f"endpoint {name} is {_state(one)}"]


def _read_deployment(one: Body, found: Facts) -> None:
    endpoint, name = one["id"].split("/")[-3], one["name"]
    parts = one["properties"]["model"].split("/")
    timeout_s = int(one["properties"]["requestSettings"]["requestTimeout"].strip("PTS"))
    found["deployment", endpoint, name] = (
        _number(one),
        (parts[-3], parts[-1]),
        one["sku"]["capacity"],
        timeout_s,
        _state(one),
    )


async def _read_models(management: Management, client: Client, found: Facts) -> None:
    name = f"model-{client.name}"
    answer = await management.call("GET", f"{at.WORKSPACE}/models/{name}/versions")
    for one in answer.json().get("value", []):
        found["model", name, one["name"]] = int(one["properties"]["tags"]["n"])


async def _read_answers(scorers: Sequence[Connection], found: Facts) -> list[str]:
    """Adds what each deployment answers, which must be the same on every scorer."""
    faults = []
    for _, endpoint, name in [key for key in found if key[0] == "deployment"]:
        key = found["primary", endpoint]
        scores = [await score(one, endpoint, key, name) for one in scorers]
        factors = {one.factor for one in scores}
        if len(factors) > 1:
            faults.append(f"{endpoint}/{name} answers differently on different scorers: {scores}")
        if any(one.status == 200 and one.deployment != name for one in scores):
            faults.append(f"{endpoint}/{name} was asked and another answered: {scores}")
        found["answers", endpoint, name] = scores[0].factor
    return faults


def _of(client: Client, found: Facts) -> Facts:
    return {key: value for key, value in found.items() if f"-{client.name}" in key[1]}


def _said(one: Body) -> str:
    return f"{one['id'].split('/workspaces/w/')[1]} is {_state(one)}"


def _state(one: Body) -> str:
    return str(one["properties"]["provisioningState"])


def _number(one: Body) -> int:
    return int(one["tags"]["n"])


# ---- scoring -----------------------------------------------------------------------------------------------------


async def _check_traffic(
    scorers: Sequence[Connection], endpoint: str, traffic: dict[str, int], key: str | AnyBut
) -> list[str]:
    if not any(traffic.values()) or not isinstance(key, str):
        return []
    faults = []
    for one in scorers:
        answer = await score(one, endpoint, key)
        if answer.status != 200 or not traffic.get(answer.deployment):
            faults.append(f"traffic of {endpoint} is {traffic}, and the answer is {answer}")
    return faults


async def _check_dead_keys(scorers: Sequence[Connection], world: World) -> list[str]:
    faults = []
    for endpoint, keys in world.dead.items():
        for key in keys[-DEAD_KEYS_TRIED:]:
            scores = [await score(one, endpoint, key) for one in scorers]
            if any(one.status not in (401, 404) for one in scores):
                faults.append(f"a key of {endpoint} that was replaced still opens something: {scores}")
    return faults


# ---- the state folder ----------------------------------------------------------------------------------------------


def check_database(state: Path) -> list[str]:
    """A copy of what a killed gateway left, read as SQLite reads it after a crash. Blocks."""
    if not (state / DATABASE).exists():
        return []
    with tempfile.TemporaryDirectory() as folder:
        for name in (DATABASE, f"{DATABASE}-wal"):
            if (state / name).exists():
                shutil.copyfile(state / name, Path(folder) / name)
        with closing(sqlite3.connect(Path(folder) / DATABASE)) as database:
            checked = [row[0] for row in database.execute("PRAGMA integrity_check")]
            dangling = list(database.execute("PRAGMA foreign_key_check"))
    faults = [f"the database: {said}" for said in checked if said != "ok"]
    return [*faults, *(f"the database: a row refers to nothing: {row}" for row in dangling)]


def leftovers(state: Path) -> list[str]:
    """Files that were being written when the gateway was killed, and are still there. Blocks."""
    found = [path for pattern in TEMPORARY for path in state.rglob(pattern)]
    return [f"a temporary file was left: {path.relative_to(state)}" for path in found]
