"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def record_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a line for each row under the names of the columns, left-aligned; all rows have the same columns."""
    header = list(rows[0])
    lines = [header, *(list(row.values()) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([text[0], "-" * (sum(widths) + 2 * len(widths) - 2), *text[1:]])


def text_table(header: Sequence[str], rows: Mapping[str, Sequence[str]], *, width: int = 10) -> str:
    """Return rows of right-aligned cells under a header, each behind its title.

    Args:
        header: names of the columns, without that of the titles.
        rows: cells by title.
        width: least width of a column in characters.
    """
    first = max(map(len, rows), default=0)
    widths = [max(width, len(name), *(len(row[at]) for row in rows.values())) for at, name in enumerate(header)]
    lines = {"": header, **rows}.items()
    return "\n".join(
        (f"{title:{first}}" + "".join(f"  {cell:>{wide}}" for cell, wide in zip(row, widths, strict=True))).rstrip()
        for title, row in lines
    )


def excerpt(text: str, length: int) -> str:
    """Beginning and end of a text on one line, ``length`` characters of it at most; what cannot be shown is escaped."""
    text = " ".join(text.split())
    if len(text) > length:
        text = f"{text[: length - length // 2]} … {text[len(text) - length // 2 :]}"
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
