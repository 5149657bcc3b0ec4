"""What differs between strategies: sharding, gradient synchronisation, and generating from a sharded policy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor


class FSDPStrategy(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, with every process a data-parallel rank (its own default is tensor-parallel).

    Checkpoints are gathered into one file, as on a single device, so that a run can go on with other hardware.
    """

    def __init__(self) -> None:
        super().__init__(data_parallel_size=1, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Make the device mesh, whose size is known only now."""
        assert self.cluster_environment is not None
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def shard(module: nn.Module, mesh: DeviceMesh, compute_dtype: torch.dtype | None) -> None:
    """Shard parameters, gradients and optimizer state over the data-parallel ranks (FSDP2, ``fully_shard``).

    Each transformer block is a unit; the rest (embeddings, head, norms) belongs to the root. Master weights keep their
    dtype; ``compute_dtype`` is that of the gathered copies and the arithmetic, ``None`` for the masters' own.
    """
    policy = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32)
    blocks = {name for child in module.modules() for name in getattr(child, "_no_split_modules", None) or ()}
    for child in module.modules():
        if type(child).__name__ in blocks:
            fully_shard(child, mesh=mesh, mp_policy=policy)
    fully_shard(module, mesh=mesh, mp_policy=policy)


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Hold all parameters of a sharded module whole, so that each rank may call its parts on its own."""
    if not isinstance(module, FSDPModule):
        yield
        return
    units = [child for child in module.modules() if isinstance(child, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
            unit.set_reshard_after_forward(True, recurse=False)


def gradient_sync(strategy: Strategy, module: nn.Module, *, enabled: bool) -> AbstractContextManager[object]:
    """Around a backward pass: whether it reduces gradients over ranks, or leaves that to a later one."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(enabled)
    elif isinstance(strategy, DDPStrategy) and not enabled:
        return strategy.model.no_sync()  # type: ignore[union-attr,operator]
    return nullcontext()


def full_value(value: Tensor) -> Tensor:
    """A tensor's value over all ranks, if it is sharded."""
    return value.full_tensor() if isinstance(value, DTensor) else value
