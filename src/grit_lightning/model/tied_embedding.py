"""The gradient of an input embedding tied to the LM head, restricted to the rows that were looked up.

The LM head's gradient already has all rows of the vocabulary. At the end of each backward pass, autograd would allocate
a second gradient of that size for the embedding, almost all zeros, only to add it to the first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from grit_lightning.model.lm_head import plain_weight


def share_gradient(model: nn.Module) -> None:
    """Make the model's input embedding add its gradient to that of the LM head, if the two share their weights."""
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    weight = plain_weight(model.lm_head)  # type: ignore[arg-type]
    if type(embedding) is nn.Embedding and weight is embedding.weight and weight.requires_grad:
        embedding.register_forward_hook(_look_up)


def _look_up(embedding: nn.Embedding, arguments: tuple[Tensor], _: Tensor) -> Tensor:
    return look_up(embedding.weight, arguments[0], embedding.padding_idx)


def look_up(weight_V_D: Tensor, ids: Tensor, padding: int | None = None) -> Tensor:
    """Look up rows of a weight; their gradient is added in place to the one from another use of the weight.

    That other use, such as the LM head, must be part of the same backward pass.

    Args:
        weight_V_D: the weight, a leaf tensor.
        ids: indices of the rows, int64, any shape.
        padding: an id whose row gets no gradient; ``None`` if there is none.

    Returns:
        The rows, shape (…, D).
    """
    rows: Tensor = _Rows.apply(weight_V_D, ids, padding)
    return rows


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight_V_D: Tensor, ids: Tensor, padding: int | None) -> Tensor:
        ctx.save_for_backward(weight_V_D, ids)
        ctx.padding = padding
        return weight_V_D[ids]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        """Register a hook that adds the rows once autograd has summed the weight's other gradients.

        Autograd calls the hook only after this function, because this function is one of the weight's uses.
        """
        weight_V_D, ids = ctx.saved_tensors
        ids_N, gradient_N_D = ids.flatten(), gradient.flatten(0, -2)
        if ctx.padding is not None:
            # Not a selection, because the host would wait for its size.
            gradient_N_D = gradient_N_D.masked_fill((ids_N == ctx.padding)[:, None], 0.0)

        def add(total_V_D: Tensor) -> None:
            hook.remove()
            total_V_D.index_add_(0, ids_N, gradient_N_D)

        hook = weight_V_D.register_hook(add)
        return None, None, None
