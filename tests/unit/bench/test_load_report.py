"""Samples in, medians and spreads out; weak rows are marked and refusals are never hidden."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.load import report
from bench.load.measure import Sample

GOOD = Sample(
    bare_p50_us=10.0,
    bare_p99_us=20.0,
    bare_rate=10_000.0,
    one_p50_us=110.0,
    one_p99_us=320.0,
    rate=5_000.0,
    many_p50_us=900.0,
    many_p99_us=2_000.0,
    gateway_cpu_us=50.0,
    others_cores=0.05,
    refused=0,
)


def test_a_sample_derives_what_the_gateway_adds_and_the_ratio() -> None:
    assert (GOOD.added_p50_us, GOOD.added_p99_us, GOOD.ratio) == (100.0, 300.0, 0.5)


def test_a_summary_has_the_median_and_the_spread_of_every_figure() -> None:
    rounds = [replace(GOOD, rate=rate) for rate in (4_000.0, 9_000.0, 5_000.0)]
    ratio = report.summary(rounds)["ratio"]
    assert (ratio["median"], ratio["low"], ratio["high"]) == (0.5, 0.4, 0.9)
    assert ratio["rounds"] == [0.4, 0.9, 0.5]


def test_the_table_shows_one_line_a_case_with_refusals_counted() -> None:
    samples = {"digits/blue json": [GOOD, replace(GOOD, refused=3)], "wide/dense binary": [GOOD]}
    text = report.table(samples, connections=64)
    head, blue, wide, *_ = text.splitlines()
    assert head.split()[0] == "case" and "64 connections" in text
    assert blue.split()[-1] == "3" and wide.split()[-1] == "0"
    assert "0.500-0.500" in blue
    assert report.refused(samples) == 3


@pytest.mark.parametrize(("others", "weak"), [(0.15, False), (0.16, True)])
def test_a_case_is_marked_where_other_processes_were_busy(others: float, weak: bool) -> None:
    line = report.table({"case": [GOOD, replace(GOOD, others_cores=others)]}, 64).splitlines()[1]
    assert line.startswith("case ~") is weak
