"""Detection of the end of each completion and of its reason."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from transformers import (
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StopStringCriteria,
)

from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.types import FinishReason


@lru_cache(maxsize=4)
def _stop_criteria(tokenizer: PreTrainedTokenizerBase, stop: str) -> StopStringCriteria:
    # Cached, because the constructor reads the whole vocabulary. A large one takes a good part of a second.
    return StopStringCriteria(tokenizer, [stop])


class FinishRecorder(StoppingCriteria):
    """End each completion at the stop text or an end token, and record where and why it ended.

    Args:
        backbone: the backbone, for its tokenizer and end tokens.
        stop: text that ends a completion and is part of it.
        max_new_tokens: limit on the tokens of a completion.
    """

    def __init__(self, backbone: Backbone, stop: str, max_new_tokens: int) -> None:
        self.eos_token_id = torch.tensor(backbone.eos_token_ids)
        self.max_new_tokens = max_new_tokens
        self.stop_text = _stop_criteria(backbone.tokenizer, stop)
        self.length_B: Tensor | None = None
        self.stopped_B: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor | None, **kwargs: object) -> Tensor:
        """Return which rows are finished, bool, shape (B,)."""
        count = input_ids.shape[1]
        if self.length_B is None or self.stopped_B is None:
            self.length_B = torch.zeros(input_ids.shape[0], dtype=torch.long, device=input_ids.device)
            self.stopped_B = torch.zeros_like(self.length_B, dtype=torch.bool)
            self.eos_token_id = self.eos_token_id.to(input_ids.device)
        running_B = self.length_B == 0
        ended_B = torch.isin(input_ids[:, -1], self.eos_token_id)
        stopped_B = self.stop_text(input_ids, scores)
        self.stopped_B |= running_B & stopped_B
        self.length_B[running_B & (ended_B | stopped_B)] = count
        return self.length_B > 0

    def lengths(self) -> list[int]:
        """Return the number of sampled tokens of each row, including the token that ended it."""
        return [length or self.max_new_tokens for length in self._state()[0].tolist()]

    def reasons(self) -> list[FinishReason]:
        """Return the reason why each row ended."""
        lengths, stopped = (values.tolist() for values in self._state())
        return [
            "stop" if stop else "eos" if length else "length" for length, stop in zip(lengths, stopped, strict=True)
        ]

    def _state(self) -> tuple[Tensor, Tensor]:
        if self.length_B is None or self.stopped_B is None:
            raise RuntimeError("nothing was generated")
        return self.length_B, self.stopped_B
