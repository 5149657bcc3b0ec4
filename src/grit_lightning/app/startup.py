"""What every task does first: check the whole config, quiet the libraries, set threads and seed."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from transformers.utils.logging import disable_progress_bar

from grit_lightning.app import config
from grit_lightning.errors import ConfigError
from grit_lightning.judge.llm import LLMJudge
from grit_lightning.system.rank import is_first_process

_PRECISIONS = ("32-true", "bf16-mixed")


def prepare(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain values, checked as far as it can be without data and weights.

    Raises:
        UserError: a value that cannot be used.
    """
    _hush_libraries()
    values = config.check(cfg)
    _check_numbers(values)
    _check_optimizer(values)
    if values["threads"] is not None:
        torch.set_num_threads(values["threads"])
    L.seed_everything(values["seed"], verbose=False)
    return values


def probe_judge(values: dict[str, Any]) -> None:
    """Ask the judge a test question, if it is one that may not answer. On one process: the others rely on it.

    Raises:
        JudgeError: it cannot be asked.
    """
    judge = instantiate(values["judge"])
    if isinstance(judge, LLMJudge) and is_first_process():
        judge.probe()


def _hush_libraries() -> None:
    """Turn off what the libraries print that is no concern of a user of this application."""
    for name in ("lightning.pytorch", "lightning.fabric"):  # hardware, tips
        logging.getLogger(name).setLevel(logging.WARNING)
    if not sys.stderr.isatty():
        disable_progress_bar()  # of transformers, while it loads weights
    # The reference is in eval mode, as it should be.
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode", category=UserWarning)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)  # Lightning 2.6.6, torch 2.13


def _check_numbers(values: dict[str, Any]) -> None:
    """Refuse what libraries would take for something else, or refuse with a traceback."""
    trainer, scheduler = values["trainer"], values["scheduler"]
    if not 0 <= values["seed"] < 2**32:
        raise ConfigError(f"seed is {values['seed']}, expected 0 to {2**32 - 1}")
    if values["threads"] is not None and values["threads"] < 1:
        raise ConfigError(f"threads is {values['threads']}, expected at least 1, or null")
    if trainer["max_steps"] == 0:
        raise ConfigError("trainer.max_steps is 0, expected at least 1, or -1 to train until it is stopped")
    if scheduler.get("num_training_steps", 1) < 1:
        raise ConfigError("trainer.max_steps is -1, for which this schedule has no end: choose scheduler=constant")
    if scheduler.get("num_warmup_steps", 0) < 0:
        raise ConfigError(f"scheduler.num_warmup_steps is {scheduler['num_warmup_steps']}, expected at least 0")
    strategy = trainer["strategy"]
    if (values["peft"] or {}).get("quantize") and isinstance(strategy, dict) and "FSDP" in strategy["_target_"]:
        raise ConfigError("peft.quantize cannot be sharded: choose strategy=ddp, or peft.quantize=null")
    if trainer["precision"] not in _PRECISIONS:
        # Weights below float32 lose the updates of small learning rates; float16 would need its gradients scaled.
        raise ConfigError(f"trainer.precision is {trainer['precision']!r}, expected {' or '.join(_PRECISIONS)}")


def _check_optimizer(values: dict[str, Any]) -> None:
    """Build it once for parameters that nothing uses: only the optimizer knows which values it takes."""
    parameters = [("weight", torch.nn.Parameter(torch.zeros(1, 1))), ("bias", torch.nn.Parameter(torch.zeros(1)))]
    try:
        instantiate(values["optimizer"])(parameters)
    except (ValueError, TypeError, IndexError) as error:
        raise ConfigError(f"optimizer: {values['optimizer']['_target_']} refuses its options: {error}") from error
