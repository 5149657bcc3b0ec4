"""Reports of an evaluation comparison: a terminal table, Markdown, CSV and JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence

from grit_lightning.evaluation.comparison.differences import EvaluationComparison, Flip, Pair
from grit_lightning.evaluation.metrics import COUNTS, OVERALL, Metrics, known, sample_values
from grit_lightning.evaluation.tables import TITLES, comparison_cells, interval, number, titles
from grit_lightning.system.tables import excerpt, text_table

FIELDS = (
    "metric",
    "dataset",
    "run",
    "value",
    "low",
    "high",
    "samples",
    "difference",
    "difference_low",
    "difference_high",
    "pairs",
)
"""Columns of the CSV.

``samples`` counts the samples that have the metric in this run, ``pairs`` those that have it in the first run too.
``low`` and ``high`` are the ends of the 95 % interval; ``difference`` is this run − the first run.
"""

_WIDTH = 120
"""Maximum width of a terminal table in characters; a wider table is split."""

_QUESTION, _ANSWER = 100, 60
"""Maximum lengths, in characters, of a question and of an answer in the list of flips."""


def terminal(comparison: EvaluationComparison, flips: int) -> str:
    """Return the comparison as text for the terminal.

    Args:
        comparison: the comparison to report.
        flips: maximum number of flipped samples to list.
    """
    blocks = [
        "\n".join(
            line for column in comparison.columns for line in (f"{column.name}: {column.file}", f"  {column.how()}")
        ),
        table(comparison),
        "\n".join(published_lines(comparison)),
        "\n".join(map(pair_line, comparison.pairs)),
        "\n  ".join(filter(None, [_list_title(comparison.flips, flips), *map(flip_line, comparison.flips[:flips])])),
    ]
    return "\n\n".join(filter(None, blocks))


def markdown(comparison: EvaluationComparison, flips: int) -> str:
    """Return the comparison as a Markdown page; the arguments are those of :func:`terminal`."""
    caveats = [line for pair in comparison.pairs for line in pair.caveats]
    lines = [
        "# Evaluations compared",
        "",
        *(f"- **{_plain(column.name)}**: `{column.file}`, {_plain(column.how())}" for column in comparison.columns),
        "",
        *markdown_table(comparison),
        *(["", "Not quite comparable:", "", *(f"- {_plain(line)}" for line in caveats)] if caveats else []),
        "",
        "## Samples that flipped",
        "",
        *(f"- {_plain(pair_line(pair))}" for pair in comparison.pairs),
        "",
        "A sample counts as right if more than half of its judged completions are right.",
        "",
        _list_title(comparison.flips, flips),
        "",
        *(f"- {_plain(flip_line(flip))}" for flip in comparison.flips[:flips]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def markdown_table(comparison: EvaluationComparison) -> list[str]:
    """Return the lines of the table in Markdown, what its brackets mean, and the published figures beside it."""
    header, rows = cells(comparison, with_intervals=True)
    return [
        f"| | {' | '.join(map(_plain, header))} |",
        f"|---|{'---:|' * len(header)}",
        *(f"| {_plain(title)} | {' | '.join(map(_plain, row))} |" for title, row in rows.items()),
        "",
        "In brackets: 95 % bootstrap intervals over samples. Differences are paired: over the samples of both runs.",
        *(["", *(f"- {_plain(line)}" for line in published)] if (published := published_lines(comparison)) else []),
    ]


def csv_text(comparison: EvaluationComparison) -> str:
    """Return the comparison as CSV, one line per metric, dataset and run. Undefined values are empty cells."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_csv_rows(comparison))
    return text.getvalue()


def flips_text(comparison: EvaluationComparison) -> str:
    """Return one JSON line for each flipped sample, with the answers of each run and whether they are right."""
    return "".join(f"{json.dumps(_flip_record(flip))}\n" for flip in comparison.flips)


def pair_line(pair: Pair) -> str:
    """Return one line with the number of samples that flipped between two columns."""
    return (
        f"{pair.second} against {pair.first}: right → wrong {pair.lost}, wrong → right {pair.gained}, "
        f"of {pair.samples} samples in both"
    )


