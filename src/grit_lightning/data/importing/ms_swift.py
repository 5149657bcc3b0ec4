"""Reader of ms-swift's grounding JSONL: ``messages``, ``images`` and ``objects``.

Source: https://github.com/modelscope/ms-swift, docs/source_en/Customization/Custom-dataset.md, "Multimodal" and
"Grounding". ``<ref-object>`` and ``<bbox>`` in the messages stand for the entries of ``objects.ref`` and
``objects.bbox``, in order. ``bbox_type`` is ``real`` (xyxy in pixels, the default) or ``norm1`` (0 to 1), and
``image_id`` gives the index of each box's image, from 0. Paths of images are absolute or relative to the image folder.

The answer is the assistant's text, or what it has between ``<answer>`` tags; the text is also the completion. Left out,
because there is no place for them: several turns, points, boxes in the question, and models' own box tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grit_lightning.data.importing.sample import (
    BoxForm,
    ForeignBox,
    ForeignSample,
    LeftOutError,
    list_of,
    object_of,
    others,
    text_of,
    unwrapped,
    without_leading_mark,
)
from grit_lightning.system.jsonl import shown

_FORMS: Mapping[str, BoxForm] = {"real": "pixels", "norm1": "share"}
_REF, _BOX = "<ref-object>", "<bbox>"


def read(row: Mapping[str, Any], boxes: BoxForm | None) -> ForeignSample:
    """Return the sample of a row; ``boxes`` is not needed, because the format says how boxes are written."""
    images = list_of(row, "images")
    question, answer, system = _turns(row)
    objects = object_of(row, "objects") if row.get("objects") is not None else {}
    if _BOX in question:
        raise LeftOutError("messages", f"has {_BOX} in the question; expected boxes in the answer only")
    refs = [one for one in objects.get("ref") or [] if isinstance(one, str)]
    question, left = _with_refs(question, refs)
    answer, _ = _with_refs(answer, left)
    found = _boxes(objects, refs, len(images))
    if answer.count(_BOX) not in (0, len(found)):
        raise LeftOutError("objects.bbox", f"has {len(found)} entries; expected {answer.count(_BOX)}, one per {_BOX}")
    completion = answer
    for index in range(len(found)):
        completion = completion.replace(_BOX, f"{{box:{index}}}", 1)
    extra = others(row, "messages", "images", "objects") | ({"system": system} if system else {})
    return ForeignSample(
        question=without_leading_mark(question, len(images)),
        answer=unwrapped(completion),
        images=images,
        boxes=found,
        completion=completion,
        extra=extra,
    )


def _turns(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the user's text, the assistant's and the system's; the last may be empty."""
    texts: dict[str, list[str]] = {"system": [], "user": [], "assistant": []}
    for index, message in enumerate(list_of(row, "messages")):
        field = f"messages[{index}]"
        if not isinstance(message, dict) or message.get("role") not in texts:
            raise LeftOutError(field, "has no role of system, user or assistant; expected one question and one answer")
        texts[message["role"]].append(text_of(message, "content"))
    if len(texts["user"]) != 1 or len(texts["assistant"]) != 1:
        counts = f"{len(texts['user'])} questions and {len(texts['assistant'])} answers"
        raise LeftOutError("messages", f"has {counts}; expected one of each")
    return texts["user"][0], texts["assistant"][0], "\n".join(texts["system"])


def _with_refs(text: str, refs: list[str]) -> tuple[str, list[str]]:
    """Replace each mark of an object by its name, and return the names that are left."""
    refs = list(refs)
    while _REF in text:
        if not refs:
            raise LeftOutError("objects.ref", f"has too few entries; expected one per {_REF}")
        text = text.replace(_REF, refs.pop(0), 1)
    return text, refs


def _boxes(objects: Mapping[str, Any], refs: list[str], num_images: int) -> list[ForeignBox]:
    kind = objects.get("bbox_type") or "real"
    if kind not in _FORMS:
        raise LeftOutError("objects.bbox_type", f"is {shown(kind)}; expected one of {', '.join(_FORMS)}")
    written = objects.get("bbox") or []
    if not isinstance(written, list) or not all(isinstance(box, list) for box in written):
        raise LeftOutError("objects.bbox", f"is {shown(written)}; expected a list of [x1, y1, x2, y2] boxes")
    owners = objects.get("image_id") or [0] * len(written)
    if not isinstance(owners, list) or len(owners) != len(written):
        raise LeftOutError("objects.image_id", f"is {shown(owners)}; expected an index for each box")
    for index, owner in enumerate(owners):
        if isinstance(owner, bool) or not isinstance(owner, int) or not 0 <= owner < num_images:
            raise LeftOutError(f"objects.image_id[{index}]", f"is {shown(owner)}; expected 0 to {num_images - 1}")
    labels = refs if len(refs) == len(written) else [None] * len(written)
    return [
        ForeignBox(f"objects.bbox[{index}]", box, _FORMS[kind], label, owner)
        for index, (box, label, owner) in enumerate(zip(written, labels, owners, strict=True))
    ]
