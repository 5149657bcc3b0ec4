"""Adapters merged into the weights for the time of a rollout, so that a decoding step has no kernels for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from grit_lightning.model.adapters import TRAINED, adapted

_ORIGINALS: WeakKeyDictionary[nn.Module, torch.Tensor] = WeakKeyDictionary()
"""Weights without adapters on the host, by layer. They never change."""


@contextmanager
def merged(model: PreTrainedModel) -> Iterator[None]:
    """Add the trained adapters to the weights while the block runs; afterwards the weights are the same bits as before.

    A layer then takes one matrix product in place of three. Sums are rounded to the dtype of the weights. The weights
    without adapters are copied to the host at the first call, and from there back, because a subtraction would not
    restore them. Layers with quantized weights keep their adapters. Blocks may be nested.
    """
    layers = [model.get_submodule(name) for name in adapted(model)]
    weights = {layer: layer.get_base_layer().weight for layer in layers if isinstance(layer, BaseTunerLayer)}
    whole = all(weight.is_floating_point() for weight in weights.values())
    if not weights or not whole or any(layer.disable_adapters for layer in weights):
        yield
        return
    for layer, weight in weights.items():
        if layer not in _ORIGINALS:
            _ORIGINALS[layer] = weight.detach().to("cpu", copy=True)
            if weight.is_cuda:
                _ORIGINALS[layer] = _ORIGINALS[layer].pin_memory()
    try:
        with torch.no_grad():
            for layer, weight in weights.items():
                delta = layer.get_delta_weight(TRAINED)
                weight.copy_(weight.float() + delta.float())
        model.disable_adapters()
        yield
    finally:
        model.enable_adapters()
        model.set_adapter(TRAINED)
        with torch.no_grad():
            for layer, weight in weights.items():
                weight.copy_(_ORIGINALS[layer], non_blocking=True)
