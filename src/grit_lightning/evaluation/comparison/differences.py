"""Paired comparison of evaluations: each further column against the first, on the samples that both have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grit_lightning.errors import DataError
from grit_lightning.evaluation.comparison.sources import Column, decoding_text
from grit_lightning.evaluation.intervals import Difference, Intervals, differences_by_dataset, intervals
from grit_lightning.evaluation.metrics import Metrics, SampleValues, sample_values, summary
from grit_lightning.evaluation.predictions import Prediction
from grit_lightning.evaluation.published import Published, matching


@dataclass(frozen=True, slots=True)
class Flip:
    """A sample that is right in one column and wrong in another.

    Attributes:
        sample_id: id of the sample.
        dataset: dataset of the sample.
        question: question of the sample.
        reference: reference answer.
        answers: answers of all completions, by column name.
        right: True if the column is right on the sample, by column name; ``None`` if no completion could be judged.
    """

    sample_id: str
    dataset: str
    question: str
    reference: str
    answers: Mapping[str, Sequence[str]]
    right: Mapping[str, bool | None]


@dataclass(frozen=True, slots=True)
class Pair:
    """The comparison of another column with the first, on the samples that both have.

    Attributes:
        first: name of the first column.
        second: name of the other column.
        differences: second − first, by dataset and metric.
        samples: number of samples that both columns have.
        lost: number of these samples that are right in the first column and wrong in the second.
        gained: number of these samples that are wrong in the first column and right in the second.
        caveats: sentences, each with a reason other than the model why the columns may differ.
    """

    first: str
    second: str
    differences: Mapping[str, Mapping[str, Difference]]
    samples: int
    lost: int
    gained: int
    caveats: Sequence[str]


@dataclass(frozen=True, slots=True)
class EvaluationComparison:
    """The result of comparing several columns with the first.

    Attributes:
        columns: the columns; all others are compared with the first.
        metrics: ``metrics.summary`` of each column, by column name.
        intervals: confidence intervals of these metrics, by column name.
        pairs: the comparison of each further column with the first.
        flips: samples that are right in some columns and wrong in others, in the order of the first column.
        published: published figures that match the protocol of each column, by column name.
    """

    columns: Sequence[Column]
    metrics: Mapping[str, Mapping[str, Metrics]]
    intervals: Mapping[str, Mapping[str, Intervals]]
    pairs: Sequence[Pair]
    flips: Sequence[Flip]
    published: Mapping[str, Sequence[Published]]

    @property
    def differences(self) -> dict[str, Mapping[str, Mapping[str, Difference]]]:
        """Differences from the first column, by column name, dataset and metric."""
        return {pair.second: pair.differences for pair in self.pairs}


def compare_columns(columns: Sequence[Column], *, resamples: int) -> EvaluationComparison:
    """Compare each column with the first.

    Args:
        columns: two columns or more.
        resamples: number of bootstrap resamples; 0 for no intervals.

    Raises:
        DataError: a column has no sample in common with the first.
    """
    first, *others = columns
    values = {column.name: sample_values(column.predictions) for column in columns}
    right = {name: {sample.sample_id: is_mostly_right(sample) for sample in of} for name, of in values.items()}
    common = {other.name: samples_in_common(first, other) for other in others}
    return EvaluationComparison(
        columns=columns,
        metrics={column.name: summary(column.predictions) for column in columns},
        intervals={column.name: intervals(column.predictions, resamples=resamples) for column in columns},
        pairs=[_pair(first, other, values, right, common[other.name], resamples) for other in others],
        flips=_flips(columns, right, common),
        published={column.name: matching(column.settings, column.predictions) for column in columns},
    )


def is_mostly_right(sample: SampleValues) -> bool | None:
    """Tell whether more than half of the judged completions of a sample are right; ``None`` if none was judged."""
    share = sample.values["accuracy_binarised"]
    return None if share is None else share > 0.5


def samples_in_common(first: Column, second: Column) -> set[str]:
    """Return the sample ids that have the same dataset, question and reference answer in both columns.

    Raises:
        DataError: there is no such sample.
    """
    asked, asked_too = _asked(first), _asked(second)
    common = {name for name in asked if asked[name] == asked_too.get(name)}
    if not common:
        raise DataError(f"shares no sample with {first.file}, so there is nothing to compare", str(second.file))
    return common


def _asked(column: Column) -> dict[str, tuple[str, str, str]]:
    """Return dataset, question and reference answer by sample id.

    The id alone does not identify a sample, because another version of the data may reuse it for another question.
    """
    return {one["sample_id"]: (one["dataset"], one["question"], one["answer"]) for one in column.predictions}


def _pair(
    first: Column,
    second: Column,
    values: Mapping[str, Sequence[SampleValues]],
    right: Mapping[str, Mapping[str, bool | None]],
    common: set[str],
    resamples: int,
) -> Pair:
    shared = [[sample for sample in values[one.name] if sample.sample_id in common] for one in (first, second)]
    verdicts = [(right[first.name][name], right[second.name][name]) for name in common]
    return Pair(
        first=first.name,
        second=second.name,
        differences=differences_by_dataset(*shared, resamples=resamples),
        samples=len(common),
        lost=verdicts.count((True, False)),
        gained=verdicts.count((False, True)),
        caveats=caveats(first, second),
    )


def _flips(
    columns: Sequence[Column], right: Mapping[str, Mapping[str, bool | None]], common: Mapping[str, set[str]]
) -> list[Flip]:
    first = columns[0]
    groups = {column.name: _by_sample(column.predictions) for column in columns}
    flips = []
    for sample_id, group in groups[first.name].items():
        there = [first.name, *(name for name, ids in common.items() if sample_id in ids)]
        verdicts = {name: right[name][sample_id] for name in there}
        if {True, False} == {one for one in verdicts.values() if one is not None} and verdicts[first.name] is not None:
            one = group[0]
            answers = {name: [each["parsed_answer"] for each in groups[name][sample_id]] for name in there}
            flips.append(Flip(sample_id, one["dataset"], one["question"], one["answer"], answers, verdicts))
    return flips


def _by_sample(predictions: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    groups: dict[str, list[Prediction]] = {}
    for one in predictions:
        groups.setdefault(one["sample_id"], []).append(one)
    return groups


# ---- caveats ----


def caveats(first: Column, second: Column) -> list[str]:
    """Return one sentence for each difference in judge, decoding or samples that may distort the comparison.

    A different prompt is not reported, because prompts are often what a comparison is about.
    """
    return [*_judge_caveats(first, second), *_decoding_caveats(first, second), *_sample_caveats(first, second)]


def _judge_caveats(first: Column, second: Column) -> list[str]:
    if set(first.judges) == set(second.judges) and len(first.judges) <= 1:
        return []
    names = [" and ".join(one.judges) or "an unrecorded judge" for one in (first, second)]
    return [
        f"{second.name} was judged by {names[1]}, {first.name} by {names[0]}: "
        "accuracies may differ because of the judge"
    ]


def _decoding_caveats(first: Column, second: Column) -> list[str]:
    how: list[Any] = [(one.settings or {}).get("decoding") for one in (first, second)]
    known = all(isinstance(one, Mapping) for one in how)
    if _without_seed(how[0]) == _without_seed(how[1]) if known else first.samples_each == second.samples_each:
        return []
    texts = [
        decoding_text(of if known else None, one.samples_each) for of, one in zip(how, (first, second), strict=True)
    ]
    if texts[0] == texts[1]:
        texts = [f"{text}, to {of.get('stop')!r}" for text, of in zip(texts, how, strict=True)]
    return [f"{second.name} was decoded differently ({texts[1]}) than {first.name} ({texts[0]})"]


def _without_seed(decoding: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the seed, because samples from the same distribution are comparable."""
    sampling = decoding.get("sampling")
    return {**decoding, "sampling": {**sampling, "seed": None} if isinstance(sampling, Mapping) else sampling}


def _sample_caveats(first: Column, second: Column) -> list[str]:
    asked, asked_too = _asked(first), _asked(second)
    only = len(asked.keys() - asked_too.keys()), len(asked_too.keys() - asked.keys())
    changed = sum(asked[name] != asked_too[name] for name in asked.keys() & asked_too.keys())
    found = []
    if any(only):
        found.append(
            f"different samples: {only[1]} only in {second.name}, {only[0]} only in {first.name}; differences are over "
            "the samples in both, means over all of each run"
        )
    if changed:
        found.append(
            f"the data differs: {changed} sample ids in both {second.name} and {first.name} belong to different "
            "questions or reference answers, and are not paired"
        )
    return found
