"""The LightningModule base class of GRPO and supervised fine-tuning: a policy, its optimizer and packed passes.

Optimization is manual, because the data of one step may not fit into one pass. The step is split into micro-batches of
bounded token count. Each loss is a sum over tokens divided by counts of the whole step over all ranks, so neither the
split nor the number of processes changes the gradient.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from grit_lightning.errors import ConfigError
from grit_lightning.model.adapters import saved_names, trained_sentence
from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.model.packing import PackedBatch, PackedRow, fill_up, pack, plan_rows
from grit_lightning.model.policy import Policy
from grit_lightning.training.distributed import require_same_names, shard
from grit_lightning.training.memory import peak_memory_gib
from grit_lightning.training.step_metrics import PhaseTimer
from grit_lightning.types import Group, Sample

log = logging.getLogger(__name__)

POLICY_PREFIX = "policy.model."
"""Prefix of the names of the policy's weights in a checkpoint's ``state_dict``."""

NamedParameters = list[tuple[str, Parameter]]


class PolicyModule(L.LightningModule):
    """A policy that is trained on packed groups (``model.packing``).

    Args:
        backbone: the model family and checkpoint.
        optimizer: factory of the optimizer; takes the ``(name, parameter)`` pairs of all trainable parameters.
        scheduler: factory of the learning-rate schedule; takes the optimizer. It advances once per training step.
        max_tokens_per_pass: maximum number of positions, padding included, in one forward and backward pass; bounds
            the memory of activations. A single longer row still makes a pass of its own.
        logits_chunk: completion tokens per pass through the LM head; bounds the memory of logits.
        max_grad_norm: the gradient is scaled down to this norm if its norm is larger.

    Raises:
        ConfigError: ``max_tokens_per_pass``, ``logits_chunk`` or ``max_grad_norm`` is out of range.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        optimizer: Callable[[NamedParameters], Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler],
        max_tokens_per_pass: int,
        logits_chunk: int,
        max_grad_norm: float,
    ) -> None:
        super().__init__()
        for key, value in (("max_tokens_per_pass", max_tokens_per_pass), ("logits_chunk", logits_chunk)):
            if value < 1:
                raise ConfigError(f"module.{key} is {value}, expected a whole number of at least 1")
        if not max_grad_norm > 0:
            raise ConfigError(f"module.max_grad_norm is {max_grad_norm}, expected a number above 0 (.inf for no limit)")
        self.automatic_optimization = False
        self.backbone = backbone
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.max_tokens_per_pass = max_tokens_per_pass
        self.logits_chunk = logits_chunk
        self.max_grad_norm = max_grad_norm
        self.policy: Policy | None = None
        # Checkpoints leave out weights that never change: the frozen reference and the base model below adapters. A
        # resume loads those from the backbone's checkpoint, so loading a checkpoint of a run cannot be strict.
        self.register_state_dict_post_hook(_drop_reloadable_weights)
        self.strict_loading = False

    def check_samples(self, samples: Sequence[Sample]) -> None:
        """Check before the first step that all samples can be trained on. The base class accepts every sample.

        Raises:
            DataError: a sample cannot be trained on; the message names the first one.
        """

    def load_policy(self) -> Policy:
        """Load the policy from the backbone's checkpoint. Each subclass chooses the temperature."""
        raise NotImplementedError

    def configure_model(self) -> None:
        """Load the policy and, under ``FSDPStrategy``, shard it."""
        if self.policy is None:
            self.policy = self.load_policy()
            if self.trainer.is_global_zero and not all(value.requires_grad for value in self.policy.parameters()):
                log.info(trained_sentence(self.policy.model))
            shard(self.policy, self.trainer)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint has the weight names of this model.

        Raises:
            CheckpointError: weight names differ.
        """
        if "state_dict" in checkpoint:  # absent under FSDPStrategy, which checks the names and loads the weights itself
            require_same_names(self.state_dict().keys(), checkpoint["state_dict"].keys())

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        """Return the optimizer of the trainable policy parameters, and its learning-rate schedule."""
        trainable = [(name, value) for name, value in self._policy.named_parameters() if value.requires_grad]
        optimizer = self.make_optimizer(trainable)
        return [optimizer], [self.make_scheduler(optimizer)]

    def _passes(self, groups: list[Group], skip: Sequence[bool]) -> list[tuple[list[PackedRow], bool]]:
        """Return the rows of each pass, and whether the pass counts in the loss.

        All ranks make the same number of passes, because each pass of a sharded model is a collective operation. A rank
        with fewer passes repeats a small one that does not count.
        """
        plan = plan_rows(groups, self.max_tokens_per_pass, skip)
        longest = self.trainer.strategy.reduce(torch.tensor(float(len(plan)), device=self.device), reduce_op="max")
        # At least one pass: without it a step that skips all groups would have no gradient to clip and apply.
        return fill_up(plan, max(int(longest), 1), groups)

    def _pack(self, rows: list[PackedRow], groups: list[Group]) -> PackedBatch:
        return pack(rows, groups).to(self.device)

    def _clip_gradient(self) -> Tensor:
        """Clip the gradient's norm, and return the norm before clipping."""
        return torch.nn.utils.clip_grad_norm_(self._policy.parameters(), self.max_grad_norm)

    def _step_metrics(self, timer: PhaseTimer, tokens: float) -> dict[str, float]:
        """Return the metrics common to all training steps. ``tokens``: completion tokens of the step over all ranks."""
        return {f"time/{phase}": seconds for phase, seconds in timer.seconds.items()} | {
            "step": float(self.trainer.global_step),  # x axis of the loggers, from 1 as in names of checkpoints
            "time/step": timer.total,
            "tokens_per_second": tokens / timer.total,
            "lr": cast(Optimizer, self.optimizers()).param_groups[0]["lr"],
            "memory/peak_gib": peak_memory_gib(self.device),
        }

    def _sum_over_ranks(self, values: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(values, reduce_op="sum")

    @property
    def _policy(self) -> Policy:
        if self.policy is None:
            raise RuntimeError("configure_model has not been called")
        return self.policy


def _drop_reloadable_weights(module: PolicyModule, state: dict[str, Tensor], prefix: str, metadata: object) -> None:
    """Remove from ``state`` all weights that a resume loads from the backbone's checkpoint (``state_dict`` hook)."""
    kept = {f"{prefix}{POLICY_PREFIX}{name}" for name in saved_names(module._policy.model)} if module.policy else set()
    for key in set(state) - kept:
        del state[key]