def flip_line(flip: Flip) -> str:
    """Return one line with the question, the reference answer and the answers of each column."""
    answers = [
        f"{name} {_verdict(flip.right[name])}: {excerpt(' / '.join(found), _ANSWER) or 'nothing'}"
        for name, found in flip.answers.items()
    ]
    asked = f"{excerpt(flip.question, _QUESTION)} [{excerpt(flip.reference, _ANSWER)}]"
    return f"{flip.sample_id}: {asked} {'; '.join(answers)}"


def published_lines(comparison: EvaluationComparison) -> list[str]:
    """Return one line for each published figure, with the values of the columns that follow its protocol."""
    ours: dict[str, list[str]] = {}
    for name, found in comparison.published.items():
        for one in found:
            metric, dataset = one.figure.metric, one.dataset
            value = number(comparison.metrics[name][dataset].get(metric))
            ends = interval(comparison.intervals[name][dataset].get(metric))
            ours.setdefault(one.note(), []).append(f"{name}: {value}{f' ({ends})' if ends else ''}")
    return [f"{note}; {', '.join(values)}" for note, values in ours.items()]


# ---- tables and CSV ----


def table(comparison: EvaluationComparison) -> str:
    """Return the widest layout that fits ``_WIDTH``.

    The layouts are: one table with intervals, one table without, and two tables, of values and of differences.
    """
    for with_intervals in (True, False):
        table = text_table(*cells(comparison, with_intervals=with_intervals))
        if max(map(len, table.splitlines())) <= _WIDTH:
            return table
    header, rows = cells(comparison, with_intervals=False)
    count = len(comparison.columns)
    values = text_table(header[:count], {title: row[:count] for title, row in rows.items()})
    changes = text_table(header[count:], {title: row[count:] for title, row in rows.items()})
    return f"{values}\n\n{changes}"


def cells(comparison: EvaluationComparison, *, with_intervals: bool) -> tuple[list[str], dict[str, list[str]]]:
    """Return the header and the rows of the table of all metrics."""
    of_datasets = comparison.differences
    every: Metrics = {name: None for metrics in comparison.metrics.values() for name in metrics[OVERALL]}
    header, rows = comparison_cells(
        comparison.metrics,
        {name: of[OVERALL] for name, of in of_datasets.items()},
        [name for name in titles(every) if name != "samples"],
        of_intervals=comparison.intervals if with_intervals else None,
        of_datasets=of_datasets,
    )
    rows[TITLES["samples"]][len(comparison.columns) :] = [f"{pair.samples} in both" for pair in comparison.pairs]
    return header, rows


def _csv_rows(comparison: EvaluationComparison) -> Iterator[dict[str, object]]:
    for column in comparison.columns:
        values = sample_values(column.predictions)
        differences = comparison.differences.get(column.name, {})
        for dataset, metrics in comparison.metrics[column.name].items():
            those = [sample for sample in values if sample.dataset == dataset] or values  # all for OVERALL and MACRO
            for metric, value in metrics.items():
                if metric in COUNTS:
                    continue
                ends = comparison.intervals[column.name][dataset].get(metric)
                change = differences.get(dataset, {}).get(metric)
                change_ends = change.interval if change else None
                yield {
                    "metric": metric,
                    "dataset": dataset,
                    "run": column.name,
                    "value": value,
                    "low": ends.low if ends else None,
                    "high": ends.high if ends else None,
                    "samples": len(known(those, metric)),
                    "difference": change.mean if change else None,
                    "difference_low": change_ends.low if change_ends else None,
                    "difference_high": change_ends.high if change_ends else None,
                    "pairs": change.samples if change else None,
                }


# ---- flips ----


def _flip_record(flip: Flip) -> dict[str, object]:
    return {
        "sample_id": flip.sample_id,
        "dataset": flip.dataset,
        "question": flip.question,
        "answer": flip.reference,
        "runs": {name: {"answers": list(flip.answers[name]), "right": flip.right[name]} for name in flip.answers},
    }


def _list_title(flips: Sequence[Flip], count: int) -> str:
    """Return the heading of the list of flips; an empty string if the list is empty."""
    if not flips[:count]:
        return ""
    which = f"the first {count} of {len(flips)} samples" if len(flips) > count else "the samples"
    return f"{which.capitalize()} that flipped, with the reference answer in brackets:"


def _verdict(right: bool | None) -> str:
    return "not judged" if right is None else "right" if right else "wrong"


def _plain(text: str) -> str:
    """Escape the characters that have a meaning in Markdown."""
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"\\{character}" if character not in "|<>" else f"&#{ord(character)};")
    return text
