"""Statistics of a judge's requests, collected by its thread and read by the training step."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counts:
    """Counts since the last ``Statistics.take``.

    Attributes:
        questions: number of questions, including those that needed no request.
        unscored: number of these questions that got no score.
        known: number of these questions that were answered by the cache or by an identical question.
        requests: number of HTTP requests sent.
        failures: number of requests without a valid score, including those that were retried.
        prompt_tokens: tokens of the prompts as counted by the server.
        completion_tokens: tokens of the replies as counted by the server.
        latencies: duration in seconds of each request that brought a reply.
    """

    questions: int = 0
    unscored: int = 0
    known: int = 0
    requests: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latencies: list[float] = field(default_factory=list)

    def sums(self) -> dict[str, int]:
        """Return the counts that can be summed over processes, by name."""
        names = ("questions", "unscored", "known", "requests", "failures", "prompt_tokens", "completion_tokens")
        return {name: getattr(self, name) for name in names}

    def latency(self, share: float) -> float:
        """Return the seconds within which ``share`` (0 to 1) of the replies arrived; NaN without any."""
        return percentile(self.latencies, share)


class Statistics:
    """Counts that several threads can add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counts()

    def add(self, *, latency: float | None = None, **amounts: int) -> None:
        """Add to the counts by name, and one latency in seconds."""
        with self._lock:
            for name, amount in amounts.items():
                setattr(self._counts, name, getattr(self._counts, name) + amount)
            if latency is not None:
                self._counts.latencies.append(latency)

    def take(self) -> Counts:
        """Return the counts so far, and reset them."""
        with self._lock:
            counts, self._counts = self._counts, Counts()
        return counts


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` (0 to 1) of the values do not exceed; NaN without values."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else float("nan")
