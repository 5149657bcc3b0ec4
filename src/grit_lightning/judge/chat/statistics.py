"""What a judge did: counted on its thread, taken by the training step."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counts:
    """Sums since they were last taken; those of several processes add up.

    Attributes:
        questions: asked of the judge, before any is found to be known.
        unscored: of these, without a score.
        known: answered by the cache, or with a question of the same words.
        requests: sent.
        failures: requests without a verdict; those that were made again included.
        prompt_tokens: as the server counted them.
        completion_tokens: the same of replies.
        latencies: seconds of each request that brought a reply.
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
        """All that adds up over processes, by name."""
        names = ("questions", "unscored", "known", "requests", "failures", "prompt_tokens", "completion_tokens")
        return {name: getattr(self, name) for name in names}

    def latency(self, share: float) -> float:
        """Seconds within which ``share`` of the replies came; NaN without any."""
        return percentile(self.latencies, share)


class Statistics:
    """Counts that several threads add to."""

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
        """The counts so far, which begin anew."""
        with self._lock:
            counts, self._counts = self._counts, Counts()
        return counts


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` (0 to 1) of the values do not exceed; NaN without any."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else float("nan")
