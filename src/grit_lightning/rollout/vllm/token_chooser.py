"""The logits processor that chooses the tokens inside vLLM, by the same code as the built-in engine.

vLLM calls logits processors with the logits of its batch before it samples. This one chooses each row's token itself,
records its log-probability, and leaves vLLM a single possible token. So vLLM is asked to decode greedily, whatever the
sampling temperature is, and the sampled tokens are the pure function of (seed, step, slot, sample) that they are in
the built-in engine, up to rounding of the logits.

Imported only where vLLM is installed. Interface: ``vllm.v1.sample.logits_processor.interface`` of vLLM 0.32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from grit_lightning.rollout.choice import Draw, Greedy

ARGUMENT = "grit_lightning"
"""Key of ``SamplingParams.extra_args`` under which a request has its place in the :class:`Calls`."""


@dataclass
class Calls:
    """The requests of one call of the engine. The processor reads keys from it and writes log-probabilities to it.

    Attributes:
        choose: chooses the tokens.
        keys: number of each request, by which ``choose`` tells them apart.
        tick: function that is called with the largest number of tokens so far before each further one.
        chosen: by request, token and its log-probability by position. vLLM may compute a position again, and the last
            value counts.
    """

    choose: Draw | Greedy
    keys: list[int]
    tick: Callable[[int], None]
    chosen: list[dict[int, tuple[int, float]]] = field(init=False)

    def __post_init__(self) -> None:
        self.chosen = [{} for _ in self.keys]


class TokenChooser(LogitsProcessor):
    """Chooses tokens for the requests of :attr:`calls`. vLLM makes the instances; one engine in a process has one."""

    calls: Calls

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._rows: dict[int, tuple[int, list[int]]] = {}

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Accept all parameters."""

    def is_argmax_invariant(self) -> bool:
        """Return False: the processor changes the most likely token."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Note which row of the batch belongs to which request, and the list of its tokens, which vLLM appends to."""
        if batch_update is not None:
            process_dict_updates(self._rows, batch_update, lambda params, _, output: _row(params, output))

    def apply(self, logits: Tensor) -> Tensor:
        """Choose a token for each row, float32, shape (N, V), and leave no other possible."""
        rows = [self._rows.get(index) for index in range(len(logits))]
        known = [index for index, row in enumerate(rows) if row is not None]
        if not known:  # vLLM's own trial run before the first request
            return logits
        requests = [row[0] for row in rows if row is not None]
        positions = [len(row[1]) for row in rows if row is not None]
        self.calls.tick(max(positions))
        logits_N_V = logits if len(known) == len(logits) else logits[known]
        keys_N = torch.tensor([self.calls.keys[request] for request in requests], device=logits.device)
        position_N = torch.tensor(positions, device=logits.device)
        token_N = self.calls.choose(logits_N_V.clone(), keys_N, position_N)
        logprobs = [0.0] * len(known)  # of a greedy choice, which is certain
        if isinstance(self.calls.choose, Draw):
            logprobs = self.calls.choose.logprobs(logits_N_V, token_N).tolist()
        for request, position, *chosen in zip(requests, positions, token_N.tolist(), logprobs, strict=True):
            self.calls.chosen[request][position] = (chosen[0], chosen[1])
        rows_N = torch.tensor(known, device=logits.device)
        logits[rows_N] = -torch.inf
        logits[rows_N, token_N] = 0.0
        return logits


def _row(params: SamplingParams, output: list[int]) -> tuple[int, list[int]] | None:
    place = (params.extra_args or {}).get(ARGUMENT)
    return None if place is None else (place, output)
