"""Reader of verl's parquet, as DeepEyes uses it: ``prompt``, ``images`` and ``reward_model.ground_truth``.

Source: https://github.com/volcengine/verl, recipe/deepeyes (deepeyes47k_preprocess.py): ``prompt`` is a list of chat
turns, of which the user's holds ``<image>`` marks; ``images`` are objects with ``bytes``. ``data_source`` becomes the
name of the data set; ``extra_info``, ``ability`` and others are kept.
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
    object_of,
    others,
    text_of,
    without_leading_mark,
)


def read(row: Mapping[str, Any], boxes: BoxForm | None) -> ForeignSample:
    """Return the sample of a row; ``boxes`` is not needed, because the format has none."""
    images = list_of(row, "images")
    turns = list_of(row, "prompt")
    if not all(isinstance(turn, dict) for turn in turns):
        raise LeftOutError("prompt", "has other entries; expected turns with role and content")
    users = [text_of(turn, "content") for turn in turns if turn.get("role") == "user"]
    system = [text_of(turn, "content") for turn in turns if turn.get("role") == "system"]
    if len(users) != 1 or len(users) + len(system) != len(turns):
        raise LeftOutError("prompt", f"has {len(users)} turns of the user; expected one, after a system's at most")
    dataset = row.get("data_source")
    extra = others(row, "images", "prompt", "reward_model", "data_source")
    return ForeignSample(
        question=without_leading_mark(users[0], len(images)),
        answer=answer_of(object_of(row, "reward_model"), "ground_truth"),
        images=images,
        dataset=dataset if isinstance(dataset, str) and dataset else None,
        extra=extra | ({"system": system[0]} if system else {}),
    )
