"""Reader of VLM-R1's JSONL: ``image`` and ``conversations``.

Source: https://github.com/om-ai-lab/VLM-R1, README.md, "For your own data". ``image`` is a path relative to the image
folder, or a list of paths; ``conversations`` has a ``human`` and a ``gpt`` turn, and ``<image>`` marks in the first.

Not confirmed: the coordinates of boxes that the answers of its referring-expression data contain. They stay text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grit_lightning.data.importing.sample import (
    BoxForm,
    ForeignSample,
    LeftOutError,
    answer_of,
    list_of,
    others,
    text_of,
    without_leading_mark,
)


def read(row: Mapping[str, Any], boxes: BoxForm | None) -> ForeignSample:
    """Return the sample of a row; ``boxes`` is not needed, because the format has none."""
    image = row.get("image")
    images = list_of(row, "image") if isinstance(image, list) else [text_of(row, "image")]
    turns = list_of(row, "conversations")
    if [turn.get("from") if isinstance(turn, dict) else None for turn in turns] != ["human", "gpt"]:
        raise LeftOutError("conversations", "has other turns; expected one of human and one of gpt")
    return ForeignSample(
        question=without_leading_mark(text_of(turns[0], "value"), len(images)),
        answer=answer_of(turns[1], "value"),
        images=images,
        extra=others(row, "image", "conversations"),
    )
