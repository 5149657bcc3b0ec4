"""Choices of the next token (:data:`~.decoding.Choose`): a random one, or the most likely one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers import LogitsProcessor, TopKLogitsWarper, TopPLogitsWarper

from grit_lightning.rollout.noise import draw_tokens, without


@dataclass(frozen=True, slots=True)
class Draw:
    """Choice of a random token from the softmax of logits / temperature (:data:`~.decoding.Choose`).

    Attributes:
        temperature, top_k, top_p: as in :class:`Sampler`.
        banned: ids of tokens that are never chosen.
    """

    temperature: float
    top_k: int
    top_p: float
    banned: tuple[int, ...]

    def __call__(self, logits_N_V: Tensor, keys_N: Tensor, position: Tensor) -> Tensor:
        """Return the next token of each row, int64, shape (N,)."""
        truncating = self._truncating()
        if not truncating:
            return draw_tokens(logits_N_V, keys_N, position, temperature=self.temperature, banned=self.banned)
        scores_N_V = without(logits_N_V, self.banned).div_(self.temperature)
        for truncate in truncating:
            scores_N_V = truncate(None, scores_N_V)
        return draw_tokens(scores_N_V, keys_N, position, temperature=1.0, banned=())

    def logprobs(self, logits_N_V: Tensor, token_N: Tensor) -> Tensor:
        """Return log π of tokens, shape (N,), as :class:`~grit_lightning.model.policy.Policy` computes it.

        The distribution is the softmax of logits / temperature over the tokens that are not banned, before ``top_k``
        and ``top_p``.

        Args:
            logits_N_V: logits, float32; unchanged.
            token_N: a token of each row.
        """
        scores_N_V = without(logits_N_V / self.temperature, self.banned)
        return scores_N_V.gather(1, token_N[:, None]).squeeze(1) - scores_N_V.logsumexp(dim=1)

    def _truncating(self) -> list[LogitsProcessor]:
        processors: list[LogitsProcessor] = []
        if self.top_k > 0:
            processors.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1:
            processors.append(TopPLogitsWarper(self.top_p))
        return processors


@dataclass(frozen=True, slots=True)
class Greedy:
    """Choice of the most likely token (:data:`~.decoding.Choose`).

    Attributes:
        banned: ids of tokens that are never chosen.
    """

    banned: tuple[int, ...]

    def __call__(self, logits_N_V: Tensor, keys_N: Tensor, position: Tensor) -> Tensor:
        """Return the next token of each row, int64, shape (N,)."""
        return without(logits_N_V, self.banned).argmax(dim=-1)
