"""Tests of the comparison of evaluations sample by sample, by hand and against loops."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from grit_lightning.errors import DataError
from grit_lightning.evaluation.comparison.differences import (
    EvaluationComparison,
    caveats,
    compare_columns,
    is_mostly_right,
)
from grit_lightning.evaluation.comparison.report import csv_text, flips_text, markdown, terminal
from grit_lightning.evaluation.comparison.sources import Column
from grit_lightning.evaluation.intervals import bootstrap, differences_by_dataset
from grit_lightning.evaluation.metrics import sample_values
from grit_lightning.evaluation.predictions import Prediction
from grit_lightning.model.backbones.prompts import known_prompts
from support.compared import SETTINGS, answer, answers


def column(name: str, predictions: Sequence[Prediction], settings: Mapping[str, Any] | None = SETTINGS) -> Column:
    return Column(name, Path(f"/x/{name}.jsonl"), settings, predictions, finished=True)


def compared(*columns: Column) -> EvaluationComparison:
    return compare_columns(columns, resamples=100)


A = column("a", answers({"f/1": 1.0, "f/2": 0.5, "f/3": 0.0, "f/4": 0.0, "only/a": 1.0}))
B = column("b", answers({"f/4": 1.0, "f/3": 0.0, "f/2": 0.25, "f/1": 0.0, "only/b": 0.0, "b/2": 0.0}))


# ---- differences ----


def test_paired_differences_by_hand() -> None:
    found = compared(A, B)
    assert found.metrics["a"]["overall"]["accuracy"] == pytest.approx(0.5), "over all its own"
    (pair,) = found.pairs
    accuracy = pair.differences["overall"]["accuracy"]
    assert (accuracy.mean, accuracy.samples) == (pytest.approx((-1 - 0.25 + 0 + 1) / 4), 4)
    binarised = pair.differences["overall"]["accuracy_binarised"]
    assert binarised.mean == pytest.approx((-1 + 0 + 0 + 1) / 4)
    assert (pair.first, pair.second, pair.samples, pair.lost, pair.gained) == ("a", "b", 4, 1, 1)
    swapped = compared(B, A).pairs[0].differences["overall"]["accuracy"].mean
    assert swapped == pytest.approx(0.0625)


@pytest.mark.parametrize("seed", range(3))
def test_differences_by_dataset_equal_a_loop(seed: int) -> None:
    draw = random.Random(seed)
    sizes = {"vsr": 30, "tallyqa": 12, "gqa": 5}

    def drawn(skip: float, offset: int) -> list[Prediction]:
        ones = [
            answer(f"{dataset}/{number + offset}", draw.choice([None, 0.0, 0.3, 1.0]), dataset=dataset)
            for dataset, count in sizes.items()
            for number in range(count)
            if draw.random() > skip
        ]
        return draw.sample(ones, len(ones))

    first, second = drawn(0.1, 0), drawn(0.2, 2)
    found = differences_by_dataset(sample_values(first), sample_values(second), resamples=300)
    changes: dict[str, list[float]] = {name: [] for name in sizes}
    for one in first:
        for other in second:
            scores = one["scores"]["judge"], other["scores"]["judge"]
            if one["sample_id"] == other["sample_id"] and None not in scores:
                changes[one["dataset"]].append(scores[1] - scores[0])
    every = [change for of in changes.values() for change in of]
    for name, values in {**changes, "overall": every}.items():
        got = found[name]["accuracy"]
        mean = pytest.approx(statistics.fmean(values), abs=1e-12) if values else None
        assert (got.mean, got.samples) == (mean, len(values))
        if name != "overall":  # its values are there in the order of the samples, here in that of the datasets
            assert got.interval == bootstrap([values], 300)
    macro = found["macro"]["accuracy"]
    strata = [values for values in changes.values() if values]  # a dataset without a pair has no part in it
    assert macro.mean == pytest.approx(statistics.fmean(map(statistics.fmean, strata)), abs=1e-12)
    assert macro.samples == len(every)
    assert list(found) == ["overall", "gqa", "tallyqa", "vsr", "macro"]


def test_an_interval_is_of_paired_differences_not_of_two_means() -> None:
    scores = {f"f/{number}": float(number % 2) for number in range(40)}
    same = compared(column("a", answers(scores)), column("b", answers(scores)))
    assert same.pairs[0].differences["overall"]["accuracy"].interval == (0.0, 0.0), "though each mean is uncertain"
    ends = same.intervals["a"]["overall"]["accuracy"]
    assert ends is not None
    assert ends.high - ends.low > 0.2


def test_several_completions_of_a_sample_are_one_sample() -> None:
    first = [answer("f/1", score, index=index) for index, score in enumerate([1.0, 0.0, 0.0, 0.0])]
    first += [answer("f/2", score, index=index) for index, score in enumerate([1.0, 1.0, 0.0, 1.0])]
    found = compared(column("a", first), column("b", answers({"f/1": 1.0, "f/2": 0.0})))
    accuracy = found.pairs[0].differences["overall"]["accuracy"]
    assert (accuracy.mean, accuracy.samples) == (pytest.approx((0.75 - 0.75) / 2), 2)
    assert (found.pairs[0].lost, found.pairs[0].gained) == (1, 1)
    assert "pass_at_k" in found.metrics["a"]["overall"]
    assert found.pairs[0].differences["overall"]["pass_at_k"].mean is None, "one completion has none"


# ---- flips ----


def test_a_sample_is_right_if_more_than_half_of_its_judged_completions_are() -> None:
    def verdict(*scores: float | None) -> bool | None:
        (sample,) = sample_values([answer("f/1", score, index=index) for index, score in enumerate(scores)])
        return is_mostly_right(sample)

    assert (verdict(1.0), verdict(0.2), verdict(0.0), verdict(None)) == (True, True, False, None)
    assert (verdict(1.0, 0.0), verdict(1.0, 0.0, None), verdict(1.0, None)) == (False, False, True)
    assert (verdict(1.0, 0.0, 0.1), verdict(None, None)) == (True, None)


def test_flips_are_the_samples_right_in_one_column_and_wrong_in_another() -> None:
    first = answers({"f/1": 1.0, "f/2": 0.0, "f/3": 1.0, "f/4": None, "f/5": 1.0, "f/6": 0.0})
    second = answers({"f/1": 0.0, "f/2": 0.0, "f/3": None, "f/4": 1.0, "f/6": 0.0, "f/7": 1.0})
    third = answers({"f/1": 1.0, "f/2": 0.5, "f/3": 1.0, "f/4": 0.0, "f/5": 1.0, "f/6": 0.0})
    found = compared(column("a", first), column("b", second), column("c", third))
    assert [flip.sample_id for flip in found.flips] == ["f/1", "f/2"]
    assert found.flips[0].right == {"a": True, "b": False, "c": True}
    assert found.flips[1].right == {"a": False, "b": False, "c": True}
    assert found.flips[1].answers == {"a": ["no"], "b": ["no"], "c": ["yes"]}
    assert [(pair.lost, pair.gained, pair.samples) for pair in found.pairs] == [(1, 0, 5), (0, 1, 6)]
    lines = [json.loads(line) for line in flips_text(found).splitlines()]
    assert lines[0] == {
        "sample_id": "f/1",
        "dataset": "vsr",
        "question": "Is f/1 so?",
        "answer": "yes",
        "runs": {
            "a": {"answers": ["yes"], "right": True},
            "b": {"answers": ["no"], "right": False},
            "c": {"answers": ["yes"], "right": True},
        },
    }


# ---- which samples are the same ----


def test_equal_ids_of_different_questions_are_not_paired() -> None:
    other = [answer("f/1", 1.0, question="Is it?"), answer("f/2", 1.0, answer="no"), *answers({"f/3": 1.0})]
    first = column("a", answers({"f/1": 0.0, "f/2": 0.0, "f/3": 0.0}))
    found = compared(first, column("b", other))
    assert found.pairs[0].samples == 1
    assert [flip.sample_id for flip in found.flips] == ["f/3"]
    (caveat,) = found.pairs[0].caveats
    assert caveat.startswith("the data differs: 2 sample ids in both b and a belong to different questions or")
    with pytest.raises(DataError, match=r"^/x/c.jsonl: shares no sample with /x/a.jsonl, so there is nothing to comp"):
        compared(first, column("c", other[:2]))


def test_samples_of_only_one_column_are_counted_in_a_caveat() -> None:
    (caveat,) = compared(A, B).pairs[0].caveats
    assert caveat.startswith("different samples: 2 only in b, 1 only in a; differences are over the samples in both")


# ---- what is not the same ----


def made(**changes: Any) -> dict[str, Any]:
    return {**SETTINGS, **changes}


DRAWN = {"num_generations": 1, "temperature": 1.0, "seed": 0}
ONES = answers({"f/1": 1.0})


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({}, {}, ""),
        ({}, {"prompt": {"version": known_prompts()["plain"]}}, ""),
        ({}, {"decoding": {**SETTINGS["decoding"], "max_new_tokens": 9}}, r"\(greedy, up to 9 .* \(greedy, up to 112 "),
        ({}, {"decoding": {**SETTINGS["decoding"], "stop": "."}}, r"greedy, up to 112 tokens, to '\.'\)"),
        ({"decoding": {"sampling": DRAWN}}, {"decoding": {"sampling": {**DRAWN, "seed": 1}}}, ""),
        ({"decoding": {"sampling": DRAWN}}, {"decoding": {"sampling": {**DRAWN, "temperature": 2}}}, "temperature 2"),
    ],
)
def test_different_decoding_is_a_caveat_and_a_different_prompt_is_not(first: Any, second: Any, expected: str) -> None:
    found = caveats(column("a", ONES, made(**first)), column("b", ONES, made(**second)))
    assert [bool(re.search(expected, line)) for line in found] == ([True] if expected else [])


def test_without_recorded_decoding_completions_per_sample_are_compared() -> None:
    twice = [answer("f/1", 1.0, index=index) for index in (0, 1)]
    assert caveats(column("a", ONES, None), column("b", ONES)) == []
    (line,) = caveats(column("a", ONES, None), column("b", twice, None))
    assert line == "b was decoded differently (2 completions per sample) than a (decoding not recorded)"


def test_a_different_judge_is_a_caveat() -> None:
    by_gpt = [answer("f/1", 1.0, judge="gpt-4o, prompt 0a1b")]
    (line,) = caveats(column("a", ONES), column("b", by_gpt))
    assert line == "b was judged by gpt-4o, prompt 0a1b, a by exact match: accuracies may differ because of the judge"
    mixed = column("c", [*by_gpt, answer("f/2", 1.0)])
    assert "c was judged by gpt-4o, prompt 0a1b and exact match" in caveats(column("a", ONES), mixed)[0]
    assert len(caveats(mixed, mixed)) == 1, "within one column already"


# ---- what is written ----


def test_a_csv_has_a_line_for_each_metric_dataset_and_run() -> None:
    first = answers({"v/1": 1.0, "v/2": 0.0}) + answers({"t/1": 1.0, "t/2": 1.0}, dataset="tallyqa")
    second = answers({"v/1": 1.0, "v/2": 1.0}) + answers({"t/1": 1.0, "t/2": None}, dataset="tallyqa")
    found = compared(column("a", first), column("b", second))
    lines = list(csv.DictReader(io.StringIO(csv_text(found))))
    assert len({(line["metric"], line["dataset"], line["run"]) for line in lines}) == len(lines)
    of = {(line["run"], line["dataset"]): line for line in lines if line["metric"] == "accuracy"}
    assert list(of) == [(run, name) for run in "ab" for name in ("overall", "tallyqa", "vsr", "macro")]
    assert list(of["a", "overall"].values())[3:] == ["0.75", "0.25", "1.0", "4", "", "", "", ""]
    assert (of["b", "overall"]["samples"], of["b", "overall"]["pairs"]) == ("3", "3")
    assert float(of["b", "overall"]["difference"]) == pytest.approx(1 / 3)
    vsr = of["b", "vsr"]
    assert [vsr[key] for key in ("value", "difference", "difference_low", "difference_high", "pairs")] == [
        "1.0", "0.5", "0.0", "1.0", "2",
    ]  # fmt: skip
    tallyqa = of["b", "tallyqa"]
    assert [tallyqa[key] for key in ("difference", "difference_low", "samples")] == ["0.0", "", "1"], "one has no ends"
    assert float(of["b", "macro"]["difference"]) == pytest.approx(0.25)
    assert {line["metric"] for line in lines}.isdisjoint({"samples", "unscored"})


def test_the_table_has_values_differences_and_accuracy_by_dataset() -> None:
    first = answers({"v/1": 1.0, "v/2": 0.0}) + answers({"t/1": 1.0, "t/2": 1.0}, dataset="tallyqa")
    second = answers({"v/1": 1.0, "v/2": 1.0}) + answers({"t/1": 1.0, "t/2": 0.0}, dataset="tallyqa")
    text = terminal(compared(column("a", first), column("b", second)), flips=1)
    rows = {title: cells for title, *cells in (re.split("  +", line.strip()) for line in text.splitlines())}
    assert rows["a"] == ["b", "b - a"]
    assert [cell.split()[0] for cell in rows["accuracy"]] == ["0.750", "0.750", "+0.000"]
    assert [cell.split()[0] for cell in rows["tallyqa"]] == ["1.000", "0.500", "-0.500"]
    assert rows["vsr"] == ["0.500 (0.000 to 1.000)", "1.000 (1.000 to 1.000)", "+0.500 (+0.000 to +1.000)"]
    assert [cell.split()[0] for cell in rows["macro"]] == ["0.750", "0.750", "+0.000"]
    assert rows["samples"] == ["4", "4", "4 in both"]
    assert "b against a: right → wrong 1, wrong → right 1, of 4 samples in both" in text
    assert text.endswith(
        "The first 1 of 2 samples that flipped, with the reference answer in brackets:\n"
        "  v/2: Is v/2 so? [yes] a wrong: no; b right: yes"
    )


def test_a_table_that_is_too_wide_is_printed_in_parts() -> None:
    columns = [column(name, answers({"f/1": 1.0, "f/2": 0.0})) for name in ("first", *"bcdef")]
    text = terminal(compared(*columns), flips=0)
    heads = [line.split() for line in text.splitlines() if line.startswith("   ")]
    assert heads[0] == ["first", *"bcdef"]
    assert heads[1] == [word for name in "bcdef" for word in (name, "-", "first")]
    assert "flipped" not in text


def test_hostile_text_stays_within_its_line_and_its_cell() -> None:
    said = "</table>|\n# no [x](y) \x1b[31m `"
    first = column("a|b", [answer("f/1", 1.0, question=said, answer=said), *answers({"f/2": 1.0})])
    second = column("c", [answer("f/1", 0.0, question=said, answer=said, parsed_answer=said), *answers({"f/2": 1.0})])
    found = compared(first, second)
    page = markdown(found, flips=5)
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in tables}) == 1
    (listed,) = [line for line in page.splitlines() if line.startswith("- f/1: ")]
    assert "<" not in listed
    assert "\\[x\\](y)" in listed
    assert "\x1b" not in page + terminal(found, flips=5)
    assert json.loads(flips_text(found))["question"] == said
