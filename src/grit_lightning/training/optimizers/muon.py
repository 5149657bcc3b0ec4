"""Muon for the matrices inside the layers, combined with AdamW for all other parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import Optimizer


class MuonAdamW(Optimizer):
    """Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon) on 2-D hidden weights, AdamW on the others.

    AdamW updates embeddings, the LM head, norms, biases and convolutions, as Muon's author advises. A learning-rate
    schedule scales both learning rates. Sharded parameters are not supported: use one device or ``strategy=ddp``.

    Args:
        named_parameters: ``(name, parameter)`` pairs; embeddings and the LM head are recognized by name.
        lr: learning rate of Muon.
        adamw_lr: learning rate of AdamW.
        momentum: momentum of Muon.
        betas: β₁ and β₂ of AdamW.
        weight_decay: decoupled weight decay of both.
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
        """Update all parameters. Return the loss of ``closure``, or ``None`` without one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore momenta and learning rates from a checkpoint."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Make Muon and AdamW use the parameter groups and state of this optimizer, which are scheduled and saved."""
        groups = iter(self.param_groups)
        for part in self._parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state


def is_hidden_matrix(name: str, parameter: Parameter) -> bool:
    """Tell whether a parameter is a 2-D weight that is neither an embedding nor the LM head."""
    return parameter.ndim == 2 and not any(part in name for part in ("embed", "lm_head"))
