"""Estimate of the memory that a run needs per device before weights are loaded, and the measured peak of a process.

Memory use peaks twice in a step: in the rollout (weights, optimizer state and cache) and in the update (gradients and
activations as well). Gradients are freed by the update. The cache of keys and values keeps its memory from step to step
on CUDA, because recorded graphs refer to it.
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
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

FLOAT32 = 4
"""Bytes of a float32 value."""

BITS = 8
"""Bits of a byte."""

PATCHES = 4
"""Patches of an image token: 2 × 2 in all supported model families."""


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
    def positions(self) -> int:
        """Positions of the largest pass: ``max_tokens_per_pass``, or one completion with its prompt if it is longer."""
        all_of_them = self.prompts * (self.prompt_tokens + self.generations * self.new_tokens)
        return max(self.prompt_tokens + self.new_tokens, min(self.max_tokens_per_pass, all_of_them))

    @property
    def images(self) -> int:
        """Images of a pass of short completions, which has most."""
        return max(1, min(self.prompts, self.positions // self.prompt_tokens))

    @property
    def sequences(self) -> int:
        """Number of completions decoded at once; groups are never split, so one group may exceed ``max_sequences``."""
        return min(self.prompts, max(1, self.max_sequences // self.generations)) * self.generations


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """Options of a run that determine its memory use.

    Attributes:
        reference: whether a frozen copy of the model stays on the device.
        state_bytes: bytes of optimizer state per trained parameter, such as 8 for AdamW in float32.
        autocast: whether float32 weights are computed with in bf16 (precision ``bf16-mixed``).
        gradient_checkpointing: whether activations within layers are recomputed in the backward pass.
        shards: number of devices over which weights, gradients and optimizer state are sharded (FSDP); 1 if each
            device holds a full copy.
        weight_bits: bits per weight, by parameter name, of parameters stored in fewer bits than their dtype has.
        engine: bytes of an engine that samples in place of the policy; 0 if the policy samples.
        engine_sleeps: whether that engine frees its memory before the update.
    """

    reference: bool
    state_bytes: float
    autocast: bool
    gradient_checkpointing: bool
    shards: int
    weight_bits: Mapping[str, float] = field(default_factory=dict)
    engine: float = 0.0
    engine_sleeps: bool = True


def estimate(model: PreTrainedModel, step: StepSize, setup: Setup) -> dict[str, float]:
    """Return bytes per device by part, and ``peak``: the larger of the sums during a rollout and during an update.

    Args:
        model: the model, adapters included; its device may be ``meta``.
        step: size of a step.
        setup: options that determine memory use.
    """
    weights = sum(
        value.numel() * setup.weight_bits.get(name, BITS * value.element_size()) / BITS
        for name, value in model.named_parameters()
    )
    trained = [value for value in model.parameters() if value.requires_grad]
    head = model.get_output_embeddings().weight
    width = 2 if setup.autocast else head.element_size()
    # Autocast makes a bf16 copy of a float32 weight at each use. Those of one pass live until its backward pass.
    wide = (value for name, value in model.named_parameters() if name not in setup.weight_bits)
    casts = sum(value.numel() * 2 for value in wide if value.element_size() == FLOAT32) * setup.autocast
    parts = {
        "weights": weights / setup.shards,
        "reference": weights / setup.shards * setup.reference,
        "optimizer": sum(value.numel() for value in trained) * setup.state_bytes / setup.shards,
        "gradients": sum(value.nbytes for value in trained) / setup.shards,
        "bf16 copies of weights": casts / setup.shards,
        "cache of keys and values": _cache(model.config, step, width),
        "activations": _inputs(model, step, setup, width),
        "largest layer or logits": max(_layer(model.config, step, width), _head(head, step, width, setup.shards)),
        "prefill and sampling": _prefill(model.config, step, width),
        "engine": setup.engine,
    }
    if setup.engine:  # which has its own cache, and takes gathered weights one by one
        parts |= {"cache of keys and values": 0.0, "prefill and sampling": 0.0}
    # Rollouts gather all of a sharded model on each device; updates its embedding and LM head, and layers one by one.
    whole = 0.0 if setup.engine else (weights + casts) * (1 - 1 / setup.shards)
    root = head.numel() * width * (1 - 1 / setup.shards)
    held = sum(parts[name] for name in ("weights", "reference", "optimizer", "cache of keys and values"))
    held += parts["bf16 copies of weights"]
    rollout = held + whole + parts["prefill and sampling"] + setup.engine
    held += setup.engine * (not setup.engine_sleeps)
    update = held + root + sum(parts[name] for name in ("gradients", "activations", "largest layer or logits"))
    return {**parts, "peak": max(rollout, update)}


def _cache(config: PreTrainedConfig, step: StepSize, width: int) -> float:
    """Return the bytes of keys and values: those of a prompt once, those of each completion at its full length."""
    text = config.get_text_config()
    positions = step.sequences // step.generations * step.prompt_tokens + step.sequences * step.new_tokens
    return positions * 2 * text.num_key_value_heads * head_dim(text) * text.num_hidden_layers * width


def _inputs(model: PreTrainedModel, step: StepSize, setup: Setup, width: int) -> float:
    """Return the bytes that language model and vision tower keep for the backward pass of the largest pass.

    With gradient checkpointing a layer keeps only its input. A part below all trained parameters keeps nothing.
    """
    text, vision = model.config.get_text_config(), model.config.vision_config
    total = 0.0
    for config, layers, positions in (
        (text, text.num_hidden_layers, step.positions),
        (vision, depth(vision) * _is_trained(model, "image"), step.images * step.image_tokens * PATCHES),
    ):
        kept = config.hidden_size * width if setup.gradient_checkpointing else _kept(config, width)
        total += positions * layers * kept
    # Around the layers: embeddings, the last norm in float32, hidden states that predict tokens and their gradients.
    return total + step.positions * text.hidden_size * (2 * FLOAT32 + 2 * width)


def _kept(config: PreTrainedConfig, width: int) -> float:
    """Return the bytes that a layer keeps per position for the backward pass, in the Qwen2.5 architecture.

    They are the float32 inputs of its two norms, 6.5 further tensors of the hidden size, and 4 of the MLP's.
    """
    return config.hidden_size * (2 * FLOAT32 + 6.5 * width) + 4 * config.intermediate_size * width


def _is_trained(model: PreTrainedModel, modality: str) -> bool:
    return any(value.requires_grad for value in model.get_encoder(modality).parameters())


def _layer(config: PreTrainedConfig, step: StepSize, width: int) -> float:
    """Return the bytes of one layer of the language model while it is computed again and differentiated.

    They are those that a layer keeps, and the gradients of two tensors of the MLP and of 1.5 of the hidden size.
    """
    text = config.get_text_config()
    gradients = (1.5 * text.hidden_size + 2 * text.intermediate_size) * width
    return step.positions * (_kept(text, width) + gradients)


def _head(weight: Tensor, step: StepSize, width: int, shards: int) -> float:
    """Return the bytes of the LM head's backward pass.

    They are a chunk's scores and log-probabilities in float32, the gradient of the scores of the chunk before, and the
    difference between the float32 sum of the weight's gradient and the gradient itself, which is counted elsewhere.
    """
    chunk = min(step.logits_chunk, step.positions) * weight.shape[0]
    total = weight.numel() * (FLOAT32 - weight.element_size() / shards) * weight.requires_grad
    return chunk * (2 * FLOAT32 + width) + total


def _prefill(config: PreTrainedConfig, step: StepSize, width: int) -> float:
    """Return the bytes of one layer of the prompts, or those of sampling one token of each completion."""
    text, prompts = config.get_text_config(), step.sequences // step.generations
    layer = text.hidden_size * (FLOAT32 + 4 * width) + 3 * text.intermediate_size * width
    return max(prompts * step.prompt_tokens * layer, step.sequences * text.vocab_size * 2 * FLOAT32)


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
