"""Options of the held-out answers of a training run: when, how many, and which result keeps the best weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from grit_lightning.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class DuringTraining:
    """When a training run answers held-out questions. The default values live in ``conf/evaluation``.

    Attributes:
        before_and_after: number of samples answered before the first and after the last step, always the same ones;
            ``None`` for all, 0 for none.
        every_n_steps: training steps between evaluations; ``None`` for none between the first and the last step.
        max_samples: number of samples answered at each of these, always the same ones; ``None`` for all.
        monitor: metric that selects the best checkpoint, as ``DATASET/METRIC``, such as ``overall/accuracy``.
        mode: ``max`` if higher values of the metric are better, ``min`` if lower.
        patience: number of evaluations in a row without improvement after which training stops; ``None`` to never
            stop early.

    Raises:
        ConfigError: a number is too small.
    """

    before_and_after: int | None
    every_n_steps: int | None
    max_samples: int | None
    monitor: str
    mode: Literal["max", "min"]
    patience: int | None

    def __post_init__(self) -> None:
        least = {"before_and_after": 0, "every_n_steps": 1, "max_samples": 1, "patience": 1}
        for key, minimum in least.items():
            value = getattr(self, key)
            if value is not None and value < minimum:
                raise ConfigError(f"evaluation.during_training.{key} is {value}, expected at least {minimum}, or null")
