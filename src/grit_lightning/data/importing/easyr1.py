"""Reader of EasyR1's parquet and JSONL: ``images``, ``problem`` and ``answer``.

Source: https://github.com/hiyouga/EasyR1, README.md, "Custom Dataset", and verl/utils/dataset.py: an image is a path
below the image folder, bytes, or an object with ``bytes``; ``<image>`` marks in ``problem`` place the images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grit_lightning.data.importing.sample import (
    BoxForm,
    ForeignSample,
    answer_of,
    list_of,
    others,
    text_of,
    without_leading_mark,
)


def read(row: Mapping[str, Any], boxes: BoxForm | None) -> ForeignSample:
    """Return the sample of a row; ``boxes`` is not needed, because the format has none."""
    images = list_of(row, "images")
    return ForeignSample(
        question=without_leading_mark(text_of(row, "problem"), len(images)),
        answer=answer_of(row, "answer"),
        images=images,
        extra=others(row, "images", "problem", "answer"),
    )
