"""Metrics of a training step: sums over micro-batches and ranks, divided into means once at the end of the step."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from grit_lightning.model.packing import completion_lengths, truncated
from grit_lightning.model.policy import TokenLogprobs
from grit_lightning.system.slow import announced
from grit_lightning.training.objective.group_advantages import mean_std, moments, wide_dtype, zero_variance
from grit_lightning.training.objective.loss import LossTerms
from grit_lightning.types import Group, Score

_REWARD = re.compile(r"reward/(.+)/mean")
"""Logged names of mean rewards; the regex group is a component's name, or ``total`` for the weighted sum."""


def reward_means(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the mean rewards among logged metrics, by component name or ``total``."""
    matches = (_REWARD.fullmatch(key) for key in metrics)
    return {match[1]: metrics[match[0]] for match in matches if match}


_DOING = {
    "reference": "computing the reference's log-probabilities",
    "wait_for_rewards": "scoring the completions",
    "update": "updating the weights",
}


class PhaseTimer:
    """Measures seconds per named phase of a step.

    On CUDA each phase ends with a synchronization, so that its kernels count in that phase and not in a later one.

    Args:
        device: device of the step.
        before: seconds by name of phases before the step, which are not part of ``total``.
    """

    def __init__(self, device: torch.device, **before: float) -> None:
        self.device = device
        self.seconds: dict[str, float] = dict(before)
        self._start = time.perf_counter()

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time the block as ``phase``; its seconds replace those of an earlier block of that name.

        A phase that takes long says so, so that a step is never silent for long; rollouts say more themselves.
        """
        start = time.perf_counter()
        with nullcontext() if phase == "rollout" else announced(_DOING.get(phase, phase), after=4, every=15):
            yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[phase] = time.perf_counter() - start

    @property
    def total(self) -> float:
        """Seconds since the timer was created."""
        return time.perf_counter() - self._start


def reward_table(scores: Sequence[Sequence[Score]], device: torch.device) -> dict[str, Tensor]:
    """Return the values of each reward component and of ``total``: float32, shape (P, G), NaN where unscored."""

    def column(values: list[list[float | None]]) -> Tensor:
        rows = [[torch.nan if value is None else value for value in group] for group in values]
        return torch.tensor(rows, dtype=torch.float32, device=device)

    names = scores[0][0].components
    return {name: column([[score.components[name] for score in group] for group in scores]) for name in names} | {
        "total": column([[score.total for score in group] for group in scores])
    }


class StepSums:
    """Sums of one training step on one rank.

    Args:
        table: the rewards, from :func:`reward_table`.
        groups: the groups of this rank.
    """

    def __init__(self, table: dict[str, Tensor], groups: Sequence[Group]) -> None:
        total_P_G = table["total"]
        lengths = completion_lengths(groups).to(total_P_G.device).float()
        self.moments = {f"reward/{name}": moments(values) for name, values in table.items()}
        self.moments["rollout/length"] = moments(lengths)
        zero = torch.zeros((), dtype=wide_dtype(total_P_G.device), device=total_P_G.device)
        self.sums = {
            "groups": zero + len(groups),
            "zero_variance": zero + zero_variance(total_P_G).sum(),
            "completions": zero + lengths.numel(),
            "unscored": zero + total_P_G.isnan().sum(),
            "truncated": zero + truncated(groups).sum().item(),
            "tokens": zero + lengths.sum(),
            "trained_tokens": zero,
            "loss": zero,
            "kl": zero,
            "entropy": zero,
            "clipped": zero,
        }

    def add(self, terms: LossTerms, tokens: TokenLogprobs, *, first: bool, last: bool) -> None:
        """Add the sums of one micro-batch.

        Loss, KL and entropy are taken from the first iteration, in which the policy is the one that sampled. The number
        of clipped tokens is taken from the last iteration, because in the first all ratios are 1.

        Args:
            terms: sums of the loss.
            tokens: log-probabilities and entropies of the micro-batch's completion tokens.
            first: whether this is the first iteration on the groups.
            last: whether this is the last iteration on the groups.
        """
        if first:
            self.sums["loss"] = self.sums["loss"] + terms.loss.detach()
            self.sums["kl"] = self.sums["kl"] + terms.kl
            if tokens.entropy_T is not None:
                self.sums["entropy"] = self.sums["entropy"] + tokens.entropy_T.sum()
            self.sums["trained_tokens"] = self.sums["trained_tokens"] + tokens.logprobs_T.numel()
        if last:
            self.sums["clipped"] = self.sums["clipped"] + terms.clipped

    def metrics(self, sum_over_ranks: Callable[[Tensor], Tensor], *, with_kl: bool) -> dict[str, float]:
        """Return means over all ranks by logged name. ``policy/loss`` and ``rollout/tokens`` are sums.

        Args:
            sum_over_ranks: sums a tensor over all ranks; it is called once.
            with_kl: whether there is a reference, so that ``policy/kl`` is logged.
        """
        flat = sum_over_ranks(torch.cat([*self.moments.values(), torch.stack(list(self.sums.values()))]))
        triples = flat[: 3 * len(self.moments)].view(-1, 3)
        result: dict[str, float] = {}
        for name, triple in zip(self.moments, triples, strict=True):
            mean, std = mean_std(triple)
            result |= {f"{name}/mean": mean.item(), f"{name}/std": std.item()}
        sums = dict(zip(self.sums, flat[3 * len(self.moments) :].tolist(), strict=True))
        trained = max(sums["trained_tokens"], 1.0)
        return result | {
            "reward/zero_variance": sums["zero_variance"] / sums["groups"],
            "reward/unscored": sums["unscored"] / sums["completions"],
            "rollout/truncated": sums["truncated"] / sums["completions"],
            "rollout/tokens": sums["tokens"],
            "policy/loss": sums["loss"],
            "policy/entropy": sums["entropy"] / trained,
            "policy/clip_fraction": sums["clipped"] / trained,
            **({"policy/kl": sums["kl"] / trained} if with_kl else {}),
        }
