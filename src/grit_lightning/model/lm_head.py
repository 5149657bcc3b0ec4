"""The LM head and the softmax as one chunked operation: log-probabilities without holding all logits in memory.

Only one chunk's logits exist at a time; the backward pass computes them again. The gradient of the weights is summed
in place, because it is as large as the weights and autograd would allocate another one for each chunk.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class HeadOptions(NamedTuple):
    """Options of the computation of log-probabilities.

    Attributes:
        banned: ids of tokens that are never sampled, int64.
        temperature: the sampling temperature, > 0.
        chunk: number of tokens whose logits exist at a time.
        entropy: whether to compute entropies.
    """

    banned: Tensor
    temperature: float
    chunk: int
    entropy: bool


def plain_weight(head: nn.Module) -> Tensor | None:
    """Return the head's weight if it is a plain ``nn.Linear`` without bias, else ``None``.

    Heads with adapters and quantized heads are not plain.
    """
    return head.weight if type(head) is nn.Linear and head.bias is None else None


def token_logprobs(
    hidden_T_D: Tensor, weight_V_D: Tensor, target_T: Tensor, options: HeadOptions
) -> tuple[Tensor, Tensor | None]:
    """Return log π(target) and, if ``options.entropy``, the entropy in nats without gradient; each float32, shape (T,).

    π is the softmax of (hidden · weightᵀ) / temperature over the tokens that are not banned. Gradients work with
    ``backward()`` into all leaves, but not with ``torch.autograd.grad``: see :func:`_take_gradient`.
    """
    device = hidden_T_D.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_V_D.dtype
    logprobs_T, entropy_T = _TokenLogprobs.apply(hidden_T_D, weight_V_D, target_T, options, dtype)
    return logprobs_T, entropy_T if options.entropy else None


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_T_D: Tensor, weight_V_D: Tensor, target_T: Tensor, options: HeadOptions, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        weight = weight_V_D.to(dtype)
        logprobs_T, entropy_T = (hidden_T_D.new_empty(len(target_T), dtype=_wide(dtype)) for _ in range(2))
        for part in _chunks(len(target_T), options.chunk):
            logprobs_T_V = _log_softmax(hidden_T_D[part], weight, options)
            logprobs_T[part] = logprobs_T_V.gather(1, target_T[part, None])[:, 0]
            if options.entropy:
                entropy_T[part] = torch.special.entr(logprobs_T_V.exp_()).sum(dim=1)
        ctx.save_for_backward(hidden_T_D, weight_V_D, target_T)
        ctx.options, ctx.dtype = options, dtype
        ctx.mark_non_differentiable(entropy_T)
        return logprobs_T, entropy_T

    @staticmethod
    def backward(ctx: Any, grad_T: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients: ∂ log π(target) / ∂ score_v = [v = target] − π(v).

        A score is a logit divided by the temperature.
        """
        hidden_T_D, weight_V_D, target_T = ctx.saved_tensors
        weight = weight_V_D.to(ctx.dtype)
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        grad_hidden_T_D = torch.empty_like(hidden_T_D) if wants_hidden else None
        grad_weight_V_D = _take_gradient(weight_V_D) if wants_weight else None
        for part in _chunks(len(target_T), ctx.options.chunk):
            share_T_1 = grad_T[part, None] / ctx.options.temperature
            grad_T_V = _log_softmax(hidden_T_D[part], weight, ctx.options).exp_().mul_(-share_T_1)
            grad_T_V = grad_T_V.scatter_add_(1, target_T[part, None], share_T_1).to(ctx.dtype)
            if grad_hidden_T_D is not None:
                grad_hidden_T_D[part] = (grad_T_V @ weight).to(hidden_T_D.dtype)
            if grad_weight_V_D is not None:
                _add_product(grad_weight_V_D, grad_T_V.t(), hidden_T_D[part].to(ctx.dtype))
        return grad_hidden_T_D, grad_weight_V_D, None, None, None


def _log_softmax(hidden_T_D: Tensor, weight_V_D: Tensor, options: HeadOptions) -> Tensor:
    logits_T_V = hidden_T_D.to(weight_V_D.dtype) @ weight_V_D.t()
    scores_T_V = logits_T_V.to(_wide(weight_V_D.dtype)).div_(options.temperature)
    return scores_T_V.index_fill_(1, options.banned, -torch.inf).log_softmax(dim=1)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _take_gradient(weight_V_D: Tensor) -> Tensor:
    """Return the buffer to accumulate the gradient into: the existing ``.grad``, or zeros.

    An existing gradient is taken away from the weight, and the backward pass returns it to autograd as its result.
    Otherwise two gradients of a large vocabulary would exist while all activations are still in memory. Autograd then
    proceeds, hooks included, as if no gradient had been accumulated yet. A gradient that is a view, such as into a
    bucket of DDP, stays with the weight.
    """
    gradient = weight_V_D.grad if weight_V_D.is_leaf else None
    if type(gradient) is not Tensor or gradient._is_view() or gradient.dtype != weight_V_D.dtype:
        return torch.zeros_like(weight_V_D)
    weight_V_D.grad = None
    return gradient


def _add_product(total: Tensor, first: Tensor, second: Tensor) -> None:
    if first.dtype == total.dtype:
        total.addmm_(first, second)
    else:
        total += first @ second


def _chunks(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]
