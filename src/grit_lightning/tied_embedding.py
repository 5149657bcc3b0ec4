"""The gradient of an embedding that is the LM head's weight, too, as the few rows that were looked up.

The head's gradient has every row already. A second one of that size, almost all of it zeros, would be made at the end of
each backward pass only to be added to it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from grit_lightning.head import plain_weight


def share_gradient(model: nn.Module) -> None:
    """Let the embedding of a model add its gradient to the head's, if they share their weights."""
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    weight = plain_weight(model.lm_head)  # type: ignore[arg-type]
    if type(embedding) is nn.Embedding and weight is embedding.weight and weight.requires_grad:
        embedding.register_forward_hook(_look_up)


def _look_up(embedding: nn.Embedding, arguments: tuple[Tensor], _: Tensor) -> Tensor:
    rows: Tensor = _Rows.apply(embedding.weight, arguments[0], embedding.padding_idx)
    return rows


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight_V_D: Tensor, ids: Tensor, padding: int | None) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.padding, ctx.shape = padding, weight_V_D.shape
        return weight_V_D[ids]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Sparse: autograd adds it to the head's, which is not, in place."""
        (ids,) = ctx.saved_tensors
        ids_N, gradient_N_D = ids.flatten(), gradient.flatten(0, -2)
        if ctx.padding is not None:
            looked_up = ids_N != ctx.padding
            ids_N, gradient_N_D = ids_N[looked_up], gradient_N_D[looked_up]
        return torch.sparse_coo_tensor(ids_N[None], gradient_N_D, ctx.shape, check_invariants=False), None, None
