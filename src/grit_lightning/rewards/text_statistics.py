"""Rewards from counts of words, tokens and characters."""

from __future__ import annotations

from collections.abc import Sequence

from grit_lightning.types import Completion, Sample


def repetition(
    sample: Sample, completion: Completion, *, size: float, word_ngram: int, token_ngram: int
) -> float | None:
    """Return ``size`` × (1 − w − t), from ``−size`` to ``size``, where w and t are shares of immediate repetitions.

    w is the number of positions at which ``word_ngram`` words are followed by the same ``word_ngram`` words, divided by
    n − ``word_ngram`` for n words. t is the same count for ``token_ngram`` tokens, divided by n − 2·``token_ngram`` + 1
    for n tokens. The two denominators differ because GRIT's published code does so.

    A completion with fewer than ``word_ngram`` words or fewer than 2·``token_ngram`` tokens scores ``size``. An empty
    completion scores 0, not ``size``. A text without token ids is unscored (``None``).
    """
    words, tokens = completion.text.split(), completion.token_ids
    if not words:
        return 0.0
    if not tokens:
        return None
    if len(words) < word_ngram or len(tokens) < 2 * token_ngram:
        return size
    w = _repeats(words, word_ngram) / max(len(words) - word_ngram, 1)
    t = _repeats(tokens, token_ngram) / (len(tokens) - 2 * token_ngram + 1)
    return size * (1 - w - t)


def length_budget(sample: Sample, completion: Completion, *, limit: int, soft: float) -> float | None:
    """Return 1 up to (1 − ``soft``) · ``limit`` tokens, 0 from ``limit`` tokens on, and a linear value in between.

    The value is 1 + R_length of DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13) with L_max = ``limit`` and
    L_cache = ``soft`` · ``limit``. The added constant is the same for all completions, so advantages do not depend on
    it. A text without token ids is unscored (``None``).
    """
    length = len(completion.token_ids)
    if completion.text.strip() and not length:
        return None
    if length <= limit * (1 - soft):
        return 1.0
    return max(limit - length, 0) / (limit * soft) if soft else 0.0


def digit_share(sample: Sample, completion: Completion) -> float:
    """Return the share of characters that are digits ``0`` to ``9``, 0 to 1; 0 for an empty text.

    This reward is a smoke test: it rises within a few steps on any model, which shows that optimisation works.
    """
    text = completion.text
    return sum(map(text.count, "0123456789")) / max(len(text), 1)


def _repeats(items: Sequence[object], ngram: int) -> int:
    """Count the positions at which ``ngram`` items are followed by the same ``ngram`` items."""
    starts = range(len(items) - 2 * ngram + 1)
    return sum(items[i : i + ngram] == items[i + ngram : i + 2 * ngram] for i in starts)
