"""Translation of import paths in the configs of earlier versions to the current ones.

A run folder keeps its config permanently. When a class or function moves, add its old path here, so that old runs can
still be resumed, evaluated and exported.
"""

from __future__ import annotations

from typing import Any

FORMER_TARGETS = {
    "grit_lightning.adapters.LoRA": "grit_lightning.model.LoRA",
    "grit_lightning.backbones.pretrained.PretrainedBackbone": "grit_lightning.model.PretrainedBackbone",
    "grit_lightning.callbacks.RolloutWriter": "grit_lightning.training.callbacks.RolloutWriter",
    "grit_lightning.callbacks.StepProgressBar": "grit_lightning.training.callbacks.StepProgressBar",
    "grit_lightning.callbacks.TrainingSummary": "grit_lightning.training.callbacks.TrainingSummary",
    "grit_lightning.checkpoints.StepCheckpoint": "grit_lightning.training.callbacks.StepCheckpoint",
    "grit_lightning.data.datamodule.GroundedQADataModule": "grit_lightning.data.GroundedQADataModule",
    "grit_lightning.data.lessons.LessonDataModule": "grit_lightning.data.shapes.LessonDataModule",
    "grit_lightning.demonstration.Demonstration": "grit_lightning.training.callbacks.Demonstration",
    "grit_lightning.distributed.FSDPStrategy": "grit_lightning.training.FSDPStrategy",
    "grit_lightning.heldout.HeldoutEvaluation": "grit_lightning.training.callbacks.HeldoutEvaluation",
    "grit_lightning.module.GRPOModule": "grit_lightning.training.GRPOModule",
    "grit_lightning.objective.Objective": "grit_lightning.training.Objective",
    "grit_lightning.optimizers.MuonAdamW": "grit_lightning.training.MuonAdamW",
    "grit_lightning.optimizers.adamw_8bit": "grit_lightning.training.adamw_8bit",
    "grit_lightning.schedulers.piecewise_linear": "grit_lightning.training.piecewise_linear",
    "grit_lightning.sft.SFTModule": "grit_lightning.training.SFTModule",
    "grit_lightning.tasks.compare.compare": "grit_lightning.tasks.compare_evaluations",
    "grit_lightning.tasks.convert.convert": "grit_lightning.tasks.convert_checkpoint",
    "grit_lightning.tasks.evaluate.evaluate": "grit_lightning.tasks.evaluate_model",
    "grit_lightning.tasks.export.export": "grit_lightning.tasks.export_model",
    "grit_lightning.tasks.fetch.fetch": "grit_lightning.tasks.fetch_data",
    "grit_lightning.tasks.score.score": "grit_lightning.tasks.score_rollouts",
    "grit_lightning.tasks.train.train": "grit_lightning.tasks.train_policy",
    "grit_lightning.tasks.validate.validate": "grit_lightning.tasks.validate_data",
}
"""Current ``_target_`` by former ``_target_``."""


def with_todays_names(values: Any) -> Any:
    """Return plain config values with every former ``_target_`` replaced by the current one."""
    if isinstance(values, list):
        return [with_todays_names(value) for value in values]
    if not isinstance(values, dict):
        return values
    renamed = {key: with_todays_names(value) for key, value in values.items()}
    if isinstance(target := renamed.get("_target_"), str):
        renamed["_target_"] = FORMER_TARGETS.get(target, target)
    return renamed
