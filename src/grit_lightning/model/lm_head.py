"""The LM head and the softmax as one chunked operation: log-probabilities without holding all logits in memory.

Only one chunk's logits exist at a time; the backward pass computes them again. The gradient of the weights is summed
in place, because it is as large as the weights and autograd would allocate another one for each chunk.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from grit_lightning.model.products import add_product, product


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


def logits(head: nn.Module, hidden_N_D: Tensor) -> Tensor:
    """Return the logits of hidden states, float32 (or the head's dtype if it is wider), shape (N, V)."""
    weight = plain_weight(head)
    if weight is None:
        output: Tensor = head(hidden_N_D)
        return output.to(_wide(output.dtype))
    weight = weight.to(_operand_dtype(weight))
    return product(hidden_N_D.to(weight.dtype), weight.t())


def token_logprobs(
    hidden_T_D: Tensor, weight_V_D: Tensor, target_T: Tensor, options: HeadOptions
) -> tuple[Tensor, Tensor | None]:
    """Return log π(target) and, if ``options.entropy``, the entropy in nats without gradient; each float32, shape (T,).

    π is the softmax of (hidden · weightᵀ) / temperature over the tokens that are not banned. Gradients work with
    ``backward()`` into all leaves, but not with ``torch.autograd.grad``: see :func:`_take_gradient`.
    """
    logprobs_T, entropy_T = _TokenLogprobs.apply(hidden_T_D, weight_V_D, target_T, options, _operand_dtype(weight_V_D))
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
        grad_weight_V_D = _accumulator(weight_V_D) if wants_weight else None
        for part in _chunks(len(target_T), ctx.options.chunk):
            share_T_1 = grad_T[part, None] / ctx.options.temperature
            grad_T_V = _log_softmax(hidden_T_D[part], weight, ctx.options).exp_().mul_(-share_T_1)
            grad_T_V = grad_T_V.scatter_add_(1, target_T[part, None], share_T_1).to(ctx.dtype)
            if grad_hidden_T_D is not None:
                grad_hidden_T_D[part] = (grad_T_V @ weight).to(hidden_T_D.dtype)
            if grad_weight_V_D is not None:
                add_product(grad_weight_V_D, grad_T_V.t(), hidden_T_D[part].to(ctx.dtype))
        if grad_weight_V_D is not None:
            grad_weight_V_D = grad_weight_V_D.to(weight_V_D.dtype)
        return grad_hidden_T_D, grad_weight_V_D, None, None, None


def _log_softmax(hidden_T_D: Tensor, weight_V_D: Tensor, options: HeadOptions) -> Tensor:
    scores_T_V = product(hidden_T_D.to(weight_V_D.dtype), weight_V_D.t()).div_(options.temperature)
    return scores_T_V.index_fill_(1, options.banned, -torch.inf).log_softmax(dim=1)


def _operand_dtype(weight: Tensor) -> torch.dtype:
    """Return the dtype of a product's operands: that of autocast where it is on, else that of the weight."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _accumulator(weight_V_D: Tensor) -> Tensor:
    """Return the buffer to sum the weight's gradient in: the existing ``.grad``, or zeros; float32 or wider.

    An existing gradient is taken away from the weight, and the backward pass returns it to autograd as its result.
    Otherwise two gradients of a large vocabulary would exist while all activations are still in memory. Autograd then
    proceeds, hooks included, as if no gradient had been accumulated yet. A gradient that is a view, such as into a
    bucket of DDP, stays with the weight.

    The gradient of a bf16 weight is summed in float32 and rounded once a pass, because it is a sum over many chunks.
    """
    gradient = weight_V_D.grad if weight_V_D.is_leaf else None
    wide = _wide(weight_V_D.dtype)
    if type(gradient) is not Tensor or gradient._is_view() or gradient.dtype != weight_V_D.dtype:
        return torch.zeros_like(weight_V_D, dtype=wide)
    weight_V_D.grad = None
    return gradient.to(wide)


def _chunks(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]
