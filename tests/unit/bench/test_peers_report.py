"""Rounds to figures by the noise rule; figures to tables, the page and the picture."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.peers import document, plot
from bench.peers.__main__ import PAGE, _options, _plan
from bench.peers.catalogue import CEILING, GATEWAY, PEERS, SERVERS
from bench.peers.models import Model
from bench.peers.peer import Place
from bench.peers.rounds import counted, spread, summary
from bench.peers.table import RAW
from bench.peers.view import lines

BUSY = {"others": 0.5}
CLEAN = {"others": 0.05}


def _round(rate: float, others: float = 0.0, **more: float) -> dict[str, Any]:
    return {"rate": rate, "p50_us": 1500.0, "p99_us": 2500.0, "cpu_us": 30.0, "others": others, "refused": 0, **more}


def _row(peer: str, wire: str, binary: bool, rate: float, **more: float) -> dict[str, Any]:
    figures = summary([_round(rate, **more), _round(rate, **more)])
    return {"peer": peer, "wire": wire, "binary": binary, "1": figures, "64": figures}


def _result() -> dict[str, Any]:
    rows = {
        RAW: {"peer": RAW, "wire": "", "64": summary([{"rate": 90_000.0, "others": 0.0}] * 2)},
        "gateway JSON": _row(GATEWAY, "JSON", False, 10_000.0),
        "gateway V2 binary": _row(GATEWAY, "V2 binary", True, 20_000.0),
        "bare JSON": _row(CEILING, "JSON", False, 40_000.0, generator=0.99),
        "mosec JSON": _row("mosec", "JSON", False, 5_000.0, others=0.4),
        "mosec msgpack": _row("mosec", "msgpack", True, 15_000.0),
    }
    table = {"rows": rows, "absent": {"ray": "ended | badly"}, "idle_cores": {"mosec": 0.2}, "stopped": ["mosec"]}
    about = {"package": "p", "version": "1", "settings": "best"}
    return {
        "measured": "2026-01-01",
        "machine": {"processor": "P", "cores": 2, "system": "S", "python": "3", "packages": {"onnxruntime": "1"}},
        "settings": {"rounds": 2, "seconds": 1.0, "warm_up_s": 0.3},
        "peers": {peer.name: {"title": peer.title, **about} for peer in PEERS},
        "absent": {"kserve": "cannot be installed"},
        "tables": {"tabular-1": table, "mlp-1": {**table, "absent": {}}},
    }


@pytest.mark.parametrize(
    ("rounds", "used", "weak"),
    [
        ([CLEAN, CLEAN, BUSY], 2, False),
        ([CLEAN, BUSY, BUSY], 3, True),
        ([BUSY, BUSY, BUSY], 3, True),
        ([CLEAN], 1, False),
        ([BUSY], 1, True),
    ],
)
def test_a_busy_round_is_dropped_only_where_two_clean_ones_remain(
    rounds: list[Mapping[str, Any]], used: int, weak: bool
) -> None:
    chosen, found = counted(rounds)
    assert (len(chosen), found) == (used, weak)


def test_a_summary_is_of_the_counted_rounds_and_keeps_all() -> None:
    found = summary([_round(100.0), _round(300.0), _round(9.0, others=0.9, refused=4)])
    assert found["rate"] == {"median": 200.0, "low": 100.0, "high": 300.0}
    assert (found["rounds_counted"], found["weak"], len(found["rounds"])) == (2, False, 3)
    assert found["refused"] == 4 and "starvation" not in found
    assert spread([]) is None


def test_a_share_is_against_the_gateway_with_the_same_kind_of_bodies() -> None:
    found = {f"{line.peer} {line.wire}": line for line in lines(_result(), "tabular-1")}
    assert found["mosec JSON"].cells[64].share == 0.5
    assert found["mosec msgpack"].cells[64].share == 0.75
    assert (found["mosec JSON"].weak, found["bare JSON"].generator_full) == (True, True)


def test_the_marks_of_the_scale_lead_and_the_fastest_follows() -> None:
    order = [(line.peer, line.wire) for line in lines(_result(), "tabular-1")]
    assert order[:3] == [(RAW, ""), (CEILING, "JSON"), (GATEWAY, "V2 binary")]


def test_the_terminal_table_names_what_was_left_out_and_why() -> None:
    text = document.text(_result())
    assert "mosec ~" in text and "bare protocol (a constant) ^" in text
    assert "left out: kserve: cannot be installed" in text and "left out: ray (tabular-1): ended" in text


def test_the_page_keeps_what_people_wrote_and_makes_the_rest_anew() -> None:
    before = f"head\n{document.BEGIN}\nold\n{document.END}\ntail\n"
    once = document.page(before, _result())
    assert once.startswith("head\n") and once.endswith("tail\n") and "old" not in once
    assert "| mosec ~ | JSON | 5,000 (5,000-5,000) | 0.50 | 1.5 | 2.5 | 30 |" in once
    assert "ended \\| badly" in once and "mosec 20% of a core" in once
    assert document.page(once, _result()) == once


def test_a_page_without_its_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="put them back"):
        document.page("nothing", _result())


def test_the_page_in_the_repository_can_be_made_anew() -> None:
    assert document.page(PAGE.read_text(), _result())


def test_the_picture_is_one_file_for_light_and_dark() -> None:
    drawn = plot.plot(_result())
    root = ElementTree.fromstring(drawn)
    texts = [text for one in root.iter("{http://www.w3.org/2000/svg}text") if (text := "".join(one.itertext()))]
    assert "this gateway" in texts and "mosec" in texts and "0.75 (15,000/s)" in texts and "0.50~ (5,000/s)" in texts
    assert "prefers-color-scheme: dark" in drawn
    assert "http" not in drawn.replace("http://www.w3.org/2000/svg", "")


def test_every_peer_is_pinned_and_has_a_door_of_its_own() -> None:
    assert len({peer.name for peer in PEERS}) == len(PEERS)
    for peer in PEERS:
        assert peer.doors and peer.settings and len({door.wire.name for door in peer.doors}) == len(peer.doors)
        assert all("==" in one or ">=" in one for one in peer.requirements)


def test_every_program_of_a_peer_exists(tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    (environment / "bin").mkdir(parents=True)
    triton = environment / "lib" / "python3.11" / "site-packages" / "pytriton" / "tritonserver"
    (triton / "backends" / "python").mkdir(parents=True)
    (triton / "python_backend_stubs" / "3.11").mkdir(parents=True)
    (triton / "python_backend_stubs" / "3.11" / "triton_python_backend_stub").touch()
    (tmp_path / "m.onnx").touch()
    rows, answers = np.zeros((1, 3)), np.zeros((1, 2), np.float32)
    model = Model(name="m", path=tmp_path / "m.onnx", input="x", output="y", rows=rows, answers=answers)
    for peer in PEERS:
        work = tmp_path / peer.name
        work.mkdir()
        place = Place(
            python=environment / "bin" / "python",
            model=model,
            port=1000,
            spare_ports=(1001, 1002, 1003, 1004, 1005),
            workers=2,
            work=work,
        )
        launch = peer.launch(place)
        named = [word for word in launch.command if word.startswith(str(SERVERS)) and word.endswith(".py")]
        assert all(Path(word).exists() for word in named)
        assert place.environment()["PEER_WORKERS"] == "2"


def test_a_plan_keeps_the_generator_apart_where_it_can() -> None:
    options = _options(["--rounds", "2", "--seconds", "2"])
    plan = _plan("mlp-1", options)
    assert (len(plan.server_cores), dict(plan.connections)) == (1, {1: 1.0, 64: 2.0, 256: 2.0})
    assert dict(_plan("tabular-1", options).connections) == {1: 1.0, 64: 2.0}


def test_only_a_whole_run_writes_into_the_repository() -> None:
    assert _options([]).out is not None
    assert _options(["--smoke"]).out is None
    assert _options(["--only", "mosec"]).out is None
    assert _options(["--tables", "mlp-1"]).out is None


def test_the_result_document_is_json() -> None:
    assert json.loads(json.dumps(_result()))
