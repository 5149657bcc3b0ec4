"""Log a judge's requests per step over all processes, and stop training when it leaves too many answers unscored."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from lightning.pytorch.strategies import Strategy

from grit_lightning.errors import JudgeError
from grit_lightning.judge.chat.statistics import Counts
from grit_lightning.judge.llm import LLMJudge, Price
from grit_lightning.judge.protocol import Judge
from grit_lightning.training.objective.group_advantages import wide_dtype

_SHARES = {"latency_p50": 0.5, "latency_p95": 0.95}
"""Logged percentiles of the judge's latency: share of the replies by metric name."""


class JudgeWatch:
    """Turns the counts of an HTTP judge into metrics, and stops training when the judge fails too often.

    Other judges keep no counts: for them :meth:`step` returns no metrics and never raises.

    Args:
        judge: the judge that the rewards call.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge if isinstance(judge, LLMJudge) else None
        self._bad_steps = 0

    def reset(self) -> None:
        """Discard the counts so far."""
        if self._judge is not None:
            self._judge.take_counts()

    def step(self, strategy: Strategy) -> dict[str, float]:
        """Return the judge's metrics since the last call or reset, summed over processes.

        Collective: every process calls it once per step, after scoring all completions and before the update.

        Raises:
            JudgeError: raised on all processes in the ``judge.patience``-th step in a row in which more than
                ``judge.max_unscored`` of the questions are unscored. Steps without questions are ignored. The weights
                are those of the last complete step.
        """
        if self._judge is None:
            return {}
        counts = self._judge.take_counts()
        sums, latency = _over_ranks(counts, strategy)
        if sums["questions"]:  # a step without questions is neither good nor bad
            share = sums["unscored"] / sums["questions"]
            self._bad_steps = self._bad_steps + 1 if share > self._judge.max_unscored else 0
            if self._bad_steps >= self._judge.patience:
                raise JudgeError(self._why(share))
        return step_metrics(sums, self._judge.price) | latency

    def _why(self, share: float) -> str:
        assert self._judge is not None
        steps = "one step" if self._bad_steps == 1 else f"{self._bad_steps} steps in a row"
        reason = f" (last reason: {self._judge.last_failure})" if self._judge.last_failure else ""
        return (
            f"training stopped: the judge left {100 * share:.0f} % of this step's answers unscored{reason}, above "
            f"judge.max_unscored={self._judge.max_unscored:g} in {steps}"
        )


def step_metrics(sums: Mapping[str, float], price: Price) -> dict[str, float]:
    """Return the judge's metrics by logged name from sums over processes; the cost is in the currency of ``price``."""
    questions = sums["questions"]
    return {
        "judge/questions": questions,
        "judge/unscored": sums["unscored"] / questions if questions else 0.0,
        "judge/known": sums["known"] / questions if questions else 0.0,
        "judge/requests": sums["requests"],
        "judge/failures": sums["failures"],
        "judge/prompt_tokens": sums["prompt_tokens"],
        "judge/completion_tokens": sums["completion_tokens"],
        "judge/cost": price.of(sums["prompt_tokens"], sums["completion_tokens"]),
    }


def _over_ranks(counts: Counts, strategy: Strategy) -> tuple[dict[str, float], dict[str, float]]:
    """Return sums of the counts over processes, and latency percentiles in seconds.

    Percentiles cannot be summed: each is the highest of any process. A percentile is missing if no process had a reply.
    """
    dtype, device = wide_dtype(strategy.root_device), strategy.root_device
    own = counts.sums()
    sums = strategy.reduce(torch.tensor(list(own.values()), dtype=dtype, device=device), reduce_op="sum")
    seconds = [counts.latency(share) for share in _SHARES.values()]
    floor = torch.tensor([-1.0 if math.isnan(one) else one for one in seconds], dtype=dtype, device=device)
    highest = strategy.reduce(floor, reduce_op="max").tolist()
    latency = {f"judge/{name}": one for name, one in zip(_SHARES, highest, strict=True) if one >= 0}
    return dict(zip(own, sums.tolist(), strict=True)), latency
