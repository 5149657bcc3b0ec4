"""The frozen reference policy, as it was at the start of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from grit_lightning.model.adapters import as_at_start
from grit_lightning.model.packing import PackedBatch
from grit_lightning.model.policy import Policy


class Reference(nn.Module):
    """The policy as it was at the start of training, as a second copy: without gradient and always in eval mode.

    Args:
        policy: a policy loaded for this purpose; its parameters are frozen.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy.requires_grad_(False)
        self.offloaded = False
        self.train(False)

    def train(self, mode: bool = True) -> Reference:
        """Stay in eval mode: Lightning switches every submodule to train mode when fitting starts."""
        return super().train(False)

    def offload(self) -> None:
        """Hold the weights on the CPU from now on. Buffers stay on the device because DDP broadcasts them."""
        self.offloaded = True
        for value in self.parameters():
            value.data = value.data.cpu()

    @contextmanager
    def on(self, device: torch.device) -> Iterator[Reference]:
        """Hold a copy of offloaded weights on ``device`` while the block runs; do nothing if they are not offloaded."""
        homes = [(value, value.data) for value in self.parameters()] if self.offloaded else []
        for value, home in homes:
            value.data = home.to(device)
        try:
            yield self
        finally:
            for value, home in homes:
                value.data = home

    @torch.no_grad()
    def forward(self, batch: PackedBatch) -> Tensor:
        """Return log π_ref of the completion tokens, float32, shape (T,)."""
        return self.policy(batch).logprobs_T


class PolicyAtStart:
    """The reference of a policy with adapters: the same model with its initial adapters, without a second copy.

    Args:
        policy: the policy, whose model has adapters; it must be in eval mode when the reference is called.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    @contextmanager
    def on(self, device: torch.device) -> Iterator[PolicyAtStart]:
        """Do nothing: the weights are those of the policy, which are already on its device."""
        yield self

    @torch.no_grad()
    def __call__(self, batch: PackedBatch) -> Tensor:
        """Return log π_ref of the completion tokens, float32, shape (T,)."""
        with as_at_start(self.policy.model):
            return self.policy(batch).logprobs_T
