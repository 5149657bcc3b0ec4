"""The endless stream of prompts: the samples of each rank at each step, as a pure function of (seed, step)."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from grit_lightning.errors import ConfigError
from grit_lightning.types import Prompt


@dataclass(frozen=True, eq=False, slots=True)
class Batch:
    """The prompts of one optimizer step on one rank.

    Attributes:
        step: the optimizer step, from 0.
        prompts: pairs ``(slot, prompt)``; the slot numbers the samples of the step across all ranks, from 0.
        waited: seconds for which training waited until the prompts were encoded.
    """

    step: int
    prompts: tuple[tuple[int, Prompt], ...]
    waited: float = 0.0


@dataclass(frozen=True)
class PromptStream:
    """The order in which samples are served.

    The k-th prompt of the run, k = step · prompts_per_step + slot, is item k mod N of the permutation of epoch
    k div N, so an epoch shows each of the N samples once. The order does not depend on earlier steps or on the number
    of ranks: a run that is resumed, or continued on other hardware, sees the same prompts as an uninterrupted run.

    Attributes:
        num_samples: number of samples N.
        prompts_per_step: prompts of one optimizer step, over all ranks.
        seed: seed of the permutations.
    """

    num_samples: int
    prompts_per_step: int
    seed: int

    def batch(self, step: int, rank: int, world_size: int) -> list[tuple[int, int]]:
        """Return the ``(slot, sample index)`` pairs of a rank: every ``world_size``-th slot, starting at ``rank``.

        Raises:
            ConfigError: ``prompts_per_step`` is smaller than ``world_size``, so that a rank would get no prompt.
        """
        if self.prompts_per_step < world_size:
            raise ConfigError(
                f"data.prompts_per_step is {self.prompts_per_step}; expected at least one prompt for each of the "
                f"{world_size} processes"
            )
        return [(slot, self.sample_index(step, slot)) for slot in range(rank, self.prompts_per_step, world_size)]

    def sample_index(self, step: int, slot: int) -> int:
        """Return the index of the sample in a slot of a step."""
        epoch, item = divmod(step * self.prompts_per_step + slot, self.num_samples)
        return permutation(self.seed, epoch, self.num_samples)[item]


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, length: int) -> tuple[int, ...]:
    """Return the permutation of ``range(length)`` for one epoch: the argsort of random numbers keyed by (seed, epoch).

    The numbers come from Philox, whose raw stream is the same in all versions of NumPy (NEP 19), unlike the result of
    ``Generator.permutation``.
    """
    keys = np.random.Philox(key=[seed % 2**64, epoch]).random_raw(length)
    return tuple(int(index) for index in np.argsort(keys, kind="stable"))


class PromptBatches:
    """An endless iterable of this rank's batches, for Lightning's fit loop, encoded ahead by threads.

    Which prompts a batch has depends on its step alone, not on the threads. What ``prompts_at`` raises is raised where
    the batch is asked for.

    Args:
        stream: the order of samples.
        prompts_at: function that returns the prompts of a sample index: one prompt, or several about one image, which
            all get the slot of the sample. Several threads call it.
        first_step: function that returns the step to start at. It is called at the start of each iteration, so that a
            resumed run continues at the step where it stopped.
        rank: index of this process.
        world_size: number of processes.
        ahead: number of steps that are encoded before they are asked for.
        workers: number of threads; 0 to encode when a batch is asked for.
    """

    def __init__(
        self,
        *,
        stream: PromptStream,
        prompts_at: Callable[[int], Sequence[Prompt]],
        first_step: Callable[[], int],
        rank: int,
        world_size: int,
        ahead: int = 0,
        workers: int = 0,
    ) -> None:
        self.stream = stream
        self.prompts_at = prompts_at
        self.first_step = first_step
        self.rank = rank
        self.world_size = world_size
        self.ahead = ahead
        self.workers = workers

    def __iter__(self) -> Iterator[Batch]:
        if not self.workers:
            yield from self._batches(_at_once)
            return
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="encode")
        try:
            yield from self._batches(pool.submit)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _batches(self, submit: Callable[..., Future[Sequence[Prompt]]]) -> Iterator[Batch]:
        begun: deque[list[tuple[int, Future[Sequence[Prompt]]]]] = deque()
        first = self.first_step()
        for step in itertools.count(first):
            while len(begun) <= self.ahead:
                pairs = self.stream.batch(step + len(begun), self.rank, self.world_size)
                begun.append([(slot, submit(self.prompts_at, index)) for slot, index in pairs])
            asked = time.perf_counter()
            prompts = tuple((slot, prompt) for slot, encoded in begun.popleft() for prompt in encoded.result())
            yield Batch(step, prompts, time.perf_counter() - asked)


def _at_once(call: Callable[[int], Sequence[Prompt]], index: int) -> Future[Sequence[Prompt]]:
    """Call a function now and return its result as a future; errors are raised here."""
    done: Future[Sequence[Prompt]] = Future()
    done.set_result(call(index))
    return done
