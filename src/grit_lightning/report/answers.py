"""The part of a page with answers to held-out questions: a table of metrics, and answers side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grit_lightning.evaluation.predictions import Prediction
from grit_lightning.report.choice import first_of_each, flips_first
from grit_lightning.report.completions import html_size, shown
from grit_lightning.report.pictures import Pictures

OTHERS = 60
"""Held-out samples on a page beside those that became right or wrong."""

ANSWER_BYTES = 4_000_000
"""Approximate bytes of answers on a page, images apart; it limits the number of samples that became right or wrong."""


def answers_part(columns: Mapping[str, Sequence[Prediction]], pictures: Pictures) -> dict[str, Any]:
    """Return the answers of each column to the same questions side by side: samples that flipped, then typical ones.

    Args:
        columns: predictions by the name of the column. A sample flips between the first and the last column.
        pictures: the images of the page.
    """
    by_sample = {name: first_of_each(ones) for name, ones in columns.items()}
    answers = list(by_sample.values())
    first, last, several = answers[0], answers[-1], len(answers) > 1
    cost = sum(html_size(one) for of in answers for one in of.values()) / max(1, len(last))
    chosen = flips_first(first if several else {}, last, flips=int(ANSWER_BYTES / max(1.0, cost)), others=OTHERS)
    pairs = [_pair(name, by_sample, pictures) for name in chosen.names]
    return {
        "pairs": pairs,
        "pairs_note": _note(chosen.flips, chosen.all_flips, len(chosen.names), len(last), several=several),
        "kinds": list(dict.fromkeys(pair["kind"] for pair in pairs)),
        "pair_datasets": sorted({pair["dataset"] for pair in pairs}),
    }


def asked(record: Mapping[str, Any]) -> dict[str, str]:
    """Return what a group of completions has in common: question, reference answer, sample and dataset."""
    names = {"question": "question", "reference": "answer", "sample_id": "sample_id", "dataset": "dataset"}
    return {name: str(record[field]) for name, field in names.items()}


def _note(flips: int, all_flips: int, count: int, every: int, *, several: bool) -> str:
    flipped = "all" if flips == all_flips else f"{flips} of"
    those = f"{flipped} {all_flips} that became right or wrong, then others" if several else "those shown are"
    return f"{count} of {every} questions: {those} evenly spaced in the data"


def _pair(name: str, by_sample: Mapping[str, Mapping[str, Prediction]], pictures: Pictures) -> dict[str, Any]:
    ones = [(when, found[name]) for when, found in by_sample.items() if name in found]
    completions = [(when, shown(one, pictures.of(one))) for when, one in ones]
    marks = ["unscored" if one.right is None else "right" if one.right else "wrong" for _, one in completions]
    return asked(ones[-1][1]) | {"completions": completions, "kind": " → ".join(marks)}
