"""Estimate of the memory that a run needs per device before weights are loaded, and the measured peak of a process.

Memory use peaks twice in a step: in the rollout (weights and KV cache) and in the update (weights, gradients and
activations). Gradients stay allocated from the first backward pass until the next update, through the next rollout.
"""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # not imported at run time: a process without torch can read its own peak
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

FLOAT32 = 4
"""Bytes of a float32 value."""

BITS = 8
"""Bits of a byte."""

HELD = ("weights", "reference", "gradients", "optimizer", "bf16 copies of weights")
"""Parts of the estimate that stay allocated throughout a step."""

LOGIT_BYTES = 24
"""Peak bytes per logit of a chunk, in the backward pass of the checkpointed LM head.

They hold the logits, their float32 copy divided by the temperature, the log-probabilities, and the gradient of each.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSize:
    """Size of a training step on one device.

    Attributes:
        prompts: prompts per step.
        generations: completions per prompt; 1 in supervised fine-tuning.
        prompt_tokens: tokens of the longest prompt, image tokens included.
        image_tokens: tokens of the largest image.
        new_tokens: maximum tokens of a completion.
        max_sequences: maximum number of completions decoded at once.
        max_tokens_per_pass: maximum positions in one forward and backward pass.
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
        """Positions of the longest packed row: a prompt with as many of its completions as fit into a pass."""
        shortest = self.prompt_tokens + self.new_tokens
        return max(shortest, min(self.max_tokens_per_pass, self.prompt_tokens + self.generations * self.new_tokens))

    @property
    def rows(self) -> int:
        """Number of rows in the largest pass."""
        return max(1, min(self.prompts, self.max_tokens_per_pass // self.row_tokens))

    @property
    def sequences(self) -> int:
        """Number of completions decoded at once; groups are never split, so one group may exceed ``max_sequences``."""
        return min(self.prompts, max(1, self.max_sequences // self.generations)) * self.generations


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """Options of a run that determine its memory use.

    Attributes:
        reference: whether a frozen copy of the model stays on the device.
        optimizer_values: float32 values of optimizer state per trained parameter; 2 for AdamW.
        bf16: whether computation is in bf16 (precision ``bf16-mixed``).
        gradient_checkpointing: whether activations within layers are recomputed in the backward pass.
        shards: number of devices over which weights, gradients and optimizer state are sharded (FSDP); 1 if each
            device holds a full copy.
        weight_bits: bits per weight, by parameter name, of parameters stored in fewer bits than their dtype has.
    """

    reference: bool
    optimizer_values: float
    bf16: bool
    gradient_checkpointing: bool
    shards: int
    weight_bits: Mapping[str, float] = field(default_factory=dict)


def estimate(model: PreTrainedModel, step: StepSize, setup: Setup) -> dict[str, float]:
    """Return bytes per device by part, and ``peak``: the larger of the sums during a rollout and during an update.

    Args:
        model: the model, adapters included; its device may be ``meta``.
        step: size of a step.
        setup: options that determine memory use.
    """
    import torch

    weights = sum(
        value.numel() * setup.weight_bits.get(name, BITS * value.element_size()) / BITS
        for name, value in model.named_parameters()
    )
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    # Autocast caches a bf16 copy of float32 weights during a pass.
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
    # Rollouts gather a sharded model, so that each device holds all of it.
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
    # The cache grows by a copy, one layer at a time: for a moment the memory of that layer is allocated twice.
    return positions * values * (text.num_hidden_layers + 1) * _width(setup)


def _activations(config: PreTrainedConfig, step: StepSize, setup: Setup) -> float:
    """Return the bytes kept for the backward pass by language model and vision tower, attention mask included."""
    text, vision = config.get_text_config(), config.vision_config
    positions = step.rows * step.row_tokens
    patches = step.rows * step.image_tokens * 4  # 2 × 2 patches make one image token in all supported model families
    width = _width(setup)
    mask = positions * step.row_tokens * (1 + width)
    return (
        _layers(positions, text.num_hidden_layers, text.hidden_size, text.intermediate_size, setup)
        + _layers(patches, depth(vision), vision.hidden_size, vision.intermediate_size, setup)
        + mask
    )


def _layers(positions: int, layers: int, hidden: int, intermediate: int, setup: Setup) -> float:
    """Return the bytes that a stack of transformer layers keeps for the backward pass.

    With gradient checkpointing each layer keeps only its float32 input, and the activations within a layer exist for
    one layer at a time, while they are recomputed.
    """
    # float32, 4 × hidden: residual stream and inputs of the norms. 7 × hidden: queries, keys, values, rotated queries
    # and keys, attention output and its projection. 4 × intermediate: the MLP's gate projection, its activation, the up
    # projection, and their product.
    unfolded = positions * (4 * hidden * FLOAT32 + (7 * hidden + 4 * intermediate) * _width(setup))
    if not setup.gradient_checkpointing:
        return layers * unfolded
    return layers * positions * hidden * FLOAT32 + unfolded


def _width(setup: Setup) -> int:
    return 2 if setup.bf16 else FLOAT32


def head_dim(text: PreTrainedConfig) -> int:
    """Return the dimension of one attention head."""
    return getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads


def depth(vision: PreTrainedConfig) -> int:
    """Return the number of layers of a vision tower."""
    return getattr(vision, "depth", None) or vision.num_hidden_layers


def peak_memory_gib(device: torch.device) -> float:
    """Return the peak memory of this process on ``device`` since its start, in GiB (2³⁰ bytes).

    On CUDA it is the peak of memory allocated to tensors by PyTorch. ``nvidia-smi`` shows more: the memory that
    PyTorch's allocator reserves. On other devices it is :func:`peak_rss_gib`.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return peak_rss_gib()


def peak_rss_gib() -> float:
    """Return the peak resident set size of this process, without its children, in GiB (2³⁰ bytes)."""
    try:
        # VmHWM is the peak resident set size, see proc_pid_status(5). ru_maxrss is wrong on Linux: it starts at the
        # peak of the parent process, so a worker would report the memory of its launcher.
        found = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found[1]) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # bytes on macOS, KiB elsewhere
