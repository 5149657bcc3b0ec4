"""What reinforcement learning and supervised fine-tuning have in common: a policy, its optimizer, packed passes.

Optimization is manual: a step's data may be more than fits one pass, so it is split into micro-batches bounded by
tokens. Every loss is a sum over tokens divided by counts of the whole step over all ranks, so neither the split nor the
number of processes changes the gradient.
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
"""Of the policy's weights in a checkpoint."""

NamedParameters = list[tuple[str, Parameter]]


class PolicyModule(L.LightningModule):
    """A policy that is trained on packed groups.

    Args:
        backbone: the model family and checkpoint.
        optimizer: makes the optimizer from the names and values of trainable parameters.
        scheduler: makes the learning-rate schedule from the optimizer; advanced once per training step.
        max_tokens_per_pass: positions in one forward and backward pass; bounds the memory of activations.
        logits_chunk: completion tokens per pass through the LM head; bounds the memory of logits.
        max_grad_norm: the gradient's norm is clipped to this.
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
        # What the checkpoint holds that the run started from is loaded from there again, never saved: a frozen
        # reference, and the model beneath adapters.
        self.register_state_dict_post_hook(_drop_what_is_loaded)
        self.strict_loading = False

    def check_samples(self, samples: Sequence[Sample]) -> None:
        """Refuse samples that cannot be trained on, before the first step.

        Raises:
            DataError: the first such sample.
        """

    def load_policy(self) -> Policy:
        """The policy as the checkpoint has it. Subclasses say at which temperature."""
        raise NotImplementedError

    def configure_model(self) -> None:
        """Load the policy, and shard it where the strategy has a device mesh."""
        if self.policy is None:
            self.policy = self.load_policy()
            if self.trainer.is_global_zero and not all(value.requires_grad for value in self.policy.parameters()):
                log.info(trained_sentence(self.policy.model))
            shard(self.policy, self.trainer)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another model."""
        if "state_dict" in checkpoint:  # FSDPStrategy has looked, and taken the weights out
            require_same_names(self.state_dict().keys(), checkpoint["state_dict"].keys())

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        """The optimizer over trainable policy parameters, and its schedule."""
        trainable = [(name, value) for name, value in self._policy.named_parameters() if value.requires_grad]
        optimizer = self.make_optimizer(trainable)
        return [optimizer], [self.make_scheduler(optimizer)]

    def _passes(self, groups: list[Group], skip: Sequence[bool]) -> list[tuple[list[PackedRow], bool]]:
        """The rows of each pass, and whether it counts: sharded models need as many passes on every rank."""
        plan = plan_rows(groups, self.max_tokens_per_pass, skip)
        longest = self.trainer.strategy.reduce(torch.tensor(float(len(plan)), device=self.device), reduce_op="max")
        # At least one: a step in which nothing counts still has a gradient, of zero.
        return fill_up(plan, max(int(longest), 1), groups)

    def _pack(self, rows: list[PackedRow], groups: list[Group]) -> PackedBatch:
        return pack(rows, groups, self.backbone.pad_token_id).to(self.device)

    def _clip_gradient(self) -> Tensor:
        """Clip the gradient's norm, and return what it was."""
        return torch.nn.utils.clip_grad_norm_(self._policy.parameters(), self.max_grad_norm)

    def _step_metrics(self, timer: PhaseTimer, tokens: float) -> dict[str, float]:
        """What every kind of step logs, given the completion tokens of all ranks."""
        return {f"time/{phase}": seconds for phase, seconds in timer.seconds.items()} | {
            "step": float(self.trainer.global_step),  # the loggers' x axis: from 1, as checkpoints and rollouts count
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


def _drop_what_is_loaded(module: PolicyModule, state: dict[str, Tensor], prefix: str, metadata: object) -> None:
    kept = {f"{prefix}{POLICY_PREFIX}{name}" for name in saved_names(module._policy.model)} if module.policy else set()
    for key in set(state) - kept:
        del state[key]
