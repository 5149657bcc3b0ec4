"""The gradient of an embedding that is the LM head's weight, too, as the few rows that were looked up.

The head's gradient has every row already. Autograd would make a second one of that size at the end of each backward
pass, almost all of it zeros, to add it to the first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from grit_lightning.model.lm_head import plain_weight


def share_gradient(model: nn.Module) -> None:
    """Let the embedding of a model add its gradient to the head's, if they share their weights."""
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    weight = plain_weight(model.lm_head)  # type: ignore[arg-type]
    if type(embedding) is nn.Embedding and weight is embedding.weight and weight.requires_grad:
        embedding.register_forward_hook(_look_up)


def _look_up(embedding: nn.Embedding, arguments: tuple[Tensor], _: Tensor) -> Tensor:
    return look_up(embedding.weight, arguments[0], embedding.padding_idx)


def look_up(weight_V_D: Tensor, ids: Tensor, padding: int | None = None) -> Tensor:
    """Rows of a weight that something else has a gradient for in the same backward pass; shape (…, D).

    Args:
        weight_V_D: a leaf.
        ids: int64.
        padding: an id whose row has no gradient.
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
        """To be added when all other gradients of the weight are there: autograd waits for this one, too."""
        weight_V_D, ids = ctx.saved_tensors
        ids_N, gradient_N_D = ids.flatten(), gradient.flatten(0, -2)
        if ctx.padding is not None:
            looked_up = ids_N != ctx.padding
            ids_N, gradient_N_D = ids_N[looked_up], gradient_N_D[looked_up]

        def add(total_V_D: Tensor) -> None:
            hook.remove()
            total_V_D.index_add_(0, ids_N, gradient_N_D)

        hook = weight_V_D.register_hook(add)
        return None, None, None
