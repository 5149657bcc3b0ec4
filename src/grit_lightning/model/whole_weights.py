"""The weights of a policy as an exported checkpoint would hold them: adapters merged, shards gathered."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from grit_lightning.model.adapters import TRAINED, adapted

_BASE, _ADAPTERS = ".base_layer.", (".lora_A", ".lora_B")
"""PEFT's names of an adapted layer's own parameters, and of its adapters', which have no place in a checkpoint."""


def full_value(value: Tensor) -> Tensor:
    """Return the full tensor of a sharded one (a collective operation), and any other tensor unchanged."""
    return value.full_tensor() if isinstance(value, DTensor) else value


@torch.no_grad()
def whole_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yield name and value of each weight, one at a time, so that no more than one is gathered or merged at once.

    Tied weights are yielded once. The values of a model that is neither sharded nor has adapters are the parameters
    themselves, not copies. With a sharded model each value is a collective operation: all ranks must take all of them.

    Args:
        model: the policy. Its weights are not quantized.
    """
    layers = set(adapted(model))
    for name, value in model.named_parameters():
        layer, _, last = name.rpartition(_BASE)
        if layer in layers and last == "weight":
            whole = full_value(value.detach())
            yield f"{layer}.weight", (whole.float() + _update(model.get_submodule(layer))).to(whole.dtype)
        elif layer in layers:
            yield f"{layer}.{last}", full_value(value.detach())
        elif not any(f"{part}." in name for part in _ADAPTERS):
            yield name, full_value(value.detach())


def _update(layer: torch.nn.Module) -> Tensor:
    """Return what the trained adapter adds to a layer's weight, α / r · B A, in float32 (LoRA, arXiv 2106.09685)."""
    assert isinstance(layer, LoraLayer)
    down_R_D, up_D_R = (full_value(part[TRAINED].weight).float() for part in (layer.lora_A, layer.lora_B))
    return up_D_R @ down_R_D * layer.scaling[TRAINED]
