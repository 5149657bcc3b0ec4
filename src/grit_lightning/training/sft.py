"""Supervised fine-tuning: the policy learns to write given completions. GRIT's baseline, and how a base model is made.

Prompts about one image are packed behind it (``packing.share_prefix``), so an image is computed once however many
questions are asked about it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from grit_lightning.data.stream import Batch
from grit_lightning.model.packing import learned, share_prefix
from grit_lightning.model.policy import Policy
from grit_lightning.training.distributed import full_value, gradient_sync
from grit_lightning.training.objective import wide_dtype
from grit_lightning.training.policy_module import PolicyModule
from grit_lightning.training.step_metrics import PhaseTimer
from grit_lightning.training.targets import target_text
from grit_lightning.types import Completion, Group, Prompt, Sample


class SFTModule(PolicyModule):
    """The policy and the cross-entropy of its targets.

    The loss is the mean of −log π(token | image, prompt, earlier tokens) over all target tokens of a step.

    Args: those of :class:`PolicyModule`.
    """

    def check_samples(self, samples: Sequence[Sample]) -> None:
        """Refuse samples that have nothing to learn from.

        Raises:
            DataError: the first sample with neither a completion nor boxes.
        """
        for sample in samples:
            target_text(sample, sample.size)

    def load_policy(self) -> Policy:
        """The policy as the checkpoint has it, at temperature 1."""
        return Policy.load(self.backbone, temperature=1.0, logits_chunk=self.logits_chunk, entropy=False)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the policy once on this rank's examples."""
        timer = PhaseTimer(self.device)
        groups = [self._group(list(prompts)) for _, prompts in itertools.groupby(batch.prompts, key=_image)]
        learned_N = learned(groups).to(self.device)
        tokens = self._sum_over_ranks(learned_N.sum().to(wide_dtype(self.device)))
        loss = torch.zeros((), device=self.device)
        optimizer = cast(Optimizer, self.optimizers())
        optimizer.zero_grad()
        self._policy.train()
        passes = self._passes(groups, skip=[False] * len(groups))
        for index, (rows, live) in enumerate(passes):
            packed = self._pack(rows, groups)
            with gradient_sync(self.trainer.strategy, last=index == len(passes) - 1):
                logprobs_T = self._policy(packed).logprobs_T
                # Given tokens may be ones that are never sampled, of probability 0: selected away, not multiplied.
                share = -logprobs_T.where(learned_N[packed.token_T] & live, 0.0).sum() / tokens
                # Data-parallel strategies average gradients over ranks; the loss is a share of a global mean.
                self.manual_backward(share * self.trainer.world_size)
            loss += share.detach()
        grad_norm = self._clip_gradient()
        optimizer.step()
        self.log_dict(
            {
                "loss": self._sum_over_ranks(loss).item(),
                "grad_norm": full_value(grad_norm).item(),
                **self._step_metrics(timer, tokens.item()),
            }
        )
        cast(LRScheduler, self.lr_schedulers()).step()

    def _group(self, prompts: list[tuple[int, Prompt]]) -> Group:
        return share_prefix([(prompt, self._target(prompt)) for _, prompt in prompts], slot=prompts[0][0])

    def _target(self, prompt: Prompt) -> Completion:
        return self.backbone.target(target_text(prompt.sample, prompt.box_space), prompt)


def _image(item: tuple[int, Prompt]) -> object:
    return item[1].sample.image
