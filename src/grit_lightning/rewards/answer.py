"""Rewards for the answer: the judge's score and BLEU-1."""

from __future__ import annotations

import math
import string
from collections import Counter
from concurrent.futures import Future
from functools import partial

from grit_lightning.grounding.options import with_options
from grit_lightning.grounding.sections import answer_text
from grit_lightning.judge.protocol import AsksAhead, Judge, answer_for, then
from grit_lightning.types import Completion, Sample

_PUNCTUATION_TO_SPACE = str.maketrans(string.punctuation, " " * len(string.punctuation))


def answer_match(
    sample: Sample, completion: Completion, *, judge: Judge, threshold: float | None
) -> float | Future[float | None] | None:
    """Return 1 if the judge's score of the answer is above ``threshold``, else 0.

    The judge reads the question with its options, not the prompt around it, and the text of the chosen option (a
    judge that reads options itself, the answer as it is). A
    missing or empty answer scores 0 without a call to the judge. An answer that the judge could not score is unscored
    (``None``), not wrong. GRIT trains with threshold 0 and evaluates on raw scores.

    Args:
        sample: the sample with the question and the reference answer.
        completion: the completion with the answer to score.
        judge: scores the answer. If it can score asynchronously (``AsksAhead``), the request is sent now and the reward
            is returned as a future.
        threshold: score above which an answer counts as right; ``None`` to return the judge's raw score, 0 to 1.
    """
    answer = answer_for(judge, answer_text(completion.text) or "", sample.options)
    if not answer:
        return 0.0
    question = with_options(sample.question, sample.options)
    if isinstance(judge, AsksAhead):
        asked = judge.ask(question, sample.answer, answer)
        return then(asked, partial(_apply_threshold, threshold=threshold))
    return _apply_threshold(judge(question, sample.answer, answer), threshold)


def _apply_threshold(score: float | None, threshold: float | None) -> float | None:
    if score is None or threshold is None or math.isnan(score):  # nan > 0 is False, which would turn a failure into a 0
        return score
    return float(score > threshold)


def answer_bleu(sample: Sample, completion: Completion, *, size: float) -> float:
    """Return ``size`` × BLEU-1 of the answer against the reference answer.

    Only the text inside the ``<answer>`` tags counts; a missing answer scores 0.
    """
    return size * _bleu_1(_words(answer_text(completion.text) or ""), _words(sample.answer))


def _words(text: str) -> list[str]:
    return text.lower().translate(_PUNCTUATION_TO_SPACE).split()


def _bleu_1(candidate: list[str], reference: list[str]) -> float:
    """Return BLEU (Papineni et al. 2002) with unigrams and one reference: min(1, e^(1 − r/c)) × clipped precision.

    c and r are the numbers of words of the candidate and of the reference. An empty candidate scores 0.
    """
    if not candidate:
        return 0.0
    clipped = (Counter(candidate) & Counter(reference)).total()
    brevity = min(1.0, math.exp(1 - len(reference) / len(candidate)))
    return brevity * clipped / len(candidate)
