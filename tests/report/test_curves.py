"""Tests of curves: their order, their places, and several runs over each other."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from grit_lightning.report.curves import HEIGHT, MOST_POINTS, WIDTH, curves
from grit_lightning.report.history import read_history
from grit_lightning.runs.run_folder import RunFolder


def test_the_important_curves_come_first_and_span_the_figure() -> None:
    history = {"policy/kl": [(1, 0.0)], "reward/x/mean": [(1, 1.0)], "reward/total/mean": [(1, 2.0), (3, 4.0)]}
    found = curves({"": history})
    assert [one.name for one in found] == ["reward/total/mean", "policy/kl", "reward/x/mean"]
    (line,) = found[0].lines
    assert line.points == f"4.0,{HEIGHT - 4}.0,1,2 {WIDTH - 4}.0,4.0,3,4"
    assert line.path == f"M4.0 {HEIGHT - 4}.0L{WIDTH - 4}.0 4.0"
    assert (found[0].low, found[0].high, line.last) == (2.0, 4.0, 4.0)


def test_runs_share_the_axes_and_keep_their_places_where_one_lacks_a_metric() -> None:
    found = curves({"a": {"policy/kl": [(1, 0.0)]}, "b": {"policy/loss": [(1, 1.0)], "policy/kl": [(2, 1.0)]}})
    by_name = {one.name: one for one in found}
    assert [line and line.label for line in by_name["policy/loss"].lines] == [None, "b"]
    assert [line.points for line in by_name["policy/kl"].lines] == [f"4.0,{HEIGHT - 4}.0,1,0", f"{WIDTH - 4}.0,4.0,2,1"]


def test_long_lines_are_thinned_with_both_ends() -> None:
    (curve,) = curves({"": {"policy/kl": [(step, float(step)) for step in range(1, 5001)]}})
    points = curve.lines[0].points.split()
    assert len(points) == MOST_POINTS
    assert [points[0].split(",")[2], points[-1].split(",")[2]] == ["1", "5000"]


def test_metrics_of_earlier_runs_are_read_under_their_names_of_today(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for version, rows in enumerate(([(1, 0.1), (2, 0.2)], [(2, 0.25), (3, float("nan"))])):
        folder = run.metrics / f"version_{version}"
        folder.mkdir(parents=True)
        with (folder / "metrics.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerows([("step", "kl", "reward/total/mean"), *((step, value, "") for step, value in rows)])
    assert read_history(run) == {"policy/kl": [(1, 0.1), (2, pytest.approx(0.25))]}
