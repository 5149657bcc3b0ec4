"""``task=evaluate``: answer the held-out samples, score the answers, print and store the metrics."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf

from grit_lightning.app.output_folder import refuse_taken, require_writable
from grit_lightning.app.overrides import changed_run_config, chosen_options, given_overrides, is_given, output_path
from grit_lightning.app.startup import probe_judge
from grit_lightning.errors import CheckpointError, ConfigError
from grit_lightning.evaluation import published
from grit_lightning.evaluation.evaluation_folder import (
    EvaluationFolder,
    complete,
    first_difference,
    folder_for,
    lock_folder,
)
from grit_lightning.evaluation.intervals import Intervals, intervals
from grit_lightning.evaluation.metrics import Metrics, summary
from grit_lightning.evaluation.predictions import Prediction, is_scored
from grit_lightning.evaluation.tables import overview
from grit_lightning.runs import inputs as run_inputs
from grit_lightning.runs import run_folder as runs
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.system.disk import disk_refusal
from grit_lightning.system.printable import printable_lines
from grit_lightning.system.rank import is_first_process
from grit_lightning.tasks.evaluate_file import evaluate_file, is_predictions
from grit_lightning.tasks.evaluation_job import EvaluationJob, build_job
from grit_lightning.training.checkpoint_weights import load_weights, read_weights
from grit_lightning.training.processes import Processes
from grit_lightning.types import Sample

log = logging.getLogger(__name__)

_GROUPS = ("data", "prompt", "evaluation", "judge")
"""Groups whose options become part of the evaluation's folder name when the command line chooses them."""


class Evaluation(NamedTuple):
    """Result of an evaluation. On all processes but the first, everything except ``folder`` is empty.

    Attributes:
        folder: the evaluation's folder, laid out as in :mod:`grit_lightning.evaluation.evaluation_folder`.
        predictions: predictions in the order of the samples.
        metrics: metrics by dataset, see :func:`grit_lightning.evaluation.metrics.summary`.
        intervals: 95 % intervals of these metrics.
    """

    folder: Path
    predictions: list[Prediction]
    metrics: dict[str, Metrics]
    intervals: dict[str, Intervals]


def evaluate_model(cfg: DictConfig, *, max_samples: int | None) -> Evaluation | dict[str, Metrics]:
    """Evaluate the config's model or, with ``run``, the policy of a run under that run's own config.

    The output folder is ``out``. For a run without ``out`` it is ``eval/NAME`` in the run folder, where NAME is
    ``name`` if given, else made of the step and the chosen options. An interrupted evaluation in this folder is
    continued, a finished one is reused, and other files stay untouched. If ``run`` is an evaluation's folder or a JSONL
    file of predictions, only the metrics of these are computed, without a model.

    Several devices (``trainer.devices``) share the samples; each holds the whole model.

    Args:
        cfg: the composed config.
        max_samples: number of held-out samples, always the same subset; ``None`` for all.

    Returns:
        The evaluation; for stored predictions, the metrics by dataset.

    Raises:
        UserError: a config value, data file or run folder cannot be used; raised before the first answer.
    """
    if cfg.run is not None and is_predictions(Path(cfg.run).expanduser()):
        return evaluate_file(cfg)
    if max_samples is not None and max_samples < 1:
        raise ConfigError(f"task.max_samples is {max_samples}, expected at least 1, or null")
    run, weights, used = None, None, cfg
    if cfg.run is not None:
        run, checkpoint = runs.open_checkpoint(Path(cfg.run).expanduser().absolute())
        weights = read_weights(checkpoint)
        used = changed_run_config(cfg, run, given_overrides())
    job = build_job(used, run, weights, max_samples)
    if run is not None:
        _require_same_prompt_and_judge(run, used, job.values, cfg.allow_changed)
    folder = _folder(cfg, run, job)
    processes = Processes(f"to continue, run the same command with out={folder.path}")
    try:
        return _evaluated(job, folder, processes)
    except BaseException as error:
        if reason := processes.end(error):
            raise CheckpointError(reason) from error
        if isinstance(error, OSError) and (refusal := disk_refusal(error, folder.path)):
            raise ConfigError(refusal) from error
        raise


def _require_same_prompt_and_judge(
    run: RunFolder, used: DictConfig, values: Mapping[str, Any], allowed: Sequence[str]
) -> None:
    """Refuse prompt or judge files that are no longer those of the run, unless the command line asks for others."""
    written: dict[str, Any] = OmegaConf.to_container(used, resolve=False)  # type: ignore[assignment]
    asked = {change.lstrip("+~").partition("=")[0].partition(".")[0] for change in given_overrides()}
    now = run_inputs.describe([], written, values)
    run_inputs.require_same(run.path, run_inputs.read(run.inputs_file), now, {"data", "reward", *asked, *allowed})


# ---- the folder ----


def _folder(cfg: DictConfig, run: RunFolder | None, job: EvaluationJob) -> EvaluationFolder:
    """Return the output folder, which is free or holds an evaluation begun with the same settings."""
    if run is not None and job.weights is not None and not is_given("out"):
        name = cfg.name if is_given("name") else "_".join([f"step_{job.weights.step:06d}", *chosen_options(*_GROUPS)])
        folder = folder_for(run.evaluation / name, job.settings)
    else:
        folder = EvaluationFolder(output_path(cfg))
        saved = None if folder.is_free() else folder.settings()
        if saved is None and not (folder.path.is_dir() and folder.is_free()):
            refuse_taken(folder.path)
        if saved is not None and (other := first_difference(saved, job.settings)):
            raise ConfigError(f"out={folder.path} holds an evaluation whose {other} differs: choose another out=…")
    require_writable(folder.path)
    return folder


