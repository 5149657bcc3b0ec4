"""Optimizers beside those of torch: Muon with AdamW for what is no matrix, and AdamW with a small state."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers.utils import is_bitsandbytes_available

from grit_lightning.errors import ConfigError


class MuonAdamW(Optimizer):
    """Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon) on 2-D hidden weights, AdamW on the others.

    Embeddings, the LM head, norms, biases and convolutions are AdamW's, as Muon's author advises. A learning-rate
    schedule scales both. Neither takes sharded parameters: for one device, or ``strategy=ddp``.

    Args:
        named_parameters: ``(name, parameter)`` pairs, whose names tell embeddings and heads apart.
        lr: Muon's learning rate.
        adamw_lr: AdamW's learning rate.
        momentum: Muon's.
        betas: AdamW's.
        weight_decay: of both, decoupled.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Parameter]],
        *,
        lr: float,
        adamw_lr: float,
        momentum: float,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        matrices: list[Parameter] = []
        others: list[Parameter] = []
        for name, parameter in named_parameters:
            (matrices if is_hidden_matrix(name, parameter) else others).append(parameter)
        self._parts: list[Optimizer] = []
        if matrices:
            self._parts.append(torch.optim.Muon(matrices, lr=lr, momentum=momentum, weight_decay=weight_decay))
        if others:
            self._parts.append(torch.optim.AdamW(others, lr=adamw_lr, betas=betas, weight_decay=weight_decay))
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up saved momenta and learning rates."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Let the parts work on this optimizer's own groups and state, which are what is scheduled and saved."""
        groups = iter(self.param_groups)
        for part in self._parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state


def is_hidden_matrix(name: str, parameter: Parameter) -> bool:
    """Whether a parameter is a 2-D weight inside the network, neither an embedding nor the head."""
    return parameter.ndim == 2 and not any(part in name for part in ("embed", "lm_head"))


def adamw_8bit(
    named_parameters: Iterable[tuple[str, Parameter]],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> Optimizer:
    """AdamW whose state is held in 8 bits, in blocks (Dettmers et al., arXiv 2110.02861); small tensors' in 32.

    Does not take sharded parameters: for one device, or ``strategy=ddp``.

    Raises:
        ConfigError: no bitsandbytes.
    """
    if not is_bitsandbytes_available():
        raise ConfigError("optimizer=adamw8bit needs bitsandbytes: pip install 'grit-lightning[quantize]'")
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(list(named_parameters), lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay)


def piecewise_linear(optimizer: Optimizer, *, points: Sequence[Sequence[float]]) -> LambdaLR:
    """Straight lines between ``(step, factor)`` points, in ascending order of steps; constant before and after them.

    Args:
        optimizer: whose learning rates are multiplied by the factor.
        points: at least one. Two of the same step make a jump: the second holds from that step on.

    Raises:
        ConfigError: no points, or steps that do not ascend.
    """
    steps = [step for step, _ in points]
    if not steps or steps != sorted(steps):
        raise ConfigError(f"scheduler.points has the steps {steps}; expected at least one, in ascending order")

    def factor(step: int) -> float:
        after = bisect_right(steps, step)
        if after == 0:
            return points[0][1]
        if after == len(points):
            return points[-1][1]
        (start, low), (end, high) = points[after - 1], points[after]
        return low + (high - low) * (step - start) / (end - start)

    return LambdaLR(optimizer, factor)
