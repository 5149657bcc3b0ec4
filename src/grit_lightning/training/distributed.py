"""Code that depends on the strategy: FSDP sharding and checkpoints, gradient synchronization, gathered weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.optim import Optimizer

from grit_lightning.errors import CheckpointError
from grit_lightning.model.finite import require_finite
from grit_lightning.runs.checkpoint_files import read_checkpoint


class FSDPStrategy(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, with every process as a data-parallel rank.

    Lightning's default uses the devices of a node for tensor parallelism. Checkpoints are gathered into one file in the
    format of a single device, so that a run can be resumed with another number or kind of devices.
    """

    def __init__(self) -> None:
        super().__init__(data_parallel_size=1, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Create the device mesh. The number of processes is known only now, not in the constructor."""
        assert self.cluster_environment is not None
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Load weights and optimizer state from a single-file checkpoint, and return the rest of the checkpoint.

        It replaces Lightning's method, which ignores missing weights and, for an optimizer that trains only some of the
        parameters, assigns state to the wrong ones: it takes a parameter's index in the optimizer for its index in the
        model.

        Raises:
            CheckpointError: the checkpoint cannot be read, has other weight names than the model, or a weight is not
                finite.
        """
        path = Path(self.broadcast(checkpoint_path))
        checkpoint = read_checkpoint(path, mmap=True, map_location="cpu")
        module = self.lightning_module
        assert module is not None
        weights = checkpoint.pop("state_dict")
        require_same_names(module.state_dict().keys(), weights.keys())
        require_finite(weights.items(), path)
        # Not strict: checkpoints of a run with adapters hold the adapters without the base model.
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
        set_model_state_dict(module, weights, options=options)
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            set_optimizer_state_dict(module, optimizer, _by_name(state, module, optimizer), options=options)
        return checkpoint


def _by_name(state: dict[str, Any], module: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Return a saved optimizer state with parameter names as keys.

    A saved state numbers the parameters in the order in which the optimizer has them.
    """
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
    """Check that a checkpoint holds exactly the weights that a run of this model saves.

    Args:
        expected: weight names that a run of the model saves.
        found: weight names in the checkpoint.

    Raises:
        CheckpointError: the names differ; the message has the first one in alphabetical order.
    """
    if different := sorted(set(expected) ^ set(found)):
        raise CheckpointError(
            f"the checkpoint does not fit the model: {len(different)} weight names differ, e.g. {different[0]}"
        )


def shard(module: nn.Module, trainer: L.Trainer) -> None:
    """Under ``FSDPStrategy``, shard parameters, gradients and optimizer state over the ranks (FSDP2, ``fully_shard``).

    Under other strategies, do nothing. Each transformer block is one FSDP unit; all other parameters (embeddings, LM
    head, norms) belong to the root unit. The sharded master weights keep their dtype; with precision ``bf16-mixed``
    their gathered copies are bf16. Gradients are reduced in float32.
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
    """Gather all parameters of a sharded module while the block runs; do nothing for other modules.

    Ranks may then call the module independently of each other, as rollouts of different lengths need. Entering is
    collective.
    """
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
            # FSDP2 does not reshard the root after forward: the backward pass needs its parameters at once.
            unit.set_reshard_after_forward(unit is not module, recurse=False)


def gradient_sync(strategy: Strategy, *, last: bool) -> AbstractContextManager[object]:
    """Return a context for one backward pass in which, under DDP, only the last pass reduces gradients over ranks.

    Under FSDP every pass reduces them: otherwise each rank would accumulate the full, unsharded gradients.

    Args:
        strategy: the trainer's strategy.
        last: whether this is the last backward pass before the optimizer step.
    """
    if isinstance(strategy, DDPStrategy) and not last:
        return strategy.model.no_sync()  # type: ignore[union-attr,operator]
    return nullcontext()
