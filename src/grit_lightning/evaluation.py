"""Predictions on held-out samples, and metrics computed from them alone.

A prediction is a JSON-ready record, so whatever is to be known of a model later can be computed from what was written.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import PreTrainedModel

from grit_lightning import grounding
from grit_lightning.backbones.base import Backbone
from grit_lightning.errors import ConfigError
from grit_lightning.files import write_atomic
from grit_lightning.judge import Judge, begin
from grit_lightning.rollout import greedy
from grit_lightning.rollout_store import completion_fields, prompt_fields
from grit_lightning.types import Completion, Prompt, Sample

Prediction = dict[str, Any]
Metrics = dict[str, float | None]
"""Metrics by name; ``None`` where no prediction is of the kind that a metric is about."""

COUNTING_DATASETS = frozenset({"tallyqa"})
"""Datasets whose questions ask for a number."""

OVERALL = "overall"
"""What the metrics over all predictions are called among those of the datasets."""

PROGRESS_FROM = 50
"""More samples than this are answered under a progress bar."""

TITLES = {
    "accuracy": "accuracy",
    "grounding_iou": "grounding IoU",
    "grounded_format": "grounded format",
    "count_consistency": "boxes = count",
    "tokens": "completion tokens",
    "truncated": "truncated share",
    "unscored": "unscored",
    "samples": "samples",
}


# ---- predictions ----


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluator:
    """How a model is evaluated: greedy decoding, and a judge. Values live in ``conf/evaluation``.

    Attributes:
        max_new_tokens: limit on a completion's tokens; one that reaches it is recorded as truncated.
        stop: text that ends a completion, included in it.
        batch_size: prompts decoded at once; bounds memory. Predictions do not depend on it, but for rounding.
        judge: scores an answer.
    """

    max_new_tokens: int
    stop: str
    batch_size: int
    judge: Judge

    def __post_init__(self) -> None:
        for key in ("max_new_tokens", "batch_size"):
            if getattr(self, key) < 1:
                raise ConfigError(f"evaluation.{key} is {getattr(self, key)}, expected a whole number of at least 1")
        if not self.stop:
            raise ConfigError("evaluation.stop is empty, expected the text that ends a completion, such as </answer>")

    def predict(
        self,
        model: PreTrainedModel,
        backbone: Backbone,
        samples: Sequence[Sample],
        prompt: Callable[[Sample], Prompt],
        *,
        what: str,
        quiet: bool,
    ) -> list[Prediction]:
        """A prediction for each sample, in their order.

        Args:
            model: in eval mode, to be called without gradients.
            backbone: its family.
            samples: what is asked.
            prompt: a sample as the model reads it.
            what: what is done, for the progress bar.
            quiet: no progress bar.
        """
        done: dict[str, Callable[[], Prediction]] = {}
        window = 4 * self.batch_size  # prompts held at once: enough to find some of similar length
        with _progress(what, len(samples), quiet=quiet) as advance:
            for start in range(0, len(samples), window):
                prompts = sorted(map(prompt, samples[start : start + window]), key=lambda one: one.num_tokens)
                for first in range(0, len(prompts), self.batch_size):
                    batch = prompts[first : first + self.batch_size]
                    completions = greedy(model, backbone, batch, max_new_tokens=self.max_new_tokens, stop=self.stop)
                    for one, completion in zip(batch, completions, strict=True):
                        done[one.sample.id] = _prediction(one, completion, self.judge)
                    advance(len(batch))
        return [done[sample.id]() for sample in samples]


def prediction(prompt: Prompt, completion: Completion, judge: Judge) -> Prediction:
    """The record of one completion: what was asked, what was written, and the judge's score of the answer.

    Its fields are those of a rollout (``rollout_store.records``) that do not belong to training, but for two:
    ``parsed_answer`` is :func:`given_answer`, and ``score`` is the judge's, 0 to 1 or ``None`` when it could not judge.
    An empty answer scores 0 without asking.
    """
    return _prediction(prompt, completion, judge)()


def _prediction(prompt: Prompt, completion: Completion, judge: Judge) -> Callable[[], Prediction]:
    """The record, once the judge has answered, who is asked now."""
    sample = prompt.sample
    answer = given_answer(completion.text)
    record = {
        **prompt_fields(prompt),
        **completion_fields(completion, sample.size),
        "parsed_answer": answer,
    }
    asked = begin(judge, sample.question, sample.answer, answer) if answer else None
    return lambda: record | {"score": 0.0 if asked is None else _finite(asked.result())}


def given_answer(text: str) -> str:
    """The text of the answer section; the whole text where there is no ``<answer>``, as after a plain prompt."""
    answer = grounding.answer_text(text)
    return (text if answer is None else answer).strip()


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write one JSON line for each prediction; the file appears whole or not at all."""
    write_atomic(path, "".join(json.dumps(one, allow_nan=False) + "\n" for one in predictions))


