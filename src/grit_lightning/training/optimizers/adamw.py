"""AdamW for weights in float32 or bf16, with moments in a dtype of choice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter
from torch.optim import Optimizer

from grit_lightning.errors import CheckpointError, ConfigError
from grit_lightning.training.optimizers.masters import join, split
from grit_lightning.training.optimizers.moments import NAMES, Moments, empty, load, require_available, store

CHUNK = 1 << 24
"""Values that are updated at a time: bounds the memory of float32 copies to a few times 64 MB."""


def adamw(
    named_parameters: Iterable[tuple[str, Parameter]],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    moments: Moments,
) -> Optimizer:
    """Return AdamW (arXiv 1711.05101): torch's own where everything is float32, else :class:`SplitAdamW`.

    Args:
        named_parameters: ``(name, parameter)`` pairs to optimize.
        lr: learning rate.
        betas: β₁ and β₂.
        eps: added to the denominator of the update.
        weight_decay: decoupled weight decay.
        moments: dtype of the two moments.

    Raises:
        ConfigError: ``int8`` is chosen and bitsandbytes is not installed.
    """
    parameters = list(named_parameters)
    require_available(moments)
    first, second = betas
    options = {"lr": lr, "betas": (first, second), "eps": eps, "weight_decay": weight_decay}
    plain = torch.optim.AdamW(parameters, **options, fused=True)  # type: ignore[arg-type]
    if moments == "float32" and all(value.dtype.itemsize >= torch.float32.itemsize for _, value in parameters):
        return plain
    return SplitAdamW(plain.param_groups, moments=moments)


adamw_8bit = partial(adamw, moments="int8")
"""Name of AdamW with 8-bit moments in configs of earlier versions."""


class SplitAdamW(Optimizer):
    """AdamW for weights that are resident in bf16: their float32 masters are split between weight and optimizer.

    A weight takes 2 bytes more here, and 8, 4 or 2 bytes for its moments. Computation is in float32, for a bounded
    number of values at a time. Sharded parameters (``DTensor``) are updated shard by shard. An update is a pure
    function of weights, state and gradient.

    Args:
        groups: parameter groups with the options of ``torch.optim.AdamW``.
        moments: dtype of the two moments.
    """

    def __init__(self, groups: list[dict[str, Any]], *, moments: Moments) -> None:
        self.moments = moments
        kept = ("params", "param_names", "lr", "betas", "eps", "weight_decay")
        super().__init__([{key: group[key] for key in kept if key in group} for group in groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient. Return the loss of ``closure``, or ``None`` without one.

        Raises:
            ConfigError: 8-bit moments were chosen for a sharded parameter.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        number = count()
        for group in self.param_groups:
            for parameter in group["params"]:
                index = next(number)
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group, index)
        return loss

    def _update(self, parameter: Parameter, gradient: Tensor, group: dict[str, Any], index: int) -> None:
        state = self.state[parameter]
        if not state:
            self._begin(parameter, state)
        state["step"] += 1
        step = int(state["step"])
        weight, gradient = _local(parameter).view(-1), _local(gradient).reshape(-1)
        own = {key: _local(value) for key, value in state.items() if key != "step"}
        for number, start in enumerate(range(0, len(weight), CHUNK)):
            part = slice(start, min(start + CHUNK, len(weight)))
            remainder = own["remainder"].view(-1)[part] if "remainder" in own else None
            master = weight[part] if remainder is None else join(weight[part], remainder)
            pair = load(own, part)
            _adamw(master, gradient[part].float(), pair, group, step)
            store(own, part, pair, _seed(step, index, number))
            if remainder is not None:
                split(master, weight[part], remainder)

    def _begin(self, parameter: Parameter, state: dict[str, Any]) -> None:
        if self.moments == "int8" and isinstance(parameter, DTensor):
            raise ConfigError("optimizer.moments=int8 cannot be sharded: choose bfloat16, or strategy=ddp")
        state["step"] = torch.zeros((), dtype=torch.float32)
        values = parameter.detach()
        if parameter.dtype == torch.bfloat16:
            state["remainder"] = torch.zeros_like(values)
        state |= empty(values, self.moments)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a checkpoint bit by bit; torch would convert it to the dtype of the weights.

        Raises:
            CheckpointError: the state is that of another optimizer.
        """
        super().load_state_dict(state_dict)
        saved = [number for group in state_dict["param_groups"] for number in group["params"]]
        own = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, parameter in zip(saved, own, strict=True):
            values = state_dict["state"].get(number, {})
            if values and not set(NAMES) <= set(values):
                raise CheckpointError("the checkpoint's optimizer is not the one of the config: its state differs")
            for key, value in values.items():
                if isinstance(value, Tensor) and key != "step":
                    self.state[parameter][key] = value.to(parameter.device)


def _adamw(master: Tensor, gradient: Tensor, pair: list[Tensor], group: dict[str, Any], step: int) -> None:
    """Update float32 values and their moments in place (arXiv 1711.05101, algorithm 2)."""
    first, second = pair
    (beta1, beta2), lr = group["betas"], group["lr"]
    master.mul_(1 - lr * group["weight_decay"])
    first.lerp_(gradient, 1 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    denominator = (second / (1 - beta2**step)).sqrt_().add_(group["eps"])
    master.addcdiv_(first, denominator, value=-lr / (1 - beta1**step))


def _seed(step: int, parameter: int, chunk: int) -> int:
    return (step * 0x9E3779B1 + parameter * 0x85EBCA6B + chunk * 0xC2B2AE35) % (1 << 30)


def _local(value: Tensor) -> Tensor:
    return value.to_local() if isinstance(value, DTensor) else value
