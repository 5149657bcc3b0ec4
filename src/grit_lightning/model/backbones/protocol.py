"""What the rest of the package asks of a model family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from PIL.Image import Image
from transformers import BaseImageProcessor, PreTrainedModel, PreTrainedTokenizerBase

from grit_lightning.types import Completion, FinishReason, Prompt, Sample


class Backbone(Protocol):
    """A model family bound to one checkpoint. Cheap to build: weights are read by :meth:`load_model` alone."""

    checkpoint: str
    prompt_version: str
    """Changes with the text of the prompt and with what the assistant's turn begins with."""
    tokenizer: PreTrainedTokenizerBase
    image_processor: BaseImageProcessor
    pad_token_id: int
    eos_token_ids: tuple[int, ...]
    banned_token_ids: tuple[int, ...]
    """Tokens that are never sampled: vision placeholders, padding, turn headers."""

    def encode(self, sample: Sample, image: Image) -> Prompt:
        """The prompt for a sample, ready for the model. Raises ``DataError`` for a sample that cannot be one."""
        ...

    def completion(self, token_ids: Sequence[int], finish: FinishReason, prompt: Prompt) -> Completion:
        """A completion with its decoded text."""
        ...

    def target(self, text: str, prompt: Prompt) -> Completion:
        """A completion of this text, closed as the model closes its turn: what it should write."""
        ...

    def weights_folder(self) -> str:
        """The folder or hub id that weights are read from."""
        ...

    def load_model(self) -> PreTrainedModel:
        """The model with its weights, in eval mode. Raises ``CheckpointError`` for a checkpoint that cannot be one."""
        ...

    def outline(self) -> PreTrainedModel:
        """The model without its weights, on the meta device: names, shapes, dtypes and what is trained."""
        ...

    def weight_bits(self, model: PreTrainedModel) -> dict[str, float]:
        """Bits each weight takes, by parameter name of the outline, where that is less than its dtype's."""
        ...

    def count_image_tokens(self, prompt: Prompt) -> int:
        """How many of a prompt's tokens are its image's."""
        ...
