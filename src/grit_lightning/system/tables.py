"""Text tables and text excerpts for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grit_lightning.system.printable import printable


def record_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a left-aligned table: a header with the column names, then one line per row.

    Args:
        rows: at least one row, as cell text by column name; all rows have the same columns.
    """
    header = list(rows[0])
    lines = [header, *(list(row.values()) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([text[0], "-" * (sum(widths) + 2 * len(widths) - 2), *text[1:]])


def text_table(header: Sequence[str], rows: Mapping[str, Sequence[str]], *, width: int = 10) -> str:
    """Return a table of right-aligned cells with a header, and with a title at the start of each row.

    Args:
        header: column names; the column of titles has none.
        rows: cell texts by title of the row.
        width: minimum width of a column in characters.
    """
    first = max(map(len, rows), default=0)
    widths = [max(width, len(name), *(len(row[at]) for row in rows.values())) for at, name in enumerate(header)]
    lines = {"": header, **rows}.items()
    return "\n".join(
        (f"{title:{first}}" + "".join(f"  {cell:>{wide}}" for cell, wide in zip(row, widths, strict=True))).rstrip()
        for title, row in lines
    )


def excerpt(text: str, length: int) -> str:
    """Return a text on one line, shortened in the middle to ``length`` of its characters, unprintable ones escaped."""
    text = " ".join(text.split())
    if len(text) > length:
        text = f"{text[: length - length // 2]} … {text[len(text) - length // 2 :]}"
    return printable(text)
