"""The evaluator: decodes one greedy or several sampled completions per held-out sample and scores them."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any

from transformers import PreTrainedModel

from grit_lightning.errors import ConfigError
from grit_lightning.evaluation.during_training import DuringTraining
from grit_lightning.evaluation.metrics import metric_names
from grit_lightning.evaluation.predictions import EXACT_MATCH, JUDGE, Prediction, given_answer, prediction
from grit_lightning.grounding.options import chosen_option, shuffled, with_options
from grit_lightning.judge.exact import ExactMatch
from grit_lightning.judge.protocol import Judge, answer_for, begin_judging
from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.rewards.weighted_sum import Component, Rewards
from grit_lightning.rollout.engine import BUILT_IN, Engine
from grit_lightning.rollout.sampler import Sampler, greedy
from grit_lightning.runs.records import from_record
from grit_lightning.system.slow import counted
from grit_lightning.types import Completion, Prompt, Sample

_SAMPLING_STEP = 0
"""Takes the place of the optimizer step in the sampling-noise key ``(seed, step, slot)``; the slot is derived from
the sample id (:func:`_noise_slot`)."""


class Evaluator:
    """Decodes completions of samples and scores them. The default values live in ``conf/evaluation``.

    Args:
        max_new_tokens: maximum length of a completion in tokens; one that reaches it is recorded as truncated.
        stop: text that ends a completion; it stays part of the completion.
        batch_size: completions decoded at once, to bound memory. It changes predictions only by rounding.
        sampler: draws several completions of each sample; ``None`` to decode one completion greedily.
        seed: seed of the sampling noise.
        judge: scores an answer against the reference answer.
        measures: additional scores of a completion by name, with the signature of a reward component.
        resamples: number of bootstrap resamples for confidence intervals; 0 for no intervals.
        during_training: when a training run answers held-out samples; ``None`` for never.
        shuffle_options: seed of the order in which a sample's options are shown; ``None`` for that of the data.
        engine: decodes the completions; ``None`` for the built-in one.

    Raises:
        ConfigError: a value is out of range, or a measure has the name of a built-in score.
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
        during_training: DuringTraining | None = None,
        shuffle_options: int | None = None,
        engine: Engine | None = None,
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
            raise ConfigError(f"evaluation.measures.{taken.pop()} is a built-in score: expected another name")
        self.max_new_tokens = max_new_tokens
        self.stop = stop
        self.batch_size = batch_size
        self.engine = BUILT_IN if engine is None else engine
        self.sampler = None if sampler is None else replace(sampler, engine=self.engine)
        self.seed = seed
        self.judge = judge
        self.resamples = resamples
        self.during_training = during_training
        self.shuffle_options = shuffle_options
        fns: dict[str, Component] = {JUDGE: self._verdict, EXACT_MATCH: _exact_match, **measures}
        try:
            self._scores = Rewards({name: {"weight": 0, "fn": fn} for name, fn in fns.items()})
        except ConfigError as error:
            raise ConfigError(str(error).replace("reward.components", "evaluation.measures")) from None

    @property
    def samples_each(self) -> int:
        """The number of completions per sample."""
        return 1 if self.sampler is None else self.sampler.num_generations

    @property
    def metric_names(self) -> list[str]:
        """The names of the metrics of this evaluator's predictions."""
        return metric_names(self._measures, several=self.samples_each > 1)

    @property
    def _measures(self) -> list[str]:
        return [name for name in self._scores.names if name not in (JUDGE, EXACT_MATCH)]

    def settings(self) -> dict[str, Any]:
        """Return every setting that affects the predictions or their scores, as JSON-serialisable values."""
        sampling: str | dict[str, Any] = "greedy"
        if self.sampler is not None:
            names = ("num_generations", "temperature", "top_k", "top_p")
            sampling = {name: getattr(self.sampler, name) for name in names} | {"seed": self.seed}
        return {
            "decoding": {
                "max_new_tokens": self.max_new_tokens,
                "stop": self.stop,
                "sampling": sampling,
                **({} if self.engine.runs_policy else {"engine": self.engine.name}),
            },
            "judge": _judge_name(self.judge),
            "measures": self._measures,
            **({} if self.shuffle_options is None else {"shuffle_options": self.shuffle_options}),
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
        """Decode and score the samples, and yield the scored predictions of one sample at a time.

        The samples are reordered so that prompts of similar length share a batch. The judge scores one batch while the
        next is being decoded.

        Args:
            model: the policy, in eval mode; the caller disables gradients.
            backbone: the adapter of the model's family.
            samples: the samples to answer.
            prompt: builds the prompt of a sample.
            what: description of the work, shown with the progress.
            quiet: True to report no progress.
        """
        samples = [self._shuffled(sample) for sample in samples]
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
        """Start scoring the completions of one sample; return a function that waits and returns the predictions.

        Args:
            prompt: the prompt of the sample.
            completions: the completions of that prompt.
            prompt_version: version of the prompt template.
        """
        scored = self._scores.begin((prompt.sample, completion) for completion in completions)
        judge = _judge_name(self.judge)
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
        """Score the predictions again, all at once, and return them with the new scores; a judge may use its cache."""
        scored = self._scores.score_all(from_record(one) for one in predictions)
        judge = _judge_name(self.judge)
        return [
            one | {"scores": dict(score.components), "judge": judge}
            for one, score in zip(predictions, scored, strict=True)
        ]

    def _shuffled(self, sample: Sample) -> Sample:
        if self.shuffle_options is None or not sample.options:
            return sample
        return replace(sample, options=shuffled(sample.options, key=f"{self.shuffle_options}/{sample.id}"))

    def _batches(self, samples: Sequence[Sample], prompt: Callable[[Sample], Prompt]) -> Iterator[list[Prompt]]:
        at_once = max(1, self.batch_size // self.samples_each)
        window = 4 * at_once  # prompts in memory: enough to group prompts of similar length
        for start in range(0, len(samples), window):
            prompts = sorted(map(prompt, samples[start : start + window]), key=lambda one: one.num_tokens)
            for first in range(0, len(prompts), at_once):
                yield prompts[first : first + at_once]

    def _decode(
        self, model: PreTrainedModel, backbone: Backbone, prompts: Sequence[Prompt]
    ) -> list[tuple[Completion, ...]]:
        if self.sampler is None:
            ones = greedy(
                model, backbone, prompts, max_new_tokens=self.max_new_tokens, stop=self.stop, engine=self.engine
            )
            return [(completion,) for completion in ones]
        slots = [(_noise_slot(one.sample.id), one) for one in prompts]
        groups = self.sampler.rollout(model, backbone, slots, step=_SAMPLING_STEP, seed=self.seed)
        return [group.completions for group in groups]

    def _verdict(self, sample: Sample, completion: Completion) -> float | Future[float | None]:
        """Return the judge's score of the answer. An empty answer scores 0 and is not sent to the judge."""
        answer = answer_for(self.judge, given_answer(completion.text), sample.options)
        question = with_options(sample.question, sample.options)
        return begin_judging(self.judge, question, sample.answer, answer) if answer else 0.0


def _exact_match(sample: Sample, completion: Completion) -> float:
    answer = chosen_option(given_answer(completion.text), sample.options)
    return ExactMatch()(sample.question, sample.answer, answer)


def _judge_name(judge: Judge) -> str:
    return getattr(judge, "name", type(judge).__name__)


def _noise_slot(sample_id: str) -> int:
    """Hash the sample id to a number, so that a sample's noise does not depend on which other samples are evaluated."""
    return int.from_bytes(hashlib.sha256(sample_id.encode()).digest()[:8], "big")


_progress = partial(counted, unit="sample", after=4, leave=False)
