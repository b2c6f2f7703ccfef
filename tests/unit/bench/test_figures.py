"""What the figures are made of: which rounds count, what is reached, processor time, overload, and the page."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from bench.client.latency import Latencies
from bench.client.results import Point
from bench.figures import costs, overload, page
from bench.figures.__main__ import GROUPS, PAGE, WARMED, Run, _figures, _options
from bench.figures.cpu import tree, used_ns
from bench.figures.loads import share_within
from bench.figures.outcome import Sample, summary
from bench.figures.reach import FIGURES, LINES, RATES, ROWS, Line
from bench.figures.stage import Settings, place, write_folder
from bench.peers.measure import GeneratorFailed

AT_LEAST = Line(key="1.rate", text="a ratio", bound=0.5)
AT_MOST = Line(key="2.time", text="a time", bound=2, most=True, unit="ms")


def _point(at_s: float, p50_ms: float, accepted: int = 10) -> Point:
    return Point(at_s=at_s, seconds=0.2, accepted=accepted, refused=0, failed=0, p50_ms=p50_ms, p99_ms=p50_ms)


def _document(**lines: Sample) -> dict[str, object]:
    by_name = {"least": AT_LEAST, "most": AT_MOST}
    return {
        "measured": "2026-01-01",
        "machine": {"processor": "P", "cores": 2, "system": "S", "python": "3", "packages": {"numpy": "2"}},
        "settings": {"rounds": 3, "seconds": 1.5, "warm_up_s": 0.3},
        "took_s": 100,
        "lines": {by_name[name].key: summary(by_name[name], [sample]) for name, sample in lines.items()},
        "missing": {},
    }


# -- What is reached.


def test_a_bound_is_met_from_its_own_side() -> None:
    assert AT_LEAST.met(0.5) and not AT_LEAST.met(0.49)
    assert AT_MOST.met(2) and not AT_MOST.met(2.01)
    assert (AT_LEAST.reach, AT_MOST.reach) == (">= 0.5", "<= 2 ms")


def test_every_line_has_a_name_of_its_own_and_every_figure_is_measured_once() -> None:
    assert len({line.key for line in LINES}) == len(LINES)
    assert sorted(figure for group in GROUPS for figure in group) == sorted(FIGURES) == list(range(1, 12))
    assert set(WARMED) <= set(FIGURES)


def test_the_open_loop_and_the_overload_have_a_line_for_each_case() -> None:
    keys = {line.key for line in LINES}
    assert {f"7.{name}-{rate}" for name in ("mlp", "forest") for rate in RATES} <= keys
    assert {f"8.{name}-goodput-{factor}" for name in ROWS for factor in (2, 3)} <= keys
    assert set(overload.CAPACITY_AT) == set(ROWS.values())


def test_a_noisy_round_is_left_out_where_two_clean_ones_remain() -> None:
    samples = [Sample(value=1.0), Sample(value=3.0), Sample(value=100.0, others=0.5)]
    found = summary(AT_LEAST, samples)
    assert (found["median"], found["low"], found["high"], found["weak"]) == (2.0, 1.0, 3.0, False)
    assert (found["rounds_counted"], len(found["rounds"])) == (2, 3)
    assert summary(AT_LEAST, samples[1:])["weak"]


def test_a_summary_tells_what_the_figure_was_made_of_and_what_went_wrong() -> None:
    samples = [
        Sample(value=0.4, beside={"a": 1.0}),
        Sample(value=0.4, beside={"a": 3.0, "b": 5.0}, full=True, unwanted=2),
    ]
    found = summary(AT_LEAST, samples)
    assert (found["beside"], found["met"]) == ({"a": 2.0, "b": 5.0}, False)
    assert (found["generator_full"], found["unwanted"]) == (True, 2)


# -- Processor time.


def test_processor_time_is_that_of_all_threads_of_a_tree(tmp_path: Path) -> None:
    def process(pid: int, parent: int, *threads_ns: int) -> None:
        for number, used in enumerate(threads_ns):
            task = tmp_path / str(pid) / "task" / str(pid + number)
            task.mkdir(parents=True)
            (task / "schedstat").write_text(f"{used} 5 1\n")
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a name) with) brackets) S {parent} 0 0")

    process(10, 1, 100, 20)
    process(11, 10, 3)
    process(12, 11, 4)
    process(13, 1, 5000)
    assert used_ns(10, tmp_path) == 127
    assert used_ns(99, tmp_path) == 0


def test_a_tree_is_a_process_with_its_children_and_theirs() -> None:
    assert sorted(tree(1, {2: 1, 3: 2, 4: 9, 1: 0})) == [1, 2, 3]


# -- Placement and folders.


def test_servers_and_generator_stand_apart_where_there_is_room() -> None:
    two, four = place([0, 1]), place([4, 5, 6, 7])
    assert (two.one, two.two, two.apart, two.shared) == ((0,), (0, 1), (1,), (0, 1))
    assert (four.one, four.two, four.apart, four.shared) == ((4,), (4, 5), (7,), (6, 7))
    with pytest.raises(ValueError, match="two cores"):
        place([0])


def test_a_folder_names_one_file_for_all_deployments_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"model")
    write_folder(tmp_path / "apply", {"aaa": "m", "bbb": "m"}, ("one", "two"), {"m": tmp_path / "m.onnx"})
    names = sorted(path.name for path in (tmp_path / "apply").iterdir())
    assert names == ["aaa-one.yml", "aaa-two.yml", "aaa.yml", "bbb-one.yml", "bbb-two.yml", "bbb.yml", "m.onnx"]
    assert "  one: 100\n  two: 0\n" in (tmp_path / "apply" / "aaa.yml").read_text()


# -- Overload.


def test_a_share_within_a_limit_is_read_from_the_histogram() -> None:
    latencies = Latencies()
    assert share_within(latencies, 1e6) == 0.0
    for _ in range(75):
        latencies.record(1_000_000)
    assert share_within(latencies, 2e6) == 1.0
    for _ in range(25):
        latencies.record(9_000_000)
    assert share_within(latencies, 2e6) == pytest.approx(0.75, abs=1e-4)
    assert share_within(latencies, 500_000) == pytest.approx(0.0, abs=1e-4)


def test_a_baseline_is_back_only_where_it_stays() -> None:
    points = [_point(0.0, 1.0), _point(0.2, 9.0), _point(0.4, 1.0), _point(0.6, 1.1)]
    assert overload.recovered_s(points, 1.5) == pytest.approx(0.6)
    assert overload.recovered_s([*points, _point(0.8, 0.0, accepted=0)], 1.5) is None
    assert overload.recovered_s([], 1.5) is None


def test_ballast_leaves_the_gateway_what_the_generator_can_send_three_times_of() -> None:
    assert overload.ballast_count(5_000, 3) == 0
    count = overload.ballast_count(48_000, 3)
    assert 48_000 / (count + 1) * 3 <= overload.GENERATOR_RATE


def test_connections_are_more_than_can_be_in_flight_within_the_deadline() -> None:
    assert overload.connections_for(10_000) > 10_000 * 0.25
    assert overload.connections_for(1e9) == overload.CONNECTIONS_MAX


# -- The cost of metrics and limits.


def test_every_part_of_the_cost_is_timed() -> None:
    parts = costs.measure(0.01)
    assert len(parts) == 8
    assert all(0 < cost < 1000 for cost in parts.values())


# -- The run and its page.


def _settings(tmp_path: Path) -> Settings:
    return Settings(
        rounds=2,
        seconds=0.1,
        warm_up_s=0.0,
        first_s=0.1,
        models=tmp_path,
        placement=place([0, 1]),
        every_core=(0, 1),
    )


def test_a_figure_that_fails_is_listed_and_the_others_go_on(tmp_path: Path) -> None:
    def fails(stage: object) -> Mapping[str, Sample]:
        raise GeneratorFailed("no core for it")

    run = Run(_settings(tmp_path), (5, 9), ends_s=1e12)
    with asyncio.Runner() as runner:
        run.group({5: (fails,), 9: (lambda stage: {"9.cost": Sample(value=3.0)},)}, tmp_path, runner)
    assert run.absent() == {"5": "no core for it"}
    assert len(run.lines()["9.cost"]["rounds"]) == 2


def test_no_round_is_begun_after_the_limit(tmp_path: Path) -> None:
    run = Run(_settings(tmp_path), (9,), ends_s=0.0)
    with asyncio.Runner() as runner:
        run.group({9: (lambda stage: {"9.cost": Sample(value=3.0)},)}, tmp_path, runner)
    assert run.absent() == {"9": "the time was up"}


def test_only_a_whole_run_writes_the_page() -> None:
    assert _options([]).whole and _options([]).out is not None
    for arguments in (["--smoke"], ["--only", "1,5"]):
        options = _options(arguments)
        assert not options.whole and options.out is None
    assert _options(["--only", "1,5"]).only == (1, 5)
    for wrong in ("12", "one", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="accepted: numbers from 1 to 11"):
            _figures(wrong)


def test_the_page_is_made_anew_between_its_marks() -> None:
    document = _document(least=Sample(value=0.4, full=True, beside={"rows/s": 12345.6}), most=Sample(value=1.5))
    before = f"head\n{page.BEGIN}\nold\n{page.END}\ntail\n"
    after = page.page(before, document)
    assert after.startswith(f"head\n{page.BEGIN}\n") and after.endswith(f"{page.END}\ntail\n")
    assert "old" not in after
    assert "| 1. a ratio | >= 0.5 | 0.4 ^ | 0.4 to 0.4 | no | rows/s 12,346 |" in after
    assert "| 2. a time | &lt;= 2 ms | 1.5 ms | 1.5 to 1.5 | yes |  |" in after
    assert "1 of 2 lines are met" in after
    with pytest.raises(ValueError, match="put them back"):
        page.page("nothing", document)


def test_marks_and_missing_figures_are_told() -> None:
    document = _document(least=Sample(value=0.6, others=0.9, unwanted=1))
    document["missing"] = {"3": "no room"}
    assert "0.6 ~ !" in page.text(document)
    assert page.text(document).endswith("figure 3: no room")
    assert "* figure 3 was not measured: no room" in page.generated(document)


def test_the_document_is_plain_json_and_the_page_has_its_marks() -> None:
    document = _document(least=Sample(value=0.6, beside={"a": 1.0}))
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    text = PAGE.read_text()
    assert text.count(page.BEGIN) == text.count(page.END) == 1
