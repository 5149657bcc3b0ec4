"""Rewards of what is answered: the judge's verdict and BLEU-1."""

from __future__ import annotations

import math
import string
from collections import Counter
from concurrent.futures import Future
from functools import partial

from grit_lightning.grounding.sections import answer_text
from grit_lightning.judge.protocol import AsksAhead, Judge, then
from grit_lightning.types import Completion, Sample

_PUNCTUATION_TO_SPACE = str.maketrans(string.punctuation, " " * len(string.punctuation))


def answer_match(
    sample: Sample, completion: Completion, *, judge: Judge, threshold: float | None
) -> float | Future[float | None] | None:
    """1 when the judge's score of the answer is above ``threshold``, else 0; the raw score when that is ``None``.

    The judge reads the question alone, not the prompt around it. No or an empty answer scores 0 without asking; an
    answer that could not be judged is unscored, not wrong. GRIT trains at threshold 0 and evaluates on raw scores. A
    judge that asks ahead is asked now, and its score comes later.
    """
    answer = (answer_text(completion.text) or "").strip()
    if not answer:
        return 0.0
    if isinstance(judge, AsksAhead):
        asked = judge.ask(sample.question, sample.answer, answer)
        return then(asked, partial(_against, threshold=threshold))
    return _against(judge(sample.question, sample.answer, answer), threshold)


def _against(score: float | None, threshold: float | None) -> float | None:
    if score is None or threshold is None or math.isnan(score):  # nan > 0 is False: a failure would become a 0
        return score
    return float(score > threshold)


def answer_bleu(sample: Sample, completion: Completion, *, size: float) -> float:
    """``size`` × BLEU-1 of the answer against the reference answer; only the text within the tags counts."""
    return size * _bleu_1(_words(answer_text(completion.text) or ""), _words(sample.answer))


def _words(text: str) -> list[str]:
    return text.lower().translate(_PUNCTUATION_TO_SPACE).split()


def _bleu_1(candidate: list[str], reference: list[str]) -> float:
    """BLEU (Papineni et al. 2002) with unigrams and one reference: min(1, e^(1 − r/c)) × clipped precision."""
    if not candidate:
        return 0.0
    clipped = (Counter(candidate) & Counter(reference)).total()
    brevity = min(1.0, math.exp(1 - len(reference) / len(candidate)))
    return brevity * clipped / len(candidate)
