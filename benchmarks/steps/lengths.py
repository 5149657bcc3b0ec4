"""Forced lengths of completions: equal ones, as both sides of a comparison can have, or like real ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from grit_lightning.rollout import engine
from grit_lightning.types import FinishReason
from steps.sizes import Size

SPREAD = 0.5
"""Standard deviation of the logarithm of real-like lengths."""


def lengths(size: Size) -> tuple[int, ...]:
    """Return the lengths of a step's completions, by slot and sample, always the same.

    Unequal ones follow a log-normal distribution, as lengths of reasoning do: between a tenth of ``new_tokens`` and all
    of it, with a median of 0.3.
    """
    count = size.prompts * size.generations
    if not size.varied:
        return (size.new_tokens,) * count
    normal = torch.randn(count, generator=torch.Generator().manual_seed(0))
    drawn = size.new_tokens * 0.3 * (SPREAD * normal).exp()
    return tuple(drawn.round().clamp(max(1, size.new_tokens // 10), size.new_tokens).int().tolist())


def mean_length(size: Size) -> float:
    """Return the mean length of the completions of a step."""
    return sum(lengths(size)) / len(lengths(size))


@dataclass(frozen=True)
class Forced:
    """Rule for the ends of completions: given lengths, whatever the tokens are; a state is what is left."""

    left: tuple[int, ...]

    def start(self, count: int, device: torch.device) -> Tensor:
        """Return the lengths of the first ``count`` completions, int64."""
        return torch.tensor(self.left[:count], device=device)

    def next(self, state_N: Tensor, token_N: Tensor) -> Tensor:
        """Return the states after one more token of each completion."""
        return (state_N - 1).clamp(min=0)

    def over(self, state_N: Tensor) -> Tensor:
        """Tell which completions are over, bool, shape (N,)."""
        return state_N == 0

    def reasons(self, states: Sequence[int]) -> list[FinishReason]:
        """Return why completions ended."""
        return ["stop" if state == 0 else "length" for state in states]


@contextmanager
def forced(size: Size) -> Iterator[None]:
    """Give the completions of rollouts the lengths of a size while the block runs."""
    original = engine.stop_automaton
    engine.stop_automaton = lambda *_: Forced(lengths(size))  # type: ignore[assignment,return-value]
    try:
        yield
    finally:
        engine.stop_automaton = original
