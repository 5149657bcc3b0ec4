"""What a run made of its model: the policy's weights in a checkpoint, and a model that holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from grit_lightning.errors import CheckpointError
from grit_lightning.model.adapters import saved_names
from grit_lightning.training.distributed import require_same_names
from grit_lightning.training.policy_module import POLICY_PREFIX


class Weights(NamedTuple):
    """Of a checkpoint.

    Attributes:
        file: the checkpoint.
        step: optimizer steps done in it.
        model: the policy's weights by their names in the model.
    """

    file: Path
    step: int
    model: dict[str, torch.Tensor]


def read_weights(file: Path) -> Weights:
    """The policy's weights in a checkpoint, on the CPU.

    Raises:
        CheckpointError: it is one of something else.
    """
    checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    state: dict[str, torch.Tensor] = checkpoint.get("state_dict", {})
    model = {name.removeprefix(POLICY_PREFIX): value for name, value in state.items() if name.startswith(POLICY_PREFIX)}
    if not model:
        raise CheckpointError(f"{file}: holds no weights of a policy, expected a checkpoint of this application")
    return Weights(file, checkpoint["global_step"], model)


def require_fit(model: PreTrainedModel, weights: Weights) -> None:
    """Refuse the weights of another model.

    Args:
        model: on any device; ``meta`` will do.
        weights: of a run.

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
    """Put the weights of a run into its model.

    Raises:
        CheckpointError: they are those of another model.
    """
    require_fit(model, weights)
    model.load_state_dict(weights.model, strict=False)  # beneath adapters, the model is the checkpoint's
