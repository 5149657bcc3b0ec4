"""Tests of the metric tables for the terminal, cell by cell."""

from __future__ import annotations

from grit_lightning.evaluation.intervals import differences, intervals
from grit_lightning.evaluation.metrics import sample_values, summary
from grit_lightning.evaluation.tables import BRIEF, comparison_table, overview
from support.predicted import grounded, record


def rows_of(table: str) -> dict[str, list[str]]:
    """Return the non-empty cells of each row by title; the header has the empty title."""
    header, *lines = ([cell.strip() for cell in line.split("  ") if cell.strip()] for line in table.split("\n"))
    return {"": header} | {line[0]: line[1:] for line in lines}


BEFORE = [record("no", sample_id="a"), record("no", "vsr", sample_id="b")]
AFTER = [record(grounded(), sample_id="a"), record("no", "vsr", sample_id="b")]


def test_the_overview_shows_means_intervals_and_datasets() -> None:
    rows = rows_of(overview(summary(AFTER), intervals(AFTER, resamples=50)))
    assert rows[""] == ["overall", "95 %", "tallyqa", "vsr", "macro"]
    assert rows["grounded format"] == ["0.500", "0.000 to 1.000", "1.000", "0.000", "0.500"]
    assert rows["boxes = count"] == ["1.000", "1.000", "-", "1.000"], "an interval needs two samples"
    assert rows["samples"] == ["2", "1", "1", "2"]
    assert "unscored" not in rows
    assert "pass@k" not in rows


def test_the_overview_of_one_dataset_has_one_column() -> None:
    rows = rows_of(overview(summary(AFTER[:1]), {}))
    assert rows[""] == ["overall", "95 %"]
    assert rows["accuracy"] == ["1.000"]


def test_the_overview_counts_unscored_predictions() -> None:
    one = record(grounded(), judge=lambda *_: None)
    assert rows_of(overview(summary([one]), {}))["unscored"] == ["1"]


def test_the_comparison_shows_values_and_paired_differences() -> None:
    columns = {"before": summary(BEFORE), "after": summary(AFTER)}
    changes = {"after": differences(sample_values(BEFORE), sample_values(AFTER), resamples=50)}
    rows = rows_of(comparison_table(columns, changes, BRIEF))
    assert rows[""] == ["before", "after", "after - before"]
    assert rows["accuracy"] == ["0.000", "0.500", "+0.500 (+0.000 to +1.000)"]
    assert rows["tallyqa"] == ["0.000", "1.000"]
    assert rows["grounding IoU"] == ["0.000", "0.500", "+0.500 (+0.000 to +1.000)"]
    assert rows["boxes = count"] == ["-", "1.000", "-"]
    assert rows["samples"] == ["2", "2"]
    assert "unscored" not in rows


def test_the_comparison_of_one_column_has_no_differences() -> None:
    rows = rows_of(comparison_table({"after": summary(AFTER)}, {}, BRIEF))
    assert rows["accuracy"] == ["0.500"]
