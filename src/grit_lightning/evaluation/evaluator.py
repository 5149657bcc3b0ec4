"""How a model is evaluated: completions of held-out samples, greedy or several, and their scores."""

from __future__ import annotations

import hashlib
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import PreTrainedModel

from grit_lightning.errors import ConfigError
from grit_lightning.evaluation.metrics import metric_names
from grit_lightning.evaluation.predictions import EXACT_MATCH, JUDGE, Prediction, given_answer, prediction
from grit_lightning.judge.exact import ExactMatch
from grit_lightning.judge.protocol import Judge, begin_judging
from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.rewards.weighted_sum import Component, Rewards
from grit_lightning.rollout.sampler import Sampler, greedy
from grit_lightning.runs.records import from_record
from grit_lightning.types import Completion, Prompt, Sample

PROGRESS_FROM = 50
"""More samples than this are answered under a progress bar."""

_SAMPLING_STEP = 0
"""Stands for the optimizer step in the key of the sampling noise, together with a slot that names the sample."""


class Evaluator:
    """How samples are answered, and what is asked about the answers. Values live in ``conf/evaluation``.

    Args:
        max_new_tokens: limit on a completion's tokens; one that reaches it is recorded as truncated.
        stop: text that ends a completion, included in it.
        batch_size: prompts decoded at once; bounds memory. Predictions do not depend on it, but for rounding.
        sampler: draws several completions of each sample; ``None`` for one, greedily.
        seed: of the sampling noise.
        judge: scores an answer.
        measures: further scores of a completion by name, as reward components are written.
        resamples: of the bootstrap; 0 for no intervals.

    Raises:
        ConfigError: a value out of range.
    """

    def __init__(
        self,
        *,
        max_new_tokens: int,
        stop: str,
        batch_size: int,
        sampler: Sampler | None,
        seed: int,
        judge: Judge,
        measures: Mapping[str, Component],
        resamples: int,
    ) -> None:
        for key, value, least in (
            ("max_new_tokens", max_new_tokens, 1),
            ("batch_size", batch_size, 1),
            ("resamples", resamples, 0),
        ):
            if value < least:
                raise ConfigError(f"evaluation.{key} is {value}, expected a whole number of at least {least}")
        if not stop:
            raise ConfigError("evaluation.stop is empty, expected the text that ends a completion, such as </answer>")
        if taken := {JUDGE, EXACT_MATCH} & set(measures):
            raise ConfigError(f"evaluation.measures.{taken.pop()} is there already: expected another name")
        self.max_new_tokens = max_new_tokens
        self.stop = stop
        self.batch_size = batch_size
        self.sampler = sampler
        self.seed = seed
        self.judge = judge
        self.resamples = resamples
        fns: dict[str, Component] = {JUDGE: self._verdict, EXACT_MATCH: _exact_match, **measures}
        try:
            self._scores = Rewards({name: {"weight": 0, "fn": fn} for name, fn in fns.items()})
        except ConfigError as error:
            raise ConfigError(str(error).replace("reward.components", "evaluation.measures")) from None

    @property
    def samples_each(self) -> int:
        """Completions of each sample."""
        return 1 if self.sampler is None else self.sampler.num_generations

    @property
    def metric_names(self) -> list[str]:
        """The metrics that its predictions have."""
        return metric_names(self._measures, several=self.samples_each > 1)

    @property
    def _measures(self) -> list[str]:
        return [name for name in self._scores.names if name not in (JUDGE, EXACT_MATCH)]

    def settings(self) -> dict[str, Any]:
        """All that decides what is predicted and how it is scored, JSON-ready."""
        sampling: str | dict[str, Any] = "greedy"
        if self.sampler is not None:
            names = ("num_generations", "temperature", "top_k", "top_p")
            sampling = {name: getattr(self.sampler, name) for name in names} | {"seed": self.seed}
        return {
            "decoding": {
                "max_new_tokens": self.max_new_tokens,
                "stop": self.stop,
                "sampling": sampling,
            },
            "judge": _name_of(self.judge),
            "measures": self._measures,
        }

    def predict(
        self,
        model: PreTrainedModel,
        backbone: Backbone,
        samples: Sequence[Sample],
        prompt: Callable[[Sample], Prompt],
        *,
        what: str,
        quiet: bool,
    ) -> Iterator[list[Prediction]]:
        """Yields the predictions of each sample once they are scored, in an order that serves the decoding.

        While a judge thinks about one batch, the next is decoded.

        Args:
            model: in eval mode, to be called without gradients.
            backbone: its family.
            samples: what is asked.
            prompt: a sample as the model reads it.
            what: what is done, for the progress bar.
            quiet: no progress bar.
        """
        waiting: deque[Callable[[], list[Prediction]]] = deque()
        with _progress(what, len(samples), quiet=quiet) as advance:
            for batch in self._batches(samples, prompt):
                decoded = self._decode(model, backbone, batch)
                asked = [
                    self.begin_scoring(one, group, backbone.prompt_version)
                    for one, group in zip(batch, decoded, strict=True)
                ]
                while waiting:
                    yield waiting.popleft()()
                waiting.extend(asked)
                advance(len(batch))
            while waiting:
                yield waiting.popleft()()

    def begin_scoring(
        self, prompt: Prompt, completions: Sequence[Completion], prompt_version: str
    ) -> Callable[[], list[Prediction]]:
        """Have a sample's completions scored. What is returned waits for the scores and gives the predictions.

        Args:
            prompt: of the sample.
            completions: what was written about it.
            prompt_version: of the prompt's template.
        """
        scored = self._scores.begin((prompt.sample, completion) for completion in completions)
        judge = _name_of(self.judge)
        return lambda: [
            prediction(
                prompt,
                completion,
                index=index,
                prompt_version=prompt_version,
                scores=score.components,
                judge=judge,
            )
            for index, (completion, score) in enumerate(zip(completions, scored(), strict=True))
        ]

    def score_again(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """The predictions with their scores asked for anew, all at once; a judge's cache knows what it said before."""
        scored = self._scores.score_all(from_record(one) for one in predictions)
        judge = _name_of(self.judge)
        return [
            one | {"scores": dict(score.components), "judge": judge}
            for one, score in zip(predictions, scored, strict=True)
        ]

    def _batches(self, samples: Sequence[Sample], prompt: Callable[[Sample], Prompt]) -> Iterator[list[Prompt]]:
        at_once = max(1, self.batch_size // self.samples_each)
        window = 4 * at_once  # prompts held at once: enough to find some of similar length
        for start in range(0, len(samples), window):
            prompts = sorted(map(prompt, samples[start : start + window]), key=lambda one: one.num_tokens)
            for first in range(0, len(prompts), at_once):
                yield prompts[first : first + at_once]

    def _decode(
        self, model: PreTrainedModel, backbone: Backbone, prompts: Sequence[Prompt]
    ) -> list[tuple[Completion, ...]]:
        if self.sampler is None:
            ones = greedy(model, backbone, prompts, max_new_tokens=self.max_new_tokens, stop=self.stop)
            return [(completion,) for completion in ones]
        slots = [(_slot(one.sample.id), one) for one in prompts]
        groups = self.sampler.rollout(model, backbone, slots, step=_SAMPLING_STEP, seed=self.seed)
        return [group.completions for group in groups]

    def _verdict(self, sample: Sample, completion: Completion) -> float | Future[float | None]:
        """The judge's score of the answer. An empty one scores 0 without asking."""
        answer = given_answer(completion.text)
        return begin_judging(self.judge, sample.question, sample.answer, answer) if answer else 0.0


def _exact_match(sample: Sample, completion: Completion) -> float:
    return ExactMatch()(sample.question, sample.answer, given_answer(completion.text))


def _name_of(judge: Judge) -> str:
    return getattr(judge, "name", type(judge).__name__)


def _slot(sample_id: str) -> int:
    """The sample's id as a number, so that its noise does not depend on what else is evaluated."""
    return int.from_bytes(hashlib.sha256(sample_id.encode()).digest()[:8], "big")


@contextmanager
def _progress(what: str, total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Says how far it got: a bar on a terminal, else a line for each quarter. Silent about few samples."""
    if quiet or total <= PROGRESS_FROM:
        yield lambda count: None
    elif sys.stderr.isatty():
        with tqdm(desc=what, total=total, unit="sample", dynamic_ncols=True, leave=False) as bar:
            yield bar.update
    else:
        done = 0

        def line(count: int) -> None:
            nonlocal done
            quarters = 4 * done // total
            done += count
            if 4 * done // total > quarters:
                print(f"{what}: {done}/{total} samples", file=sys.stderr, flush=True)

        yield line
