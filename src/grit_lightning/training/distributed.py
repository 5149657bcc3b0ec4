"""What differs between strategies: sharding, gradient synchronisation, and generating from a sharded policy."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from grit_lightning.errors import CheckpointError


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

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Load weights and optimizer state, of one device or of many, and return the rest of the checkpoint.

        Lightning's own passes over weights that are missing, and confuses those of an optimizer that does not train all
        parameters: it takes a place in the optimizer for a place in the model.

        Raises:
            CheckpointError: the checkpoint is of another model.
        """
        path = Path(self.broadcast(checkpoint_path))
        checkpoint: dict[str, Any] = torch.load(path, mmap=True, map_location="cpu", weights_only=True)
        module = self.lightning_module
        assert module is not None
        weights = checkpoint.pop("state_dict")
        require_same_names(module.state_dict().keys(), weights.keys())
        # Not strict: an adapter's checkpoint lacks the weights that it adapts.
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
        set_model_state_dict(module, weights, options=options)
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            set_optimizer_state_dict(module, optimizer, _by_name(state, module, optimizer), options=options)
        return checkpoint


def _by_name(state: dict[str, Any], module: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """An optimizer's state with parameters by name; in a saved one they are numbers, and their order tells which."""
    saved = [number for group in state["param_groups"] for number in group["params"]]
    name_of = {parameter: name for name, parameter in module.named_parameters()}
    trained = [name_of[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    names = dict(zip(saved, trained, strict=True))
    return {
        "state": {names[number]: value for number, value in state["state"].items()},
        "param_groups": [
            group | {"params": [names[number] for number in group["params"]]} for group in state["param_groups"]
        ],
    }


def require_same_names(expected: Collection[str], found: Collection[str]) -> None:
    """Raises CheckpointError where a checkpoint does not hold just the weights that the model has."""
    if different := sorted(set(expected) ^ set(found)):
        raise CheckpointError(
            f"the checkpoint does not fit the model: {len(different)} names differ, as {different[0]}"
        )


def shard(module: nn.Module, trainer: L.Trainer) -> None:
    """Under ``FSDPStrategy``, shard parameters, gradients and optimizer state over the ranks (FSDP2, ``fully_shard``).

    Each transformer block is a unit; the rest (embeddings, head, norms) belongs to the root. Master weights keep their
    dtype; with precision ``bf16-mixed`` their gathered copies are bf16.
    """
    if not isinstance(trainer.strategy, FSDPStrategy):
        return
    mesh = trainer.strategy.device_mesh["data_parallel"]
    compute_dtype = torch.bfloat16 if trainer.precision == "bf16-mixed" else None
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
            # The root keeps FSDP2's own setting: what it holds is needed again at once, in the backward pass.
            unit.set_reshard_after_forward(unit is not module, recurse=False)


def gradient_sync(strategy: Strategy, *, last: bool) -> AbstractContextManager[object]:
    """Around a backward pass: under DDP, only the last of a step reduces the gradients over ranks.

    A sharded policy reduces them in every pass: to wait for the last it would have to keep them whole.
    """
    if isinstance(strategy, DDPStrategy) and not last:
        return strategy.model.no_sync()  # type: ignore[union-attr,operator]
    return nullcontext()


def full_value(value: Tensor) -> Tensor:
    """A tensor's value over all ranks, if it is sharded."""
    return value.full_tensor() if isinstance(value, DTensor) else value
