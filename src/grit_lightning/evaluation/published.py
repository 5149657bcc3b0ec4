"""Published accuracies, matched to evaluations that follow the same protocol.

The figures, their sources and their protocols are listed in ``assets/published.yaml``. A figure is shown only if the
evaluation agrees with everything that is known of the figure's protocol; the unknown parts are shown as caveats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from omegaconf import OmegaConf

from grit_lightning.evaluation.predictions import Prediction
from grit_lightning.evaluation.tables import TITLES, number
from grit_lightning.model.backbones.prompts import known_prompts

FILE = "assets/published.yaml"

_SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")
"""The date that OpenAI appends to a model name for a dated snapshot: ``gpt-4o-2024-08-06``."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A published accuracy and how it was measured; the attributes are described in ``assets/published.yaml``."""

    value: float
    metric: str
    what: str
    source: str
    caveats: str
    file: str
    checkpoint: str
    trained: bool
    released: str | None
    prompt: str
    judge: str


@dataclass(frozen=True, slots=True)
class Published:
    """A published figure that matches the protocol of an evaluation.

    Attributes:
        dataset: dataset of the evaluation to which the figure applies.
        figure: the published figure.
    """

    dataset: str
    figure: Figure

    def note(self) -> str:
        """Return the figure, its source and its caveats on one line."""
        figure = self.figure
        title = f"{self.dataset} {TITLES[figure.metric]} {number(figure.value)}"
        return f"published: {title}, {figure.what} ({figure.source}; {figure.caveats})"


@cache
def figures() -> tuple[Figure, ...]:
    """Return all figures of ``assets/published.yaml``."""
    text = (resources.files("grit_lightning") / FILE).read_text(encoding="utf-8")
    entries: Any = OmegaConf.to_container(OmegaConf.create(text))
    return tuple(Figure(**entry) for entry in entries)


def matching(settings: Mapping[str, Any] | None, predictions: Sequence[Prediction]) -> list[Published]:
    """Return the figures whose protocol is the protocol of an evaluation.

    Args:
        settings: settings of the evaluation (``evaluation.json``); ``None``, if unknown, matches no figure.
        predictions: all predictions of the evaluation.
    """
    ids: dict[str, set[str]] = {}
    for one in predictions:
        ids.setdefault(one["dataset"], set()).add(one["sample_id"])
    return [
        Published(dataset, figure)
        for figure in figures()
        if settings is not None and _is_protocol(figure, settings)
        for dataset, asked in ids.items()
        if _is_whole_file(figure.file, asked)
    ]


def notes(settings: Mapping[str, Any] | None, predictions: Sequence[Prediction]) -> list[str]:
    """Return one line for each figure of :func:`matching`; the arguments are the same."""
    return [one.note() for one in matching(settings, predictions)]


def _is_protocol(figure: Figure, settings: Mapping[str, Any]) -> bool:
    return (
        _is_model(figure, settings)
        and _mapping_at(settings, "prompt").get("version") == known_prompts()[figure.prompt]
        and _judge_model(settings.get("judge")) == figure.judge
        # The sources do not always state the decoding, but each figure is based on one answer per question.
        and _mapping_at(settings, "decoding").get("sampling") == "greedy"
    )


def _is_model(figure: Figure, settings: Mapping[str, Any]) -> bool:
    if _mapping_at(settings, "model").get("random_weights_seed") is not None:
        return False
    weights = _mapping_at(settings, "weights")
    name = str(weights.get("checkpoint")).rpartition("/")[2]  # the last part of a hub id or of a folder
    trained_here = bool(weights.get("step"))
    if figure.released is not None and name == figure.released:
        return not trained_here
    return name == figure.checkpoint and trained_here == figure.trained


def _judge_model(judge: object) -> str:
    """Return the judge's model without its snapshot date: ``gpt-4o`` for ``gpt-4o-2024-08-06, prompt 1a2b3c``."""
    return _SNAPSHOT.sub("", str(judge).partition(", prompt")[0].removeprefix("openai/"))


def _is_whole_file(file: str, ids: set[str]) -> bool:
    """Tell whether the sample ids are lines 1 to n of the file without a gap: scattered lines are a different test."""
    lines = {f"{file}/{line}" for line in range(1, len(ids) + 1)}
    return ids == lines


def _mapping_at(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = settings.get(name)
    return value if isinstance(value, Mapping) else {}