# ---- the work ----


def _evaluated(job: EvaluationJob, folder: EvaluationFolder, processes: Processes) -> Evaluation:
    trainer = job.values["trainer"]
    # Fabric instead of the Trainer: generation needs device and precision, but no strategy, as each device works alone.
    fabric = L.Fabric(
        accelerator=trainer["accelerator"],
        devices=trainer["devices"],
        num_nodes=trainer["num_nodes"],
        precision=trainer["precision"],
    )
    if is_first_process() and _unfinished(job, folder):
        probe_judge(dict(job.values))
    processes.attach(fabric.strategy.launcher)
    with lock_folder(folder) if is_first_process() else nullcontext():
        fabric.launch()
        folder = EvaluationFolder(Path(fabric.broadcast(str(folder.path))))  # a name with a time differs per process
        if fabric.is_global_zero and folder.settings() != job.settings:
            folder.begin(job.settings, job.config_yaml)
        fabric.barrier()
        left = _left(job, folder)
        fabric.barrier()  # no process writes before all have read
        _answer(job, folder, left[fabric.global_rank :: fabric.world_size], fabric)
        fabric.barrier()
        processes.end(None)
        if not fabric.is_global_zero:
            return Evaluation(folder.path, [], {}, {})
        result = _finished(job, folder)
    _print(job, result, answered=len(left))
    return result


def _left(job: EvaluationJob, folder: EvaluationFolder) -> list[Sample]:
    """Return the samples that have no complete set of predictions yet."""
    done = complete(folder.predictions()[0], job.samples, job.evaluator.samples_each)
    return [sample for sample in job.samples if sample.id not in done]


def _unfinished(job: EvaluationJob, folder: EvaluationFolder) -> bool:
    """Tell whether any sample has yet to be answered, or any answer to be scored."""
    return bool(_left(job, folder)) or not all(map(is_scored, folder.predictions()[0]))


def _answer(job: EvaluationJob, folder: EvaluationFolder, samples: Sequence[Sample], fabric: L.Fabric) -> None:
    """Answer samples and write the predictions of each to disk before the next sample's."""
    if not samples:
        return
    model = job.backbone.load_model()
    if job.weights is not None:
        load_weights(model, job.weights)
    engine = job.evaluator.engine
    # Another engine holds a copy of the weights, so they need no place on the device.
    model = (model.to(fabric.device) if engine.runs_policy else model).eval()
    done = 0
    try:
        with torch.no_grad(), fabric.autocast(), engine.serving(model, job.backbone):
            predicted = job.evaluator.predict(
                model,
                job.backbone,
                samples,
                job.datamodule.prompt,
                what="answering",
                quiet=not fabric.is_global_zero,
            )
            for predictions in predicted:
                folder.append(fabric.global_rank, predictions)
                done += 1
    except KeyboardInterrupt:
        there = len(job.samples) - len(_left(job, folder))
        answered = f"{there} of {len(job.samples)} samples are answered"
        message = f"stopped: {answered}; to continue, run the same command with out={folder.path}"
        sys.exit(message if fabric.is_global_zero else 1)


def _finished(job: EvaluationJob, folder: EvaluationFolder) -> Evaluation:
    """Merge all predictions, score those left unscored again, and store predictions, metrics and intervals."""
    found, problems = folder.predictions()
    for problem in problems:
        log.info("%s; the sample was answered again", problem)
    done = complete(found, job.samples, job.evaluator.samples_each)
    predictions = [one for sample in job.samples for one in done[sample.id]]
    unscored = [index for index, one in enumerate(predictions) if not is_scored(one)]
    again = job.evaluator.score_again([predictions[index] for index in unscored])
    for index, one in zip(unscored, again, strict=True):
        predictions[index] = one
    metrics = summary(predictions)
    found_intervals = intervals(predictions, resamples=job.evaluator.resamples)
    folder.finish(predictions, {"metrics": metrics, "intervals": found_intervals})
    return Evaluation(folder.path, predictions, metrics, found_intervals)


def _print(job: EvaluationJob, result: Evaluation, *, answered: int) -> None:
    weights, settings = job.weights, job.settings
    title = f"model {job.backbone.checkpoint}" if weights is None else f"{weights.file}, step {weights.step}"
    each = job.evaluator.samples_each
    how = "answered greedily" if each == 1 else f"{each} completions per sample"
    known = "" if answered else ", all answered before"
    notes = "".join(f"\n{line}" for line in published.notes(settings, result.predictions))
    text = (
        f"{title}, {len(job.samples)} samples, {how}, judged by {settings['judge']}{known}\n\n"
        f"{overview(result.metrics, result.intervals)}{notes}\n\nwritten to {result.folder}"
    )
    print(printable_lines(text))
    if unscored := result.metrics["overall"]["unscored"]:
        print(f"{unscored} answers have no score: to retry, run the same command with out={result.folder}")
