"""A sample with two completions, one scored and one not, and their records."""

from __future__ import annotations

from pathlib import Path

import torch

from grit_lightning.runs.records import records
from grit_lightning.types import Completion, Group, Prompt, Score
from support.samples import one_image

SAMPLE = one_image(
    name="tally/3",
    question="How many cats?",
    answer="2",
    image=Path("images/cat.jpg"),
    size=(640, 480),
    boxes=((1.5, 2.0, 30.0, 40.0),),
    **{"dataset": "tallyqa", "split": "train", "source": "tally.jsonl:3"},
)
BOX_SPACE = (320, 120)
GOOD = Completion(
    token_ids=(5, 6, 7),
    text='<think>{"bbox_2d": [16, 12, 32, 24], "label": "cat"} [40, 8, 30, 20]</think> <rethink></rethink>'
    "<answer> 2 </answer>",
    finish="stop",
    box_spaces=(BOX_SPACE,),
)
CUT = Completion(token_ids=(8,), text="a\u2028b <think>", finish="length", box_spaces=(BOX_SPACE,))
SCORED = Score(components={"format": 0.5, "judge": 1.0}, total=1.5)
UNSCORED = Score(components={"format": 0.0, "judge": None}, total=None, errors={"judge": "timeout after 3 tries"})


def group(slot: int = 0, completions: tuple[Completion, ...] = (GOOD, CUT)) -> Group:
    empty = torch.zeros(0, dtype=torch.int64)
    prompt = Prompt(SAMPLE, "USER: How many cats?", empty, empty.view(3, 0), {}, (BOX_SPACE,))
    return Group(slot, prompt, completions)


def two_records(step: int = 4) -> list[dict]:
    return records(step, [group(7)], [(SCORED, UNSCORED)], torch.tensor([[0.75, float("nan")]]))
