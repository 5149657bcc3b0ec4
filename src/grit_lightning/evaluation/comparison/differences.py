"""Predictions compared sample by sample: each further column with the first, on the samples that both have."""

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
        sample_id: of the sample.
        dataset: that it belongs to.
        question: what was asked.
        reference: the answer it should have.
        answers: what was answered, by column, of each completion.
        right: whether that is right, by column; ``None`` where no completion could be judged.
    """

    sample_id: str
    dataset: str
    question: str
    reference: str
    answers: Mapping[str, Sequence[str]]
    right: Mapping[str, bool | None]


@dataclass(frozen=True, slots=True)
class Pair:
    """The first column and another, on the samples that both have.

    Attributes:
        first: the first column's name.
        second: the other's.
        differences: second − first, by dataset and metric.
        samples: how many both have.
        lost: how many of them are right in the first and wrong in the second.
        gained: the other way round.
        caveats: why a difference may be one of something else than the model, a sentence each.
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
    """All that was compared.

    Attributes:
        columns: the first is what the others are compared with.
        metrics: ``metrics.summary`` of each, by its name.
        intervals: of these metrics.
        pairs: one for each column but the first.
        flips: the samples on which another column differs from the first, in the first's order.
        published: figures that columns may be held against, by the columns' names.
    """

    columns: Sequence[Column]
    metrics: Mapping[str, Mapping[str, Metrics]]
    intervals: Mapping[str, Mapping[str, Intervals]]
    pairs: Sequence[Pair]
    flips: Sequence[Flip]
    published: Mapping[str, Sequence[Published]]

    @property
    def differences(self) -> dict[str, Mapping[str, Mapping[str, Difference]]]:
        """By column, dataset and metric."""
        return {pair.second: pair.differences for pair in self.pairs}


def compare_columns(columns: Sequence[Column], *, resamples: int) -> EvaluationComparison:
    """Compare each column with the first.

    Args:
        columns: at least two.
        resamples: of the bootstrap; 0 for no intervals.

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
    """Whether more than half of its judged completions are right; ``None`` where none was judged."""
    share = sample.values["accuracy_binarised"]
    return None if share is None else share > 0.5


def samples_in_common(first: Column, second: Column) -> set[str]:
    """The ids that stand for the same question with the same reference answer in both.

    Raises:
        DataError: there are none.
    """
    asked, asked_too = _asked(first), _asked(second)
    common = {name for name in asked if asked[name] == asked_too.get(name)}
    if not common:
        raise DataError(f"no sample of it is in {first.file}, so there is nothing to compare", str(second.file))
    return common


def _asked(column: Column) -> dict[str, tuple[str, str, str]]:
    """What each sample is: an id alone may stand for another question in another version of the data."""
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


# ---- what is not the same ----


def caveats(first: Column, second: Column) -> list[str]:
    """Why differences between two columns may be of something else than what they are meant to compare.

    Another prompt is none of these: it is often what is compared.
    """
    return [*_other_judge(first, second), *_other_decoding(first, second), *_other_samples(first, second)]


def _other_judge(first: Column, second: Column) -> list[str]:
    if set(first.judges) == set(second.judges) and len(first.judges) <= 1:
        return []
    names = [" and ".join(one.judges) or "whom is not recorded" for one in (first, second)]
    return [
        f"{second.name} was judged by {names[1]}, {first.name} by {names[0]}: their accuracies differ by judge, too"
    ]


def _other_decoding(first: Column, second: Column) -> list[str]:
    how: list[Any] = [(one.settings or {}).get("decoding") for one in (first, second)]
    known = all(isinstance(one, Mapping) for one in how)
    if _without_seed(how[0]) == _without_seed(how[1]) if known else first.samples_each == second.samples_each:
        return []
    texts = [
        decoding_text(of if known else None, one.samples_each) for of, one in zip(how, (first, second), strict=True)
    ]
    if texts[0] == texts[1]:
        texts = [f"{text}, to {of.get('stop')!r}" for text, of in zip(texts, how, strict=True)]
    return [f"{second.name} was decoded in another way ({texts[1]}) than {first.name} ({texts[0]})"]


def _without_seed(decoding: Mapping[str, Any]) -> dict[str, Any]:
    """Draws of the same distribution can be compared."""
    sampling = decoding.get("sampling")
    return {**decoding, "sampling": {**sampling, "seed": None} if isinstance(sampling, Mapping) else sampling}


def _other_samples(first: Column, second: Column) -> list[str]:
    asked, asked_too = _asked(first), _asked(second)
    only = len(asked.keys() - asked_too.keys()), len(asked_too.keys() - asked.keys())
    changed = sum(asked[name] != asked_too[name] for name in asked.keys() & asked_too.keys())
    found = []
    if any(only):
        found.append(
            f"other samples: {only[1]} only in {second.name}, {only[0]} only in {first.name}; differences are over "
            "those in both, means over each one's own"
        )
    if changed:
        found.append(
            f"the data differs: {changed} of the samples in both {second.name} and {first.name} by their id are other "
            "questions or have other answers there, and are not paired"
        )
    return found
