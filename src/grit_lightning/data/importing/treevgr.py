"""Reader of TreeVGR-RL-37K's parquet: EasyR1's fields and ``target_instances``, a list of ``bbox`` and ``name``.

Source: https://huggingface.co/datasets/HaochenWang/TreeVGR-RL-37K, made for EasyR1
(https://github.com/Haochen-Wang409/TreeVGR, "Acknowledgement").

Not confirmed: how ``bbox`` is written. The user therefore says it (``task.boxes``), and it is checked against the
images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from grit_lightning.data.importing import easyr1
from grit_lightning.data.importing.sample import BoxForm, ForeignBox, ForeignSample, LeftOutError, others, text_of
from grit_lightning.errors import ConfigError
from grit_lightning.system.jsonl import shown


def read(row: Mapping[str, Any], boxes: BoxForm | None) -> ForeignSample:
    """Return the sample of a row.

    Args:
        row: the row.
        boxes: how ``bbox`` is written.

    Raises:
        ConfigError: ``boxes`` is ``None``.
        LeftOutError: the row cannot be imported.
    """
    if boxes is None:
        raise ConfigError(
            "task.boxes is null, expected how target_instances are written: pixels (x1, y1, x2, y2), xywh, share (0 to "
            "1) or thousandths"
        )
    sample = easyr1.read(row, boxes)
    instances = row.get("target_instances") or []
    if not isinstance(instances, list):
        raise LeftOutError("target_instances", f"is {shown(instances)}; expected a list of objects with bbox and name")
    found = []
    for index, one in enumerate(instances):
        field = f"target_instances[{index}]"
        if not isinstance(one, dict) or not isinstance(one.get("bbox"), list):
            raise LeftOutError(field, f"is {shown(one)}; expected an object with bbox and name")
        found.append(ForeignBox(f"{field}.bbox", one["bbox"], boxes, text_of(one, "name")))
    return replace(sample, boxes=found, extra=others(sample.extra, "target_instances"))
