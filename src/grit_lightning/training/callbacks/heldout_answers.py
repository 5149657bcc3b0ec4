"""Evaluation of the current policy during training, on all processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from transformers import PreTrainedModel

from grit_lightning.evaluation.evaluator import Evaluator
from grit_lightning.evaluation.predictions import Prediction
from grit_lightning.training.distributed import gathered
from grit_lightning.training.policy_module import PolicyModule
from grit_lightning.types import Sample


def predict_on_all(
    trainer: pl.Trainer, module: PolicyModule, evaluator: Evaluator, samples: Sequence[Sample], *, what: str
) -> list[Prediction]:
    """Return all predictions in the order of the samples, on every process.

    Collective: each process answers a share of the samples, then the predictions are gathered.

    Args:
        trainer: the trainer; its precision is used.
        module: the module whose policy answers. Afterwards the policy is in train mode.
        evaluator: decodes and scores the answers.
        samples: samples to answer, the same on every process.
        what: label of the progress bar.
    """
    policy = module.policy
    assert policy is not None
    mine = samples[trainer.global_rank :: trainer.world_size]

    def predict(model: PreTrainedModel) -> list[list[Prediction]]:
        with gathered(policy):
            prompt = trainer.datamodule.prompt  # type: ignore[attr-defined]
            quiet = not trainer.is_global_zero
            return list(evaluator.predict(model, module.backbone, mine, prompt, what=what, quiet=quiet))

    with torch.no_grad(), trainer.precision_plugin.val_step_context():
        groups: list[list[Prediction]] = policy.eval()(predict)
    policy.train()
    if trainer.world_size > 1:
        of_ranks: list[Any] = [None] * trainer.world_size
        dist.all_gather_object(of_ranks, groups)
        groups = [group for of_rank in of_ranks for group in of_rank]
    by_id = {group[0]["sample_id"]: group for group in groups}
    return [one for sample in samples for one in by_id[sample.id]]
