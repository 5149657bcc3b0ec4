"""The sampling noise as a logits processor, to compare rollouts with plain ``generate``."""

from __future__ import annotations

from torch import Tensor
from transformers import LogitsProcessor

from grit_lightning.rollout.noise import gumbel_noise


class GumbelNoise(LogitsProcessor):
    """Adds :func:`gumbel_noise` to logits after temperature, top-k and top-p.

    Greedy decoding of the result samples from the softmax of the logits.

    Args:
        keys_B: :func:`sequence_key` of each row, int64.
        prompt_length: columns of ``input_ids`` before the first generated token.
    """

    def __init__(self, keys_B: Tensor, prompt_length: int) -> None:
        self.keys_B = keys_B
        self.prompt_length = prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the noisy logits, shape (B, V)."""
        position = input_ids.shape[1] - self.prompt_length
        return scores + gumbel_noise(self.keys_B, position, scores.shape[1])
