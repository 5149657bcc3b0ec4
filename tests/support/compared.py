"""Predictions and evaluations written by hand for comparison tests; no model is needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grit_lightning.evaluation.predictions import Prediction, write_predictions
from grit_lightning.model.backbones.prompts import known_prompts

SETTINGS: Mapping[str, Any] = {
    "weights": {"checkpoint": "tiny"},
    "model": {"random_weights_seed": None},
    "prompt": {"version": known_prompts()["grounded"]},
    "decoding": {"max_new_tokens": 112, "stop": "</answer>", "sampling": "greedy"},
    "judge": "exact match",
}


def answer(sample_id: str, score: float | None, *, index: int = 0, dataset: str = "vsr", **changes: Any) -> Prediction:
    """Return the prediction of a completion with this judge score; ``None`` for an unscored one."""
    said = "unclear" if score is None else "yes" if score else "no"
    return {
        "sample_id": sample_id,
        "dataset": dataset,
        "question": f"Is {sample_id} so?",
        "answer": "yes",
        "reference_boxes": [],
        "prompt_version": SETTINGS["prompt"]["version"],
        "completion_index": index,
        "text": f"<answer> {said} </answer>",
        "finish": "stop",
        "num_tokens": 5,
        "parsed_answer": said,
        "boxes": [],
        "scores": {"judge": score, "exact_match": None if score is None else float(score > 0)},
        "judge": "exact match",
        **changes,
    }


def answers(scores: Mapping[str, float | None], **changes: Any) -> list[Prediction]:
    """Return one prediction per sample, from judge scores by sample id."""
    return [answer(sample_id, score, **changes) for sample_id, score in scores.items()]


def write_evaluation(
    folder: Path, predictions: Sequence[Prediction], settings: Mapping[str, Any] | None = SETTINGS
) -> Path:
    """Write the folder of a finished evaluation and return it."""
    folder.mkdir(parents=True)
    write_predictions(folder / "predictions.jsonl", predictions)
    (folder / "metrics.json").write_text("{}")
    if settings is not None:
        (folder / "evaluation.json").write_text(json.dumps(settings))
    return folder
