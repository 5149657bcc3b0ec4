"""``task=train`` and ``task=sft``: build the parts, check them before the first step, then fit."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf

from grit_lightning.app.output_folder import claimed_run
from grit_lightning.app.overrides import (
    apply_overrides,
    given_overrides,
    is_default_output,
    is_given,
    is_sweep,
    load_run_config,
    make_paths_absolute,
    output_path,
)
from grit_lightning.app.startup import prepare, probe_judge
from grit_lightning.data.prompt_datamodule import PromptDataModule
from grit_lightning.errors import CheckpointError, ConfigError, UserError
from grit_lightning.runs import inputs as run_inputs
from grit_lightning.runs import run_folder as runs
from grit_lightning.runs.checkpoint_files import newest_whole, read_checkpoint, written_checkpoints
from grit_lightning.runs.manifest import data_sha256, manifest, read_manifest, without_home
from grit_lightning.runs.new_run import create
from grit_lightning.runs.results import heldout_metrics, read_results, write_results
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.system.disk import disk_refusal
from grit_lightning.system.locks import held
from grit_lightning.system.log_lines import run_log
from grit_lightning.system.rank import is_first_process
from grit_lightning.system.stop import stop_signals
from grit_lightning.tasks.report import write_run_report
from grit_lightning.training.callbacks.checkpoints import RAISED_BY_ALL
from grit_lightning.training.callbacks.heldout import has_finished
from grit_lightning.training.callbacks.run_records import FinishOnly, ResumeNote
from grit_lightning.training.policy_module import PolicyModule
from grit_lightning.training.processes import Processes, starts_processes

log = logging.getLogger(__name__)

AUTO = "auto"
"""Value of ``resume`` that continues the run in ``out`` if there is one, and else starts it."""

_FIXED = ("optimizer", "out=", "name=", "model.", "seed=")
"""Prefixes of overrides that a resume refuses: the checkpoint fixes their value, or they identify the run."""

_OF_THE_RESUME = ("resume=", "task=", "allow_changed=")


class Training(NamedTuple):
    """Result of a training run.

    Attributes:
        run: the run folder.
        metrics: metrics of the last step by name, and those on held-out samples after it, ``heldout/DATASET/METRIC``.
        trainer: the trainer, which holds the module and the data module; ``None`` if the run had finished before.
    """

    run: RunFolder
    metrics: dict[str, float]
    trainer: L.Trainer | None


def train_policy(cfg: DictConfig, *, report: bool) -> Training:
    """Train the policy of the config in a new run folder or, with ``resume``, continue an existing run.

    Args:
        cfg: the composed config.
        report: whether to write the page about the run when it has finished.

    Raises:
        UserError: a config value, data file or checkpoint cannot be used; raised before the first step.
    """
    training = _trained(cfg)
    # A run that had finished before has its page.
    if report and training.trainer is not None and is_first_process() and has_finished(training.trainer):
        try:
            write_run_report(training.run, resamples=cfg.evaluation.resamples)
        except UserError as error:  # the training is worth as much without its page
            log.warning("no report: %s", error)
    return training


def _trained(cfg: DictConfig) -> Training:
    if cfg.resume is None:
        return _start(cfg)
    if cfg.resume != AUTO:
        changes = [change for change in given_overrides() if not change.startswith(_OF_THE_RESUME)]
        return _resume(runs.open_run(Path(cfg.resume).expanduser()), changes, cfg.allow_changed)
    if not is_given("out") and not is_sweep():
        raise ConfigError("resume=auto continues the run in out=DIR or starts it there: give out=DIR")
    run = RunFolder(output_path(cfg))
    if not run.manifest_file.is_file():
        return _start(cfg)
    finished = read_results(run)
    changes = _new_overrides(run)
    if finished and not changes:
        log.info("%s: all %d steps are done", run.path, finished["step"])
        return Training(run, finished["metrics"], None)
    return _resume(run, changes, cfg.allow_changed)


def _start(cfg: DictConfig) -> Training:
    with claimed_run(output_path(cfg), next_free=is_default_output()) as folder:
        cfg.out = str(folder)
        make_paths_absolute(cfg)
        module, datamodule, trainer, values = _build(cfg)
        run = _create_run(cfg, datamodule, values)
        return _fit(run, module, datamodule, trainer, checkpoint=None)


def _resume(run: RunFolder, changes: Sequence[str], allowed: Sequence[str]) -> Training:
    if kept := next((change for change in changes if change.lstrip("+~").startswith(_FIXED)), None):
        raise ConfigError(f"{kept} cannot be changed in a resume: it is part of the checkpoint or names the run")
    if unknown := sorted(set(allowed) - set(run_inputs.GROUPS)):
        raise ConfigError(f"allow_changed holds {unknown[0]!r}, expected some of {', '.join(run_inputs.GROUPS)}")
    with _locked(run):
        # A run that was killed before its first checkpoint begins again.
        checkpoint = newest_whole(run.checkpoints) if written_checkpoints(run.checkpoints) else None
        step = 0 if checkpoint is None else read_checkpoint(checkpoint, map_location="meta")["global_step"]
        cfg = load_run_config(run)
        apply_overrides(cfg, changes)
        is_done = step >= cfg.trainer.max_steps > 0
        finished = read_results(run)
        if is_done and finished and finished["step"] >= step:
            raise CheckpointError(
                f"{run.path}: all {step} steps are done; to go on, give a larger trainer.max_steps, such as {2 * step}"
            )
        note = ResumeNote(run, checkpoint, step, changes)
        module, datamodule, trainer, values = _build(cfg, note, *([FinishOnly()] if is_done else []))
        if is_first_process():
            saved = run_inputs.read(run.inputs_file)
            inputs = run_inputs.describe(datamodule.train_samples(), _written(cfg), values, saved)
            asked = {change.lstrip("+~").partition(".")[0].partition("=")[0] for change in changes}
            note.inputs(inputs, run_inputs.require_same(run.path, saved, inputs, {*allowed, *asked}))
        doing = "answering what is left" if is_done else "continuing" if step else "starting again"
        log.info("%s %s after step %d", doing, run.path, step)
        return _fit(run, module, datamodule, trainer, checkpoint=checkpoint)


def _new_overrides(run: RunFolder) -> list[str]:
    """Return the overrides that the command line adds to those that the run was started with.

    Raises:
        ConfigError: the command line lacks one of them.
    """
    started = read_manifest(run.manifest_file)["overrides"]
    given = [one for one in given_overrides() if not one.startswith((*_OF_THE_RESUME, "out="))]
    known = [without_home(one) for one in given]
    if missing := [one for one in started if one not in known and not one.startswith((*_OF_THE_RESUME, "out="))]:
        raise ConfigError(f"resume=auto: {run.path} was started with {missing[0]}, which this command lacks")
    return [one for one, shown in zip(given, known, strict=True) if shown not in started]


@contextmanager
def _locked(run: RunFolder) -> Iterator[None]:
    busy = f"{run.path} is in use: wait until the process that trains it has ended"
    try:
        with held(run.lock_file, busy=busy) if is_first_process() else nullcontext():
            yield
    except OSError as error:
        if error.filename == str(run.lock_file):
            raise ConfigError(f"{run.path} cannot be written: {error.strerror}") from error
        raise


def _build(cfg: DictConfig, *callbacks: Callback) -> tuple[PolicyModule, PromptDataModule, L.Trainer, dict[str, Any]]:
    """Build the parts and check config, tokenizer, samples, judge and hardware before weights are loaded."""
    values = prepare(cfg)
    module: PolicyModule = instantiate(values["module"])
    datamodule: PromptDataModule = instantiate(values["data"])
    datamodule.attach(module.backbone.encode)
    datamodule.setup("fit")
    module.check_samples(datamodule.train_samples())
    processes = Processes(f"continue with resume={cfg.out}")
    trainer: L.Trainer = instantiate(
        values["trainer"],
        callbacks=[processes, *callbacks, *map(instantiate, filter(None, (values["callbacks"] or {}).values()))],
        logger=[*map(instantiate, filter(None, (values["logger"] or {}).values()))],
        _convert_="all",
    )
    if is_sweep() and starts_processes(trainer.strategy.launcher) and trainer.num_devices > 1:
        raise ConfigError(
            f"trainer.devices={trainer.num_devices} cannot be used in a sweep, of which each process would start all "
            "jobs again: start each job by itself, or use hydra/launcher=submitit_slurm with "
            f"hydra.launcher.tasks_per_node={trainer.num_devices}"
        )
    processes.attach(trainer.strategy.launcher)
    probe_judge(values)
    module.backbone.weights_folder()
    datamodule.require_prompts_for(trainer.num_nodes * trainer.num_devices)
    return module, datamodule, trainer, values


def _written(cfg: DictConfig) -> dict[str, Any]:
    written: dict[str, Any] = OmegaConf.to_container(cfg, resolve=False)  # type: ignore[assignment]
    return written


def _create_run(cfg: DictConfig, datamodule: PromptDataModule, values: Mapping[str, Any]) -> RunFolder:
    run = RunFolder(Path(cfg.out))
    if not is_first_process():
        return run
    samples = datamodule.train_samples()
    return create(
        run.path,
        composed_yaml=OmegaConf.to_yaml(cfg),
        config_yaml=OmegaConf.to_yaml(cfg, resolve=True),
        inputs=run_inputs.describe(samples, _written(cfg), values),
        manifest=manifest(seed=cfg.seed, overrides=given_overrides(), data_sha256=data_sha256(samples)),
    )


def _fit(
    run: RunFolder,
    module: PolicyModule,
    datamodule: PromptDataModule,
    trainer: L.Trainer,
    checkpoint: Path | None,
) -> Training:
    processes = next(one for one in trainer.callbacks if isinstance(one, Processes))  # type: ignore[attr-defined]
    try:
        with run_log(run.path / "run.log") if is_first_process() else nullcontext():
            trainer.fit(module, datamodule, ckpt_path=checkpoint)
    except BaseException as error:
        reason = processes.end(error) or (disk_refusal(error, run.path) if isinstance(error, OSError) else None)
        if stop_signals.received is not None:  # Lightning ends with status 1 after Ctrl-C
            sys.exit(128 + stop_signals.received)
        if not is_first_process() and (reason or isinstance(error, RAISED_BY_ALL)):
            sys.exit(1)  # the first process says why
        if reason:
            raise CheckpointError(reason) from error
        raise
    processes.end(None)
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
    if is_first_process() and has_finished(trainer):
        metrics |= heldout_metrics(run)
        write_results(run, trainer.global_step, metrics)
    return Training(run, metrics, trainer)
