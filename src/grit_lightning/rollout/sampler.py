"""Sampling of completions: G samples per prompt, or one greedy completion.

This module groups prompts of similar length and numbers their completions; an :class:`~.engine.Engine` decodes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from grit_lightning.errors import ConfigError
from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.rollout.choice import Draw, Greedy
from grit_lightning.rollout.engine import BUILT_IN, Engine
from grit_lightning.rollout.noise import sequence_key
from grit_lightning.system.slow import announced
from grit_lightning.types import Completion, Group, Prompt


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampler:
    """A sampler of groups of completions. Values live in ``conf/rollout``.

    Attributes:
        num_generations: G, completions per prompt, at least 2, because a group of one has no relative advantage.
        max_new_tokens: limit on the tokens of a completion; one that reaches it unfinished is recorded as truncated.
        temperature: sampling temperature, > 0. The policy computes log-probabilities at the same temperature.
        top_k: number of most likely tokens to sample from; 0 for all. A limit makes rollouts slightly off-policy.
        top_p: total probability of the smallest set of tokens to sample from; 1 for all.
        stop: text that ends a completion and is part of it.
        max_sequences: number of completions decoded at once, which limits the memory of the cache.
        engine: decodes the completions.

    Raises:
        ConfigError: a value is out of range.
    """

    num_generations: int
    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    stop: str
    max_sequences: int
    engine: Engine = BUILT_IN

    def __post_init__(self) -> None:
        if self.num_generations < 2:
            raise ConfigError(
                f"rollout.num_generations is {self.num_generations}, expected at least 2: "
                "a completion's advantage is relative to the others of its group"
            )
        for key in ("max_new_tokens", "max_sequences"):
            if getattr(self, key) < 1:
                raise ConfigError(f"rollout.{key} is {getattr(self, key)}, expected a whole number of at least 1")
        if not self.stop:
            raise ConfigError("rollout.stop is empty, expected the text that ends a completion, such as </answer>")
        if self.temperature <= 0:
            raise ConfigError(f"rollout.temperature is {self.temperature}, expected a number above 0")
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ConfigError(
                f"rollout.top_k is {self.top_k} and rollout.top_p is {self.top_p}, expected top_k ≥ 0 and 0 < top_p ≤ 1"
            )

    def require_trainable(self) -> None:
        """Check before weights are loaded that the engine runs here, and that its completions can be trained on.

        Raises:
            ConfigError: another engine than the policy samples from a part of the distribution, which its
                log-probabilities would not show.
            EngineError: the engine cannot run here.
        """
        if not self.engine.runs_policy and (self.top_k > 0 or self.top_p < 1):
            key, value, all_of_it = ("top_k", self.top_k, 0) if self.top_k > 0 else ("top_p", self.top_p, 1)
            raise ConfigError(
                f"rollout.{key} is {value}, expected {all_of_it} with another engine than the policy: its "
                "log-probabilities are those of all tokens"
            )
        self.engine.require_usable()

    def rollout(
        self, model: PreTrainedModel, backbone: Backbone, prompts: Sequence[tuple[int, Prompt]], *, step: int, seed: int
    ) -> list[Group]:
        """Sample a group for each ``(slot, prompt)`` of ``prompts``, in the order given.

        The result is a pure function of the model and (seed, step, slot, sample): it does not depend on which prompts
        share a call. The model must be in eval mode.
        """
        group_size = self.num_generations
        # Prompts of similar length are decoded together to keep padding small.
        order = sorted(range(len(prompts)), key=lambda index: prompts[index][1].num_tokens)
        chunk = max(1, self.max_sequences // group_size)
        groups: dict[int, Group] = {}
        tokens, position_now = 0, 0

        def tick(position: int) -> None:
            nonlocal position_now
            position_now = position

        def so_far() -> str:
            done = f"{len(groups) * group_size} of {len(order) * group_size} completions are done"
            known = f" ({tokens} tokens)" if tokens else ""
            return f"rolling out: {done}{known}; the next are at token {position_now} of {self.max_new_tokens}"

        with announced(so_far, after=4, every=15):
            for start in range(0, len(order), chunk):
                indices = order[start : start + chunk]
                keys = [sequence_key(seed, step, prompts[i][0], g) for i in indices for g in range(group_size)]
                completions = self._decode(model, backbone, [prompts[index][1] for index in indices], keys, tick)
                tokens += sum(len(one.token_ids) for one in completions)
                for position, index in enumerate(indices):
                    slot, prompt = prompts[index]
                    members = completions[position * group_size : (position + 1) * group_size]
                    groups[index] = Group(slot, prompt, tuple(members))
        return [groups[index] for index in range(len(prompts))]

    def _decode(
        self,
        model: PreTrainedModel,
        backbone: Backbone,
        prompts: Sequence[Prompt],
        keys: Sequence[int],
        tick: Callable[[int], None],
    ) -> list[Completion]:
        return self.engine.complete(
            model,
            backbone,
            prompts,
            keys,
            max_new_tokens=self.max_new_tokens,
            stop=self.stop,
            choose=Draw(self.temperature, self.top_k, self.top_p, backbone.banned_token_ids),
            tick=tick,
        )


def greedy(
    model: PreTrainedModel,
    backbone: Backbone,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    stop: str,
    engine: Engine = BUILT_IN,
) -> list[Completion]:
    """Return the greedy completion of each prompt: the most likely token at each position.

    All prompts are decoded in one batch. The result does not depend on which prompts share a call, up to rounding.

    Args:
        model: the model, in eval mode.
        backbone: the model's backbone: tokenizer, end tokens and banned tokens.
        prompts: at least one prompt. They are padded to the longest, so similar lengths are decoded fastest.
        max_new_tokens: limit on the tokens of a completion.
        stop: text that ends a completion and is part of it.
        engine: decodes the completions.
    """
    return engine.complete(
        model,
        backbone,
        prompts,
        [0] * len(prompts),
        max_new_tokens=max_new_tokens,
        stop=stop,
        choose=Greedy(backbone.banned_token_ids),
    )
