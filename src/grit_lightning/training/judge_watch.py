"""What the judge did in a step, over all processes; and the end of the training where it leaves too much unscored."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from lightning.pytorch.strategies import Strategy

from grit_lightning.errors import JudgeError
from grit_lightning.judge.chat.statistics import Counts
from grit_lightning.judge.llm import LLMJudge, Price
from grit_lightning.judge.protocol import Judge
from grit_lightning.training.objective import wide_dtype

_SHARES = {"latency_p50": 0.5, "latency_p95": 0.95}


class JudgeWatch:
    """Watches a judge over HTTP; of any other there is nothing to see.

    Args:
        judge: whom the rewards ask.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge if isinstance(judge, LLMJudge) else None
        self._bad_steps = 0

    def reset(self) -> None:
        """Forget what was asked so far."""
        if self._judge is not None:
            self._judge.take_counts()

    def step(self, strategy: Strategy) -> dict[str, float]:
        """Metrics of what was asked since the last call, once all of a step is scored. Collective.

        Raises:
            JudgeError: on all processes, when this is the ``judge.patience``-th step in a row of whose questions more
                than ``judge.max_unscored`` have no score. Nothing of this step has been learned yet.
        """
        if self._judge is None:
            return {}
        counts = self._judge.take_counts()
        sums, latency = _over_ranks(counts, strategy)
        if sums["questions"]:  # a step that asks nothing says nothing
            share = sums["unscored"] / sums["questions"]
            self._bad_steps = self._bad_steps + 1 if share > self._judge.max_unscored else 0
            if self._bad_steps >= self._judge.patience:
                raise JudgeError(self._why(share))
        return step_metrics(sums, self._judge.price) | latency

    def _why(self, share: float) -> str:
        assert self._judge is not None
        steps = "one step" if self._bad_steps == 1 else f"{self._bad_steps} steps in a row"
        last = f", last for {self._judge.last_failure}" if self._judge.last_failure else ""
        return (
            f"the judge left {100 * share:.0f} % of the answers of a step unscored{last}; more than "
            f"judge.max_unscored={self._judge.max_unscored:g} in {steps}: the training stops"
        )


def step_metrics(sums: Mapping[str, float], price: Price) -> dict[str, float]:
    """What is logged of the sums over all processes."""
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
    """Sums by name, and percentiles of latency: those of the process where they are highest."""
    dtype, device = wide_dtype(strategy.root_device), strategy.root_device
    own = counts.sums()
    sums = strategy.reduce(torch.tensor(list(own.values()), dtype=dtype, device=device), reduce_op="sum")
    seconds = [counts.latency(share) for share in _SHARES.values()]
    floor = torch.tensor([-1.0 if math.isnan(one) else one for one in seconds], dtype=dtype, device=device)
    highest = strategy.reduce(floor, reduce_op="max").tolist()
    latency = {f"judge/{name}": one for name, one in zip(_SHARES, highest, strict=True) if one >= 0}
    return dict(zip(own, sums.tolist(), strict=True)), latency
