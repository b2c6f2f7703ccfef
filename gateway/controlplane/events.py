"""Events: what a deployment's log says to a person, a line each. Pure.

Why: who deploys sees no screen of this process; what loading found, what was given in vain and why something failed
has to stand where `getLogs` and the list of events are read.
Units: `load_s` seconds, `run_ns` nanoseconds of a run of one row.
Errors: none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from gateway.channel import Loaded
from gateway.controlplane.store.records import Event
from gateway.telemetry.logs import one_line
from runtimes import Learned

# What loading found out about a deployment, and the facts of the load.
Load = tuple[Learned, Loaded]


def log_text(events: Sequence[Event]) -> str:
    """A line for each event: its time in UTC, what happened, and what there is to say, one under the other."""
    width = max((len(event.name) for event in events), default=0) + 1
    return "".join(f"{_utc(event.at)} {event.name + ':':<{width}} {_one_line(event.message)}\n" for event in events)


def news(before: Load | None, after: Load) -> list[str]:
    """What is worth telling of a load after another: all of it where something was loaded, else what changed."""
    lines = list(loading(*after))
    if before is None or before[1] != after[1]:
        return lines
    known = set(loading(*before))
    return [line for line in lines if line not in known]


def loading(learned: Learned, loaded: Loaded) -> Iterator[str]:
    took = f"; a run of one row takes {_time(learned.run_ns)}" if learned.run_ns else ""
    yield f"in {loaded.load_s:.2f} s on {loaded.provider}{took}"
    yield f"requests {'share runs' if learned.batched else 'share no run'}: {learned.reason}"
    if learned.batched and learned.rows_max:
        yield f"at most {_count(learned.rows_max, 'row')} a run{_why(learned.reasons, 'rows_max')}"
    if learned.padding_reason:
        yield f"lengths are {'padded' if learned.padding is not None else 'not padded'}: {learned.padding_reason}"
    where = "on the event loop" if learned.dispatch == "inline" else "on threads of their own"
    yield f"runs are {where}{_why(learned.reasons, 'dispatch')}"
    yield f"{_count(learned.instances, 'instance')} in each scorer{_why(learned.reasons, 'instances')}"
    yield f"{_count(learned.threads, 'thread')} for each instance{_why(learned.reasons, 'threads')}"
    if "device" in learned.reasons:
        yield f"device: {learned.reasons['device']}"


def _why(reasons: Mapping[str, str], choice: str) -> str:
    return f": {reasons[choice]}" if reasons.get(choice) else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _time(ns: int) -> str:
    return f"{ns / 1e6:,.1f} ms" if ns >= 1_000_000 else f"{ns / 1e3:,.0f} us"


def _one_line(message: str) -> str:
    """Reasons come from libraries too, some of them in several lines."""
    return one_line(" ".join(message.split()))


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
