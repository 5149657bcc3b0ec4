"""The endless stream of prompts: which sample each rank sees at each step, as a pure function of (seed, step)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
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
        prompts: ``(slot, prompt)``; the slot counts the prompts of the step over all ranks.
    """

    step: int
    prompts: tuple[tuple[int, Prompt], ...]


@dataclass(frozen=True)
class PromptStream:
    """The order of samples.

    The k-th prompt of the run, k = step · prompts_per_step + slot, is item k mod N of the permutation of epoch
    k div N, so an epoch shows each of the N samples once. Nothing depends on earlier steps or on the number of
    ranks: a run that is resumed, or continued on other hardware, sees what it would have seen.

    Attributes:
        num_samples: N.
        prompts_per_step: prompts of one optimizer step, over all ranks.
        seed: of the permutations.
    """

    num_samples: int
    prompts_per_step: int
    seed: int

    def batch(self, step: int, rank: int, world_size: int) -> list[tuple[int, int]]:
        """Returns the ``(slot, sample index)`` pairs of this rank: every world_size-th slot, from slot ``rank``.

        Raises:
            ConfigError: a rank would get no prompt.
        """
        if self.prompts_per_step < world_size:
            raise ConfigError(
                f"data.prompts_per_step is {self.prompts_per_step}; expected at least one prompt for each of the "
                f"{world_size} processes"
            )
        return [(slot, self.sample_index(step, slot)) for slot in range(rank, self.prompts_per_step, world_size)]

    def sample_index(self, step: int, slot: int) -> int:
        """The sample shown in this slot of this step."""
        epoch, item = divmod(step * self.prompts_per_step + slot, self.num_samples)
        return permutation(self.seed, epoch, self.num_samples)[item]


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, length: int) -> tuple[int, ...]:
    """The order of ``range(length)`` in one epoch: the ranks of counter-based random numbers keyed by (seed, epoch).

    The raw Philox stream is fixed for all versions of NumPy (NEP 19), unlike ``Generator.permutation``.
    """
    keys = np.random.Philox(key=[seed % 2**64, epoch]).random_raw(length)
    return tuple(int(index) for index in np.argsort(keys, kind="stable"))


class PromptBatches:
    """Endless iterable of this rank's batches, for Lightning's fit loop.

    Args:
        stream: the order.
        prompts_at: the prompts of a sample index: one, or several about one image, which share its slot.
        first_step: asked at the start of each iteration, so that a resumed run goes on where it stopped.
    """

    def __init__(
        self,
        *,
        stream: PromptStream,
        prompts_at: Callable[[int], Sequence[Prompt]],
        first_step: Callable[[], int],
        rank: int,
        world_size: int,
    ) -> None:
        self.stream = stream
        self.prompts_at = prompts_at
        self.first_step = first_step
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[Batch]:
        for step in itertools.count(self.first_step()):
            pairs = self.stream.batch(step, self.rank, self.world_size)
            yield Batch(step, tuple((slot, prompt) for slot, index in pairs for prompt in self.prompts_at(index)))
