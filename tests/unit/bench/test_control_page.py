"""The page of the proofs: made from the results, between its two lines."""

from __future__ import annotations

from typing import Any

import pytest

from bench.control.page import BEGIN, END, page, text

MACHINE = {"processor": "p", "cores": 2, "system": "Linux 6.1", "python": "3.11"}


def spread(value: float) -> dict[str, float]:
    return {"least": value, "p50": value, "p99": value, "most": value}


def document(**more: Any) -> dict[str, Any]:
    facts = {"measured": "2026-01-01", "machine": MACHINE, "took_s": 5.0, "others": 0.5, "faults": []}
    return {
        "kills": {
            **facts,
            "wanted": 200,
            "kills": 200,
            "while_starting": 20,
            "resumed": 3,
            "restarts_s": spread(1.5),
            "scorers_gone_s": spread(0.05),
            "changes": {"PutEndpoint": 4, "doubts that had happened": 1, "doubts that had not": 2, "held off": 1},
            **more,
        },
        "flips": {
            **facts,
            "wanted": {"flips": 100, "updates": 100, "regenerations": 50},
            "counts": {"flip": 100, "update of the model": 60, "update of the setting": 40, "key": 50},
            "rate": 200.0,
            "requests": 5000,
            "failed": 0,
            "misrouted": 1,
            "duration_s": 25.0,
            "late_s": 0.001,
            "refused_s": spread(0.01),
            "changes_s": {"flip": spread(0.02)},
            "latency_s": spread(0.002),
        },
        "figures": {
            **facts,
            "reads_s": {"one endpoint": spread(0.025)},
            "start": {"first_s": 5.0, "ready_s": spread(4.0), "loading_s": spread(1.5)},
            "loads": 10,
            "loads_s": spread(0.3),
            "shift": {
                name: {"quiet": 0.001, "loaded": 0.002, "ratio": 2.0, "noise": 1.2, "strange": 1.5}
                for name in ("p50", "p99")
            },
        },
    }


def test_every_promise_stands_with_what_was_found() -> None:
    found = page(f"before\n{BEGIN}\nformer text\n{END}\nafter", document())
    assert found.startswith("before\n")
    assert found.endswith("\nafter")
    assert "former text" not in found
    for line in (
        "| kills | 200 | 200, 20 while starting | yes |",
        "| restart to ready, the longest | &lt;= 2 s | 1.50 s | yes |",
        "| deployment updates | 100 | 100 | yes |",
        "| misrouted or wrong answers | 0 | 1 of 5,000 | no |",
        "| read of one endpoint, p99 | &lt;= 20 ms | 25.0 ms | no |",
        "| start less the loads of the first scorer | &lt;= 3 s | 2.50 s | yes |",
        "| p99 of another endpoint while 20 MB load | not above noise | "
        "2.00 x, noise 1.20 x, a stranger 1.50 x | no |",
    ):
        assert line in found, line
    assert "4 changes were acknowledged (PutEndpoint 4)" in found
    assert "noisy" in found


def test_faults_are_told() -> None:
    assert "* something was lost" in text(document(faults=["something was lost"]))


def test_a_part_that_was_not_measured_is_left_out() -> None:
    assert "Flips" not in text({"kills": document()["kills"]})


def test_a_page_without_its_lines_is_refused() -> None:
    with pytest.raises(ValueError, match=r"control-figures\.md"):
        page("nothing", {})
