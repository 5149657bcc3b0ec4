"""Lower bounds ("floors") on the seconds of a training step: counted work at the measured rates of a device.

One floor is the number of floating-point operations at the rate of a large matrix product, the other, for decoding, the
number of bytes read at the bandwidth of a copy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from grit_lightning.training.memory import PATCHES, StepSize, head_dim


class Rates(NamedTuple):
    """Measured rates of a device.

    Attributes:
        products: floating-point operations per second of a large matrix product.
        copies: bytes per second that a copy reads and writes.
    """

    products: float
    copies: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSize:
    """Sizes of a model that determine its operations and memory traffic.

    Attributes:
        language: number of weights in the matrices of the language model's layers.
        vision: number of weights in the matrices of vision tower and projector.
        head: number of weights of the LM head.
        parameters: number of all parameters; tied ones count once.
        layers: number of layers of the language model.
        width: number of values of all query heads at one position.
        cached: number of values of cached keys and values per position, over all layers.
    """

    language: int
    vision: int
    head: int
    parameters: int
    layers: int
    width: int
    cached: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> ModelSize:
        """Return the sizes of a model, without its adapters; its device may be ``meta``."""
        text, head = model.config.get_text_config(), model.get_output_embeddings()
        matrices = {
            name: layer.weight.numel()
            for name, layer in model.named_modules()
            if isinstance(layer, nn.Linear) and layer is not head and ".lora_" not in name
        }
        language = sum(count for name, count in matrices.items() if "language_model" in name)
        return cls(
            language=language,
            vision=sum(matrices.values()) - language,
            head=head.weight.numel(),
            parameters=sum(value.numel() for value in model.parameters()),
            layers=text.num_hidden_layers,
            width=text.num_attention_heads * head_dim(text),
            cached=2 * text.num_key_value_heads * head_dim(text) * text.num_hidden_layers,
        )


def operations(step: StepSize, model: ModelSize, *, recompute: bool) -> dict[str, float]:
    """Return the floating-point operations of each phase; a multiply-add counts as two.

    Each phase computes a prompt and its image once per group, and a backward pass costs twice its forward pass. The
    attention of the vision tower is left out, as it works within windows.

    Args:
        step: size of a step; all completions have ``new_tokens`` tokens.
        model: sizes of the model.
        recompute: whether the update computes activations again (gradient checkpointing).
    """
    completions = step.generations * step.new_tokens
    vision = 2 * model.vision * step.image_tokens * PATCHES
    prompt = 2 * model.language * step.prompt_tokens + 2 * model.width * model.layers * step.prompt_tokens**2
    seen = step.prompt_tokens + step.new_tokens / 2
    written = completions * (2 * (model.language + model.head) + 4 * model.width * model.layers * seen)
    forward = step.prompts * (vision + prompt + written)
    return {"rollout": forward, "reference": forward, "update": (3 + recompute) * forward}


def decode_bytes(step: StepSize, model: ModelSize, width: int) -> float:
    """Return the bytes read while completions are decoded.

    Each decoding step reads the weights and the cache of keys and values; a group shares the cache of its prompt.

    Args:
        step: size of a step; all completions have ``new_tokens`` tokens.
        model: sizes of the model.
        width: bytes of a weight and of a cached value.
    """
    batches = -(-step.prompts * step.generations // step.sequences)
    cache = step.prompts * (step.prompt_tokens + step.generations * step.new_tokens / 2) * model.cached
    return width * step.new_tokens * (batches * (model.language + model.head) + cache)


def floors(
    step: StepSize, model: ModelSize, rates: Rates, *, width: int, reference: bool, recompute: bool
) -> dict[str, float]:
    """Return the least seconds of each phase: the larger of its two floors.

    Args:
        step: size of a step.
        model: sizes of the model.
        rates: rates of the device.
        width: bytes of a weight and of a cached value.
        reference: whether a reference computes log-probabilities.
        recompute: whether the update computes activations again.
    """
    seconds = {phase: count / rates.products for phase, count in operations(step, model, recompute=recompute).items()}
    seconds["rollout"] = max(seconds["rollout"], decode_bytes(step, model, width) / rates.copies)
    return seconds if reference else {phase: value for phase, value in seconds.items() if phase != "reference"}


def measure(device: torch.device, dtype: torch.dtype) -> Rates:
    """Measure the rates of a device, in a second or less."""
    side = 8192 if device.type == "cuda" else 1024
    first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.ones(2**30 if device.type == "cuda" else 2**25, device=device)
    target = torch.empty_like(source)
    return Rates(
        products=2 * side**3 / seconds_of(lambda: first @ second, device),
        copies=2 * source.nbytes / seconds_of(lambda: target.copy_(source), device),
    )


def seconds_of(function: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Return the seconds of the fastest of ``repeats`` calls, after one call to warm up."""
    best = float("inf")
    for repeat in range(repeats + 1):
        _wait(device)
        start = time.perf_counter()
        function()
        _wait(device)
        best = min(best, time.perf_counter() - start) if repeat else best
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
