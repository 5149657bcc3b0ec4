"""Lower bounds ("floors") on the time of a training step.

One floor is the number of operations at the rate of a matrix product, the other the number of bytes read at the
bandwidth of a copy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from grit_lightning.model.backbones.pretrained import PretrainedBackbone
from steps.sizes import Size


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """Sizes of a model that determine its operations and memory traffic.

    Attributes:
        language: number of weights in the matrices of the language model's layers.
        vision: number of weights in the matrices of vision tower and projector.
        head: number of weights of the LM head.
        parameters: number of all parameters; tied ones count once.
        layers: number of layers of the language model.
        width: number of values of all query heads at one position.
        cached: number of cached key and value entries per position, over all layers.
        prompt: tokens of a prompt.
    """

    language: int
    vision: int
    head: int
    parameters: int
    layers: int
    width: int
    cached: int
    prompt: int

    @classmethod
    def of(cls, backbone: PretrainedBackbone, prompt: int) -> Model:
        """Return the sizes of a backbone's model, without loading its weights."""
        model = backbone.outline()
        text = model.config.get_text_config()
        matrices = {name: layer.weight.numel() for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
        head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return cls(
            language=sum(count for name, count in matrices.items() if "language_model" in name),
            vision=sum(count for name, count in matrices.items() if "visual" in name),
            head=matrices["lm_head"],
            parameters=sum(value.numel() for value in model.parameters()),
            layers=text.num_hidden_layers,
            width=text.num_attention_heads * head_size,
            cached=2 * text.num_key_value_heads * head_size * text.num_hidden_layers,
            prompt=prompt,
        )


def operations(size: Size, model: Model) -> dict[str, float]:
    """Return the minimal number of floating-point operations of each phase; a multiply-add counts as two.

    Each phase computes a prompt and its image once per group, a backward pass costs twice its forward pass, and nothing
    is recomputed. The attention of the vision tower is left out, as it works within windows.
    """
    completion = size.generations * size.new_tokens
    vision = 2 * model.vision * size.image_tokens * 4
    prompt = 2 * model.language * model.prompt + 2 * model.width * model.layers * model.prompt**2
    seen = model.prompt + size.new_tokens / 2
    completions = completion * (2 * (model.language + model.head) + 4 * model.width * model.layers * seen)
    forward = size.prompts * (vision + prompt + completions)
    return {"rollout": forward, "reference": forward, "update": 3 * forward}


def decode_bytes(size: Size, model: Model) -> float:
    """Return the minimal number of bytes read while completions are decoded.

    Each decoding step reads the weights and the key-value cache, with the cache of a prompt shared by its group.
    """
    width = getattr(torch, size.dtype).itemsize
    weights = model.language + model.head
    cache = size.prompts * (model.prompt + size.generations * size.new_tokens / 2) * model.cached
    return width * size.new_tokens * (weights + cache)


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


def copy_bandwidth(device: torch.device) -> float:
    """Return the bytes per second that a copy reads and writes."""
    source = torch.ones(2**30 if device.type == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds_of(lambda: target.copy_(source), device)


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the floating-point operations per second of a large matrix product."""
    side = 8192 if device.type == "cuda" else 1536
    first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / seconds_of(lambda: first @ second, device)


def rates(device: torch.device, dtype: str) -> dict[str, float]:
    """Return copy bandwidth in GB/s and matrix product rate in GFLOP/s."""
    return {
        "copy_gb_s": copy_bandwidth(device) / 1e9,
        "product_gflop_s": product_rate(device, getattr(torch, dtype)) / 1e9,
    }


def floors(size: Size, model: Model, rate: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return GFLOP, GB read while decoding, and the seconds that each takes at the measured rates, by phase."""
    counted = operations(size, model)
    read = {"rollout": decode_bytes(size, model)}
    return {
        phase: {
            "gflop": count / 1e9,
            "gb": read.get(phase, 0.0) / 1e9,
            "operations_s": count / 1e9 / rate["product_gflop_s"],
            "bytes_s": read.get(phase, 0.0) / 1e9 / rate["copy_gb_s"],
        }
        for phase, count in counted.items()
    }


def floor_table(phases: Mapping[str, float], bounds: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Return table rows: seconds of each phase, both floors, and the larger floor as a share of the seconds."""
    rows = [["", "s", "GFLOP", "floor by operations, s", "GB read", "floor by bytes, s", "of the larger floor"]]
    rows.append(["---", *["--:"] * 6])
    for phase, bound in bounds.items():
        floor = max(bound["operations_s"], bound["bytes_s"])
        rows.append(
            [
                phase, f"{phases[phase]:.2f}", f"{bound['gflop']:.0f}", f"{bound['operations_s']:.2f}",
                f"{bound['gb']:.1f}" if bound["gb"] else "", f"{bound['bytes_s']:.2f}" if bound["gb"] else "",
                f"{floor / phases[phase]:.0%}",
            ]
        )  # fmt: skip
    return rows