def read_predictions(path: Path) -> list[Prediction]:
    """What :func:`write_predictions` wrote."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


# ---- metrics ----


def summary(predictions: Sequence[Prediction]) -> dict[str, Metrics]:
    """:func:`metrics` over all predictions, under ``OVERALL``, and by dataset."""
    datasets = sorted({one["dataset"] for one in predictions})
    by_dataset = {name: [one for one in predictions if one["dataset"] == name] for name in datasets}
    return {OVERALL: metrics(predictions)} | {name: metrics(those) for name, those in by_dataset.items()}


def metrics(predictions: Sequence[Prediction]) -> Metrics:
    """Means over predictions.

    - ``accuracy``: the judge's score, over those that were scored.
    - ``grounding_iou``: :func:`grounding_iou`, over samples with reference boxes.
    - ``grounded_format``: share for which :func:`is_grounded`.
    - ``count_consistency``: share with as many boxes as the answer says, over counting samples whose own answer, right
      or wrong, is a whole number. Without boxes, only the answer 0 is consistent.
    - ``tokens``: tokens of a completion. ``truncated``: share cut off by the limit.
    - ``unscored``, ``samples``: counts.
    """
    scores = [one["score"] for one in predictions if one["score"] is not None]
    counted = [(one, count) for one in predictions if (count := _own_count(one)) is not None]
    return {
        "accuracy": _mean(scores),
        "grounding_iou": _mean([grounding_iou(one) for one in predictions if one["reference_boxes"]]),
        "grounded_format": _mean([is_grounded(one) for one in predictions]),
        "count_consistency": _mean([len(one["boxes"]) == count for one, count in counted]),
        "tokens": _mean([one["num_tokens"] for one in predictions]),
        "truncated": _mean([one["finish"] == "length" for one in predictions]),
        "unscored": len(predictions) - len(scores),
        "samples": len(predictions),
    }


def grounding_iou(one: Prediction) -> float:
    """Mean, over the sample's reference boxes, of the best IoU with any predicted box, 0 to 1, in original pixels.

    0 without predicted boxes. A box that points at nothing costs nothing here.
    """
    predicted = [box["pixels"] for box in one["boxes"] if None not in box["pixels"]]
    best = [
        max((grounding.iou(box, reference) for box in predicted), default=0.0) for reference in one["reference_boxes"]
    ]
    return sum(best) / len(best)


def is_grounded(one: Prediction) -> bool:
    """Whether the completion has each tag once, in order, and points at something before it rethinks.

    Where a count is asked for and the completion's own answer is 0, there is nothing to point at.
    """
    return grounding.parse(one["text"]).well_formed and (bool(one["boxes"]) or _own_count(one) == 0)


def _own_count(one: Prediction) -> int | None:
    """The whole number that a counting sample was answered with."""
    return grounding.as_count(one["parsed_answer"]) if is_counting(one) else None


def is_counting(one: Prediction) -> bool:
    """Whether the question asks for a number."""
    return one["dataset"] in COUNTING_DATASETS


def _mean(values: Collection[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


# ---- for people ----


def overview(of_datasets: Mapping[str, Metrics]) -> str:
    """A table of all metrics, a column for each dataset (:func:`summary`)."""
    rows = {title: [metrics[key] for metrics in of_datasets.values()] for key, title in TITLES.items()}
    return _table(list(of_datasets), rows)


def comparison(columns: Mapping[str, Mapping[str, Metrics]]) -> str:
    """A table of summaries side by side: all metrics overall, accuracy by dataset too."""
    datasets = dict.fromkeys(name for column in columns.values() for name in column if name != OVERALL)
    rows: dict[str, list[float | None]] = {}
    for key, title in TITLES.items():
        rows[title] = [column[OVERALL][key] for column in columns.values()]
        if key == "accuracy":
            rows |= {f"  {name}": [column.get(name, {}).get(key) for column in columns.values()] for name in datasets}
    if not any(rows["unscored"]):
        del rows["unscored"]
    return _table(list(columns), rows)


def _table(header: Sequence[str], rows: Mapping[str, Sequence[float | None]]) -> str:
    width = max(map(len, rows))
    lines = [" " * width + "".join(f"  {name:>10}" for name in header)]
    lines += [f"{title:{width}}" + "".join(f"  {_number(value):>10}" for value in row) for title, row in rows.items()]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}" if value < 10 else f"{value:.1f}"


@contextmanager
def _progress(what: str, total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Says how far it got: a bar on a terminal, else a line for each quarter. Silent about few samples."""
    if quiet or total <= PROGRESS_FROM:
        yield lambda count: None
    elif sys.stderr.isatty():
        with tqdm(desc=what, total=total, unit="sample", dynamic_ncols=True, leave=False) as bar:
            yield bar.update
    else:
        done = 0

        def line(count: int) -> None:
            nonlocal done
            quarters = 4 * done // total
            done += count
            if 4 * done // total > quarters:
                print(f"{what}: {done}/{total} samples", file=sys.stderr, flush=True)

        yield line
