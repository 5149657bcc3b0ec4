"""Search for numbers that are not finite (infinite or NaN) in named tensors."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from grit_lightning.errors import CheckpointError


def largest(tensors: Iterable[Tensor]) -> Tensor:
    """Return the largest magnitude in some tensors on one device: float32, shape (); NaN if any of them holds NaN.

    Of a sharded tensor, only the local shard is read. Nothing is copied to the host.
    """
    maxima = [
        torch.linalg.vector_norm(_local(value), torch.inf).float()
        for value in tensors
        if value.is_floating_point() and value.numel()
    ]
    return torch.stack(maxima).amax() if maxima else torch.zeros(())


def first_not_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first tensor that holds a number that is not finite; ``None`` if there is none."""
    return next((name for name, value in named if not largest([value]).isfinite()), None)


def require_finite(named: Iterable[tuple[str, Tensor]], source: object) -> None:
    """Check that all weights from a source are finite.

    Args:
        named: names and values of the weights.
        source: file, folder or hub id that the weights come from, for the message.

    Raises:
        CheckpointError: a weight is not; the message names the first such tensor.
    """
    if name := first_not_finite(named):
        raise CheckpointError(f"{source}: {name} has infinite numbers or NaN, so this model cannot be used")


def _local(value: Tensor) -> Tensor:
    value = value.detach()
    local: Tensor = value.to_local() if isinstance(value, DTensor) else value
    return local if local.numel() else local.new_zeros(1)
