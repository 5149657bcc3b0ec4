"""The LightningModule of GRPO: one ``training_step`` is one step of group-relative policy optimization.

    prompts ─ rollout ─▶ groups ─ rewards ─▶ advantages ─ packed micro-batches ─ loss ─▶ backward … step

Rollouts decode the whole batch of a rank; backward passes split it into micro-batches of bounded token count.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel

from grit_lightning.data.stream import Batch
from grit_lightning.errors import ConfigError
from grit_lightning.judge.protocol import Judge
from grit_lightning.model.adapters import has_adapters
from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.model.packing import PackedBatch, completion_lengths
from grit_lightning.model.policy import Policy, TokenLogprobs
from grit_lightning.model.reference import PolicyAtStart, Reference
from grit_lightning.rewards.weighted_sum import Rewards
from grit_lightning.rollout.sampler import Sampler
from grit_lightning.training.distributed import gathered, gradient_sync, shard
from grit_lightning.training.guards.engine_drift import EngineDrift
from grit_lightning.training.guards.judge_watch import JudgeWatch
from grit_lightning.training.guards.reward_watch import RewardWatch
from grit_lightning.training.objective.group_advantages import zero_variance
from grit_lightning.training.objective.loss import LossTerms, policy_loss
from grit_lightning.training.objective.options import Objective
from grit_lightning.training.objective.whole_step import step_advantages, step_token_weights
from grit_lightning.training.policy_module import NamedParameters, PolicyModule
from grit_lightning.training.step_metrics import PhaseTimer, StepSums, reward_table
from grit_lightning.types import Group, Sample, StepOutput

log = logging.getLogger(__name__)


class GRPOModule(PolicyModule):
    """Policy, frozen reference, and the GRPO update rule.

    Args:
        sampler: draws the completions.
        rewards: score the completions.
        judge: the judge that the rewards call; training stops if it fails too often (:class:`JudgeWatch`).
        objective: options of the loss.
        seed: seed of the sampling noise.
        offload_reference: keep the reference's weights on the CPU except while the reference computes.
        backbone, optimizer, scheduler, max_tokens_per_pass, logits_chunk, max_grad_norm, max_skipped: as in
            :class:`PolicyModule`.

    Raises:
        ConfigError: ``offload_reference`` is set and the strategy shards the reference (from ``configure_model``).
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        sampler: Sampler,
        rewards: Rewards,
        judge: Judge,
        objective: Objective,
        optimizer: Callable[[NamedParameters], Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler],
        max_tokens_per_pass: int,
        logits_chunk: int,
        max_grad_norm: float,
        seed: int,
        offload_reference: bool,
        max_skipped: int = 3,  # configs of earlier versions lack it
    ) -> None:
        super().__init__(
            backbone=backbone, optimizer=optimizer, scheduler=scheduler, max_tokens_per_pass=max_tokens_per_pass,
            logits_chunk=logits_chunk, max_grad_norm=max_grad_norm, max_skipped=max_skipped,
        )  # fmt: skip
        self.sampler = sampler
        self.rewards = rewards
        self.judge_watch = JudgeWatch(judge)
        self.reward_watch = RewardWatch()
        self.objective = objective
        self.seed = seed
        self.offload_reference = offload_reference
        self.reference: Reference | PolicyAtStart | None = None

    def load_policy(self, *, entropy: bool = True) -> Policy:
        """Load the policy from the backbone's checkpoint, at the sampling temperature."""
        return Policy.load(
            self.backbone, temperature=self.sampler.temperature, logits_chunk=self.logits_chunk, entropy=entropy
        )

    def check_samples(self, samples: Sequence[Sample]) -> None:
        """Check that the sampler can be trained on; every sample can."""
        self.sampler.require_trainable()

    def configure_model(self) -> None:
        """Load the policy and, if β > 0, the reference; under ``FSDPStrategy``, shard both."""
        super().configure_model()
        if self.objective.beta == 0 or self.reference is not None:
            return
        if has_adapters(self._policy.model):
            self.reference = PolicyAtStart(self._policy)
        else:
            # Loaded only after the policy is sharded, so that a process never holds two unsharded models.
            self.reference = Reference(self.load_policy(entropy=False))
            shard(self.reference, self.trainer)
            if self.offload_reference and isinstance(self.reference, FSDPModule):
                raise ConfigError(
                    "module.offload_reference is true, expected false with strategy=fsdp: the reference is sharded"
                )

    def on_train_start(self) -> None:
        """Discard judge counts from evaluations before step 1, and offload the reference."""
        self.judge_watch.reset()
        if self.offload_reference and isinstance(self.reference, Reference):
            self.reference.offload()

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, StepOutput]:
        """Sample completions of this rank's prompts, score them, and update the policy."""
        timer = PhaseTimer(self.device, data=batch.waited)
        with timer("rollout"):
            groups = self._rollout(batch)
        scoring = self.rewards.submit(groups)  # the rewards are computed in the background while the reference runs
        with timer("reference"):
            ref_logprobs = self._reference_logprobs(groups)
        with timer("wait_for_rewards"):
            scores, reward_seconds = scoring.result()
        others = self.judge_watch.step(self.trainer.strategy)
        self.reward_watch.step(scores, self.trainer.strategy)
        table = reward_table(scores, self.device)
        advantages_P_G = step_advantages(table["total"], self.objective, self._sum_over_ranks)
        sums = StepSums(table, groups)
        drift = EngineDrift.of(self.sampler.engine, groups, self.objective, self.device)
        with timer("update"):
            grad_norm = self._update(groups, table["total"], advantages_P_G, ref_logprobs, sums, drift)
        others |= {"time/reward": reward_seconds, "policy/grad_norm": grad_norm.item()}
        self._log(sums, timer, others | (drift.metrics() if drift is not None else {}))
        cast(LRScheduler, self.lr_schedulers()).step()
        return {"output": StepOutput(batch.step + 1, groups, scores, advantages_P_G.cpu())}

    @torch.no_grad()
    def _rollout(self, batch: Batch) -> list[Group]:
        def sample(model: PreTrainedModel) -> list[Group]:
            with engine.serving(model, self.backbone):
                return self.sampler.rollout(model, self.backbone, batch.prompts, step=batch.step, seed=self.seed)

        def sample_gathered(model: PreTrainedModel) -> list[Group]:
            with gathered(self._policy):
                return sample(model)

        engine, policy = self.sampler.engine, self._policy.eval()
        return policy(sample_gathered) if engine.runs_policy else sample(policy.model)

    def _reference_logprobs(self, groups: list[Group]) -> Tensor | None:
        """Return log π_ref of all completion tokens of this rank, flat and in order; ``None`` without a reference."""
        if self.reference is None:
            return None
        logprobs = torch.zeros(int(completion_lengths(groups).sum()), device=self.device)
        with self.reference.on(self.device) as reference:
            for rows, live in self._passes(groups, skip=[False] * len(groups)):
                packed = self._pack(rows, groups)
                values = reference(packed)
                if live:
                    logprobs[packed.token_T] = values
        return logprobs

    def _update(
        self,
        groups: list[Group],
        rewards_P_G: Tensor,
        advantages_P_G: Tensor,
        ref_logprobs: Tensor | None,
        sums: StepSums,
        drift: EngineDrift | None,
    ) -> Tensor:
        """Take ``objective.iterations`` optimizer steps, or those up to a skipped one; return the last norm."""
        weights_C = step_token_weights(
            groups, rewards_P_G, self.objective, self._sum_over_ranks, self.sampler.max_new_tokens
        )
        skip_P = zero_variance(rewards_P_G) & self.objective.skip_zero_variance
        passes = self._passes(groups, skip=skip_P.tolist())
        old_logprobs: Tensor | None = None
        grad_norm = torch.zeros(())
        self._policy.train()
        for iteration in range(self.objective.iterations):
            last = iteration == self.objective.iterations - 1
            # Lightning counts each step of its wrapper as a global step; only the last iteration uses the wrapper.
            optimizer = cast(Optimizer, self.optimizers(use_pl_optimizer=last))
            logprobs = torch.zeros(int(completion_lengths(groups).sum()), device=self.device)
            loss = torch.zeros((), device=self.device)
            for index, (rows, live) in enumerate(passes):
                packed = self._pack(rows, groups)
                with gradient_sync(self.trainer.strategy, last=index == len(passes) - 1):
                    tokens, terms = self._backward(
                        packed, advantages_P_G.flatten(), weights_C * live, ref_logprobs, old_logprobs, drift
                    )
                loss += terms.loss.detach()
                if live:
                    logprobs[packed.token_T] = tokens.logprobs_T.detach()
                    sums.add(terms, tokens, first=iteration == 0, last=last)
                    if drift is not None and iteration == 0:
                        drift.add(packed, tokens.logprobs_T.detach())
            if drift is not None and iteration == 0:
                drift.check(self.trainer.global_step + 1, self.trainer.strategy)
            values = {"a log-probability": logprobs, "one of the reference": ref_logprobs, "the loss": loss}
            grad_norm, applied = self._take_update(optimizer, values)
            if not applied:
                break
            old_logprobs = logprobs if old_logprobs is None else old_logprobs
        return grad_norm

    def _backward(
        self,
        packed: PackedBatch,
        advantages_C: Tensor,
        weights_C: Tensor,
        ref_logprobs: Tensor | None,
        old_logprobs: Tensor | None,
        drift: EngineDrift | None,
    ) -> tuple[TokenLogprobs, LossTerms]:
        """Run one micro-batch forward and backward. In the first iteration π_old is the policy: no ``old_logprobs``."""
        tokens: TokenLogprobs = self._policy(packed)
        old_logprobs_T = tokens.logprobs_T.detach() if old_logprobs is None else old_logprobs[packed.token_T]
        terms = policy_loss(
            tokens.logprobs_T,
            old_logprobs_T,
            None if ref_logprobs is None else ref_logprobs[packed.token_T],
            advantages_C=advantages_C,
            weights_C=weights_C,
            completion_T=packed.completion_T,
            objective=self.objective,
            engine_weights_T=None if drift is None else drift.weights(packed, old_logprobs_T),
        )
        # The losses of the ranks add up to the global loss, but data-parallel strategies average gradients over ranks.
        self.manual_backward(terms.loss * self.trainer.world_size)
        return tokens, terms

    def _log(self, sums: StepSums, timer: PhaseTimer, others: dict[str, float]) -> None:
        metrics = sums.metrics(self._sum_over_ranks, with_kl=self.reference is not None)
        metrics |= self._step_metrics(timer, metrics.pop("rollout/tokens")) | others
        if metrics["reward/unscored"] == 1:
            log.warning("step %d: no completion could be scored, so nothing was learned", self.trainer.global_step)
        self.log_dict(metrics)
