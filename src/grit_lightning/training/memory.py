"""How much memory a run will need on each device, from the sizes of its model and of a step, before anything is loaded.

A step has two high points: rollouts, where the cache of keys and values stands beside the weights, and the update,
where gradients and activations do. Gradients live from the first backward pass until the next step begins.
"""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # neither is imported to read a process's peak
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

FLOAT32 = 4

BITS = 8

HELD = ("weights", "reference", "gradients", "optimizer", "bf16 copies of weights")
"""Parts that stand through a whole step."""

# Bytes for each logit of a chunk at the worst moment, in the backward pass of the checkpointed head: the logits, their
# float32 copy over the temperature, the log-probabilities, and the gradients of each.
LOGIT_BYTES = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSize:
    """How large a training step is on one device.

    Attributes:
        prompts: prompts of a step.
        generations: completions of each; 1 in supervised fine-tuning.
        prompt_tokens: of the longest prompt, image tokens included.
        image_tokens: of the largest image.
        new_tokens: most tokens of a completion.
        max_sequences: completions decoded at once.
        max_tokens_per_pass: positions in one forward and backward pass.
        logits_chunk: completion tokens per pass through the LM head.
    """

    prompts: int
    generations: int
    prompt_tokens: int
    image_tokens: int
    new_tokens: int
    max_sequences: int
    max_tokens_per_pass: int
    logits_chunk: int

    @property
    def row_tokens(self) -> int:
        """Positions of the longest packed row: a prompt and as many of its completions as a pass takes."""
        shortest = self.prompt_tokens + self.new_tokens
        return max(shortest, min(self.max_tokens_per_pass, self.prompt_tokens + self.generations * self.new_tokens))

    @property
    def rows(self) -> int:
        """Rows of the largest pass."""
        return max(1, min(self.prompts, self.max_tokens_per_pass // self.row_tokens))

    @property
    def sequences(self) -> int:
        """Completions decoded at once: whole groups."""
        return min(self.prompts, max(1, self.max_sequences // self.generations)) * self.generations


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What is held, and how.

    Attributes:
        reference: whether a frozen copy of the model is held.
        optimizer_values: numbers the optimizer keeps for each trained parameter.
        bf16: whether arithmetic is bf16 (``bf16-mixed``).
        gradient_checkpointing: whether activations within layers are recomputed.
        shards: devices that weights, gradients and optimizer state are split over (FSDP); 1 for a copy on each.
        weight_bits: bits a weight takes, by parameter name, where that is less than its dtype's.
    """

    reference: bool
    optimizer_values: float
    bf16: bool
    gradient_checkpointing: bool
    shards: int
    weight_bits: Mapping[str, float] = field(default_factory=dict)


def estimate(model: PreTrainedModel, step: StepSize, setup: Setup) -> dict[str, float]:
    """Bytes by part, and ``peak``, the larger of a rollout's and an update's sum.

    Args:
        model: with its adapters, on any device; ``meta`` will do.
        step: how large a step is.
        setup: what is held.
    """
    import torch

    weights = sum(
        value.numel() * setup.weight_bits.get(name, BITS * value.element_size()) / BITS
        for name, value in model.named_parameters()
    )
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    # Autocast keeps a bf16 copy of float32 weights for the length of a pass.
    wide = (
        value
        for name, value in model.named_parameters()
        if value.dtype == torch.float32 and name not in setup.weight_bits
    )
    cast = sum(value.numel() for value in wide) * 2 * setup.bf16
    parts = {
        "weights": weights / setup.shards,
        "reference": weights / setup.shards * setup.reference,
        "gradients": trained * FLOAT32 / setup.shards,
        "optimizer": trained * FLOAT32 * setup.optimizer_values / setup.shards,
        "bf16 copies of weights": cast / setup.shards,
        "cache of keys and values": _cache(model.config, step, setup),
        "activations": _activations(model.config, step, setup),
        "logits": min(step.logits_chunk, step.rows * step.generations * step.new_tokens)
        * model.config.get_text_config().vocab_size
        * LOGIT_BYTES,
    }
    # While completions are generated a sharded model is held whole.
    whole = (weights + cast) * (1 - 1 / setup.shards)
    held = (
        parts["weights"]
        + parts["reference"]
        + parts["gradients"]
        + parts["optimizer"]
        + parts["bf16 copies of weights"]
    )
    rollout = held + whole + parts["cache of keys and values"]
    update = held + parts["activations"] + parts["logits"]
    return {**parts, "peak": max(rollout, update)}


def _cache(config: PreTrainedConfig, step: StepSize, setup: Setup) -> float:
    text = config.get_text_config()
    positions = step.sequences * (step.prompt_tokens + step.new_tokens)
    values = 2 * text.num_key_value_heads * head_dim(text)
    # Each new token's keys are appended to a layer's: that layer is there twice for a moment.
    return positions * values * (text.num_hidden_layers + 1) * _width(setup)


def _activations(config: PreTrainedConfig, step: StepSize, setup: Setup) -> float:
    """Of the language model and the vision tower, whichever layers keep for the backward pass."""
    text, vision = config.get_text_config(), config.vision_config
    positions = step.rows * step.row_tokens
    patches = step.rows * step.image_tokens * 4  # 2 × 2 patches make an image token, in all families
    width = _width(setup)
    mask = positions * step.row_tokens * (1 + width)
    return (
        _layers(positions, text.num_hidden_layers, text.hidden_size, text.intermediate_size, setup)
        + _layers(patches, depth(vision), vision.hidden_size, vision.intermediate_size, setup)
        + mask
    )


def _layers(positions: int, layers: int, hidden: int, intermediate: int, setup: Setup) -> float:
    """Checkpointed, each layer keeps its input, in the residual stream's float32, and one is unfolded at a time."""
    # Inputs of norms and the residual; queries, keys, values and their rotated copies, the attention's output and
    # projection; the gate, its activation, the other half, their product, and the result.
    unfolded = positions * (4 * hidden * FLOAT32 + (7 * hidden + 4 * intermediate) * _width(setup))
    if not setup.gradient_checkpointing:
        return layers * unfolded
    return layers * positions * hidden * FLOAT32 + unfolded


def _width(setup: Setup) -> int:
    return 2 if setup.bf16 else FLOAT32


def head_dim(text: PreTrainedConfig) -> int:
    """Values of one key."""
    return getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads


def depth(vision: PreTrainedConfig) -> int:
    """Layers of a vision tower."""
    return getattr(vision, "depth", None) or vision.num_hidden_layers


def peak_memory_gib(device: torch.device) -> float:
    """Peak memory since the process started where the model is, in GiB (2³⁰ bytes).

    On a CUDA device the largest sum of tensors that PyTorch held there at once; the allocator's reserve, which
    ``nvidia-smi`` shows, is larger. Elsewhere ``peak_rss_gib``.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return peak_rss_gib()


def peak_rss_gib() -> float:
    """The largest resident set of this process since it started, its children not counted, in GiB (2³⁰ bytes)."""
    try:
        # proc_pid_status(5). On Linux ru_maxrss would not do: it begins with the peak of the process that started this
        # one, so a worker would be charged for its launcher.
        found = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found[1]) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # bytes on macOS, KiB elsewhere
