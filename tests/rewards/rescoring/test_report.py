"""Tests of the written and printed forms of a comparison of scorings."""

from __future__ import annotations

import csv
import io
import json

from grit_lightning.errors import DataError
from grit_lightning.rewards.rescoring.changes import Rescored, component_changes, most_changed, ranking
from grit_lightning.rewards.rescoring.report import ScoreComparison, csv_text, markdown, score_line, terminal
from grit_lightning.types import Score


def scored(**values):
    total = values.pop("total")
    return Score(values, total, {name: "It is down." for name, value in values.items() if value is None})


ROWS = [
    Rescored(1, 0, 0, "cats/1", scored(judge=0.0, old=2.0, total=2.0), scored(judge=1.0, new=0.5, total=1.5), "one"),
    Rescored(1, 0, 1, "cats/1", scored(judge=1.0, old=0.0, total=1.0), scored(judge=1.0, new=3.0, total=4.0), "two"),
    Rescored(1, 1, 0, "cats/2", scored(judge=0.5, old=0.0, total=0.5), scored(judge=None, new=0.0, total=None), "…"),
]


def comparison(rows=ROWS, torn=()):
    return ScoreComparison("3 completions.", component_changes(rows), ranking(rows), most_changed(rows, 5), torn)


def test_a_line_holds_both_scores_under_the_names_of_the_rollouts():
    assert json.loads(score_line(ROWS[2])) == {
        "step": 1,
        "slot": 1,
        "sample_id": "cats/2",
        "completion_index": 0,
        "old": {"rewards": {"judge": 0.5, "old": 0.0}, "reward": 0.5, "reward_errors": {}},
        "new": {"rewards": {"judge": None, "new": 0.0}, "reward": None, "reward_errors": {"judge": "It is down."}},
    }
    assert json.loads(score_line(Rescored(None, None, 0, "a", None, scored(total=0.0), "")))["old"] is None


def test_the_csv_holds_all_numbers_in_full():
    table = {line["name"]: line for line in csv.DictReader(io.StringIO(csv_text(component_changes(ROWS))))}
    assert list(table) == ["judge", "new", "old", "total"]
    assert float(table["new"]["new_mean"]) == 3.5 / 3
    assert table["new"]["old_mean"] == "" == table["old"]["agreement"]
    assert (table["judge"]["new_unscored"], table["judge"]["compared"]) == ("1", "2")


def test_the_markdown_page_holds_the_table_rank_changes_and_largest_changes():
    page = markdown(comparison(torn=[DataError("torn", "a.jsonl:7")]))
    lines = page.splitlines()
    assert "| judge | 2 | 0.5 | 1 | 0.5 | – | – | – | 0 | 1 |" in lines
    assert "| new | 0 | – | 1.167 | – | – | – | – | – | 0 |" in lines
    assert "| old | 0 | 0.6667 | – | – | – | – | – | 0 | – |" in lines
    assert "Of 1 groups, 100 % have a different best completion." in lines
    assert "Of 2 advantages, 100 % changed sign, 0 % are no longer 0, 0 % became 0." in lines
    assert "Left out: a.jsonl:7: torn" in lines
    first, second = (line for line in lines if line.startswith("- "))
    assert first == "- step 1, slot 0, completion 1, sample cats/1: **1 → 4** (new 3, which is new)"
    assert second == "- step 1, slot 0, completion 0, sample cats/1: **2 → 1.5** (judge 0 → 1, new 0.5, which is new)"
    assert lines[lines.index(first) + 2] == "      two"


def test_a_total_that_changed_by_weights_alone_says_so():
    rows = [Rescored(1, 0, 0, "a", scored(judge=1.0, total=1.0), scored(judge=1.0, total=2.0), "")]
    assert "**1 → 2** (the weights or the set of components changed)" in markdown(comparison(rows))


def test_the_markdown_page_says_when_no_total_changed():
    rows = [Rescored(1, 0, 0, "a", scored(judge=1.0, total=1.0), scored(judge=1.0, total=1.0), "")]
    page = markdown(comparison(rows))
    assert page.endswith("## Most changed\n\nNo total changed.\n")
    assert "No group has two completions that both scorings scored, so there is no ranking to compare." in page


def test_the_terminal_has_a_line_for_each_component():
    lines = terminal(comparison()).splitlines()
    assert lines[0] == "3 completions."
    assert [line.split()[0] for line in lines[4:8]] == ["judge", "new", "old", "total"]
    assert lines[4].split() == ["judge", "0.5", "1", "0.5", "–", "0", "1"]
