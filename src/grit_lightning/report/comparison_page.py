"""The page about a comparison of evaluations."""

from __future__ import annotations

from grit_lightning.evaluation.comparison import report
from grit_lightning.evaluation.comparison.differences import EvaluationComparison
from grit_lightning.report.answers import answers_part
from grit_lightning.report.page import html
from grit_lightning.report.pictures import Pictures


def comparison_page(comparison: EvaluationComparison) -> str:
    """Return the page about a comparison: how evaluations were made, metrics with intervals, answers side by side."""
    pictures = Pictures()
    header, rows = report.cells(comparison, with_intervals=True)
    columns = comparison.columns
    notes = [
        *(report.pair_line(pair) for pair in comparison.pairs),
        *(caveat for pair in comparison.pairs for caveat in pair.caveats),
        *report.published_lines(comparison),
    ]
    caption = "in brackets: 95 % bootstrap intervals over samples; differences are paired, over the samples of both"
    content = {
        "facts": [(column.name, f"{column.file}\n{column.how()}") for column in columns],
        "table": {"header": header, "rows": rows, "caption": caption},
        "notes": notes,
    }
    return html(
        title=" and ".join(column.name for column in columns) if len(columns) == 2 else f"{len(columns)} evaluations",
        subtitle="a comparison of grit_lightning",
        pictures=pictures,
        content=content | answers_part({column.name: column.predictions for column in columns}, pictures),
    )
