"""Figures that others have published, for those evaluations that were made by the same protocol.

The figures, their sources and their protocols are data: ``assets/published.yaml``. A figure is shown only where all
that is known of its protocol holds for an evaluation, with what is not known beside it.
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
"""OpenAI's name of a model of one day, after the model's own: ``gpt-4o-2024-08-06``."""


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
    """A figure that an evaluation may be held against.

    Attributes:
        dataset: of the evaluation, whose metric is the figure's.
        figure: what was published.
    """

    dataset: str
    figure: Figure

    def note(self) -> str:
        """The figure in a line."""
        figure = self.figure
        title = f"{self.dataset} {TITLES[figure.metric]} {number(figure.value)}"
        return f"published: {title}, {figure.what} ({figure.source}; {figure.caveats})"


@cache
def figures() -> tuple[Figure, ...]:
    """All figures that are known."""
    text = (resources.files("grit_lightning") / FILE).read_text(encoding="utf-8")
    entries: Any = OmegaConf.to_container(OmegaConf.create(text))
    return tuple(Figure(**entry) for entry in entries)


def matching(settings: Mapping[str, Any] | None, predictions: Sequence[Prediction]) -> list[Published]:
    """The figures whose protocol is that of an evaluation.

    Args:
        settings: the evaluation's, ``evaluation.json``; ``None``, where they are not known, matches nothing.
        predictions: all of it.
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
    """The same, a line each."""
    return [one.note() for one in matching(settings, predictions)]


def _is_protocol(figure: Figure, settings: Mapping[str, Any]) -> bool:
    return (
        _is_model(figure, settings)
        and _inner(settings, "prompt").get("version") == known_prompts()[figure.prompt]
        and _judge_model(settings.get("judge")) == figure.judge
        # How a figure was decoded is not always known, but one answer to each question it was.
        and _inner(settings, "decoding").get("sampling") == "greedy"
    )


def _is_model(figure: Figure, settings: Mapping[str, Any]) -> bool:
    if _inner(settings, "model").get("random_weights_seed") is not None:
        return False
    weights = _inner(settings, "weights")
    name = str(weights.get("checkpoint")).rpartition("/")[2]  # of a hub id; of a folder only the name is known
    trained_here = bool(weights.get("step"))
    if figure.released is not None and name == figure.released:
        return not trained_here
    return name == figure.checkpoint and trained_here == figure.trained


def _judge_model(judge: object) -> str:
    """The model of a judge called such as ``gpt-4o-2024-08-06, prompt 1a2b3c``, whenever it is of."""
    return _SNAPSHOT.sub("", str(judge).partition(", prompt")[0].removeprefix("openai/"))


def _is_whole_file(file: str, ids: set[str]) -> bool:
    """Whether these samples are all lines of the file from the first on: a subset is another test."""
    lines = {f"{file}/{line}" for line in range(1, len(ids) + 1)}
    return ids == lines


def _inner(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = settings.get(name)
    return value if isinstance(value, Mapping) else {}
