"""Answers of a model to questions about an uploaded image, as records that grow token by token."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import PreTrainedModel

from grit_lightning.data.images import has_too_many_pixels, load_image
from grit_lightning.errors import DataError, UserError
from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.rewards.weighted_sum import Rewards
from grit_lightning.rollout.choice import Draw, Greedy
from grit_lightning.rollout.streaming import stream
from grit_lightning.runs.records import completion_fields, prompt_fields
from grit_lightning.types import IMAGE_MARK, Completion, ImageFile, Prompt, Sample

LONGEST_QUESTION = 4000
"""Characters of a question."""


class Answerer:
    """Answers questions with one model under several prompts.

    Args:
        model: the model, in eval mode.
        backbone_of: returns the backbone that asks under the prompt of a name.
        prompts: names of the prompts.
        rewards: the reward, which is computed where a reference answer is given.
        max_new_tokens: limit on the tokens of an answer.
        stop: text that ends an answer and is part of it.
        temperature: temperature of sampled answers.
        max_prompt_tokens: limit on the tokens of a prompt, those of the image included.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        backbone_of: Callable[[str], Backbone],
        prompts: Sequence[str],
        rewards: Rewards,
        *,
        max_new_tokens: int,
        stop: str,
        temperature: float,
        max_prompt_tokens: int,
    ) -> None:
        self.model = model
        self.prompts = list(prompts)
        self.temperature = temperature
        self._backbone_of = backbone_of
        self._rewards = rewards
        self._limits: dict[str, Any] = {"max_new_tokens": max_new_tokens, "stop": stop}
        self._max_prompt_tokens = max_prompt_tokens

    def answer(
        self, image: Path | None, question: str, *, prompt: str, sampled: bool, reference: str
    ) -> Iterator[Mapping[str, Any]]:
        """Yield the record of the answer as it grows; the last one is whole.

        The records are those of ``runs.records``. With a reference answer the last one has ``rewards`` and ``reward``.

        Args:
            image: the uploaded file; ``None`` if there is none.
            question: the question.
            prompt: name of the prompt.
            sampled: True to sample at ``temperature``, False for the most likely tokens.
            reference: the reference answer; empty for none.

        Raises:
            UserError: the image cannot be used, or the question is empty or too long.
        """
        backbone = self._backbone_of(prompt)
        encoded = self._encoded(backbone, image, question, reference)
        banned = backbone.banned_token_ids
        choose = Draw(self.temperature, 0, 1.0, banned) if sampled else Greedy(banned)
        completion: Completion | None = None
        for completion in stream(
            self.model, backbone, encoded, choose=choose, key=random.getrandbits(63), **self._limits
        ):
            yield _record(encoded, completion)
        assert completion is not None
        if reference.strip():
            (score,) = self._rewards.score_all([(encoded.sample, completion)])
            scored = {"rewards": dict(score.components), "reward": score.total}
            yield _record(encoded, completion) | scored

    def _encoded(self, backbone: Backbone, image: Path | None, question: str, reference: str) -> Prompt:
        if image is None:
            raise UserError("choose an image first")
        if not question.strip():
            raise UserError("ask a question about the image")
        if len(question) > LONGEST_QUESTION:
            raise UserError(f"the question has {len(question)} characters, expected at most {LONGEST_QUESTION}")
        if question.count(IMAGE_MARK) > 1:
            raise UserError(
                f"the question says {IMAGE_MARK} {question.count(IMAGE_MARK)} times, but there is one image"
            )
        file = ImageFile(image, _size(image))
        sample = Sample("demo/1", question, reference.strip(), (file,), (), "demo", "demo", "demo")
        try:
            encoded = backbone.encode(sample, [load_image(file, "")])
        except DataError as error:
            raise UserError(_without_path(str(error), image)) from error
        if encoded.num_tokens > self._max_prompt_tokens:
            raise UserError(
                f"the image and the question take {encoded.num_tokens} tokens, expected at most "
                f"{self._max_prompt_tokens} (data.max_prompt_tokens)"
            )
        return encoded


def _size(image: Path) -> tuple[int, int]:
    """Return the size of an image from its header.

    Raises:
        UserError: it is no image, or has too many pixels.
    """
    try:
        with Image.open(image) as header:
            size = header.size
    except Exception as error:  # Pillow's decoders raise almost anything on malformed bytes
        raise UserError(f"{image.name} is not an image that can be read") from error
    if has_too_many_pixels(size):
        limit = f"{(Image.MAX_IMAGE_PIXELS or 0) // 10**6} million"
        raise UserError(f"{image.name} is {size[0]} × {size[1]} px, expected at most {limit} pixels")
    return size


def _without_path(text: str, image: Path) -> str:
    return text.replace(str(image), image.name).removeprefix(": ")


def _record(prompt: Prompt, completion: Completion) -> dict[str, Any]:
    fields = completion_fields(completion, prompt.sample.sizes)
    # A character of several tokens that is not complete yet decodes to the replacement character.
    return {**prompt_fields(prompt), **fields, "text": completion.text.rstrip("\ufffd")}
