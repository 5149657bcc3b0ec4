"""Options of ``lightning.Trainer`` that have no effect here, and what to use instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grit_lightning.errors import ConfigError

_STEPS = "trainer.max_steps"
_HELDOUT = "evaluation.during_training.every_n_steps and max_samples"

_INSTEAD = {
    "accumulate_grad_batches": "data.prompts_per_step (prompts of an update) and module.max_tokens_per_pass (memory)",
    "gradient_clip_val": "module.max_grad_norm",
    "gradient_clip_algorithm": "module.max_grad_norm",
    "max_epochs": _STEPS,
    "min_epochs": _STEPS,
    "min_steps": _STEPS,
    "limit_train_batches": _STEPS,
    "overfit_batches": "data.train with fewer samples",
    "limit_val_batches": _HELDOUT,
    "val_check_interval": _HELDOUT,
    "check_val_every_n_epoch": _HELDOUT,
    "num_sanity_val_steps": _HELDOUT,
    "limit_test_batches": "task.max_samples of task=evaluate",
    "limit_predict_batches": "task.max_samples of task=evaluate",
    "reload_dataloaders_every_n_epochs": "nothing: prompts are a function of the seed and the step",
    "inference_mode": "nothing: rollouts and evaluations compute no gradients",
    "sync_batchnorm": "nothing: these models have no batch normalization",
    "barebones": "nothing: it forbids checkpoints and logs, which a run needs",
}
"""What to use instead, by option. Lightning would ignore these, or refuse them when the run has begun."""


def refuse_without_effect(trainer: Mapping[str, Any]) -> None:
    """Check that a trainer's config sets no option that has no effect.

    Raises:
        ConfigError: it does; the message names what to use instead.
    """
    for key, instead in _INSTEAD.items():
        if trainer.get(key) is not None:
            raise ConfigError(f"trainer.{key} has no effect here: use {instead}")
