"""Engines decode completions. The built-in one runs the policy itself; others hold a copy of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch
from transformers import PreTrainedModel

from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.model.merged_adapters import merged
from grit_lightning.rollout.choice import Draw, Greedy
from grit_lightning.rollout.decoding import Choose, decode
from grit_lightning.rollout.stopping import stop_automaton
from grit_lightning.types import Completion, Prompt


class Engine(Protocol):
    """Decodes completions. All engines have the same contract, so that nothing after a rollout knows which it was.

    Attributes:
        name: name of the engine, which is part of the settings of an evaluation.
        runs_policy: whether the policy itself decodes, so that its weights must lie whole on the device.
        max_drift: largest mean |log π − log π_engine| of a training step; ``None`` for an engine that reports no
            log-probabilities, because they are the policy's own.
    """

    name: str
    runs_policy: bool
    max_drift: float | None

    def require_usable(self) -> None:
        """Check early, before weights are loaded, that the engine can run here.

        Raises:
            EngineError: it cannot.
        """
        ...

    def serving(self, model: PreTrainedModel, backbone: Backbone) -> AbstractContextManager[None]:
        """Return a context in which the engine decodes with the weights that the model has now.

        Entering it is a collective operation if the model is sharded.
        """
        ...

    def complete(
        self,
        model: PreTrainedModel,
        backbone: Backbone,
        prompts: Sequence[Prompt],
        keys: Sequence[int],
        *,
        max_new_tokens: int,
        stop: str,
        choose: Draw | Greedy,
        tick: Callable[[int], None] = lambda position: None,
    ) -> list[Completion]:
        """Decode as many completions of each prompt as there are keys for it; see :func:`complete`."""
        ...


def complete(
    model: PreTrainedModel,
    backbone: Backbone,
    prompts: Sequence[Prompt],
    keys: Sequence[int],
    *,
    max_new_tokens: int,
    stop: str,
    choose: Choose,
    tick: Callable[[int], None] = lambda position: None,
    static: bool | None = None,
) -> list[Completion]:
    """Decode as many completions of each prompt as there are keys for it.

    Args:
        model: the model, in eval mode. On CUDA, its adapters are merged into the weights meanwhile.
        backbone: the model's backbone.
        prompts: P prompts.
        keys: a number for each of the P · G completions, by which ``choose`` tells them apart.
        max_new_tokens: limit on the tokens of a completion.
        stop: text that ends a completion and is part of it.
        choose: function that chooses the next tokens.
        tick: function that is called with the number of tokens of the longest completion before each further token.
        static: whether to decode in static memory, where CUDA replays steps without calling ``choose`` for each;
            ``None`` for yes on CUDA.
    """
    device = model.device
    on_cuda = device.type == "cuda"
    generations = len(keys) // len(prompts)
    ends = stop_automaton(backbone, stop, model.config.get_text_config().vocab_size)
    with merged(model) if on_cuda else nullcontext():
        found = decode(
            model,
            prompts,
            torch.tensor(keys, device=device),
            generations=generations,
            max_new_tokens=max_new_tokens,
            choose=choose,
            ends=ends,
            static=on_cuda if static is None else static,
            tick=tick,
        )
    owners = [prompt for prompt in prompts for _ in range(generations)]
    columns = found.tokens_B_T.tolist(), found.lengths_B.tolist(), ends.reasons(found.states_B.tolist()), owners
    return [
        backbone.completion(ids[:count], reason, prompt) for ids, count, reason, prompt in zip(*columns, strict=True)
    ]


class BuiltIn:
    """The engine that runs the policy itself (:mod:`.decoding`)."""

    name = "builtin"
    runs_policy = True
    max_drift: float | None = None

    def require_usable(self) -> None:
        """Do nothing: the built-in engine runs everywhere."""

    @contextmanager
    def serving(self, model: PreTrainedModel, backbone: Backbone) -> Iterator[None]:
        """Do nothing: the policy's weights are the engine's."""
        yield

    complete = staticmethod(complete)


BUILT_IN = BuiltIn()
"""The built-in engine, which has no state."""
