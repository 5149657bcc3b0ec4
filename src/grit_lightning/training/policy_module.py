"""The LightningModule base class of GRPO and supervised fine-tuning: a policy, its optimizer and packed passes.

Optimization is manual, because the data of one step may not fit into one pass. The step is split into micro-batches of
bounded token count. Each loss is a sum over tokens divided by counts of the whole step over all ranks, so neither the
split nor the number of processes changes the gradient.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
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
from grit_lightning.model.finite import require_finite
from grit_lightning.model.packing import PackedBatch, PackedRow, fill_up, pack, plan_rows
from grit_lightning.model.policy import Policy
from grit_lightning.model.whole_weights import full_value
from grit_lightning.training.distributed import require_same_names, shard
from grit_lightning.training.guards.update_guard import UpdateGuard, require_finite_weights
from grit_lightning.training.memory import peak_memory_gib
from grit_lightning.training.optimizers.muon import MuonAdamW
from grit_lightning.training.step_metrics import PhaseTimer
from grit_lightning.types import Group, Sample

log = logging.getLogger(__name__)

POLICY_PREFIX = "policy.model."
"""Prefix of the names of the policy's weights in a checkpoint's ``state_dict``."""

NamedParameters = list[tuple[str, Parameter]]

_SKIPPED = "skipped_updates"


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
        max_skipped: number of updates in a row that may be skipped, because a number was not finite, before training
            stops.

    Raises:
        ConfigError: ``max_tokens_per_pass``, ``logits_chunk``, ``max_grad_norm`` or ``max_skipped`` is out of range, or
            the optimizer would lose small updates of bf16 weights.
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
        max_skipped: int = 3,  # configs of earlier versions lack it
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
        self.guard = UpdateGuard(max_skipped)
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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the number of updates skipped in a row."""
        checkpoint[_SKIPPED] = self.guard.in_a_row

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the number of skipped updates, and check that the checkpoint's weights are those of this model.

        Raises:
            CheckpointError: weight names differ, or a weight is not finite.
        """
        self.guard.in_a_row = checkpoint.get(_SKIPPED, 0)  # absent from checkpoints of earlier versions
        if "state_dict" in checkpoint:  # absent under FSDPStrategy, which checks and loads the weights itself
            require_same_names(self.state_dict().keys(), checkpoint["state_dict"].keys())
            require_finite(checkpoint["state_dict"].items(), "the checkpoint")

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        """Return the optimizer of the trainable policy parameters, and its learning-rate schedule.

        Raises:
            ConfigError: the optimizer would lose small updates of bf16 weights.
        """
        optimizer = self.make_optimizer(self._trained)
        require_masters(optimizer)
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

    def _take_update(self, optimizer: Optimizer, values: Mapping[str, Tensor | None]) -> tuple[Tensor, bool]:
        """Clip the gradient, update the weights and free the gradient. If a number is not finite, change no weight.

        Args:
            optimizer: the optimizer.
            values: what the loss was computed from and the loss itself, by name; ``None`` for what there is not.

        Returns:
            The norm of the gradient before clipping, and whether the update was applied.

        Raises:
            NotFiniteError: too many updates in a row were skipped, or a weight is not finite.
        """
        trained = self._trained
        gradients = [value.grad for _, value in trained if value.grad is not None]
        norm = _norm(gradients)
        step = self.trainer.global_step + 1
        present = {name: value for name, value in values.items() if value is not None}
        if not self.guard.allows(step, present, full_value(norm), trained, self.trainer.strategy):
            optimizer.zero_grad(set_to_none=True)
            cast(Optimizer, self.optimizers()).step()  # without gradients: it only counts the training step
            return full_value(norm), False
        torch.nn.utils.clip_grads_with_norm_([value for _, value in trained], self.max_grad_norm, norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # at once: the next rollout needs the memory
        require_finite_weights(step, trained, self.trainer.strategy)
        return full_value(norm), True

    def _step_metrics(self, timer: PhaseTimer, tokens: float) -> dict[str, float]:
        """Return the metrics common to all training steps. ``tokens``: completion tokens of the step over all ranks."""
        return {f"time/{phase}": seconds for phase, seconds in timer.seconds.items()} | {
            "step": float(self.trainer.global_step),  # x axis of the loggers, from 1 as in names of checkpoints
            "policy/skipped": float(self.guard.in_a_row > 0),
            "time/step": timer.total,
            "time/tokens_per_second": tokens / timer.total,
            "policy/learning_rate": cast(Optimizer, self.optimizers()).param_groups[0]["lr"],
            "system/peak_memory_gib": peak_memory_gib(self.device),
        }

    def _sum_over_ranks(self, values: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(values, reduce_op="sum")

    @property
    def _trained(self) -> NamedParameters:
        return [(name, value) for name, value in self._policy.named_parameters() if value.requires_grad]

    @property
    def _policy(self) -> Policy:
        if self.policy is None:
            raise RuntimeError("configure_model has not been called")
        return self.policy


def require_masters(optimizer: Optimizer) -> None:
    """Check that an optimizer keeps float32 masters of bf16 weights.

    Raises:
        ConfigError: it is one of torch's or Muon, which update such weights in bf16.
    """
    narrow = any(value.dtype.itemsize < 4 for group in optimizer.param_groups for value in group["params"])
    if narrow and (isinstance(optimizer, MuonAdamW) or type(optimizer).__module__.startswith("torch.optim")):
        raise ConfigError(
            f"optimizer is {type(optimizer).__name__}, which would lose small updates of bfloat16 weights: choose "
            "optimizer=adamw, or model.dtype=float32"
        )


def _norm(gradients: list[Tensor]) -> Tensor:
    """Return the norm of the whole gradient: float32 for bf16 gradients, too, of which torch would round it to bf16."""
    if all(value.dtype.itemsize >= 4 for value in gradients):
        return torch.nn.utils.get_total_norm(gradients)
    norms = [torch.linalg.vector_norm(value, dtype=torch.float32) for value in gradients]
    return torch.linalg.vector_norm(torch.stack(norms))


def _drop_reloadable_weights(module: PolicyModule, state: dict[str, Tensor], prefix: str, metadata: object) -> None:
    """Remove from ``state`` all weights that a resume loads from the backbone's checkpoint (``state_dict`` hook)."""
    kept = {f"{prefix}{POLICY_PREFIX}{name}" for name in saved_names(module._policy.model)} if module.policy else set()
    for key in set(state) - kept:
        del state[key]
