"""Read policy weights from a checkpoint of a run, and load them into a model."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from grit_lightning.errors import CheckpointError
from grit_lightning.model.adapters import saved_names
from grit_lightning.model.finite import require_finite
from grit_lightning.runs.checkpoint_files import read_checkpoint
from grit_lightning.training.distributed import require_same_names
from grit_lightning.training.policy_module import POLICY_PREFIX


class Weights(NamedTuple):
    """Policy weights of a checkpoint.

    Attributes:
        file: the checkpoint file.
        step: number of training steps done when it was saved.
        model: the weights by parameter name in the model; only adapters if the run trains adapters.
    """

    file: Path
    step: int
    model: dict[str, torch.Tensor]


def read_weights(file: Path) -> Weights:
    """Read the policy weights of a checkpoint, memory-mapped on the CPU.

    Raises:
        CheckpointError: the file cannot be read, is a checkpoint without policy weights, or a weight is not finite.
    """
    checkpoint = read_checkpoint(file, map_location="cpu", mmap=True)
    state: dict[str, torch.Tensor] = checkpoint.get("state_dict", {})
    model = {name.removeprefix(POLICY_PREFIX): value for name, value in state.items() if name.startswith(POLICY_PREFIX)}
    if not model:
        raise CheckpointError(f"{file}: holds no policy weights, expected a checkpoint of this application")
    require_finite(model.items(), file)
    return Weights(file, checkpoint["global_step"], model)


def require_fit(model: PreTrainedModel, weights: Weights) -> None:
    """Check that weights fit a model.

    Args:
        model: the model; its device may be ``meta``.
        weights: the weights of a run.

    Raises:
        CheckpointError: names or shapes differ.
    """
    require_same_names(saved_names(model), weights.model.keys())
    expected = model.state_dict()
    for name, value in weights.model.items():
        if value.shape != expected[name].shape:
            shapes = f"{tuple(value.shape)}, expected {tuple(expected[name].shape)}"
            raise CheckpointError(f"{weights.file}: does not fit the model: {name} is {shapes}")


def load_weights(model: PreTrainedModel, weights: Weights) -> None:
    """Load the weights of a run into a model.

    Raises:
        CheckpointError: names or shapes differ.
    """
    require_fit(model, weights)
    model.load_state_dict(weights.model, strict=False)  # not strict: a run with adapters saves only those
