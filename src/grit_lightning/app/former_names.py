"""Translation of the configs of earlier versions to the current one.

A run folder keeps its config permanently. When a class or function moves, add its old path here, and when a key moves,
the key, so that old runs can still be resumed, evaluated and exported.
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


FORMER_KEYS = {
    "callbacks.heldout.every_n_steps": "evaluation.during_training.every_n_steps",
    "callbacks.heldout.max_samples": "evaluation.during_training.max_samples",
    "callbacks.heldout.monitor": "evaluation.during_training.monitor",
    "callbacks.heldout.mode": "evaluation.during_training.mode",
    "callbacks.heldout.patience": "evaluation.during_training.patience",
    "callbacks.demonstration.max_samples": "evaluation.during_training.before_and_after",
    "callbacks.demonstration.evaluator": "evaluation",
    "data.heldout": "data.val",
    "ckpt": "run",
    "rollouts": "run",
    "predictions": "run",
}
"""Current config key by former key."""

_OF_OTHER_TASKS = ("ckpt", "rollouts", "predictions")
"""Former keys that named a run for another task, and are always null in the config of a run."""


def todays_config(values: dict[str, Any]) -> dict[str, Any]:
    """Return the composed config of a run, as plain values, in the current form."""
    values = {key: value for key, value in with_todays_names(values).items() if key not in _OF_OTHER_TASKS}
    callbacks, evaluation, data = (values.get(key) or {} for key in ("callbacks", "evaluation", "data"))
    heldout, report = callbacks.get("heldout"), callbacks.get("demonstration")
    if isinstance(evaluation, dict) and evaluation and "during_training" not in evaluation:
        evaluation["during_training"] = {
            "_target_": "grit_lightning.evaluation.DuringTraining",
            "before_and_after": report["max_samples"] if report else 0,
            "every_n_steps": heldout["every_n_steps"] if heldout else None,
            "max_samples": heldout["max_samples"] if heldout else None,
            "monitor": heldout["monitor"] if heldout else "overall/accuracy",
            "mode": heldout["mode"] if heldout else "max",
            "patience": heldout["patience"] if heldout else None,
        }
        if source := heldout or report:
            callbacks["heldout"] = {
                "_target_": FORMER_TARGETS["grit_lightning.heldout.HeldoutEvaluation"],
                "out": source["out"],
                "evaluator": source["evaluator"],
            }
        if report:
            callbacks["demonstration"] = {
                "_target_": report["_target_"],
                "out": report["out"],
                "resamples": "${evaluation.resamples}",
            }
    if isinstance(data, dict) and "heldout" in data:
        drawn = data.pop("heldout")
        if drawn:
            given = {"shapes" if key == "count" else key: value for key, value in drawn.items()}
            data["val"] = [*(data.get("val") or []), given]
    task = values.get("task")
    if isinstance(task, dict) and task.get("_target_") == FORMER_TARGETS["grit_lightning.tasks.train.train"]:
        task.setdefault("report", True)
    return values


def todays_override(override: str) -> str:
    """Return an override with its key in the current form; any other text unchanged.

    ``data.heldout.count=N`` becomes ``data.val=[{shapes: N}]``.
    """
    key, equals, value = override.partition("=")
    bare = key.lstrip("+~")
    if bare == "data.heldout.count":
        return f"data.val=[{{shapes: {value}}}]"
    return f"{key.removesuffix(bare)}{FORMER_KEYS.get(bare, bare)}{equals}{value}"


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
