"""Where an answer ends, however a server frames it; what an installation is, and what went wrong with one."""

from __future__ import annotations

from array import array
from collections import Counter
from pathlib import Path

import pytest

from bench.peers import install
from bench.peers.catalogue import PEERS
from bench.peers.closed_loop import Outcome, answer_end, will_close
from bench.peers.generator import plan_of, result_of
from bench.peers.processes import last_error

PEER = next(peer for peer in PEERS if peer.requirements)
OURS = next(peer for peer in PEERS if not peer.requirements)


@pytest.mark.parametrize("name", ["content-length", "Content-Length", "Content-length"])
def test_a_length_says_where_an_answer_ends(name: str) -> None:
    whole = f"HTTP/1.1 200 OK\r\nx: y\r\n{name}: 5\r\ndate: now\r\n\r\nabcde".encode()
    assert answer_end(whole) == len(whole)
    assert answer_end(whole[:-2]) == len(whole)


def test_a_length_that_is_another_headers_is_not_taken() -> None:
    whole = b"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde"
    assert answer_end(whole) == len(whole)


def test_a_head_that_has_not_ended_says_nothing() -> None:
    assert answer_end(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n") == 0


def test_a_chunked_answer_ends_with_its_last_chunk() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"
    assert answer_end(head) == 0
    assert answer_end(head + b"0\r\n\r\n") == len(head) + 5


def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    assert answer_end(b"HTTP/1.0 200 OK\r\n\r\nabc") == -1


def test_only_the_head_says_that_a_connection_ends() -> None:
    assert will_close(b"HTTP/1.1 200 OK\r\nConnection: Close\r\n\r\n")
    assert not will_close(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n\r\nconnection: close")


def test_a_result_counts_only_good_answers_and_names_the_unlucky_connection() -> None:
    fast, slow = array("q", [1_000_000] * 100), array("q", [3_000_000] * 100)
    outcome = Outcome(latencies_ns=[fast, fast, slow], answers=310, refused=Counter({"503": 2}), lost=1)
    result = result_of(outcome, seconds=2.0, cpu_s=0.5, wall_s=2.5)
    assert (result["good"], result["rate"], result["p50_us"]) == (300, 150.0, 1000.0)
    assert result["starvation"] == pytest.approx(3.0)
    assert (result["refused"], result["lost"]) == ({"503": 2}, 1)


def test_a_result_without_answers_has_no_latency() -> None:
    result = result_of(Outcome(latencies_ns=[array("q")]), seconds=1.0, cpu_s=0.0, wall_s=1.0)
    assert (result["good"], result["p50_us"], result["starvation"]) == (0, None, None)


def test_a_job_becomes_a_plan() -> None:
    plan = plan_of({"port": 1, "requests": ["YWI="], "connections": 2, "warm_up_s": 0.1, "seconds": 1.0})
    assert (plan.requests, plan.connections) == ([b"ab"], 2)


def test_the_reason_is_the_last_line_that_speaks_of_an_error() -> None:
    assert last_error("one\nERROR: no such package\nnotice: newer pip\n") == "ERROR: no such package"
    assert last_error("one\ntwo\n\n") == "two"
    assert last_error("") == "it wrote nothing"


def test_an_installation_counts_only_with_its_stamp(tmp_path: Path) -> None:
    assert install.is_installed(OURS, tmp_path)
    assert not install.is_installed(PEER, tmp_path)
    stamp = install.environment_of(PEER, tmp_path) / install.STAMP
    stamp.parent.mkdir(parents=True)
    stamp.write_text(install.stamp_text(PEER))
    assert install.is_installed(PEER, tmp_path)
    stamp.write_text("python 3.11\nother==1\n")
    assert not install.is_installed(PEER, tmp_path)


def test_the_environment_of_a_peer_runs_it() -> None:
    assert install.python_of(PEER, Path("/cache")) == Path(f"/cache/environments/{PEER.package}/bin/python")
