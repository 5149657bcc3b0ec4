"""Start of every task that needs a model: check the whole config, quiet the libraries, set threads and seed."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from transformers.utils.logging import disable_progress_bar

from grit_lightning.app import config
from grit_lightning.app.output_folder import require_name
from grit_lightning.app.trainer_options import refuse_without_effect
from grit_lightning.errors import ConfigError
from grit_lightning.judge.llm import LLMJudge
from grit_lightning.system.paths import conf_dir
from grit_lightning.system.rank import is_first_process

_PRECISIONS = ("32-true", "bf16-mixed")


def prepare(cfg: DictConfig) -> dict[str, Any]:
    """Quiet the libraries, check the config as far as possible without data and weights, and set threads and seed.

    Returns:
        The resolved config as plain values.

    Raises:
        UserError: a config value cannot be used.
    """
    _hush_libraries()
    _choose_engine(cfg)
    values = config.check(cfg)
    require_name(values["name"])
    refuse_without_effect(values["trainer"])
    _check_numbers(values)
    _check_optimizer(values)
    if values["threads"] is not None:
        torch.set_num_threads(values["threads"])
    L.seed_everything(values["seed"], verbose=False)
    return values


def probe_judge(values: dict[str, Any]) -> None:
    """Send a test question to a judge over HTTP; other judges need none. Only the first process sends it.

    Raises:
        JudgeError: the judge gives no usable reply.
    """
    judge = instantiate(values["judge"])
    if isinstance(judge, LLMJudge) and is_first_process():
        judge.probe()


def _hush_libraries() -> None:
    """Silence log lines, progress bars and warnings of libraries that do not concern a user of this application."""
    for name in ("lightning.pytorch", "lightning.fabric"):  # device lists and tips
        logging.getLogger(name).setLevel(logging.WARNING)
    if not sys.stderr.isatty():
        disable_progress_bar()  # the one that transformers shows while it loads weights
    # The frozen reference is in eval mode on purpose.
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode", category=UserWarning)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)  # Lightning 2.6.6, torch 2.13


def _choose_engine(cfg: DictConfig) -> None:
    """Replace ``evaluation.engine=vllm`` by the settings of ``rollout=vllm``: those of the config, or the defaults."""
    chosen = cfg.evaluation.get("engine")
    if chosen is None or OmegaConf.is_config(chosen):
        return
    if chosen != "vllm":
        raise ConfigError(f"evaluation.engine is {chosen!r}, expected vllm, or null for the policy itself")
    default = OmegaConf.load(conf_dir() / "rollout" / "vllm.yaml")
    OmegaConf.update(cfg, "evaluation.engine", cfg.rollout.get("engine") or default.engine)


def _check_numbers(values: dict[str, Any]) -> None:
    """Reject values that a library would misinterpret, or reject with a traceback."""
    trainer, scheduler = values["trainer"], values["scheduler"]
    if not 0 <= values["seed"] < 2**32:
        raise ConfigError(f"seed is {values['seed']}, expected 0 to {2**32 - 1}")
    if values["threads"] is not None and values["threads"] < 1:
        raise ConfigError(f"threads is {values['threads']}, expected at least 1, or null")
    if trainer["max_steps"] == 0 or trainer["max_steps"] < -1:
        shown = trainer["max_steps"]
        raise ConfigError(f"trainer.max_steps is {shown}, expected at least 1, or -1 to train until it is stopped")
    if scheduler.get("num_training_steps", 1) < 1:
        raise ConfigError("trainer.max_steps is -1, but this schedule needs a last step: choose scheduler=constant")
    if scheduler.get("num_warmup_steps", 0) < 0:
        raise ConfigError(f"scheduler.num_warmup_steps is {scheduler['num_warmup_steps']}, expected at least 0")
    strategy = trainer["strategy"]
    if (values["peft"] or {}).get("quantize") and isinstance(strategy, dict) and "FSDP" in strategy["_target_"]:
        raise ConfigError("peft.quantize cannot be sharded: choose strategy=ddp, or peft.quantize=null")
    if trainer["precision"] not in _PRECISIONS:
        # Weights of lower precision lose the updates of small learning rates; float16 would need gradient scaling.
        raise ConfigError(f"trainer.precision is {trainer['precision']!r}, expected {' or '.join(_PRECISIONS)}")


def _check_optimizer(values: dict[str, Any]) -> None:
    """Build the optimizer once for dummy parameters, because only its constructor knows which values are valid."""
    parameters = [("weight", torch.nn.Parameter(torch.zeros(1, 1))), ("bias", torch.nn.Parameter(torch.zeros(1)))]
    try:
        instantiate(values["optimizer"])(parameters)
    except (ValueError, TypeError, IndexError) as error:
        raise ConfigError(f"optimizer: {values['optimizer']['_target_']} refuses its options: {error}") from error
