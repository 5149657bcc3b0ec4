"""Lower bounds ("floors") on the phases of a measured step, from ``grit_lightning.training.step_time``."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from grit_lightning.model.backbones.pretrained import PretrainedBackbone
from grit_lightning.training.memory import StepSize
from grit_lightning.training.step_time import ModelSize, Rates, decode_bytes, operations
from steps.lengths import mean_length
from steps.sizes import Size


def model_size(backbone: PretrainedBackbone) -> ModelSize:
    """Return the sizes of a backbone's model, without loading its weights."""
    return ModelSize.of(backbone.outline())


def step_size(size: Size, prompt_tokens: int) -> StepSize:
    """Return the sizes of a measured step; completions of unequal lengths count with their mean length."""
    return StepSize(
        prompts=size.prompts,
        generations=size.generations,
        prompt_tokens=prompt_tokens,
        image_tokens=size.image_tokens,
        new_tokens=round(mean_length(size)),
        max_sequences=size.prompts * size.generations,
        max_tokens_per_pass=size.pass_tokens,
        logits_chunk=size.logits_chunk,
    )


def floors(size: Size, model: ModelSize, prompt_tokens: int, rates: Rates) -> dict[str, dict[str, float]]:
    """Return GFLOP, GB read while decoding, and the seconds that each takes at the measured rates, by phase.

    The floor of the update counts no recomputation.
    """
    step = step_size(size, prompt_tokens)
    read = {"rollout": decode_bytes(step, model, getattr(torch, size.dtype).itemsize)}
    return {
        phase: {
            "gflop": count / 1e9,
            "gb": read.get(phase, 0.0) / 1e9,
            "operations_s": count / rates.products,
            "bytes_s": read.get(phase, 0.0) / rates.copies,
        }
        for phase, count in operations(step, model, recompute=False).items()
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


def rates_sentence(rates: Rates, dtype: str) -> str:
    """Return a sentence about the measured rates."""
    copies, products = f"{rates.copies / 1e9:.0f} GB/s", f"{rates.products / 1e12:.2f} TFLOP/s"
    return f"A copy moves {copies}, a {dtype} matrix product runs at {products}."
