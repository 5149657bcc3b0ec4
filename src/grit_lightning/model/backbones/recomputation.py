"""Recomputation of activations in the backward pass (gradient checkpointing, arXiv 1604.06174)."""

from __future__ import annotations

from transformers import PreTrainedModel

from grit_lightning.model.adapters import has_adapters


def recompute_activations(model: PreTrainedModel) -> None:
    """Make each layer keep only its input for the backward pass, and compute its activations again.

    ``transformers`` also makes the input of a model with adapters require a gradient, which reentrant checkpointing
    would need. Here it would only make a frozen vision tower keep its inputs and compute gradients that nothing uses.
    """
    # The second name is that of transformers below 5.23, where the first does not exist yet.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    if has_adapters(model):
        model.disable_input_require_grads()
